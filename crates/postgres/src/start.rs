//! Starting the server, detached from the agent.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tracing::warn;

use crate::client::Ready;
use crate::command::{clean_environment, tail};
use crate::config::ServerConfig;
use crate::error::{CommandError, Error};
use crate::instance::Instance;
use crate::process::{PidFile, PidFileOwner, Postmaster, Process, ServerStatus, all_exited, find_postmaster};
use crate::settings::{ServerOutput, Settings};

/// How far a start came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartOutcome {
    /// The server accepts connections.
    Accepting(Postmaster),
    /// It runs and does not accept connections yet: recovery may take hours.
    Starting(Postmaster),
    /// It ended. The text is the end of its own output.
    Failed {
        /// Why, as the server says.
        output: String,
    },
}

/// The launcher only forks: anything longer means that the machine does not respond.
const LAUNCH_LIMIT: Duration = Duration::from_secs(30);
/// How long killed processes may take to be gone before they are no longer waited for.
const CALL_OFF_LIMIT: Duration = Duration::from_secs(2);
/// A start that is quick is quick to be noticed, and a long one is not asked about all the time.
const POLL_QUICK: Duration = Duration::from_millis(10);
const POLL_SLOW: Duration = Duration::from_millis(50);
const QUICK_PHASE: Duration = Duration::from_secs(5);
/// The file for the server's own output, and how large it may grow before it is set aside.
const OUTPUT_FILE: &str = "pgward_postgres.log";
const OUTPUT_BYTES_MAX: u64 = 16 << 20;
/// Of which this much goes into a reason.
const REASON_BYTES: u64 = 4 * 1024;

impl Instance {
    /// Writes the configuration, starts the server and waits until it accepts connections, at most for `timeout`.
    ///
    /// # Errors
    /// When nothing could be started. A server that started and ended is [`StartOutcome::Failed`].
    pub async fn start(&self, config: &ServerConfig, timeout: Duration) -> Result<StartOutcome, Error> {
        match self.spawn(config).await {
            Ok(postmaster) => self.wait_accepting(&postmaster, timeout).await,
            Err(Error::Ended { output }) => Ok(StartOutcome::Failed { output }),
            Err(other) => Err(other),
        }
    }

    /// Writes the configuration and starts the server. A running one is returned as it is; a single-user one is no server.
    ///
    /// This is the part of a start that must not be dropped halfway: a server may have been started by then.
    ///
    /// # Errors
    /// [`Error::Ended`] when the server ended at once, and whatever kept it from being started: a copy or a rewind that is
    /// not done, for example.
    pub async fn spawn(&self, config: &ServerConfig) -> Result<Postmaster, Error> {
        self.close_connections().await;
        if let Some(running) = self.postmaster().map_err(Error::file("look for", "postmaster.pid"))? {
            if running.is_single_user() {
                let pid = running.pid();
                return Err(Error::Refused(format!("process {pid} recovers the data directory in single-user mode")));
            }
            return Ok(running);
        }
        self.require_undisturbed()?;
        self.write_configuration(config).await?;
        let settings = self.settings();
        let process = launch(&settings, arguments(&settings, config), LAUNCH_LIMIT).await?;
        match process {
            Some(process) => Ok(Postmaster::new(process)),
            None => Err(Error::Ended { output: self.server_output_tail() }),
        }
    }

    /// Waits until a server that was started accepts connections, at most for `timeout`. Its end is noticed at once. Only
    /// reads, so it can be dropped at any time.
    ///
    /// # Errors
    /// None at present.
    pub async fn wait_accepting(&self, postmaster: &Postmaster, timeout: Duration) -> Result<StartOutcome, Error> {
        let began = Instant::now();
        loop {
            // The server notes its progress in its pid file, so that no connection attempts fill its log.
            let file = PidFile::read(&self.settings().data_dir).filter(|file| file.pid == postmaster.pid());
            if file.is_some_and(|file| file.status == Some(ServerStatus::Ready))
                && self.ready_state().await == Ready::Accepting
            {
                return Ok(StartOutcome::Accepting(postmaster.clone()));
            }
            let elapsed = began.elapsed();
            if elapsed >= timeout {
                return Ok(StartOutcome::Starting(postmaster.clone()));
            }
            let pause = if elapsed < QUICK_PHASE { POLL_QUICK } else { POLL_SLOW };
            if postmaster.exited_within(pause.min(timeout - elapsed)).await {
                return Ok(StartOutcome::Failed { output: self.server_output_tail() });
            }
        }
    }

    /// The end of what the server printed since it was last started, for a reason.
    pub fn server_output_tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut file = fs::File::open(self.output_file())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(REASON_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(REASON_BYTES).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        // Without a file, the output went elsewhere.
        read().map(|text| tail(text.trim_end(), REASON_BYTES as usize - 1).to_owned()).unwrap_or_default()
    }

    /// Sets the file of the server's own output aside once it is large: call it now and then. The server goes on
    /// writing to the same file, which is emptied after it was copied.
    ///
    /// # Errors
    /// When the file cannot be copied.
    pub fn trim_server_output(&self) -> Result<(), Error> {
        let path = self.output_file();
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > OUTPUT_BYTES_MAX) {
            set_aside(&path).map_err(Error::file("set aside", &path))?;
        }
        Ok(())
    }

    fn output_file(&self) -> PathBuf {
        self.in_data_dir(OUTPUT_FILE)
    }
}

fn set_aside(path: &std::path::Path) -> io::Result<()> {
    fs::copy(path, path.with_extension("log.1"))?;
    fs::OpenOptions::new().write(true).open(path)?.set_len(0)
}

/// The arguments of the server, in Patroni's order.
fn arguments(settings: &Settings, config: &ServerConfig) -> Vec<OsString> {
    let mut config_file = OsString::from("--config-file=");
    config_file.push(settings.config_file());
    let mut arguments = vec![OsString::from("-D"), settings.data_dir.clone().into(), config_file];
    arguments.extend(config.command_line.iter().map(|(name, value)| OsString::from(format!("--{name}={value}"))));
    arguments
}

/// Starts the server through the launcher; `None` when it had ended before it could be taken hold of.
///
/// When this fails, nothing is started later either: a server that appears after it was given up would be one that nobody
/// guards.
async fn launch(settings: &Settings, arguments: Vec<OsString>, limit: Duration) -> Result<Option<Process>, Error> {
    let (program, prefix) =
        settings.launcher.split_first().ok_or_else(|| Error::Refused("no launcher is configured".to_owned()))?;
    let server = settings.program("postgres");
    let mut command = Command::new(program);
    command.args(prefix).arg("--").arg(&server).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(output(settings)?).current_dir(&settings.data_dir);
    // Whoever drops this start does not want it to happen either. The server is not a child of ours.
    command.kill_on_drop(true);
    clean_environment(command.as_std_mut());
    let owner = find_postmaster(&settings.data_dir, &server).map_err(Error::file("look for", "postmaster.pid"))?;
    if let PidFileOwner::Stranger(pid) = owner {
        // The lock file is stale: tell the server to ignore the process that has its number now.
        command.env("PG_GRANDPARENT_PID", pid.to_string());
    }
    let name = || program.display().to_string();
    let failed = |source: io::Error| CommandError::Spawn { program: name(), source };
    let mut launcher = command.spawn().map_err(failed)?;
    let started = match tokio::time::timeout(limit, take_hold(&mut launcher)).await {
        Ok(Ok(process)) => Ok(process),
        Ok(Err(source)) => Err(failed(source)),
        Err(_) => Err(CommandError::Timeout { program: name(), after: limit, output: String::new() }),
    };
    if started.is_err() {
        call_off(&mut launcher).await;
    }
    // Only now may it end and the server's number become free.
    drop(launcher.stdin.take());
    let _ = tokio::time::timeout(LAUNCH_LIMIT, launcher.wait()).await;
    Ok(started?)
}

/// Hears the server's number from the launcher, and takes hold of the server.
async fn take_hold(launcher: &mut Child) -> io::Result<Option<Process>> {
    let stdout = launcher.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).await?;
    // Without a number it could not run the server, and said why on standard error.
    let Ok(pid) = line.trim().parse::<i32>() else { return Ok(None) };
    Process::open(pid).inspect_err(|_| {
        // Out of descriptors, say. The launcher is its parent and waits, so the number is still the server's.
        if let Some(server) = Pid::from_raw(pid).filter(|_| pid > 0) {
            let _ = kill_process(server, Signal::KILL);
        }
    })
}

/// Ends a launcher that did not answer, and whatever it has started. One that hangs in the kernel runs no further.
async fn call_off(launcher: &mut Child) {
    let process = launcher.id().and_then(|pid| Process::open(pid as i32).ok().flatten());
    match process.map(|process| process.kill_tree()) {
        Some(Ok(children)) => _ = all_exited(&children, CALL_OFF_LIMIT).await,
        Some(Err(error)) => warn!(%error, "a launcher that does not answer cannot be stopped with its children"),
        None => {}
    }
    // The error is that it has ended.
    let _ = launcher.start_kill();
}

fn output(settings: &Settings) -> Result<Stdio, Error> {
    match settings.server_output {
        ServerOutput::Inherit => Ok(Stdio::inherit()),
        ServerOutput::File => {
            let path = settings.data_dir.join(OUTPUT_FILE);
            let open = || -> io::Result<fs::File> {
                if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > 0) {
                    set_aside(&path)?;
                }
                // Appending, so that it can be emptied while the server writes.
                fs::OpenOptions::new().append(true).create(true).mode(0o600).open(&path)
            };
            Ok(open().map_err(Error::file("open", &path))?.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::tests::settings;

    #[tokio::test]
    async fn a_start_that_was_given_up_does_not_happen_later() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        // It would tell the number of a server that it has started already, a minute too late.
        let script = format!("sleep 61 & echo $! > {}; sleep 60; echo $!", at("number").display());
        let launcher = ["/bin/sh", "-c", &script].map(OsString::from).into();
        let settings = Settings { data_dir: directory.path().to_owned(), launcher, ..settings() };
        let result = launch(&settings, Vec::new(), Duration::from_secs(2)).await;
        assert!(matches!(result, Err(Error::Command(CommandError::Timeout { .. }))), "{result:?}");
        let number = fs::read_to_string(at("number")).unwrap();
        let server = Process::open(number.trim().parse().unwrap()).unwrap();
        assert!(server.is_none(), "it lives on: {server:?}");
    }
}
