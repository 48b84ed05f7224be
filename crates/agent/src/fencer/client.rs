//! The agent's side: starts the fencer or adopts the one that is there, and talks to it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use pgward_core::cluster::Revision;
use pgward_core::time::BootInstant;
use pgward_core::time::rounded;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send, socket_with,
    sockopt,
};
use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use super::process::ProcessIdentity;
use super::protocol::{Fencing, InvalidMessage, MESSAGE_BYTES_MAX, Numbered, Orders, Refusal, Reply, Request, State};
use super::server::{BUSY, FAILED, READY};
use super::{canonical_data_dir, socket_name, subcommand};

/// Limit for a reply. The fencer does nothing but answer, so a longer silence means that it cannot be relied on.
const REPLY_TIME: Duration = Duration::from_millis(200);

/// Limit for starting or adopting: a fencer that is busy killing answers after its own limits, which are shorter.
const START_TIME: Duration = Duration::from_secs(5);

/// Limit for `chrt`, which makes one system call.
const REALTIME_TIME: Duration = Duration::from_secs(1);

/// After the connection ended: how long the end of the process may take to show, before the cause must be another one.
const END_TIME: Duration = Duration::from_millis(100);

/// Requests waiting for the connection. Only the keep-alive and the cycle ask, one at a time each.
const REQUESTS_MAX: usize = 8;

/// What it takes to start a fencer.
#[derive(Clone, Debug)]
pub struct FencerSettings {
    /// The executable to start: this program. `/proc/self/exe` remains valid when the file is replaced by an upgrade.
    pub executable: PathBuf,
    /// The data directory to guard.
    pub data_dir: PathBuf,
    /// File names of the server's program besides PostgreSQL's own, for a server that runs under another one (`bin_name`).
    pub programs: Vec<OsString>,
    /// Where the fencer records its last fencing, so that it is known after a restart. Best on a file system that does not
    /// hang together with the data directory.
    pub state_file: PathBuf,
}

/// Why the fencer cannot be relied on.
#[derive(Debug, thiserror::Error)]
pub enum FencerError {
    /// The process could not be started.
    #[error("cannot start the fencer {}", executable.display())]
    Spawn {
        /// What was executed.
        executable: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The process ended at once and said why.
    #[error("the fencer does not start: {0}")]
    Start(String),
    /// Neither an existing fencer nor a new one answered in time.
    #[error("no fencer for {} answered within {}{}", data_dir.display(), rounded(START_TIME), hint(*.pid))]
    Silent {
        /// The data directory to guard.
        data_dir: PathBuf,
        /// The fencer that exists but hangs, if that is the cause.
        pid: Option<i32>,
    },
    /// The existing fencer closed the connection at once.
    #[error(
        "process {pid} is the fencer but turns us away: it obeys root, its own user and the data directory's owner"
    )]
    TurnedAway {
        /// The fencer.
        pid: i32,
    },
    /// Another user owns the socket of the fencer.
    #[error("process {pid} of user {uid} occupies the fencer's socket @{name}; end that process")]
    Foreign {
        /// The abstract name of the socket.
        name: String,
        /// Who occupies it.
        pid: i32,
        /// Whose process it is.
        uid: u32,
    },
    /// A system call failed.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The fencer did not acknowledge in time. Its former orders stand.
    #[error("the fencer did not acknowledge within {}", rounded(REPLY_TIME))]
    Unacknowledged,
    /// The fencer refused. Its former orders stand.
    #[error("the fencer refused: {0}")]
    Refused(Refusal),
    /// The reply made no sense.
    #[error("the fencer's reply cannot be understood")]
    Reply(#[from] InvalidMessage),
    /// There is no connection any more.
    #[error("the fencer was lost: {0}")]
    Lost(Lost),
}

fn hint(pid: Option<i32>) -> String {
    pid.map_or_else(String::new, |pid| format!("; end process {pid}, which has its socket and hangs"))
}

/// How a fencer was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Its process ended: nothing guards PostgreSQL.
    Ended,
    /// It goes on, but for another agent of the same data directory, which connected after us.
    Displaced,
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Lost::Ended => "its process ended",
            Lost::Displaced => "another agent of this data directory has taken it over",
        })
    }
}

/// A connection to the fencer. It ends with its last clone, and the orders given last stay in force.
#[derive(Clone, Debug)]
pub struct FencerHandle {
    pid: i32,
    adopted: State,
    requests: mpsc::Sender<Ask>,
    lost: watch::Receiver<Option<Lost>>,
    last_fencing: watch::Receiver<Option<Fencing>>,
}

impl FencerHandle {
    /// Connects to the fencer of the data directory and starts one if there is none.
    ///
    /// A fencer that is already there keeps its orders until it is given others; [`FencerHandle::adopted_state`] tells
    /// them. Whoever was connected to it before is displaced.
    ///
    /// # Errors
    /// Within five seconds, when no fencer can be reached or started: PostgreSQL must not become a primary then.
    pub async fn start_or_adopt(settings: FencerSettings) -> Result<Self, FencerError> {
        let give_up = Instant::now() + START_TIME;
        let data_dir = canonical_data_dir(&settings.data_dir).map_err(io_error("find the data directory"))?;
        let silent = |pid| FencerError::Silent { data_dir: data_dir.clone(), pid };
        let name = socket_name(&data_dir);
        let mut child = None;
        // Two turns suffice (none there, start one), more only if another agent starts or ends one at the same time.
        while Instant::now() < give_up {
            let Some((socket, pid)) = connect_to(&name, &data_dir)? else {
                child = timeout_at(give_up, spawn(&settings)).await.map_err(|_| silent(None))??;
                continue;
            };
            let Some(mut session) = Session::open(socket, pid, child.take())? else { continue };
            let first = Numbered { number: 0, body: Request::Status };
            let reply = match timeout_at(give_up, session.converse(first)).await {
                Ok(Ok(reply)) => reply,
                // It ended between our connection and its answer.
                Ok(Err(FencerError::Lost(Lost::Ended))) => continue,
                Ok(Err(FencerError::Lost(Lost::Displaced))) => return Err(FencerError::TurnedAway { pid: raw(pid) }),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(silent(Some(raw(pid)))),
            };
            return Ok(session.spawn(reply));
        }
        Err(silent(None))
    }

    /// Orders PostgreSQL to be killed at `deadline`, in place of any earlier order.
    ///
    /// The postmaster is named by its process identifier and its start time ([`ProcessIdentity`]). Only when this has
    /// returned `Ok` may the agent rely on the deadline. If it is dropped halfway, the order may or may not be given.
    ///
    /// # Errors
    /// Soon, and the former order stands; except [`FencerError::Unacknowledged`], after which either may be in force.
    pub async fn arm(
        &self,
        pid: i32,
        start_ticks: u64,
        deadline: BootInstant,
        epoch: Revision,
    ) -> Result<(), FencerError> {
        let postmaster = Some(ProcessIdentity { pid, start_ticks });
        self.ask(Request::Arm(Orders { postmaster, deadline, epoch })).await.map(drop)
    }

    /// The same for a postmaster that is yet to be started: whatever runs in the data directory by then is killed.
    ///
    /// # Errors
    /// As [`FencerHandle::arm`].
    pub async fn arm_before_start(&self, deadline: BootInstant, epoch: Revision) -> Result<(), FencerError> {
        self.ask(Request::Arm(Orders { postmaster: None, deadline, epoch })).await.map(drop)
    }

    /// Withdraws the deadline: PostgreSQL is a standby, or stopped on purpose.
    ///
    /// # Errors
    /// As [`FencerHandle::arm`].
    pub async fn disarm(&self) -> Result<(), FencerError> {
        self.ask(Request::Disarm).await.map(drop)
    }

    /// Asks what the fencer is doing.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn status(&self) -> Result<State, FencerError> {
        self.ask(Request::Status).await
    }

    /// Ends the fencer's process, which refuses while a deadline is set.
    ///
    /// # Errors
    /// As [`FencerHandle::arm`].
    pub async fn quit(self) -> Result<(), FencerError> {
        self.ask(Request::Quit).await.map(drop)
    }

    /// Resolves when the fencer is lost, and stays resolved. Can be cancelled.
    pub async fn lost(&self) -> Lost {
        let mut lost = self.lost.clone();
        match lost.wait_for(Option::is_some).await {
            Ok(lost) => lost.unwrap_or(Lost::Ended),
            // The task of the connection is gone, which only the end of the runtime does without a word.
            Err(_) => Lost::Ended,
        }
    }

    /// What the fencer last did, even if it was for a former agent; the time in it tells whether that is news.
    pub fn last_fencing(&self) -> Option<Fencing> {
        *self.last_fencing.borrow()
    }

    /// What the fencer was doing when this agent connected: `Armed` when a former agent left PostgreSQL running.
    pub fn adopted_state(&self) -> State {
        self.adopted
    }

    /// The process of the fencer.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    async fn ask(&self, request: Request) -> Result<State, FencerError> {
        let (answer, answered) = oneshot::channel();
        let lost = || FencerError::Lost(self.lost.borrow().unwrap_or(Lost::Ended));
        self.requests.send(Ask { request, answer }).await.map_err(|_| lost())?;
        let reply = answered.await.map_err(|_| lost())??;
        match reply.refused {
            None => Ok(reply.state),
            Some(refusal) => Err(FencerError::Refused(refusal)),
        }
    }
}

/// A request on its way to the task that owns the connection.
struct Ask {
    request: Request,
    answer: oneshot::Sender<Result<Reply, FencerError>>,
}

/// The connection, owned by one task.
struct Session {
    socket: AsyncFd<OwnedFd>,
    /// Readable when the fencer's process has ended.
    process: AsyncFd<OwnedFd>,
    pid: Pid,
    /// Our child, unless the fencer was adopted.
    child: Option<Child>,
}

impl Session {
    /// `None` when the process has already ended.
    fn open(socket: OwnedFd, pid: Pid, child: Option<Child>) -> Result<Option<Self>, FencerError> {
        let process = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) => process,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(io_error("watch the fencer's process")(error.into())),
        };
        let socket = watch_descriptor(socket).map_err(io_error("watch the fencer's socket"))?;
        let process = watch_descriptor(process).map_err(io_error("watch the fencer's process"))?;
        Ok(Some(Session { socket, process, pid, child }))
    }

    fn spawn(self, first: Reply) -> FencerHandle {
        let (requests, asked) = mpsc::channel(REQUESTS_MAX);
        let (tell_lost, lost) = watch::channel(None);
        let (tell_fencing, last_fencing) = watch::channel(first.last_fencing);
        let pid = raw(self.pid);
        // Not waited for by anybody: it ends with the last handle and leaves nothing undone.
        tokio::spawn(self.run(asked, tell_lost, tell_fencing));
        FencerHandle { pid, adopted: first.state, requests, lost, last_fencing }
    }

    async fn run(
        mut self,
        mut asked: mpsc::Receiver<Ask>,
        tell_lost: watch::Sender<Option<Lost>>,
        tell_fencing: watch::Sender<Option<Fencing>>,
    ) {
        let mut number = 0;
        let lost = loop {
            let ask = tokio::select! {
                biased;
                lost = self.ended() => break lost,
                ask = asked.recv() => ask,
            };
            let Some(Ask { request, answer }) = ask else { return };
            number += 1;
            let message = Numbered { number, body: request };
            let reply = timeout(REPLY_TIME, self.converse(message)).await.unwrap_or(Err(FencerError::Unacknowledged));
            if let Ok(reply) = &reply {
                tell_fencing.send_if_modified(|last| std::mem::replace(last, reply.last_fencing) != reply.last_fencing);
            }
            let lost = match &reply {
                Err(FencerError::Lost(lost)) => Some(*lost),
                Ok(_) | Err(_) => None,
            };
            if lost.is_some() {
                tell_lost.send_replace(lost);
            }
            // The one who asked may have stopped waiting.
            let _ = answer.send(reply);
            if let Some(lost) = lost {
                break lost;
            }
        };
        tell_lost.send_replace(Some(lost));
        match (lost, &mut self.child) {
            // It has ended, so this only removes it from the process table.
            (Lost::Ended, Some(child)) => match timeout(END_TIME, child.wait()).await {
                Ok(Ok(status)) => warn!(pid = raw(self.pid), %status, "the fencer ended"),
                Ok(Err(_)) | Err(_) => warn!(pid = raw(self.pid), "the fencer ended"),
            },
            (Lost::Ended, None) => warn!(pid = raw(self.pid), "the fencer ended"),
            (Lost::Displaced, _) => warn!(pid = raw(self.pid), "another agent took over the fencer"),
        }
    }

    /// Sends the message and returns the reply to it; late replies to earlier messages are skipped.
    async fn converse(&mut self, message: Numbered<Request>) -> Result<Reply, FencerError> {
        let text = message.to_string();
        if self.socket.async_io(tokio::io::Interest::WRITABLE, |socket| send_whole(socket, &text)).await.is_err() {
            return Err(FencerError::Lost(self.why_lost().await));
        }
        loop {
            match self.socket.async_io(tokio::io::Interest::READABLE, receive).await {
                Ok(Some(text)) => {
                    let reply: Numbered<Reply> = text.parse()?;
                    if reply.number == message.number {
                        return Ok(reply.body);
                    }
                }
                Ok(None) | Err(_) => return Err(FencerError::Lost(self.why_lost().await)),
            }
        }
    }

    /// Waits for the end of the connection. Safe to drop: the only thing it takes from the socket are late replies.
    async fn ended(&self) -> Lost {
        tokio::select! {
            _ = self.process.readable() => return Lost::Ended,
            () = async {
                while let Ok(Some(_late)) = self.socket.async_io(tokio::io::Interest::READABLE, receive).await {}
            } => {}
        }
        self.why_lost().await
    }

    /// Says why the connection broke: the end of a process shows a moment after the end of its connections.
    async fn why_lost(&self) -> Lost {
        match timeout(END_TIME, self.process.readable()).await {
            Ok(_) => Lost::Ended,
            Err(_) if has_exited(self.process.get_ref()) => Lost::Ended,
            Err(_) => Lost::Displaced,
        }
    }
}

/// Connects to the fencer that owns the name; `None` when nobody does.
///
/// Only a process of ours, of root or of the owner of the data directory may be the fencer: anybody could take the name.
fn connect_to(name: &str, data_dir: &Path) -> Result<Option<(OwnedFd, Pid)>, FencerError> {
    let failed = |error: Errno| io_error("connect to the fencer")(error.into());
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).map_err(failed)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).map_err(failed)?;
    match connect(&socket, &address) {
        Ok(()) => {}
        Err(Errno::CONNREFUSED) => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    let fencer = sockopt::socket_peercred(&socket).map_err(failed)?;
    let owns_data = || fs::metadata(data_dir).is_ok_and(|metadata| metadata.uid() == fencer.uid.as_raw());
    if fencer.uid == geteuid() || fencer.uid.is_root() || owns_data() {
        Ok(Some((socket, fencer.pid)))
    } else {
        let (pid, uid) = (raw(fencer.pid), fencer.uid.as_raw());
        Err(FencerError::Foreign { name: name.to_owned(), pid, uid })
    }
}

fn send_whole(socket: &OwnedFd, text: &str) -> io::Result<()> {
    send(socket, text.as_bytes(), SendFlags::NOSIGNAL)?;
    Ok(())
}

/// One datagram; `None` at the end of the connection.
fn receive(socket: &OwnedFd) -> io::Result<Option<String>> {
    let mut buffer = [0; MESSAGE_BYTES_MAX];
    let (length, _) = recv(socket, &mut buffer, RecvFlags::empty())?;
    Ok((length > 0).then(|| String::from_utf8_lossy(&buffer[..length]).into_owned()))
}

#[expect(deprecated, reason = "its successor is unsafe; an OwnedFd keeps what that one asks for: open and the same")]
fn watch_descriptor(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(descriptor)
}

fn raw(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

fn has_exited(pidfd: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Starts a fencer and waits until it owns its socket; `None` when another one was faster.
async fn spawn(settings: &FencerSettings) -> Result<Option<Child>, FencerError> {
    let FencerSettings { executable, data_dir, programs, state_file } = settings;
    let mut arguments = vec![OsString::from("--data-dir"), data_dir.into(), "--state-file".into(), state_file.into()];
    arguments.extend(programs.iter().flat_map(|program| [OsString::from("--program"), program.clone()]));
    let mut child = Command::new(executable)
        .arg0("pgward")
        .arg(subcommand())
        .args(arguments)
        // It lives long and needs no setting; the environment may hold passwords.
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|source| FencerError::Spawn { executable: executable.clone(), source })?;
    let mut line = String::new();
    if let Some(output) = child.stdout.take() {
        BufReader::new(output).read_line(&mut line).await.map_err(io_error("read what the fencer says"))?;
    }
    match line.trim_end().split_once(' ').unwrap_or((line.trim_end(), "")) {
        (READY, missing) => {
            raise_to_realtime(&child).await;
            if missing.is_empty() {
                info!(pid = child.id(), "started the fencer");
            } else {
                warn!(pid = child.id(), missing, "started the fencer with less protection than it could have");
            }
            Ok(Some(child))
        }
        (BUSY, _) => {
            reap(child).await;
            Ok(None)
        }
        (FAILED, problem) => {
            reap(child).await;
            Err(FencerError::Start(problem.to_owned()))
        }
        (other, _) => Err(FencerError::Start(match timeout(END_TIME, child.wait()).await {
            Ok(Ok(status)) => format!("it ended with {status} and said {other:?}"),
            Ok(Err(_)) | Err(_) => format!("it said {other:?}"),
        })),
    }
}

/// Removes a child that is about to end from the process table.
async fn reap(mut child: Child) {
    let _ = timeout(END_TIME, child.wait()).await;
}

/// Gives the fencer real-time priority if that is permitted: there is no safe way to ask for it but the tool for it.
async fn raise_to_realtime(fencer: &Child) {
    let Some(pid) = fencer.id() else { return };
    let raised = Command::new("chrt")
        .args(["--rr", "--pid", "1", &pid.to_string()])
        .env_clear() // It needs no password of ours.
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status();
    // What it lacks then is covered by its high normal priority, or by the warning about that.
    let _ = timeout(REALTIME_TIME, raised).await;
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> FencerError {
    move |source| FencerError::Io { what, source }
}
