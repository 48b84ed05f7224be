//! Failsafe mode (IN-C9): whom a primary without the store asks, what it does with the answers, and what those who agreed do.

use std::collections::{BTreeMap, BTreeSet};

use super::failsafe::{Consent, ConsentAnswer, Failsafe, KnownMap, Promise, Round};
use super::*;
use crate::time::{BootInstant, demote_deadline};

const TTL: Duration = Duration::from_secs(30);

fn with_failsafe() -> Settings {
    Settings { failsafe_mode: true, ..settings() }
}

fn map(names: &[&str]) -> BTreeMap<String, String> {
    names.iter().map(|name| ((*name).to_owned(), format!("http://{name}:8008/patroni"))).collect()
}

fn knows(names: &[&str]) -> Memory {
    Memory { failsafe: KnownMap { read: Some(map(names)), ..KnownMap::default() }, ..Memory::default() }
}

/// A primary whose lease was renewed `age` seconds ago, and whose store is silent since.
fn blind(age: u64) -> View {
    View {
        settings: with_failsafe(),
        store: Store::Lost { error: "timeout".to_owned() },
        lease: held(age),
        ..primary(three(Some("a"), &[]))
    }
}

fn ask(names: &[&str], until: BootInstant) -> Effect {
    let members: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    Effect::AskConsent { members, until }
}

fn answered(view: View, answers: &[(&str, ConsentAnswer)]) -> View {
    let answers = answers.iter().map(|(name, answer)| ((*name).to_owned(), answer.clone())).collect();
    let failsafe = Failsafe { round: Some(Round { sent: at(99), answers }), ..view.failsafe.clone() };
    View { failsafe, ..view }
}

fn lives_since(view: View, sent: u64) -> View {
    View { failsafe: Failsafe { consent: Some(Consent { sent: at(sent), ttl: TTL }), ..view.failsafe.clone() }, ..view }
}

const AGREED: ConsentAnswer = ConsentAnswer::Agreed { position: None };

#[test]
fn a_primary_without_the_store_asks_everybody_in_time() {
    let all = knows(&["a", "b", "c"]);
    let until = |age: u64| demote_deadline(at(100 - age), TTL);
    let demote = [Effect::Demote { mode: DemoteMode::Offline, upstream: None }];
    let off = View { settings: settings(), ..blind(15) };
    for (name, view, memory, effects, rule) in [
        ("the renewal is young: perhaps only the watch is lost", blind(5), &all, vec![], "TIM-5"),
        ("a renewal has failed", blind(12), &all, vec![ask(&["b", "c"], until(12))], "FS-4"),
        ("the mode is off", off, &all, vec![], "TIM-5"),
        ("there is no map", blind(12), &Memory::default(), vec![], "TIM-5"),
        ("it is not in the map (FS-2)", blind(12), &knows(&["b", "c"]), vec![], "TIM-5"),
        ("a map of one (FS-3)", blind(12), &knows(&["a"]), vec![Effect::LiveOnConsent { sent: at(100) }], "DCSF-4"),
        ("the time is up", blind(25), &all, demote.to_vec(), "DCSF-5"),
    ] {
        check(name, &view, memory, &effects, rule);
    }
    let stored = three(Some("a"), &[("failsafe", &serde_json::to_string(&map(&["a", "b", "c"])).unwrap())]);
    let renewals_fail = View { store: Store::Current(Arc::new(stored.clone())), ..blind(16) };
    check("renewals fail", &renewals_fail, &Memory::default(), &[ask(&["b", "c"], until(16))], "FS-4");
    let young = View { lease: held(1), ..renewals_fail };
    let (decision, _) = decide(&young, &Memory::default());
    assert_eq!(decision.wake_at, Some(at(99) + TTL / 2), "it looks again when a renewal must have failed");
}

#[test]
fn only_the_consent_of_all_extends_the_time() {
    let all = knows(&["a", "b", "c"]);
    let refused = ConsentAnswer::Refused("Running as a leader".to_owned());
    let silent = ConsentAnswer::Unreachable("timed out".to_owned());
    let extend = [Effect::LiveOnConsent { sent: at(99) }];
    let demote = [Effect::Demote { mode: DemoteMode::Offline, upstream: None }];
    let late = |answers: &[(&str, ConsentAnswer)]| answered(blind(25), answers);
    for (name, view, effects, rule) in [
        ("all agree", answered(blind(12), &[("b", AGREED), ("c", AGREED)]), &extend[..], "FS-4"),
        ("one refuses", answered(blind(12), &[("b", AGREED), ("c", refused)]), &[], "DCSF-5"),
        ("one is silent", answered(blind(12), &[("b", AGREED), ("c", silent)]), &[], "FS-4"),
        ("one was not asked", answered(blind(12), &[("b", AGREED)]), &[], "FS-4"),
        ("the answers come too late", late(&[("b", AGREED), ("c", AGREED)]), &demote, "DCSF-5"),
    ] {
        check(name, &view, &all, effects, rule);
    }
    let memory = check("one is missing", &answered(blind(12), &[("b", AGREED)]), &all, &[], "FS-4");
    let soon = View { now: at(100) + Duration::from_millis(600), ..blind(12) };
    let (decision, _) = decide(&soon, &memory);
    assert!(matches!(decision.effects.as_slice(), [Effect::AskConsent { .. }]), "asks again: {decision:?}");
}

#[test]
fn consent_counts_as_a_renewal_and_is_renewed() {
    let all = knows(&["a", "b", "c"]);
    let demote = [Effect::Demote { mode: DemoteMode::Offline, upstream: None }];
    let until = |sent: u64| demote_deadline(at(sent), TTL);
    for (name, view, effects, rule) in [
        ("long after the lease", lives_since(blind(90), 99), &[][..], "DCSF-4"),
        ("the next round is due", lives_since(blind(90), 97), &[ask(&["b", "c"], until(97))], "FS-4"),
        ("the last one is long ago", lives_since(blind(90), 75), &demote, "DCSF-5"),
    ] {
        check(name, &view, &all, effects, rule);
    }
    let (decision, _) = decide(&lives_since(blind(90), 99), &all);
    assert_eq!(decision.wake_at, Some(at(102)), "a tenth of a lease after the last round");
    let asked = answered(lives_since(blind(90), 97), &[("b", AGREED)]);
    check("one is away for a moment", &asked, &all, &[], "FS-4");

    // The store answers again: the key is still ours, or it is gone and nobody else may have taken it.
    let back = |keys| View { store: Store::Current(Arc::new(three(keys, &[]))), ..lives_since(blind(90), 99) };
    let (decision, memory) = decide(&back(Some("a")), &all);
    assert_eq!((decision.effects, memory.unproven_since), (vec![], None), "{}", decision.reason);
    let gone = View { lease: Lease::NotOurs { holder: None }, ..back(None) };
    check("it asks before it takes the key back", &gone, &all, &[ask_peers(&["b", "c"])], "RACE-3");
}

fn ask_peers(names: &[&str]) -> Effect {
    Effect::PollPeers(names.iter().map(|text| name(text)).collect())
}

#[test]
fn the_map_names_everybody_who_can_be_asked() {
    let leading = |failsafe: Option<&str>| {
        let keys: Vec<(&str, &str)> = failsafe.map(|value| ("failsafe", value)).into_iter().collect();
        View { settings: with_failsafe(), ..primary(three(Some("a"), &keys)) }
    };
    let write = |seen: i64| [Effect::StoreFailsafe { members: map(&["a", "b", "c"]), seen: Revision(seen) }];
    let memory = check("there is none", &leading(None), &Memory::default(), &write(0), "FS-1");
    assert_eq!(memory.failsafe.attempted, Some(map(&["a", "b", "c"])), "the write may happen, whatever is answered");
    check("a member is missing", &leading(Some(r#"{"a":"http://a"}"#)), &memory, &write(5), "FS-1");
    check("it cannot be read", &leading(Some("[")), &memory, &write(5), "FS-1");
    let complete = serde_json::to_string(&map(&["a", "b", "c"])).unwrap();
    let memory = check("it is complete", &leading(Some(&complete)), &memory, &[], "OWN-3");
    assert_eq!(memory.failsafe.attempted, None);
    let off = View { settings: settings(), ..leading(None) };
    check("the mode is off", &off, &Memory::default(), &[], "OWN-3");

    // A write whose answer was lost: who is in either map may stand, so everybody is asked (MEM-3).
    let unsure = KnownMap { read: Some(map(&["a", "b"])), attempted: Some(map(&["a", "c"])), ask_again_at: None };
    let memory = Memory { failsafe: unsure, ..Memory::default() };
    check("two maps", &blind(12), &memory, &[ask(&["b", "c"], demote_deadline(at(88), TTL))], "FS-4");
}

#[test]
fn who_has_promised_to_wait_waits() {
    let promise = |until: u64| {
        let (conn_url, api_url) = ("postgres://b:5432/postgres".to_owned(), "http://b:8008/patroni".to_owned());
        Failsafe {
            promise: Some(Promise { leader: name("b"), conn_url, api_url, until: at(until) }),
            ..Failsafe::default()
        }
    };
    let alone = poll(&[("b", None), ("c", None)]);
    let free = View { poll: alone.clone(), ..replica(three(None, &[])) };
    let named = View { poll: alone, lease: held(1), ..replica(three(Some("a"), &[])) };
    for (name, view, effects, rule) in [
        ("it would stand", free.clone(), &[Effect::Acquire][..], "RACE-10"),
        ("it has promised", View { failsafe: promise(120), ..free.clone() }, &[], "FS-7"),
        ("that is over (FS-9)", View { failsafe: promise(100), ..free.clone() }, &[Effect::Acquire], "RACE-10"),
        ("it would promote", named.clone(), &[Effect::Promote], "PRO-6"),
        ("it holds the key and has promised", View { failsafe: promise(120), ..named }, &[], "INV-S15"),
    ] {
        check(name, &view, &Memory::default(), effects, rule);
    }
    let (decision, _) = decide(&View { failsafe: promise(120), ..free }, &Memory::default());
    assert_eq!(decision.wake_at, Some(at(120)));

    // It goes on to follow: the primary counts as the leader, whose record may be gone.
    let mut cluster = three(None, &[]);
    cluster.members.remove(&name("b"));
    let seen = failsafe::with_promised_leader(&Arc::new(cluster), &promise(120), at(100));
    assert_eq!(seen.leader_member().and_then(|member| member.address()).map(|address| address.port), Some(5432));
    let following = View { failsafe: promise(120), store: Store::Current(seen), ..replica(three(None, &[])) };
    check("it follows", &following, &Memory::default(), &[], "FS-7");
    let led = Arc::new(three(Some("c"), &[]));
    assert_eq!(failsafe::with_promised_leader(&led, &promise(120), at(100)), led, "a real leader counts");
}
