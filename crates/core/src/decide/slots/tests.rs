use serde_json::json;

use super::plan::{Position, PresentKind, PresentSlot, SlotStep, Why};
use super::standby::{CatalogXmins, Readiness, SlotParameters, feedback_slot};
use super::*;
use crate::cluster::{LeaseId, RawKey, Revision};
use crate::config::DynamicConfig;

fn cluster(keys: &[(&str, &str)]) -> Cluster {
    let keys = keys.iter().map(|(suffix, value)| RawKey {
        suffix: (*suffix).to_owned(),
        value: value.as_bytes().to_vec(),
        create_revision: Revision(1),
        mod_revision: Revision(1),
        lease: LeaseId(1),
    });
    Cluster::from_keys(Revision(1), keys)
}

/// `a` leads; `c` cascades from `b`, `d` does not stream, and `gone` is away.
fn five() -> Cluster {
    cluster(&[
        ("leader", "a"),
        ("members/a", "{}"),
        ("members/b", r#"{"state":"running","replication_state":"streaming"}"#),
        ("members/c", r#"{"tags":{"replicatefrom":"b"},"xlog_location":70}"#),
        ("members/d", r#"{"tags":{"nostream":true}}"#),
        ("status", r#"{"optime":100,"slots":{"a":100,"b":90,"c":60,"gone":50,"cdc":40},"retain_slots":["gone"]}"#),
    ])
}

/// A member's view of the slots: each case changes what it is about.
struct Who {
    name: &'static str,
    tags: OwnTags,
    dynamic: serde_json::Value,
    major: u32,
}

impl Who {
    fn is(name: &'static str) -> Who {
        let tags = OwnTags {
            replicatefrom: (name == "c").then(|| "b".to_owned()),
            nostream: name == "d",
            ..OwnTags::default()
        };
        Who { name, tags, dynamic: json!({}), major: 15 }
    }

    fn with<T>(&self, cluster: &Cluster, ask: impl FnOnce(SlotPolicy<'_>, &Cluster) -> T) -> T {
        let dynamic = DynamicConfig::from_map(self.dynamic.as_object().unwrap()).unwrap();
        let me = self.name.parse().unwrap();
        let policy = SlotPolicy {
            me: &me,
            tags: &self.tags,
            use_slots: true,
            retains: !dynamic.member_slots_ttl.is_zero(),
            permanent: &dynamic.slots,
            ignored: &dynamic.ignore_slots,
            standby_cluster: dynamic.standby_cluster.is_some(),
            major: self.major,
            paused: dynamic.pause,
        };
        ask(policy, cluster)
    }

    fn slots(&self, cluster: &Cluster) -> Slots {
        self.with(cluster, |policy, cluster| policy.slots(cluster))
    }

    fn names(&self, cluster: &Cluster) -> Vec<String> {
        self.slots(cluster).wanted.into_keys().collect()
    }

    fn parameters(&self, cluster: &Cluster) -> SlotParameters {
        self.with(cluster, |policy, cluster| policy.parameters(cluster))
    }
}

fn nofailover() -> OwnTags {
    OwnTags { nofailover: true, ..OwnTags::default() }
}

#[test]
fn every_promotable_member_keeps_a_slot_for_every_other_one() {
    let cluster = five();
    assert_eq!(Who::is("a").names(&cluster), ["b", "c", "gone"], "SLT-2: the leader, also for members that are away");
    assert_eq!(Who::is("b").names(&cluster), ["a", "c", "gone"], "SLT-2: a replica");
    assert_eq!(
        Who { tags: nofailover(), ..Who::is("b") }.names(&cluster),
        ["c"],
        "SLT-2: for those who cascade from it"
    );
    let of_b = Who::is("b").slots(&cluster).wanted;
    let physical =
        |expected_active, to| WantedSlot { kind: WantedKind::Physical, expected_active, advance_to: Some(Lsn(to)) };
    assert_eq!(of_b["c"], physical(true, 70), "SLT-4, SLT-5");
    assert_eq!(of_b["a"], physical(false, 100));
}

#[test]
fn without_retention_only_those_who_stream_from_here_have_a_slot() {
    let cluster = five();
    let dynamic = json!({"member_slots_ttl": 0});
    let names = |name| Who { dynamic: dynamic.clone(), ..Who::is(name) }.names(&cluster);
    assert_eq!(names("a"), ["b"], "SLT-3: the leader");
    assert_eq!(names("b"), ["c"], "SLT-3: the source of a cascade");
    assert_eq!(names("c"), Vec::<String>::new(), "SLT-3: a replica from which nobody streams");
}

#[test]
fn permanent_slots_are_kept_by_everybody_who_may_lead() {
    let dynamic = json!({"slots": {
        "cdc": {"database": "app", "plugin": "test_decoding"},
        "offsite": null, "b": null, "here": {"cluster_type": "primary"}, "there": {"cluster_type": "standby"}
    }});
    let cluster = five();
    let who = |name| Who { dynamic: dynamic.clone(), ..Who::is(name) };
    assert_eq!(who("a").names(&cluster), ["b", "c", "cdc", "gone", "here", "offsite"], "SLT-8");
    assert_eq!(who("b").names(&cluster), ["a", "c", "cdc", "gone", "here", "offsite"], "SLT-8: none of its own name");
    assert_eq!(Who { tags: nofailover(), ..who("b") }.names(&cluster), ["c"]);
    assert!(!who("d").names(&cluster).contains(&"cdc".to_owned()), "SLT-10: nothing of it reaches the primary");
    let mut standby = dynamic.clone();
    standby["standby_cluster"] = json!({"host": "x"});
    let names = Who { dynamic: standby, ..Who::is("a") }.names(&cluster);
    assert_eq!(names, ["b", "c", "gone", "offsite", "there"], "STB-6: no logical ones, physical ones by type");
    let of_a = who("a").slots(&cluster).wanted;
    let logical = |failover| WantedKind::Logical { database: "app".into(), plugin: "test_decoding".into(), failover };
    assert_eq!((&of_a["cdc"].kind, of_a["cdc"].expected_active), (&logical(false), true));
    let newer = Who { major: 17, ..who("b") }.slots(&cluster).wanted;
    assert_eq!((&newer["cdc"].kind, newer["cdc"].expected_active), (&logical(true), false), "SLT-7");
}

fn present(name: &str) -> PresentSlot {
    PresentSlot {
        name: name.to_owned(),
        kind: PresentKind::Physical,
        active: false,
        has_xmin: false,
        catalog_xmin: None,
        restart: Some(Lsn(60)),
        lost: false,
    }
}

fn logical(name: &str, failover: bool, synced: bool) -> PresentSlot {
    let (database, plugin) = ("app".to_owned(), "test_decoding".to_owned());
    let kind = PresentKind::Logical { database, plugin, confirmed: Some(Lsn(30)), failover, synced };
    PresentSlot { kind, ..present(name) }
}

const PRIMARY: Position = Position { in_recovery: false, lsn: Lsn(95) };
const STANDBY: Position = Position { in_recovery: true, lsn: Lsn(95) };

/// `a` leads, `b` is its only replica, `cdc` is a permanent logical slot.
fn two() -> (Cluster, serde_json::Value) {
    let status = r#"{"optime":100,"slots":{"a":100,"b":90,"cdc":40}}"#;
    let cluster = cluster(&[("leader", "a"), ("members/a", "{}"), ("members/b", "{}"), ("status", status)]);
    (cluster, json!({"slots": {"cdc": {"database": "app", "plugin": "test_decoding"}}}))
}

#[test]
fn slots_are_dropped_only_when_nobody_can_want_them() {
    use Why::*;
    let (cluster, dynamic) = two();
    let on_a = || Who { dynamic: dynamic.clone(), ..Who::is("a") };
    let with = |key: &str, value: serde_json::Value| {
        let mut dynamic = dynamic.clone();
        dynamic[key] = value;
        Who { dynamic, ..Who::is("a") }
    };
    let odd = |slot: PresentSlot, plugin: &str| PresentSlot {
        kind: match slot.kind {
            PresentKind::Physical => PresentKind::Physical,
            PresentKind::Logical { database, confirmed, failover, synced, .. } => {
                PresentKind::Logical { database, plugin: plugin.to_owned(), confirmed, failover, synced }
            }
        },
        ..slot
    };
    let ignore = |value| with("ignore_slots", value);
    for (name, who, slot, server, want) in [
        ("an unknown one", on_a(), present("x"), PRIMARY, Some(Unknown)),
        ("an unknown logical one", on_a(), logical("x", false, false), PRIMARY, Some(Unknown)),
        ("an unknown one in use", on_a(), PresentSlot { active: true, ..present("x") }, PRIMARY, None),
        ("an unknown one in pause", with("pause", json!(true)), present("x"), PRIMARY, None),
        ("one that is ignored by name", ignore(json!([{"name": "x"}])), present("x"), PRIMARY, None),
        (
            "one of another type is not",
            ignore(json!([{"name": "x", "type": "logical"}])),
            present("x"),
            PRIMARY,
            Some(Unknown),
        ),
        ("ignored by plugin", ignore(json!([{"plugin": "test_decoding"}])), logical("x", false, false), PRIMARY, None),
        ("a member's", on_a(), present("b"), PRIMARY, None),
        ("a member's whose WAL is gone", on_a(), PresentSlot { lost: true, ..present("b") }, PRIMARY, Some(Lost)),
        ("one without WAL", on_a(), PresentSlot { restart: None, ..present("b") }, PRIMARY, Some(ReservesNothing)),
        (
            "a streaming member's that was cut off",
            on_a(),
            PresentSlot { has_xmin: true, ..present("b") },
            PRIMARY,
            None,
        ),
        (
            "a former leader's that holds back vacuum",
            Who::is("b"),
            PresentSlot { has_xmin: true, ..present("a") },
            STANDBY,
            Some(HoldsRows),
        ),
        (
            "a logical one of another plugin",
            on_a(),
            odd(logical("cdc", false, false), "pgoutput"),
            PRIMARY,
            Some(Differs),
        ),
        ("a physical one of that name", on_a(), present("cdc"), PRIMARY, Some(Differs)),
        ("a failover slot that nobody asked for", on_a(), logical("x", true, false), PRIMARY, None),
        ("a former primary's failover slot", Who::is("b"), logical("cdc", true, false), STANDBY, Some(InTheWay)),
        ("one that the server has made", Who::is("b"), logical("cdc", true, true), STANDBY, None),
        ("one of the leader that is not promoted yet", on_a(), logical("cdc", true, false), STANDBY, None),
    ] {
        let steps = who.slots(&cluster).plan(std::slice::from_ref(&slot), server);
        let want = want.map(|why| SlotStep::Drop { slot: slot.name.clone(), why });
        let dropped = steps.into_iter().find(|step| matches!(step, SlotStep::Drop { .. }));
        assert_eq!(dropped, want, "SLT-6, SLT-7, PAU-11: {name}");
    }
}

#[test]
fn slots_are_created_and_moved_forward_and_never_back() {
    let (cluster, dynamic) = two();
    let steps = |name, major, slots: &[PresentSlot], server| {
        Who { dynamic: dynamic.clone(), major, ..Who::is(name) }.slots(&cluster).plan(slots, server)
    };
    let (slot, database, plugin) = ("cdc".to_owned(), "app".to_owned(), "test_decoding".to_owned());
    let create = |failover| SlotStep::CreateLogical {
        slot: slot.clone(),
        database: database.clone(),
        plugin: plugin.clone(),
        failover,
    };
    let member = |slot: &str| SlotStep::CreatePhysical { slot: slot.to_owned() };
    assert_eq!(steps("a", 15, &[], PRIMARY), [member("b"), create(false)], "SLT-2, SLT-8");
    assert_eq!(steps("a", 17, &[], PRIMARY), [member("b"), create(true)], "SLT-7");
    assert_eq!(steps("b", 15, &[], STANDBY), [member("a")], "SLT-8: a standby's logical slot is copied");
    let upgraded = [present("b"), logical("cdc", false, false)];
    let set = SlotStep::SetFailover { slot: slot.clone(), failover: true };
    assert_eq!(steps("a", 17, &upgraded, PRIMARY), [set], "SLT-7: a slot from before an upgrade");
    let here = [present("a"), logical("cdc", false, false)];
    let to = |lsn| SlotStep::AdvanceLogical { slot: slot.clone(), database: database.clone(), to: Lsn(lsn) };
    let physical = |lsn| SlotStep::Advance { slot: "a".to_owned(), to: Lsn(lsn) };
    assert_eq!(
        steps("b", 15, &here, STANDBY),
        [physical(95), to(40)],
        "SLT-5, SLT-8, INV-S19: no further than replayed"
    );
    let behind = Position { lsn: Lsn(35), ..STANDBY };
    assert_eq!(steps("b", 15, &here, behind), [to(35)], "INV-S19: never back");
    assert_eq!(steps("a", 15, &[present("b"), logical("cdc", false, false)], PRIMARY), [], "its consumer moves it");
}

#[test]
fn a_standby_copies_the_logical_slots_that_the_primary_has() {
    let (cluster, dynamic) = two();
    let who = |name, major| Who { dynamic: dynamic.clone(), major, ..Who::is(name) }.slots(&cluster);
    assert_eq!(who("b", 15).to_copy(&[]).into_keys().collect::<Vec<_>>(), ["cdc"], "SLT-8");
    assert!(who("b", 15).to_copy(&[logical("cdc", false, false)]).is_empty(), "it is there");
    assert!(who("a", 15).to_copy(&[]).is_empty(), "a primary creates it");
    assert!(who("b", 17).to_copy(&[]).is_empty(), "SLT-7: the server makes it");
    let mut unpublished = five();
    unpublished.status.slots = None;
    assert!(
        Who { dynamic, ..Who::is("b") }.slots(&unpublished).to_copy(&[]).is_empty(),
        "the primary does not have it yet"
    );
}

#[test]
fn logical_slots_ask_for_parameters_where_they_can_be_kept() {
    let cluster = five();
    let dynamic = json!({"slots": {"cdc": {"database": "app", "plugin": "test_decoding"}}});
    let who = |name, major| Who { dynamic: dynamic.clone(), major, ..Who::is(name) };
    let none = SlotParameters::default();
    let feedback = SlotParameters { hot_standby_feedback: true, ..none.clone() };
    assert_eq!(Who::is("b").parameters(&cluster), none, "no logical slots");
    assert_eq!(who("b", 15).parameters(&cluster), feedback, "SLT-10");
    assert_eq!(who("d", 15).parameters(&cluster), none, "SLT-10: it does not stream");
    assert_eq!(Who { tags: nofailover(), ..who("b", 15) }.parameters(&cluster), feedback, "SLT-10: for c below it");
    assert_eq!(Who { tags: nofailover(), ..who("a", 15) }.parameters(&cluster), none, "SLT-10: nobody is below it");
    let synced = who("a", 17).parameters(&cluster);
    assert!(synced.hot_standby_feedback && synced.sync_replication_slots, "SLT-7");
    assert_eq!(synced.synchronized_standby_slots, ["b"], "SLT-7: c cascades, d does not stream");
    assert!(!who("c", 17).parameters(&cluster).sync_replication_slots, "SLT-7: not from a standby");
}

#[test]
fn a_copied_slot_is_safe_once_the_primary_holds_what_it_needs() {
    let xmins = |list: &[(&str, Option<u32>)]| -> CatalogXmins {
        list.iter().map(|(name, xmin)| ((*name).to_owned(), *xmin)).collect()
    };
    let here = xmins(&[("cdc", Some(700))]);
    let mut readiness = Readiness::default();
    readiness.observe(&here);
    assert_eq!(readiness.unready(), ["cdc"], "SLT-9: a new one is not trusted");
    let compare =
        |readiness: &mut Readiness, cdc, b| readiness.compare(&xmins(&[("cdc", Some(cdc)), ("b", b)]), "b", &here);
    assert!(compare(&mut readiness, 710, None).is_empty(), "SLT-9: no feedback has arrived");
    assert!(compare(&mut readiness, 710, Some(690)).is_empty(), "SLT-9: rows after 690 may be gone up to 710");
    assert!(compare(&mut readiness, 720, Some(715)).is_empty(), "SLT-9: the slot here needs what is not held any more");
    let later = xmins(&[("cdc", Some(720))]);
    let primary = xmins(&[("cdc", Some(725)), ("b", Some(712))]);
    assert_eq!(readiness.compare(&primary, "b", &later), ["cdc"], "SLT-9: from 710 on everything is held");
    assert!(readiness.unready().is_empty());
    readiness.observe(&later);
    assert!(readiness.unready().is_empty(), "it stays safe");
    readiness.forget("cdc");
    readiness.observe(&later);
    assert_eq!(readiness.unready(), ["cdc"], "a copy is compared anew");
    let mut wrapped = Readiness::default();
    wrapped.observe(&xmins(&[("cdc", Some(5))]));
    let primary = xmins(&[("cdc", Some(u32::MAX - 3)), ("b", Some(u32::MAX - 1))]);
    assert_eq!(wrapped.compare(&primary, "b", &xmins(&[("cdc", Some(5))])), ["cdc"], "transaction numbers wrap around");
    assert_eq!(feedback_slot(&five(), &"c".parse().unwrap(), &Who::is("c").tags), "b", "through the one above it");
    assert_eq!(feedback_slot(&five(), &"b".parse().unwrap(), &OwnTags::default()), "b");
}
