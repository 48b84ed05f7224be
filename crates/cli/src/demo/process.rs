//! Processes that outlive the command which started them: PID files, proof of identity, signals, waiting for the end.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

/// A running process, held by a descriptor that no other process can come to stand for.
pub(super) struct Process {
    pid: Pid,
    descriptor: OwnedFd,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pid.as_raw_nonzero())
    }
}

impl Process {
    /// The process that `pid_file` names, if it still runs.
    pub(super) fn of(pid_file: &Path) -> Option<Process> {
        let text = fs::read_to_string(pid_file).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        Process::open(pid.parse().ok()?).filter(|(_, stat)| stat.started == started).map(|(process, _)| process)
    }

    /// The process with this PID, if it runs, and what the kernel says about it.
    fn open(pid: i32) -> Option<(Process, Stat)> {
        let pid = Some(pid).filter(|pid| *pid > 0).and_then(Pid::from_raw)?;
        let descriptor = rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Read after the descriptor was taken: if it is the right process now, the descriptor means the right one.
        let stat = Stat::read(pid)?;
        (!stat.has_ended).then_some((Process { pid, descriptor }, stat))
    }

    /// Sends a signal; a process that has ended meanwhile is no error.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = rustix::process::pidfd_send_signal(&self.descriptor, signal);
    }

    /// Waits until the process has ended, at most for `limit`; says whether it has.
    pub(super) async fn has_ended_within(&self, limit: Duration) -> bool {
        let Ok(descriptor) = self.descriptor.try_clone() else { return false };
        let Ok(limit) = Timespec::try_from(limit) else { return false };
        // A descriptor of a process becomes readable when the process ends.
        let wait = move || {
            let mut ended = [PollFd::new(&descriptor, PollFlags::IN)];
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut ended, Some(&limit)))
        };
        tokio::task::spawn_blocking(wait).await.is_ok_and(|count| count.is_ok_and(|count| count > 0))
    }
}

/// What `/proc/PID/stat` says.
struct Stat {
    started: String,
    /// Ended, and only its parent has not noticed yet.
    has_ended: bool,
}

impl Stat {
    fn read(pid: Pid) -> Option<Self> {
        Stat::parse(&fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, which may itself contain spaces and parentheses.
        let (_, rest) = text.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let state = fields.next()?;
        let started = fields.nth(18)?.to_owned();
        Some(Stat { started, has_ended: matches!(state, "Z" | "X") })
    }
}

/// Starts a process in its own process group, so that Ctrl-C in a terminal is not for it.
///
/// Must be called inside the runtime. Dropping the child leaves the process running.
pub(super) fn start(mut command: Command, pid_file: &Path, log: &Path) -> anyhow::Result<tokio::process::Child> {
    let output = File::options().create(true).append(true).open(log);
    let output = output.with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
    // What is meant for another PostgreSQL or agent in the caller's environment is not meant for this one.
    for (name, _) in std::env::vars_os() {
        if ["PATRONI_", "ETCD_", "PG"].iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
            command.env_remove(name);
        }
    }
    let program = command.get_program().to_owned();
    let child = tokio::process::Command::from(command)
        .spawn()
        .with_context(|| format!("cannot start {}", Path::new(&program).display()))?;
    let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)).context("the child has no PID")?;
    let started = Stat::read(pid).map(|stat| stat.started).unwrap_or_default();
    fs::write(pid_file, format!("{} {started}\n", pid.as_raw_nonzero()))
        .with_context(|| format!("cannot write {}", pid_file.display()))?;
    Ok(child)
}

/// A process found by what it works on.
pub(super) struct Found {
    pub(super) process: Process,
    /// The file name of its executable.
    pub(super) program: String,
}

/// Every process whose executable is one of `programs`, and whose working directory or an argument lies in `dir`.
///
/// The executable keeps apart the cluster's processes and a shell or an editor that stands in the same folder; the
/// arguments find those that have left it.
pub(super) fn working_on(dir: &Path, programs: &[PathBuf]) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Some((process, _)) = Process::open(pid) else { continue };
        let Ok(executable) = fs::read_link(format!("/proc/{pid}/exe")) else { continue };
        // The kernel says so when the file was replaced or removed meanwhile.
        let executable = executable.to_string_lossy().trim_end_matches(" (deleted)").to_owned();
        if !programs.iter().any(|program| program.as_os_str() == executable.as_str()) {
            continue;
        }
        let works_there = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir));
        if works_there || arguments(pid).iter().any(|argument| Path::new(argument).starts_with(dir)) {
            let program = Path::new(&executable).file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(Found { process, program });
        }
    }
    Ok(found)
}

fn arguments(pid: i32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_may_look_like_the_next_fields() {
        let stat = "42 (a) Z 1 (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 777 19 20";
        let stat = Stat::parse(stat).unwrap();
        assert_eq!(stat.started, "777");
        assert!(!stat.has_ended);
    }

    #[tokio::test]
    async fn a_process_is_found_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let (pid_file, log) = (dir.path().join("pid"), dir.path().join("log"));
        let mut command = Command::new("sleep");
        command.arg("600");
        let mut child = start(command, &pid_file, &log).unwrap();
        let process = Process::of(&pid_file).unwrap();
        assert!(!process.has_ended_within(Duration::ZERO).await);
        process.signal(Signal::TERM);
        assert!(process.has_ended_within(Duration::from_secs(10)).await);
        assert!(Process::of(&pid_file).is_none(), "ended, although nobody has waited for it yet");
        child.wait().await.unwrap();
    }

    #[tokio::test]
    async fn a_process_is_found_by_folder_or_argument_and_only_with_its_executable() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        let sleep = PathBuf::from("/bin/sleep").canonicalize().unwrap();
        let mut inside = Command::new("sleep");
        inside.arg("600").current_dir(&dir);
        let mut outside = Command::new("sh");
        outside.arg("-c").arg("sleep 600; :").arg(dir.join("data")).current_dir("/");
        let shell = PathBuf::from("/bin/sh").canonicalize().unwrap();
        let mut children: Vec<_> =
            [inside, outside].into_iter().map(|c| start(c, &dir.join("pid"), &dir.join("log")).unwrap()).collect();
        // A program that has just been started may not show its arguments yet.
        for child in &children {
            let pid = i32::try_from(child.id().unwrap()).unwrap();
            while arguments(pid).len() < 2 {
                tokio::task::yield_now().await;
            }
        }
        let pids = |programs: &[PathBuf], dir: &Path| {
            working_on(dir, programs).unwrap().into_iter().map(|found| found.process.to_string()).collect::<Vec<_>>()
        };
        let pid = |child: &tokio::process::Child| child.id().unwrap().to_string();
        assert_eq!(pids(&[sleep], &dir), [pid(&children[0])]);
        assert_eq!(pids(&[shell], &dir), [pid(&children[1])]);
        assert!(pids(&[PathBuf::from("/bin/other")], &dir).is_empty());
        for child in &mut children {
            rustix::process::kill_process_group(Pid::from_raw(child.id().unwrap() as i32).unwrap(), Signal::KILL)
                .unwrap();
            child.wait().await.unwrap();
        }
    }

    #[test]
    fn a_foreign_process_with_the_same_pid_is_not_ours() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        for text in ["", "x", "1", "1 1 1", "-1 5", &format!("{} 1", std::process::id())] {
            fs::write(&pid_file, text).unwrap();
            assert!(Process::of(&pid_file).is_none(), "{text:?}");
        }
    }
}
