//! Two servers: cloned, promoted, diverged, rewound.

use std::time::Instant;

use pgward_core::wal::Timeline;
use pgward_postgres::{
    BasebackupOptions, ConnInfo, DataDirState, MonitorOptions, RecoveryDiff, RecoverySettings, Replace, RewindOptions,
    StopOptions, StopOutcome, is_checkpointed, is_in_recovery, timeline_history,
};
use tokio_util::sync::CancellationToken;

use crate::server::{self, LIMIT, Server, as_ordinary_user, eventually};

async fn is_streaming(server: &Server) -> bool {
    server.instance.monitor(&MonitorOptions::default()).await.is_ok_and(|seen| seen.is_streaming())
}

#[test]
fn a_clone_streams_and_its_settings_are_compared() {
    as_ordinary_user("replication::a_clone_streams_and_its_settings_are_compared", async || {
        let primary = Server::bootstrapped("n1").await;
        primary.instance.create_physical_slot("n_2").await.unwrap();
        let mut standby = primary.standby("n-2").await;
        eventually("streaming", async || is_streaming(&standby).await).await;
        let seen = standby.instance.monitor(&MonitorOptions::default()).await.unwrap();
        assert!(seen.in_recovery && seen.timeline.is_none() && seen.replay_paused == Some(false), "{seen:?}");
        assert_eq!(seen.replication_state(), Some("streaming"));
        assert_eq!(standby.instance.identify_system().await.unwrap().timeline, Timeline::FIRST);
        let walsenders = MonitorOptions { slots: true, walsenders: true };
        let upstream = primary.instance.monitor(&walsenders).await.unwrap().walsenders;
        assert_eq!(upstream.len(), 1);
        assert_eq!((upstream[0].application_name.as_str(), upstream[0].state.as_str()), ("n-2", "streaming"));
        assert_eq!(upstream[0].usename, "replicator");

        let diff = async |standby: &Server| {
            standby.instance.recovery_diff(standby.config.recovery.as_ref().unwrap()).await.unwrap()
        };
        assert_eq!(diff(&standby).await, RecoveryDiff::Same);
        if let Some(recovery) = &mut standby.config.recovery {
            recovery.slot = Some("n_2".into());
            recovery.extra.insert("recovery_min_apply_delay".into(), "1s".into());
        }
        assert_eq!(diff(&standby).await, RecoveryDiff::Reload);
        standby.instance.write_configuration(&standby.config).await.unwrap();
        standby.instance.reload().await.unwrap();
        eventually("the reload", async || diff(&standby).await == RecoveryDiff::Same).await;
        let active = async || {
            let seen = primary.instance.monitor(&walsenders).await.unwrap();
            seen.slots.iter().any(|slot| slot.active)
        };
        eventually("the slot in use", active).await;
        assert!(!primary.instance.drop_slot("n_2").await.unwrap(), "never while in use");
        std::fs::write(&standby.instance.settings().pgpass, "old").unwrap();
        assert_eq!(diff(&standby).await, RecoveryDiff::Reload, "a changed password");
        std::fs::remove_file(standby.instance.settings().data_dir.join("standby.signal")).unwrap();
        assert_eq!(diff(&standby).await, RecoveryDiff::Restart);
    });
}

#[test]
fn after_a_clean_change_of_roles_the_old_primary_follows_without_rewind() {
    let name = "replication::after_a_clean_change_of_roles_the_old_primary_follows_without_rewind";
    as_ordinary_user(name, async || {
        let mut old = Server::bootstrapped("n1").await;
        let new = old.standby("n2").await;
        eventually("streaming", async || is_streaming(&new).await).await;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let options = StopOptions { checkpoint: true, timeout: Some(LIMIT), ..StopOptions::default() };
        assert_eq!(old.instance.stop(&options, Some(sender)).await.unwrap(), StopOutcome::Stopped);
        let last = receiver.await.unwrap();
        assert_eq!(last.published, last.checkpoint, "nothing was switched without archiving");
        let has_all =
            async || new.instance.monitor(&MonitorOptions::default()).await.unwrap().position() > last.checkpoint;
        eventually("the shutdown checkpoint on the standby", has_all).await;

        let began = Instant::now();
        new.instance.promote().await.unwrap();
        new.instance.wait_promoted(LIMIT).await.unwrap();
        println!("the promotion took {:?}", began.elapsed());
        new.sql("CREATE TABLE public.written AS SELECT 1").await;

        let position = old.instance.local_position().await.unwrap().unwrap();
        assert!(!position.in_recovery && position.timeline == Timeline::FIRST, "{position:?}");
        let source = new.address(&new.instance.settings().replication);
        let history = timeline_history(&source, Timeline::FIRST.next()).await.unwrap();
        let switch = history.lines[0].lsn;
        assert!(position.lsn < switch);
        let end = old.instance.shutdown_checkpoint_end(&last.control).await.unwrap();
        assert_eq!(end, Some(switch), "so that no rewind is needed");

        old.config.recovery = Some(new.as_upstream());
        old.start().await;
        eventually("the old primary streaming", async || is_streaming(&old).await).await;
        eventually("the new table", async || {
            old.instance.query("SELECT * FROM public.written").await.is_ok_and(|rows| rows.len() == 1)
        })
        .await;
        assert_eq!(old.instance.local_history(Timeline::FIRST.next()).unwrap(), history);
    });
}

#[test]
fn a_diverged_primary_is_rewound() {
    as_ordinary_user("replication::a_diverged_primary_is_rewound", async || {
        let mut old = Server::bootstrapped("n1").await;
        let new = old.standby("n2").await;
        eventually("streaming", async || is_streaming(&new).await).await;
        new.instance.promote().await.unwrap();
        new.instance.wait_promoted(LIMIT).await.unwrap();
        // The old one has not noticed.
        old.sql("CREATE TABLE public.lost AS SELECT 1").await;
        new.sql("CREATE TABLE public.kept AS SELECT 1").await;
        let rewinder = new.address(&new.instance.settings().rewind);
        assert!(!is_in_recovery(&rewinder).await.unwrap());
        new.instance.checkpoint(Some(LIMIT)).await.unwrap();
        assert!(is_checkpointed(&new.address(&new.instance.settings().superuser)).await.unwrap());
        assert!(old.instance.can_rewind().await.unwrap());
        let cancel = CancellationToken::new();
        let refused = old.instance.rewind(&rewinder, &RewindOptions::default(), &cancel).await;
        assert!(refused.unwrap_err().to_string().contains("a server runs"));
        old.stop().await;

        let source = new.address(&new.instance.settings().replication);
        let history = timeline_history(&source, Timeline::FIRST.next()).await.unwrap();
        assert!(old.instance.local_position().await.unwrap().unwrap().lsn >= history.lines[0].lsn, "diverged");
        let unreachable = ConnInfo { port: 1, ..rewinder.clone() };
        assert!(old.instance.rewind(&unreachable, &RewindOptions::default(), &cancel).await.is_err());
        assert!(!old.instance.is_half_rewound(), "nothing was changed");
        let began = Instant::now();
        let data_dir = old.instance.settings().data_dir.clone();
        let by_hand = || {
            let mut tool = std::process::Command::new(server::program("pg_rewind"));
            let source = format!("host=127.0.0.1 port={} dbname=postgres user=rewinder password=rew", new.port);
            let arguments = ["-D", &data_dir.display().to_string(), "--source-server", &source].map(str::to_owned);
            assert!(tool.args(arguments).status().unwrap().success());
        };
        // An agent that ended before pg_rewind did: its mark outlives the tool.
        let mark = data_dir.join("pgward.rewinding");
        assert!(std::process::Command::new("mkfifo").arg(&mark).status().unwrap().success());
        by_hand();
        assert!(old.instance.is_half_rewound());
        old.instance.rewind(&rewinder, &RewindOptions::default(), &cancel).await.unwrap();
        assert!(!old.instance.is_half_rewound());
        println!("the rewind took {:?}", began.elapsed());
        old.config.recovery = Some(new.as_upstream());
        old.start().await;
        eventually("the old primary streaming", async || is_streaming(&old).await).await;
        eventually("what the new one kept", async || {
            old.instance.query("SELECT * FROM public.kept").await.is_ok_and(|rows| rows.len() == 1)
        })
        .await;
        assert!(old.instance.query("SELECT * FROM public.lost").await.is_err());
    });
}

#[test]
fn a_clone_can_be_cancelled_and_tells_why_it_fails() {
    as_ordinary_user("replication::a_clone_can_be_cancelled_and_tells_why_it_fails", async || {
        let primary = Server::bootstrapped("n1").await;
        let standby = Server::new("n2");
        let mut source = primary.address(&primary.instance.settings().replication);
        let cancel = CancellationToken::new();
        // At this rate the copy takes a quarter of an hour.
        primary.sql("CREATE TABLE public.t AS SELECT generate_series(1, 100000)").await;
        let slow = [("checkpoint", "fast"), ("max-rate", "32k"), ("wal-method", "none")];
        let slow = slow.map(|(name, value)| (name.to_owned(), Some(value.to_owned())));
        let options = pgward_postgres::BasebackupOptions { options: slow.into() };
        let (progress, mut seen) = tokio::sync::watch::channel(Default::default());
        let clone = standby.instance.clone_from(&source, Replace::Nothing, &options, Some(progress), &cancel);
        let (result, ()) = tokio::join!(clone, async {
            seen.changed().await.unwrap();
            cancel.cancel();
        });
        assert!(matches!(result, Err(pgward_postgres::Error::Cancelled)), "{result:?}");
        assert_eq!(standby.instance.data_dir_state(), DataDirState::Empty, "what was written is removed");
        source.credentials.password = Some("wrong".into());
        let wrong =
            standby.instance.clone_from(&source, Replace::Nothing, &options, None, &CancellationToken::new()).await;
        let error = wrong.unwrap_err();
        assert!(error.to_string().contains("password authentication failed"), "{error}");
        assert_eq!(standby.instance.data_dir_state(), DataDirState::Empty);
    });
}

#[test]
fn a_cluster_is_replaced_only_by_a_copy_of_itself_that_can_be_had() {
    as_ordinary_user("replication::a_cluster_is_replaced_only_by_a_copy_of_itself_that_can_be_had", async || {
        let primary = Server::bootstrapped("n1").await;
        let standby = primary.standby("n2").await;
        let stranger = Server::bootstrapped("n3").await;
        standby.stop().await;
        let options = BasebackupOptions { options: vec![("checkpoint".into(), Some("fast".into()))] };
        let source = primary.address(&primary.instance.settings().replication);
        let clone = async |source: &ConnInfo, replace: Replace| {
            standby.instance.clone_from(source, replace, &options, None, &CancellationToken::new()).await
        };
        let mut locked_out = source.clone();
        locked_out.credentials.password = Some("wrong".into());
        let foreign = stranger.address(&stranger.instance.settings().replication);
        for (source, replace, why) in [
            (&source, Replace::Nothing, "not empty any more"),
            (&locked_out, Replace::Cluster, "password authentication failed"),
            (&foreign, Replace::Cluster, "of another cluster"),
        ] {
            let error = clone(source, replace).await.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(matches!(standby.instance.data_dir_state(), DataDirState::Present { major: Some(_) }), "{why}");
        }
        standby.start().await;
        standby.stop().await;
        clone(&source, Replace::Cluster).await.unwrap();
        standby.start().await;
        eventually("streaming", async || is_streaming(&standby).await).await;
    });
}

/// RWD-5: what makes forks dangerous. PostgreSQL and pg_rewind compare the numbers of timelines alone.
#[test]
fn two_timelines_of_one_number_are_told_apart_by_their_history_files_only() {
    let name = "replication::two_timelines_of_one_number_are_told_apart_by_their_history_files_only";
    as_ordinary_user(name, async || {
        let mut old = Server::bootstrapped("n1").await;
        let mut new = old.standby("n2").await;
        eventually("streaming", async || is_streaming(&new).await).await;
        let second = Timeline::FIRST.next();
        new.instance.promote().await.unwrap();
        new.instance.wait_promoted(LIMIT).await.unwrap();
        new.sql("CREATE TABLE public.forked AS SELECT 1").await;
        // The old one has not heard of that timeline, and takes its number.
        old.sql("CREATE TABLE public.kept AS SELECT 1").await;
        old.stop().await;
        old.config.recovery = Some(RecoverySettings::default());
        old.start().await;
        old.instance.promote().await.unwrap();
        old.instance.wait_promoted(LIMIT).await.unwrap();
        old.instance.checkpoint(Some(LIMIT)).await.unwrap();
        new.stop().await;

        let timelines = [old.instance.identify_system().await.unwrap().timeline, {
            new.instance.local_position().await.unwrap().unwrap().timeline
        }];
        assert_eq!(timelines, [second, second]);
        let source = old.address(&old.instance.settings().replication);
        let theirs = timeline_history(&source, second).await.unwrap();
        assert_ne!(new.instance.local_history(second).unwrap(), theirs, "this is how a member sees the fork");

        let rewinder = old.address(&old.instance.settings().rewind);
        let cancel = CancellationToken::new();
        new.instance.rewind(&rewinder, &RewindOptions::default(), &cancel).await.unwrap();
        assert_ne!(new.instance.local_history(second).unwrap(), theirs, "pg_rewind found nothing to do");
        new.config.recovery = Some(RecoverySettings::default());
        new.start().await;
        assert_eq!(new.sql("SELECT count(*) FROM public.forked").await, "1", "and left what only this branch has");
    });
}
