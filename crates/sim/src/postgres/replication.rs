//! Streaming replication: how WAL gets from one server to another.

use std::collections::BTreeMap;
use std::time::Duration;

use pgward_core::wal::{Lsn, Timeline};
use tokio::time::{Instant, sleep, sleep_until};

use super::Postgres;
use super::disk::Upstream;
use super::process::{Receiver, Walsender};
use super::state::State;
use super::wal::{Record, TimelineHistory};
use crate::network::Kind;

/// `wal_retrieve_retry_interval`: how long after one attempt the next one comes.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// `wal_receiver_timeout` and `wal_sender_timeout`: how long a silent connection lives.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);

/// How many records travel at once.
const BATCH: usize = 500;

/// What a standby wants of its receiver.
#[derive(Clone, PartialEq, Eq)]
struct Wish {
    upstream: Option<Upstream>,
    /// A connection can be made. One that exists is kept.
    may_connect: bool,
}

/// What the other side of a connection does.
enum Sent {
    /// These records follow.
    Records { records: Vec<Record>, histories: BTreeMap<Timeline, TimelineHistory>, end: Lsn },
    /// It has nothing new.
    Nothing,
    /// It does not answer.
    Silence,
    /// It has closed the connection.
    Closed,
}

/// A connection of a receiver.
struct Connection {
    upstream: Upstream,
    server: Postgres,
    number: u64,
}

impl Postgres {
    fn carries_to(&self, other: &Postgres) -> bool {
        self.0.network.carries(&self.0.place, &other.0.place, Kind::Replication)
    }

    pub(super) fn connects_to(&self, other: &Postgres) -> bool {
        self.0.network.connects(&self.0.place, &other.0.place, Kind::Replication)
    }

    /// How long a message to or from `other` takes.
    pub(super) fn delay_to(&self, other: &Postgres) -> Duration {
        self.0.network.delay(&self.0.place, &other.0.place)
    }

    /// The WAL receiver of one run of a standby, from connection to connection.
    pub(super) async fn receive(self, pid: i32) -> Option<()> {
        let mut network = self.0.network.changes();
        loop {
            let wish = self.state().wish(pid)?;
            let server = wish.upstream.as_ref().and_then(|upstream| self.0.fleet.find(&upstream.member));
            let server = server.filter(|server| server.name() != self.name());
            let mut theirs = server.as_ref().map(|server| (server.0.life.subscribe(), server.0.flushes.subscribe()));
            network.mark_seen();
            let attempted = Instant::now();
            if let (Some(upstream), Some(server), true) = (&wish.upstream, server, wish.may_connect)
                && let Some(connection) = self.connect(pid, upstream, server).await
            {
                self.stream(pid, &connection).await;
                self.hang_up(pid, &connection);
            }
            let other_wish = self.wish_changes(pid, &wish);
            tokio::pin!(other_wish);
            let anything = async {
                match &mut theirs {
                    Some((life, flushes)) => tokio::select! {
                        biased;
                        () = life.changed() => {}
                        () = flushes.changed() => {}
                        _ = network.changed() => {}
                    },
                    None => std::future::pending().await,
                }
                sleep_until(attempted + RETRY_INTERVAL).await;
            };
            tokio::select! {
                biased;
                () = &mut other_wish => {}
                () = anything => {}
            }
        }
    }

    async fn wish_changes(&self, pid: i32, wish: &Wish) {
        let mut life = self.0.life.subscribe();
        while self.state().wish(pid).as_ref() == Some(wish) {
            life.changed().await;
        }
    }

    /// Connects and asks for WAL. `None`: it is refused, or nobody answers.
    async fn connect(&self, pid: i32, upstream: &Upstream, server: Postgres) -> Option<Connection> {
        self.pass(pid, self.delay_to(&server) * 2).await?;
        if !self.connects_to(&server) {
            return None;
        }
        let (system_id, last) = {
            let state = self.state();
            let data = state.data.as_ref()?;
            (data.system_id, *data.wal.last()?)
        };
        let (timeline, histories, answer) = {
            let mut theirs = server.state();
            let (timeline, histories) = theirs.identify(system_id)?;
            (timeline, histories, theirs.accept_walsender(self, upstream, &last))
        };
        // Histories are fetched first: they stay even when streaming is refused.
        self.progress(|state| {
            if let Some((_, data)) = state.run(pid) {
                data.learn_histories(&histories, timeline);
            }
        });
        let number = match answer {
            Ok(number) => number,
            Err(problem) => {
                tracing::debug!(member = %self.name(), upstream = %server.name(), %problem, "cannot stream");
                return None;
            }
        };
        let connection = Connection { upstream: upstream.clone(), server, number };
        let received = self.progress(|state| {
            let (process, data) = state.run(pid)?;
            process.receiver = Some(Receiver { timeline: data.timeline(), latest_end: data.wal.flushed() });
            process.received = Some(data.wal.flushed());
            Some(())
        });
        if received.is_none() {
            self.hang_up(pid, &connection);
            return None;
        }
        Some(connection)
    }

    /// Receives until the connection ends, or is not wanted any more.
    async fn stream(&self, pid: i32, connection: &Connection) -> Option<()> {
        let server = &connection.server;
        let (mut life, mut network) = (self.0.life.subscribe(), self.0.network.changes());
        let (mut their_life, mut their_flushes) = (server.0.life.subscribe(), server.0.flushes.subscribe());
        let mut silent_since: Option<Instant> = None;
        loop {
            let wish = self.state().wish(pid)?;
            if wish.upstream.as_ref() != Some(&connection.upstream) {
                return None;
            }
            let position = self.state().streaming_position(pid)?;
            let is_connected = self.connects_to(server);
            let sent = server.state().send(connection.number, &position);
            let is_silent = match &sent {
                Sent::Closed if is_connected => return None,
                Sent::Closed | Sent::Silence => true,
                Sent::Records { .. } | Sent::Nothing => !is_connected,
            };
            let is_silent = is_silent || position.is_frozen;
            if is_silent {
                silent_since.get_or_insert_with(Instant::now);
            } else {
                silent_since = None;
            }
            if let Sent::Records { mut records, histories, end } = sent
                && server.carries_to(self)
                && position.takes_records
            {
                if position.keeps_timeline {
                    records.retain(|record| record.timeline == position.timeline);
                }
                if !records.is_empty() {
                    self.take(pid, connection, records, &histories, end).await?;
                    continue;
                }
            }
            let give_up = silent_since.map(|since| since + SILENCE_LIMIT);
            let too_long = async {
                match give_up {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = too_long => return None,
                () = life.changed() => {}
                () = their_life.changed() => {}
                () = their_flushes.changed() => {}
                _ = network.changed() => {}
            }
        }
    }

    /// Writes, flushes and replays records that have been sent, and tells the other side.
    async fn take(
        &self,
        pid: i32,
        connection: &Connection,
        records: Vec<Record>,
        histories: &BTreeMap<Timeline, TimelineHistory>,
        end: Lsn,
    ) -> Option<()> {
        let server = &connection.server;
        let timeline = records.last()?.timeline;
        self.pass(pid, self.delay_to(server)).await?;
        if !server.carries_to(self) {
            return Some(()); // Lost on the way, and sent again later.
        }
        let taken = self.progress(|state| {
            if state.wish(pid).is_some() && state.faults.is_disk_full {
                state.end_if(pid, "PANIC:  could not write to WAL segment: No space left on device");
            }
            state.wish(pid)?;
            let (process, data) = state.run(pid)?;
            data.learn_histories(histories, timeline);
            records.iter().for_each(|record| data.wal.push(*record));
            process.receiver = Some(Receiver { timeline, latest_end: end });
            Some(data.wal.written())
        })?;
        self.pass(pid, self.between(1, 2)).await?;
        self.until(pid, |state| !state.faults.is_flush_stalled).await?;
        self.progress(|state| {
            let (process, data) = state.run(pid)?;
            data.wal.flush(taken);
            process.received = Some(taken);
            state.replay(pid);
            Some(())
        })?;
        if self.carries_to(server) {
            server.confirmed(connection, taken);
        }
        Some(())
    }

    /// A standby says what it has flushed.
    fn confirmed(&self, connection: &Connection, flushed: Lsn) {
        self.progress(|state| {
            if let Some(process) = &mut state.process
                && let Some(walsender) = process.walsenders.get_mut(&connection.number)
            {
                walsender.flushed = flushed;
            }
            if let Some(data) = &mut state.data
                && let Some(slot) = connection.upstream.slot.as_ref().and_then(|slot| data.slots.get_mut(slot))
                && slot.used_by == Some(connection.number)
            {
                slot.restart = Some(flushed);
            }
        });
        self.0.confirmations.raise();
    }

    /// The receiver ends. The other side notices at once; or when it has sent something to a machine that is back; or when
    /// nothing has been heard for a while.
    fn hang_up(&self, pid: i32, connection: &Connection) {
        let was_lost = self.progress(|state| {
            if let Some((process, _)) = state.run(pid) {
                process.receiver = None;
            }
            state.lost_pid == Some(pid)
        });
        let (this, server, number) = (self.clone(), connection.server.clone(), connection.number);
        if self.connects_to(&server) && !was_lost {
            return server.drop_walsender(number);
        }
        drop(tokio::spawn(async move {
            sleep(SILENCE_LIMIT / 2).await;
            let is_back = this.connects_to(&server) && !this.state().is_off;
            if !is_back {
                sleep(SILENCE_LIMIT / 2).await;
            }
            server.drop_walsender(number);
        }));
    }

    fn drop_walsender(&self, number: u64) {
        // Somebody may wait for the slot.
        self.change(|state| {
            if let Some(process) = &mut state.process {
                process.walsenders.remove(&number);
            }
            if let Some(data) = &mut state.data {
                for slot in data.slots.values_mut().filter(|slot| slot.used_by == Some(number)) {
                    slot.used_by = None;
                }
            }
        });
        self.0.confirmations.raise();
    }
}

/// Where a standby is with its upstream.
struct Position {
    from: Lsn,
    timeline: Timeline,
    is_frozen: bool,
    takes_records: bool,
    /// Replay is paused, and nobody switches to the next timeline.
    keeps_timeline: bool,
}

impl State {
    /// `None`: this run of the server does not stream, or not any more.
    fn wish(&self, pid: i32) -> Option<Wish> {
        let process = self.process.as_ref().filter(|process| process.pid == pid && !process.is_killed)?;
        let streams = process.has_postmaster && process.is_in_recovery && !process.is_promoting;
        if !streams || process.stop.is_some() {
            return None;
        }
        // The startup process asks for WAL, and does not while it is paused.
        let may_connect = !process.is_frozen && (process.receiver.is_some() || !self.faults.is_replay_paused);
        Some(Wish { upstream: process.upstream.clone(), may_connect })
    }

    fn streaming_position(&self, pid: i32) -> Option<Position> {
        let process = self.process.as_ref().filter(|process| process.pid == pid)?;
        let data = self.data.as_ref()?;
        Some(Position {
            from: data.wal.written(),
            timeline: data.timeline(),
            is_frozen: process.is_frozen,
            takes_records: !process.is_frozen && !self.faults.is_receiver_stuck,
            keeps_timeline: self.faults.is_replay_paused,
        })
    }

    /// IDENTIFY_SYSTEM and the history files. `None`: nobody answers, or it is another cluster.
    fn identify(&self, system_id: u64) -> Option<(Timeline, BTreeMap<Timeline, TimelineHistory>)> {
        let process = self.process.as_ref().filter(|process| process.lets_in() && !process.is_frozen)?;
        let data = self.data.as_ref().filter(|data| data.system_id == system_id && process.has_recovered)?;
        Some((data.timeline(), data.histories.clone()))
    }

    /// START_REPLICATION.
    fn accept_walsender(&mut self, standby: &Postgres, upstream: &Upstream, last: &Record) -> Result<u64, String> {
        let number = self.next_number();
        let data = self.data.as_mut().ok_or("no data directory")?;
        data.continues(last)?;
        if let Some(name) = &upstream.slot {
            let slot = data.slots.get_mut(name).ok_or_else(|| format!("replication slot {name:?} does not exist"))?;
            if slot.used_by.is_some() {
                return Err(format!("replication slot {name:?} is active"));
            }
            slot.used_by = Some(number);
            slot.restart = Some(last.end);
        }
        let walsender = Walsender { member: standby.name().clone(), flushed: last.end };
        let process = self.process.as_mut().ok_or("no server")?;
        process.walsenders.insert(number, walsender);
        Ok(number)
    }

    /// What a walsender sends to somebody who is at `position`.
    fn send(&self, number: u64, position: &Position) -> Sent {
        let Some(process) = self.process.as_ref().filter(|process| process.walsenders.contains_key(&number)) else {
            return if self.is_off { Sent::Silence } else { Sent::Closed };
        };
        if process.is_frozen || process.is_killed {
            return Sent::Silence;
        }
        let Some(data) = &self.data else { return Sent::Closed };
        let flushed = data.wal.flushed();
        let records: Vec<Record> = data
            .wal
            .after(position.from)
            .iter()
            .take_while(|record| record.end <= flushed)
            .take(BATCH)
            .copied()
            .collect();
        let Some(last) = records.last() else { return Sent::Nothing };
        // The files are asked for when another timeline begins.
        let files = data.histories.range(..=last.timeline).filter(|_| last.timeline > position.timeline);
        let histories = files.map(|(line, history)| (*line, history.clone())).collect();
        Sent::Records { records, histories, end: flushed }
    }

    /// Replays what is flushed, unless that is paused.
    pub(super) fn replay(&mut self, pid: i32) {
        if self.faults.is_replay_paused {
            return;
        }
        let Some((process, data)) = self.run(pid).filter(|(process, _)| process.is_in_recovery) else { return };
        let (from, to) = (process.replayed, data.wal.flushed());
        process.replayed = to;
        let has_checkpoint = data.wal.after(from).iter().any(|record| record.end <= to && record.is_checkpoint());
        if has_checkpoint {
            data.restartpoint(to);
        }
        self.settle();
    }
}
