//! Processes, held so that a recycled number is never mistaken for the process that had it before.
//!
//! A [`Process`] is a pidfd: signals and waiting go through it and can only reach the process it was opened for.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One particular process of this machine, alive or not.
#[derive(Clone, Debug)]
pub struct Process {
    pid: Pid,
    start_ticks: u64,
    pidfd: Arc<OwnedFd>,
}

impl Process {
    /// Takes hold of a living process; `None` when there is none with this number.
    ///
    /// # Errors
    /// What the operating system says when it refuses, such as too many open files.
    pub fn open(pid: i32) -> io::Result<Option<Process>> {
        let Some(pid) = Pid::from_raw(pid).filter(|pid| pid.as_raw_nonzero().get() > 0) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // The number cannot be given away while the pidfd shows a living process, so what /proc says is about it.
        let Some(stat) = Stat::of(pid.as_raw_nonzero().get()) else { return Ok(None) };
        let process = Process { pid, start_ticks: stat.start_ticks, pidfd: Arc::new(pidfd) };
        Ok(process.is_alive().then_some(process))
    }

    /// The process number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// When it started, in clock ticks since boot: with the number, this names a process for ever.
    pub fn start_ticks(&self) -> u64 {
        self.start_ticks
    }

    /// False from the moment it ended, even while nobody has reaped it.
    pub fn is_alive(&self) -> bool {
        let mut watched = [PollFd::new(&*self.pidfd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !matches!(poll(&mut watched, Some(&now)), Ok(ready) if ready > 0)
    }

    /// Resolves the moment the process ends. Can be dropped at any time and called any number of times.
    pub async fn exited(&self) {
        // A descriptor of its own, because one descriptor can be registered only once.
        let watch = self.pidfd.try_clone().and_then(watch_readable);
        if let Ok(watch) = watch {
            let _ = watch.readable().await;
        }
        // Only out of descriptors is there anything left to wait for.
        while self.is_alive() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// True when it ended within `limit`.
    pub async fn exited_within(&self, limit: Duration) -> bool {
        tokio::time::timeout(limit, self.exited()).await.is_ok()
    }

    /// `4711 (state D)`, for people.
    pub(crate) fn describe(&self) -> String {
        let pid = self.pid();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        format!("{pid} (state {})", state_of(&stat).unwrap_or("unknown"))
    }

    /// Sends a signal; `Ok(false)` when the process has ended.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<bool> {
        match pidfd_send_signal(&*self.pidfd, signal) {
            Ok(()) => Ok(true),
            Err(Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Kills the process and everything below it. The process is stopped first, so that it starts no further children.
    pub(crate) fn kill_tree(&self) -> io::Result<Vec<Process>> {
        self.signal(Signal::STOP)?;
        let children = descendants(self.pid());
        self.signal(Signal::KILL)?;
        for child in &children {
            child.signal(Signal::KILL)?;
        }
        Ok(children)
    }
}

#[expect(
    deprecated,
    reason = "the replacement is unsafe for types whose descriptor may change; an OwnedFd keeps the same one"
)]
fn watch_readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

/// Waits until all of them ended; false when `limit` passed first.
pub(crate) async fn all_exited(processes: &[Process], limit: Duration) -> bool {
    let wait = async {
        for process in processes {
            process.exited().await;
        }
    };
    tokio::time::timeout(limit, wait).await.is_ok()
}

/// The running server of a data directory.
#[derive(Clone, Debug)]
pub struct Postmaster {
    process: Process,
    single_user: bool,
}

impl Postmaster {
    pub(crate) fn new(process: Process) -> Postmaster {
        Postmaster { process, single_user: false }
    }

    /// The process number.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// When it started, in clock ticks since boot.
    pub fn start_ticks(&self) -> u64 {
        self.process.start_ticks()
    }

    /// True for `postgres --single`, which serves nobody and is not ours to stop with a postmaster's signals.
    pub fn is_single_user(&self) -> bool {
        self.single_user
    }

    /// False from the moment it ended.
    pub fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    /// Resolves the moment it ends.
    pub async fn exited(&self) {
        self.process.exited().await;
    }

    /// True when it ended within `limit`.
    pub async fn exited_within(&self, limit: Duration) -> bool {
        self.process.exited_within(limit).await
    }

    /// The process itself.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

impl PartialEq for Postmaster {
    fn eq(&self, other: &Self) -> bool {
        (self.pid(), self.start_ticks()) == (other.pid(), other.start_ticks())
    }
}

impl Eq for Postmaster {}

/// What the server says about itself in the last line of `postmaster.pid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerStatus {
    Starting,
    Stopping,
    /// Accepts connections, as primary or hot standby.
    Ready,
    /// Recovery runs, and connections are not accepted because `hot_standby` is off.
    Standby,
}

/// `postmaster.pid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PidFile {
    /// Negative for a single-user server.
    pub(crate) pid: i32,
    /// Seconds since 1970 when the server started.
    pub(crate) started_at: Option<i64>,
    pub(crate) status: Option<ServerStatus>,
}

impl PidFile {
    pub(crate) fn read(data_dir: &Path) -> Option<PidFile> {
        PidFile::parse(&fs::read_to_string(data_dir.join("postmaster.pid")).ok()?)
    }

    pub(crate) fn parse(text: &str) -> Option<PidFile> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        Some(PidFile {
            pid: lines.first()?.parse().ok().filter(|pid| *pid != 0 && *pid != i32::MIN)?,
            started_at: lines.get(2).and_then(|text| text.parse().ok()),
            status: match *lines.get(7).unwrap_or(&"") {
                "starting" => Some(ServerStatus::Starting),
                "stopping" => Some(ServerStatus::Stopping),
                "ready" => Some(ServerStatus::Ready),
                "standby" => Some(ServerStatus::Standby),
                _ => None,
            },
        })
    }
}

/// What `postmaster.pid` of a data directory refers to.
pub(crate) enum PidFileOwner {
    Nobody,
    Postmaster(Postmaster),
    /// A process that is not a running server: the file is stale.
    Stranger(i32),
}

/// Finds the server of `data_dir` (3.1). It must have the data directory as its working directory, which every server
/// has before it writes the file, and either the name of the server's program or the start time noted in the file.
/// Where the working directory cannot be read, the start time alone has to match.
pub(crate) fn find_postmaster(data_dir: &Path, program: &Path) -> io::Result<PidFileOwner> {
    let Some(file) = PidFile::read(data_dir) else { return Ok(PidFileOwner::Nobody) };
    let pid = file.pid.abs();
    let Some(process) = Process::open(pid)? else {
        // One that ended and that nobody reaped keeps its number, and the server takes it for alive.
        return Ok(if Stat::of(pid).is_some() { PidFileOwner::Stranger(pid) } else { PidFileOwner::Nobody });
    };
    if is_relative_of_ours(pid) {
        return Ok(PidFileOwner::Stranger(pid));
    }
    let time_matches = match (file.started_at, process_start_epoch(process.start_ticks())) {
        (Some(noted), Some(real)) => noted.abs_diff(real) <= 3,
        (Some(_) | None, _) => false,
    };
    let is_server = match works_in(pid, data_dir) {
        Some(true) => time_matches || is_server_program(pid, program),
        Some(false) => false,
        None => time_matches,
    };
    Ok(if is_server && process.is_alive() {
        PidFileOwner::Postmaster(Postmaster { process, single_user: file.pid < 0 })
    } else if process.is_alive() {
        PidFileOwner::Stranger(pid)
    } else {
        PidFileOwner::Nobody
    })
}

/// This process, its parent, or a child: never a server. As process 1 every orphan is a child of ours, the server too.
fn is_relative_of_ours(pid: i32) -> bool {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get());
    pid == own || Some(pid) == parent || (own != 1 && Stat::of(pid).is_some_and(|stat| stat.parent == own))
}

/// Server processes of `data_dir` that are not `except` or below it: what a killed postmaster leaves behind. They keep
/// the shared memory attached, so that no new server can start, and those in a statement go on to commit.
///
/// # Errors
/// When the process table cannot be read, or a process not be taken hold of: "unknown" is not "none".
pub(crate) fn server_processes(data_dir: &Path, program: &Path, except: Option<&Process>) -> io::Result<Vec<Process>> {
    let spared: Vec<i32> = except.iter().flat_map(|process| descendants(process.pid())).map(|p| p.pid()).collect();
    let is_spared = |pid: i32| except.is_some_and(|process| process.pid() == pid) || spared.contains(&pid);
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // The program first: the working directory of somebody else's process may be on a disk that hangs.
        if is_spared(pid) || !is_server_program(pid, program) || works_in(pid, data_dir) != Some(true) {
            continue;
        }
        let Some(process) = Process::open(pid)? else { continue };
        // Once more, now that the number cannot be given to another process unnoticed.
        if is_server_program(pid, program) && works_in(pid, data_dir) == Some(true) && process.is_alive() {
            found.push(process);
        }
    }
    Ok(found)
}

/// Living processes below `pid`, nearest first.
pub(crate) fn descendants(pid: i32) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    for pid in all_pids() {
        if let Some(stat) = Stat::of(pid) {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut queue = vec![pid];
    while let Some(parent) = queue.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            found.extend(Process::open(child).ok().flatten());
            queue.push(child);
        }
    }
    found
}

/// Processes of the program `name` that have `argument` on their command line.
pub(crate) fn tools_with_argument(name: &str, argument: &str) -> Vec<Process> {
    let runs = |pid: &i32| {
        let is_tool = exe_name(*pid).as_deref() == Some(name);
        is_tool
            && fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes()))
    };
    all_pids().filter(runs).filter_map(|pid| Process::open(pid).ok().flatten()).collect()
}

fn all_pids() -> impl Iterator<Item = i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether the working directory of `pid` is `directory`; `None` when that cannot be read.
///
/// A directory that was removed or unmounted under its server is known by name, among the processes that see the same file
/// systems as we do: the server goes on without it.
fn works_in(pid: i32, directory: &Path) -> Option<bool> {
    let cwd = PathBuf::from(format!("/proc/{pid}/cwd"));
    let own = fs::metadata(directory).ok();
    if let Some(own) = &own {
        let theirs = fs::metadata(&cwd).ok()?;
        if (own.dev(), own.ino()) == (theirs.dev(), theirs.ino()) {
            return Some(true);
        }
    }
    let link = fs::read_link(&cwd).ok()?;
    let name = without_deleted(&link);
    if own.is_some() && name == link {
        return Some(false);
    }
    let sees_the_same =
        fs::read_link(format!("/proc/{pid}/ns/mnt")).ok()? == fs::read_link("/proc/self/ns/mnt").ok()?;
    Some(sees_the_same && name == real_name(directory)?)
}

/// The name that the kernel has for a directory that cannot be looked at: only what exists of it can be resolved.
fn real_name(directory: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(directory).ok()?;
    let existing = absolute.ancestors().find_map(|ancestor| Some((ancestor, ancestor.canonicalize().ok()?)));
    let (ancestor, real) = existing?;
    Some(real.join(absolute.strip_prefix(ancestor).ok()?).components().collect())
}

/// A path without the note that the kernel appends when it was removed.
fn without_deleted(link: &Path) -> &Path {
    let text = link.as_os_str().as_bytes();
    Path::new(OsStr::from_bytes(text.strip_suffix(b" (deleted)").unwrap_or(text)))
}

fn is_server_program(pid: i32, program: &Path) -> bool {
    let name = |path: &Path| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let Some(exe) = exe_name(pid) else { return false };
    // The kernel tells the name of the file that a link leads to.
    let is_configured = || Some(&exe) == name(program).as_ref();
    let is_target = || program.canonicalize().is_ok_and(|real| Some(&exe) == name(&real).as_ref());
    exe == "postgres" || exe == "postmaster" || is_configured() || is_target()
}

fn exe_name(pid: i32) -> Option<String> {
    let path: PathBuf = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(without_deleted(&path).file_name()?.to_str()?.to_owned())
}

/// The start time in seconds since 1970, from the clock as it is set now.
fn process_start_epoch(start_ticks: u64) -> Option<i64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot: i64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    // The unit of /proc is 1/100 s on every architecture.
    Some(boot + i64::try_from(start_ticks / 100).ok()?)
}

/// The letter by which the kernel tells what a process does: `D` for one that waits in the kernel and cannot be killed.
fn state_of(stat: &str) -> Option<&str> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().next()
}

/// The parts of `/proc/PID/stat` that matter.
pub(crate) struct Stat {
    pub(crate) parent: i32,
    pub(crate) start_ticks: u64,
}

impl Stat {
    fn of(pid: i32) -> Option<Stat> {
        Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the name in parentheses, which may hold anything; counting starts behind the last one.
    pub(crate) fn parse(text: &str) -> Option<Stat> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Stat { parent: fields.get(1)?.parse().ok()?, start_ticks: fields.get(19)?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_described_by_its_number_and_state() {
        assert_eq!(state_of("4711 (postgres: a) (b) D 1 4711 4711 0"), Some("D"));
        assert_eq!(state_of(""), None);
        let own = Process::open(std::process::id() as i32).unwrap().unwrap();
        let described = own.describe();
        assert!(described.starts_with(&format!("{} (state ", own.pid())), "{described}");
    }

    #[test]
    fn the_pid_file_is_read_leniently() {
        let full = "123\n/data\n1700000000\n5432\n/run\n*\n  5432001  4\nready   \n";
        let file = PidFile::parse(full).unwrap();
        assert_eq!((file.pid, file.started_at, file.status), (123, Some(1_700_000_000), Some(ServerStatus::Ready)));
        assert_eq!(PidFile::parse("-7\n/data\n").unwrap().pid, -7);
        for bad in ["", "\n", "x\n", "0\n", "-2147483648\n"] {
            assert_eq!(PidFile::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_process_name_with_parentheses_does_not_confuse() {
        let rest = (5..=21).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        let stat = Stat::parse(&format!("9 (a) b (c)) S 1 {rest} 777 0")).unwrap();
        assert_eq!((stat.parent, stat.start_ticks), (1, 777));
        assert!(Stat::parse("9 (a").is_none());
    }

    #[tokio::test]
    async fn the_end_of_a_process_is_noticed_before_it_is_reaped() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::open(child.id() as i32).unwrap().unwrap();
        assert!(process.is_alive() && !process.exited_within(Duration::from_millis(10)).await);
        process.signal(Signal::KILL).unwrap();
        assert!(process.exited_within(Duration::from_secs(5)).await, "not reaped yet");
        assert!(!process.is_alive());
        child.wait().unwrap();
        assert!(!process.signal(Signal::KILL).unwrap());
        assert!(Process::open(child.id() as i32).unwrap().is_none());
    }

    /// Kills and reaps its process.
    struct Sleeper(std::process::Child);

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A process of the program `postgres` in `directory`.
    fn sleeping_server(directory: &Path) -> Sleeper {
        let program = directory.parent().unwrap().join("postgres");
        if !program.exists() {
            fs::copy("/bin/sleep", &program).unwrap();
        }
        Sleeper(std::process::Command::new(program).arg("60").current_dir(directory).spawn().unwrap())
    }

    #[test]
    fn what_is_left_of_a_server_is_found_without_its_data_directory() {
        let root = tempfile::tempdir().unwrap();
        let [ours, other] = ["data", "other"].map(|name| root.path().join(name));
        for directory in [&ours, &other] {
            fs::create_dir(directory).unwrap();
        }
        let servers = [&ours, &other].map(|directory| sleeping_server(directory));
        let found = |data_dir: &Path| -> Vec<u32> {
            let found = server_processes(data_dir, Path::new("postgres"), None).unwrap();
            found.iter().map(|process| process.pid() as u32).collect()
        };
        let trailing_slash = PathBuf::from(format!("{}/", ours.display()));
        assert_eq!(found(&ours), [servers[0].0.id()]);
        fs::remove_dir(&ours).unwrap();
        for spelling in [&ours, &trailing_slash, &other.join("../data")] {
            assert_eq!(found(spelling), [servers[0].0.id()], "{}", spelling.display());
        }
        fs::create_dir(&ours).unwrap();
        assert_eq!(found(&ours), [servers[0].0.id()], "nor does a new directory of that name hide it");
    }

    #[test]
    fn our_own_number_in_a_pid_file_is_no_server() {
        let directory = tempfile::tempdir().unwrap();
        let own = std::process::id();
        fs::write(directory.path().join("postmaster.pid"), format!("{own}\n")).unwrap();
        let owner = find_postmaster(directory.path(), Path::new("postgres")).unwrap();
        assert!(matches!(owner, PidFileOwner::Stranger(pid) if pid as u32 == own));
    }
}
