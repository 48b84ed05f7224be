//! The promise that a member makes to a primary without the store: to wait for a whole ttl before it stands (FS-5, FS-7).
//!
//! Two sides meet here as well. REST asks for a promise at any moment; the cycle may be about to take the leader key at the
//! same one. Either makes it first, and the other is refused (`Promises::answer`, `Promises::try_stand`). A promise is
//! on disk before it is told: it outlives the agent and the machine.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pgward_core::decide::failsafe::Promise;
use pgward_core::mutant::{Mutant, leaves_out};
use pgward_core::names::MemberName;
use pgward_core::time::BootInstant;
use serde_json::{Map, Value, json};
use tracing::{info, warn};

use crate::host::{BoxFuture, Host};

/// What a primary without the store sends to each of the others (FS-4). The first four are Patroni's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentRequest {
    /// The primary.
    pub name: MemberName,
    /// Where clients and standbys reach it.
    pub conn_url: String,
    /// Where its REST API is.
    pub api_url: String,
    /// Where its slots are, its own position among them.
    pub slots: Map<String, Value>,
    /// For how long it asks the others to wait; Patroni does not say, and means the `ttl` of who is asked.
    pub ttl: Option<Duration>,
}

impl ConsentRequest {
    /// As it is sent.
    pub fn to_value(&self) -> Value {
        let mut value = json!({
            "name": self.name.as_str(), "conn_url": self.conn_url, "api_url": self.api_url, "slots": self.slots,
        });
        if let Some(ttl) = self.ttl {
            value["ttl"] = ttl.as_secs().into();
        }
        value
    }

    /// Reads a body; `None` when it does not say who asks.
    pub fn from_object(body: &Map<String, Value>) -> Option<ConsentRequest> {
        let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(ConsentRequest {
            name: body.get("name")?.as_str()?.parse().ok()?,
            conn_url: text("conn_url"),
            api_url: text("api_url"),
            slots: body.get("slots").and_then(Value::as_object).cloned().unwrap_or_default(),
            ttl: body.get("ttl").and_then(Value::as_u64).map(|seconds| Duration::from_secs(seconds.min(TTL_MAX))),
        })
    }
}

/// The longest time that a request may ask for, in seconds: a promise that does not end would be an outage of its own.
const TTL_MAX: u64 = 600;

/// What a member says to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsentReply {
    /// It waits.
    Accepted,
    /// Failsafe mode is off, as far as it knows.
    ModeOff,
    /// It does not, and why.
    Refused(String),
}

/// Where a promise is kept while the agent is away.
pub trait PromiseFile: Send + Sync {
    /// The promise that was kept last, however long ago.
    fn read(&self) -> Option<Promise>;
    /// Keeps a promise: on disk when this resolves.
    fn keep(&self, promise: Promise) -> BoxFuture<'_, std::io::Result<()>>;
}

/// The promises of one member. Clones are the same.
#[derive(Clone)]
pub struct Promises {
    state: Arc<Mutex<State>>,
    file: Arc<dyn PromiseFile>,
    host: Arc<dyn Host>,
}

struct State {
    is_mode_on: bool,
    ttl: Duration,
    /// This member leads, or is about to: nobody else gets its consent.
    leads: bool,
    /// Who else holds the leader key, while the store can be read.
    led_by: Option<MemberName>,
    promise: Option<Promise>,
}

impl Promises {
    /// Those of a member that has just started, with what it promised before. `leads`: its server may be a primary.
    pub fn new(file: Arc<dyn PromiseFile>, host: Arc<dyn Host>, is_mode_on: bool, ttl: Duration, leads: bool) -> Self {
        let promise = file.read();
        let state = State { is_mode_on, ttl, leads, led_by: None, promise };
        Promises { state: Arc::new(Mutex::new(state)), file, host }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cycle tells what it has seen, each time before it decides.
    pub(crate) fn note(&self, is_mode_on: bool, ttl: Duration, leads: bool, led_by: Option<MemberName>) {
        let mut state = self.lock();
        (state.is_mode_on, state.ttl, state.leads, state.led_by) = (is_mode_on, ttl, leads, led_by);
    }

    /// The promise in force.
    pub fn present(&self) -> Option<Promise> {
        let now = self.host.boot_now();
        self.lock().promise.clone().filter(|promise| now < promise.until && !leaves_out(Mutant::PromiseForgotten))
    }

    /// The cycle is about to take or use the leadership: from here on nobody else gets this member's consent, until the
    /// cycle has seen that it does not lead. False: a promise forbids it (INV-S15).
    pub(crate) fn try_stand(&self) -> bool {
        let now = self.host.boot_now();
        let mut state = self.lock();
        let is_free = state.promise.as_ref().is_none_or(|promise| now >= promise.until);
        let is_free = is_free || leaves_out(Mutant::PromiseForgotten);
        state.leads |= is_free;
        is_free
    }

    /// Makes a promise, or refuses to (FS-5). It may be kept although the answer is not told: that is the safe side.
    pub async fn answer(&self, request: &ConsentRequest) -> ConsentReply {
        let (promise, is_new) = match self.promise(request) {
            Ok(promised) => promised,
            Err(refusal) => return refusal,
        };
        if is_new {
            info!(leader = %promise.leader, "has promised to wait for a primary without the store");
        }
        match self.file.keep(promise).await {
            Ok(()) => ConsentReply::Accepted,
            Err(problem) => {
                warn!(error = %problem, "a promise to a primary without the store could not be kept on disk");
                ConsentReply::Refused("the promise could not be kept on disk".to_owned())
            }
        }
    }

    fn promise(&self, request: &ConsentRequest) -> Result<(Promise, bool), ConsentReply> {
        let now = self.host.boot_now();
        let mut state = self.lock();
        if !state.is_mode_on {
            return Err(ConsentReply::ModeOff);
        }
        if state.leads {
            return Err(ConsentReply::Refused("Running as a leader".to_owned()));
        }
        if let Some(leader) = state.led_by.as_ref().filter(|leader| **leader != request.name) {
            return Err(ConsentReply::Refused(format!("{leader} holds the leader key")));
        }
        let until = now + request.ttl.map_or(state.ttl, |ttl| ttl.max(state.ttl));
        // Whom it was promised before may still rely on it.
        let before = state.promise.as_ref().filter(|promise| now < promise.until);
        let is_new = before.is_none_or(|promise| promise.leader != request.name);
        let until = before.map_or(until, |promise| until.max(promise.until));
        let (conn_url, api_url) = (request.conn_url.clone(), request.api_url.clone());
        let promise = Promise { leader: request.name.clone(), conn_url, api_url, until };
        state.promise = Some(promise.clone());
        Ok((promise, is_new))
    }
}

/// A file beside the data directory.
pub struct PromiseOnDisk {
    path: PathBuf,
    /// The machine counts its time anew after each start.
    boot_id: String,
    /// The end of what was written last; held while something is written.
    written: Arc<Mutex<BootInstant>>,
}

impl PromiseOnDisk {
    /// # Errors
    /// When the kernel does not say which start of the machine this is.
    pub fn new(path: PathBuf) -> std::io::Result<Self> {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
        Ok(PromiseOnDisk { path, boot_id, written: Arc::default() })
    }

    fn parse(&self, text: &str) -> Option<Promise> {
        let document: Value = serde_json::from_str(text).ok()?;
        let mut promise: Promise = serde_json::from_value(document["promise"].clone()).ok()?;
        if document["boot_id"] != self.boot_id.as_str() {
            // Given before the machine was started again: it ends at the latest so long after that.
            let length = document["seconds"].as_u64()?;
            promise.until = BootInstant(Duration::from_secs(length));
        }
        Some(promise)
    }
}

impl PromiseFile for PromiseOnDisk {
    fn read(&self) -> Option<Promise> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        let promise = self.parse(&text);
        if promise.is_none() {
            warn!(file = %self.path.display(), "what was promised to a primary without the store cannot be read");
        }
        promise
    }

    fn keep(&self, promise: Promise) -> BoxFuture<'_, std::io::Result<()>> {
        let seconds = promise.until.since(crate::host::System.boot_now()).as_secs() + 1;
        let text = json!({"boot_id": self.boot_id, "seconds": seconds, "promise": promise}).to_string();
        let (path, written) = (self.path.clone(), Arc::clone(&self.written));
        let write = move || {
            let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
            if *written < promise.until {
                replace(&path, &text)?;
                *written = promise.until;
            }
            Ok(())
        };
        Box::pin(async move { tokio::task::spawn_blocking(write).await.map_err(std::io::Error::other)? })
    }
}

/// Replaces a file so that its old or its new content is found after a loss of power.
fn replace(path: &std::path::Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    std::fs::File::open(directory.unwrap_or(std::path::Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::System;

    const TTL: Duration = Duration::from_secs(30);

    fn request(name: &str) -> ConsentRequest {
        let (conn_url, api_url) = ("postgres://n1/postgres".to_owned(), "http://n1:8008/patroni".to_owned());
        ConsentRequest { name: name.parse().unwrap(), conn_url, api_url, slots: Map::new(), ttl: None }
    }

    fn promises(directory: &std::path::Path, leads: bool) -> Promises {
        let file = PromiseOnDisk::new(directory.join("data.failsafe")).unwrap();
        Promises::new(Arc::new(file), Arc::new(System), true, TTL, leads)
    }

    #[tokio::test]
    async fn who_has_promised_does_not_stand_whatever_agent_asks() {
        let directory = tempfile::tempdir().unwrap();
        let member = promises(directory.path(), false);
        assert_eq!((member.present(), member.answer(&request("n1")).await), (None, ConsentReply::Accepted));
        assert!(!member.try_stand(), "it has promised to wait");
        let promise = member.present().unwrap();
        assert!(promise.leader.as_str() == "n1" && promise.until.since(System.boot_now()) <= TTL);
        let restarted = promises(directory.path(), false);
        assert_eq!(restarted.present(), Some(promise), "another agent keeps it, too");
        assert!(!restarted.try_stand());
    }

    #[tokio::test]
    async fn a_longer_wait_can_be_asked_for_and_two_primaries_are_both_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let member = promises(directory.path(), false);
        let long = ConsentRequest { ttl: Some(TTL * 2), ..request("n1") };
        assert_eq!(member.answer(&long).await, ConsentReply::Accepted);
        assert_eq!(member.answer(&request("n2")).await, ConsentReply::Accepted);
        let promise = member.present().unwrap();
        assert_eq!(promise.leader.as_str(), "n2"); // TIM-7
        assert!(promise.until.since(System.boot_now()) > TTL, "n1 may still rely on it");
    }

    /// FS-5.
    #[tokio::test]
    async fn who_leads_or_is_about_to_gives_no_consent() {
        let directory = tempfile::tempdir().unwrap();
        let member = promises(directory.path(), true);
        let leads = ConsentReply::Refused("Running as a leader".to_owned());
        assert_eq!(member.answer(&request("n1")).await, leads);
        member.note(true, TTL, false, None);
        assert!(member.try_stand());
        assert_eq!(member.answer(&request("n1")).await, leads, "it is on its way to the key");
        member.note(true, TTL, false, "n3".parse().ok());
        let other = ConsentReply::Refused("n3 holds the leader key".to_owned());
        assert_eq!(member.answer(&request("n1")).await, other);
        assert_eq!(member.answer(&request("n3")).await, ConsentReply::Accepted);
        member.note(false, TTL, false, None);
        assert_eq!(member.answer(&request("n1")).await, ConsentReply::ModeOff);
    }

    #[test]
    fn a_promise_from_before_the_machine_was_started_ends_in_time() {
        let directory = tempfile::tempdir().unwrap();
        let file = PromiseOnDisk::new(directory.path().join("data.failsafe")).unwrap();
        let text = |boot_id: &str| {
            let promise = json!({"leader": "n1", "conn_url": "", "api_url": "", "until": {"secs": 9000, "nanos": 0}});
            json!({"boot_id": boot_id, "seconds": 30, "promise": promise}).to_string()
        };
        assert_eq!(file.parse(&text(&file.boot_id)).unwrap().until, BootInstant(Duration::from_secs(9000)));
        assert_eq!(file.parse(&text("another")).unwrap().until, BootInstant(Duration::from_secs(30)));
        assert_eq!(file.parse("{"), None);
    }

    #[test]
    fn a_request_is_read_as_it_is_sent() {
        let slots = Map::from_iter([("n1".to_owned(), 7.into())]);
        let sent = ConsentRequest { slots, ttl: Some(TTL), ..request("n1") };
        assert_eq!(ConsentRequest::from_object(sent.to_value().as_object().unwrap()), Some(sent));
        let patroni = json!({"name": "n1", "conn_url": "postgres://n1/postgres", "api_url": "http://n1:8008/patroni"});
        assert_eq!(ConsentRequest::from_object(patroni.as_object().unwrap()), Some(request("n1")));
        assert_eq!(ConsentRequest::from_object(json!({"x": 1}).as_object().unwrap()), None);
    }
}
