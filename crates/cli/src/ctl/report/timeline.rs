//! What happened when: changes of leader with their phases, and the decisions of all members by time.

use std::fmt::Write;
use std::time::Duration;

use jiff::Zoned;
use pgward_core::explain::Change;
use pgward_core::explain::document::{Document, Told};
use pgward_core::explain::words::span;
use pgward_core::time::WallTime;

use crate::ctl::explain::gather::{Heard, Said};
use crate::ctl::explain::print::{clock, date_and_clock};
use crate::ctl::explain::wrap::wrapped;

/// One change of leader: when, and how long each phase took.
pub(in crate::ctl) fn change(change: &Change, now: &Zoned) -> String {
    let timeline = change.timeline.map_or(String::new(), |timeline| format!(", timeline {timeline}"));
    let (kind, from, to) = (change.kind.as_str(), &change.from, &change.to);
    let at = date_and_clock(change.detected, now);
    let mut text = wrapped("", &format!("{at}  {kind} from {from} to {to}{timeline}"));
    let stream = match change.stream_lost_before {
        Some(before) if !before.is_zero() => format!("; no WAL had come to {to} for {} or more", span(before)),
        Some(_) | None => String::new(),
    };
    text += &row("", "", &format!("detected: {to} saw that nobody held the leader key{stream}"));
    let mut phases: Vec<_> = change.phases().into_iter().filter_map(|(phase, end)| Some((phase, end?))).collect();
    phases.sort_by_key(|(_, end)| *end);
    let mut before = Duration::ZERO;
    for (phase, end) in phases {
        text += &row(&span(end), &span(end.saturating_sub(before)), &phase_text(phase, change));
        before = end;
    }
    let open = change.phases().into_iter().filter(|(_, end)| end.is_none());
    for (phase, _) in open {
        text += &row("not yet", "", &phase_text(phase, change));
    }
    text
}

/// The time since detection, the duration of the phase, what ended it.
fn row(after: &str, took: &str, what: &str) -> String {
    let took = if took.is_empty() { String::new() } else { format!("+{took}") };
    wrapped(&format!("  {after:>8}  {took:>8}  "), what)
}

fn phase_text(phase: &str, change: &Change) -> String {
    let to = &change.to;
    match phase {
        "acquired" => format!("lock acquired: {to} held the leader key"),
        "promoted" => format!("promoted: PostgreSQL on {to} was primary"),
        "first_write" => format!("first write: {to} took a client's write"),
        "followed" => format!("others following: all that run streamed from {to}"),
        other => other.to_owned(),
    }
}

fn explained(heard: &Heard) -> impl Iterator<Item = &Document> {
    heard.members.values().filter_map(|said| match said {
        Said::Explained(document) => Some(document.as_ref()),
        Said::StatusOnly(_) | Said::Silent(_) => None,
    })
}

/// All changes of leader that the members remember, oldest first.
pub(super) fn of_cluster(heard: &Heard, now: &Zoned) -> String {
    let mut changes: Vec<&Change> = explained(heard).flat_map(|document| &document.changes).collect();
    changes.sort_by_key(|change| change.detected);
    if changes.is_empty() {
        return "No change of leader since the agents that answer were started.\n".to_owned();
    }
    let mut text = "Changes of leader (after detection; the phase itself)\n".to_owned();
    for found in changes {
        let _ = write!(text, "\n{}", change(found, now));
        if let Some(sign) = last_sign(heard, found) {
            let before = span(found.detected.0.saturating_sub(sign.until.0));
            let what = format!("{} before: last decision of {}: {}", before, found.from, sign.with_rules());
            text += &row("", "", &what);
        }
    }
    text
}

/// The last decision of the former leader before the change was detected.
fn last_sign<'h>(heard: &'h Heard, change: &Change) -> Option<&'h Told> {
    let former = explained(heard).find(|document| document.member == change.from)?;
    former.decisions.iter().rev().find(|told| told.until <= change.detected)
}

/// The decisions of all members by time.
pub(super) fn decisions(heard: &Heard, now: &Zoned) -> String {
    let of = |document: &'_ Document| -> Vec<(WallTime, String, Told)> {
        document.decisions.iter().map(|told| (told.at, document.member.to_string(), told.clone())).collect()
    };
    let mut all: Vec<_> = explained(heard).flat_map(of).collect();
    all.sort_by_key(|(at, _, _)| *at);
    let mut text = "All decisions\n".to_owned();
    let mut day = String::new();
    for (at, member, told) in all {
        let when = date_and_clock(at, now);
        let (today, _) = when.split_once(' ').unwrap_or_default();
        if day != today {
            let _ = write!(text, "\n{today}\n");
            day = today.to_owned();
        }
        let effects =
            if told.effects.is_empty() { String::new() } else { format!(" -> {}", told.effects.join(", then ")) };
        let times = match told.times {
            1 => String::new(),
            times => format!(" ({times} times until {})", clock(told.until, now)),
        };
        text +=
            &wrapped(&format!("  {}  {member}  ", clock(at, now)), &format!("{}{effects}{times}", told.with_rules()));
    }
    text
}
