//! The text of `synchronous_standby_names` (SYN-6).

use std::fmt;

use super::{Names, PLACEHOLDER};

/// How the listed standbys are chosen from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Method {
    /// The first so many that are connected (`FIRST`, or nothing).
    Priority,
    /// Any so many (`ANY`).
    Quorum,
}

/// Whose confirmation a commit waits for.
///
/// No names and a count of zero: for nobody. No names and a higher count: for a placeholder, for ever.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StandbyNames {
    /// Which of them.
    pub method: Method,
    /// How many of them.
    pub count: u32,
    /// Those listed. `*` stands for everybody and is nobody's name.
    pub names: Names,
}

/// A text that PostgreSQL would not accept either.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a list of standbys: {problem}")]
pub struct UnreadableSetting {
    text: String,
    problem: &'static str,
}

impl StandbyNames {
    /// `count` of `names`.
    pub fn new(method: Method, count: u32, names: Names) -> StandbyNames {
        StandbyNames { method, count, names }
    }

    /// For nobody.
    pub fn nobody() -> StandbyNames {
        StandbyNames::new(Method::Priority, 0, Names::default())
    }

    /// Each of `names` confirms each commit.
    pub fn all_of(names: Names) -> StandbyNames {
        StandbyNames::new(Method::Priority, super::count_of(names.len()), names)
    }

    /// True when commits wait for somebody, who need not exist.
    pub fn is_in_force(&self) -> bool {
        self.count > 0
    }

    /// True when each listed standby confirms each commit.
    pub fn requires_all(&self) -> bool {
        !self.names.is_empty() && usize::try_from(self.count).is_ok_and(|count| count >= self.names.len())
    }

    /// How many of the listed ones confirm each commit: never more than there are.
    pub fn effective_count(&self) -> usize {
        usize::try_from(self.count).map_or(self.names.len(), |count| count.min(self.names.len()))
    }

    /// True when commits wait for the same as with `other`, written in the same form.
    pub fn is_same(&self, other: &StandbyNames) -> bool {
        if self.names.is_empty() && other.names.is_empty() {
            return self.is_in_force() == other.is_in_force();
        }
        self.names == other.names && self.method == other.method && self.count == other.count
    }

    /// Reads the setting as PostgreSQL shows it.
    ///
    /// # Errors
    /// [`UnreadableSetting`] for a text that PostgreSQL would refuse.
    pub fn parse(text: &str) -> Result<StandbyNames, UnreadableSetting> {
        let refuse = |problem| UnreadableSetting { text: text.to_owned(), problem };
        let tokens = tokens(text).map_err(refuse)?;
        let (method, count, list) = match tokens.as_slice() {
            [] => return Ok(StandbyNames::nobody()),
            [Token::Word(method), Token::Word(count), Token::Open, list @ .., Token::Close]
                if method.eq_ignore_ascii_case("first") || method.eq_ignore_ascii_case("any") =>
            {
                let quorum = method.eq_ignore_ascii_case("any");
                (if quorum { Method::Quorum } else { Method::Priority }, Some(count), list)
            }
            [Token::Word(count), Token::Open, list @ .., Token::Close] => (Method::Priority, Some(count), list),
            list => (Method::Priority, None, list),
        };
        let count = match count {
            Some(count) => count.parse().ok().filter(|count| *count > 0).ok_or_else(|| refuse("a count is missing"))?,
            None => 1,
        };
        let mut names = Names::default();
        for (position, token) in list.iter().enumerate() {
            match (position % 2, token) {
                (0, Token::Word(name) | Token::Quoted(name)) => names.insert(name),
                (1, Token::Comma) => {}
                (_, _) => return Err(refuse("names are separated by commas")),
            }
        }
        if list.len() % 2 == 0 {
            return Err(refuse("a name is missing"));
        }
        if names.len() == 1 && names.contains(PLACEHOLDER) {
            return Ok(StandbyNames::new(method, count, Names::default()));
        }
        Ok(StandbyNames::new(method, count, names))
    }
}

impl fmt::Display for StandbyNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return Ok(());
        }
        if self.names.is_empty() {
            return f.write_str(PLACEHOLDER);
        }
        let list = self.names.iter().map(quoted).collect::<Vec<_>>().join(",");
        match (self.method, self.names.len(), self.count) {
            (Method::Quorum, _, count) => write!(f, "ANY {count} ({list})"),
            (Method::Priority, 1, 1) => f.write_str(&list),
            (Method::Priority, _, count) => write!(f, "{count} ({list})"),
        }
    }
}

/// A name as PostgreSQL reads it back: bare when it is a plain word.
fn quoted(name: &str) -> String {
    let is_keyword = name.eq_ignore_ascii_case("first") || name.eq_ignore_ascii_case("any");
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let goes_on = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$');
    if begins && goes_on && !is_keyword { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

#[derive(Debug, PartialEq)]
enum Token {
    Word(String),
    Quoted(String),
    Open,
    Close,
    Comma,
}

fn tokens(text: &str) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            c if c.is_ascii_whitespace() => {}
            '(' => tokens.push(Token::Open),
            ')' => tokens.push(Token::Close),
            ',' => tokens.push(Token::Comma),
            '*' => tokens.push(Token::Word("*".to_owned())),
            '"' => {
                let mut name = String::new();
                loop {
                    match rest.next() {
                        Some('"') if rest.next_if_eq(&'"').is_some() => name.push('"'),
                        Some('"') => break,
                        Some(c) => name.push(c),
                        None => return Err("a quotation mark is not closed"),
                    }
                }
                tokens.push(Token::Quoted(name));
            }
            c if is_word(c) => {
                let mut word = c.to_string();
                while let Some(c) = rest.next_if(|c| is_word(*c)) {
                    word.push(c);
                }
                tokens.push(Token::Word(word));
            }
            _ => return Err("a name with other characters than letters and digits has to be quoted"),
        }
    }
    Ok(tokens)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}
