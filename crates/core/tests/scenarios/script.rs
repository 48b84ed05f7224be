//! Scripts: one command a line.
//!
//! | command | what it does |
//! |---|---|
//! | `members a b c` | machines with empty directories whose agents start now |
//! | `running a b c` | the same, played silently until the first of them leads and the others stream from it |
//! | `tick 10s` | lets time pass |
//! | `wait 40s until a primary` | lets time pass until the condition holds, at most so long |
//! | `expect a primary` | fails when the condition does not hold |
//! | `crash postgres a` | the postmaster is killed |
//! | `kill node a`, `start node a` | the machine loses power; it comes back and its agent starts |
//! | `kill agent a`, `start agent a`, `stop agent a` | the agent is killed; starts; is asked to end |
//! | `freeze agent a`, `thaw agent a` | the agent gets no processor time; it does again |
//! | `partition a`, `heal a` | no packet leaves or reaches the machine; they do again |
//! | `unplug a`, `plug a` | the machine does not reach the store, and everybody else; it does again |
//! | `store down`, `store up` | the store answers nobody; it does again |
//! | `switchover a b`, `failover b` | the operator writes the request |
//! | `pause`, `resume`, `set KEY VALUE` | the operator changes the dynamic configuration |
//! | `put KEY VALUE`, `delete KEY`, `wipe store` | somebody meddles with the store |
//! | `foreign a` | the data directory of another cluster is put there |
//! | `tag a nofailover` | the tag is set; also `nostream`, `replicatefrom b`, `failover_priority 2` |
//! | `cut a b`, `join` | two machines do not reach each other; all do again |
//! | `schedule a b 30s` | the operator asks for a switchover in 30 s |
//! | `broken a`, `mended a`, `slow a 60s` | PostgreSQL refuses to start; does not; takes so long to start |
//!
//! Conditions: `a primary` (with the key), `a writable`, `a replica of b`, `a down`, `a running`, `a timeline 2`, `a agent ended`, `a agent running`,
//! `at most 20 writes` (to the store since the script began), `leader a`, `leader nobody`, `nobody primary`, `store KEY VALUE`.

use std::time::Duration;

use pgward_core::cluster::LeaseId;
use pgward_core::names::MemberName;
use serde_json::{Map, Value};

use crate::pace::Pace;
use crate::world::World;

/// How long a fresh cluster may take to settle.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);

/// Plays a script. Returns its transcript, and what went wrong.
pub(crate) fn play(text: &str) -> (String, Option<String>) {
    let mut player = Player { world: None, transcript: String::new(), told: 0 };
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            player.transcript.push_str(&format!("{line}\n"));
            continue;
        }
        player.transcript.push_str(&format!("> {line}\n"));
        let words: Vec<&str> = line.split_whitespace().collect();
        let done = player.command(&words);
        player.tell();
        if let Err(problem) = done {
            return (player.transcript, Some(format!("line {}: {line}: {problem}", index + 1)));
        }
        let violations = player.world.as_ref().map(|world| world.observer.violations.join("\n")).unwrap_or_default();
        if !violations.is_empty() {
            return (player.transcript, Some(format!("line {}: {line}: violated {violations}", index + 1)));
        }
    }
    (player.transcript, None)
}

struct Player {
    world: Option<World>,
    transcript: String,
    told: usize,
}

type Done = Result<(), String>;

impl Player {
    fn world(&mut self) -> Result<&mut World, String> {
        self.world.as_mut().ok_or_else(|| "a script begins with members or running".to_owned())
    }

    /// Appends what happened since the last command.
    fn tell(&mut self) {
        let Some(world) = &self.world else { return };
        for line in &world.story[self.told..] {
            self.transcript.push_str(line);
            self.transcript.push('\n');
        }
        self.told = world.story.len();
    }

    fn command(&mut self, words: &[&str]) -> Done {
        match words {
            ["members", names @ ..] => {
                self.world = Some(World::new(&parse_names(names)?, Pace::steady()));
                Ok(())
            }
            ["running", names @ ..] => self.running(&parse_names(names)?),
            ["tick", time] => {
                let time = parse_time(time)?;
                self.world()?.advance(time);
                Ok(())
            }
            ["wait", time, "until", condition @ ..] => {
                let (time, condition) = (parse_time(time)?, Condition::parse(condition)?);
                let world = self.world()?;
                let until = world.now + time;
                let held = world.advance_until(until, |world| condition.holds(world));
                if held { Ok(()) } else { Err("did not come true in time".to_owned()) }
            }
            ["expect", condition @ ..] => {
                let condition = Condition::parse(condition)?;
                if condition.holds(self.world()?) { Ok(()) } else { Err("is not so".to_owned()) }
            }
            other => self.world()?.happens(other),
        }
    }

    fn running(&mut self, names: &[MemberName]) -> Done {
        let Some((first, others)) = names.split_first() else { return Err("names are missing".to_owned()) };
        let mut world = World::new(std::slice::from_ref(first), Pace::steady());
        let settled = |world: &World, others: &[MemberName]| {
            world.is_writable(first) && others.iter().all(|name| world.streams(name, first))
        };
        let until = world.now + SETTLES_WITHIN;
        let mut is_settled = world.advance_until(until, |world| settled(world, &[]));
        for name in others {
            world.add_machine(name);
        }
        is_settled = is_settled && world.advance_until(until, |world| settled(world, others));
        world.advance(Duration::from_secs(30));
        world.begins_now();
        self.world = Some(world);
        if is_settled { Ok(()) } else { Err("the cluster did not settle".to_owned()) }
    }
}

impl World {
    /// Something that happens to the cluster, or that an operator does.
    pub(crate) fn happens(&mut self, words: &[&str]) -> Done {
        match words {
            ["crash", "postgres", name] => {
                let name = self.named(name)?;
                self.server_dies(&name);
            }
            ["kill", "node", name] => {
                let name = self.named(name)?;
                self.kill_machine(&name);
            }
            ["start", "node", name] => {
                let name = self.named(name)?;
                self.node_mut(&name).is_up = true;
                self.connections_changed();
                self.start_agent(&name);
            }
            ["kill", "agent", name] => {
                let name = self.named(name)?;
                self.kill_agent(&name);
            }
            ["start", "agent", name] => {
                let name = self.named(name)?;
                self.start_agent(&name);
            }
            ["stop", "agent", name] => {
                let name = self.named(name)?;
                self.shut_down(&name);
            }
            ["freeze", "agent", name] => {
                let name = self.named(name)?;
                self.set_frozen(&name, true);
            }
            ["thaw", "agent", name] => {
                let name = self.named(name)?;
                self.set_frozen(&name, false);
            }
            ["partition", name] => {
                let name = self.named(name)?;
                self.node_mut(&name).is_cut_off = true;
                self.connections_changed();
            }
            ["heal", name] => {
                let name = self.named(name)?;
                self.node_mut(&name).is_cut_off = false;
                self.connections_changed();
            }
            [verb @ ("unplug" | "plug"), name] => {
                let name = self.named(name)?;
                self.node_mut(&name).is_unplugged = *verb == "unplug";
                self.connections_changed();
            }
            ["store", state @ ("down" | "up")] => {
                self.store_is_up = *state == "up";
                self.connections_changed();
            }
            ["broken", name] => {
                let name = self.named(name)?;
                self.node_mut(&name).postgres.refuses_to_start = true;
            }
            ["mended", name] => {
                let name = self.named(name)?;
                self.node_mut(&name).postgres.refuses_to_start = false;
            }
            ["slow", name, time] => {
                let (name, time) = (self.named(name)?, parse_time(time)?);
                self.node_mut(&name).postgres.start_time = time;
            }
            ["foreign", name] => {
                let name = self.named(name)?;
                if let Some(data) = &mut self.node_mut(&name).postgres.data {
                    data.system_id = Some("1111111111111111111".to_owned());
                }
            }
            ["tag", name, tag @ ..] => {
                let name = self.named(name)?;
                let tags = &mut self.agent_mut(&name).tags;
                match tag {
                    ["nofailover"] => (tags.nofailover, tags.failover_priority) = (true, 0),
                    ["nostream"] => tags.nostream = true,
                    ["replicatefrom", other] => tags.replicatefrom = Some((*other).to_owned()),
                    ["failover_priority", number] => tags.failover_priority = number.parse().unwrap_or(1),
                    other => return Err(format!("no tag {other:?}")),
                }
                self.wake(&name);
            }
            ["cut", one, other] => {
                let (one, other) = (self.named(one)?, self.named(other)?);
                self.broken.insert(if one < other { (one, other) } else { (other, one) });
            }
            ["join"] => self.broken.clear(),
            other => return self.operator(other),
        }
        Ok(())
    }

    fn operator(&mut self, words: &[&str]) -> Done {
        match words {
            ["switchover", leader, candidate] => {
                self.put("failover", &format!("{{\"leader\":\"{leader}\",\"member\":\"{candidate}\"}}"));
            }
            ["schedule", leader, candidate, time] => {
                let at = self.wall_time(parse_time(time)?)?;
                let request =
                    format!("{{\"leader\":\"{leader}\",\"member\":\"{candidate}\",\"scheduled_at\":\"{at}\"}}");
                self.put("failover", &request);
            }
            ["switchover", leader] => self.put("failover", &format!("{{\"leader\":\"{leader}\"}}")),
            ["failover", candidate] => self.put("failover", &format!("{{\"member\":\"{candidate}\"}}")),
            ["pause"] => self.configure("pause", Value::Bool(true)),
            ["resume"] => {
                // Primaries that the operator left without the key are found with the next cycle.
                self.excuse(crate::store::LEADER);
                self.configure("pause", Value::Null);
            }
            ["set", key, value] => self.configure(key, serde_json::from_str(value).map_err(|e| e.to_string())?),
            ["put", key, value] => {
                self.excuse(key);
                self.put(key, value);
            }
            ["delete", key] => {
                self.excuse(key);
                let key = (*key).to_owned();
                self.change_store(|store| store.delete([key]));
            }
            ["wipe", "store"] => self.change_store(crate::store::Store::wipe),
            other => return Err(format!("no command {other:?}")),
        }
        Ok(())
    }

    fn put(&mut self, key: &str, value: &str) {
        self.change_store(|store| store.put(key, value, LeaseId::default()));
    }

    /// Whoever takes the leadership by hand takes the promise of a single primary with it, until the next renewal.
    fn excuse(&mut self, key: &str) {
        if key == crate::store::LEADER {
            self.observer.excused_until = self.now + Duration::from_secs(10);
        }
    }

    /// Changes one setting of the dynamic configuration; `null` removes it.
    pub(crate) fn configure(&mut self, key: &str, value: Value) {
        let text = self.store.get("config").unwrap_or("{}").to_owned();
        let mut document: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
        if value.is_null() {
            document.remove(key);
        } else if let Some(inner) = key.strip_prefix("postgresql.") {
            if let Some(section) = document.get_mut("postgresql").and_then(Value::as_object_mut) {
                section.insert(inner.to_owned(), value);
            }
        } else {
            document.insert(key.to_owned(), value);
        }
        let document = pgward_core::json::compact(&document);
        self.put("config", &document);
    }

    /// The wall clock after some time, as an operator writes it.
    fn wall_time(&self, ahead: Duration) -> Result<String, String> {
        let seconds = self.wall().0.as_secs() + ahead.as_secs();
        let at = jiff::Timestamp::from_second(i64::try_from(seconds).unwrap_or(i64::MAX));
        at.map(|at| at.to_string()).map_err(|problem| problem.to_string())
    }

    fn named(&self, name: &str) -> Result<MemberName, String> {
        let known = self.nodes.keys().find(|known| known.as_str() == name);
        known.cloned().ok_or_else(|| format!("there is no member {name}"))
    }
}

/// What a script waits for or expects.
enum Condition {
    Primary(MemberName),
    Writable(MemberName),
    ReplicaOf(MemberName, MemberName),
    Down(MemberName),
    Running(MemberName),
    Timeline(MemberName, u32),
    Agent(MemberName, bool),
    Leader(Option<String>),
    NobodyPrimary,
    Key(String, Option<String>),
    WritesAtMost(i64),
}

impl Condition {
    fn parse(words: &[&str]) -> Result<Condition, String> {
        let name = |text: &str| text.parse::<MemberName>().map_err(|problem| problem.to_string());
        Ok(match words {
            ["at", "most", number, "writes"] => Condition::WritesAtMost(number.parse().unwrap_or(0)),
            ["nobody", "primary"] => Condition::NobodyPrimary,
            ["leader", "nobody"] => Condition::Leader(None),
            ["leader", leader] => Condition::Leader(Some((*leader).to_owned())),
            ["store", key, "gone"] => Condition::Key((*key).to_owned(), None),
            ["store", key, value] => Condition::Key((*key).to_owned(), Some((*value).to_owned())),
            [member, "writable"] => Condition::Writable(name(member)?),
            [member, "primary"] => Condition::Primary(name(member)?),
            [member, "replica", "of", source] => Condition::ReplicaOf(name(member)?, name(source)?),
            [member, "down"] => Condition::Down(name(member)?),
            [member, "running"] => Condition::Running(name(member)?),
            [member, "timeline", number] => Condition::Timeline(name(member)?, number.parse().unwrap_or(0)),
            [member, "agent", "ended"] => Condition::Agent(name(member)?, false),
            [member, "agent", "running"] => Condition::Agent(name(member)?, true),
            other => return Err(format!("no condition {other:?}")),
        })
    }

    fn holds(&self, world: &World) -> bool {
        match self {
            Condition::Writable(name) => world.is_writable(name),
            Condition::Primary(name) => world.is_writable(name) && world.leader().as_deref() == Some(name.as_str()),
            Condition::ReplicaOf(name, source) => world.streams(name, source),
            Condition::Down(name) => world.node(name).postgres.process.is_none(),
            Condition::Running(name) => world.node(name).postgres.accepts(world.now),
            Condition::Timeline(name, number) => {
                let data = world.node(name).postgres.data.as_ref();
                data.is_some_and(|data| data.wal.timeline.get() == *number)
            }
            Condition::Agent(name, runs) => world.node(name).agent.is_some() == *runs,
            Condition::Leader(name) => world.leader() == *name,
            Condition::WritesAtMost(number) => world.writes() <= *number,
            Condition::NobodyPrimary => !world.nodes.keys().any(|name| world.is_writable(name)),
            Condition::Key(key, value) => world.store.get(key) == value.as_deref(),
        }
    }
}

fn parse_names(names: &[&str]) -> Result<Vec<MemberName>, String> {
    names.iter().map(|name| name.parse::<MemberName>().map_err(|problem| problem.to_string())).collect()
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time such as 10s or 500ms");
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1000),
    };
    number.parse::<u64>().map(|number| Duration::from_millis(number * unit)).map_err(|_| wrong())
}
