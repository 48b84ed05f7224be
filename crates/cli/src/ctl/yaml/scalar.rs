//! One scalar: which quotes it needs, and where a long one is folded.

use serde_json::Number;

use super::resolve::is_not_text;

/// The column after which a text is folded at its next space.
const WIDTH: usize = 200;

/// Where a text stands; some characters mean something only there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A value or an entry, on lines of its own.
    Block,
    /// Inside `{}` or `[]`.
    Flow,
    /// A key, which has to stay on one line.
    Key {
        /// True inside `{}`.
        flow: bool,
    },
}

/// The ways to write a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    SingleQuoted,
    DoubleQuoted,
}

/// The text written so far and the column it has reached, in characters.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// What was written.
    pub(super) text: String,
    column: usize,
}

impl Writer {
    /// Writes text without line breaks.
    pub(super) fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.column += text.chars().count();
    }

    /// Starts a new line at column `indent`.
    pub(super) fn line_break(&mut self, indent: usize) {
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n(' ', indent));
        self.column = indent;
    }

    /// Writes a text with the quotes that it needs; further lines of it start at column `indent`.
    pub(super) fn scalar(&mut self, text: &str, place: Place, indent: usize) {
        let may_fold = place == Place::Block;
        match style(text, place) {
            Style::Plain => self.words(text, indent, may_fold),
            Style::SingleQuoted => {
                self.push("'");
                self.words(&text.replace('\'', "''"), indent, may_fold);
                self.push("'");
            }
            Style::DoubleQuoted => self.double_quoted(text, indent, may_fold),
        }
    }

    /// Writes text that needs no escapes. A single space after [`WIDTH`] becomes a line break; a line break of the text
    /// becomes two, because a reader folds one into a space.
    fn words(&mut self, text: &str, indent: usize, may_fold: bool) {
        let characters: Vec<char> = text.chars().collect();
        for (at, &character) in characters.iter().enumerate() {
            let previous = at.checked_sub(1).map(|before| characters[before]);
            let next = characters.get(at + 1).copied();
            match character {
                _ if is_line_break(character) => {
                    if character == '\n' && !previous.is_some_and(is_line_break) {
                        self.text.push('\n');
                    }
                    self.text.push(character);
                    if !next.is_some_and(is_line_break) {
                        self.text.extend(std::iter::repeat_n(' ', indent));
                        self.column = indent;
                    }
                }
                ' ' if may_fold
                    && self.column > WIDTH
                    && previous.is_some_and(|c| c != ' ')
                    && next.is_some_and(|c| c != ' ') =>
                {
                    self.line_break(indent);
                }
                other => {
                    self.text.push(other);
                    self.column += 1;
                }
            }
        }
    }

    fn double_quoted(&mut self, text: &str, indent: usize, may_fold: bool) {
        self.push("\"");
        let characters: Vec<char> = text.chars().collect();
        // Characters that are not written yet are `start..end`.
        let (mut start, mut end) = (0, 0);
        while end <= characters.len() {
            let character = characters.get(end).copied();
            let escape = character.and_then(escaped);
            if character.is_none() || escape.is_some() {
                self.push(&characters[start..end].iter().collect::<String>());
                start = end;
                if let Some(escape) = escape {
                    self.push(&escape);
                    start += 1;
                }
            }
            let inside = end > 0 && end + 1 < characters.len();
            if may_fold && inside && (character == Some(' ') || start >= end) && self.column + end > WIDTH + start {
                if start < end {
                    self.push(&characters[start..end].iter().collect::<String>());
                    start = end;
                }
                self.push("\\");
                self.line_break(indent);
                if characters.get(start) == Some(&' ') {
                    self.push("\\");
                }
            }
            end += 1;
        }
        self.push("\"");
    }
}

/// A number as Python prints it.
pub(super) fn number(number: &Number) -> String {
    if number.is_f64() { float(number.as_f64().unwrap_or_default()) } else { number.to_string() }
}

/// Python's shortest form, with a dot even where only an exponent follows, so that it is read as a float again.
fn float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        return format!("{value:?}");
    }
    let mantissa = if mantissa.contains('.') { mantissa.to_owned() } else { format!("{mantissa}.0") };
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

fn style(text: &str, place: Place) -> Style {
    let (flow, is_key) = match place {
        Place::Block => (false, false),
        Place::Flow => (true, false),
        Place::Key { flow } => (flow, true),
    };
    let needs = Needs::of(text);
    let forbids_plain = if flow { needs.quotes_in_flow } else { needs.quotes_in_block };
    // PyYAML breaks the line here; one line stays one line for us.
    let must_be_joined = (is_key || flow) && needs.several_lines;
    if !is_not_text(text) && !forbids_plain && !must_be_joined {
        Style::Plain
    } else if !needs.escapes && !must_be_joined {
        Style::SingleQuoted
    } else {
        Style::DoubleQuoted
    }
}

/// What the characters of a text ask for.
#[derive(Debug, Default)]
struct Needs {
    quotes_in_block: bool,
    quotes_in_flow: bool,
    escapes: bool,
    several_lines: bool,
}

impl Needs {
    fn of(text: &str) -> Needs {
        let characters: Vec<char> = text.chars().collect();
        let mut needs = Needs { quotes_in_flow: text.is_empty(), ..Needs::default() };
        let has_markers = text.starts_with("---") || text.starts_with("...");
        needs.quote_everywhere(has_markers);
        let last = characters.len().saturating_sub(1);
        for (at, &character) in characters.iter().enumerate() {
            let previous = at.checked_sub(1).map(|before| characters[before]);
            let ends_a_word = characters.get(at + 1).is_none_or(|&next| is_blank(next));
            let starts_a_word = previous.is_none_or(is_blank);
            match character {
                '#' if starts_a_word => needs.quote_everywhere(true),
                ':' => {
                    needs.quotes_in_flow = true;
                    needs.quotes_in_block |= ends_a_word;
                }
                '?' => {
                    needs.quotes_in_flow = true;
                    needs.quotes_in_block |= at == 0 && ends_a_word;
                }
                '-' if at == 0 && ends_a_word => needs.quote_everywhere(true),
                ',' | '[' | ']' | '{' | '}' => {
                    needs.quotes_in_flow = true;
                    needs.quotes_in_block |= at == 0;
                }
                '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' if at == 0 => needs.quote_everywhere(true),
                ' ' => {
                    needs.quote_everywhere(at == 0 || at == last);
                    // A space at the start of a line would be lost in folding.
                    needs.escapes |= previous.is_some_and(is_line_break);
                }
                _ if is_line_break(character) => {
                    needs.several_lines = true;
                    needs.quote_everywhere(true);
                    needs.escapes |= previous == Some(' ');
                }
                _ => {}
            }
            needs.escapes |= !is_printable(character);
        }
        needs.quote_everywhere(needs.escapes);
        needs
    }

    fn quote_everywhere(&mut self, condition: bool) {
        self.quotes_in_block |= condition;
        self.quotes_in_flow |= condition;
    }
}

fn is_line_break(character: char) -> bool {
    matches!(character, '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_blank(character: char) -> bool {
    is_line_break(character) || matches!(character, '\0' | ' ' | '\t' | '\r')
}

/// True for characters that stand for themselves in every style.
fn is_printable(character: char) -> bool {
    match character {
        '\u{feff}' => false,
        '\n' | '\u{85}' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' => true,
        other => ('\u{10000}'..'\u{10ffff}').contains(&other),
    }
}

/// The escape that a character needs between double quotes.
fn escaped(character: char) -> Option<String> {
    let short = match character {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        ' '..='~' => return None,
        '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}' | '\u{ff00}'..='\u{fffd}' => return None,
        other => {
            let code = u32::from(other);
            return Some(match code {
                0..=0xff => format!("\\x{code:02X}"),
                0x100..=0xffff => format!("\\u{code:04X}"),
                _ => format!("\\U{code:08X}"),
            });
        }
    };
    Some(format!("\\{short}"))
}
