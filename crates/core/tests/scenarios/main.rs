//! Clusters as scripts: three members with the real `decide`, around them a small model of the store, of PostgreSQL and
//! of time.
//!
//! A script (`NAME.txt`) says what happens to the cluster and what is expected; the transcript beside it
//! (`NAME.story`) is what came of it and is compared word for word. `UPDATE_TRANSCRIPTS=1 cargo test` writes the
//! transcripts anew. After every event the invariants of [`invariants`] are checked, and [`walk`] lets seeds play instead
//! of scripts.
//!
//! The model is strict where it matters: the store may give a lease away at its very end, by a clock that is as much
//! faster as members allow for; agents freeze, die and lose answers; a fencer that works is the only mercy.

mod agent;
mod consent;
mod cycle;
mod invariants;
mod keeper;
mod pace;
mod postgres;
mod script;
mod store;
mod walk;
mod words;
mod work;
mod world;

use std::path::{Path, PathBuf};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn scripts() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory()).expect("the directory of this test can be read");
    let mut scripts: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the directory of this test can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    scripts.sort();
    scripts
}

#[test]
fn every_script_tells_the_story_it_told_before() {
    let update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some();
    let scripts = scripts();
    assert!(!scripts.is_empty(), "the scripts are missing");
    let mut failures = Vec::new();
    for path in scripts {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a script is text");
        let (story, problem) = script::play(&text);
        if let Some(problem) = problem {
            failures.push(format!("{name}: {problem}\n{story}"));
            continue;
        }
        let transcript = path.with_extension("story");
        if update {
            std::fs::write(&transcript, &story).expect("the transcript can be written");
            continue;
        }
        let known = std::fs::read_to_string(&transcript).unwrap_or_default();
        if let Some(difference) = first_difference(&known, &story) {
            failures.push(format!("{name}: the story differs from {}:\n{difference}", transcript.display()));
        }
    }
    assert!(failures.is_empty(), "{}\nUPDATE_TRANSCRIPTS=1 accepts new stories", failures.join("\n\n"));
}

fn first_difference(known: &str, story: &str) -> Option<String> {
    if known == story {
        return None;
    }
    let (mut before, mut after) = (known.lines(), story.lines());
    for number in 1.. {
        let (old, new) = (before.next(), after.next());
        if old != new {
            let line = |line: Option<&str>| line.unwrap_or("(the end)").to_owned();
            return Some(format!("line {number}\n  was {}\n  now {}", line(old), line(new)));
        }
        if old.is_none() {
            break;
        }
    }
    Some("only in its line ends".to_owned())
}
