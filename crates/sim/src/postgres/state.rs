//! Everything that the lock of one server protects.

use std::collections::BTreeMap;

use pgward_core::decide::rewind::ControlState;
use pgward_core::names::MemberName;
use pgward_core::sync::StandbyNames;
use pgward_core::wal::{Lsn, Timeline};
use tokio_util::sync::CancellationToken;

use super::disk::{Damage, DataDirectory};
use super::process::{ModelPostmaster, Process};
use super::{Contents, Event, Faults, StartFault, Truth};

/// The names of programs.
pub(super) const BASEBACKUP: &str = "pg_basebackup";
pub(super) const REWIND: &str = "pg_rewind";
pub(super) const SINGLE_USER: &str = "single-user recovery";

/// A program other than the server that works on the data directory.
#[derive(Debug)]
pub(super) struct Tool {
    pub name: &'static str,
    /// It runs PostgreSQL itself: a fencer kills it.
    pub is_server: bool,
    pub kill: CancellationToken,
}

/// One machine's disk and processes.
#[derive(Debug, Default)]
pub(super) struct State {
    pub data: Option<DataDirectory>,
    /// What is on the file system that should be mounted there.
    pub unmounted: Option<Box<DataDirectory>>,
    pub process: Option<Process>,
    pub tools: BTreeMap<u64, Tool>,
    pub faults: Faults,
    /// The machine has no power: connections are not even refused.
    pub is_off: bool,
    /// The server that ran when the power was lost: nobody was told of its end.
    pub lost_pid: Option<i32>,
    /// `synchronous_standby_names` in the configuration, which is in force at once.
    pub standby_names: Option<StandbyNames>,
    /// The last words of the last server.
    pub output: String,
    /// To be told after the lock is released.
    pub events: Vec<Event>,
    last_number: u64,
}

impl State {
    /// A number that was not given before.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// The server with this number, as long as it runs.
    pub(super) fn run(&mut self, pid: i32) -> Option<(&mut Process, &mut DataDirectory)> {
        let process = self.process.as_mut().filter(|process| process.pid == pid && !process.is_killed)?;
        Some((process, self.data.as_mut()?))
    }

    /// The postmaster, as its pid file tells while it can be read.
    pub(super) fn postmaster(&self) -> Option<ModelPostmaster> {
        self.visible_data()?;
        self.process.as_ref().filter(|process| process.has_postmaster).map(Process::postmaster)
    }

    /// The data directory, when it can be looked at.
    pub(super) fn visible_data(&self) -> Option<&DataDirectory> {
        self.data.as_ref().filter(|_| !self.faults.is_data_dir_inaccessible)
    }

    /// The data directory, when its control file can be read.
    pub(super) fn readable_data(&self) -> Option<&DataDirectory> {
        self.visible_data().filter(|data| data.damage != Some(Damage::ControlFile))
    }

    /// Opens the door of a server that has come so far, and ends one that was only kept by a fault.
    pub(super) fn settle(&mut self) {
        if !self.faults.is_unkillable && self.process.as_ref().is_some_and(|process| process.is_killed) {
            self.end("killed");
            return;
        }
        let may_accept = self.faults.start != Some(StartFault::Rejects);
        let (Some(process), Some(data)) = (&mut self.process, &self.data) else { return };
        if process.is_accepting || !process.has_recovered || process.stop.is_some() || !process.has_postmaster {
            return;
        }
        if process.is_in_recovery {
            match data.is_consistent_at(process.replayed) {
                Ok(true) => {}
                Ok(false) => return,
                Err(problem) => {
                    self.end(&problem);
                    return;
                }
            }
        }
        if may_accept {
            process.is_accepting = true;
            process.has_sessions = true;
        }
    }

    /// Every process of the server ends now. What was written stays.
    pub(super) fn end(&mut self, output: &str) {
        if let Some(process) = self.process.take() {
            process.exit.raise();
            output.clone_into(&mut self.output);
        }
        if let Some(data) = &mut self.data {
            data.release_slots();
        }
    }

    /// The same for one run of the server, if it is still that one.
    pub(super) fn end_if(&mut self, pid: i32, output: &str) {
        if self.process.as_ref().is_some_and(|process| process.pid == pid) {
            self.end(output);
        }
    }

    /// SIGKILL for all.
    pub(super) fn kill(&mut self) {
        if !self.faults.is_unkillable {
            self.end("killed");
        } else if let Some(process) = &mut self.process {
            process.is_killed = true;
        }
    }

    /// SIGKILL for the postmaster. Returns its number, when there was one.
    pub(super) fn kill_postmaster_only(&mut self) -> Option<i32> {
        if self.faults.is_unkillable {
            self.kill();
            return None;
        }
        let process = self.process.as_mut().filter(|process| process.has_postmaster)?;
        process.has_postmaster = false;
        process.is_accepting = false;
        process.receiver = None;
        process.exit.raise();
        Some(process.pid)
    }

    /// Kills programs; `servers_only`: those that run PostgreSQL. They are gone when this returns.
    pub(super) fn kill_tools(&mut self, servers_only: bool) {
        self.tools.retain(|_, tool| {
            let is_spared = servers_only && !tool.is_server;
            if !is_spared {
                tool.kill.cancel();
            }
            is_spared
        });
    }

    /// Kills one program, if it still runs.
    pub(super) fn kill_tool(&mut self, number: u64) {
        if let Some(tool) = self.tools.remove(&number) {
            tool.kill.cancel();
        }
    }

    /// The file system goes away below the server, or comes back over what was made in its place meanwhile.
    pub(super) fn set_mounted(&mut self, is_mounted: bool) {
        if is_mounted != self.unmounted.is_some() {
            return;
        }
        self.kill_tools(false);
        self.end("PANIC:  could not open file: Input/output error");
        if is_mounted {
            self.data = self.unmounted.take().map(|data| *data);
        } else {
            self.unmounted = self.data.take().map(Box::new);
        }
    }

    pub(super) fn power_off(&mut self) {
        self.is_off = true;
        self.lost_pid = self.process.as_ref().map(|process| process.pid).or(self.lost_pid);
        self.kill_tools(false);
        self.end("");
        for data in self.data.iter_mut().chain(self.unmounted.as_deref_mut()) {
            data.lose_unflushed();
        }
    }

    /// INV-S13: tells when others are at work on the data directory already.
    pub(super) fn enter_data_directory(&mut self, newcomer: &'static str) {
        let server = self.process.as_ref().map(|_| "server");
        let present: Vec<&'static str> = server.into_iter().chain(self.tools.values().map(|tool| tool.name)).collect();
        self.events.extend(present.into_iter().map(|present| Event::DataDirectoryShared(present, newcomer)));
    }

    /// A single-user server holds the lock file of the data directory.
    pub(super) fn recovers_alone(&self) -> bool {
        self.tools.values().any(|tool| tool.name == SINGLE_USER)
    }

    /// One thing at a time works on a data directory, and a rewind is done whole or not at all.
    ///
    /// # Errors
    /// What the agent says before it starts something here.
    pub(super) fn require_undisturbed(&self) -> Result<(), String> {
        if self.tools.values().any(|tool| tool.name == BASEBACKUP || tool.name == REWIND) {
            return Err("a copy or a rewind that an earlier agent started still works on the data directory".to_owned());
        }
        if self.data.as_ref().is_some_and(|data| data.is_half_rewound) {
            return Err("a rewind of the data directory was broken off".to_owned());
        }
        Ok(())
    }

    /// What is in the data directory, unless it is something unfinished.
    pub(super) fn contents(&self) -> Option<Contents> {
        let data = self.data.as_ref().filter(|data| data.damage != Some(Damage::ControlFile))?;
        Some(Contents {
            system_id: data.system_id,
            timeline: data.timeline(),
            written: data.wal.written(),
            state: data.control.state,
        })
    }

    pub(super) fn truth(&self) -> Truth {
        let mut truth = Truth { busy: self.tools.values().map(|tool| tool.name).collect(), ..Truth::default() };
        if let Some(process) = &self.process {
            truth.is_alive = process.has_postmaster;
            truth.has_processes = true;
            truth.is_frozen = process.is_frozen;
            truth.is_accepting = process.lets_in();
            truth.is_in_recovery = process.is_in_recovery;
            truth.is_writable = process.is_writable();
            truth.is_streaming = process.receiver.is_some();
            truth.upstream = process.upstream.as_ref().map(|upstream| upstream.member.clone());
            truth.replayed = process.replayed;
        }
        if let Some(data) = &self.data {
            truth.system_id = Some(data.system_id);
            truth.timeline = Some(data.timeline());
            truth.written = data.wal.written();
            truth.flushed = data.wal.flushed();
            truth.is_checkpointed = data.control.checkpoint_timeline == data.timeline();
            truth.control = (data.damage != Some(Damage::ControlFile)).then(|| data.control.clone());
            truth.history = data.history().to_vec();
            truth.slots = data.slots.keys().cloned().collect();
        }
        truth
    }
}

/// What the observer is told of when it changes, whatever changed it.
pub(super) struct Glance {
    postmaster: Option<i32>,
    is_accepting: bool,
    writable: Option<(i32, Timeline, Lsn)>,
    upstream: Option<(i32, Option<MemberName>)>,
    pub flushed: Lsn,
}

impl Glance {
    pub(super) fn of(state: &State) -> Glance {
        let process = state.process.as_ref();
        let position = state.data.as_ref().map(|data| (data.timeline(), data.wal.written(), data.wal.flushed()));
        let (timeline, written, flushed) = position.unwrap_or((Timeline::FIRST, Lsn::INVALID, Lsn::INVALID));
        Glance {
            postmaster: process.filter(|process| process.has_postmaster).map(|process| process.pid),
            is_accepting: process.is_some_and(Process::lets_in),
            writable: process.filter(|process| process.is_writable()).map(|process| (process.pid, timeline, written)),
            upstream: process
                .filter(|process| process.has_recovered && process.is_in_recovery)
                .map(|process| (process.pid, process.upstream.as_ref().map(|upstream| upstream.member.clone()))),
            flushed,
        }
    }

    /// What an observer is told when this has become `after`.
    pub(super) fn events_until(&self, after: &Glance, events: &mut Vec<Event>) {
        let was_writable = self.writable.map(|(pid, ..)| pid);
        let is_writable = after.writable.map(|(pid, ..)| pid);
        if was_writable.is_some() && was_writable != is_writable {
            events.push(Event::NotWritable);
        }
        if self.postmaster.is_some() && self.postmaster != after.postmaster {
            events.push(Event::Ended);
        }
        if let Some(upstream) = &after.upstream
            && self.upstream.as_ref() != Some(upstream)
        {
            events.push(Event::Upstream(upstream.1.clone()));
        }
        if !self.is_accepting && after.is_accepting {
            events.push(Event::Accepting);
        }
        if let Some((pid, timeline, from)) = after.writable
            && was_writable != Some(pid)
        {
            events.push(Event::Writable { timeline, from });
        }
    }
}

/// True of control data that say that the server has stopped in order.
pub(super) fn is_shut_down(state: ControlState) -> bool {
    matches!(state, ControlState::ShutDown | ControlState::ShutDownInRecovery)
}
