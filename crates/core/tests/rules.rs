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
const PROVEN_BY: &[(&str, &str, &str)] = &[
    ("BOO-10 INV-S19 IN-P11 IN-P13", "crates/postgres/tests/it/lifecycle.rs", "a_new_cluster_is_created_and_observed"),
    ("BOO-15", "tests/it/identity.rs", "another_clusters_data_and_a_name_in_use_are_refused"),
    ("CYC-18", "tests/it/bootstrap.rs", "three_empty_nodes_started_at_once_become_one_cluster"),
    ("DCS-8", "crates/store/tests/it/heal.rs", "the_loss_of_the_quorum_is_unknown_and_ends"),
    ("DCS-11 IN-D4", "crates/core/src/cluster/tests.rs", "status_is_read_in_all_three_formats"),
    ("DCS-E1", "crates/store/src/conformance.rs", "a_lease_that_ends_takes_its_keys_with_it"),
    ("DCS-E3", "crates/store/tests/it/heal.rs", "a_request_whose_answer_was_lost_is_repeated_without_harm"),
    ("DCS-E4 DCS-E5", "crates/store/src/conformance.rs", "the_view_shows_every_change_in_order"),
    ("DCS-E6", "crates/store/src/etcd/term.rs", "an_older_term_is_refused_until_nobody_knows_the_newer_one_any_more"),
    ("DCS-E7", "crates/store/tests/it/heal.rs", "a_watch_survives_compaction_while_it_was_cut_off"),
    ("DCS-E8", "crates/store/src/etcd/fault.rs", "only_answers_that_are_the_same_everywhere_are_final"),
    ("DEM-2 DEM-4 DEM-6 DEM-7 DEM-8", "tests/it/switchover.rs", "a_switchover_moves_the_primary_and_loses_nothing"),
    ("DEM-5", "crates/core/src/decide/tests/down.rs", "a_stopped_server_waits_a_moment_for_its_successor"),
    ("DIR-11 IN-P9", "crates/postgres/src/instance.rs", "only_a_directory_without_content_is_empty"),
    ("FOL-14", "crates/postgres/src/recovery.rs", "targets_are_emptied_whatever_is_configured"),
    ("HIS-2", "crates/core/src/decide/tests/promoting.rs", "a_fresh_primary_checkpoints_and_writes_history"),
    ("INV-S23", "crates/core/src/decide/tests/held.rs", "a_history_is_written_once_even_when_a_timeline_was_skipped"),
    (
        "IN-C1 IN-C2 IN-C3 TIM-1",
        "crates/core/src/config/dynamic.rs",
        "timing_leaves_room_for_two_retries_within_the_lease",
    ),
    ("IN-C5", "crates/core/src/decide/tests/racing.rs", "a_replica_stands_only_when_nobody_is_fitter"),
    ("IN-C15", "crates/agent/src/record.rs", "slots_of_members_that_are_away_are_kept_for_a_while"),
    ("IN-C21", "crates/core/src/config/dynamic.rs", "a_stop_timeout_counts_only_with_synchronous_mode"),
    (
        "IN-C22",
        "crates/core/src/config/dynamic.rs",
        "synchronous_mode_is_off_on_or_quorum_and_never_in_a_standby_cluster",
    ),
    ("IN-D10 IN-D8", "crates/core/src/cluster/tests.rs", "history_gives_the_cluster_timeline"),
    ("IN-P1", "crates/agent/tests/rest/golden.rs", "metrics_are_those_that_were_recorded"),
    ("IN-P2 IN-P7", "crates/agent/src/record.rs", "records_are_written_as_patroni_writes_them"),
    ("IN-P3", "crates/postgres/tests/it/lifecycle.rs", "a_stale_pid_file_of_somebody_else_does_not_hinder"),
    ("IN-P4", "crates/core/src/decide/tests/leading.rs", "a_leader_keeps_leading_only_under_a_proven_lease"),
    ("IN-P5", "crates/postgres/src/monitor.rs", "the_position_of_a_standby_is_the_furthest_it_has"),
    ("IN-P8", "crates/postgres/src/control.rs", "the_fields_of_all_supported_versions_are_read"),
    ("IN-P12", "crates/postgres/src/recovery.rs", "a_parameter_that_the_server_lost_in_16_is_not_written"),
    ("IN-T1", "crates/core/src/cluster/tests.rs", "a_missing_nofailover_tag_leaves_the_word_to_the_priority"),
    ("IN-T3", "crates/core/src/config/tags.rs", "the_boolean_wins_over_the_priority"),
    ("MAN-V1…7", "crates/agent/tests/rest/moving.rs", "refusals_come_in_order_and_in_the_words_that_scripts_know"),
    ("MAN-V8 MAN-V9", "crates/agent/tests/rest/moving.rs", "the_answer_comes_with_the_change_of_leader"),
    ("MAN-V10", "crates/agent/tests/rest/moving.rs", "a_switchover_can_be_scheduled_and_taken_back"),
    ("MEM-8", "crates/core/src/decide/tests/down.rs", "a_replica_compares_with_a_moved_leader_once"),
    ("PEER-2 PEER-3 PEER-5", "crates/agent/src/http/peer.rs", "a_status_document_tells_what_a_race_needs"),
    ("PEER-4", "crates/core/src/decide/tests/racing.rs", "a_replica_stands_only_when_nobody_is_fitter"),
    ("SHD-2", "crates/core/src/decide/tests/down.rs", "a_foreign_or_unknown_directory_is_never_touched"),
    ("SLT-1", "crates/core/src/names.rs", "slot_names_follow_the_rule_that_peers_apply_too"),
    (
        "STP-1 STP-2 STP-4 STP-7",
        "crates/postgres/tests/it/stop.rs",
        "a_server_that_ignores_everything_is_killed_with_its_children",
    ),
    ("STP-6", "crates/postgres/tests/it/stop.rs", "the_last_record_is_known_while_the_server_still_archives"),
];

/// Rules that are built and have no test yet: what the agent does with slots and the status, with a stop that fails, with
/// a late decision, with a changed `ttl`. The list may only become shorter.
const UNPROVEN: &str = "DCS-E9 DEM-12 IN-C10 IN-P6 INV-S28 QRK-8 SHD-6";

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
    texts.extend(beside.filter(|path| !only_mentions_rules(path)).map(|path| read_text(&path)));
    texts.extend(files(&root().join("tests/it")).iter().map(|path| read_text(path)));
    let listed = PROVEN_BY.iter().map(|(rules, _, _)| (*rules).to_owned());
    texts.iter().cloned().chain(listed).flat_map(|text| rules_in(&text)).filter(is_rule).collect()
}

/// This file, and the model behind the scenarios: there the scripts and the checks prove something.
fn only_mentions_rules(path: &Path) -> bool {
    let is_model = path.parent().is_some_and(|parent| parent.ends_with("scenarios"));
    let is_code = path.extension().is_some_and(|extension| extension == "rs");
    let checks = ["invariants.rs", "walk.rs"].iter().any(|name| path.ends_with(name));
    is_code && (is_model && !checks || path.file_name() == Path::new(file!()).file_name())
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
    let excused = rules_in(UNPROVEN);
    let superfluous: Vec<&Rule> = excused.iter().filter(|rule| cited.contains(rule)).collect();
    assert!(superfluous.is_empty(), "these are proven by now, take them off the list: {}", list(superfluous));
    let unproven: Vec<Rule> = defined()
        .into_iter()
        .filter(|(rule, not_built)| !not_built && !cited.contains(rule) && !excused.contains(rule))
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
