//! The keys of the store, whatever is in them.

use std::collections::BTreeMap;

use super::{Cluster, FailoverRequest, History, HistoryLine, LeaseId, RawKey, Revision, Status, SyncState};
use crate::decide::slots::SlotPolicy;
use crate::decide::view::OwnTags;
use crate::properties::choices::Choices;
use crate::properties::is_one_line;
use crate::wal::{Lsn, Timeline};

/// A key as the store returns it, at a revision that says nothing.
pub(crate) fn raw_key(suffix: &str, value: &[u8]) -> RawKey {
    RawKey {
        suffix: suffix.to_owned(),
        value: value.to_vec(),
        create_revision: Revision(1),
        mod_revision: Revision(2),
        lease: LeaseId(3),
    }
}

/// Any values in any keys are a cluster: never an error, what was not understood is named, an existing leader key is a
/// lock, and what was understood is written back as it was read.
pub fn keys(keys: &[(String, Vec<u8>)]) {
    let read = || Cluster::from_keys(Revision(9), keys.iter().map(|(suffix, value)| raw_key(suffix, value)));
    let cluster = read();
    assert_eq!(cluster, read(), "the same keys are the same cluster");
    let value_of = |suffix: &str| keys.iter().rev().find(|(key, _)| key == suffix).map(|(_, value)| value);
    for warning in &cluster.warnings {
        assert!(value_of(&warning.key).is_some(), "a warning names a key that is there: {warning:?}");
        assert!(!warning.problem.is_empty() && is_one_line(&warning.problem), "{warning:?}");
    }
    let is_text = |suffix: &str| value_of(suffix).is_some_and(|value| std::str::from_utf8(value).is_ok());
    assert_eq!(cluster.is_unlocked(), value_of("leader").is_none(), "an existing leader key is a lock");
    assert_eq!(cluster.initialize == super::Initialize::Absent, value_of("initialize").is_none(), "as is a claim");
    for (suffix, _) in keys {
        let name = suffix.strip_prefix("members/").and_then(|name| name.parse().ok());
        assert!(name.is_none_or(|name| cluster.members.contains_key(&name)), "{suffix} is a member, whatever it says");
    }
    for key in ["config", "failsafe", "history"] {
        let understood = match key {
            "config" => cluster.config.is_some(),
            "failsafe" => cluster.failsafe.is_some(),
            _ => cluster.history.is_some(),
        };
        let named = cluster.warnings.iter().any(|warning| warning.key == key);
        assert!(!is_text(key) || understood || named, "{key} is understood or named");
    }
    for member in cluster.members.values() {
        let _ = (member.address(), member.role(), member.state().len(), member.timeline(), member.is_nofailover());
        let _ = (member.lsn_location(), member.receive_lsn(), member.replay_lsn(), member.replication_state());
        let _ = (member.replicatefrom(), member.has_tag("clonefrom"), member.has_pending_restart());
    }
    let (me, tags) = ("n1".parse().expect("a name"), OwnTags::default());
    let policy = SlotPolicy {
        me: &me,
        tags: &tags,
        use_slots: true,
        retains: true,
        permanent: &BTreeMap::new(),
        ignored: &[],
        standby_cluster: false,
        major: 17,
        paused: false,
    };
    for (name, slot) in policy.slots(&cluster).wanted {
        assert!(!name.is_empty(), "a slot has a name: {slot:?}");
    }
    assert_written_back(&cluster);
}

/// What a cluster holds, written as its keys, is read as the same again.
fn assert_written_back(cluster: &Cluster) {
    let Cluster { history, failover, sync, status, .. } = cluster;
    let mut again = vec![raw_key("status", status.to_value().as_bytes())];
    again.extend(history.as_ref().map(|history| raw_key("history", history.value.to_value().as_bytes())));
    again.extend(failover.as_ref().map(|request| raw_key("failover", request.value.to_value().as_bytes())));
    again.push(raw_key("sync", sync.value.to_value().as_bytes()));
    let again = Cluster::from_keys(Revision(9), again);
    assert_eq!(again.warnings, [], "what we write is understood");
    let value = |cluster: &Cluster| {
        let history = cluster.history.as_ref().map(|history| history.value.clone());
        (history, cluster.failover.clone().map(|request| request.value), cluster.sync.value.clone())
    };
    assert_eq!(value(&again), value(cluster));
    assert_eq!(again.status, *status);
    if let Some(history) = history {
        assert!(rises(&history.value), "INV-S23: the timelines in history rise: {history:?}");
        let newest = history.value.lines.iter().map(|line| line.timeline.next()).max();
        assert_eq!(cluster.timeline(), Some(newest.unwrap_or(Timeline::FIRST)), "IN-D10");
    }
}

/// True when each line is about a later timeline than the one before.
pub(crate) fn rises(history: &History) -> bool {
    history.lines.windows(2).all(|pair| pair[0].timeline < pair[1].timeline)
}

/// Values that this program writes are read as they were written.
pub fn values(choices: &mut Choices<'_>) {
    let history = history(choices);
    let name = |choices: &mut Choices<'_>| choices.one_of(&["n1", "n2", "N-3.é"]).parse().expect("a member name");
    let request = FailoverRequest {
        leader: choices.maybe(name),
        candidate: choices.maybe(name),
        scheduled_at: choices.maybe(|choices| choices.one_of(&["2030-01-01T00:00:00+00:00", "soon"]).to_owned()),
    };
    let sync = SyncState {
        leader: Some(choices.one_of(&["n1", "n2"]).to_owned()),
        quorum: u32::try_from(choices.number()).unwrap_or(u32::MAX),
        voters: choices.several(4, |choices| choices.one_of(&["n1", "n2", "n3"]).to_owned()),
    };
    let slot = |choices: &mut Choices<'_>| choices.one_of(&["n1", "n2", "a_slot"]).to_owned();
    let status = Status {
        optime: choices.maybe(|choices| Lsn(choices.number())),
        slots: choices.maybe(|choices| choices.several(4, |c| (slot(c), Lsn(c.number()))).into_iter().collect()),
        retain_slots: choices.maybe(|choices| choices.several(4, slot)),
    };
    let keys = [
        raw_key("history", history.to_value().as_bytes()),
        raw_key("failover", request.to_value().as_bytes()),
        raw_key("sync", sync.to_value().as_bytes()),
        raw_key("status", status.to_value().as_bytes()),
    ];
    let cluster = Cluster::from_keys(Revision(9), keys);
    assert_eq!(cluster.warnings, []);
    assert_eq!(cluster.history.map(|history| history.value), Some(history));
    let asks = request.leader.is_some() || request.candidate.is_some();
    assert_eq!(cluster.failover.map(|request| request.value), asks.then_some(request));
    assert_eq!((cluster.sync.value, cluster.status), (sync, status));
}

/// A history as PostgreSQL leaves one behind: rising timelines, each ended somewhere.
pub(crate) fn history(choices: &mut Choices<'_>) -> History {
    let mut timeline = 0u32;
    let lines = choices.several(5, |choices| {
        timeline = timeline.saturating_add(1).saturating_add(u32::from(choices.byte() / 64));
        HistoryLine {
            timeline: Timeline::new(timeline).unwrap_or(Timeline::FIRST),
            lsn: Lsn(choices.number()),
            reason: choices.text(),
            timestamp: None,
            new_leader: None,
        }
    });
    let mut history = History { lines };
    if let Some(newest) = history.lines.last_mut() {
        newest.timestamp = choices.maybe(|_| "2026-11-21T03:04:05+00:00".to_owned());
        newest.new_leader = newest.timestamp.as_ref().and_then(|_| choices.maybe(Choices::text));
    }
    history
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const KEYS: &str = "initialize|config|leader|status|optime/leader|failover|sync|history|failsafe|members/[a-c]|\
                        members/\\PC{0,4}|x/[a-c]|\\PC{0,6}";

    /// Values that are nearly right: what an older, newer or broken writer leaves.
    fn plausible() -> impl Strategy<Value = String> {
        let name = "\"(n1|n2|a/b|)\"|null|5|true|\\[\\]|\"n1\\\\n\"";
        prop_oneof![
            (name, name, "\"2030-01-01T00:00:00Z\"|\"soon\"|5|null|\"\"").prop_map(|(leader, member, at)| format!(
                "{{\"leader\":{leader},\"member\":{member},\"sync_standby\":{member},\"quorum\":1,\"scheduled_at\":{at}}}"
            )),
            vec("\\[(-?[0-9]{1,2}|4294967295|4294967296), ?[0-9]{1,4}, ?\"\\PC{0,4}\"(,\"t\"(,\"n1\")?)?\\]", 0..4)
                .prop_map(|lines| format!("[{}]", lines.join(","))),
            "\\{\"optime\":(\"?[0-9]{1,20}\"?|null|-1),\"slots\":(\"?\\{\\}\"?|\\{\"a\":(1|-1|\"x\")\\}),\"retain_slots\":\
             (\\[\"a\",(1|\"b\")\\]|null)\\}",
            "\\{\"conn_url\":\"postgres://(\\[::1\\]|h|:|)(:[0-9]{0,6})?/x\",\"tags\":\\{\"(nofailover|failover_priority|\
             replicatefrom|nostream)\":(true|0|\"0\"|\"a\"|null)\\},\"timeline\":(0|1|-1|4294967296|\"2\"),\"xlog_location\":\
             (1|\"1\"|-1|1e3|18446744073709551615)\\}",
            "[0-9]{1,25}",
            "n[12](:n[12])?",
        ]
    }

    proptest! {
        #![proptest_config(crate::properties::repeatable(256))]

        #[test]
        fn any_keys_are_a_cluster(
            garbage in vec((KEYS, vec(any::<u8>(), 0..12)), 0..4),
            written in vec((KEYS, plausible()), 0..8),
        ) {
            let mut all: Vec<(String, Vec<u8>)> = garbage;
            all.extend(written.into_iter().map(|(key, text)| (key, text.into_bytes())));
            // A store has a key once.
            let mut seen = std::collections::BTreeSet::new();
            all.retain(|(key, _)| seen.insert(key.clone()));
            keys(&all);
        }

        #[test]
        fn values_are_read_as_they_were_written(bytes in vec(any::<u8>(), 0..120)) {
            values(&mut Choices::new(&bytes));
        }
    }
}
