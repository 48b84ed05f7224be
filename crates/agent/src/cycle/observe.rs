//! Freezes the world into a [`View`]. What cannot be seen is a value in it.

use std::collections::BTreeMap;

use pgward_core::cluster::{Cluster, Member, MemberRole, PostgresState};
use pgward_core::config::StandbyCluster;
use pgward_core::decide::failsafe::{Failsafe, with_promised_leader};
use pgward_core::decide::follow;
use pgward_core::decide::view::{
    ActionKind, Finished, Outcome, OwnTags, Postgres, RecoveryDiff, Settings, Store as SeenStore, View,
};
use pgward_core::mutant::{Mutant, leaves_out};
use pgward_core::names::MemberName;
use pgward_store::{Store, StoreView};
use tracing::warn;

use super::Cycle;
use crate::server::{Look, Seen, Server};

impl<S: Store, L: Server> Cycle<S, L> {
    /// Looks at everything once.
    pub(super) async fn observe(&mut self) -> (View, Seen<L::Postmaster>) {
        let (now, lease_state) = (self.host.boot_now(), self.lease.now());
        let failsafe =
            Failsafe { consent: lease_state.consent, round: self.round.clone(), promise: self.promises.present() };
        let store = match &self.decided_on {
            StoreView::Current { cluster, .. } => SeenStore::Current(with_promised_leader(cluster, &failsafe, now)),
            StoreView::Connecting { error } => {
                SeenStore::Lost { error: error.clone().unwrap_or_else(|| "not connected yet".to_owned()) }
            }
            StoreView::Lost { error, .. } => SeenStore::Lost { error: error.clone() },
        };
        let settings = self.settings();
        let tags = self.tags();
        let upstream = match &store {
            SeenStore::Current(cluster)
                if !cluster.is_unlocked()
                    && (!cluster.is_led_by(&self.config.name) || self.dynamic.standby_cluster.is_some()) =>
            {
                let upstream = follow::upstream(&self.config.name, &tags, &settings, cluster);
                Some(upstream.and_then(|name| self.member_named(cluster, &name)))
            }
            SeenStore::Current(_) | SeenStore::Lost { .. } => None,
        };
        let leader_timeline = match &store {
            SeenStore::Current(cluster) => cluster.leader_member().and_then(|leader| leader.timeline()),
            SeenStore::Lost { .. } => None,
        };
        let busy = self.actions.running().filter(|_| !leaves_out(Mutant::ActionsTogether));
        let look = Look { upstream, leader_timeline, busy: busy.as_ref().map(|action| action.kind) };
        let seen = self.server.look(&self.local, &look).await;
        self.settle(&seen, busy.is_none());
        let local = self.local.get();
        let lease = lease_state.key;
        self.decided_lease = lease.clone();
        let mut view = View {
            now: self.host.boot_now(),
            wall: self.host.wall_now(),
            me: self.config.name.clone(),
            tags,
            may_bootstrap: self.config.bootstrap.is_some(),
            settings,
            store,
            lease,
            data_dir: seen.data_dir.clone(),
            postgres: Postgres {
                state: local.state,
                role: local.role,
                alive: seen.alive,
                starting_since: local.starting_since,
                facts: seen.facts.clone(),
                control: seen.control.clone(),
                managed: local.managed,
                recovery: if seen.alive { seen.recovery } else { RecoveryDiff::Unknown },
                lacks_slots: BTreeMap::new(),
            },
            action: busy,
            finished: self.finished.clone(),
            request: self.requests.asked(),
            poll: self.poll.clone(),
            failsafe,
            watchdog_failure: self.fence.watchdog().failure(),
        };
        if view.postgres.facts.as_ref().is_some_and(|facts| facts.in_recovery) {
            view.postgres.lacks_slots = self.lacking_slots(&view, &seen);
        }
        self.note_for_promises(&view);
        self.local.update(|local| local.managed |= seen.alive);
        (view, seen)
    }

    /// Whoever leads, or is about to, gives nobody its consent; nor does a member that sees somebody else lead.
    fn note_for_promises(&self, view: &View) {
        let is_rising = view.action.as_ref().is_some_and(|action| match action.kind {
            ActionKind::Bootstrap | ActionKind::Promote => true,
            ActionKind::Start | ActionKind::Restart => view.postgres.role == MemberRole::Primary,
            ActionKind::Clone
            | ActionKind::Demote
            | ActionKind::Stop
            | ActionKind::CrashRecovery
            | ActionKind::CheckDivergence
            | ActionKind::Rewind
            | ActionKind::ChangeUpstream
            | ActionKind::CopySlots
            | ActionKind::Checkpoint => false,
        });
        let leads = view.postgres.is_primary() || view.lease.is_exclusive(view.now) || is_rising;
        let led_by = self.decided_on.current().and_then(|cluster| cluster.leader.as_ref());
        let led_by = led_by.map(|leader| leader.name.clone()).filter(|leader| *leader != view.me);
        self.promises.note(view.settings.failsafe_mode, view.settings.ttl, leads, led_by);
    }

    /// Brings the remembered state in line with what was seen. While an action works on the server, the state is the
    /// action's to set.
    fn settle(&mut self, seen: &Seen<L::Postmaster>, idle: bool) {
        let local = self.local.get();
        if !seen.alive {
            let unexpected = matches!(local.state, PostgresState::Running | PostgresState::Restarting);
            if unexpected && idle {
                warn!("PostgreSQL has ended unexpectedly");
                self.local.ended(PostgresState::Crashed);
            } else if local.state == PostgresState::Starting && idle {
                self.local.ended(PostgresState::StartFailed);
                let output = self.server.output_tail();
                self.finished.push(Finished { kind: ActionKind::Start, outcome: Outcome::Failed(output) });
            } else if local.postmaster.is_some() && idle {
                self.local.ended(PostgresState::Stopped);
            }
            return;
        }
        let same_server = local.postmaster == seen.postmaster;
        self.local.update(|local| local.postmaster.clone_from(&seen.postmaster));
        if seen.accepting && (idle || local.state == PostgresState::Starting) {
            self.local.accepts();
        } else if !seen.accepting && idle && local.state != PostgresState::Running {
            self.local.update(|local| {
                local.state = PostgresState::Starting;
                local.starting_since.get_or_insert_with(|| self.host.boot_now());
            });
        }
        if let Some(facts) = &seen.facts {
            let role = match (facts.in_recovery, local.role) {
                (false, _) => MemberRole::Primary,
                // Promote was issued and recovery has not ended, however long its action waited for that. Only another
                // start of the server makes it undone.
                (true, MemberRole::Promoted) if same_server => MemberRole::Promoted,
                (true, _) if self.leads_standbys() => MemberRole::StandbyLeader, // FOL-8, FOL-11
                (true, _) => MemberRole::Replica,
            };
            if local.role != role {
                self.local.set_role(role);
            }
        }
    }

    /// FOL-8: the owner in a standby cluster.
    fn leads_standbys(&self) -> bool {
        let lease = self.lease.now().key;
        self.dynamic.standby_cluster.is_some() && lease.is_exclusive(self.host.boot_now())
    }

    /// The record of a member; that of the other cluster in a standby cluster.
    pub(super) fn member_named(&self, cluster: &Cluster, name: &MemberName) -> Option<Member> {
        match name.is_remote() {
            true => self.dynamic.standby_cluster.as_ref().map(StandbyCluster::as_member),
            false => cluster.members.get(name).cloned(),
        }
    }

    fn settings(&self) -> Settings {
        let dynamic = &self.dynamic;
        let postgres = self.server.policy();
        Settings {
            ttl: dynamic.timing.ttl,
            loop_wait: dynamic.timing.loop_wait,
            retry_timeout: dynamic.timing.retry_timeout,
            maximum_lag_on_failover: dynamic.maximum_lag_on_failover_bytes,
            check_timeline: dynamic.check_timeline,
            primary_start_timeout: dynamic.primary_start_timeout,
            primary_race_backoff: dynamic.primary_race_backoff,
            paused: dynamic.pause,
            sync: dynamic.sync_settings(self.server.own_standby_names()),
            standby_cluster: dynamic.standby_cluster.is_some(),
            failsafe_mode: dynamic.failsafe_mode,
            use_pg_rewind: postgres.use_pg_rewind,
            wipe_on_rewind_failure: postgres.wipe_on_rewind_failure,
            wipe_on_divergence: postgres.wipe_on_divergence,
        }
    }

    fn tags(&self) -> OwnTags {
        let tags = &self.config.tags;
        OwnTags {
            nofailover: tags.is_nofailover(),
            failover_priority: tags.failover_priority(),
            replicatefrom: tags.replicatefrom().map(str::to_owned),
            nostream: tags.is_nostream(),
        }
    }
}
