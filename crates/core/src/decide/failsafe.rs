//! Failsafe mode: a primary that lost the store goes on while all others agree to wait (section 6.2).
//!
//! Two sides. The primary asks every member of the map in `failsafe`, in rounds ([`Effect::AskConsent`]); a round in which
//! all of them agreed is a [`Consent`], which counts as a renewal would, from when the round began. Who agreed has made a
//! [`Promise`]: it does not stand, adopt or promote for a whole ttl, whatever the store says meanwhile.
//!
//! Why all and not most of them (FS-12): whoever reaches the store might take the key there, and it takes only one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::cluster::{Cluster, Leader, LeaseId, Member, Revision};
use crate::mutant::{Mutant, leaves_out};
use crate::names::MemberName;
use crate::time::{BootInstant, demote_deadline, lease_end};
use crate::wal::Lsn;

use super::effect::{Decision, Effect};
use super::memory::Memory;
use super::reason::Reason;
use super::view::{Lease, Store, View};

/// What a view holds of failsafe mode.
#[derive(Clone, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Failsafe {
    /// All others agreed, after the store confirmed the lease last.
    pub consent: Option<Consent>,
    /// The answers, when the last decision asked for them.
    pub round: Option<Round>,
    /// What this member promised to a primary that asked it.
    pub promise: Option<Promise>,
}

/// All members of the map agreed to wait in a round that began at `sent`. Each of them keeps its promise for a ttl from
/// when it was asked, which was not before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Consent {
    /// Just before the round began.
    pub sent: BootInstant,
    /// For how long the others promised.
    pub ttl: Duration,
}

impl Consent {
    /// When whoever lives on it has to begin to stop.
    pub fn demote_at(self) -> BootInstant {
        demote_deadline(self.sent, self.ttl)
    }

    /// When somebody may stand again.
    pub fn end(self) -> BootInstant {
        lease_end(self.sent, self.ttl)
    }
}

/// The answers to one round.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Round {
    /// Just before it began.
    pub sent: BootInstant,
    /// One for each member that was asked.
    pub answers: BTreeMap<String, ConsentAnswer>,
}

/// What a member answered to a primary without the store.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ConsentAnswer {
    /// It waits for a ttl.
    Agreed {
        /// How far it is, when it said so (FS-6).
        position: Option<Lsn>,
    },
    /// It does not, and why.
    Refused(String),
    /// No usable answer in time, and why.
    Unreachable(String),
}

/// This member agreed to wait for a primary that asked (FS-5).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Promise {
    /// The primary.
    pub leader: MemberName,
    /// Where clients and standbys reach it, as it said; empty when it did not.
    pub conn_url: String,
    /// Where its REST API is, as it said; empty when it did not.
    pub api_url: String,
    /// Until when this member waits, on its own clock (TIM-7).
    pub until: BootInstant,
}

impl Failsafe {
    /// The promise that this member has to keep now.
    pub fn promise_at(&self, now: BootInstant) -> Option<&Promise> {
        self.promise.as_ref().filter(|promise| now < promise.until)
    }
}

/// How often a primary without the store asks, when everybody agreed the last time: often enough to notice in time whom it
/// has lost, and not so often that those who answer do nothing else.
fn round_every(ttl: Duration) -> Duration {
    (ttl / 10).max(Duration::from_secs(1))
}

/// Pause after a round in which somebody was missing: it may be back in a moment.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// When a primary begins to ask whose last renewal was sent at `sent`: as soon as one of them has failed (BEY-9).
fn first_round(view: &View, sent: BootInstant, ttl: Duration) -> BootInstant {
    match &view.store {
        Store::Lost { .. } => sent + ttl / 3,
        Store::Current(_) => sent + ttl / 2, // One slow renewal is no outage.
    }
}

/// FS-2…4, DCSF-4: what a primary does whose lease the store does not confirm. `None`: nothing is due, or nothing can be
/// done, or the time is up. Then the lease decides.
pub(super) fn decide(view: &View, memory: &mut Memory) -> Option<Decision> {
    let Lease::Held { sent, ttl, .. } = view.lease else { return None };
    if !view.settings.failsafe_mode || view.settings.paused || !view.postgres.is_primary() {
        return None;
    }
    let demote_at = view.demote_at().filter(|deadline| view.now < *deadline)?;
    let Some(others) = memory.failsafe.others(&view.me) else {
        // FS-2. What was agreed to holds until its end, whoever removed the map meanwhile.
        return view.failsafe.consent.map(|_| Reason::LivesOnConsent { others: 0 }.wake_at(demote_at));
    };
    if let Some(round) = &view.failsafe.round {
        return Some(conclude(view, memory, round, &others, demote_at));
    }
    let next = match (view.failsafe.consent, memory.failsafe.ask_again_at) {
        (_, Some(again)) => again,
        (Some(consent), None) => consent.sent + round_every(ttl),
        (None, None) => first_round(view, sent, ttl),
    };
    if view.now < next {
        view.failsafe.consent?;
        return Some(Reason::LivesOnConsent { others: others.len() }.wake_at(next.min(demote_at)));
    }
    memory.failsafe.ask_again_at = None;
    if others.is_empty() {
        return Some(Reason::LivesOnConsent { others: 0 }.with([Effect::LiveOnConsent { sent: view.now }])); // FS-3
    }
    Some(Reason::AsksForConsent.with([Effect::AskConsent { members: others, until: demote_at }]))
}

fn conclude(
    view: &View,
    memory: &mut Memory,
    round: &Round,
    others: &BTreeSet<String>,
    demote_at: BootInstant,
) -> Decision {
    let agrees = |name: &&String| matches!(round.answers.get(*name), Some(ConsentAnswer::Agreed { .. }));
    let missing: Vec<&String> = others.iter().filter(|name| !agrees(name)).collect();
    let suffices = if leaves_out(Mutant::ConsentOfMost) { missing.len() < others.len() } else { missing.is_empty() };
    if suffices {
        memory.failsafe.ask_again_at = None;
        let others = others.len();
        return Reason::LivesOnConsent { others }.with([Effect::LiveOnConsent { sent: round.sent }]); // FS-4
    }
    let again = view.now + ASK_AGAIN;
    memory.failsafe.ask_again_at = Some(again);
    let told = |name: &&String| match round.answers.get(*name) {
        Some(ConsentAnswer::Refused(why) | ConsentAnswer::Unreachable(why)) => format!("{name} ({why})"),
        Some(ConsentAnswer::Agreed { .. }) | None => (*name).clone(),
    };
    let missing = missing.iter().map(told).collect::<Vec<_>>().join(", ");
    Reason::ConsentMissing { missing }.wake_at(again.min(demote_at))
}

/// When a primary whose renewals fail has to be looked at, although nothing else happens: its first round is due.
pub(super) fn wake_at(view: &View, memory: &Memory) -> Option<BootInstant> {
    let Lease::Held { sent, ttl, .. } = view.lease else { return None };
    let applies = view.settings.failsafe_mode && !view.settings.paused && view.postgres.is_primary();
    let asks = applies && view.failsafe.consent.is_none() && memory.failsafe.others(&view.me).is_some();
    asks.then(|| first_round(view, sent, ttl))
}

/// FS-1: brings `failsafe` up to date: every member that can be asked, and this one.
pub(super) fn write_map(view: &View, cluster: &Cluster, memory: &mut Memory) -> Option<Decision> {
    if !view.settings.failsafe_mode || !cluster.is_led_by(&view.me) {
        return None;
    }
    let with_url = |member: &Member| Some((member.name.to_string(), member.api_url()?.to_owned()));
    let members: BTreeMap<String, String> = cluster.members.values().filter_map(with_url).collect();
    if cluster.failsafe.as_ref() == Some(&members) || !members.contains_key(view.me.as_str()) {
        return None;
    }
    // Whatever comes of an attempt before this one, the store takes only one of them.
    memory.failsafe.attempted = Some(members.clone());
    let seen = cluster.failsafe_revision;
    Some(Reason::WritesFailsafe.with([Effect::StoreFailsafe { members, seen }]))
}

/// What is known of the map in `failsafe` while the store is silent.
#[derive(Clone, Debug, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct KnownMap {
    /// As it was read last.
    pub read: Option<BTreeMap<String, String>>,
    /// As this member tried to write it, while no read has shown that it did.
    pub attempted: Option<BTreeMap<String, String>>,
    /// A round in which somebody was missing is repeated at this instant.
    pub ask_again_at: Option<BootInstant>,
}

impl KnownMap {
    /// Takes in what the store shows.
    pub(super) fn absorb(&mut self, cluster: &Cluster) {
        if self.attempted.is_some() && self.attempted == cluster.failsafe {
            self.attempted = None;
        }
        self.read.clone_from(&cluster.failsafe);
    }

    /// Members to be asked, by name, with the URL of their REST API. A write whose outcome is unknown counts as carried
    /// out and as not carried out: who is in either map may stand.
    pub fn members(&self) -> BTreeMap<String, String> {
        let (read, attempted) = (self.read.iter().flatten(), self.attempted.iter().flatten());
        read.chain(attempted).map(|(name, url)| (name.clone(), url.clone())).collect()
    }

    /// FS-2: everybody in the map but `me`; `None` when there is no map, or I am not in it.
    fn others(&self, me: &MemberName) -> Option<BTreeSet<String>> {
        self.read.as_ref().filter(|read| read.contains_key(me.as_str()))?;
        Some(self.members().into_keys().filter(|name| name != me.as_str()).collect())
    }
}

/// CYC-2: the cluster as a member sees it that keeps a promise while nobody holds the key: led by whom it promised. So it
/// goes on to follow that primary, and does not stand.
pub fn with_promised_leader(cluster: &Arc<Cluster>, failsafe: &Failsafe, now: BootInstant) -> Arc<Cluster> {
    let Some(promise) = failsafe.promise_at(now).filter(|_| cluster.is_unlocked()) else {
        return Arc::clone(cluster);
    };
    let mut cluster = Cluster::clone(cluster);
    let (lease, epoch, revision) = (LeaseId::default(), Revision::default(), Revision::default());
    cluster.leader = Some(Leader { name: promise.leader.clone(), lease, epoch, revision });
    // Its record may be gone with its lease.
    cluster.members.entry(promise.leader.clone()).or_insert_with(|| {
        let record = serde_json::json!({"conn_url": promise.conn_url, "api_url": promise.api_url, "role": "primary"});
        Member::parse(promise.leader.clone(), &record.to_string()).0
    });
    Arc::new(cluster)
}

/// FS-7, INV-S15: a member that promised to wait does not take, prove or use the leadership before that time is over,
/// whatever the key says.
pub(super) fn keeps_promise(view: &View, cluster: &Cluster) -> Option<Decision> {
    let promise = view.failsafe.promise_at(view.now)?;
    // A server that somebody has promoted by hand is stopped as any other one without the lease.
    // A view from before our own acquisition says nothing about who leads.
    let leads = cluster.is_led_by(&view.me) || super::is_owner(view, cluster);
    let may_lead = (cluster.is_unlocked() || leads) && !view.postgres.is_primary();
    may_lead.then(|| Reason::KeepsPromise { leader: promise.leader.clone() }.wake_at(promise.until))
}

/// The decision of a member that sees the primary it waits for in the place of a leader ([`with_promised_leader`]).
pub(super) fn in_its_place(view: &View, cluster: &Cluster, decision: Decision) -> Decision {
    let is_promised = cluster.leader.as_ref().is_some_and(|leader| leader.revision == Revision::default());
    match view.failsafe.promise_at(view.now).filter(|_| is_promised) {
        Some(promise) if decision.effects.is_empty() => {
            Reason::KeepsPromise { leader: promise.leader.clone() }.wake_at(promise.until).and_wake_at(decision.wake_at)
        }
        Some(promise) => decision.and_wake_at(Some(promise.until)),
        None => decision,
    }
}
