//! The fencer process: one thread, one loop, one timer.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use pgward_core::cluster::Revision;
use pgward_core::time::{BootInstant, WallTime};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, recv,
    send, socket_with, sockopt,
};
use rustix::process::{Uid, geteuid};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};

use super::duty::Duty;
use super::kill::{Outcome, Target, end_all, kill_all, rehearse};
use super::process::{Held, Proc};
use super::protocol::{Fencing, MESSAGE_BYTES_MAX, Numbered, Orders, Refusal, Reply, Request, State};
use super::shelter::take_shelter;
use super::{canonical_data_dir, socket_name};
use pgward_store::boot_now;

/// A fencer without an agent and without a deadline ends after this time: long enough for any restart of the agent.
const IDLE_TIME: Duration = Duration::from_secs(300);

/// Between two searches for what may have been started since the deadline by an agent that was frozen in the middle:
/// shorter than PostgreSQL takes to start, and rarely needed, so that the processor time does not matter.
const GUARD_PAUSE: Duration = Duration::from_millis(25);

/// How long one such search may go on: killed processes take a moment to end, and the agent waits for replies meanwhile.
const GUARD_TIME: Duration = Duration::from_millis(50);

/// Messages read before the deadline is looked at again. An agent sends one and waits for its reply.
const MESSAGES_PER_WAKE_UP_MAX: usize = 16;

/// First word of the line by which a starting fencer says that it owns its socket; the rest are measures it could not take.
pub(super) const READY: &str = "ready";
/// First word of the line by which it says why it does not start.
pub(super) const FAILED: &str = "failed";
/// The line by which it says that another fencer owns the socket.
pub(super) const BUSY: &str = "busy";

/// Runs the fencer until nobody needs it any more. `args` are what follows the subcommand:
/// `--data-dir DIRECTORY --state-file FILE`, and `--program NAME` for each file name of the server's program besides
/// PostgreSQL's own.
///
/// One line on standard output tells the agent whether it started. It needs no async runtime and must not be called
/// inside one.
pub fn fencer_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let started = parse(args).map_err(StartError::Usage).and_then(Fencer::start);
    let line = match &started {
        Ok((_, missing)) => format!("{READY} {}\n", missing.join("; ")),
        Err(StartError::Busy) => format!("{BUSY}\n"),
        Err(StartError::Usage(problem)) => format!("{FAILED} {problem}\n"),
        Err(StartError::Io(what, error)) => format!("{FAILED} cannot {what}: {error}\n"),
    };
    // Nobody has to listen.
    let _ = io::stdout().write_all(line.as_bytes());
    match started {
        Ok((fencer, _)) => {
            fencer.run();
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Why the process ends before it guards anything.
enum StartError {
    Usage(String),
    /// Another fencer guards this data directory.
    Busy,
    Io(&'static str, io::Error),
}

struct Arguments {
    data_dir: PathBuf,
    state_file: PathBuf,
    programs: Vec<OsString>,
}

fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Arguments, String> {
    let (mut data_dir, mut state_file, mut programs) = (None, None, Vec::new());
    let mut args = args.into_iter();
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{} needs a value", name.display()));
        match name.to_str() {
            Some("--data-dir") => data_dir = Some(PathBuf::from(value()?)),
            Some("--state-file") => state_file = Some(PathBuf::from(value()?)),
            Some("--program") => programs.push(value()?),
            Some(_) | None => {
                return Err(format!("the fencer knows --data-dir, --state-file and --program, not {}", name.display()));
            }
        }
    }
    let data_dir = data_dir.ok_or("--data-dir is missing")?;
    Ok(Arguments { data_dir, state_file: state_file.ok_or("--state-file is missing")?, programs })
}

struct Fencer {
    proc: Proc,
    data_dir: PathBuf,
    /// File names of the server's program besides PostgreSQL's own.
    programs: Vec<OsString>,
    state_file: PathBuf,
    listener: OwnedFd,
    /// Becomes readable at the next instant at which something is due without a message.
    timer: OwnedFd,
    /// Becomes readable when the process is asked to end.
    terminate: UnixStream,
    /// The newest connection.
    agent: Option<OwnedFd>,
    /// When the last connection ended.
    alone_since: BootInstant,
    duty: Duty,
    /// The postmaster of the last orders, in our hands.
    postmaster: Option<Held>,
    last_fencing: Option<Fencing>,
}

/// What a wake-up found.
struct Ready {
    connection: bool,
    message: bool,
    terminate: bool,
}

impl Fencer {
    fn start(arguments: Arguments) -> Result<(Self, Vec<String>), StartError> {
        let Arguments { data_dir, state_file, programs } = arguments;
        let or = |what| move |error: io::Error| StartError::Io(what, error);
        let data_dir = canonical_data_dir(&data_dir).map_err(or("find the data directory"))?;
        let state_file = std::path::absolute(state_file).map_err(or("find the state file"))?;
        let listener = own_socket(&data_dir)?;
        let (terminate, signalled) = UnixStream::pair().map_err(or("make a pair of sockets"))?;
        terminate.set_nonblocking(true).map_err(or("make a pair of sockets"))?;
        for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP] {
            let end = signalled.try_clone().map_err(or("make a pair of sockets"))?;
            signal_hook::low_level::pipe::register(signal, end).map_err(or("handle signals"))?;
        }
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)
            .map_err(|error| StartError::Io("make a timer of the boot clock", error.into()))?;
        let proc = Proc::open().map_err(or("open /proc"))?;
        let missing = take_shelter(|| rehearse(&proc));
        let last_fencing = read_state_file(&state_file);
        let fencer = Fencer {
            proc,
            data_dir,
            programs,
            state_file,
            listener,
            timer,
            terminate,
            agent: None,
            alone_since: boot_now(),
            duty: Duty::default(),
            postmaster: None,
            last_fencing,
        };
        Ok((fencer, missing))
    }

    /// Returns when it is not needed any more.
    fn run(mut self) {
        loop {
            let now = boot_now();
            match self.duty.state() {
                State::Armed(_) => {
                    if let Some(orders) = self.duty.overdue(now) {
                        self.strike(orders);
                    }
                }
                State::Fenced if self.duty.is_on_guard() => self.keep_guard(),
                State::Disarmed | State::Fenced if self.agent.is_none() && now.since(self.alone_since) >= IDLE_TIME => {
                    return;
                }
                State::Disarmed | State::Fenced => {}
            }
            let Some(ready) = self.wait() else { continue };
            if ready.connection {
                self.accept();
            }
            // A deadline that was set in time counts, even if we wake up late: so messages come first.
            if ready.message && self.hear() == Flow::End {
                return;
            }
            if ready.terminate && self.may_end() {
                return;
            }
        }
    }

    /// Waits for a message, a connection, a signal or the next thing that is due; `None` when interrupted.
    fn wait(&self) -> Option<Ready> {
        let due = match self.duty.state() {
            State::Armed(orders) => Some(orders.deadline),
            State::Fenced if self.duty.is_on_guard() => Some(boot_now() + GUARD_PAUSE),
            State::Disarmed | State::Fenced if self.agent.is_none() => Some(self.alone_since + IDLE_TIME),
            State::Disarmed | State::Fenced => None,
        };
        // An instant in the past makes the timer fire at once; zero, which would disarm it, is only for "nothing due".
        let it_value = due.map_or(Timespec { tv_sec: 0, tv_nsec: 0 }, |due| {
            let due = due.0.max(Duration::from_nanos(1));
            Timespec { tv_sec: i64::try_from(due.as_secs()).unwrap_or(i64::MAX), tv_nsec: due.subsec_nanos().into() }
        });
        let setting = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &setting) {
            log(&format!("cannot set the timer: {error}"));
        }
        let mut waits = [
            PollFd::new(&self.listener, PollFlags::IN),
            PollFd::new(&self.terminate, PollFlags::IN),
            PollFd::new(&self.timer, PollFlags::IN),
            PollFd::new(self.agent.as_ref().unwrap_or(&self.timer), PollFlags::IN),
        ];
        poll(&mut waits, None).ok()?;
        let [connection, terminate, _, message] = waits.map(|wait| !wait.revents().is_empty());
        Some(Ready { connection, message: message && self.agent.is_some(), terminate })
    }

    /// Takes the new connection in place of the old one, if its owner may command this fencer.
    fn accept(&mut self) {
        let Ok(connection) = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) else { return };
        match sockopt::socket_peercred(&connection) {
            Ok(peer) if self.is_trusted(peer.uid) => self.agent = Some(connection),
            Ok(peer) => log(&format!("refused a connection from user {}", peer.uid.as_raw())),
            Err(error) => log(&format!("refused a connection from an unknown user: {error}")),
        }
    }

    /// Root, our own user and the owner of the data directory could end PostgreSQL anyway.
    fn is_trusted(&self, user: Uid) -> bool {
        let owns_data = || fs::metadata(&self.data_dir).is_ok_and(|metadata| metadata.uid() == user.as_raw());
        user.is_root() || user == geteuid() || owns_data()
    }

    fn hear(&mut self) -> Flow {
        for _ in 0..MESSAGES_PER_WAKE_UP_MAX {
            let Some(agent) = &self.agent else { return Flow::Continue };
            let mut buffer = [0; MESSAGE_BYTES_MAX];
            let text = match recv(agent, &mut buffer, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN | Errno::INTR) => return Flow::Continue,
                // The agent has closed its end, by intent or by dying.
                Ok((_, 0)) | Err(_) => {
                    self.agent = None;
                    self.alone_since = boot_now();
                    return Flow::Continue;
                }
                Ok((length, _)) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
            };
            if self.answer(&text) == Flow::End {
                return Flow::End;
            }
        }
        Flow::Continue
    }

    fn answer(&mut self, text: &str) -> Flow {
        let (number, done) = match text.parse::<Numbered<Request>>() {
            Ok(Numbered { number, body }) => (number, self.obey(body)),
            Err(error) => {
                log(&format!("did not understand {text:?}: {error}"));
                (0, Err(Refusal::NotUnderstood))
            }
        };
        let reply = Reply { refused: done.err(), state: self.duty.state(), last_fencing: self.last_fencing };
        let reply = Numbered { number, body: reply }.to_string();
        if let Some(agent) = &self.agent
            && send(agent, reply.as_bytes(), SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_err()
        {
            self.agent = None;
            self.alone_since = boot_now();
        }
        done.unwrap_or(Flow::Continue)
    }

    fn obey(&mut self, request: Request) -> Result<Flow, Refusal> {
        self.duty.hear();
        match request {
            Request::Arm(orders) => {
                self.arm(orders)?;
                Ok(Flow::Continue)
            }
            Request::Disarm => {
                self.duty.disarm();
                self.postmaster = None;
                Ok(Flow::Continue)
            }
            Request::Status => Ok(Flow::Continue),
            Request::Quit => match self.duty.state() {
                State::Armed(_) => Err(Refusal::Armed),
                State::Disarmed | State::Fenced => Ok(Flow::End),
            },
        }
    }

    fn arm(&mut self, orders: Orders) -> Result<(), Refusal> {
        let mut duty = self.duty;
        duty.arm(orders, boot_now())?;
        if self.postmaster.as_ref().map(|held| held.identity) != orders.postmaster {
            let held = orders.postmaster.map(|identity| Held::open(&self.proc, identity)).transpose()?;
            if let Some(held) = &held
                && !self.is_guarded(&held.cwd)
            {
                return Err(Refusal::OtherDataDirectory);
            }
            self.postmaster = held;
        }
        self.duty = duty;
        Ok(())
    }

    /// True when a process in this working directory serves our data directory, perhaps by another path.
    fn is_guarded(&self, cwd: &[u8]) -> bool {
        let place = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
        let data_dir = self.data_dir.as_path();
        data_dir.as_os_str().as_bytes() == cwd
            || place(data_dir).is_some_and(|ours| place(Path::new(std::ffi::OsStr::from_bytes(cwd))) == Some(ours))
    }

    /// The deadline has passed.
    fn strike(&mut self, orders: Orders) {
        let outcome = end_all(&self.proc, &self.target());
        self.duty.struck(outcome.left > 0, self.agent.is_some());
        self.report(orders.deadline, orders.epoch, outcome);
    }

    /// Ends what showed itself since the deadline, or has not ended yet.
    fn keep_guard(&mut self) {
        let started = boot_now();
        let (killed, left) = kill_all(&self.proc, &self.target(), GUARD_TIME);
        self.duty.struck(left > 0, self.agent.is_some());
        let was_left = self.last_fencing.map_or(0, |fencing| fencing.left);
        if left != was_left || killed > was_left {
            let (deadline, epoch) =
                self.last_fencing.map_or((started, Revision(0)), |last| (last.deadline, last.epoch));
            self.report(deadline, epoch, Outcome { started, finished: boot_now(), obeyed: false, killed, left });
        }
    }

    fn target(&self) -> Target<'_> {
        let data_dir = self.data_dir.as_os_str().as_bytes();
        Target { data_dir, programs: &self.programs, postmaster: self.postmaster.as_ref() }
    }

    /// Remembers what was done, for the agent and for people. Nothing here may happen before the kill: files and standard
    /// error can hang.
    fn report(&mut self, deadline: BootInstant, epoch: Revision, outcome: Outcome) {
        let Outcome { started, finished, obeyed, killed, left } = outcome;
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let at = WallTime(since_1970.saturating_sub(boot_now().since(started)));
        let fencing = Fencing { at, deadline, started, finished, epoch, obeyed, killed, left };
        self.last_fencing = Some(fencing);
        log(&format!("fenced: {fencing}"));
        if let Err(error) = write_state_file(&self.state_file, &fencing) {
            log(&format!("cannot write {}: {error}", self.state_file.display()));
        }
    }

    /// Asked to end by a signal, perhaps because a whole service is being stopped: not before PostgreSQL is.
    fn may_end(&mut self) -> bool {
        let mut signals = [0; 16];
        let _ = io::Read::read(&mut self.terminate, &mut signals);
        match self.duty.state() {
            State::Armed(_) => {
                log("asked to end; does not, because a deadline is set");
                false
            }
            State::Disarmed | State::Fenced => true,
        }
    }
}

/// Whether the process goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    End,
}

/// Makes this process the one fencer of the data directory.
fn own_socket(data_dir: &Path) -> Result<OwnedFd, StartError> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let opened = || -> rustix::io::Result<OwnedFd> {
        let address = SocketAddrUnix::new_abstract_name(socket_name(data_dir).as_bytes())?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        bind(&socket, &address)?;
        // Connections wait here while PostgreSQL is being killed.
        listen(&socket, 8)?;
        Ok(socket)
    };
    opened().map_err(|error| match error {
        Errno::ADDRINUSE => StartError::Busy,
        other => StartError::Io("open its socket", other.into()),
    })
}

/// One line on standard error, unless that would block. The time is UTC: a time zone would have to be read from a file.
fn log(line: &str) {
    let stderr = io::stderr();
    let can_write = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    if can_write.is_ok_and(|ready| ready > 0) {
        let _ = (&stderr).write_all(format!("{:.3} pgward fencer: {line}\n", Timestamp::now()).as_bytes());
    }
}

fn read_state_file(path: &Path) -> Option<Fencing> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            log(&format!("cannot read {}: {error}", path.display()));
            return None;
        }
    };
    Fencing::from_record(&text)
        .inspect_err(|error| log(&format!("ignores {}, which is no record of a fencing: {error}", path.display())))
        .ok()
}

fn write_state_file(path: &Path, fencing: &Fencing) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, format!("{}\n", fencing.record()))?;
    fs::rename(&new, path)
}
