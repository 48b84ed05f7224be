//! The rules that code and tests cite, and the page that defines them, `docs/reference/ha-rules.md`, agree.
//!
//! - What code cites is defined.
//! - What is defined is proven by a test that cites it, or marked "not yet built".
//!
//! Tests of other crates whose names say what they prove are listed in [`PROVEN_BY`]; the list is checked, too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use pgward_core::decide::Reason;

/// Things that look like a rule and are none.
const OTHER_NAMES: [&str; 4] = ["UTF", "SHA", "ISO", "RFC"];

/// Rules proven by tests that do not cite them: the rules, the file, the test.
const PROVEN_BY: &[(&str, &str, &str)] = &[];

/// A rule, taken apart so that ranges can be counted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rule {
    family: String,
    number: u32,
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.family, self.number)
    }
}

/// All rules in a text: two to four capitals, a hyphen, perhaps a letter, a number; `RWD-5…7` is three of them, and
/// so is `QRM-I1…I3`.
fn rules_in(text: &str) -> BTreeSet<Rule> {
    let mut found = BTreeSet::new();
    let letters: Vec<char> = text.chars().collect();
    let is_word = |at: usize| letters.get(at).is_some_and(|c| c.is_alphanumeric() || *c == '_' || *c == '-');
    let mut at = 0;
    while at < letters.len() {
        let begins = letters[at].is_ascii_uppercase() && (at == 0 || !is_word(at - 1));
        match begins.then(|| rule_at(&letters, at)).flatten() {
            Some((rules, end)) if !is_word(end) => {
                found.extend(rules);
                at = end;
            }
            Some(_) | None => at += 1,
        }
    }
    found
}

fn rule_at(letters: &[char], begin: usize) -> Option<(Vec<Rule>, usize)> {
    let capitals = letters[begin..].iter().take_while(|c| c.is_ascii_uppercase()).count();
    let hyphen = begin + capitals;
    if !(2..=4).contains(&capitals) || letters.get(hyphen) != Some(&'-') {
        return None;
    }
    let family_end = hyphen + 1 + usize::from(letters.get(hyphen + 1).is_some_and(char::is_ascii_uppercase));
    let family: String = letters[begin..family_end].iter().collect();
    let (first, mut end) = number_at(letters, family_end)?;
    let mut last = first;
    if letters.get(end) == Some(&'…') {
        let again = end + 1 + usize::from(letters.get(end + 1).is_some_and(char::is_ascii_uppercase));
        if let Some((number, behind)) = number_at(letters, again) {
            (last, end) = (number, behind);
        }
    }
    let rules = (first..=last).map(|number| Rule { family: family.clone(), number }).collect();
    Some((rules, end))
}

fn number_at(letters: &[char], begin: usize) -> Option<(u32, usize)> {
    let digits: String = letters.get(begin..)?.iter().take_while(|c| c.is_ascii_digit()).collect();
    let number = digits.parse().ok()?;
    Some((number, begin + digits.len()))
}

/// What the page defines: the first cell of each row; and whether the row says that it is not yet built.
fn defined() -> BTreeMap<Rule, bool> {
    let mut defined = BTreeMap::new();
    for line in read(&root().join("docs/reference/ha-rules.md")).lines() {
        let Some((id, text)) = line.strip_prefix("| ").and_then(|row| row.split_once(" | ")) else { continue };
        let not_built = text.to_lowercase().contains("**not yet built");
        for rule in rules_in(id) {
            assert!(defined.insert(rule.clone(), not_built).is_none(), "{rule} is defined twice");
        }
        let letter = id.strip_prefix("IN-").filter(|letter| letter.len() == 1);
        assert!(letter.is_some() || id.contains(' ') || !id.contains('-') || !rules_in(id).is_empty(), "{id}");
    }
    defined
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// All files below a directory, in their order.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths.iter().flat_map(|path| if path.is_dir() { files(path) } else { vec![path.clone()] }).collect()
}

/// Sources of the crates, each with its text for users and its text for tests.
fn sources() -> Vec<(PathBuf, String, String)> {
    let crates = fs::read_dir(root().join("crates")).expect("the crates are where they were").flatten();
    let sources = crates.flat_map(|entry| files(&entry.path().join("src")));
    let mut split = Vec::new();
    for path in sources.filter(|path| path.extension().is_some_and(|extension| extension == "rs")) {
        let text = read(&path);
        let shown = path.to_string_lossy().replace('\\', "/");
        // The conformance suite of the stores is called by their tests alone.
        let only_tests =
            shown.contains("/tests/") || shown.ends_with("/tests.rs") || shown.ends_with("/conformance.rs");
        let (code, tests) = match text.find("#[cfg(test)]\nmod tests {") {
            _ if only_tests => (String::new(), text),
            Some(at) => (text[..at].to_owned(), text[at..].to_owned()),
            None => (text, String::new()),
        };
        split.push((path, code, tests));
    }
    split
}

fn is_rule(rule: &Rule) -> bool {
    !OTHER_NAMES.contains(&rule.family.split('-').next().unwrap_or_default())
}

/// What tests cite: in the crates, beside them, and in the package of the whole-system tests.
fn cited_by_tests() -> BTreeSet<Rule> {
    let mut texts: Vec<String> = sources().into_iter().map(|(_, _, tests)| tests).collect();
    let crates = fs::read_dir(root().join("crates")).expect("the crates are where they were").flatten();
    let beside = crates.flat_map(|entry| files(&entry.path().join("tests")));
    let this = Path::new(file!()).file_name();
    texts.extend(beside.filter(|path| path.file_name() != this).map(|path| read_text(&path)));
    texts.extend(files(&root().join("tests/it")).iter().map(|path| read_text(path)));
    let listed = PROVEN_BY.iter().map(|(rules, _, _)| (*rules).to_owned());
    texts.iter().cloned().chain(listed).flat_map(|text| rules_in(&text)).filter(is_rule).collect()
}

/// A test may have files that are no text.
fn read_text(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn list<'r>(rules: impl IntoIterator<Item = &'r Rule>) -> String {
    rules.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_rule_that_code_cites_is_defined() {
    let defined = defined();
    let mut missing = Vec::new();
    for (path, code, tests) in sources() {
        let unknown: Vec<Rule> = rules_in(&format!("{code}\n{tests}"))
            .into_iter()
            .filter(|rule| is_rule(rule) && !defined.contains_key(rule))
            .collect();
        if !unknown.is_empty() {
            missing.push(format!("{}: {}", path.display(), list(&unknown)));
        }
    }
    let reasons: BTreeSet<Rule> = Reason::all_rules().iter().flat_map(|rule| rules_in(rule)).collect();
    assert_eq!(reasons.len(), Reason::all_rules().iter().collect::<BTreeSet<_>>().len(), "a reason cites no rule");
    let unknown: Vec<&Rule> = reasons.iter().filter(|rule| !defined.contains_key(rule)).collect();
    if !unknown.is_empty() {
        missing.push(format!("reasons: {}", list(unknown)));
    }
    assert!(missing.is_empty(), "define these in docs/reference/ha-rules.md:\n{}", missing.join("\n"));
}

#[test]
fn every_rule_is_proven_by_a_test_or_marked_as_not_yet_built() {
    let cited = cited_by_tests();
    let unproven: Vec<Rule> = defined()
        .into_iter()
        .filter(|(rule, not_built)| !not_built && !cited.contains(rule))
        .map(|(rule, _)| rule)
        .collect();
    assert!(
        unproven.is_empty(),
        "no test cites these; cite each in the test that proves it, or mark it as not yet built:\n{}",
        list(&unproven)
    );
}

#[test]
fn rules_that_tests_cite_are_defined() {
    let defined = defined();
    let unknown: Vec<Rule> = cited_by_tests().into_iter().filter(|rule| !defined.contains_key(rule)).collect();
    assert!(unknown.is_empty(), "tests cite rules that are not defined: {}", list(&unknown));
}

#[test]
fn the_tests_in_the_list_exist() {
    for (rules, file, test) in PROVEN_BY {
        let text = read(&root().join(file));
        assert!(
            text.contains(&format!("fn {test}(")),
            "{rules}: {file} has no test {test}; name the one that proves it"
        );
        assert!(!rules_in(rules).is_empty(), "{rules:?} names no rule");
    }
}

#[test]
fn rules_are_found_in_any_text() {
    let found = |text: &str| list(&rules_in(text));
    assert_eq!(
        found("PRO-12, RWD-5…7 (MAN-L1) `DCS-E2`: QRM-I1…I2."),
        "DCS-E2 MAN-L1 PRO-12 QRM-I1 QRM-I2 RWD-5 RWD-6 RWD-7"
    );
    assert_eq!(found("FNV-1a X-1 ABCDE-1 pre-PRO-1 PRO-1a RACE-10"), "RACE-10");
}
