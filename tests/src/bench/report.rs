//! The table of the benchmark.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::node::Agent;

/// A row: its key, what it says, its unit, and what pgward has to reach.
struct Row {
    key: &'static str,
    what: &'static str,
    unit: &'static str,
    goal: &'static str,
}

const ROWS: [Row; 22] = [
    row("switchover", "switchover: time without a writable primary", "s", "<= 1.0"),
    row("rejoin", "old primary streaming again after a switchover", "s", "<= 3"),
    row("postmaster", "postmaster SIGKILLed, agent alive: until writable again", "s", "<= 1.5"),
    row("failover", "the same with primary_start_timeout 0 (fail over)", "s", "<= 2"),
    row(
        "crash",
        "node crash (agent and PostgreSQL SIGKILLed together): until writable",
        "s",
        "rest of the lease + <= 1",
    ),
    row("crash-after-lease", "the same, counted from the moment the leader key is gone", "s", "<= 1"),
    row("promote", "from \"leader key gone\" to \"promote request received\" by PostgreSQL", "ms", "<= 150"),
    row("freeze-overlap", "agent of the primary SIGSTOPped: two nodes accept writes at once for", "s", "0"),
    row("freeze-lost", "the same: direct writes lost", "", "0"),
    row("partition", "primary cut off from everything: it accepts its last write after", "s", "before the next row"),
    row("partition-new", "the same: another node accepts its first write after", "s", ""),
    row("partition-overlap", "the same: two nodes accept writes at once for", "s", "0"),
    row("etcd-failsafe", "etcd gone for 60 s, failsafe on: longest gap between commits", "s", "<= 0.2"),
    row("etcd-back", "etcd gone for 60 s, failsafe off: writable again after etcd is back", "s", "<= 0.8"),
    row("agent", "agent SIGKILLed and restarted: longest interruption", "s", "none"),
    row("agent-start", "agent start until REST answers (PostgreSQL already running)", "s", "<= 0.1"),
    row("fresh", "fresh cluster, first start until three members stream", "s", "<= 5"),
    row("rss", "RSS of agent + fencer on an idle primary", "MiB", "<= 20"),
    row("cpu", "CPU of agent + fencer on an idle primary", "s/min", "<= 0.10"),
    row("get-p50", "GET /primary, p50", "ms", "<= 0.2"),
    row("get-p99", "GET /primary, p99", "ms", "<= 0.6"),
    row("list", "`ctl list` wall time", "ms", "<= 50"),
];

const fn row(key: &'static str, what: &'static str, unit: &'static str, goal: &'static str) -> Row {
    Row { key, what, unit, goal }
}

/// What was measured so far.
#[derive(Debug, Default)]
pub struct Report {
    samples: BTreeMap<(&'static str, &'static str), Vec<f64>>,
    lost: BTreeMap<(&'static str, &'static str), usize>,
    failures: Vec<String>,
}

impl Report {
    /// Adds a sample to a row.
    pub fn add(&mut self, agent: Agent, row: &'static str, value: f64) {
        eprintln!("    {agent} {row}: {value:.3}");
        self.samples.entry((row, column(agent))).or_default().push(value);
    }

    /// Adds acknowledged writes that were lost.
    pub fn count_lost(&mut self, agent: Agent, row: &'static str, count: usize) {
        *self.lost.entry((row, column(agent))).or_default() += count;
        // Replication is asynchronous here: what a crash takes with it may be lost, everything else may not.
        if count > 0 && !matches!(row, "crash" | "failover") {
            self.failed(agent, &format!("{row}: {count} acknowledged writes lost"));
        }
    }

    /// Notes that something could not be measured.
    pub fn failed(&mut self, agent: Agent, what: &str) {
        eprintln!("    {agent} FAILED: {what}");
        // Whatever follows the first line is for the terminal.
        self.failures.push(format!("{agent}: {}", what.lines().next().unwrap_or_default()));
    }

    /// Whether everything could be measured.
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty()
    }

    /// The table as Markdown: median, and minimum to maximum, of each row.
    pub fn to_markdown(&self) -> String {
        let mut text = "| what | must reach | Patroni | pgward | ratio |\n|---|---|---|---|---|\n".to_owned();
        for Row { key, what, unit, goal } in &ROWS {
            let of = |agent| self.samples.get(&(*key, column(agent))).filter(|s| !s.is_empty());
            let (patroni, pgward) = (of(Agent::Patroni), of(Agent::Pgward));
            if patroni.is_none() && pgward.is_none() {
                continue;
            }
            let cell = |samples: Option<&Vec<f64>>| samples.map_or("-".to_owned(), |s| describe(s, unit));
            let ratio = match (patroni.map(|s| median(s)), pgward.map(|s| median(s))) {
                (Some(theirs), Some(ours)) if ours > 0.0 => format!("{:.1}", theirs / ours),
                _ => "-".to_owned(),
            };
            let _ = writeln!(text, "| {what} | {goal} | {} | {} | {ratio} |", cell(patroni), cell(pgward));
        }
        if !self.lost.is_empty() {
            let counts: Vec<String> =
                self.lost.iter().map(|((row, agent), count)| format!("{row} {agent} {count}")).collect();
            let _ = writeln!(
                text,
                "\nAcknowledged writes lost over all runs (replication is asynchronous: only the last moment before a \
                 crash may be lost): {}.",
                counts.join(", ")
            );
        }
        for failure in &self.failures {
            let _ = writeln!(text, "\nNot measured: {failure}.");
        }
        text
    }
}

fn column(agent: Agent) -> &'static str {
    match agent {
        Agent::Pgward => "pgward",
        Agent::Patroni => "Patroni",
    }
}

fn describe(samples: &[f64], unit: &str) -> String {
    let least = samples.iter().copied().fold(f64::INFINITY, f64::min);
    let most = samples.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let [middle, least, most] = [median(samples), least, most].map(short);
    format!("{middle} {unit} ({least}-{most})").replace("  ", " ")
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Three significant digits are more than such measurements are worth; two decimals at most for large ones.
fn short(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        v if v < 1.0 => format!("{value:.3}"),
        v if v < 10.0 => format!("{value:.2}"),
        _ => format!("{value:.1}"),
    }
}
