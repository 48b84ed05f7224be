//! Whoever holds the key leads or gives it up, and nothing is repeated without end.

use super::*;

/// The local history file of a primary on `timeline`: where each earlier one ended.
fn history(lines: &[(u32, u64)]) -> crate::cluster::History {
    let line = |(timeline, lsn): &(u32, u64)| crate::cluster::HistoryLine {
        timeline: Timeline::new(*timeline).unwrap(),
        lsn: Lsn(*lsn),
        reason: "no recovery target specified".to_owned(),
        timestamp: Some("2026-11-21T00:00:00+00:00".to_owned()),
        new_leader: None,
    };
    crate::cluster::History { lines: lines.iter().map(line).collect() }
}

#[test]
fn a_history_is_written_once_even_when_a_timeline_was_skipped() {
    // Timeline 2 was another member's: PostgreSQL found its history file in the archive and went on to 3.
    let on_third = Facts { timeline: Timeline::new(3), history: Some(history(&[(1, 900)])), ..facts(false) };
    let leading = |keys: &[(&str, &str)]| View {
        postgres: Postgres { facts: Some(on_third.clone()), ..postgres(MemberRole::Primary) },
        ..primary(three(Some("a"), keys))
    };
    let (decision, _) = decide(&leading(&[]), &Memory::default());
    let [Effect::StoreHistory(written)] = decision.effects.as_slice() else { panic!("{decision:?}") };
    check("it is stored", &leading(&[("history", &written.to_value())]), &Memory::default(), &[], "OWN-3");
}
