//! PostgreSQL servers, agents and writers for the tests, as processes of the right user.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use pgward_agent::fencer::{FencerHandle, FencerSettings, ProcessIdentity};
use pgward_core::time::BootInstant;
use pgward_store::boot_now;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;
use tokio::time::sleep;

/// Nothing in these tests takes as long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// Whose processes the fencer and its agent are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    Root,
    Postgres,
    Nobody,
}

pub(crate) fn is_root() -> bool {
    geteuid().is_root()
}

/// The user and group that the processes of `name` run as.
fn identity(name: &str) -> Result<(u32, u32)> {
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|line| line.split(':').next() == Some(name));
    let fields: Vec<&str> = line.with_context(|| format!("there is no user {name}"))?.split(':').collect();
    Ok((fields[2].parse()?, fields[3].parse()?))
}

/// A command that runs as this user, if we may choose.
pub(crate) fn command(executable: &Path, user: User) -> Result<Command> {
    let mut command = Command::new(executable);
    let name = match user {
        User::Root => return Ok(command),
        User::Postgres => "postgres",
        User::Nobody => "nobody",
    };
    if is_root() {
        let (uid, gid) = identity(name)?;
        command.uid(uid).gid(gid);
    }
    Ok(command)
}

fn postgres_program(name: &str) -> PathBuf {
    Path::new(&std::env::var("PG_BIN").unwrap_or("/usr/lib/postgresql/15/bin".to_owned())).join(name)
}

/// A data directory to copy, and this executable where every user may run it.
pub(crate) struct Template {
    root: TempDir,
    pub(crate) executable: PathBuf,
}

impl Template {
    pub(crate) fn create() -> Result<Self> {
        let root = tempfile::Builder::new().prefix("pgward-fencer-").tempdir()?;
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777))?;
        let executable = root.path().join("pgward");
        fs::copy(std::env::current_exe()?, &executable)?;
        let initdb = postgres_program("initdb");
        let output = command(&initdb, User::Postgres)?
            .args(["--username", "postgres", "--auth", "trust", "--no-sync", "--pgdata"])
            .arg(root.path().join("template"))
            .current_dir("/")
            .output()
            .with_context(|| format!("cannot run {}; install PostgreSQL or set PG_BIN", initdb.display()))?;
        ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        Ok(Template { root, executable })
    }
}

/// A directory with a PostgreSQL server, and the processes that a test started for it.
pub(crate) struct Machine {
    root: TempDir,
    pub(crate) executable: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) state_file: PathBuf,
    postmaster: Mutex<Option<Child>>,
    fencers: Mutex<Vec<i32>>,
}

impl Machine {
    pub(crate) fn new(template: &Template) -> Result<Self> {
        let root = tempfile::Builder::new().prefix("m").tempdir_in(template.root.path())?;
        if is_root() {
            let (uid, gid) = identity("postgres")?;
            chown(root.path(), Some(uid), Some(gid))?;
        }
        let data_dir = root.path().join("data");
        let copied = command(Path::new("cp"), User::Postgres)?
            .arg("-a")
            .args([&template.root.path().join("template"), &data_dir])
            .status()?;
        ensure!(copied.success(), "cannot copy the data directory");
        let state_file = root.path().join("fencer.state");
        let executable = template.executable.clone();
        Ok(Machine { root, executable, data_dir, state_file, postmaster: Mutex::default(), fencers: Mutex::default() })
    }

    /// Starts PostgreSQL and waits until it serves.
    pub(crate) async fn start_postgres(&self) -> Result<ProcessIdentity> {
        // A dead child that nobody has waited for still occupies the lock file.
        let old = self.postmaster.lock().unwrap().take();
        if let Some(mut old) = old {
            old.wait()?;
        }
        let log = fs::File::options().create(true).append(true).open(self.root.path().join("postgres.log"))?;
        let child = command(&postgres_program("postgres"), User::Postgres)?
            .arg("-D")
            .arg(&self.data_dir)
            .args(["-c", "listen_addresses=", "-c", "shared_buffers=8MB", "-c"])
            .arg(format!("unix_socket_directories={}", self.root.path().display()))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()?;
        let postmaster = ProcessIdentity::of(child.id().try_into()?)?;
        *self.postmaster.lock().unwrap() = Some(child);
        eventually("PostgreSQL serves", async || self.connect().await.is_ok())
            .await
            .with_context(|| fs::read_to_string(self.root.path().join("postgres.log")).unwrap_or_default())?;
        Ok(postmaster)
    }

    pub(crate) async fn connect(&self) -> Result<tokio_postgres::Client> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.root.path()).user("postgres").dbname("postgres");
        config.connect_timeout(Duration::from_secs(2));
        let (client, connection) = config.connect(tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Every process that works in the data directory, dead ones excluded.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let entries = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        numbers
            .filter(|pid: &i32| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == self.data_dir))
            .collect()
    }

    pub(crate) fn settings(&self) -> FencerSettings {
        FencerSettings {
            executable: self.executable.clone(),
            data_dir: self.data_dir.clone(),
            programs: Vec::new(),
            state_file: self.state_file.clone(),
        }
    }

    /// A connection of this process to the fencer.
    pub(crate) async fn fencer(&self) -> Result<FencerHandle> {
        let fencer = FencerHandle::start_or_adopt(self.settings()).await?;
        self.fencers.lock().unwrap().push(fencer.pid());
        Ok(fencer)
    }

    /// An agent in a process of its own that keeps the fencer armed `ahead` of time.
    pub(crate) fn agent(&self, user: User, postmaster: ProcessIdentity, ahead: Duration) -> Result<Agent> {
        let mut process = command(&self.executable, user)?
            .arg("__agent")
            .args([&self.data_dir, &self.state_file])
            .args([postmaster.pid.to_string(), ahead.as_millis().to_string()])
            .stdout(Stdio::piped())
            .spawn()?;
        let mut output = BufReader::new(process.stdout.take().context("no output")?);
        let mut line = String::new();
        output.read_line(&mut line)?;
        let fencer = line.trim().parse().with_context(|| format!("the agent said {line:?}"))?;
        self.fencers.lock().unwrap().push(fencer);
        Ok(Agent { process, output: Some(output), last_deadline: None, fencer })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for fencer in self.fencers.get_mut().unwrap() {
            signal(*fencer, Signal::KILL);
        }
        if let Some(mut postmaster) = self.postmaster.get_mut().unwrap().take() {
            signal(postmaster.id().try_into().unwrap(), Signal::QUIT);
            let _ = postmaster.wait();
        }
        for pid in self.processes() {
            signal(pid, Signal::KILL);
        }
    }
}

pub(crate) struct Agent {
    process: Child,
    output: Option<BufReader<ChildStdout>>,
    last_deadline: Option<BootInstant>,
    pub(crate) fencer: i32,
}

impl Agent {
    /// The next deadline that the fencer has acknowledged.
    pub(crate) fn next_deadline(&mut self) -> Result<BootInstant> {
        let mut line = String::new();
        self.output.as_mut().context("no output")?.read_line(&mut line)?;
        let nanoseconds = line.trim().parse().with_context(|| format!("the agent said {line:?}"))?;
        Ok(*self.last_deadline.insert(BootInstant(Duration::from_nanos(nanoseconds))))
    }

    /// The last deadline that a stopped or killed agent has had acknowledged.
    pub(crate) fn last_deadline(&mut self) -> Result<BootInstant> {
        let output = self.output.take().context("no output")?;
        rustix::io::ioctl_fionbio(output.get_ref(), true)?;
        let mut last = self.last_deadline;
        for line in output.lines() {
            match line {
                Ok(line) => last = Some(BootInstant(Duration::from_nanos(line.parse()?))),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        last.context("the agent never armed the fencer")
    }

    pub(crate) fn signal(&mut self, signal: Signal) -> Result<()> {
        self::signal(self.process.id().try_into()?, signal);
        if signal == Signal::KILL {
            self.process.wait()?;
        }
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended.
        let _ = kill_process(pid, signal);
    }
}

/// Waits until the condition holds, which is checked often.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) -> Result<()> {
    let give_up = boot_now() + PATIENCE;
    while !condition().await {
        if boot_now() >= give_up {
            bail!("waited {PATIENCE:?} in vain until {what}");
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Commits one row after the other, on a new connection whenever one breaks.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Written>,
}

/// What a writer saw.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) commits: usize,
    pub(crate) last_commit: BootInstant,
    pub(crate) errors: usize,
}

impl Writer {
    pub(crate) async fn start(machine: Arc<Machine>) -> Result<Self> {
        machine.connect().await?.batch_execute("create table written (at bigint)").await?;
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(write(machine, stop.clone()));
        Ok(Writer { stop, task })
    }

    pub(crate) async fn finish(self) -> Result<Written> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(tokio::time::timeout(PATIENCE, self.task).await??)
    }
}

async fn write(machine: Arc<Machine>, stop: Arc<AtomicBool>) -> Written {
    let mut written = Written::default();
    while !stop.load(Ordering::Relaxed) {
        let Ok(client) = machine.connect().await else {
            written.errors += 1;
            sleep(Duration::from_millis(5)).await;
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            if client.execute("insert into written values (1)", &[]).await.is_err() {
                written.errors += 1;
                break;
            }
            written.commits += 1;
            written.last_commit = boot_now();
        }
    }
    written
}
