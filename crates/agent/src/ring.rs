//! Keeps the last decisions: in memory for REST, and in a small file beside the data directory that survives the agent.
//!
//! The cycle only hands a decision over; a thread of its own writes, because a disk may hang for minutes. What that thread
//! cannot take is left out of the file and counted, never waited for. The file is rotated once: `NAME` and `NAME.1`
//! together hold at most twice [`FILE_BYTES_MAX`].

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use pgward_core::decide::{Decision, Memory, View};
use pgward_core::explain::file::{self, record_line, tally_line};
use pgward_core::explain::ring::{Noted, Ring, Tally};
use pgward_core::explain::{Phases, Step};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{info, warn};

/// How long one file grows: some hundred decisions with all that they saw.
pub const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// Decisions that may wait to be written: more than come within a second.
const WAITING_MAX: usize = 64;

/// What is kept about this agent's decisions. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    kept: Arc<Mutex<Kept>>,
    /// Held by whoever writes all of it down for somebody who asked.
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// What the clones of a recorder share.
#[derive(Debug, Default)]
pub struct Kept {
    /// The last decisions.
    pub ring: Ring,
    /// The changes of leader and the refusals.
    pub phases: Phases,
    writer: Option<SyncSender<Order>>,
    /// The last new decision did not get into the file: counting its repetitions would count them to another one.
    skips: bool,
    left_out: u64,
}

/// What the thread is told.
#[derive(Debug)]
enum Order {
    Append(Vec<Step>),
    Count(Tally),
    /// Everything before this is written.
    Flush(oneshot::Sender<()>),
}

impl Recorder {
    /// Also writes to a file, after having read what an earlier agent has left there.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn with_file(path: PathBuf) -> io::Result<Recorder> {
        Recorder::with_limit(path, FILE_BYTES_MAX)
    }

    fn with_limit(path: PathBuf, bytes_max: u64) -> io::Result<Recorder> {
        let recorder = Recorder::default();
        let (sender, orders) = sync_channel(WAITING_MAX);
        recorder.lock().writer = Some(sender);
        let kept = Arc::downgrade(&recorder.kept);
        let writer = Writer { path, bytes_max, open: None, has_warned: false };
        std::thread::Builder::new().name("decisions".to_owned()).spawn(move || writer.run(&orders, &kept))?;
        Ok(recorder)
    }

    /// The present state. Held for a moment only: the cycle waits for it.
    pub fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does long work on what is kept: on a thread of its own, one after the other, so that whoever asks often does not
    /// take the processors from the agent. `None` when the work panicked.
    pub async fn in_turn<T: Send + 'static>(&self, work: impl FnOnce(&Recorder) -> T + Send + 'static) -> Option<T> {
        let recorder = self.clone();
        let _turn = self.turn.lock().await;
        tokio::task::spawn_blocking(move || work(&recorder)).await.ok()
    }

    /// Notes a decision, with what was remembered before and after it. Never waits for the file.
    pub fn note(&self, view: &View, before: Memory, decision: &Decision, after: &Memory) {
        let step = Step { view: view.clone(), memory: before, decision: decision.clone() };
        let mut kept = self.lock();
        kept.phases.note(view, decision);
        match kept.ring.note(step, after.clone()) {
            Noted::Waits => {}
            Noted::Again(tally) if !kept.skips => {
                kept.order(Order::Count(tally)); // The next repetition brings it in line.
            }
            Noted::Again(_) => {}
            Noted::New(steps) => {
                let count = steps.len() as u64;
                kept.skips = !kept.order(Order::Append(steps));
                kept.left_out += if kept.skips { count } else { 0 };
            }
        }
    }

    /// How many decisions the file lacks, because it could not be written fast enough.
    pub fn left_out(&self) -> u64 {
        self.lock().left_out
    }

    /// Waits until the file holds everything that was noted, at most for `limit`.
    pub async fn flush(&self, limit: Duration) {
        let (written, is_written) = oneshot::channel();
        let ordered = self.lock().order(Order::Flush(written));
        if !ordered || timeout(limit, is_written).await.is_err() {
            info!("the last decisions may be missing in the file of decisions");
        }
    }
}

impl Kept {
    /// False when the order was not taken. Without a file there is nobody to take it, and nothing missing.
    fn order(&self, order: Order) -> bool {
        match self.writer.as_ref().map(|writer| writer.try_send(order)) {
            Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) => false,
            Some(Ok(())) | None => true,
        }
    }
}

/// The thread that writes.
struct Writer {
    path: PathBuf,
    bytes_max: u64,
    open: Option<Open>,
    has_warned: bool,
}

/// The file being written.
struct Open {
    file: fs::File,
    end: u64,
    /// Where the last record's count stands.
    tally_at: Option<u64>,
}

impl Writer {
    /// Until the recorder is gone.
    fn run(mut self, orders: &Receiver<Order>, kept: &Weak<Mutex<Kept>>) {
        let earlier = read(&self.path);
        if let Some(kept) = kept.upgrade() {
            kept.lock().unwrap_or_else(PoisonError::into_inner).ring.put_before(earlier);
        }
        for order in orders {
            let written = match order {
                Order::Append(steps) => steps.iter().try_for_each(|step| self.append(step)),
                Order::Count(tally) => self.count(tally),
                Order::Flush(written) => {
                    let _ = written.send(()); // Whoever does not wait any more does not care.
                    Ok(())
                }
            };
            match written {
                Ok(()) => {}
                Err(problem) if self.has_warned => drop(problem),
                Err(problem) => {
                    self.has_warned = true;
                    warn!(file = %self.path.display(), error = %problem, "the decisions cannot be written to their file");
                }
            }
        }
    }

    fn append(&mut self, step: &Step) -> io::Result<()> {
        let line = record_line(step);
        let tally = tally_line(Tally { times: 1, last: step.view.wall });
        let length = (line.len() + tally.len()) as u64;
        if self.open.as_ref().is_some_and(|open| open.end > 0 && open.end + length > self.bytes_max) {
            self.open = None;
            fs::rename(&self.path, rotated(&self.path))?;
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::at(&self.path)?,
        };
        open.file.write_all_at((line.clone() + &tally).as_bytes(), open.end)?;
        open.tally_at = Some(open.end + line.len() as u64);
        open.end += length;
        self.has_warned = false;
        self.open = Some(open);
        Ok(())
    }

    fn count(&self, tally: Tally) -> io::Result<()> {
        match &self.open {
            Some(Open { file, tally_at: Some(at), .. }) => file.write_all_at(tally_line(tally).as_bytes(), *at),
            Some(_) | None => Ok(()),
        }
    }
}

impl Open {
    /// Goes on behind the last whole line: a crash may have cut one off.
    fn at(path: &Path) -> io::Result<Open> {
        let mut options = fs::OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let content = fs::read(path)?;
        let end = content.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1) as u64;
        file.set_len(end)?;
        Ok(Open { file, end, tally_at: None })
    }
}

fn rotated(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".1");
    PathBuf::from(name)
}

/// What both files hold, oldest first, as far as it can be read.
fn read(path: &Path) -> Vec<pgward_core::explain::ring::Entry> {
    let mut entries = Vec::new();
    for path in [rotated(path), path.to_owned()] {
        match fs::read(&path) {
            Ok(content) => {
                let content = file::read(&String::from_utf8_lossy(&content));
                if let Some(first) = content.unreadable.first() {
                    let count = content.unreadable.len();
                    info!(file = %path.display(), lines = count, %first, "earlier decisions cannot be read");
                }
                entries.extend(content.entries);
            }
            Err(problem) if problem.kind() == ErrorKind::NotFound => {}
            Err(problem) => info!(file = %path.display(), error = %problem, "earlier decisions cannot be read"),
        }
    }
    entries
}

#[cfg(test)]
mod tests;
