//! Whole clusters as scripts: faults at fixed times in `NAME.txt`, and what comes of it in `NAME.story`, which is short: who
//! takes and gives up the key, who accepts writes, what is decided, what happens to data. Times are whole seconds since the
//! cluster was whole.
//!
//! A script says `members N`, `dcs {...}`, `from the start` (faults count from the first start), and lines such as
//! `at 10 for 60 StopAgent n1`. The agents are started one after the other, so that n1 leads at first.
//! `UPDATE=1 cargo test -p pgward-sim --test scenarios` writes the stories anew.

#![expect(clippy::unwrap_used, reason = "a script that cannot be read ends the test")]

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use pgward_sim::faults::{Cut, Fault, Plan, Planned, Trouble};
use pgward_sim::run::run;
use pgward_sim::story::listen;

const SEED: u64 = 1;

fn plan(script: &str) -> Plan {
    let mut plan = Plan {
        members: 3,
        dcs: "{ttl: 30, loop_wait: 10, retry_timeout: 10, postgresql: {use_pg_rewind: true, use_slots: true}}"
            .to_owned(),
        tags: Vec::new(),
        ttl: Duration::from_secs(30),
        is_early: false,
        is_busy: false,
        is_in_order: true,
        faults: Vec::new(),
    };
    for line in script.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["members", number] => plan.members = number.parse().unwrap(),
            ["dcs", ..] => plan.dcs = line.trim_start_matches("dcs ").to_owned(),
            ["tags", ..] => plan.tags = line.trim_start_matches("tags ").split("; ").map(str::to_owned).collect(),
            ["from", "the", "start"] => plan.is_early = true,
            ["at", at, "for", lasts, fault @ ..] => plan.faults.push(planned(at, lasts, fault)),
            ["at", at, fault @ ..] => plan.faults.push(planned(at, "0", fault)),
            _ => panic!("what is {line:?}?"),
        }
    }
    plan
}

fn planned(at: &str, lasts: &str, fault: &[&str]) -> Planned {
    let seconds = |text: &str| Duration::from_secs_f64(text.parse().unwrap());
    Planned { at: seconds(at), lasts: seconds(lasts), fault: read(fault) }
}

fn read(words: &[&str]) -> Fault {
    let key = |key: &str| -> &'static str { key.to_owned().leak() };
    match *words {
        ["KillAgent", who] => Fault::KillAgent(who.parse().unwrap()),
        ["StopAgent", who] => Fault::StopAgent(who.parse().unwrap()),
        ["KillServer", who] => Fault::KillServer(who.parse().unwrap()),
        ["StopMachine", who] => Fault::StopMachine(who.parse().unwrap()),
        ["Crash", who] => Fault::Crash(who.parse().unwrap()),
        ["CrashAll"] => Fault::CrashAll,
        ["StopWinner"] => Fault::StopWinner,
        ["Partition", who, cut] => Fault::Partition(who.parse().unwrap(), read_cut(cut)),
        ["StoreAway"] => Fault::StoreAway,
        ["StoreElects"] => Fault::StoreElects,
        ["StoreRestored"] => Fault::StoreRestored,
        ["WatchesSilent"] => Fault::WatchesSilent,
        ["StaleReads", who] => Fault::StaleReads(who.parse().unwrap()),
        ["StepWall", who, by] => Fault::StepWall(who.parse().unwrap(), by.parse().unwrap()),
        ["Trouble", who, trouble] => Fault::Trouble(who.parse().unwrap(), read_trouble(trouble)),
        ["Switchover"] => Fault::Switchover(None),
        ["Switchover", candidate] => Fault::Switchover(Some(candidate.parse().unwrap())),
        ["PromoteByHand", who] => Fault::PromoteByHand(who.parse().unwrap()),
        ["DeleteKey", name] => Fault::DeleteKey(key(name)),
        ["DeleteAll"] => Fault::DeleteAll,
        _ => panic!("what is the fault {words:?}?"),
    }
}

fn read_cut(name: &str) -> Cut {
    let all = [
        Cut::Everything,
        Cut::Store,
        Cut::StoreAnswers,
        Cut::StoreRequests,
        Cut::Rest,
        Cut::Replication,
        Cut::Outgoing,
    ];
    all.into_iter().find(|cut| format!("{cut:?}") == name).unwrap()
}

fn read_trouble(name: &str) -> Trouble {
    let all = [
        Trouble::StopHangs,
        Trouble::PromoteSlow,
        Trouble::PromoteDiesLate,
        Trouble::FsyncStalls,
        Trouble::DiskFull,
        Trouble::ReceiverStuck,
        Trouble::RewindHalfWay,
        Trouble::Unmounted,
    ];
    all.into_iter().find(|trouble| format!("{trouble:?}") == name).unwrap()
}

/// What the run says, cut down to what a reader of the scenario wants to know.
fn transcript(plan: &Plan) -> String {
    let (outcome, story) = listen(|| run(SEED, plan).unwrap());
    let time = |line: &str| line.split_whitespace().next().and_then(|time| time.parse::<f64>().ok()).unwrap_or(0.0);
    let is_start = |line: &&String| line.contains("-    is whole");
    let began = if plan.is_early { 0.0 } else { story.iter().find(is_start).map_or(0.0, |line| time(line)) };
    let mut text = String::new();
    let mut before = String::new();
    for line in story.iter().filter(|line| plan.is_early || time(line) > began) {
        let Some((who, what)) = line.get(14..).and_then(|rest| rest.split_once(' ')) else { continue };
        let Some(what) = told(what.trim()) else { continue };
        let told = format!("{who:<3} {what}");
        if told != before {
            let _ = writeln!(text, "{:>5.0}  {told}", (time(line) - began).floor());
        }
        before = told;
    }
    let end = outcome.violation.map_or("whole, and it stays so".to_owned(), |violation| {
        format!("BROKEN {}: {}", violation.invariant, violation.text.split(';').next().unwrap_or_default())
    });
    let _ = writeln!(text, "  end  {end}");
    text
}

/// One event in few words; `None` for what is of no interest.
fn told(what: &str) -> Option<String> {
    if let Some(fault) = what.strip_prefix("begins fault=") {
        let fault = fault.replace("MemberName(", "").replace("\")", "").replace('"', "");
        return Some(format!("-- {}", fault.split(" lasts=").next().unwrap_or_default()));
    }
    if what == "everything is mended" {
        return Some("-- mended".to_owned());
    }
    if let Some(event) = what.strip_prefix("PostgreSQL event=") {
        let kept = ["Writable", "NotWritable", "Rewound", "Cloned", "Wiped", "InitdbDone", "Started"];
        let name = event.split([' ', '(']).next().unwrap_or_default();
        let detail = event.split("Timeline(").nth(1).and_then(|rest| rest.split(')').next());
        return kept.contains(&name).then(|| match (name, detail) {
            ("Writable", Some(timeline)) => format!("accepts writes on timeline {timeline}"),
            ("NotWritable", _) => "accepts no writes".to_owned(),
            ("Started", _) if event.contains("true") => "starts as primary".to_owned(),
            ("Started", _) => "starts as standby".to_owned(),
            (name, _) => name.to_lowercase(),
        });
    }
    if let Some(effects) = what.strip_prefix("decided effects=[") {
        let kept = ["Acquire", "Adopt", "Promote", "Demote", "Rewind {", "Clone", "Bootstrap", "Release", "Exit"];
        let rules = what.split("rules=").nth(1)?.replace(['"', '[', ']'], "");
        let name = kept.into_iter().find(|name| effects.starts_with(name))?;
        let mode = effects.split("mode: ").nth(1).and_then(|rest| rest.split(',').next());
        let mode = mode.map(|mode| format!(" ({mode})")).unwrap_or_default();
        return Some(format!("decides {}{mode} [{rules}]", name.trim_end_matches(" {")));
    }
    let kept = ["holds the leader key", "released the leader key", "promotes PostgreSQL"];
    kept.contains(&what).then(|| what.to_owned())
}

#[test]
fn scenarios_take_their_course() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut scripts: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    scripts.sort();
    assert!(!scripts.is_empty());
    let mut other = Vec::new();
    for script in scripts {
        let (text, expected) = (std::fs::read_to_string(&script).unwrap(), script.with_extension("story"));
        let story = transcript(&plan(&text));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&expected, &story).unwrap();
        } else if std::fs::read_to_string(&expected).unwrap_or_default() != story {
            other.push(format!("{}:\n{story}", script.display()));
        }
    }
    assert!(other.is_empty(), "took another course (UPDATE=1 accepts it):\n{}", other.join("\n"));
}
