//! Child processes of a test: started, signalled and ended by pid, never by name.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::machine::RunUser;
use crate::wait::until;

/// What to run and as whom.
#[derive(Clone, Debug)]
pub struct Spec {
    program: OsString,
    args: Vec<OsString>,
    env: BTreeMap<String, String>,
    user: Option<RunUser>,
    namespace: Option<String>,
    dir: PathBuf,
}

impl Spec {
    /// A program with a small, fixed environment, in folder `dir`.
    pub fn new(program: impl Into<OsString>, dir: &Path) -> Self {
        let mut env = BTreeMap::new();
        env.insert("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
        env.insert("LANG".to_owned(), "C.UTF-8".to_owned());
        env.insert("HOME".to_owned(), dir.display().to_string());
        Self { program: program.into(), args: Vec::new(), env, user: None, namespace: None, dir: dir.to_owned() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|a| a.as_ref().to_owned()));
        self
    }

    /// Adds a variable to its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Runs it as `user`.
    #[must_use]
    pub fn user(mut self, user: &RunUser) -> Self {
        self.user = Some(user.clone());
        self
    }

    /// Runs it in a network namespace of that name, when given.
    #[must_use]
    pub fn namespace(mut self, name: Option<&str>) -> Self {
        self.namespace = name.map(str::to_owned);
        self
    }

    /// The command. `ip netns exec` and `setpriv` replace themselves by the program, so that the pid is the program's.
    pub fn command(&self) -> Command {
        let switch = self.user.as_ref().filter(|u| u.switch);
        let mut command = match &self.namespace {
            None => {
                let mut command = Command::new(&self.program);
                if let Some(user) = switch {
                    command.uid(user.uid).gid(user.gid);
                }
                command
            }
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]);
                if let Some(user) = switch {
                    command.args(["setpriv", "--reuid", &user.uid.to_string(), "--regid", &user.gid.to_string()]);
                    command.args(["--clear-groups", "--"]);
                }
                command.arg(&self.program);
                command
            }
        };
        command.args(&self.args).env_clear().envs(&self.env).current_dir(&self.dir).stdin(Stdio::null());
        if let Some(user) = &self.user {
            command.env("USER", &user.name);
        }
        command
    }

    /// Runs it to its end, at most for `limit`; returns status, standard output and standard error.
    ///
    /// # Errors
    /// When it cannot be started or does not end in time (it is killed then).
    pub async fn run(&self, limit: Duration) -> Result<Finished> {
        let mut command = tokio::process::Command::from(self.command());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        let output = tokio::time::timeout(limit, child.wait_with_output()).await;
        let output = output.with_context(|| format!("{} did not end within {limit:?}", self.program.display()))??;
        Ok(Finished {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts it with its output appended to `log`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, log: &Path) -> Result<Process> {
        let file = OpenOptions::new().create(true).append(true).open(log);
        let file = file.with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = self.command();
        command.stdout(file.try_clone()?).stderr(file);
        // A group of its own, so that an interrupted test run reaches its processes only through the janitor.
        command.process_group(0);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;
        Ok(Process { child, ended: None })
    }
}

/// How a program ended and what it printed.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Finished {
    /// Standard output followed by standard error.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A running child.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// True until it has ended; collects its status when it has.
    pub fn is_running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_none()
    }

    /// The status it ended with.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.is_running();
        self.ended
    }

    /// Sends a signal; nothing happens when it has ended already.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            send(self.pid(), signal);
        }
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub async fn ended(&mut self, limit: Duration) -> Result<ExitStatus> {
        let pid = self.pid();
        let status = until(limit, async || Ok(self.exit_status())).await;
        status.with_context(|| format!("process {pid} did not end within {limit:?}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            send(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Sends a signal to one process.
pub fn send(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, signal);
    }
}

/// One process as `/proc` shows it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its pid.
    pub pid: u32,
    /// Its parent.
    pub parent: u32,
    /// State letter; `Z` is dead but not yet collected.
    pub state: char,
    /// Its arguments, joined by blanks.
    pub command_line: String,
    /// Its current folder, when it may be read.
    pub dir: Option<PathBuf>,
}

/// All live processes of this machine.
pub fn all() -> Vec<Seen> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str().and_then(|name| name.parse().ok()));
    pids.filter_map(look).filter(|p| p.state != 'Z').collect()
}

fn look(pid: u32) -> Option<Seen> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself hold blanks and parentheses.
    let rest = stat.rsplit_once(") ")?.1;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command_line = String::from_utf8_lossy(&command_line).replace('\0', " ").trim_end().to_owned();
    let dir = fs::read_link(format!("/proc/{pid}/cwd")).ok();
    Some(Seen { pid, parent, state, command_line, dir })
}

/// Whether a process exists and is not a zombie.
pub fn is_alive(pid: u32) -> bool {
    look(pid).is_some_and(|p| p.state != 'Z')
}

/// `roots` and everything below them.
pub fn with_descendants(all: &[Seen], roots: impl IntoIterator<Item = u32>) -> BTreeSet<u32> {
    let mut found: BTreeSet<u32> = roots.into_iter().collect();
    loop {
        let before = found.len();
        let more: Vec<u32> = all.iter().filter(|p| found.contains(&p.parent)).map(|p| p.pid).collect();
        found.extend(more);
        if found.len() == before {
            return found;
        }
    }
}

/// Resident memory of a process in bytes.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Processor time a process has used, in ticks of 10 ms.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    // utime and stime: fields 14 and 15 of the line, of which two are cut off here.
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}
