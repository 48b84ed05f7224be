//! Ends every process of one PostgreSQL server, soon and for certain (STP-7).
//!
//! First an immediate stop is asked of the postmaster: within milliseconds its backends tell their clients why and
//! exit, and it removes its lock files. Whatever has not obeyed after [`OBEY_TIME`] is killed: the postmaster is
//! suspended so that it starts no backend meanwhile, then its processes and it are killed, again and again until a
//! search finds none. A killed process that hangs inside the kernel is as good as gone: it runs no code any more.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use pgward_core::time::BootInstant;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::AsFd;
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use super::process::{Held, Proc, ProcessIdentity};
use pgward_store::boot_now;

/// How long an immediate stop may take before PostgreSQL is killed: a small part of the two seconds that lie between
/// the deadline and the end of the lease, and many times what it takes on a healthy machine.
const OBEY_TIME: Duration = Duration::from_millis(300);

/// How long to go on searching at the deadline. Then the caller hears messages again before it goes on.
const SEARCH_TIME: Duration = Duration::from_secs(1);

/// The longest wait between two searches: a killed process is normally gone at once.
const SEARCH_PAUSE: Duration = Duration::from_millis(10);

/// Which processes are meant.
pub(super) struct Target<'a> {
    /// The canonical data directory: PostgreSQL's processes have it as working directory.
    pub(super) data_dir: &'a [u8],
    /// File names of the server's program besides PostgreSQL's own.
    pub(super) programs: &'a [OsString],
    /// The postmaster that the agent named, if any.
    pub(super) postmaster: Option<&'a Held>,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) started: BootInstant,
    pub(super) finished: BootInstant,
    /// The immediate stop was enough.
    pub(super) obeyed: bool,
    /// Processes that were killed.
    pub(super) killed: u32,
    /// Processes that were killed and have not left the process table yet.
    pub(super) left: u32,
}

/// Ends all processes of the target. Takes at most [`OBEY_TIME`] and [`SEARCH_TIME`].
pub(super) fn end_all(proc: &Proc, target: &Target<'_>) -> Outcome {
    let started = boot_now();
    let asked = target.postmaster.is_some_and(|postmaster| {
        let was_running = pidfd_send_signal(&postmaster.pidfd, Signal::QUIT).is_ok();
        was_running && has_exited(&postmaster.pidfd, OBEY_TIME)
    });
    let (killed, left) = kill_all(proc, target, SEARCH_TIME);
    Outcome { started, finished: boot_now(), obeyed: asked && killed == 0, killed, left }
}

/// Kills whatever is left of the target until nothing is, at most for `limit`, and returns how many were killed and how
/// many still showed in the last search.
pub(super) fn kill_all(proc: &Proc, target: &Target<'_>, limit: Duration) -> (u32, u32) {
    let give_up = boot_now() + limit;
    let mut killed = 0;
    loop {
        if let Some(postmaster) = target.postmaster {
            // The only error is that it has exited.
            let _ = pidfd_send_signal(&postmaster.pidfd, Signal::STOP);
        }
        let round = kill_round(proc, target);
        if let Some(postmaster) = target.postmaster {
            let _ = pidfd_send_signal(&postmaster.pidfd, Signal::KILL);
        }
        killed = round.found.max(killed);
        if (round.found == 0 && round.is_complete) || boot_now() >= give_up {
            return (killed, round.found);
        }
        match &round.last {
            Some(pidfd) => _ = has_exited(pidfd, SEARCH_PAUSE),
            None => _ = poll(&mut [], Some(&timespec(SEARCH_PAUSE))),
        }
    }
}

/// One search.
struct Round {
    found: u32,
    /// False when `/proc` could not be read to its end.
    is_complete: bool,
    /// The process that was killed last, to wait for.
    last: Option<rustix::fd::OwnedFd>,
}

fn kill_round(proc: &Proc, target: &Target<'_>) -> Round {
    let mut round = Round { found: 0, is_complete: true, last: None };
    let searched = proc.for_each(|pid| {
        if !belongs(proc, target, pid) {
            return;
        }
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        // Asked again now that the descriptor is ours: if the identifier was recycled before it was opened, this looks
        // at the process that the descriptor is for, and if after, the signal goes nowhere.
        if belongs(proc, target, pid) && pidfd_send_signal(&pidfd, Signal::KILL).is_ok() {
            round.found += 1;
            round.last = Some(pidfd);
        }
    });
    round.is_complete = searched.is_ok();
    round
}

/// True for a living process of the server: a child of the named postmaster, or one that runs PostgreSQL's executable in
/// the data directory. Somebody's shell in that directory is neither.
fn belongs(proc: &Proc, target: &Target<'_>, pid: Pid) -> bool {
    if pid == getpid() || Pid::as_raw(Some(pid)) == 1 {
        return false;
    }
    let mut buffer = [0; 4096];
    let runs_inside = proc
        .cwd(pid, &mut buffer)
        .is_ok_and(|cwd| cwd == target.data_dir || target.postmaster.is_some_and(|postmaster| cwd == postmaster.cwd));
    if runs_inside {
        let is_postgres = proc.exe(pid, &mut buffer).is_ok_and(|exe| {
            target.postmaster.is_some_and(|postmaster| exe == postmaster.exe)
                || exe.ends_with(b"postgres")
                || exe.ends_with(b"/postmaster")
                || target.programs.iter().any(|program| file_name(exe) == program.as_bytes())
        });
        if is_postgres {
            return true;
        }
    }
    target.postmaster.is_some_and(|postmaster| {
        let is_child =
            proc.stat(pid).is_ok_and(|stat| !stat.is_dead && stat.parent == Pid::as_raw(Some(postmaster.pid)));
        // While it has not exited, its identifier is not another's.
        is_child && !has_exited(&postmaster.pidfd, Duration::ZERO)
    })
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// Waits until the process has exited, at most for `limit`.
fn has_exited(pidfd: impl AsFd, limit: Duration) -> bool {
    let give_up = boot_now() + limit;
    loop {
        let left = give_up.since(boot_now());
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timespec(left))) {
            Ok(ready) if ready > 0 => return true,
            // Timed out, or interrupted by a signal.
            Ok(_) | Err(_) if left.is_zero() => return false,
            Ok(_) | Err(_) => {}
        }
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

/// Walks the way that leads to a kill, without killing: so its code is in memory, and can be locked there, before it is
/// needed on a machine that may no longer be able to read it from disk.
pub(super) fn rehearse(proc: &Proc) {
    let own = getpid().as_raw_nonzero().get();
    if let Some(held) = ProcessIdentity::of(own).ok().and_then(|own| Held::open(proc, own).ok()) {
        // Continuing a process that is not stopped does nothing.
        let _ = pidfd_send_signal(&held.pidfd, Signal::CONT);
        let _ = has_exited(&held.pidfd, Duration::from_millis(1));
    }
    // No process has an empty path as working directory.
    let _ = kill_round(proc, &Target { data_dir: b"", programs: &[], postmaster: None });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::process::{Child, Command};

    /// A process called `name` that sleeps in `directory`.
    fn sleeper(directory: &Path, name: &str) -> Child {
        let executable = directory.join(name);
        std::fs::copy("/bin/sleep", &executable).unwrap();
        Command::new(executable).arg("60").current_dir(directory).spawn().unwrap()
    }

    fn is_running(child: &mut Child) -> bool {
        child.try_wait().unwrap().is_none()
    }

    #[test]
    fn only_postgres_in_the_data_directory_is_killed() {
        let root = tempfile::tempdir().unwrap();
        let [guarded, other] = ["guarded", "other"].map(|name| {
            let directory = root.path().canonicalize().unwrap().join(name);
            std::fs::create_dir(&directory).unwrap();
            directory
        });
        let names = ["postgres", "edb-postgres", "pgsrv"];
        let mut postgres = names.map(|name| sleeper(&guarded, name));
        // The configured name is that of a file, not the end of one.
        let mut bystanders = [
            sleeper(&guarded, "bash"),
            sleeper(&guarded, "no-pgsrv"),
            sleeper(&other, "postgres"),
            sleeper(&other, "pgsrv"),
        ];
        let programs = [OsString::from("pgsrv")];
        let proc = Proc::open().unwrap();
        let target = Target { data_dir: guarded.as_os_str().as_bytes(), programs: &programs, postmaster: None };
        // The dead children are zombies of this test until they are waited for: they are not counted as left.
        assert_eq!(kill_all(&proc, &target, SEARCH_TIME), (3, 0));
        assert!(postgres.iter_mut().all(|child| !child.wait().unwrap().success()));
        assert!(bystanders.iter_mut().all(is_running));
        for mut bystander in bystanders {
            bystander.kill().unwrap();
            bystander.wait().unwrap();
        }
        assert_eq!(kill_all(&proc, &target, SEARCH_TIME), (0, 0));
    }
}
