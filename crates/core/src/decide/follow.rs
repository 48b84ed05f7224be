//! Whom to stream from, and how to get there (section 15).

use crate::cluster::{Cluster, Member, MemberRole};
use crate::mutant::{Mutant, leaves_out};
use crate::names::MemberName;
use crate::wal::Timeline;

use super::effect::{Decision, DemoteMode, Effect};
use super::leader;
use super::memory::Memory;
use super::reason::Reason;
use super::rewind;
use super::view::{Lease, OwnTags, RecoveryDiff, Settings, View};

/// NTF-1…5: the member to stream from; `None` for nobody.
pub fn upstream(me: &MemberName, tags: &OwnTags, settings: &Settings, cluster: &Cluster) -> Option<MemberName> {
    if tags.nostream {
        return None; // NTF-1
    }
    if settings.standby_cluster && (cluster.is_led_by(me) || (cluster.is_unlocked() && !settings.paused)) {
        return Some(MemberName::remote()); // NTF-2
    }
    let named = |name: &str| cluster.members.values().find(|member| member.name.as_str() == name);
    let wanted = tags.replicatefrom.as_deref().filter(|name| *name != me.as_str()).and_then(named);
    let usable = wanted.filter(|member| {
        member.address().is_some() && (leaves_out(Mutant::FollowInCircles) || !follows(cluster, member, me))
    });
    let cascading = usable.map(|member| &member.name); // NTF-3
    let leader = cluster.leader.as_ref().map(|leader| &leader.name); // NTF-4
    cascading.or(leader).filter(|name| *name != me).cloned() // NTF-5
}

/// INV-S22: true when `member` gets its WAL from `me` in the end, as far as the tags say.
fn follows(cluster: &Cluster, member: &Member, me: &MemberName) -> bool {
    let source = |member: &&Member| {
        let leads = cluster.is_led_by(&member.name);
        let name = member.replicatefrom().filter(|_| !leads)?;
        cluster.members.values().find(|source| source.name.as_str() == name)
    };
    // As many steps as there are members: others may follow one another in a circle.
    std::iter::successors(Some(member), source).take(cluster.members.len()).any(|member| member.name == *me)
}

/// FOL-2…14: another member holds the key.
pub(super) fn decide(view: &View, cluster: &Cluster, memory: &mut Memory) -> Decision {
    let Some(leader) = &cluster.leader else {
        return without_leader(view, Reason::KeepsUpstream);
    };
    if view.postgres.is_primary() {
        let decision = leader::without_lock(view, leader.name.to_string()); // FOL-3, FOL-4
        return match view.lease {
            // It has not lost a lease: it was promoted by somebody else, or ran on without its agent.
            Lease::None => decision.because(Reason::SecondPrimary { leader: leader.name.clone() }),
            Lease::Held { .. } | Lease::NotOurs { .. } => decision,
        };
    }
    let upstream = upstream(&view.me, &view.tags, &view.settings, cluster);
    let (ours, theirs) = (
        view.postgres.facts.as_ref().and_then(|facts| facts.timeline),
        cluster.leader_member().and_then(|member| member.timeline()),
    );
    // Ahead of its leader is who followed somebody that was promoted beside it.
    let is_elsewhere = matches!((ours, theirs), (Some(ours), Some(theirs)) if ours != theirs);
    // RWD-5: the same number may be another timeline, and PostgreSQL would stream it.
    let may_be_forked = ours == theirs && ours.is_some_and(|timeline| timeline != Timeline::FIRST);
    let streaming = view.postgres.facts.as_ref().is_some_and(|facts| facts.streaming);
    let replayed = view.postgres.facts.as_ref().map(|facts| facts.replayed);
    let is_settled = matches!(memory.rewind, super::RewindState::Initial | super::RewindState::NotNeeded);
    let same = memory
        .same_history
        .filter(|same| Some(same.leader_timeline) == theirs && memory.compared_with.as_ref() == Some(&leader.name));
    let moved_on = is_elsewhere && !streaming && same.is_none_or(|same| replayed.is_some_and(|lsn| lsn > same.lsn));
    let may_be_forked = may_be_forked && same.is_none_or(|same| Some(same.timeline) != ours);
    if view.settings.standby_cluster {
        compare_with_remote(view, memory);
    } else if (moved_on || may_be_forked) && is_settled {
        rewind::request_check(memory); // FOL-12
    }
    if let Some(decision) = rewind::next_step(view, cluster, memory)
        && (!view.settings.paused || upstream.is_some())
    {
        return decision; // FOL-6
    }
    if !view.settings.paused && view.postgres.facts.as_ref().is_some_and(|facts| facts.replay_paused) {
        return Reason::ResumesReplay.with([Effect::ResumeReplay]); // FOL-7
    }
    if cluster.members.get(&leader.name).is_none_or(|member| member.address().is_none()) {
        return Reason::KeepsUpstream.alone(); // FOL-9: an unknown leader is no reason to let go.
    }
    let settled = re_point(view, memory, upstream.clone(), Reason::Follows { leader: leader.name.clone() });
    match settled.effects.is_empty().then(|| copy_slots(view, cluster, memory, upstream)).flatten() {
        Some(copies) => copies,
        None => settled,
    }
}

/// SLT-8: a standby that streams, and lacks logical slots, copies them from the primary. It is restarted for that, so that
/// nothing is copied in maintenance mode, nor again before a while has passed.
fn copy_slots(view: &View, cluster: &Cluster, memory: &Memory, upstream: Option<MemberName>) -> Option<Decision> {
    let facts = view.postgres.facts.as_ref().filter(|facts| facts.in_recovery && facts.streaming)?;
    let slots = &view.postgres.lacks_slots;
    let is_settled = view.postgres.is_running() && view.postgres.recovery == RecoveryDiff::Same;
    if slots.is_empty() || !is_settled || view.settings.paused || view.action.is_some() {
        return None;
    }
    if view.failsafe.promise_at(view.now).is_some() {
        return None; // FS-13: who promised to wait is needed as it is.
    }
    // A standby that replays another timeline than the leader's is about to find out about it.
    let leader = cluster.leader_member().filter(|leader| leader.timeline() == facts.timeline)?;
    if leader.role() != Some(MemberRole::Primary) || memory.copy_slots_again_at.is_some_and(|again| view.now < again) {
        return None;
    }
    let names = slots.keys().cloned().collect::<Vec<_>>().join(", ");
    let reason = Reason::CopiesSlots { slots: names, leader: leader.name.clone() };
    Some(reason.with([Effect::CopySlots { source: leader.name.clone(), slots: slots.clone(), upstream }]))
}

/// FOL-10: recovery settings that differ are changed, by a reload where that is enough.
fn re_point(view: &View, memory: &mut Memory, upstream: Option<MemberName>, settled: Reason) -> Decision {
    let named = upstream.as_ref().map_or("nobody".to_owned(), ToString::to_string);
    let differs = matches!(view.postgres.recovery, RecoveryDiff::Reload | RecoveryDiff::Restart);
    if let Some((before, at)) = &memory.pointed_to
        && differs
        && *before == upstream
        && view.now.since(*at) < view.settings.loop_wait
    {
        // What it was told does not show, yet or ever: an override in postgresql.auto.conf, say.
        return settled.wake_at(*at + view.settings.loop_wait);
    }
    match view.postgres.recovery {
        RecoveryDiff::Same if leaves_out(Mutant::RestlessStandby) => {
            Reason::ChangesUpstream { upstream: named }.with([Effect::RestartForUpstream { upstream }])
        }
        RecoveryDiff::Same | RecoveryDiff::Unknown => settled.alone(),
        RecoveryDiff::Reload => {
            memory.pointed_to = Some((upstream.clone(), view.now));
            rewind::request_check(memory);
            Reason::ChangesUpstream { upstream: named }.with([Effect::ReloadUpstream { upstream }])
        }
        RecoveryDiff::Restart => {
            if let (Some(error), Some(retry_at)) = (&memory.start_error, memory.retry_at)
                && view.now < retry_at
            {
                return Reason::StartFailed { error: error.clone() }.wake_at(retry_at);
            }
            memory.pointed_to = Some((upstream.clone(), view.now));
            rewind::request_check(memory);
            Reason::ChangesUpstream { upstream: named }.with([Effect::RestartForUpstream { upstream }])
        }
    }
}

/// FOL-13: nobody holds the key and this member does not stand: the upstream stays as it is. A primary without the
/// key steps down where the reason says that it must.
pub(super) fn without_leader(view: &View, reason: Reason) -> Decision {
    if view.postgres.is_primary() && !view.settings.paused {
        return leader::without_lock(view, "nobody".to_owned()).because(reason);
    }
    reason.alone()
}

/// STB-1…4, FOL-5: the owner in a standby cluster follows the other cluster, and is never writable (INV-S25).
pub(super) fn as_standby_leader(view: &View, cluster: &Cluster, memory: &mut Memory) -> Decision {
    if view.postgres.is_primary() {
        if view.settings.paused {
            return Reason::PrimaryInStandbyCluster.alone();
        }
        let demote = Effect::Demote { mode: DemoteMode::Cluster, upstream: None };
        return Reason::BecomesStandbyCluster.with([demote]); // STB-3, STB-4
    }
    let Some(facts) = view.postgres.facts.as_ref() else { return Reason::DoesNotAnswer.alone() };
    compare_with_remote(view, memory);
    if let Some(decision) = rewind::next_step(view, cluster, memory) {
        return decision;
    }
    if !view.settings.paused && facts.replay_paused {
        return Reason::ResumesReplay.with([Effect::ResumeReplay]); // FOL-7
    }
    let upstream = upstream(&view.me, &view.tags, &view.settings, cluster);
    re_point(view, memory, upstream, Reason::FollowsRemote)
}

/// FOL-5: the primary of the other cluster may be another one by now, which lacks what this member has. Asked for once in
/// `loop_wait` while nothing streams.
fn compare_with_remote(view: &View, memory: &mut Memory) {
    let is_settled = matches!(memory.rewind, super::RewindState::Initial | super::RewindState::NotNeeded);
    let is_due = memory.remote_compared_at.is_none_or(|at| view.now.since(at) >= view.settings.loop_wait);
    if view.postgres.facts.as_ref().is_some_and(|facts| !facts.streaming) && is_settled && is_due {
        memory.remote_compared_at = Some(view.now);
        rewind::request_check(memory);
    }
}

impl Decision {
    /// The same effects for a reason that says more.
    fn because(mut self, reason: Reason) -> Decision {
        self.reason = reason;
        self
    }
}
