//! Processes as `/proc` shows them, read without allocating and without touching any file system but `/proc`.
//!
//! Links are read and never followed: following `/proc/PID/cwd` would ask the file system of the data directory, which
//! may be the very thing that hangs.

use std::ffi::CStr;
use std::io::{self, Write as _};
use std::mem::MaybeUninit;

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, RawDir, SeekFrom, openat, readlinkat_raw, seek};
use rustix::io::{Errno, read};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::protocol::Refusal;

/// One process during its life: a process that reuses the identifier has another start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessIdentity {
    /// The process identifier.
    pub pid: i32,
    /// Clock ticks since boot at its start: field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

impl ProcessIdentity {
    /// The identity of the process that has this identifier now.
    ///
    /// # Errors
    /// `NotFound` when there is no such process.
    pub fn of(pid: i32) -> io::Result<Self> {
        let stat = Proc::open()?.stat(checked_pid(pid).ok_or(Errno::SRCH)?)?;
        Ok(ProcessIdentity { pid, start_ticks: stat.start_ticks })
    }
}

/// The kernel's form of an identifier; `None` for what it would never give to a process.
pub(super) fn checked_pid(pid: i32) -> Option<Pid> {
    // The conversion panics for what is negative.
    if pid > 0 { Pid::from_raw(pid) } else { None }
}

/// Room for a path: what the kernel gives at most for a link in `/proc`.
pub(super) type PathBuffer = [u8; 4096];

/// What `/proc/PID/stat` says, as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) is_dead: bool,
    pub(super) parent: i32,
    pub(super) start_ticks: u64,
}

/// An open `/proc`.
pub(super) struct Proc {
    root: OwnedFd,
}

impl Proc {
    pub(super) fn open() -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Proc { root: openat(CWD, c"/proc", flags, Mode::empty())? })
    }

    pub(super) fn stat(&self, pid: Pid) -> io::Result<Stat> {
        let mut name = [0; 32];
        let file = openat(&self.root, entry(&mut name, pid, "stat")?, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut text = [0; 1024];
        let length = read(&file, &mut text)?;
        parse_stat(&text[..length]).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }

    /// The working directory of the process; an error when it is dead or not ours to look at.
    pub(super) fn cwd<'a>(&self, pid: Pid, buffer: &'a mut PathBuffer) -> io::Result<&'a [u8]> {
        self.link(pid, "cwd", buffer)
    }

    /// The executable of the process.
    pub(super) fn exe<'a>(&self, pid: Pid, buffer: &'a mut PathBuffer) -> io::Result<&'a [u8]> {
        self.link(pid, "exe", buffer)
    }

    fn link<'a>(&self, pid: Pid, link: &str, buffer: &'a mut PathBuffer) -> io::Result<&'a [u8]> {
        let mut name = [0; 32];
        let length = readlinkat_raw(&self.root, entry(&mut name, pid, link)?, &mut buffer[..])?;
        Ok(without_deleted(&buffer[..length]))
    }

    /// Calls `visit` for every process there is.
    pub(super) fn for_each(&self, mut visit: impl FnMut(Pid)) -> io::Result<()> {
        seek(&self.root, SeekFrom::Start(0))?;
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(&self.root, &mut buffer);
        while let Some(entry) = entries.next() {
            if let Some(pid) = entry?.file_name().to_str().ok().and_then(|name| name.parse().ok()).and_then(checked_pid)
            {
                visit(pid);
            }
        }
        Ok(())
    }
}

/// `PID/file` as a C string in the given buffer.
fn entry<'a>(buffer: &'a mut [u8; 32], pid: Pid, file: &str) -> io::Result<&'a CStr> {
    write!(&mut buffer[..], "{}/{file}\0", pid.as_raw_nonzero())?;
    CStr::from_bytes_until_nul(buffer).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// A link without the note that the kernel appends when its target was removed or replaced.
fn without_deleted(link: &[u8]) -> &[u8] {
    link.strip_suffix(b" (deleted)").unwrap_or(link)
}

/// Reads `PID (name) state parent ... start ...`. The name may itself hold spaces and parentheses.
pub(super) fn parse_stat(text: &[u8]) -> Option<Stat> {
    let name_end = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = str::from_utf8(text.get(name_end + 1..)?).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    // The state is field 3, so 17 fields lie between the parent (4) and the start time (22).
    let start_ticks = fields.nth(17)?.parse().ok()?;
    Some(Stat { is_dead: matches!(state, "Z" | "X" | "x"), parent, start_ticks })
}

/// A process that was identified once and is held by a file descriptor, so that its identifier no longer matters.
pub(super) struct Held {
    pub(super) identity: ProcessIdentity,
    pub(super) pid: Pid,
    pub(super) pidfd: OwnedFd,
    pub(super) cwd: Vec<u8>,
    pub(super) exe: Vec<u8>,
}

impl Held {
    /// Takes hold of the process if it is still the one that is meant.
    ///
    /// The descriptor is opened first and the start time is read after it: were the identifier recycled in between, the
    /// start time would be another one.
    pub(super) fn open(proc: &Proc, identity: ProcessIdentity) -> Result<Self, Refusal> {
        let pid = checked_pid(identity.pid).ok_or(Refusal::NoSuchProcess)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| Refusal::NoSuchProcess)?;
        let stat = proc.stat(pid).map_err(|_| Refusal::NoSuchProcess)?;
        if stat.start_ticks != identity.start_ticks || stat.is_dead {
            return Err(Refusal::NoSuchProcess);
        }
        let mut buffer = [0; 4096];
        let cwd = proc.cwd(pid, &mut buffer).map_err(|_| Refusal::OtherDataDirectory)?.to_vec();
        let exe = proc.exe(pid, &mut buffer).map_err(|_| Refusal::OtherDataDirectory)?.to_vec();
        Ok(Held { identity, pid, pidfd, cwd, exe })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_time_is_found_behind_any_process_name() {
        let fields = "S 7 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 200";
        for name in ["postgres", "a b", "evil) Z 1 (", ""] {
            let stat = parse_stat(format!("42 ({name}) {fields}").as_bytes());
            assert_eq!(stat, Some(Stat { is_dead: false, parent: 7, start_ticks: 987_654 }), "{name:?}");
        }
        assert!(parse_stat(b"42 (postgres) Z 1 1 1 0 -1 1 1 2 3 4 5 6 7 8 20 0 1 0 1 1").unwrap().is_dead);
        for garbage in ["", "42", "42 (x)", "42 (x) S", "42 (x) S 1 2 3"] {
            assert_eq!(parse_stat(garbage.as_bytes()), None, "{garbage:?}");
        }
    }

    #[test]
    fn a_process_is_held_only_with_its_own_start_time() {
        let proc = Proc::open().unwrap();
        let own = ProcessIdentity::of(std::process::id().try_into().unwrap()).unwrap();
        let held = Held::open(&proc, own).map_err(|refusal| refusal.to_string()).unwrap();
        assert_eq!(held.cwd, std::env::current_dir().unwrap().into_os_string().into_encoded_bytes());
        let recycled = ProcessIdentity { start_ticks: own.start_ticks - 1, ..own };
        for wrong in [recycled, ProcessIdentity { pid: i32::MAX, ..own }, ProcessIdentity { pid: -5, ..own }] {
            assert_eq!(Held::open(&proc, wrong).err(), Some(Refusal::NoSuchProcess), "{wrong:?}");
        }
    }

    #[test]
    fn every_process_is_visited_each_time() {
        let proc = Proc::open().unwrap();
        for _ in 0..2 {
            let mut found = false;
            proc.for_each(|pid| found |= pid == rustix::process::getpid()).unwrap();
            assert!(found);
        }
    }
}
