//! What a decision asks for.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{FailoverRequest, History, Revision, SyncState};
use crate::names::MemberName;
use crate::time::BootInstant;

use super::reason::Reason;
use super::slots::LogicalSlot;

/// One thing for the agent to carry out. The agent has no choices left to make.
///
/// Effects of one decision run in their order; the first that fails drops the rest. Effects marked *action* start the
/// one long action (ASY-7) and are the last of their decision.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Effect {
    /// Create `leader`, bound to our lease, if it does not exist (DCS-1).
    Acquire,
    /// Prove that the leader key, which names us, is ours, and bind it to our lease (DCS-2): after a restart.
    Adopt,
    /// Delete `leader` if it is ours (DCS-3). Only ever decided when PostgreSQL does not run, or is not writable.
    Release,
    /// Store our system identifier in `initialize`: create it, or overwrite an invalid value (CYC-7, DIR-9).
    StoreSystemId {
        /// The revision that an existing value must still have; `None`: the key must be absent.
        over: Option<Revision>,
    },
    /// Write the dynamic configuration that is in force back to `config` (CYC-8): create it, or overwrite a value that
    /// nobody can use (BEY-32).
    StoreConfig {
        /// The revision that an existing value must still have; `None`: the key must be absent.
        over: Option<Revision>,
    },
    /// Write `/sync`, or delete it (DCS-6). Whoever has changed it since wins (SON-9).
    StoreSync {
        /// What it shall say; `None` deletes it.
        state: Option<SyncState>,
        /// The revision it must still have; zero while it does not exist.
        seen: Revision,
    },
    /// Let commits wait for these standbys, or for the user's own, and see that the server has taken it over. For a server
    /// that is down: when it starts.
    LoadStandbyNames {
        /// `synchronous_standby_names`; `None`: what the user has configured.
        names: Option<String>,
    },
    /// Overwrite `failover` (MAN-L9, UNL-4).
    RewriteFailover {
        /// What it shall say; `None` writes an empty request.
        request: Option<FailoverRequest>,
        /// The revision it must still have; `None` writes unconditionally, right after having won the lock.
        seen: Option<Revision>,
    },
    /// Write `history` (HIS-1).
    StoreHistory(History),
    /// Delete an empty `initialize` that a dead bootstrapper left (QRK-11), if it still has this revision.
    ClearInitialize {
        /// The revision at which it was seen.
        seen: Revision,
    },
    /// Ask these members for their status, then decide again with the answers.
    PollPeers(BTreeSet<MemberName>),
    /// Ask these members to wait for this primary, then decide again with their answers (FS-4). It ends before `until`.
    AskConsent {
        /// By the names in the failsafe map.
        members: BTreeSet<String>,
        /// When the primary would have to stop.
        until: BootInstant,
    },
    /// All others agreed in a round that began at `sent`: what a renewal of the lease allows, this allows, too (DCSF-4).
    LiveOnConsent {
        /// Just before the round began.
        sent: BootInstant,
    },
    /// Write `failsafe` (FS-1), if it still has this revision.
    StoreFailsafe {
        /// Names and URLs.
        members: BTreeMap<String, String>,
        /// The revision of the present value; zero: there is none.
        seen: Revision,
    },
    /// *Action.* Win `initialize`, create a cluster, and take the leader key (BOO-1…11).
    Bootstrap,
    /// *Action.* Copy a member (BOO-5).
    Clone {
        /// From whom.
        source: MemberName,
        /// A data directory exists and may be removed (RWD-12, RWD-13). Without this only an empty one is filled.
        wipe: bool,
    },
    /// *Action.* Start the server.
    Start(StartAs),
    /// *Action.* Stop the server in order and start it again (RST-3).
    Restart(StartAs),
    /// *Action.* Promote, after the lease was looked at once more (PRO-7, PRO-12).
    Promote,
    /// *Action.* Step down (DEM-1…13).
    Demote {
        /// How.
        mode: DemoteMode,
        /// Whom to follow afterwards, as far as known.
        upstream: Option<MemberName>,
    },
    /// *Action.* Stop a server that must not run here, immediately (DIR-1).
    StopImmediately,
    /// Cancel the running action.
    CancelAction,
    /// Reload recovery settings for this upstream (FOL-10).
    ReloadUpstream {
        /// `None`: no upstream.
        upstream: Option<MemberName>,
    },
    /// *Action.* Restart to follow this upstream (FOL-10).
    RestartForUpstream {
        /// `None`: no upstream.
        upstream: Option<MemberName>,
    },
    /// Resume a replay that a change of parameters paused (FOL-7).
    ResumeReplay,
    /// *Action.* Recover in single-user mode (REC-13).
    CrashRecover,
    /// *Action.* Compare histories with the leader (RWD-3).
    CheckDivergence {
        /// The leader.
        leader: MemberName,
    },
    /// *Action.* pg_rewind (RWD-9).
    Rewind {
        /// From whom.
        source: MemberName,
    },
    /// *Action.* The checkpoint after a promotion (RWD-15). It does not keep other actions from starting.
    Checkpoint,
    /// *Action.* Copy logical slots from the primary: stop, write them, start again (SLT-8).
    CopySlots {
        /// The primary.
        source: MemberName,
        /// Which.
        slots: BTreeMap<String, LogicalSlot>,
        /// Whom to follow afterwards.
        upstream: Option<MemberName>,
    },
    /// End the agent with this exit code.
    Exit {
        /// The process's exit code.
        code: u8,
        /// Whether PostgreSQL is left running (DIR-8) or stopped first.
        leave_postgres: bool,
    },
}

impl Effect {
    /// True for effects that only the holder of the lease may carry out: the agent looks at the lease once more.
    pub fn needs_lease(&self) -> bool {
        match self {
            Effect::Promote | Effect::StoreHistory(_) | Effect::StoreConfig { .. } | Effect::StoreFailsafe { .. } => {
                true
            }
            Effect::StoreSync { .. } => true, // INV-S16
            Effect::Start(StartAs::Primary) | Effect::Restart(StartAs::Primary) => true,
            Effect::Start(StartAs::Standby { .. })
            | Effect::Restart(StartAs::Standby { .. })
            | Effect::Acquire
            | Effect::Adopt
            | Effect::Release
            | Effect::StoreSystemId { .. }
            | Effect::LoadStandbyNames { .. }
            | Effect::RewriteFailover { .. }
            | Effect::ClearInitialize { .. }
            | Effect::PollPeers(_)
            | Effect::AskConsent { .. }
            | Effect::LiveOnConsent { .. }
            | Effect::Bootstrap
            | Effect::Clone { .. }
            | Effect::Demote { .. }
            | Effect::StopImmediately
            | Effect::CancelAction
            | Effect::ReloadUpstream { .. }
            | Effect::RestartForUpstream { .. }
            | Effect::ResumeReplay
            | Effect::CrashRecover
            | Effect::CheckDivergence { .. }
            | Effect::Rewind { .. }
            | Effect::Checkpoint
            | Effect::CopySlots { .. }
            | Effect::Exit { .. } => false,
        }
    }
}

/// How to start the server.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum StartAs {
    /// As primary after a crash, on the same timeline (REC-3). Needs the lease.
    Primary,
    /// As a standby of this upstream; without one it replays what it has and waits (REC-7, REC-11).
    Standby {
        /// Whom to follow.
        upstream: Option<MemberName>,
    },
}

/// How to step down (17.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum DemoteMode {
    /// Checkpoint, fast stop, release: a switchover.
    Graceful,
    /// Immediate stop, release: an unfit primary with a candidate waiting.
    Immediate,
    /// Immediate stop, the key is not ours to release.
    ImmediateNoLock,
    /// Fast stop, the store does not answer; the key expires by time.
    Offline,
    /// Fast stop, the key is kept: the cluster becomes a standby of another one (DEM-5, DEM-10).
    Cluster,
}

impl DemoteMode {
    /// Whether the leader key is released once PostgreSQL is proven to be gone (DEM-6, DEM-12).
    pub fn releases(self) -> bool {
        match self {
            DemoteMode::Graceful | DemoteMode::Immediate => true,
            DemoteMode::ImmediateNoLock | DemoteMode::Offline | DemoteMode::Cluster => false,
        }
    }
}

/// Effects, why, and when to look again at the latest.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Decision {
    /// What to do. Empty means: nothing, because of `reason`.
    pub effects: Vec<Effect>,
    /// Why.
    pub reason: Reason,
    /// Decide again at this instant even if nothing happens before. `None`: at the next tick.
    pub wake_at: Option<BootInstant>,
    /// The leadership under which this was decided; a later one drops the effects (INV-S28).
    pub epoch: Option<Revision>,
}

impl Reason {
    /// True when `decision` only goes on with what this reason has told: a primary without the store asks the others every
    /// few seconds.
    pub fn is_continued_by(&self, decision: &Decision) -> bool {
        let has_asked = matches!(self, Reason::LivesOnConsent { .. } | Reason::ConsentMissing { .. });
        has_asked && (decision.reason == *self || decision.reason == Reason::AsksForConsent)
    }

    /// A decision to do nothing for this reason.
    pub fn alone(self) -> Decision {
        self.with([])
    }

    /// A decision to do this for this reason.
    pub fn with(self, effects: impl IntoIterator<Item = Effect>) -> Decision {
        Decision { effects: effects.into_iter().collect(), reason: self, wake_at: None, epoch: None }
    }

    /// A decision to do nothing and look again at `instant`.
    pub fn wake_at(self, instant: BootInstant) -> Decision {
        Decision { wake_at: Some(instant), ..self.alone() }
    }
}

impl Decision {
    /// True when other members are asked, and nothing else is done: the decision follows with their answers.
    pub fn only_asks(&self) -> bool {
        matches!(self.effects.as_slice(), [Effect::PollPeers(_) | Effect::AskConsent { .. }])
    }

    /// The same, looking again at `instant` at the latest.
    pub fn and_wake_at(mut self, instant: Option<BootInstant>) -> Decision {
        self.wake_at = match (self.wake_at, instant) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        self
    }
}
