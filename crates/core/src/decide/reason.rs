//! Why a decision was taken: what operators read and tests assert.

use crate::names::MemberName;
use crate::wal::{Lsn, Timeline};

use super::view::ActionKind;

/// Declares the reasons, each with the rules it stands on and the sentence that operators read.
macro_rules! reasons {
    ($( $(#[doc = $doc:literal])* $name:ident $({ $($field:ident : $type:ty),+ $(,)? })? [$($rule:literal),+] $text:literal; )+) => {
        /// Why a decision was taken. The text is for people, the variant for tests and tools.
        #[derive(Clone, Debug, PartialEq, thiserror::Error, serde::Serialize, serde::Deserialize)]
        pub enum Reason {
            $(
                $(#[doc = $doc])*
                #[error($text)]
                $name $({
                    $(
                        #[doc = "See the sentence of the reason."]
                        $field: $type
                    ),+
                })?,
            )+
        }

        impl Reason {
            /// The rules of `docs/reference/ha-rules.md` that this decision stands on.
            pub fn rules(&self) -> &'static [&'static str] {
                match self {
                    $( Reason::$name $({ $($field: _),+ })? => &[$($rule),+], )+
                }
            }

            /// The name of the variant, for metrics and tools.
            pub fn name(&self) -> &'static str {
                match self {
                    $( Reason::$name $({ $($field: _),+ })? => stringify!($name), )+
                }
            }

            /// All rules that any reason cites.
            pub fn all_rules() -> &'static [&'static str] {
                &[$($($rule),+),+]
            }
        }
    };
}

reasons! {
    /// The normal state of a leader.
    Leads ["OWN-3", "PRO-4"] "this member holds the leader lease and its PostgreSQL is primary";
    /// The normal state of a replica.
    Follows { leader: MemberName } ["OWN-7", "FOL-12"] "follows the leader {leader}";
    /// A standby lacks logical slots.
    CopiesSlots { slots: String, leader: MemberName } ["SLT-8"] "copies the logical slots {slots} from {leader}, for which PostgreSQL is restarted";
    /// A replica without a leader that may not stand.
    KeepsUpstream ["FOL-13"] "nobody holds the leader key; the present upstream is kept";

    /// The store is silent and the lease is still good.
    StoreSilentLeaseGood { error: String } ["TIM-5", "DCSF-6"] "the store does not answer ({error}), but the leader lease has not run out";
    /// The store is silent and the lease is running out.
    StoreSilentDemote { error: String } ["DCSF-5", "TIM-4", "QRK-1"] "the store does not answer ({error}) and the leader lease is running out";
    /// The store is silent; a replica goes on.
    StoreSilentReplica { error: String } ["DCSF-3"] "the store does not answer ({error}); a replica keeps running";
    /// The store is silent and the server is down.
    StoreSilentDown { error: String } ["DCSF-2"] "the store does not answer ({error}); PostgreSQL is not started without it";
    /// The store is silent in pause.
    StoreSilentPaused { error: String } ["DCSF-1", "PAU-8"] "the store does not answer ({error}); nothing is done in pause";
    /// The store is silent and stepping down is already under way.
    StoreSilentDemoting { error: String } ["DCSF-7"] "the store does not answer ({error}); stepping down is under way";
    /// A primary could not prove any lease.
    NothingProven ["QRK-14", "UNL-6", "INV-S2"] "PostgreSQL is primary and the leader key could neither be proven nor taken for retry_timeout";
    /// The others are asked.
    AsksForConsent ["FS-4", "BEY-9"] "the store does not confirm the leader lease: asks all other members whether they wait for this primary";
    /// Somebody does not agree, or does not answer.
    ConsentMissing { missing: String } ["FS-4", "DCSF-5"] "the store does not confirm the leader lease, and not all other members agree to wait: {missing}";
    /// Everybody agreed to wait for a primary without the store.
    LivesOnConsent { others: usize } ["DCSF-4", "FS-4", "FS-12"] "the store does not confirm the leader lease; all other members ({others}) have agreed to wait for this primary";
    /// Agreed to wait.
    KeepsPromise { leader: MemberName } ["FS-7", "CYC-2", "INV-S15"] "nobody holds the leader key, but this member has promised {leader} to wait for it";
    /// The map is brought up to date.
    WritesFailsafe ["FS-1", "DCS-10"] "leads; writes down who has to agree when the store is away";
    /// Renewals fail although reads work.
    RenewalsFail ["DCSF-6", "TIM-4"] "the leader lease could not be renewed and is running out";

    /// A long action runs.
    /// A request of an operator that cannot be carried out.
    RequestRefused { why: String } ["RST-2", "RNT-1"] "an operator's request is refused: {why}";
    /// A forced request waits for what it cancelled.
    RequestWaits { action: ActionKind } ["RNT-1"] "an operator's request waits for the end of the cancelled {action}";
    /// Restarts.
    RestartsOnRequest ["RST-3"] "an operator asked for a restart";
    /// Copies anew.
    ReinitializesOnRequest { member: MemberName } ["RNT-2", "BOO-5"] "an operator asked for a new copy: copies {member}";
    /// Something is under way.
    Busy { action: ActionKind } ["ASY-2", "ASY-3", "ASY-6", "ASY-7"] "{action} is under way";
    /// A long action runs in pause or while bootstrapping.
    BusyUndisturbed { action: ActionKind } ["ASY-3"] "{action} is under way and is not disturbed in pause";
    /// The lock is gone before the promotion was committed.
    PromotionCancelled ["ASY-4"] "the leader lease was lost before the promotion was issued";
    /// The lock is gone while a primary starts, restarts or is being promoted.
    LostLockWhileBusy { action: ActionKind } ["ASY-5", "ASY-9", "QRK-7"] "the leader lease was lost during {action}";
    /// Crash recovery takes too long and another member can take over.
    CrashRecoveryTooLong ["ASY-1"] "crash recovery takes longer than primary_start_timeout and another member can take over";
    /// The members are asked before that is decided.
    AsksWhetherFailoverPossible ["FP-3"] "asks the other members whether one of them could take over";

    /// A standby or primary is starting.
    Starting ["STA-6", "STA-7"] "PostgreSQL is starting";
    /// A primary is starting and the lock is gone.
    StartingWithoutLock ["STA-4"] "PostgreSQL is starting as primary without the leader lease";
    /// A primary takes too long to start.
    StartTooLong ["STA-5"] "PostgreSQL takes longer than primary_start_timeout to start and another member can take over";

    /// This member creates the cluster.
    Bootstraps ["BOO-1", "BOO-3"] "the cluster was never initialised: races to create it";
    /// Somebody else creates it.
    WaitsForBootstrap ["BOO-4", "BOO-7", "BOO-14"] "another member is creating the cluster";
    /// This member must not create it.
    MayNotBootstrap ["BOO-1"] "the cluster was never initialised and this member may not create it (nofailover, or no bootstrap section)";
    /// The store has lost a cluster that exists.
    WasCreated ["INV-S20", "BOO-7"] "the store has lost this cluster: waits for a member that has its data (to create an empty one in its place, restart this agent)";
    /// The bootstrapping member died.
    BootstrapAbandoned ["QRK-11", "BEY-23"] "the member that was creating the cluster is gone: clears its claim";
    /// No leader to copy.
    WaitsForLeaderToClone ["BOO-7"] "the data directory is empty and there is no leader to copy";
    /// Copies a member.
    Clones { member: MemberName } ["BOO-5"] "the data directory is empty: copies {member}";
    /// Copying failed a moment ago.
    CloneFailed { error: String } ["BOO-12"] "the last attempt to copy the cluster failed and is repeated: {error}";
    /// Creating the cluster failed.
    BootstrapFailed { error: String } ["BOO-8"] "creating the cluster failed; its remains were moved aside: {error}";
    /// Empty directory with the key in hand.
    ReleasesWithoutData ["DIR-2"] "holds the leader key without a data directory";
    /// A server runs on an empty directory.
    StopsWithoutData ["DIR-1"] "the data directory is gone: stops the server that was running on it";
    /// The directory cannot be read.
    DataDirInaccessible { problem: String } ["DIR-3", "DIR-11"] "the data directory cannot be looked at: {problem}";
    /// Empty directory in pause.
    EmptyInPause ["DIR-4"] "the data directory is empty; nothing is done in pause";
    /// The directory holds no valid cluster.
    InvalidDataDir ["DIR-5"] "the data directory holds no valid system identifier; it is not touched, reinitialise the member";
    /// The directory belongs to another cluster.
    ForeignDataDir { theirs: String, ours: String } ["DIR-6"] "the data directory belongs to another cluster (system identifier {ours}, the cluster has {theirs})";
    /// The same in pause.
    ForeignDataDirInPause { theirs: String, ours: String } ["DIR-7", "PAU-12"] "the data directory belongs to another cluster (system identifier {ours}, the cluster has {theirs}); only a warning in pause";
    /// A running replica of an unknown cluster.
    AttachAborted ["DIR-8"] "the store does not know this cluster and PostgreSQL runs as a replica: leaves it alone";
    /// An existing primary is taken over, or a wiped store is refilled by its leader.
    StoresSystemId ["DIR-9", "CYC-7"] "the store has no valid system identifier: stores ours";
    /// Only the owner restores keys.
    WaitsForSystemId ["DIR-10"] "the store has no system identifier; only the leader restores it";
    /// Restores the configuration.
    StoresConfig ["CYC-8"] "the store lost the configuration: the leader writes it back";

    /// PostgreSQL crashed under the leader and is started again.
    RestartsAfterCrash ["REC-1", "REC-3"] "PostgreSQL ended unexpectedly while this member holds the leader lease: starts it again";
    /// PostgreSQL crashed and another member shall take over.
    CrashedFailover ["REC-2"] "PostgreSQL ended unexpectedly, primary_start_timeout is 0 and another member can take over";
    /// Crash recovery before a start as standby.
    RecoversFirst ["REC-5", "REC-13"] "PostgreSQL was not stopped in order: recovers it in single-user mode first";
    /// The leader's server is started read-only, to be promoted.
    StartsReadOnly ["REC-7"] "holds the leader lease: starts PostgreSQL read-only, to promote it";
    /// Started as a standby of the leader.
    StartsAsReplica { leader: MemberName } ["REC-11", "NTF-4"] "starts PostgreSQL as a replica of {leader}";
    /// Started as a standby of nobody.
    StartsWithoutLeader ["REC-11", "NTF-4"] "starts PostgreSQL as a replica; there is no leader yet";
    /// A stopped server waits for its successor.
    WaitsForLeader ["REC-11", "DEM-11"] "PostgreSQL is down and waits a moment for a leader to follow";
    /// The last start failed.
    StartFailed { error: String } ["REC-12"] "PostgreSQL did not start, another attempt follows: {error}";
    /// The leader cannot start.
    ReleasesAfterFailedStart { error: String } ["REC-12"] "PostgreSQL did not start: gives up the leader key ({error})";
    /// Down in pause.
    DownInPause ["PAU-9"] "PostgreSQL is down and is not started in pause";
    /// The leader's server is down in pause.
    ReleasesInPause ["PAU-3", "PAU-4", "OWN-2"] "holds the leader key in pause without a running primary: gives it up";

    /// Compares histories.
    ChecksDivergence { leader: MemberName } ["RWD-2", "RWD-3"] "compares its history with that of {leader}";
    /// The leader has the key but is not primary yet.
    WaitsForLeaderToPromote { leader: MemberName } ["RWD-3"] "waits for {leader} to be primary, to compare histories";
    /// The leader has not checkpointed yet.
    WaitsForCheckpointOfLeader { leader: MemberName } ["RWD-9", "INV-S21"] "has to rewind and waits for the checkpoint of {leader} after its promotion";
    /// Recovers so that pg_rewind accepts the directory.
    RecoversBeforeRewind ["RWD-8"] "has to rewind and was not stopped in order: recovers in single-user mode first";
    /// Rewinds.
    Rewinds { leader: MemberName } ["RWD-5", "RWD-9"] "its history has left that of {leader}: rewinds";
    /// The last rewind failed because its source went away.
    RewindTriedAgain { error: String } ["RWD-11"] "pg_rewind could not reach its source and is tried again: {error}";
    /// Diverged, rewind impossible, allowed to copy anew.
    DivergedRecloning { leader: MemberName } ["RWD-13"] "its history has left that of {leader} and pg_rewind is not possible: copies the cluster anew, as configured";
    /// A timeline of the same number that is another one, allowed to copy anew.
    ForkedRecloning { leader: MemberName } ["RWD-5", "RWD-12", "RWD-13"] "its timeline began elsewhere than the timeline of the same number of {leader}, which pg_rewind cannot repair: copies the cluster anew, as configured";
    /// A timeline of the same number that is another one, and no way back.
    Forked { leader: MemberName } ["RWD-5", "INV-S14"] "its timeline began elsewhere than the timeline of the same number of {leader}: PostgreSQL would not notice and damage its data, so it must not follow; save what is needed from this member, empty its data directory and start it again";
    /// Rewind failed, allowed to copy anew.
    RewindFailedRecloning { error: String } ["RWD-12"] "pg_rewind failed ({error}): copies the cluster anew, as configured";

    /// WAL still arrives.
    BacksOff ["UNL-1"] "nobody holds the leader key, but WAL still arrives: waits before it stands";
    /// Stands.
    Stands ["UNL-3", "RACE-10", "DCS-1"] "nobody holds the leader key and no member is fitter: takes it";
    /// Others may have more; nobody has led since this process started.
    WaitsForMoreWal { bytes_behind: u64 } ["RACE-13"] "nobody holds the leader key, and this member is {bytes_behind} bytes behind the last leader: waits a moment for one that has more";
    /// The same of a member that has not come up yet.
    WaitsForMember { member: MemberName } ["RACE-13"] "nobody holds the leader key, and {member} is still starting and may have more: waits a moment for it";
    /// A running primary takes the key back after having asked.
    TakesKeyBack ["HLT-5", "QRK-2"] "PostgreSQL is primary, no other member is, and nobody holds the leader key: takes it";
    /// In pause a primary takes the key.
    TakesKeyInPause ["HLT-4", "PAU-5"] "PostgreSQL is primary and nobody holds the leader key in pause: takes it";
    /// The named candidate stands.
    StandsAsCandidate ["MAN-N1"] "is the requested candidate and nobody holds the leader key: takes it";
    /// A switchover failed and nobody else can lead.
    ReturnsAfterSwitchover ["MAN-N7"] "stepped down for a switchover, but no other member can take over: takes the key back";
    /// Members are asked first.
    AsksBeforeRace ["PEER-1", "RACE-3"] "nobody holds the leader key: asks the other members";
    /// A member with the tag never stands.
    NoFailover ["HLT-7", "INV-S24"] "nobody holds the leader key, but this member is tagged nofailover";
    /// Replicas do not stand in pause.
    NoRaceInPause ["HLT-6", "PAU-6"] "nobody holds the leader key, and replicas do not stand in pause";
    /// Not asked to start, or starting.
    NoRaceWhileStarting ["HLT-3"] "nobody holds the leader key, but PostgreSQL is still starting";
    /// A promotion was refused recently.
    NoRaceAfterRefusal ["HLT-1"] "nobody holds the leader key, but a promotion was refused here less than ttl ago";
    /// In synchronous mode only members of /sync stand, and this version does not maintain it.
    NotSynchronous ["HLT-8", "HLT-12", "SYN-3"] "nobody holds the leader key, and this member may lack commits: /sync does not name it";
    /// Not enough votes.
    TooFewVotes { votes: u32, quorum: u32 } ["RACE-10", "QRM-I4"] "has {votes} of the {quorum} votes of synchronous standbys that it needs to be sure of having every commit";
    /// A watchdog is required and cannot be had.
    NoWatchdog { why: String } ["HLT-10", "WDG-7"] "nobody holds the leader key, but the watchdog that is required here cannot be used: {why}";
    /// The same of a member that holds the key.
    LeadsWithoutWatchdog { why: String } ["PRO-1", "PRO-2", "INV-S18"] "the watchdog that is required here cannot be used ({why}): gives up the leader key";
    /// Not in the failsafe map.
    NotInFailsafeMap ["HLT-11", "FS-8"] "nobody holds the leader key, but this member is not in the failsafe map";
    /// A newer primary existed.
    OldTimeline { ours: Timeline, newest: Timeline } ["HLT-5", "INV-S9"] "PostgreSQL is primary on timeline {ours}, but the cluster has been on {newest}";
    /// A primary that the cluster does not descend from.
    AnotherHistory { ours: Timeline } ["HLT-5", "INV-S23"] "PostgreSQL is primary on timeline {ours}, whose history is not that of the cluster: it was promoted beside it";
    /// Too far behind.
    TooFarBehind { bytes_behind: u64, max_bytes_behind: u64 } ["RACE-1"] "{bytes_behind} bytes behind the last leader, more than the {max_bytes_behind} allowed";
    /// Own position unknown.
    PositionUnknown ["RACE-1", "IN-P5"] "its own position is unknown";
    /// On an old timeline.
    TimelineTooLow ["RACE-2", "INV-S9"] "its timeline is too old: the cluster has been on newer ones (check_timeline asks for the newest)";
    /// A primary is alive.
    PrimaryAlive { member: MemberName } ["RACE-5", "QRK-3"] "{member} is primary";
    /// Somebody is ahead.
    MemberAhead { member: MemberName, theirs: Lsn, ours: Lsn } ["RACE-6", "QRK-4"] "{member} is ahead ({theirs}, this member has {ours})";
    /// Somebody has a higher priority.
    MemberPreferred { member: MemberName } ["RACE-7"] "{member} is as far and has a higher failover_priority";
    /// The request names another member.
    YieldsToCandidate { candidate: MemberName } ["MAN-N2", "MAN-N4"] "leaves the leadership to the requested candidate {candidate}";
    /// The old leader of a switchover leaves it to the others.
    YieldsAfterSwitchover ["MAN-N7"] "stepped down for a switchover and another member can take over";
    /// A primary without the key and with a rival steps down.
    RivalPrimary { member: MemberName } ["QRK-2", "RACE-5"] "PostgreSQL is primary without the leader key and {member} is primary too";

    /// PostgreSQL was promoted by somebody else, or ran on without its agent.
    SecondPrimary { leader: MemberName } ["SPL-1", "OWN-4", "OWN-5", "FOL-3", "PAU-7"] "split brain: PostgreSQL is primary here, and {leader} holds the leader key";
    /// The key is not ours any more.
    LostLock { holder: String } ["OWN-4", "FOL-3", "DCS-2"] "PostgreSQL is primary, but the leader key is held by {holder}";
    /// The same in pause.
    LostLockInPause ["OWN-5", "PAU-7"] "PostgreSQL is primary without the leader key; it keeps running in pause";
    /// The key names us, from before a restart of the agent.
    AdoptsLease ["DCS-E2", "QRK-9", "REC-1", "OWN-3"] "the leader key names this member: proves that it is ours";
    /// The store denied it; the picture of the store is older than that.
    ViewIsOlder ["DCS-2"] "the store said that the leader key is not ours: waits for its picture of the cluster to show that";
    /// The key holds our name under the lease of another agent.
    HeldByNamesake ["BEY-31", "DCS-2"] "the leader key holds the name of this member under a lease that is not ours: either a former agent left it and it runs out, or a second member has this name and one of the two needs another";
    /// The key names a replica; a primary may live.
    AsksBeforeProof ["DCS-E2", "RACE-3", "RACE-5"] "the leader key names this member, which is a replica: asks the others for a living primary first";
    /// Somebody wrote our name into the key, and the rules do not allow us to lead.
    MayNotLeadByHand { why: String } ["DCS-E2", "INV-S24"] "the leader key was made to name this member, which may not lead ({why}): gives it up";
    /// A request for a switchover is honoured.
    StepsDown { candidate: String } ["MAN-L7", "DEM-3"] "a switchover to {candidate} was requested and it can take over";
    /// A request that cannot be honoured is cleared.
    ClearsRequest { why: String } ["MAN-L4", "MAN-L5", "MAN-L6", "MAN-L8", "MAN-L9"] "clears the request to move the leadership: {why}";
    /// A scheduled request.
    WaitsForSchedule { at: String } ["MAN-L2", "TIM-8"] "leads; a switchover is scheduled at {at}";
    /// A request is still there after it has had its effect.
    RequestFulfilled ["UNL-4", "INV-S17"] "the request to move the leadership has had its effect, and clearing it was not confirmed: clears it again";

    /// Promotes.
    Promotes ["PRO-6", "PRO-7", "PRO-10"] "holds the leader lease and PostgreSQL is a replica: promotes it";
    /// Recovery has not ended.
    WaitsForPromotion ["PRO-5"] "promote was issued; recovery has not ended";
    /// Recovery does not end and another member can take over.
    PromotionTooLong ["PRO-5", "ASY-9", "STA-5"] "promote was issued longer than primary_start_timeout ago, recovery has not ended, and another member can take over";
    /// Not enough lease left.
    TooLateToPromote ["PRO-12", "INV-S3"] "the leader lease is about to run out: does not promote";
    /// A script, the fencer or the file system refused.
    PromotionRefused { why: String } ["PRO-3"] "the promotion was refused ({why}): gives up the leader key";
    /// It was not a synchronous standby.
    MayLackCommits ["PRO-6", "SYN-3"] "synchronous mode is on and this member, which /sync does not name, may lack commits: gives up the leader key";
    /// Who may win is changed.
    StoresSyncState { voters: String } ["SON-6", "SON-9", "QRM-D3"] "leads; stores who has every commit besides this member: {voters}";
    /// What commits wait for is changed.
    LoadsStandbyNames { names: String } ["SON-7", "QRM-D3"] "leads; commits wait for '{names}' from now on";
    /// Back to asynchronous replication.
    EndsSynchronousMode ["SYN-7"] "leads; synchronous mode was switched off";
    /// The server did not answer.
    DoesNotAnswer ["CYC-21", "IN-P4"] "PostgreSQL did not answer; its last known role counts";
    /// A checkpoint is due.
    Checkpoints ["RWD-15"] "leads; runs the checkpoint after the promotion";
    /// History is written.
    WritesHistory ["HIS-1", "PRO-11"] "leads; writes the history of timelines";

    /// Standby clusters are never writable.
    PrimaryInStandbyCluster ["INV-S25", "PAU-7"] "this is a standby cluster and PostgreSQL is primary; nothing is done in pause";
    /// A standby cluster is created.
    BootstrapsStandby ["BOO-1", "BOO-2"] "the cluster was never initialised: races to copy the cluster that it follows";
    /// The normal state of the leader of a standby cluster.
    FollowsRemote ["OWN-3", "STB-1", "STB-2"] "this member holds the leader lease and follows the primary of another cluster";
    /// The configuration made this a standby cluster.
    BecomesStandbyCluster ["STB-3", "STB-4", "DEM-10", "INV-S25"] "this has become a standby cluster: stops being primary, to follow the other cluster";
    /// The standby leader's server is started.
    StartsAsStandbyLeader ["REC-9", "STB-1"] "holds the leader lease of a standby cluster: starts PostgreSQL to follow the other cluster";
    /// A member of a standby cluster without a leader.
    StartsFollowingRemote ["REC-10", "NTF-2"] "nobody leads this standby cluster: starts PostgreSQL to follow the other cluster";
    /// Re-points the upstream.
    ChangesUpstream { upstream: String } ["FOL-10"] "follows {upstream} from now on";
    /// Replay was paused by a change of parameters.
    ResumesReplay ["FOL-7"] "replay was paused because parameters of the primary were raised: resumes it, to restart with them";
    /// Pause.
    RunsInPause ["FOL-4", "PAU-7"] "nothing is done in pause";
    /// The agent ends.
    ShutsDown ["SHD-3", "SHD-4", "SHD-5"] "the agent was asked to end: stops PostgreSQL, then gives up the leader key";
    /// The agent ends in pause.
    ShutsDownInPause ["SHD-1", "PAU-13"] "the agent was asked to end in pause: PostgreSQL keeps running";
}
