//! Follows the cluster: a watch brings every change at once, and a linearizable read every few seconds proves that the
//! picture is whole.
//!
//! The two do not depend on each other. A watch that breaks is opened again behind the last change seen; a watch that
//! is silent although the store changed is found out by the reads; a store that cannot be read makes the picture
//! [`Lost`](crate::StoreView::Lost), however alive the watch looks, because a member of etcd that is cut off from its
//! quorum keeps a watch open too.

use std::collections::HashSet;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pgward_core::cluster::{KeyWarning, LeaseId, RawKey, Revision};
use pgward_core::time::BootInstant;
use pgward_core::time::rounded;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{debug, info, warn};

use super::client::Client;
use super::fault::Fault;
use super::pool::Node;
use super::proto::{
    self, Event, EventType, KeyValue, RangeResponse, WatchAsk, WatchCreateRequest, WatchRequest, WatchResponse,
};
use crate::picture::{Change, Picture};
use crate::{StoreError, StoreView, boot_now};

/// How often the picture is confirmed by a read.
const CONFIRM_EVERY: Duration = Duration::from_secs(2);
/// How long such a read may take, other endpoints included.
const CONFIRM_TIME: Duration = Duration::from_secs(4);
/// How old the last confirmation may be before the picture counts as lost. Longer than etcd needs to elect a leader
/// (one to two seconds) and to fail over to a third endpoint.
const LOST_AFTER: Duration = Duration::from_secs(5);
/// How often to look at the clock.
const TICK: Duration = Duration::from_millis(500);
/// How long opening a watch may take.
const OPEN_TIME: Duration = Duration::from_secs(3);
/// Pauses before a broken watch is opened again.
const REOPEN_FIRST: Duration = Duration::from_millis(20);
const REOPEN_MAX: Duration = Duration::from_secs(1);
/// Answers of etcd on their way to the picture; it takes them at once, so a few are enough.
const QUEUE: usize = 16;

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A whole read of the prefix.
pub(super) struct Reading {
    pub picture: Picture,
    pub cluster_id: u64,
    /// Taken just before the read was sent: the picture was not older then.
    pub sent: BootInstant,
}

/// Reads everything below `prefix`, linearizable.
pub(super) async fn read_all(client: &Client, prefix: &str, within: Duration) -> Result<Reading, StoreError> {
    let answer = client.call::<_, RangeResponse>(proto::RANGE, &proto::range_below(prefix), within).await?;
    let header = answer.header();
    let keys = answer.body.kvs.into_iter().filter_map(|kv| raw_key(prefix, kv));
    let picture = Picture::new(Revision(header.revision), keys);
    Ok(Reading { picture, cluster_id: header.cluster_id, sent: answer.sent })
}

fn raw_key(prefix: &str, kv: KeyValue) -> Option<RawKey> {
    // A key that is not text cannot be one of ours; Patroni ignores it, too.
    let suffix = std::str::from_utf8(&kv.key).ok()?.strip_prefix(prefix)?.to_owned();
    Some(RawKey {
        suffix,
        value: kv.value,
        create_revision: Revision(kv.create_revision),
        mod_revision: Revision(kv.mod_revision),
        lease: LeaseId(kv.lease),
    })
}

/// The task that keeps a [`StoreView`] current.
pub(super) struct Follower {
    client: Client,
    prefix: String,
    publisher: watch::Sender<StoreView>,
    /// Somebody lost a compare: the picture may be stale (DCS-E5).
    suspicion: Arc<Notify>,
    known: Option<Known>,
    feed: Option<Feed>,
    reopen_pause: Duration,
    /// Set when the changes since the picture cannot be had from a watch: it has to be read first.
    must_read: bool,
    /// A store that refuses us is not asked at every tick.
    read_not_before: Instant,
    /// What the last read met, until one succeeds.
    last_error: Option<String>,
    warned: HashSet<KeyWarning>,
}

struct Known {
    picture: Picture,
    cluster_id: u64,
    /// When the read was sent that confirmed it last.
    confirmed: BootInstant,
    /// When the watch brought the last change. It confirms nothing: a member of etcd that was cut off or fell behind brings
    /// late what was true once.
    changed: BootInstant,
    is_lost: bool,
    /// A read found a change that the watch should have brought: until it brings something, it is suspect.
    is_watch_late: bool,
}

/// A watch being opened or open.
struct Feed {
    node: Arc<Node>,
    failures_at_start: u64,
    answers: mpsc::Receiver<WatchResponse>,
    /// Carries answers into the queue, and ends with the reason why it cannot go on.
    carrier: Boxed<BrokenFeed>,
}

struct BrokenFeed {
    reason: String,
    /// The changes are no longer to be had: read everything.
    is_compacted: bool,
    blame: Blame,
}

/// Who is to blame for the end of a watch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// The watch alone.
    Watch,
    /// The member of etcd.
    Node,
    /// The connection to it.
    Connection,
}

enum Happening {
    Shutdown,
    Answer(WatchResponse),
    FeedBroke(BrokenFeed),
    Read(Result<Reading, StoreError>),
    Suspicion,
    Tick,
}

impl Follower {
    pub(super) fn new(
        client: Client,
        prefix: String,
        publisher: watch::Sender<StoreView>,
        suspicion: Arc<Notify>,
    ) -> Follower {
        Follower {
            client,
            prefix,
            publisher,
            suspicion,
            known: None,
            feed: None,
            reopen_pause: Duration::ZERO,
            must_read: true,
            read_not_before: Instant::now(),
            last_error: None,
            warned: HashSet::new(),
        }
    }

    /// Runs until the store is shut down.
    pub(super) async fn run(mut self) {
        let shutdown = self.client.shutdown().clone();
        let suspicion = self.suspicion.clone();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reading: Option<Boxed<Result<Reading, StoreError>>> = None;
        // Set while a read is wanted that starts later than now.
        let mut is_read_wanted = true;
        loop {
            if reading.is_none() && is_read_wanted {
                is_read_wanted = false;
                reading = Some(self.start_read());
            }
            if self.feed.is_none() && !self.must_read {
                self.feed = self.open_feed();
            }
            let happening = tokio::select! {
                biased;
                () = shutdown.cancelled() => Happening::Shutdown,
                happening = next_of(&mut self.feed) => happening,
                result = ended(&mut reading) => Happening::Read(result),
                () = suspicion.notified() => Happening::Suspicion,
                _ = tick.tick() => Happening::Tick,
            };
            match happening {
                Happening::Shutdown => return,
                Happening::Answer(answer) => self.take_answer(answer),
                Happening::FeedBroke(broken) => {
                    self.close_feed(&broken);
                    is_read_wanted = true;
                }
                Happening::Read(Ok(read)) => {
                    reading = None;
                    self.take_reading(read);
                }
                Happening::Read(Err(error)) => {
                    reading = None;
                    self.take_failure(&error);
                }
                Happening::Suspicion => is_read_wanted = true,
                Happening::Tick => {
                    is_read_wanted |= self.is_confirmation_due();
                    self.leave_bad_feed();
                }
            }
            self.judge_age();
        }
    }

    fn start_read(&self) -> Boxed<Result<Reading, StoreError>> {
        let (client, prefix) = (self.client.clone(), self.prefix.clone());
        Box::pin(async move { read_all(&client, &prefix, CONFIRM_TIME).await })
    }

    fn is_confirmation_due(&self) -> bool {
        let is_old = self.known.as_ref().is_none_or(|known| boot_now().since(known.confirmed) >= CONFIRM_EVERY);
        is_old && Instant::now() >= self.read_not_before
    }

    fn open_feed(&mut self) -> Option<Feed> {
        let revision = self.known.as_ref()?.picture.revision();
        let node = self.client.pool().preferred();
        let (sender, answers) = mpsc::channel(QUEUE);
        let not_before = Instant::now() + self.reopen_pause;
        let carry = carry(self.client.clone(), node.clone(), self.prefix.clone(), revision, not_before, sender);
        Some(Feed { failures_at_start: node.failures(), node, answers, carrier: Box::pin(carry) })
    }

    fn close_feed(&mut self, broken: &BrokenFeed) {
        debug!(reason = broken.reason, "the watch ended");
        if let Some(feed) = self.feed.take()
            && broken.blame != Blame::Watch
        {
            self.client.pool().failed(&feed.node, broken.blame == Blame::Connection);
        }
        self.must_read |= broken.is_compacted;
        self.reopen_pause = (self.reopen_pause * 2).clamp(REOPEN_FIRST, REOPEN_MAX);
    }

    /// Leaves a watch that will probably never bring anything again.
    fn leave_bad_feed(&mut self) {
        let Some(feed) = &self.feed else { return };
        // Requests to the same member failed since: its connection may be dead without having been closed.
        if feed.node.failures() != feed.failures_at_start {
            let reason = format!("{} failed to answer other requests", feed.node.url);
            self.close_feed(&BrokenFeed { reason, is_compacted: false, blame: Blame::Watch });
        }
    }

    fn take_answer(&mut self, answer: WatchResponse) {
        let Some(known) = &mut self.known else { return };
        self.reopen_pause = Duration::ZERO;
        if answer.events.is_empty() {
            return;
        }
        known.is_watch_late = false;
        let changes = answer.events.into_iter().filter_map(|event| change(&self.prefix, event));
        if known.picture.apply(changes) {
            known.changed = boot_now();
            if !known.is_lost {
                self.publish(true);
            }
        }
    }

    fn take_reading(&mut self, read: Reading) {
        self.must_read = false;
        self.last_error = None;
        let Some(known) = &mut self.known else {
            let Reading { picture, cluster_id, sent } = read;
            self.known = Some(Known {
                picture,
                cluster_id,
                confirmed: sent,
                changed: sent,
                is_lost: false,
                is_watch_late: false,
            });
            self.publish(true);
            return;
        };
        let has_new_id = read.cluster_id != known.cluster_id;
        let is_behind = read.picture.revision() < known.picture.revision();
        if is_behind && !has_new_id && known.confirmed.max(known.changed) >= read.sent {
            // A change that came after the read was sent is newer than the read.
            return;
        }
        known.confirmed = known.confirmed.max(read.sent);
        let was_lost = std::mem::take(&mut known.is_lost);
        let is_reset = has_new_id || is_behind;
        let differs = !read.picture.has_same_keys(&known.picture);
        let is_late_again = differs && std::mem::replace(&mut known.is_watch_late, differs);
        known.cluster_id = read.cluster_id;
        // Also when nothing differs: a watch opened later need not go through what happened elsewhere in the store.
        if differs || is_reset || read.picture.revision() > known.picture.revision() {
            known.picture = read.picture;
        }
        if is_reset {
            warn!("the store lost revisions that it had before: it was restored from a backup or created anew");
        }
        if is_reset || is_late_again {
            let reason =
                if is_reset { "the store was reset" } else { "reads see changes that the watch does not bring" };
            let blame = if is_reset { Blame::Watch } else { Blame::Connection };
            self.close_feed(&BrokenFeed { reason: reason.into(), is_compacted: false, blame });
        }
        if was_lost {
            info!("the store is back");
        }
        self.publish(differs || was_lost || is_reset);
    }

    fn take_failure(&mut self, error: &StoreError) {
        let text = error.to_string();
        debug!(error = text, "cannot read the cluster");
        if !error.is_unknown() {
            self.read_not_before = Instant::now() + CONFIRM_EVERY;
        }
        self.publisher.send_if_modified(|view| match view {
            StoreView::Connecting { error } if error.as_ref() != Some(&text) => {
                warn!(error = text, "cannot read the cluster yet");
                *error = Some(text.clone());
                true
            }
            StoreView::Lost { error, .. } => {
                error.clone_from(&text);
                false
            }
            StoreView::Connecting { .. } | StoreView::Current { .. } => false,
        });
        self.last_error = Some(text);
    }

    fn judge_age(&mut self) {
        let Some(known) = self.known.as_mut().filter(|known| !known.is_lost) else { return };
        if boot_now().since(known.confirmed) <= LOST_AFTER {
            return;
        }
        known.is_lost = true;
        let error = self.last_error.clone().unwrap_or_else(|| "no answer yet".to_owned());
        warn!(error, after = rounded(LOST_AFTER), "the store is lost");
        let (since, last) = (known.confirmed, Some(known.picture.cluster().clone()));
        self.publisher.send_replace(StoreView::Lost { error, since, last });
    }

    /// Publishes the picture, waking those who wait only when something changed.
    fn publish(&mut self, has_changed: bool) {
        let Some(known) = self.known.as_mut() else { return };
        known.is_lost = false;
        let cluster = known.picture.cluster().clone();
        let read_at = known.confirmed;
        if has_changed {
            let warnings: HashSet<KeyWarning> = cluster.warnings.iter().cloned().collect();
            for warning in warnings.difference(&self.warned) {
                warn!(key = warning.key, "the key {}{} {}", self.prefix, warning.key, warning.problem);
            }
            self.warned = warnings;
        }
        self.publisher.send_if_modified(|view| {
            *view = StoreView::Current { cluster, read_at };
            has_changed
        });
    }
}

/// The next thing that a feed has to say; waits forever when there is none.
async fn next_of(feed: &mut Option<Feed>) -> Happening {
    let Some(feed) = feed else { return pending().await };
    tokio::select! {
        biased;
        Some(answer) = feed.answers.recv() => Happening::Answer(answer),
        broken = &mut feed.carrier => Happening::FeedBroke(broken),
    }
}

async fn ended<T>(work: &mut Option<Boxed<T>>) -> T {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}

/// Opens a watch for everything after `revision` and carries its answers into the queue until it breaks.
async fn carry(
    client: Client,
    node: Arc<Node>,
    prefix: String,
    revision: Revision,
    not_before: Instant,
    queue: mpsc::Sender<WatchResponse>,
) -> BrokenFeed {
    sleep_until(not_before).await;
    let create = WatchCreateRequest {
        key: prefix.as_bytes().to_vec(),
        range_end: proto::end_of(prefix.as_bytes()),
        start_revision: revision.0.saturating_add(1),
    };
    let request = WatchRequest { ask: Some(WatchAsk::Create(create)) };
    let mut answers = match client.open_watch(&node, request, OPEN_TIME).await {
        Ok(answers) => answers,
        Err(fault) => return BrokenFeed::of(fault, &node),
    };
    loop {
        let answer = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return BrokenFeed::of_node("the endpoint closed the watch".to_owned()),
            Err(status) => return BrokenFeed::of(Fault::of(status), &node),
        };
        if let Err(fault) = client.check_term(&answer) {
            return BrokenFeed::of(fault, &node);
        }
        if answer.canceled {
            // A watch is also cancelled when the token is no longer good (DCS-E7).
            let reason = answer.cancel_reason;
            if reason.contains("permission denied") || reason.contains("auth") {
                client.log_in_again().await;
            }
            let is_compacted = answer.compact_revision > 0;
            return BrokenFeed { reason: format!("etcd cancelled it: {reason}"), is_compacted, blame: Blame::Watch };
        }
        if queue.send(answer).await.is_err() {
            return BrokenFeed::of_node("nobody listens any more".to_owned());
        }
    }
}

impl BrokenFeed {
    fn of(fault: Fault, node: &Node) -> BrokenFeed {
        let blame = match &fault {
            Fault::Final(_) | Fault::Token(_) => Blame::Watch,
            Fault::Node { .. } => Blame::Node,
            Fault::Silent(_) => Blame::Connection,
        };
        BrokenFeed { reason: fault.into_error(&node.url).to_string(), is_compacted: false, blame }
    }

    fn of_node(reason: String) -> BrokenFeed {
        BrokenFeed { reason, is_compacted: false, blame: Blame::Node }
    }
}

fn change(prefix: &str, event: Event) -> Option<Change> {
    let is_deletion = event.kind == i32::from(EventType::Delete);
    let key = raw_key(prefix, event.kv?)?;
    let (suffix, revision) = (key.suffix.clone(), key.mod_revision);
    Some(Change { suffix, revision, after: (!is_deletion).then_some(key) })
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::super::options::EtcdOptions;
    use super::super::pool::Pool;
    use super::*;

    fn leader(name: &str, revision: i64) -> KeyValue {
        let (key, value) = (b"/service/demo/leader".to_vec(), name.into());
        KeyValue { key, create_revision: revision, mod_revision: revision, value, lease: 1 }
    }

    fn reading(name: &str, revision: i64) -> Reading {
        let keys = raw_key("/service/demo/", leader(name, revision));
        Reading { picture: Picture::new(Revision(revision), keys), cluster_id: 1, sent: boot_now() }
    }

    fn is_current(view: &watch::Receiver<StoreView>, name: &str) -> bool {
        view.borrow().current().is_some_and(|cluster| cluster.leader.as_ref().unwrap().name.as_str() == name)
    }

    #[tokio::test]
    async fn what_a_watch_brings_late_does_not_make_a_lost_picture_current() {
        let endpoints = vec!["http://127.0.0.1:1".to_owned()];
        let pool = Pool::new(&EtcdOptions { endpoints, ..EtcdOptions::default() }).unwrap();
        let client = Client::new(pool, None, false, TaskTracker::new(), CancellationToken::new());
        let (publisher, view) = watch::channel(StoreView::Connecting { error: None });
        let mut follower = Follower::new(client, "/service/demo/".to_owned(), publisher, Arc::default());
        let change = |name: &str, revision| {
            let event = Event { kind: EventType::Put.into(), kv: Some(leader(name, revision)) };
            WatchResponse { events: vec![event], ..WatchResponse::default() }
        };
        follower.take_reading(reading("a", 5));
        follower.take_answer(change("b", 6));
        assert!(is_current(&view, "b"), "a change is seen at once");

        let known = follower.known.as_mut().unwrap();
        known.confirmed = BootInstant(known.confirmed.0.saturating_sub(LOST_AFTER * 2));
        follower.judge_age();
        assert!(matches!(&*view.borrow(), StoreView::Lost { .. }), "changes do not keep it current either");
        follower.take_answer(change("c", 7));
        follower.judge_age();
        assert!(matches!(&*view.borrow(), StoreView::Lost { .. }));
        follower.take_reading(reading("c", 7));
        assert!(is_current(&view, "c"));
    }
}
