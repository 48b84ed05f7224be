//! What the fencer promises, one promise a function.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pgward_agent::fencer::{FencerError, FencerHandle, FencerSettings, Lost, ProcessIdentity, Refusal, State};
use pgward_core::cluster::Revision;
use pgward_core::time::{BootInstant, KILL_TIME};
use pgward_store::boot_now;
use rustix::process::Signal;
use tokio::time::{sleep, timeout};

use crate::machine::{Machine, PATIENCE, Template, User, Writer, block_on, command, eventually, is_root, signal};

/// A test by the sentence that it proves.
type Case = (&'static str, fn(&Template) -> Result<()>);

pub(crate) const ALL: &[Case] = &[
    ("a_frozen_agents_postgres_is_silent_in_time", |t| block_on(frozen_agent(t, User::Root))),
    ("a_frozen_agents_postgres_is_silent_in_time_without_privileges", |t| block_on(frozen_agent(t, User::Postgres))),
    ("a_dead_agents_postgres_is_silent_in_time", |t| block_on(dead_agent(t))),
    ("postgres_never_notices_an_agent_that_is_restarted_in_time", |t| block_on(restarted_agent(t))),
    ("a_killed_fencer_is_noticed_at_once_and_can_be_replaced", |t| block_on(killed_fencer(t))),
    ("a_frozen_fencer_does_not_acknowledge", |t| block_on(frozen_fencer(t))),
    ("a_late_reply_is_not_taken_for_a_newer_one", |t| block_on(late_reply(t))),
    ("a_disarmed_fencer_kills_nothing", |t| block_on(disarmed(t))),
    ("an_order_that_makes_no_sense_is_refused", |t| block_on(refusals(t))),
    ("a_recycled_process_identifier_is_not_hit", |t| block_on(recycled(t))),
    ("a_server_that_ignores_the_immediate_stop_is_killed", |t| block_on(stubborn(t))),
    ("eighty_busy_clients_are_silent_in_time", |t| block_on(busy(t))),
    ("a_postmaster_that_the_agent_never_named_is_fenced", |t| block_on(unnamed(t))),
    ("what_a_frozen_agent_starts_late_is_fenced_too", |t| block_on(late_start(t))),
    ("the_newest_agent_displaces_the_older_one", |t| block_on(displaced(t))),
    ("a_socket_of_another_user_is_not_trusted", |t| block_on(foreign(t))),
    ("a_fencer_obeys_only_those_who_own_the_data", |t| block_on(turned_away(t))),
    ("a_fencer_that_cannot_start_says_why", |t| block_on(cannot_start(t))),
    ("termination_waits_until_nothing_is_armed", |t| block_on(terminated(t))),
    ("a_fencer_needs_little_memory_and_keeps_it", |t| block_on(memory(t))),
];

const EPOCH: Revision = Revision(7);

/// Far away for a test, so that nothing is fenced.
fn never() -> BootInstant {
    boot_now() + Duration::from_secs(600)
}

fn in_milliseconds(milliseconds: u64) -> BootInstant {
    boot_now() + Duration::from_millis(milliseconds)
}

async fn arm(fencer: &FencerHandle, process: ProcessIdentity, deadline: BootInstant) -> Result<(), FencerError> {
    fencer.arm(process.pid, process.start_ticks, deadline, EPOCH).await
}

async fn until(instant: BootInstant) {
    sleep(instant.since(boot_now())).await;
}

/// Waits until nothing runs in the data directory and checks that this was neither before the deadline nor too late.
async fn expect_silence(machine: &Machine, deadline: BootInstant) -> Result<()> {
    eventually("nothing runs in the data directory", async || machine.processes().is_empty()).await?;
    let now = boot_now();
    ensure!(now >= deadline, "killed {:?} before the deadline", deadline.since(now));
    ensure!(now.since(deadline) < KILL_TIME, "silent only {:?} after the deadline", now.since(deadline));
    Ok(())
}

async fn frozen_agent(template: &Template, user: User) -> Result<()> {
    if user == User::Root && !is_root() {
        println!("skipped: not root");
        return Ok(());
    }
    let machine = Arc::new(Machine::new(template)?);
    let postmaster = machine.start_postgres().await?;
    let mut agent = machine.agent(user, postmaster, Duration::from_secs(1))?;
    let writer = Writer::start(machine.clone()).await?;
    // As long as the agent runs, deadlines pass without effect.
    until(agent.next_deadline()? + Duration::from_millis(300)).await;
    agent.signal(Signal::STOP)?;
    // A stopped process may still have had one message on its way.
    sleep(Duration::from_millis(50)).await;
    let deadline = agent.last_deadline()?;
    ensure!(!machine.processes().is_empty(), "killed before the deadline");
    expect_silence(&machine, deadline).await?;
    let silent_after = boot_now().since(deadline);
    sleep(Duration::from_millis(200)).await;
    let written = writer.finish().await?;
    ensure!(written.commits > 10, "{written:?}");
    ensure!(written.last_commit < deadline + KILL_TIME, "{written:?} though the deadline was {deadline:?}");
    let commit_after = written.last_commit.since(deadline);
    // The agent wakes up and is told what happened.
    agent.signal(Signal::KILL)?;
    let fencing = machine.fencer().await?.last_fencing().context("no fencing was recorded")?;
    println!(
        "as {user:?}: last commit {commit_after:?} and last process {silent_after:?} after the deadline; {fencing}"
    );
    // It may have been stopped after its last order was acknowledged and before it could say so.
    ensure!(
        fencing.deadline >= deadline && fencing.deadline.since(deadline) < KILL_TIME,
        "{fencing:?} for {deadline:?}"
    );
    ensure!(fencing.epoch == EPOCH, "{fencing:?}");
    Ok(())
}

async fn dead_agent(template: &Template) -> Result<()> {
    let machine = Machine::new(template)?;
    let postmaster = machine.start_postgres().await?;
    let mut agent = machine.agent(User::Postgres, postmaster, Duration::from_secs(1))?;
    agent.next_deadline()?;
    agent.signal(Signal::KILL)?;
    expect_silence(&machine, agent.last_deadline()?).await?;
    // What was done outlives the fencer too.
    eventually("it is recorded", async || {
        fs::read_to_string(&machine.state_file).is_ok_and(|record| record.starts_with("fenced "))
    })
    .await?;
    signal(agent.fencer, Signal::KILL);
    eventually("a new fencer tells what the old one did", async || {
        machine.fencer().await.is_ok_and(|fencer| fencer.pid() != agent.fencer && fencer.last_fencing().is_some())
    })
    .await
}

async fn restarted_agent(template: &Template) -> Result<()> {
    let machine = Arc::new(Machine::new(template)?);
    let postmaster = machine.start_postgres().await?;
    let writer = Writer::start(machine.clone()).await?;
    let mut agent = machine.agent(User::Postgres, postmaster, Duration::from_secs(2))?;
    agent.next_deadline()?;
    agent.signal(Signal::KILL)?;
    let deadline = agent.last_deadline()?;
    let mut restarted = machine.agent(User::Postgres, postmaster, Duration::from_secs(2))?;
    ensure!(restarted.fencer == agent.fencer, "another fencer was started");
    ensure!(restarted.next_deadline()? > deadline);
    until(deadline + Duration::from_millis(500)).await;
    let written = writer.finish().await?;
    ensure!(written.errors == 0 && written.last_commit > deadline, "{written:?}");
    ensure!(ProcessIdentity::of(postmaster.pid)? == postmaster);
    Ok(())
}

async fn killed_fencer(template: &Template) -> Result<()> {
    let machine = Machine::new(template)?;
    let postmaster = machine.start_postgres().await?;
    let fencer = machine.fencer().await?;
    arm(&fencer, postmaster, never()).await?;
    ensure!(timeout(Duration::from_millis(50), fencer.lost()).await.is_err(), "lost without a reason");
    let killed = Instant::now();
    signal(fencer.pid(), Signal::KILL);
    let lost = timeout(PATIENCE, fencer.lost()).await?;
    let noticed = killed.elapsed();
    println!("the end of the fencer was noticed after {noticed:?}");
    ensure!(lost == Lost::Ended && noticed < Duration::from_millis(100), "{lost} after {noticed:?}");
    let refused = arm(&fencer, postmaster, never()).await;
    ensure!(matches!(refused, Err(FencerError::Lost(Lost::Ended))), "{refused:?}");
    let next = machine.fencer().await?;
    ensure!(next.pid() != fencer.pid() && next.adopted_state() == State::Disarmed);
    arm(&next, postmaster, never()).await?;
    Ok(())
}

async fn frozen_fencer(template: &Template) -> Result<()> {
    let machine = Machine::new(template)?;
    let postmaster = machine.start_postgres().await?;
    let fencer = machine.fencer().await?;
    signal(fencer.pid(), Signal::STOP);
    let asked = Instant::now();
    let late = arm(&fencer, postmaster, never()).await;
    ensure!(matches!(late, Err(FencerError::Unacknowledged)), "{late:?}");
    ensure!(asked.elapsed() < Duration::from_millis(500), "{:?}", asked.elapsed());
    let adopted = FencerHandle::start_or_adopt(machine.settings()).await;
    ensure!(matches!(adopted, Err(FencerError::Silent { pid, .. }) if pid == Some(fencer.pid())), "{adopted:?}");
    signal(fencer.pid(), Signal::CONT);
    let fencer = machine.fencer().await?;
    arm(&fencer, postmaster, never()).await?;
    Ok(())
}

async fn late_reply(template: &Template) -> Result<()> {
    let machine = Machine::new(template)?;
    let postmaster = machine.start_postgres().await?;
    let fencer = machine.fencer().await?;
    signal(fencer.pid(), Signal::STOP);
    let late = arm(&fencer, postmaster, never()).await;
    ensure!(matches!(late, Err(FencerError::Unacknowledged)), "{late:?}");
    signal(fencer.pid(), Signal::CONT);
    // The late reply is not taken for one to this.
    fencer.disarm().await?;
    ensure!(fencer.status().await? == State::Disarmed);
    Ok(())
}

async fn disarmed(template: &Template) -> Result<()> {
    let machine = Machine::new(template)?;
    let postmaster = machine.start_postgres().await?;
    let fencer = machine.fencer().await?;
    let deadline = in_milliseconds(300);
    arm(&fencer, postmaster, deadline).await?;
    ensure!(matches!(fencer.status().await?, State::Armed(orders) if orders.deadline == deadline));
    let refused = fencer.clone().quit().await;
    ensure!(matches!(refused, Err(FencerError::Refused(Refusal::Armed))), "{refused:?}");
    fencer.disarm().await?;
    until(deadline + Duration::from_millis(300)).await;
    machine.connect().await?.batch_execute("select 1").await?;
    ensure!(fencer.last_fencing().is_none());
    fencer.clone().quit().await?;
    ensure!(timeout(PATIENCE, fencer.lost()).await? == Lost::Ended);
    Ok(())
}

async fn refusals(template: &Template) -> Result<()> {
    let machine = Machine::new(template)?;
    let postmaster = machine.start_postgres().await?;
    let fencer = machine.fencer().await?;
    let own = ProcessIdentity::of(std::process::id().try_into()?)?;
    for (process, deadline, refusal) in [
        (postmaster, BootInstant::default(), Refusal::DeadlinePassed),
        (ProcessIdentity { start_ticks: postmaster.start_ticks + 1, ..postmaster }, never(), Refusal::NoSuchProcess),
        (own, never(), Refusal::OtherDataDirectory),
        (ProcessIdentity { pid: -1, ..own }, never(), Refusal::NotUnderstood),
    ] {
        let result = timeout(PATIENCE, arm(&fencer, process, deadline)).await?;
        let is_expected = match &result {
            Err(FencerError::Refused(given)) => *given == refusal,
            // A message that cannot be read has no number to reply to.
            Err(FencerError::Unacknowledged) => refusal == Refusal::NotUnderstood,
            Ok(()) | Err(_) => false,
        };
        ensure!(is_expected, "{result:?} instead of {refusal:?}");
        ensure!(fencer.status().await? == State::Disarmed);
    }
    Ok(())
}

async fn recycled(template: &Template) -> Result<()> {
    if !is_root() {
        println!("skipped: only root can choose process identifiers");
        return Ok(());
    }
    let machine = Machine::new(template)?;
    let fencer = machine.fencer().await?;
    let executable = machine.data_dir.join("postgres");
    fs::copy("/bin/sleep", &executable)?;
    for _ in 0..200 {
        let mut postmaster = command(&executable, User::Root)?.arg("60").current_dir(&machine.data_dir).spawn()?;
        let identity = ProcessIdentity::of(postmaster.id().try_into()?)?;
        let deadline = in_milliseconds(400);
        arm(&fencer, identity, deadline).await?;
        // The start time has to differ, and it has a resolution of 10 ms.
        sleep(Duration::from_millis(20)).await;
        postmaster.kill()?;
        postmaster.wait()?;
        fs::write("/proc/sys/kernel/ns_last_pid", (identity.pid - 1).to_string())?;
        let mut bystander = command(Path::new("/bin/sleep"), User::Root)?.arg("60").current_dir("/").spawn()?;
        let is_recycled = bystander.id() == identity.pid.unsigned_abs();
        if is_recycled {
            eventually("the deadline has passed", async || {
                fencer.status().await.is_ok_and(|state| state == State::Fenced)
            })
            .await?;
            ensure!(boot_now() >= deadline);
            sleep(Duration::from_millis(100)).await;
            ensure!(bystander.try_wait()?.is_none(), "a process that had nothing to do with it was killed");
        }
        bystander.kill()?;
        bystander.wait()?;
        if is_recycled {
            return Ok(());
        }
        fencer.disarm().await?;
    }
    anyhow::bail!("the machine is too busy to get the same process identifier twice")
}

async fn stubborn(template: &Template) -> Result<()> {
    let machine = Machine::new(template)?;
    let postmaster = machine.start_postgres().await?;
    let _client = machine.connect().await?;
    let fencer = machine.fencer().await?;
    let deadline = in_milliseconds(300);
    arm(&fencer, postmaster, deadline).await?;
    machine.processes().into_iter().for_each(|pid| signal(pid, Signal::STOP));
    expect_silence(&machine, deadline).await?;
    fencer.status().await?;
    let fencing = fencer.last_fencing().context("no fencing was recorded")?;
    println!("stopped processes: {fencing}");
    ensure!(!fencing.obeyed && fencing.killed > 3 && fencing.left == 0, "{fencing:?}");
    Ok(())
}

async fn busy(template: &Template) -> Result<()> {
    let machine = Machine::new(template)?;
    let postmaster = machine.start_postgres().await?;
    machine.connect().await?.batch_execute("create table written (at bigint)").await?;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..80 {
        let client = machine.connect().await?;
        clients.spawn(async move {
            let mut last_commit = boot_now();
            while client.execute("insert into written values (1)", &[]).await.is_ok() {
                last_commit = boot_now();
            }
            last_commit
        });
    }
    let fencer = machine.fencer().await?;
    let deadline = in_milliseconds(500);
    arm(&fencer, postmaster, deadline).await?;
    expect_silence(&machine, deadline).await?;
    let last_commit = timeout(PATIENCE, clients.join_all()).await?.into_iter().max().context("no client")?;
    ensure!(last_commit < deadline + KILL_TIME, "a commit {:?} after the deadline", last_commit.since(deadline));
    fencer.status().await?;
    let fencing = fencer.last_fencing().context("no fencing was recorded")?;
    println!("80 clients: last commit {:?} after the deadline; {fencing}", last_commit.since(deadline));
    Ok(())
}

async fn unnamed(template: &Template) -> Result<()> {
    let machine = Machine::new(template)?;
    let fencer = machine.fencer().await?;
    // Before it is started ...
    let deadline = in_milliseconds(2500);
    fencer.arm_before_start(deadline, EPOCH).await?;
    machine.start_postgres().await?;
    expect_silence(&machine, deadline).await?;
    // ... and restarted behind the agent's back.
    let first = machine.start_postgres_after_silence(&fencer).await?;
    let deadline = in_milliseconds(2500);
    arm(&fencer, first, deadline).await?;
    signal(first.pid, Signal::INT);
    eventually("it has stopped", async || machine.processes().is_empty()).await?;
    machine.start_postgres().await?;
    expect_silence(&machine, deadline).await
}

impl Machine {
    /// As an agent does it that knows what happened.
    async fn start_postgres_after_silence(&self, fencer: &FencerHandle) -> Result<ProcessIdentity> {
        fencer.disarm().await?;
        ensure!(fencer.last_fencing().is_some());
        self.start_postgres().await
    }
}

async fn late_start(template: &Template) -> Result<()> {
    let machine = Machine::new(template)?;
    let postmaster = machine.start_postgres().await?;
    let fencer = machine.fencer().await?;
    let deadline = in_milliseconds(200);
    arm(&fencer, postmaster, deadline).await?;
    expect_silence(&machine, deadline).await?;
    // We are connected and say nothing, as an agent that froze just before it started PostgreSQL anew.
    let started = timeout(Duration::from_secs(3), machine.start_postgres()).await;
    eventually("it is gone again", async || machine.processes().is_empty()).await?;
    println!("PostgreSQL came up in between: {}", started.is_ok_and(|started| started.is_ok()));
    // Once the agent speaks, it is trusted again.
    fencer.disarm().await?;
    machine.start_postgres().await?;
    sleep(Duration::from_millis(500)).await;
    machine.connect().await?;
    Ok(())
}

async fn displaced(template: &Template) -> Result<()> {
    let machine = Machine::new(template)?;
    let postmaster = machine.start_postgres().await?;
    let older = machine.fencer().await?;
    let deadline = never();
    arm(&older, postmaster, deadline).await?;
    let newer = machine.fencer().await?;
    ensure!(newer.pid() == older.pid());
    ensure!(
        matches!(newer.adopted_state(), State::Armed(orders) if orders.deadline == deadline && orders.epoch == EPOCH)
    );
    ensure!(timeout(PATIENCE, older.lost()).await? == Lost::Displaced);
    let refused = older.disarm().await;
    ensure!(matches!(refused, Err(FencerError::Lost(Lost::Displaced))), "{refused:?}");
    ensure!(matches!(newer.status().await?, State::Armed(_)));
    Ok(())
}

async fn foreign(template: &Template) -> Result<()> {
    if !is_root() {
        println!("skipped: not root");
        return Ok(());
    }
    let machine = Machine::new(template)?;
    let mut squatter = command(&machine.executable, User::Nobody)?
        .args(["__fencer", "--state-file", "/nonexistent/file", "--data-dir"])
        .arg(&machine.data_dir)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(squatter.stdout.take().context("no output")?), &mut line)?;
    let result = FencerHandle::start_or_adopt(machine.settings()).await;
    squatter.kill()?;
    squatter.wait()?;
    ensure!(line.starts_with("ready"), "{line}");
    ensure!(
        matches!(result, Err(FencerError::Foreign { pid, .. }) if pid.unsigned_abs() == squatter.id()),
        "{result:?}"
    );
    Ok(())
}

async fn turned_away(template: &Template) -> Result<()> {
    if !is_root() {
        println!("skipped: not root");
        return Ok(());
    }
    let machine = Machine::new(template)?;
    let fencer = machine.fencer().await?;
    let output = command(&machine.executable, User::Nobody)?
        .arg("__agent")
        .args([&machine.data_dir, &machine.state_file])
        .args(["1", "1000"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success() && said.contains("it obeys root"), "{said:?}");
    // The connection that is trusted has not been displaced by it.
    ensure!(fencer.status().await? == State::Disarmed);
    Ok(())
}

async fn cannot_start(template: &Template) -> Result<()> {
    let machine = Machine::new(template)?;
    let missing = FencerSettings { executable: "/nonexistent".into(), ..machine.settings() };
    let result = FencerHandle::start_or_adopt(missing).await;
    ensure!(matches!(result, Err(FencerError::Spawn { .. })), "{result:?}");
    let other_program = FencerSettings { executable: "/bin/false".into(), ..machine.settings() };
    let result = FencerHandle::start_or_adopt(other_program).await;
    ensure!(matches!(result, Err(FencerError::Start(_))), "{result:?}");
    let output = command(&machine.executable, User::Postgres)?.args(["__fencer", "--data-dir"]).output()?;
    ensure!(!output.status.success() && output.stdout == b"failed --data-dir needs a value\n", "{output:?}");
    Ok(())
}

async fn terminated(template: &Template) -> Result<()> {
    let machine = Machine::new(template)?;
    let postmaster = machine.start_postgres().await?;
    let fencer = machine.fencer().await?;
    arm(&fencer, postmaster, never()).await?;
    for asked in [Signal::TERM, Signal::INT, Signal::HUP] {
        signal(fencer.pid(), asked);
        ensure!(timeout(Duration::from_millis(100), fencer.lost()).await.is_err(), "ended by {asked:?}");
    }
    fencer.disarm().await?;
    signal(fencer.pid(), Signal::TERM);
    ensure!(timeout(PATIENCE, fencer.lost()).await? == Lost::Ended);
    Ok(())
}

async fn memory(template: &Template) -> Result<()> {
    let machine = Machine::new(template)?;
    let postmaster = machine.start_postgres().await?;
    for user in [User::Postgres, User::Root] {
        let mut agent = machine.agent(user, postmaster, Duration::from_secs(1))?;
        agent.next_deadline()?;
        let status = fs::read_to_string(format!("/proc/{}/status", agent.fencer))?;
        let kilobytes = |name: &str| -> Option<u64> {
            let line = status.lines().find(|line| line.starts_with(name))?;
            line.split_ascii_whitespace().nth(1)?.parse().ok()
        };
        let (resident, locked) = (kilobytes("VmRSS:").context("no VmRSS")?, kilobytes("VmLck:"));
        let stat = fs::read_to_string(format!("/proc/{}/stat", agent.fencer))?;
        let scheduling: Vec<&str> = stat.split(' ').collect();
        let (nice, policy) = (scheduling[18], scheduling[40]);
        println!("fencer as {user:?}: {resident} kB resident, {locked:?} kB locked, nice {nice}, policy {policy}");
        // Unoptimised code is several times larger.
        let limit = if cfg!(debug_assertions) { 8192 } else { 4096 };
        ensure!(resident < limit, "{resident} kB resident");
        ensure!(status.contains("Name:\tpgward-fencer\n") && status.contains("Threads:\t1\n"), "{status}");
        agent.signal(Signal::KILL)?;
        signal(agent.fencer, Signal::KILL);
        eventually("the fencer is gone", async || ProcessIdentity::of(agent.fencer).is_err()).await?;
    }
    Ok(())
}
