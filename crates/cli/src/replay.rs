//! `pgward replay`: takes the recorded decisions of a member again, with the decision core of this program.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use pgward_core::explain::file::{self, Content};
use pgward_core::explain::ring::Entry;
use pgward_core::explain::{document, replay, words};

/// Take recorded decisions again and show where they differ
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The recorded decisions: DATA_DIR.decisions of a member, or decisions.jsonl of a report
    file: PathBuf,
    /// Show only decisions that differ
    #[arg(short, long)]
    quiet: bool,
}

/// Exit code 1 when a decision differs or a record cannot be read.
pub(crate) fn main(args: &Args) -> ExitCode {
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("pgward replay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let name = args.file.display();
    let content = fs::read(&args.file).with_context(|| format!("cannot read {name}"))?;
    let content = file::read(&String::from_utf8_lossy(&content));
    if content.entries.is_empty() && content.unreadable.is_empty() {
        bail!("there are no recorded decisions in {name}");
    }
    let (text, is_same) = tell(&content, args.quiet);
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads our output, such as `head`, has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
        written => written.context("cannot print")?,
    }
    Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is printed, and whether all is as it was recorded.
fn tell(content: &Content, quiet: bool) -> (String, bool) {
    let mut text = String::new();
    let mut differing = 0;
    for entry in &content.entries {
        let differences = replay(&entry.step).differences;
        if !quiet || !differences.is_empty() {
            text += &line(entry);
        }
        for difference in &differences {
            let part = &difference.part;
            text += &format!("  - {part}: {}\n  + {part}: {}\n", difference.recorded, difference.now);
        }
        differing += usize::from(!differences.is_empty());
    }
    for unreadable in &content.unreadable {
        text += &format!("{unreadable}\n");
    }
    let count = content.entries.len();
    let verdict = match differing {
        0 => "none differs".to_owned(),
        1 => "1 differs (-: recorded, +: decided now)".to_owned(),
        more => format!("{more} differ (-: recorded, +: decided now)"),
    };
    let unreadable = match content.unreadable.len() {
        0 => String::new(),
        lines => format!("; {lines} lines could not be read: another version wrote them"),
    };
    let decisions = if count == 1 { "decision" } else { "decisions" };
    text += &format!("{count} {decisions} taken again, {verdict}{unreadable}\n");
    (text, differing == 0 && content.unreadable.is_empty())
}

/// When, who, why and what.
fn line(entry: &Entry) -> String {
    let Entry { step, tally } = entry;
    let decision = &step.decision;
    let effects = match decision.effects.as_slice() {
        [] => String::new(),
        effects => format!(" -> {}", words::effects(effects)),
    };
    let times = if tally.times > 1 { format!(" ({} times)", tally.times) } else { String::new() };
    let at = document::iso::text(step.view.wall);
    format!("{at}  {}  {}{effects}{times}\n", step.view.me, words::with_rules(&decision.reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &str = include_str!("../tests/golden/replay/failover.jsonl");
    const TOLD: &str = include_str!("../tests/golden/replay/failover.txt");

    #[test]
    fn a_recorded_failover_is_decided_in_the_same_way_again() {
        let (text, is_same) = tell(&file::read(RECORDED), false);
        assert_eq!((text.as_str(), is_same), (TOLD, true));
    }

    #[test]
    fn a_decision_that_differs_is_shown_with_both_sides() {
        let promotes = r#""effects":["Promote"],"reason":"Promotes""#;
        assert!(RECORDED.contains(promotes));
        let (text, is_same) = tell(&file::read(&RECORDED.replace(promotes, r#""effects":[],"reason":"Leads""#)), true);
        assert!(!is_same);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("this member holds the leader lease and its PostgreSQL is primary [OWN-3, PRO-4]"));
        let parts =
            ["  - effects: []", r#"  + effects: ["Promote"]"#, r#"  - reason: "Leads""#, r#"  + reason: "Promotes""#];
        assert_eq!(lines[1..5], parts, "{text}");
        assert!(lines[5].ends_with("taken again, 1 differs (-: recorded, +: decided now)"), "{text}");
    }

    #[test]
    fn what_another_version_wrote_is_said() {
        let (text, is_same) = tell(&file::read("{\"view\":{}}\n"), false);
        assert!(!is_same && text.contains("line 1 is not a record of this version"), "{text}");
    }
}
