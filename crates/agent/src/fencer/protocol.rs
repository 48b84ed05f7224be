//! What the agent and the fencer say to each other: one datagram a message, short text with a version in front.
//!
//! An agent may adopt a fencer that another version of this program left behind, so the first field is the version of
//! the protocol and the text of version 1 never changes its meaning.
//!
//! ```text
//! 1 <number> arm <pid|-> <start ticks|-> <deadline ns> <epoch>      1 <number> ok <state>
//! 1 <number> disarm | status | quit                                 1 <number> refused <reason> <state>
//! ```
//!
//! `<state>` is `disarmed`, `fenced` or `armed` with the fields of `arm`. A second line, if any, is the last [`Fencing`].

use std::fmt;
use std::str::{FromStr, SplitAsciiWhitespace};
use std::time::Duration;

use pgward_core::cluster::Revision;
use pgward_core::time::{BootInstant, WallTime};

use super::process::ProcessIdentity;

/// The version that this program speaks.
const VERSION: &str = "1";

/// A message is shorter than this; a longer one is not ours.
pub(super) const MESSAGE_BYTES_MAX: usize = 512;

/// What the fencer was told to guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orders {
    /// The postmaster as the agent knows it; `None` before it is started: whoever then owns the data directory.
    pub postmaster: Option<ProcessIdentity>,
    /// When PostgreSQL has to be killed unless a later deadline arrives before.
    pub deadline: BootInstant,
    /// The leader epoch (create revision of the leader key) behind the deadline: for reports.
    pub epoch: Revision,
}

/// What the fencer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing to guard: PostgreSQL is a standby, or stopped.
    Disarmed,
    /// A deadline is set.
    Armed(Orders),
    /// The deadline passed, PostgreSQL was killed, and nobody has spoken to the fencer since.
    Fenced,
}

/// Why the fencer did not do what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The deadline is already over: too late to rely on it.
    DeadlinePassed,
    /// No process has this identifier and start time.
    NoSuchProcess,
    /// The process does not run in the data directory that this fencer guards.
    OtherDataDirectory,
    /// A deadline is set, and `quit` would drop it.
    Armed,
    /// The message made no sense.
    NotUnderstood,
}

/// One time that the fencer struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fencing {
    /// Wall-clock time of the first signal: for people.
    pub at: WallTime,
    /// The deadline that passed.
    pub deadline: BootInstant,
    /// The first signal.
    pub started: BootInstant,
    /// No process of PostgreSQL was left, or the fencer gave up waiting for the kernel to end the `left` ones.
    pub finished: BootInstant,
    /// The leader epoch behind the deadline.
    pub epoch: Revision,
    /// True when PostgreSQL obeyed the immediate stop; else it was killed.
    pub obeyed: bool,
    /// Processes that had to be killed.
    pub killed: u32,
    /// Processes that were killed but hang inside the kernel. They cannot answer anybody.
    pub left: u32,
}

/// Why a text is not a message of this protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// Another version of the protocol.
    #[error("protocol version {0:?} instead of {VERSION:?}")]
    Version(String),
    /// A field is absent or has a value that it cannot have.
    #[error("the field <{0}> is missing or wrong")]
    Field(&'static str),
}

/// What an agent asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Arm(Orders),
    Disarm,
    Status,
    Quit,
}

/// A request with the number that its reply repeats, so that a late reply is not taken for a newer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbered<T> {
    pub(super) number: u64,
    pub(super) body: T,
}

/// What the fencer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) refused: Option<Refusal>,
    pub(super) state: State,
    pub(super) last_fencing: Option<Fencing>,
}

impl Fencing {
    /// Time between the deadline and the first signal.
    pub fn late_by(&self) -> Duration {
        self.started.since(self.deadline)
    }

    /// Time between the deadline and the end of the last process.
    pub fn silent_after(&self) -> Duration {
        self.finished.since(self.deadline)
    }
}

/// Reads the fields of one message in order.
struct Fields<'a>(SplitAsciiWhitespace<'a>);

impl<'a> Fields<'a> {
    fn text(&mut self, name: &'static str) -> Result<&'a str, InvalidMessage> {
        self.0.next().ok_or(InvalidMessage::Field(name))
    }

    fn value<T: FromStr>(&mut self, name: &'static str) -> Result<T, InvalidMessage> {
        self.text(name)?.parse().map_err(|_| InvalidMessage::Field(name))
    }

    fn instant(&mut self, name: &'static str) -> Result<BootInstant, InvalidMessage> {
        Ok(BootInstant(Duration::from_nanos(self.value(name)?)))
    }

    fn orders(&mut self) -> Result<Orders, InvalidMessage> {
        let postmaster = match (self.text("pid")?, self.text("start ticks")?) {
            ("-", "-") => None,
            (pid, start_ticks) => Some(ProcessIdentity {
                pid: pid.parse().ok().filter(|pid: &i32| *pid > 0).ok_or(InvalidMessage::Field("pid"))?,
                start_ticks: start_ticks.parse().map_err(|_| InvalidMessage::Field("start ticks"))?,
            }),
        };
        Ok(Orders { postmaster, deadline: self.instant("deadline")?, epoch: Revision(self.value("epoch")?) })
    }

    fn state(&mut self) -> Result<State, InvalidMessage> {
        match self.text("state")? {
            "disarmed" => Ok(State::Disarmed),
            "fenced" => Ok(State::Fenced),
            "armed" => Ok(State::Armed(self.orders()?)),
            _ => Err(InvalidMessage::Field("state")),
        }
    }

    fn head(&mut self) -> Result<u64, InvalidMessage> {
        match self.text("version")? {
            VERSION => self.value("number"),
            other => Err(InvalidMessage::Version(other.to_owned())),
        }
    }
}

/// An instant as nanoseconds in 64 bits: enough for 584 years since boot.
fn nanoseconds(instant: BootInstant) -> u64 {
    u64::try_from(instant.0.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Display for Orders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.postmaster {
            Some(ProcessIdentity { pid, start_ticks }) => write!(f, "{pid} {start_ticks}")?,
            None => f.write_str("- -")?,
        }
        write!(f, " {} {}", nanoseconds(self.deadline), self.epoch.0)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            State::Disarmed => f.write_str("disarmed"),
            State::Armed(orders) => write!(f, "armed {orders}"),
            State::Fenced => f.write_str("fenced"),
        }
    }
}

impl Refusal {
    pub(super) const ALL: [(Refusal, &str); 5] = [
        (Refusal::DeadlinePassed, "deadline-passed"),
        (Refusal::NoSuchProcess, "no-such-process"),
        (Refusal::OtherDataDirectory, "other-data-directory"),
        (Refusal::Armed, "armed"),
        (Refusal::NotUnderstood, "not-understood"),
    ];

    fn word(self) -> &'static str {
        Self::ALL.iter().find(|(refusal, _)| *refusal == self).map_or("not-understood", |(_, word)| word)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::DeadlinePassed => "the deadline has already passed",
            Refusal::NoSuchProcess => "no process has this identifier and start time",
            Refusal::OtherDataDirectory => "the process does not run in the data directory that is guarded",
            Refusal::Armed => "a deadline is set",
            Refusal::NotUnderstood => "the fencer did not understand the message",
        })
    }
}

impl fmt::Display for Numbered<Request> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION} {} ", self.number)?;
        match self.body {
            Request::Arm(orders) => write!(f, "arm {orders}"),
            Request::Disarm => f.write_str("disarm"),
            Request::Status => f.write_str("status"),
            Request::Quit => f.write_str("quit"),
        }
    }
}

impl FromStr for Numbered<Request> {
    type Err = InvalidMessage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut fields = Fields(text.split_ascii_whitespace());
        let number = fields.head()?;
        let body = match fields.text("request")? {
            "arm" => Request::Arm(fields.orders()?),
            "disarm" => Request::Disarm,
            "status" => Request::Status,
            "quit" => Request::Quit,
            _ => return Err(InvalidMessage::Field("request")),
        };
        Ok(Numbered { number, body })
    }
}

impl fmt::Display for Numbered<Reply> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION} {} ", self.number)?;
        match self.body.refused {
            None => f.write_str("ok ")?,
            Some(refusal) => write!(f, "refused {} ", refusal.word())?,
        }
        write!(f, "{}", self.body.state)?;
        match &self.body.last_fencing {
            None => Ok(()),
            Some(fencing) => write!(f, "\n{}", fencing.record()),
        }
    }
}

impl FromStr for Numbered<Reply> {
    type Err = InvalidMessage;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (first, second) = text.split_once('\n').unwrap_or((text, ""));
        let mut fields = Fields(first.split_ascii_whitespace());
        let number = fields.head()?;
        let refused = match fields.text("verdict")? {
            "ok" => None,
            "refused" => {
                let word = fields.text("reason")?;
                // A newer fencer may have reasons that this version has no name for.
                let known = Refusal::ALL.iter().find(|(_, known)| *known == word);
                Some(known.map_or(Refusal::NotUnderstood, |(refusal, _)| *refusal))
            }
            _ => return Err(InvalidMessage::Field("verdict")),
        };
        let state = fields.state()?;
        let last_fencing = if second.is_empty() { None } else { Some(Fencing::from_record(second)?) };
        Ok(Numbered { number, body: Reply { refused, state, last_fencing } })
    }
}

impl Fencing {
    /// The line that the state file holds.
    pub(super) fn record(&self) -> String {
        let Self { at, deadline, started, finished, epoch, obeyed, killed, left } = self;
        let [deadline, started, finished] = [*deadline, *started, *finished].map(nanoseconds);
        let at = u64::try_from(at.0.as_nanos()).unwrap_or(u64::MAX);
        format!("fenced {at} {deadline} {started} {finished} {} {obeyed} {killed} {left}", epoch.0)
    }

    /// Reads what [`Fencing::record`] wrote.
    pub(super) fn from_record(line: &str) -> Result<Self, InvalidMessage> {
        let mut fields = Fields(line.split_ascii_whitespace());
        if fields.text("fenced")? != "fenced" {
            return Err(InvalidMessage::Field("fenced"));
        }
        Ok(Fencing {
            at: WallTime(Duration::from_nanos(fields.value("at")?)),
            deadline: fields.instant("deadline")?,
            started: fields.instant("started")?,
            finished: fields.instant("finished")?,
            epoch: Revision(fields.value("epoch")?),
            obeyed: fields.value("obeyed")?,
            killed: fields.value("killed")?,
            left: fields.value("left")?,
        })
    }
}

impl fmt::Display for Fencing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the lease deadline of leader epoch {} passed; PostgreSQL was signalled {:.3} s and silent {:.3} s after it (",
            self.epoch.0,
            self.late_by().as_secs_f64(),
            self.silent_after().as_secs_f64(),
        )?;
        match (self.obeyed, self.killed) {
            (true, 0) => f.write_str("it obeyed an immediate stop")?,
            (false, 0) => f.write_str("no process was left to stop")?,
            (true | false, killed) => write!(f, "{killed} processes had to be killed")?,
        }
        match self.left {
            0 => f.write_str(")"),
            left => write!(f, ", {left} of them hang in the kernel)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> Orders {
        Orders {
            postmaster: Some(ProcessIdentity { pid: 4711, start_ticks: 99 }),
            deadline: BootInstant(Duration::from_nanos(123_456_789)),
            epoch: Revision(42),
        }
    }

    fn fencing() -> Fencing {
        let at = |milliseconds| BootInstant(Duration::from_millis(milliseconds));
        Fencing {
            at: WallTime(Duration::from_secs(1_700_000_000)),
            deadline: at(1000),
            started: at(1001),
            finished: at(1310),
            epoch: Revision(42),
            obeyed: false,
            killed: 9,
            left: 0,
        }
    }

    #[test]
    fn messages_survive_the_way_through_text() {
        let requests = [
            (Request::Arm(orders()), "1 7 arm 4711 99 123456789 42"),
            (Request::Arm(Orders { postmaster: None, ..orders() }), "1 7 arm - - 123456789 42"),
            (Request::Disarm, "1 7 disarm"),
            (Request::Status, "1 7 status"),
            (Request::Quit, "1 7 quit"),
        ];
        for (body, text) in requests {
            let message = Numbered { number: 7, body };
            assert_eq!(message.to_string(), text);
            assert_eq!(text.parse(), Ok(message));
        }
        for (refused, state, last_fencing) in [
            (None, State::Armed(orders()), None),
            (Some(Refusal::DeadlinePassed), State::Disarmed, Some(fencing())),
            (Some(Refusal::OtherDataDirectory), State::Fenced, Some(fencing())),
        ] {
            let reply = Numbered { number: u64::MAX, body: Reply { refused, state, last_fencing } };
            assert_eq!(reply.to_string().parse(), Ok(reply));
            assert!(reply.to_string().len() < MESSAGE_BYTES_MAX);
        }
    }

    #[test]
    fn what_is_not_a_message_is_named() {
        use InvalidMessage::{Field, Version};
        for (text, error) in [
            ("", Field("version")),
            ("2 1 status", Version("2".into())),
            ("1 x status", Field("number")),
            ("1 1 explode", Field("request")),
            ("1 1 arm 0 1 2 3", Field("pid")),
            ("1 1 arm -5 1 2 3", Field("pid")),
            ("1 1 arm 99999999999 1 2 3", Field("pid")),
            ("1 1 arm 1 - 2 3", Field("start ticks")),
            ("1 1 arm 1 1 -2 3", Field("deadline")),
            ("1 1 arm 1 1 2", Field("epoch")),
        ] {
            assert_eq!(text.parse::<Numbered<Request>>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_fencing_tells_people_what_happened() {
        assert_eq!(
            fencing().to_string(),
            "the lease deadline of leader epoch 42 passed; PostgreSQL was signalled 0.001 s and silent 0.310 s after \
             it (9 processes had to be killed)"
        );
    }
}
