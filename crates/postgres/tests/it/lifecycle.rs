//! One server: created, started, observed, killed, recovered.

use std::time::{Duration, Instant};

use pgward_core::wal::{Lsn, Timeline};
use pgward_postgres::{
    ClusterState, DataDirState, MonitorError, MonitorOptions, Ready, ServerConfig, SlotKind, StartOutcome,
    identify_system,
};
use tokio_util::sync::CancellationToken;

use crate::server::{LIMIT, Server, as_ordinary_user, eventually};

#[test]
fn a_new_cluster_is_created_and_observed() {
    as_ordinary_user("lifecycle::a_new_cluster_is_created_and_observed", async || {
        let server = Server::new("n1");
        let instance = &server.instance;
        assert_eq!(instance.data_dir_state(), DataDirState::Empty);
        instance.check_owner().unwrap();
        assert_eq!(instance.ready_state().await, Ready::NoResponse);
        let server = server.bootstrap().await;
        let instance = &server.instance;
        let major = instance.major_version().unwrap();
        assert!(matches!(instance.data_dir_state(), DataDirState::Present { major: Some(_) }));

        let control = instance.control_data().await.unwrap();
        let look = instance.control_quick_look().unwrap();
        assert_eq!(control.state, Some(ClusterState::InProduction));
        assert_eq!((Some(look.state), Some(look.checkpoint)), (control.state, control.checkpoint));
        assert_eq!(Some(look.system_id.to_string()), control.system_id);
        assert_eq!(control.settings["max_connections"], 30, "{control:?}");
        assert!(control.wal_log_hints);

        instance.create_physical_slot("n2").await.unwrap();
        let seen = instance.monitor(&MonitorOptions { slots: true, walsenders: true }).await.unwrap();
        assert_eq!(seen.server_version / 10_000, major);
        assert!(!seen.in_recovery && seen.flushed.is_some() && seen.position() > Lsn::INVALID, "{seen:?}");
        assert_eq!((seen.timeline, seen.control_timeline), (Some(Timeline::FIRST), Some(Timeline::FIRST)));
        assert!(seen.postmaster_start_time.ends_with("+00:00"), "{}", seen.postmaster_start_time);
        assert_eq!(seen.slots.len(), 1);
        assert_eq!((seen.slots[0].name.as_str(), &seen.slots[0].kind), ("n2", &SlotKind::Physical));
        assert!(seen.slots[0].restart.is_some() && !seen.slots[0].active);
        instance.probe().await.unwrap();
        assert_eq!(instance.ready_state().await, Ready::Accepting);
        // Its own sessions are logged after the one that knocked; a good-bye in place of a password would be, too.
        instance.probe().await.unwrap();
        let log = instance.server_output_tail();
        assert!(!log.contains("SASL"), "{log}");

        let identity = identify_system(&server.address(&instance.settings().replication)).await.unwrap();
        assert_eq!((Some(&identity.system_id), identity.timeline), (control.system_id.as_ref(), Timeline::FIRST));

        server.sql("SELECT pg_switch_wal()").await;
        assert!(instance.advance_slot("n2", seen.position()).await.unwrap());
        assert!(!instance.advance_slot("n2", Lsn(1)).await.unwrap(), "never back");
        assert!(!instance.create_physical_slot("n2").await.unwrap(), "there already");
        assert!(instance.drop_slot("n2").await.unwrap() && !instance.drop_slot("n2").await.unwrap());

        let roles = "SELECT string_agg(rolname || rolsuper || rolreplication, ',' ORDER BY rolname) FROM pg_roles \
                     WHERE rolname !~ '^pg_'";
        assert_eq!(server.sql(roles).await, "admintruetrue,replicatorfalsetrue,rewinderfalsefalse");
        instance.create_roles().await.unwrap();

        let through_socket = pgward_postgres::Settings {
            use_unix_socket: true,
            unix_socket_directories: Some(server.root.path().display().to_string()),
            ..(*instance.settings()).clone()
        };
        let through_socket = pgward_postgres::Instance::new(through_socket);
        assert_eq!(through_socket.ready_state().await, Ready::Accepting);
        let rows = through_socket.query("SELECT inet_client_addr() IS NULL").await.unwrap();
        assert!(rows[0].is_true(0));

        let argument = server.root.path().join("argument");
        let script = format!("sh -c 'echo \"$1\" > {}' -", argument.display());
        instance.run_post_bootstrap(&script, &CancellationToken::new()).await.unwrap();
        let argument = std::fs::read_to_string(argument).unwrap();
        assert_eq!(argument.trim(), format!("dbname=postgres user=admin host=localhost port={}", server.port));
    });
}

#[test]
fn parameters_are_filtered_and_compared() {
    as_ordinary_user("lifecycle::parameters_are_filtered_and_compared", async || {
        let mut server = Server::bootstrapped("n1").await;
        let wanted = [
            ("work_mem", "8MB"),
            ("zero_damaged_pages", "off"),
            ("pg_stat_statements.track", "all"),
            ("TimeZone", "UTC"),
            ("no_such_parameter", "1"),
            ("restore_command", "x"),
        ];
        let wanted = wanted.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let filter = server.instance.filter_parameters(&wanted).await.unwrap();
        assert_eq!(filter.unknown.iter().collect::<Vec<_>>(), ["no_such_parameter"]);
        assert_eq!(filter.kept.len(), 4, "{filter:?}");

        let same = server.instance.pending_restart(&server.config.parameters).await.unwrap();
        assert!(same.is_empty(), "{same:?}");
        server.set("max_connections", "31");
        server.set("shared_buffers", "32MB");
        server.set("work_mem", "5MB");
        let pending = server.instance.pending_restart(&server.config.parameters).await.unwrap();
        let names: Vec<&str> = pending.keys().map(String::as_str).collect();
        assert_eq!(names, ["max_connections", "shared_buffers"]);
        assert_eq!((pending["shared_buffers"].old.as_str(), pending["shared_buffers"].new.as_str()), ("16MB", "32MB"));

        assert!(server.instance.write_configuration(&server.config).await.unwrap());
        server.instance.reload().await.unwrap();
        eventually("the reload", async || server.sql("SHOW work_mem").await == "5MB").await;
        let reported = server.instance.reported_pending_restart().await.unwrap();
        assert_eq!(reported["shared_buffers"].old, "16MB");
        assert!(!reported.contains_key("work_mem"));
    });
}

#[test]
fn a_start_that_fails_says_why() {
    as_ordinary_user("lifecycle::a_start_that_fails_says_why", async || {
        let mut server = Server::bootstrapped("n1").await;
        server.stop().await;
        server.set("shared_buffers", "many");
        match server.instance.start(&server.config, LIMIT).await.unwrap() {
            StartOutcome::Failed { output } => assert!(output.contains("shared_buffers"), "{output}"),
            other @ (StartOutcome::Accepting(_) | StartOutcome::Starting(_)) => panic!("{other:?}"),
        }
        server.set("shared_buffers", "16MB");
        let without_program = pgward_postgres::Settings {
            bin_name: [("postgres".to_owned(), "nothing".to_owned())].into(),
            ..(*server.instance.settings()).clone()
        };
        let lame = pgward_postgres::Instance::new(without_program);
        match lame.start(&server.config, LIMIT).await.unwrap() {
            StartOutcome::Failed { output } => assert!(output.contains("cannot run"), "{output}"),
            other @ (StartOutcome::Accepting(_) | StartOutcome::Starting(_)) => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_killed_postmaster_is_noticed_and_its_children_are_found() {
    as_ordinary_user("lifecycle::a_killed_postmaster_is_noticed_and_its_children_are_found", async || {
        let server = Server::bootstrapped("n1").await;
        let instance = &server.instance;
        let postmaster = instance.postmaster().unwrap().unwrap();
        assert!(instance.leftover_processes().unwrap().is_empty(), "all belong to the postmaster");
        // A backend that does not look at its postmaster.
        let busy = instance.clone();
        let statement = tokio::spawn(async move {
            let target = busy.settings().local();
            let loop_for_ever = "DO $$ BEGIN LOOP END LOOP; END $$";
            let options = pgward_postgres::ConnectOptions { statement_timeout: None, ..Default::default() };
            let mut connection = pgward_postgres::Connection::open(&target, &options).await.unwrap();
            connection.query(loop_for_ever).await
        });
        let active = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO%'";
        eventually("the busy backend", async || server.sql(active).await == "1").await;

        let waiting = postmaster.clone();
        let noticed = tokio::spawn(async move {
            waiting.exited().await;
            Instant::now()
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let killed = Instant::now();
        let pid = rustix::process::Pid::from_raw(postmaster.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let delay = noticed.await.unwrap() - killed;
        println!("the end of the postmaster was noticed after {delay:?}");
        assert!(delay < Duration::from_millis(100), "{delay:?}");
        assert!(!postmaster.is_alive() && instance.postmaster().unwrap().is_none());
        assert!(!instance.leftover_processes().unwrap().is_empty());
        assert!(matches!(instance.start(&server.config, LIMIT).await.unwrap(), StartOutcome::Failed { .. }));
        instance.kill_leftovers(LIMIT).await.unwrap();
        assert!(instance.leftover_processes().unwrap().is_empty());
        assert!(statement.await.unwrap().is_err());
        assert!(matches!(instance.monitor(&MonitorOptions::default()).await, Err(MonitorError::Connection(_))));

        let began = Instant::now();
        server.start().await;
        println!("crash recovery and start took {:?}", began.elapsed());
        assert_eq!(server.sql("SELECT 1").await, "1");
    });
}

#[test]
fn a_stale_pid_file_of_somebody_else_does_not_hinder() {
    as_ordinary_user("lifecycle::a_stale_pid_file_of_somebody_else_does_not_hinder", async || {
        let server = Server::bootstrapped("n1").await;
        server.stop().await;
        let mut stranger = std::process::Command::new("setsid").args(["sleep", "600"]).spawn().unwrap();
        let data_dir = server.instance.settings().data_dir.clone();
        let file = format!("{}\n{}\n1\n{}\n\n\n", stranger.id(), data_dir.display(), server.port);
        std::fs::write(data_dir.join("postmaster.pid"), file).unwrap();
        assert!(server.instance.postmaster().unwrap().is_none(), "a sleeping process is no server");
        server.start().await;
        assert!(stranger.try_wait().unwrap().is_none(), "the stranger was left alone");
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    });
}

#[test]
fn a_crashed_server_is_recovered_alone() {
    as_ordinary_user("lifecycle::a_crashed_server_is_recovered_alone", async || {
        let mut server = Server::new("n1");
        let archive = server.root.path().join("archive");
        std::fs::create_dir(&archive).unwrap();
        // The command fails until the directory has a door.
        server.set("archive_mode", "on");
        let command = format!("test -e {0}/open && cp %p {0}/%f", archive.display());
        server.set("archive_command", &command);
        let server = server.bootstrap().await;
        let instance = &server.instance;
        server.sql("CREATE TABLE public.t AS SELECT 1; SELECT pg_switch_wal()").await;
        let ready = instance.settings().data_dir.join("pg_wal/archive_status/000000010000000000000001.ready");
        eventually("a segment that waits for archiving", async || ready.exists()).await;
        let stop = pgward_postgres::StopOptions {
            mode: pgward_postgres::StopMode::Immediate,
            ..pgward_postgres::StopOptions::default()
        };
        instance.stop(&stop, None).await.unwrap();
        std::fs::write(archive.join("open"), "").unwrap();
        assert_eq!(instance.local_position().await.unwrap(), None, "nothing may be concluded after a crash");
        instance.single_user_recovery(&CancellationToken::new()).await.unwrap();
        assert!(archive.join("000000010000000000000001").exists(), "saved before recovery");
        assert_eq!(instance.control_data().await.unwrap().state, Some(ClusterState::ShutDown));
        let position = instance.local_position().await.unwrap().unwrap();
        assert!(!position.in_recovery);
        let read_only = ServerConfig { recovery: None, ..server.config.clone() };
        assert!(matches!(instance.start(&read_only, LIMIT).await.unwrap(), StartOutcome::Accepting(_)));
    });
}
