//! Starting the server, detached from the agent.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::Instant;

use crate::client::Ready;
use crate::command::{clean_environment, tail};
use crate::config::ServerConfig;
use crate::error::{CommandError, Error};
use crate::instance::Instance;
use crate::process::{PidFile, PidFileOwner, Postmaster, Process, ServerStatus, find_postmaster};
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

    /// Writes the configuration and starts the server. A running one is returned as it is.
    ///
    /// This is the part of a start that must not be dropped halfway: a server may have been started by then.
    ///
    /// # Errors
    /// [`Error::Ended`] when the server ended at once, and whatever kept it from being started.
    pub async fn spawn(&self, config: &ServerConfig) -> Result<Postmaster, Error> {
        self.close_connections().await;
        if let Some(running) = self.postmaster().map_err(Error::file("look for", "postmaster.pid"))? {
            return Ok(running);
        }
        self.write_configuration(config).await?;
        let settings = self.settings();
        let process = launch(&settings, arguments(&settings, config)).await?;
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
async fn launch(settings: &Settings, arguments: Vec<OsString>) -> Result<Option<Process>, Error> {
    let (program, prefix) =
        settings.launcher.split_first().ok_or_else(|| Error::Refused("no launcher is configured".to_owned()))?;
    let server = settings.program("postgres");
    let mut command = Command::new(program);
    command.args(prefix).arg("--").arg(&server).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(output(settings)?).current_dir(&settings.data_dir);
    clean_environment(command.as_std_mut());
    let owner = find_postmaster(&settings.data_dir, &server).map_err(Error::file("look for", "postmaster.pid"))?;
    if let PidFileOwner::Stranger(pid) = owner {
        // The lock file is stale: tell the server to ignore the process that has its number now.
        command.env("PG_GRANDPARENT_PID", pid.to_string());
    }
    let name = || program.display().to_string();
    let failed = |source: io::Error| CommandError::Spawn { program: name(), source };
    let mut launcher = command.spawn().map_err(failed)?;
    let told = async {
        let stdout = launcher.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).await?;
        io::Result::Ok(line)
    };
    let line = match tokio::time::timeout(LAUNCH_LIMIT, told).await {
        Ok(line) => line.map_err(failed)?,
        Err(_) => {
            let output = String::new();
            return Err(CommandError::Timeout { program: name(), after: LAUNCH_LIMIT, output }.into());
        }
    };
    let process = match line.trim().parse() {
        Ok(pid) => Process::open(pid).map_err(failed)?,
        // It could not run the server, and said why on standard error.
        Err(_) => None,
    };
    // Only now may it end and the server's number become free.
    drop(launcher.stdin.take());
    let _ = tokio::time::timeout(LAUNCH_LIMIT, launcher.wait()).await;
    Ok(process)
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
