//! Servers that do not want to stop.

use std::time::{Duration, Instant};

use pgward_postgres::{StopMode, StopOptions, StopOutcome};

use crate::server::{LIMIT, Server, as_ordinary_user};

/// A server whose archiver never comes back.
async fn slow_archiver() -> Server {
    let mut server = Server::new("n1");
    server.set("archive_mode", "on");
    server.set("archive_command", "sleep 600");
    let server = server.bootstrap().await;
    server.sql("SELECT pg_switch_wal()").await;
    server
}

#[test]
fn the_last_record_is_known_while_the_server_still_archives() {
    as_ordinary_user("stop::the_last_record_is_known_while_the_server_still_archives", async || {
        let server = slow_archiver().await;
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let options = StopOptions { timeout: Some(Duration::from_secs(3)), ..StopOptions::default() };
        let began = Instant::now();
        let stop = server.instance.stop(&options, Some(sender));
        let (outcome, last) = tokio::join!(stop, async {
            let last = receiver.await.unwrap();
            (last, began.elapsed())
        });
        println!("the shutdown checkpoint was known after {:?}", last.1);
        assert!(last.1 < Duration::from_secs(3));
        let (checkpoint, published) = (last.0.checkpoint, last.0.published);
        assert!(published < checkpoint, "a switch precedes it: {published} {checkpoint}");
        assert_eq!(outcome.unwrap(), StopOutcome::Immediate);
        assert!(server.instance.postmaster().unwrap().is_none());
    });
}

#[test]
fn a_server_that_ignores_everything_is_killed_with_its_children() {
    as_ordinary_user("stop::a_server_that_ignores_everything_is_killed_with_its_children", async || {
        let server = Server::bootstrapped("n1").await;
        let postmaster = server.instance.postmaster().unwrap().unwrap();
        let pid = rustix::process::Pid::from_raw(postmaster.pid()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let options = StopOptions {
            mode: StopMode::Fast,
            checkpoint: true,
            timeout: Some(Duration::from_millis(300)),
            kill_after: Duration::from_millis(300),
        };
        assert_eq!(server.instance.stop(&options, None).await.unwrap(), StopOutcome::Killed);
        assert!(server.instance.leftover_processes().unwrap().is_empty());
        server.start().await;
        assert!(
            server.instance.move_data_dir_aside(".aside").await.unwrap_err().to_string().contains("is not removed")
        );
        let again = StopOptions { timeout: Some(LIMIT), ..StopOptions::default() };
        assert_eq!(server.instance.stop(&again, None).await.unwrap(), StopOutcome::Stopped);
        assert_eq!(server.instance.stop(&again, None).await.unwrap(), StopOutcome::NotRunning);
    });
}
