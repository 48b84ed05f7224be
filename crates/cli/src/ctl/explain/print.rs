//! What people read.

use std::fmt::Write;
use std::time::Duration;

use jiff::{Timestamp, Zoned};
use pgward_core::explain::document::{Latest, Told};
use pgward_core::explain::what_if::{Event, Loss, Outcome, Projection, Verdict};
use pgward_core::explain::words;
use pgward_core::names::MemberName;
use pgward_core::time::WallTime;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::gather::{Heard, Said};
use super::wrap::wrapped;

/// What `explain` tries ahead: the loss of the leader, or how it goes on when there is none.
pub(in crate::ctl) fn loss_of_leader(heard: &Heard) -> Loss {
    match &heard.cluster.leader {
        Some(leader) => Loss::Member(leader.name.clone()),
        None => Loss::Nothing,
    }
}

/// `explain` without a member.
pub(in crate::ctl) fn cluster(heard: &Heard, loss: &Loss, projection: Option<&Projection>, now: &Zoned) -> String {
    let leads = match &heard.cluster.leader {
        Some(leader) => format!("{} leads", leader.name),
        None => "nobody leads".to_owned(),
    };
    let paused = if is_paused(heard) { ", in pause" } else { "" };
    let mut text = format!("Cluster {} at {}: {leads}{paused}\n", heard.scope, now.strftime("%Y-%m-%d %H:%M:%S"));
    if let Some(problem) = &heard.store_problem {
        text += &wrapped("", &format!("The store cannot be read, so this is as a member saw it last: {problem}"));
    }
    text += "\nWhat each member decided last\n";
    let names = names(heard);
    for (name, said) in &heard.members {
        let head = format!("  {:<names$}  ", name.as_str());
        text += &match said {
            Said::Explained(document) => match &document.latest {
                Some(latest) => last_decision(&head, latest, document.now, now),
                None => wrapped(&head, "nothing yet: its agent has just started"),
            },
            Said::StatusOnly(_) => {
                wrapped(&head, "answers, but cannot explain itself: it runs Patroni, or an older pgward")
            }
            Said::Silent(problem) => wrapped(&head, &format!("cannot be asked: {problem}")),
        };
    }
    let title = match loss {
        Loss::Member(leader) => format!("If {leader} were lost now"),
        Loss::Nothing | Loss::Store | Loss::Partition(_) => "Who takes over".to_owned(),
    };
    let _ = write!(text, "\n{title}\n");
    match projection {
        Some(projection) => text += &verdicts(heard, loss, projection),
        None => text += "  cannot be told: no member said what it sees\n",
    }
    text
}

fn is_paused(heard: &Heard) -> bool {
    heard.cluster.config.as_ref().is_some_and(|config| config.value.get("pause") == Some(&Value::Bool(true)))
}

/// The width of the longest name.
fn names(heard: &Heard) -> usize {
    heard.members.keys().map(|name| name.as_str().chars().count()).max().unwrap_or_default()
}

fn last_decision(head: &str, latest: &Latest, asked: WallTime, now: &Zoned) -> String {
    let told = &latest.told;
    let indent = " ".repeat(head.chars().count());
    let mut text = wrapped(head, &told.with_rules());
    if !told.effects.is_empty() {
        text += &wrapped(&format!("{indent}does: "), &told.effects.join(", then "));
    }
    let age = asked.0.saturating_sub(told.until.0);
    let ago = match age {
        age if age.as_secs() == 0 => "just now".to_owned(),
        age => format!("{} ago", words::span(Duration::from_secs(age.as_secs()))),
    };
    let mut when = match told.times {
        1 => ago,
        times => format!("{times} times since {}, last {ago}", clock(told.at, now)),
    };
    let tick = latest.record.pointer("/view/settings/loop_wait/secs").and_then(Value::as_u64).map(Duration::from_secs);
    if let Some(tick) = tick.filter(|tick| age > *tick * 2) {
        when +=
            &format!("; it should decide every {}: its agent hangs, or its machine is overloaded", words::span(tick));
    }
    text + &wrapped(&indent, &when)
}

fn verdicts(heard: &Heard, loss: &Loss, projection: &Projection) -> String {
    let Projection { outcome, .. } = projection;
    let names = names(heard);
    let mut text = String::new();
    for (name, verdict) in &outcome.verdicts {
        let head = format!("  {:<names$}  ", name.as_str());
        text += &wrapped(&head, &verdict_text(verdict, name, loss, outcome));
    }
    for note in notes(heard, loss, projection) {
        text += &wrapped("  ", &note);
    }
    if outcome.verdicts.is_empty() {
        text += &wrapped("  ", &ending(outcome));
    } else if outcome.primary.is_none() {
        let all_known = !outcome.verdicts.values().any(|verdict| matches!(verdict, Verdict::Unknown));
        let nobody =
            if all_known { "Nobody would be primary." } else { "Of those that told what they see, nobody would." };
        text += &wrapped("  ", nobody);
    }
    text
}

fn verdict_text(verdict: &Verdict, name: &MemberName, loss: &Loss, outcome: &Outcome) -> String {
    match verdict {
        Verdict::Wins(reason) => {
            let rules = reason.rules().join(", ");
            let (after, why) = match (outcome.primary_after, loss) {
                (Some(after), Loss::Member(leader)) if !after.is_zero() => {
                    (format!("after at most {}", words::span(after)), format!("when the lease of {leader} has run out"))
                }
                _ => ("at once".to_owned(), "nobody holds the leader key".to_owned()),
            };
            if outcome.primary.as_ref() == Some(name) {
                format!("would be promoted, {after}: {why} [{rules}]")
            } else {
                format!("would take the leader key, {after}, and not be primary [{rules}]")
            }
        }
        Verdict::Stands(_) => "is as fit: it would be promoted if it were the first to take the leader key".to_owned(),
        Verdict::DoesNot(reason) => format!("would not: {}", words::refusal(reason)),
        Verdict::Unknown => "is not known: it did not tell what it sees".to_owned(),
    }
}

/// What a reader has to know to trust the rest.
fn notes(heard: &Heard, loss: &Loss, projection: &Projection) -> Vec<String> {
    let mut notes = Vec::new();
    let is_ahead =
        |verdict: &Verdict| matches!(verdict, Verdict::DoesNot(pgward_core::decide::Reason::MemberAhead { .. }));
    let leader_lives = heard.cluster.leader.is_some();
    if leader_lives && projection.outcome.verdicts.values().any(is_ahead) {
        notes.push("Positions move on as long as the leader lives: who is ahead then may be another one.".to_owned());
    }
    let is_left = |name: &MemberName| !matches!(loss, Loss::Member(lost) if lost == name);
    for (name, said) in heard.members.iter().filter(|(name, _)| is_left(name)) {
        match said {
            Said::StatusOnly(Some(_)) => {
                notes.push(format!("{name} does not run pgward: what it would decide is judged by pgward's rules."));
            }
            Said::Silent(_) | Said::StatusOnly(None) => {
                notes.push(format!("{name} could not be asked, and is taken for one that does not answer."));
            }
            Said::Explained(document) if heard.observed(name, document).is_none() => {
                notes.push(format!("{name} runs another version of pgward: it is judged by what it publishes."));
            }
            Said::Explained(_) => {}
        }
    }
    notes
}

/// How it ends, as a sentence.
fn ending(outcome: &Outcome) -> String {
    let mut text = match (&outcome.primary, outcome.primary_after) {
        (Some(primary), None) => format!("{primary} goes on as primary."),
        (Some(primary), Some(after)) if after.is_zero() => {
            format!("{primary} is primary at once, as soon as its promotion has come to its end.")
        }
        (Some(primary), Some(after)) => {
            format!("{primary} is primary after at most {} and the time that its promotion takes.", words::span(after))
        }
        (None, _) => match outcome.former_writable_until {
            Some(until) => format!("Nobody is primary after {} at the latest.", words::span(until)),
            None => "Nobody is primary.".to_owned(),
        },
    };
    if !outcome.contenders.is_empty() {
        let names: Vec<&str> = outcome.contenders.iter().map(MemberName::as_str).collect();
        let is = if names.len() == 1 { "is" } else { "are" };
        let _ = write!(text, " {} {is} as fit: who is faster to take the leader key wins.", names.join(" and "));
    }
    text
}

/// `explain MEMBER`.
pub(in crate::ctl) fn member(heard: &Heard, name: &MemberName, now: &Zoned) -> String {
    let document = match heard.members.get(name) {
        Some(Said::Explained(document)) => document,
        Some(Said::Silent(problem)) => return wrapped("", &format!("{name} cannot be asked: {problem}")),
        Some(Said::StatusOnly(_)) | None => {
            return wrapped(
                "",
                &format!("{name} answers, but cannot explain itself: it runs Patroni, or an older pgward"),
            );
        }
    };
    let mut text = format!(
        "Member {name} of cluster {} at {}, its last decisions\n",
        heard.scope,
        now.strftime("%Y-%m-%d %H:%M:%S")
    );
    if document.decisions.is_empty() {
        text += "\n  nothing yet: its agent has just started\n";
    }
    let mut day = String::new();
    for told in &document.decisions {
        let today = local(told.at, now).strftime("%Y-%m-%d").to_string();
        if day != today {
            let _ = write!(text, "\n{today}\n");
            day = today;
        }
        text += &decision(told, now);
    }
    for change in &document.changes {
        let _ = write!(text, "\n{}", crate::ctl::report::timeline::change(change, now));
    }
    text
}

fn decision(told: &Told, now: &Zoned) -> String {
    let head = format!("  {}  ", clock(told.at, now));
    let indent = " ".repeat(head.chars().count());
    let mut text = wrapped(&head, &told.with_rules());
    if !told.effects.is_empty() {
        text += &wrapped(&format!("{indent}does: "), &told.effects.join(", then "));
    }
    if told.times > 1 {
        let until = clock(told.until, now);
        text += &wrapped(&indent, &format!("{} times until {until}", told.times));
    }
    text
}

/// `what-if`.
pub(super) fn projection(heard: &Heard, loss: &Loss, projection: &Projection) -> String {
    let lost = match loss {
        Loss::Nothing => "nothing were lost".to_owned(),
        Loss::Member(name) => format!("{name} were lost"),
        Loss::Store => "the store were lost".to_owned(),
        Loss::Partition(members) => {
            let names: Vec<&str> = members.iter().map(MemberName::as_str).collect();
            format!("{} were cut off from the store and the others", names.join(" and "))
        }
    };
    let mut text = format!("If {lost} now\n(nothing is touched; the times are the latest)\n\n");
    let names = names(heard);
    for step in &projection.steps {
        let member = step.member.as_ref().map_or("", MemberName::as_str);
        let after = words::span(step.after);
        text += &wrapped(&format!("  {after:>8}  {member:<names$}  "), &event(&step.event));
    }
    text += "\n";
    text += &wrapped("", &ending(&projection.outcome));
    for note in notes(heard, loss, projection) {
        text += &wrapped("", &note);
    }
    text
}

fn event(event: &Event) -> String {
    match event {
        Event::Lost => "is lost".to_owned(),
        Event::CutOff => "the store does not answer any more".to_owned(),
        Event::LeaseEnds { of } => format!("the lease of {of} has run out: nobody holds the leader key"),
        Event::Decides { reason, effects } if effects.is_empty() => words::with_rules(reason),
        Event::Decides { reason, effects } => {
            format!("{} -> {}", words::with_rules(reason), words::effects(effects))
        }
        Event::LosesRace { to } => format!("{to} was faster to take the leader key"),
        Event::IsPrimary => "is primary".to_owned(),
        Event::IsNoPrimary => "is not primary any more: it accepts no writes".to_owned(),
        Event::NotForeseen => "what follows is not foreseen".to_owned(),
    }
}

/// `explain -f json`.
pub(super) fn cluster_json(heard: &Heard, projection: Option<&Projection>) -> String {
    let members: Map<String, Value> =
        heard.members.iter().map(|(name, said)| (name.to_string(), said_json(said))).collect();
    json(&json!({
        "cluster": heard.scope,
        "leader": heard.cluster.leader.as_ref().map(|leader| &leader.name),
        "store_problem": heard.store_problem,
        "members": members,
        "if_leader_lost": projection,
    }))
}

/// `explain MEMBER -f json`.
pub(super) fn member_json(heard: &Heard, name: &MemberName) -> String {
    json(&heard.members.get(name).map(said_json))
}

fn said_json(said: &Said) -> Value {
    match said {
        Said::Explained(document) => json!({
            "now": pgward_core::explain::document::iso::text(document.now),
            "last": document.latest.as_ref().map(|latest| &latest.told),
            "decisions": document.decisions,
            "changes": document.changes,
        }),
        Said::StatusOnly(_) => json!({"problem": "it cannot explain itself"}),
        Said::Silent(problem) => json!({"problem": problem}),
    }
}

/// JSON as the other commands print it.
pub(in crate::ctl) fn json(value: &impl Serialize) -> String {
    pgward_core::json::spaced(value) + "\n"
}

/// A time of a member's clock, in the zone of `now`.
fn local(time: WallTime, now: &Zoned) -> Zoned {
    let nanos = i128::try_from(time.0.as_nanos()).unwrap_or_default();
    Timestamp::from_nanosecond(nanos).unwrap_or_default().to_zoned(now.time_zone().clone())
}

/// The time of day, to the tenth of a second.
pub(in crate::ctl) fn clock(time: WallTime, now: &Zoned) -> String {
    local(time, now).strftime("%H:%M:%S.%1f").to_string()
}

/// The day and the time of day.
pub(in crate::ctl) fn date_and_clock(time: WallTime, now: &Zoned) -> String {
    local(time, now).strftime("%Y-%m-%d %H:%M:%S.%1f").to_string()
}
