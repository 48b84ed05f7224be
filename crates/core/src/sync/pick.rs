//! Which standbys are fit to confirm commits, and which of them have everything (PICK-1…8).

use std::cmp::Reverse;
use std::time::Duration;

use crate::cluster::{Cluster, Member, SyncState};
use crate::names::MemberName;
use crate::time::BootInstant;
use crate::wal::Lsn;

use super::{Method, Names, PLACEHOLDER, StandbyNames, Wanted};

/// What a server shows of replication (IN-P10). A standby shows the setting alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Replication {
    /// `synchronous_standby_names`, as it is in force.
    pub loaded: String,
    /// `synchronous_commit`.
    pub level: CommitLevel,
    /// Who streams from here.
    pub walsenders: Vec<Walsender>,
}

impl Replication {
    /// True when somebody has come or gone since, or counts for something else. Positions change all the time and do not count.
    pub fn differs_in_kind(&self, before: &Replication) -> bool {
        let kind = |walsender: &Walsender| (walsender.application_name.clone(), walsender.streaming, walsender.rank);
        let kinds = |replication: &Replication| {
            let mut kinds: Vec<_> = replication.walsenders.iter().map(kind).collect();
            kinds.sort();
            kinds
        };
        self.loaded != before.loaded || kinds(self) != kinds(before)
    }

    /// The setting, taken apart. A text that nobody can read is for nobody known, and is replaced.
    pub fn setting(&self) -> StandbyNames {
        StandbyNames::parse(&self.loaded)
            .unwrap_or_else(|_| StandbyNames::new(Method::Priority, 1, ["*"].into_iter().collect()))
    }
}

/// What a commit waits for at a standby (PICK-1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum CommitLevel {
    /// Written there.
    RemoteWrite,
    /// Replayed there.
    RemoteApply,
    /// Flushed there: `on`, and what waits for less.
    #[default]
    Flush,
}

impl CommitLevel {
    /// Reads `synchronous_commit`.
    pub fn of(setting: &str) -> CommitLevel {
        match setting {
            "remote_write" => CommitLevel::RemoteWrite,
            "remote_apply" => CommitLevel::RemoteApply,
            _ => CommitLevel::Flush,
        }
    }
}

/// A connection that streams from this server.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Walsender {
    /// What it calls itself: a member by its name.
    pub application_name: String,
    /// The replication slot that it uses.
    pub slot: Option<String>,
    /// It has caught up once and streams.
    pub streaming: bool,
    /// What the server takes it for.
    pub rank: Rank,
    /// Written there.
    pub written: Option<Lsn>,
    /// Flushed there.
    pub flushed: Option<Lsn>,
    /// Replayed there.
    pub replayed: Option<Lsn>,
}

impl Walsender {
    fn position(&self, level: CommitLevel) -> Option<Lsn> {
        match level {
            CommitLevel::RemoteWrite => self.written,
            CommitLevel::RemoteApply => self.replayed,
            CommitLevel::Flush => self.flushed,
        }
    }
}

/// `sync_state`, from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Rank {
    /// Nothing waits for it.
    Async,
    /// It would follow if another one went away.
    Potential,
    /// One of those of whom any so many confirm.
    Quorum,
    /// Each commit waits for it.
    Sync,
}

impl Rank {
    /// Reads `sync_state`.
    pub fn of(state: &str) -> Rank {
        match state {
            "sync" => Rank::Sync,
            "quorum" => Rank::Quorum,
            "potential" => Rank::Potential,
            _ => Rank::Async,
        }
    }
}

/// A standby that is fit to confirm commits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standby {
    /// The member.
    pub name: MemberName,
    /// How far it is, as commits count it.
    pub position: Lsn,
    /// What the server takes it for.
    pub rank: Rank,
    /// Whether it would ever become primary by itself.
    pub nofailover: bool,
}

/// The standbys that are fit, the best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fit {
    /// In the order in which they are preferred (PICK-3).
    pub standbys: Vec<Standby>,
    /// Members in whose name somebody streams who may be somebody else (BEY-19): none of them counts.
    pub doubtful: Names,
}

/// PICK-1…4: the fit standbys of `me`, whose own flushed position is `ours`.
pub fn fit(replication: &Replication, cluster: &Cluster, me: &MemberName, ours: Lsn, lag_max: Option<u64>) -> Fit {
    let mut fit = Fit::default();
    let mut found: Vec<(i64, Standby)> = Vec::new();
    for member in cluster.members.values().filter(|member| member.name != *me) {
        let name = member.name.as_str();
        let is_called_so = |walsender: &&Walsender| walsender.application_name.eq_ignore_ascii_case(name);
        let mut connections = replication.walsenders.iter().filter(is_called_so);
        let Some(connection) = connections.next() else { continue };
        let foreign_slot = connection.slot.as_ref().is_some_and(|slot| *slot != member.name.slot_name());
        if connections.next().is_some() || foreign_slot {
            fit.doubtful.insert(name); // BEY-19
            continue;
        }
        let is_odd = name == "*" || name.eq_ignore_ascii_case(PLACEHOLDER);
        let is_eligible =
            member.is_running() && !member.is_nosync() && !is_odd && !cascades(member, cluster, replication, me);
        if let Some(position) = connection.position(replication.level)
            && connection.streaming
            && is_eligible
        {
            let standby = Standby {
                name: member.name.clone(),
                position,
                rank: connection.rank,
                nofailover: member.is_nofailover(),
            };
            found.push((member.sync_priority(), standby));
        }
    }
    found.sort_by_key(|(priority, standby)| Reverse((*priority, standby.rank, standby.position)));
    found.sort_by_key(|(_, standby)| standby.nofailover); // PICK-3: they come last; the rest keeps its order.
    let furthest = match found.as_slice() {
        [_] => ours,
        several => several.iter().map(|(_, standby)| standby.position).max().unwrap_or(ours),
    };
    let keeps_up = |standby: &Standby| lag_max.is_none_or(|max| standby.position.bytes_behind(furthest) <= max);
    fit.standbys = found.into_iter().map(|(_, standby)| standby).filter(keeps_up).collect(); // PICK-4
    fit
}

/// PICK-2: it is meant to stream from another member, which is connected here.
fn cascades(member: &Member, cluster: &Cluster, replication: &Replication, me: &MemberName) -> bool {
    let source = member.replicatefrom().filter(|source| *source != me.as_str());
    source.is_some_and(|source| {
        let is_member = cluster.members.keys().any(|name| name.as_str() == source);
        let is_here = |walsender: &Walsender| walsender.application_name.eq_ignore_ascii_case(source);
        is_member && replication.walsenders.iter().any(is_here)
    })
}

impl Fit {
    /// PICK-5, PICK-6: those that shall confirm commits.
    pub fn active(&self, method: Method, wanted: Wanted) -> Names {
        let count = usize::try_from(wanted.count).unwrap_or(usize::MAX);
        let chosen = match method {
            Method::Priority => self.standbys.iter().take(count).collect::<Vec<_>>(),
            // Those that never become primary come last, and only make up the number.
            Method::Quorum => {
                let counts = |(place, standby): &(usize, &Standby)| !standby.nofailover || *place < count;
                self.standbys.iter().enumerate().filter(counts).map(|(_, standby)| standby).collect()
            }
        };
        chosen.into_iter().map(|standby| standby.name.as_str()).collect()
    }
}

/// How long after a change of the setting commits may still have been confirmed by the former one: until each process of
/// the server has read it.
pub const SETTLE: Duration = Duration::from_millis(100);

/// Which standbys have everything that was confirmed before the last change of what commits wait for (PICK-7, PICK-8).
///
/// What commits wait for since then is not asked here: the setting itself takes care of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct Readiness {
    /// The setting when it was last seen, and since when it is so.
    loaded: Option<(StandbyNames, BootInstant)>,
    /// Our own flushed position, taken when the change had settled.
    anchor: Option<Lsn>,
    /// Those that have reached it.
    ready: Names,
}

/// Voters of mode `on`, which have had to confirm everything all along.
pub fn standing_voters(stored: &SyncState, me: &str, method: Method) -> Names {
    let leads = stored.leader.as_ref().is_some_and(|leader| leader.eq_ignore_ascii_case(me));
    if leads && method == Method::Priority && stored.quorum == 0 {
        Names::from(&stored.voters)
    } else {
        Names::default()
    }
}

impl Readiness {
    /// Takes in what is seen: the setting, our own flushed position, the fit standbys, the [`standing_voters`], and what the
    /// mode asks for.
    pub fn note(
        &mut self,
        now: BootInstant,
        loaded: &StandbyNames,
        ours: Lsn,
        fit: &Fit,
        voters: &Names,
        method: Method,
    ) {
        match &self.loaded {
            Some((before, _)) if before == loaded => {}
            before => {
                // Whom each commit waited for before has them all. Of the others nothing is known beyond the old anchor.
                let kept = before.as_ref().filter(|(before, _)| before.requires_all() && loaded.requires_all());
                self.ready = kept
                    .map_or_else(Names::default, |(before, _)| self.ready.within(&before.names).within(&loaded.names));
                self.loaded = Some((loaded.clone(), now));
                self.anchor = None;
            }
        }
        if self.settles_at().is_none_or(|at| now < at) {
            return;
        }
        let anchor = *self.anchor.get_or_insert(ours);
        for standby in &fit.standbys {
            let name = standby.name.as_str();
            let counts = match method {
                Method::Priority => standby.rank == Rank::Sync,
                Method::Quorum => standby.rank >= Rank::Quorum,
            };
            if loaded.names.contains(name) && (voters.contains(name) || (counts && standby.position >= anchor)) {
                self.ready.insert(name);
            }
        }
    }

    /// Those that have everything that was confirmed before `loaded` was loaded, connected or not. Of another setting than
    /// the one that was seen last nothing is known.
    pub fn ready_under(&self, loaded: &StandbyNames) -> Names {
        let is_known = self.loaded.as_ref().is_some_and(|(seen, _)| seen == loaded);
        if is_known { self.ready.clone() } else { Names::default() }
    }

    /// Until when nothing is known of the present setting.
    pub fn settles_at(&self) -> Option<BootInstant> {
        self.loaded.as_ref().map(|(_, since)| *since + SETTLE)
    }

    /// PICK-5, PICK-6: those of `active` that have everything.
    pub fn confirmed(&self, active: &Names, fit: &Fit, method: Method) -> Names {
        let counts = |name: &str| {
            let mut standbys = fit.standbys.iter().filter(|standby| standby.name.as_str().eq_ignore_ascii_case(name));
            method == Method::Quorum || standbys.any(|standby| standby.rank == Rank::Sync)
        };
        self.ready.within(active).iter().filter(|name| counts(name)).collect()
    }
}
