//! What the clients did and what became of it: the input of the checker, without a connection or a clock in it.

use std::collections::BTreeMap;
use std::time::Duration;

/// A list of numbers that clients append to; numbers are unique in a run.
pub type List = Vec<u64>;

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// Append this number to the list; the answer is the whole list.
    Append(u64),
    /// Read the whole list.
    Read,
}

/// Who answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// The node, by what its server says of itself.
    pub node: usize,
    /// The timeline it writes on; none when it is in recovery, that is, a replica.
    pub timeline: Option<u32>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered.
    Done {
        /// Who answered.
        by: Server,
        /// The whole list, after the append if it was one.
        list: List,
    },
    /// It was not carried out, and never will be.
    Failed,
    /// It was sent, and the connection ended or the time was up before an answer came.
    Unknown,
}

/// One request. Times count from the beginning of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The client; each does one thing at a time.
    pub client: usize,
    /// Which list.
    pub key: i32,
    /// What it asked for.
    pub request: Request,
    /// When it was sent.
    pub sent: Duration,
    /// When the outcome was known.
    pub ended: Duration,
    /// What became of it.
    pub outcome: Outcome,
}

/// How a fault can cost commits that were acknowledged, with replication that is asynchronous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// The server may end in a crash: what it acknowledged in its last moment may be gone.
    Crash,
    /// Its commits do not reach the replicas: what it acknowledges meanwhile may be gone.
    Cut,
}

/// What the faults of the run excuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disturbance {
    /// Which node it hit.
    pub node: usize,
    /// How it harms.
    pub harm: Harm,
    /// When it began.
    pub from: Duration,
    /// When its effects were over.
    pub until: Duration,
}

/// A whole run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// What the clients did.
    pub operations: Vec<Operation>,
    /// The lists at the end, when the cluster was whole again.
    pub last: BTreeMap<i32, List>,
    /// What may have cost acknowledged commits.
    pub disturbances: Vec<Disturbance>,
}
