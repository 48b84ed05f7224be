//! The table of members that `list` and `topology` print, and others print first.

use pgward_core::cluster::{Cluster, Member};
use pgward_core::wal::Lsn;
use serde_json::Value;

use super::schedule;
use super::sheet::{Column, EmptyCells, Format, Sheet};
use super::view::{self, Role};
use super::yaml::Layout;

/// Longest line of a reason for a pending restart that a table shows.
const REASON_CHARACTERS_MAX: usize = 50;

/// Columns that are shown when asked for or when any member has something for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extra {
    /// Shown when any member has something for them.
    WhereUsed,
    /// Always shown.
    All,
}

/// One cluster and how it is called.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named<'a> {
    /// Its name.
    pub(super) scope: &'a str,
    /// The Citus group that was read.
    pub(super) group: Option<u32>,
    /// What was read.
    pub(super) cluster: &'a Cluster,
}

/// What to do for whom the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// A table, by name.
    Table,
    /// A table, as a tree.
    Tree,
    /// A data format.
    Data,
}

/// What `list` prints for one cluster.
pub(super) fn list(named: Named<'_>, extra: Extra, format: Format) -> String {
    match format {
        Format::Pretty => {
            sheet(named, extra, Shape::Table).table(Some(&title(named)), Layout::Block) + &notices(named.cluster)
        }
        Format::Tsv | Format::Json | Format::Yaml => sheet(named, extra, Shape::Data).print(format, None),
    }
}

/// What `topology` prints for one cluster.
pub(super) fn topology(named: Named<'_>) -> String {
    sheet(named, Extra::WhereUsed, Shape::Tree).table(Some(&title(named)), Layout::Flow) + &notices(named.cluster)
}

fn title(Named { scope, group, cluster }: Named<'_>) -> String {
    let identity = view::identity(cluster);
    match group {
        None => format!("Cluster: {scope} ({identity})"),
        Some(group) => format!("Citus cluster: {scope} (group: {group}, {identity})"),
    }
}

/// What is worth knowing besides the members.
fn notices(cluster: &Cluster) -> String {
    let mut notices = String::new();
    if view::is_paused(cluster) {
        notices.push_str(" Maintenance mode: on\n");
    }
    for (member, problem) in cluster.members.values().filter_map(|member| Some((member, member.problem()?))) {
        // Output of a program has many lines; the last one says why it ended.
        let last = problem.lines().rfind(|line| !line.trim().is_empty()).unwrap_or(problem);
        notices.push_str(&format!(" {} cannot come back: {}\n", member.name, last.trim()));
    }
    for rival in cluster.rivals() {
        notices.push_str(&format!(" Split brain: {rival} is primary beside the leader\n"));
    }
    let request = cluster.failover.as_ref().map(|failover| &failover.value);
    if let Some((request, at)) = request.and_then(|request| Some((request, request.scheduled_at.as_ref()?))) {
        notices.push_str(&format!(" Switchover scheduled at: {}\n", schedule::normalised(at)));
        for (label, name) in [("from", &request.leader), ("to", &request.candidate)] {
            if let Some(name) = name {
                notices.push_str(&format!("{label:>24}: {name}\n"));
            }
        }
    }
    notices
}

fn sheet(named: Named<'_>, extra: Extra, shape: Shape) -> Sheet {
    let cluster = named.cluster;
    let extras = used_extras(cluster, extra);
    let has_ports = shows_ports(cluster);
    let members: Vec<(usize, &Member)> = match shape {
        Shape::Table | Shape::Data => cluster.members.values().map(|member| (0, member)).collect(),
        Shape::Tree => view::tree(cluster),
    };
    let rows = members.into_iter().map(|(level, member)| {
        let role = view::role(cluster, &member.name);
        let mut row = match shape {
            Shape::Data => labels(named),
            Shape::Table | Shape::Tree => Vec::new(),
        };
        row.push(indented(level, member).into());
        row.push(host(member, has_ports).into());
        row.push(role.to_string().into());
        row.push(view::state(member, role).into());
        row.push(member.timeline().map_or_else(empty, |timeline| timeline.get().into()));
        row.extend(positions(cluster, member, role));
        row.extend(extras.iter().map(|extra| extra.cell(member, shape)));
        row
    });
    let rows = rows.collect();
    let mut columns = match (shape, named.group) {
        (Shape::Data, Some(_)) => vec![Column::left("Cluster"), Column::right("Group")],
        (Shape::Data, None) => vec![Column::left("Cluster")],
        (Shape::Table | Shape::Tree, _) => Vec::new(),
    };
    columns.extend(["Member", "Host", "Role", "State"].map(Column::left));
    columns.push(Column::right("TL"));
    columns.extend([Column::right("Receive LSN"), lag_column("Receive Lag")]);
    columns.extend([Column::right("Replay LSN"), lag_column("Replay Lag")]);
    columns.extend(extras.iter().map(|extra| Column::left(extra.name())));
    Sheet { columns, rows, empty_cells: EmptyCells::LeaveOut }
}

fn lag_column(name: &'static str) -> Column {
    Column { title: "Lag".into(), ..Column::right(name) }
}

fn labels(named: Named<'_>) -> Vec<Value> {
    let mut labels = vec![Value::from(named.scope)];
    labels.extend(named.group.map(Value::from));
    labels
}

fn empty() -> Value {
    Value::from("")
}

fn indented(level: usize, member: &Member) -> String {
    match level.checked_sub(1) {
        None => member.name.to_string(),
        Some(steps) => format!("{}+ {}", "  ".repeat(steps), member.name),
    }
}

fn host(member: &Member, with_port: bool) -> String {
    match member.address() {
        Some(address) if with_port => format!("{}:{}", address.host, address.port),
        Some(address) => address.host,
        None => String::new(),
    }
}

/// Ports are shown for all when one is unusual or two members share a host.
fn shows_ports(cluster: &Cluster) -> bool {
    let addresses: Vec<_> = cluster.members.values().filter_map(Member::address).collect();
    let mut hosts: Vec<&str> = addresses.iter().map(|address| address.host.as_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    hosts.len() < addresses.len() || addresses.iter().any(|address| address.port != 5432)
}

/// Receive LSN and lag, replay LSN and lag: empty for the leader, `unknown` where a member says nothing.
fn positions(cluster: &Cluster, member: &Member, role: Role) -> [Value; 4] {
    if role.leads() {
        return std::array::from_fn(|_| empty());
    }
    let (mut receive, mut replay) = (member.receive_lsn(), member.replay_lsn());
    if receive.is_none() && replay.is_none() {
        // Members older than 4.1 publish one position only.
        let only = member.lsn_location();
        if view::state(member, role) == "streaming" { receive = only } else { replay = only }
    }
    let pair = |lsn: Option<Lsn>| match lsn {
        Some(lsn) => {
            [lsn.to_string().into(), cluster.status.optime.map_or_else(empty, |leader| megabytes(lsn, leader))]
        }
        None => ["unknown".into(), empty()],
    };
    let ([receive, receive_lag], [replay, replay_lag]) = (pair(receive), pair(replay));
    [receive, receive_lag, replay, replay_lag]
}

/// The distance in MB; halves go to the even number.
fn megabytes(position: Lsn, leader: Lsn) -> Value {
    const MEGABYTE: u64 = 1 << 20;
    let lag_bytes = position.bytes_behind(leader);
    let (whole, rest) = (lag_bytes / MEGABYTE, lag_bytes % MEGABYTE);
    let rounds_up = rest > MEGABYTE / 2 || (rest == MEGABYTE / 2 && whole % 2 == 1);
    Value::from(whole + u64::from(rounds_up))
}

/// A column that not every list has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExtraColumn {
    PendingRestart,
    PendingRestartReason,
    ScheduledRestart,
    Tags,
}

fn used_extras(cluster: &Cluster, extra: Extra) -> Vec<ExtraColumn> {
    use ExtraColumn::{PendingRestart, PendingRestartReason, ScheduledRestart, Tags};
    let is_used = |column: &ExtraColumn| {
        let mut reachable = cluster.members.values().filter(|member| member.address().is_some());
        reachable.any(|member| member.fields.contains_key(column.key()))
    };
    let all = [PendingRestart, PendingRestartReason, ScheduledRestart, Tags];
    all.into_iter().filter(|column| extra == Extra::All || is_used(column)).collect()
}

impl ExtraColumn {
    fn name(self) -> &'static str {
        match self {
            ExtraColumn::PendingRestart => "Pending restart",
            ExtraColumn::PendingRestartReason => "Pending restart reason",
            ExtraColumn::ScheduledRestart => "Scheduled restart",
            ExtraColumn::Tags => "Tags",
        }
    }

    /// The field of a member that the column shows.
    fn key(self) -> &'static str {
        match self {
            ExtraColumn::PendingRestart => "pending_restart",
            ExtraColumn::PendingRestartReason => "pending_restart_reason",
            ExtraColumn::ScheduledRestart => "scheduled_restart",
            ExtraColumn::Tags => "tags",
        }
    }

    fn cell(self, member: &Member, shape: Shape) -> Value {
        match self {
            ExtraColumn::PendingRestart => if member.has_pending_restart() { "*" } else { "" }.into(),
            ExtraColumn::PendingRestartReason => reasons(member, shape).into(),
            ExtraColumn::ScheduledRestart => scheduled_restart(member).unwrap_or_default().into(),
            ExtraColumn::Tags => match member.tags() {
                Some(tags) if !tags.is_empty() => Value::Object(tags.clone()),
                Some(_) | None => empty(),
            },
        }
    }
}

/// One line for each parameter.
fn reasons(member: &Member, shape: Shape) -> String {
    let Some(reasons) = member.fields.get("pending_restart_reason").and_then(Value::as_object) else {
        return String::new();
    };
    let lines = reasons.iter().map(|(name, change)| {
        let text = |key: &str| match change.get(key) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => String::new(),
        };
        let line = format!("{name}: {}->{}", text("old_value"), text("new_value"));
        if shape != Shape::Data && line.chars().count() > REASON_CHARACTERS_MAX {
            format!("{name}: [hidden - too long]")
        } else {
            line
        }
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn scheduled_restart(member: &Member) -> Option<String> {
    let scheduled = member.fields.get("scheduled_restart")?;
    let mut text = scheduled.get("schedule")?.as_str()?.to_owned();
    if let Some(version) = scheduled.get("postgres_version").and_then(Value::as_str) {
        text.push_str(&format!(" if version < {version}"));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_is_rounded_to_megabytes_with_halves_to_even() {
        for (lag, want) in [(0, 0), (524_287, 0), (524_288, 0), (524_289, 1), (1_572_864, 2), (2_621_440, 2)] {
            assert_eq!(megabytes(Lsn(7), Lsn(7 + lag)), want, "{lag}");
        }
        assert_eq!(megabytes(Lsn(8 << 20), Lsn(0)), 0, "a member ahead of the last known position does not lag");
    }
}
