//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use super::UsageError;
use super::plan::Wishes;
use super::sheet::Format;

/// Shows a cluster, moves its leader, and explains what it decided.
#[derive(Debug, Parser)]
#[command(disable_version_flag = true, subcommand_required = true)]
pub(super) struct Arguments {
    /// Options of every command.
    #[command(flatten)]
    pub(super) global: Global,
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// Options that stand before the command.
#[derive(Debug, Args)]
pub(super) struct Global {
    /// The configuration file; a complete agent configuration works too. [default: ~/.config/patroni/patronictl.yaml]
    #[arg(short, long, value_name = "FILE", env = "PATRONICTL_CONFIG_FILE", hide_env_values = true)]
    pub(super) config_file: Option<PathBuf>,
    /// The store, such as etcd3://10.0.0.1:2379/service, instead of the one in the configuration
    #[arg(short, long, alias = "dcs", value_name = "URL", env = "DCS_URL", hide_env_values = true)]
    pub(super) dcs_url: Option<String>,
    /// Accept any certificate of the members' REST API
    #[arg(short = 'k', long)]
    pub(super) insecure: bool,
    /// How long the store may take to answer
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(super) timeout: Duration,
}

/// One command.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the members of a cluster
    List(ListArguments),
    /// Show the members of a cluster as a tree of who replicates from whom
    Topology(TopologyArguments),
    /// Hand the leadership over to another member, now or later
    Switchover(SwitchoverArguments),
    /// Give the leadership to a named member, even when there is no leader
    Failover(FailoverArguments),
    /// Show the timelines of a cluster
    History(HistoryArguments),
    /// Show the dynamic configuration
    ShowConfig(ClusterArguments),
    /// Change the dynamic configuration: in an editor, by options or from a file
    EditConfig(EditConfigArguments),
    /// Turn maintenance mode on: nothing is promoted, stopped or started
    Pause(SwitchArguments),
    /// Turn maintenance mode off
    Resume(SwitchArguments),
    /// Make members read their configuration files again
    Reload(ReloadArguments),
    /// Restart PostgreSQL on members, now or later
    Restart(RestartArguments),
    /// Copy replicas anew from the leader
    Reinit(ReinitArguments),
    /// Take scheduled restarts or a scheduled switchover back
    Flush(FlushArguments),
    /// Remove a cluster from the store, or a member that is gone for good
    Remove(RemoveArguments),
    /// Run SQL on a member
    Query(QueryArguments),
    /// Make a cluster the standby of another one
    DemoteCluster(DemoteClusterArguments),
    /// Make a standby cluster a cluster of its own
    PromoteCluster(PromoteClusterArguments),
    /// Print the address of a member for psql and other libpq programs
    Dsn(DsnArguments),
    /// Show the version of this command, and of the members of a cluster
    Version(VersionArguments),
    /// Tell what the members decided last and why, and who would take over now
    Explain(ExplainArguments),
    /// Try ahead what would happen if something were lost; nothing is touched
    #[command(group = clap::ArgGroup::new("loss").required(true).args(["lose", "lose_store", "partition"]))]
    WhatIf(WhatIfArguments),
    /// Write everything that a post-mortem needs into one archive
    Report(ReportArguments),
    /// A command that this version does not have.
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// Repeating a command.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Watch {
    /// Repeat every 2 seconds
    #[arg(short = 'W')]
    every_two_seconds: bool,
    /// Repeat every SECONDS
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    watch: Option<Duration>,
}

impl Watch {
    /// The pause between two repetitions; `None` for once.
    pub(super) fn pause(&self) -> Option<Duration> {
        self.watch.or(self.every_two_seconds.then_some(Duration::from_secs(2)))
    }
}

/// `--group`.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Group {
    /// The Citus group
    #[arg(long, value_name = "NUMBER")]
    pub(super) group: Option<u32>,
}

/// `list`.
#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// The clusters; the configured one when left out
    pub(super) clusters: Vec<String>,
    #[command(flatten)]
    pub(super) group: Group,
    /// Show all columns, also those without content
    #[arg(short, long)]
    pub(super) extended: bool,
    /// Print the time first
    #[arg(short, long)]
    pub(super) timestamp: bool,
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) format: Format,
    #[command(flatten)]
    pub(super) watch: Watch,
}

/// `topology`.
#[derive(Debug, Args)]
pub(super) struct TopologyArguments {
    /// The clusters; the configured one when left out
    pub(super) clusters: Vec<String>,
    #[command(flatten)]
    pub(super) group: Group,
    #[command(flatten)]
    pub(super) watch: Watch,
}

/// `switchover`.
#[derive(Debug, Args)]
pub(super) struct SwitchoverArguments {
    /// The cluster; the configured one when left out
    pub(super) cluster: Option<String>,
    #[command(flatten)]
    pub(super) group: Group,
    /// The member that leads now
    #[arg(long, visible_alias = "primary", value_name = "MEMBER")]
    pub(super) leader: Option<String>,
    /// The former name of --leader.
    #[arg(long, hide = true, conflicts_with = "leader", value_name = "MEMBER")]
    pub(super) master: Option<String>,
    /// The member that shall lead
    #[arg(long, value_name = "MEMBER")]
    pub(super) candidate: Option<String>,
    /// When, in ISO 8601; `now` for at once
    #[arg(long, value_name = "TIME")]
    pub(super) scheduled: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub(super) force: bool,
}

impl SwitchoverArguments {
    /// The part that the plan is made of.
    pub(super) fn wishes(&self) -> Wishes {
        let leader = self.leader.clone().or_else(|| self.master.clone());
        Wishes { leader, candidate: self.candidate.clone(), scheduled: self.scheduled.clone() }
    }
}

/// `failover`.
#[derive(Debug, Args)]
pub(super) struct FailoverArguments {
    /// The cluster; the configured one when left out
    pub(super) cluster: Option<String>,
    #[command(flatten)]
    pub(super) group: Group,
    /// The member that shall lead
    #[arg(long, value_name = "MEMBER")]
    pub(super) candidate: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub(super) force: bool,
}

/// `history`.
#[derive(Debug, Args)]
pub(super) struct HistoryArguments {
    /// The cluster; the configured one when left out
    pub(super) cluster: Option<String>,
    #[command(flatten)]
    pub(super) group: Group,
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) format: Format,
}

/// A command about one cluster without options of its own.
#[derive(Debug, Args)]
pub(super) struct ClusterArguments {
    /// The cluster; the configured one when left out
    pub(super) cluster: Option<String>,
    #[command(flatten)]
    pub(super) group: Group,
}

/// `edit-config`.
#[derive(Debug, Args)]
pub(super) struct EditConfigArguments {
    /// The cluster; the configured one when left out
    pub(super) cluster: Option<String>,
    #[command(flatten)]
    pub(super) group: Group,
    /// Do not show what changes
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Set a value; null removes it
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub(super) set: Vec<String>,
    /// Set a parameter of PostgreSQL; null removes it
    #[arg(short, long, value_name = "PARAMETER=VALUE")]
    pub(super) pg: Vec<String>,
    /// Merge a file into the configuration; - for the standard input
    #[arg(long, value_name = "FILE")]
    pub(super) apply: Option<PathBuf>,
    /// Replace the configuration by a file; - for the standard input
    #[arg(long, value_name = "FILE")]
    pub(super) replace: Option<PathBuf>,
    /// Do not ask
    #[arg(long)]
    pub(super) force: bool,
}

/// `pause` and `resume`.
#[derive(Debug, Args)]
pub(super) struct SwitchArguments {
    /// The cluster; the configured one when left out
    pub(super) cluster: Option<String>,
    #[command(flatten)]
    pub(super) group: Group,
    /// Wait until every member knows
    #[arg(long)]
    pub(super) wait: bool,
}

/// `reload`.
#[derive(Debug, Args)]
pub(super) struct ReloadArguments {
    /// The cluster and its members; all members when none is named
    #[arg(value_name = "CLUSTER MEMBER")]
    pub(super) words: Vec<String>,
    #[command(flatten)]
    pub(super) group: Group,
    /// Only members with this role
    #[arg(short, long, value_enum, default_value = "any")]
    pub(super) role: WantedRole,
    /// Do not ask
    #[arg(long)]
    pub(super) force: bool,
}

/// `restart`.
#[derive(Debug, Args)]
pub(super) struct RestartArguments {
    /// The cluster and its members; all members when none is named
    #[arg(value_name = "CLUSTER MEMBER")]
    pub(super) words: Vec<String>,
    #[command(flatten)]
    pub(super) group: Group,
    /// Only members with this role
    #[arg(short, long, value_enum, default_value = "any")]
    pub(super) role: WantedRole,
    /// Only one of them, by chance
    #[arg(long)]
    pub(super) any: bool,
    /// When, in ISO 8601; `now` for at once
    #[arg(long, value_name = "TIME")]
    pub(super) scheduled: Option<String>,
    /// Only when the server is older than this version
    #[arg(long, value_name = "VERSION")]
    pub(super) pg_version: Option<String>,
    /// Only when a parameter waits for a restart
    #[arg(long)]
    pub(super) pending: bool,
    /// How long the restart may take before the leadership is given away
    #[arg(long, value_name = "TIME")]
    pub(super) timeout: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub(super) force: bool,
}

/// `reinit`.
#[derive(Debug, Args)]
pub(super) struct ReinitArguments {
    /// The cluster and its members
    #[arg(value_name = "CLUSTER MEMBER")]
    pub(super) words: Vec<String>,
    #[command(flatten)]
    pub(super) group: Group,
    /// Wait until the copies are complete
    #[arg(long)]
    pub(super) wait: bool,
    /// Copy the leader, even when another member offers itself
    #[arg(long)]
    pub(super) from_leader: bool,
    /// Do not ask, and cancel what is under way
    #[arg(long)]
    pub(super) force: bool,
}

/// `flush`.
#[derive(Debug, Args)]
pub(super) struct FlushArguments {
    /// The cluster, its members, and at last `restart` or `switchover`
    #[arg(required = true, value_name = "CLUSTER MEMBER WHAT")]
    words: Vec<String>,
    #[command(flatten)]
    pub(super) group: Group,
    /// Only members with this role
    #[arg(short, long, value_enum, default_value = "any")]
    pub(super) role: WantedRole,
    /// Do not ask
    #[arg(long)]
    pub(super) force: bool,
}

/// What `flush` takes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Scheduled restarts of members.
    Restart,
    /// The scheduled switchover of the cluster.
    Switchover,
}

impl FlushArguments {
    /// The words before the last one, and what the last one says.
    ///
    /// # Errors
    /// When it says neither.
    pub(super) fn split(&self) -> Result<(Vec<String>, Flushed), UsageError> {
        let what = match self.words.last().map(String::as_str) {
            Some("restart") => Flushed::Restart,
            Some("switchover") => Flushed::Switchover,
            Some(_) | None => {
                return Err(UsageError("flush ends with what to take back: restart or switchover".to_owned()));
            }
        };
        Ok((self.words[..self.words.len() - 1].to_vec(), what))
    }
}

/// `remove`.
#[derive(Debug, Args)]
pub(super) struct RemoveArguments {
    /// The cluster
    pub(super) cluster: String,
    /// A stopped member, to remove only it
    pub(super) member: Option<String>,
    #[command(flatten)]
    pub(super) group: Group,
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) format: Format,
}

/// `query`.
#[derive(Debug, Args)]
pub(super) struct QueryArguments {
    /// The cluster; the configured one when left out
    pub(super) cluster: Option<String>,
    #[command(flatten)]
    pub(super) group: Group,
    /// The statement
    #[arg(short, long, value_name = "SQL")]
    pub(super) command: Option<String>,
    /// A file with the statement; - for the standard input
    #[arg(short, long)]
    pub(super) file: Option<PathBuf>,
    /// The role of the member [default: leader]
    #[arg(short, long, value_enum)]
    pub(super) role: Option<WantedRole>,
    /// The member
    #[arg(short, long, value_name = "MEMBER")]
    pub(super) member: Option<String>,
    /// The database
    #[arg(short, long)]
    pub(super) dbname: Option<String>,
    /// The user
    #[arg(short = 'U', long)]
    pub(super) username: Option<String>,
    /// Ask for the password
    #[arg(long)]
    pub(super) password: bool,
    #[arg(long, value_enum, default_value = "tsv")]
    pub(super) format: Format,
    /// What stands between the columns of tsv
    #[arg(long, default_value = "\t")]
    pub(super) delimiter: String,
    #[command(flatten)]
    pub(super) watch: Watch,
}

/// `demote-cluster`.
#[derive(Debug, Args)]
pub(super) struct DemoteClusterArguments {
    /// The cluster; the configured one when left out
    pub(super) cluster: Option<String>,
    /// The host or hosts to follow
    #[arg(long)]
    pub(super) host: Option<String>,
    /// The port to follow
    #[arg(long)]
    pub(super) port: Option<u16>,
    /// The command that fetches WAL from an archive
    #[arg(long, value_name = "COMMAND")]
    pub(super) restore_command: Option<String>,
    /// The replication slot to use there
    #[arg(long, value_name = "NAME")]
    pub(super) primary_slot_name: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub(super) force: bool,
}

/// `promote-cluster`.
#[derive(Debug, Args)]
pub(super) struct PromoteClusterArguments {
    /// The cluster; the configured one when left out
    pub(super) cluster: Option<String>,
    /// Do not ask
    #[arg(long)]
    pub(super) force: bool,
}

/// `dsn`.
#[derive(Debug, Args)]
pub(super) struct DsnArguments {
    /// The cluster; the configured one when left out
    pub(super) cluster: Option<String>,
    #[command(flatten)]
    pub(super) group: Group,
    /// The role of the member [default: leader]
    #[arg(short, long, value_enum)]
    pub(super) role: Option<WantedRole>,
    /// The member
    #[arg(short, long, value_name = "MEMBER")]
    pub(super) member: Option<String>,
}

/// `version`.
#[derive(Debug, Args)]
pub(super) struct VersionArguments {
    /// The cluster whose members to ask
    pub(super) cluster: Option<String>,
    /// Members to ask; all when left out
    pub(super) members: Vec<String>,
    #[command(flatten)]
    pub(super) group: Group,
}

/// The cluster, for commands whose arguments are something else.
#[derive(Debug, Args)]
pub(super) struct OfCluster {
    /// The cluster; the configured one when left out
    #[arg(long, value_name = "NAME")]
    pub(super) cluster: Option<String>,
    #[command(flatten)]
    pub(super) group: Group,
}

/// How an explanation is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Shape {
    /// Text for people.
    #[default]
    Pretty,
    /// One JSON object on one line.
    Json,
}

/// `explain`.
#[derive(Debug, Args)]
pub(super) struct ExplainArguments {
    /// A member, for its last decisions; all members and the last decision of each when left out
    pub(super) member: Option<String>,
    #[command(flatten)]
    pub(super) of: OfCluster,
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) format: Shape,
}

/// `what-if`.
#[derive(Debug, Args)]
pub(super) struct WhatIfArguments {
    /// The machine of this member
    #[arg(long, value_name = "MEMBER")]
    pub(super) lose: Option<String>,
    /// The store, for all members
    #[arg(long)]
    pub(super) lose_store: bool,
    /// These members are cut off from the store and from the others, not from each other
    #[arg(long, value_name = "MEMBER,...", value_delimiter = ',')]
    pub(super) partition: Vec<String>,
    #[command(flatten)]
    pub(super) of: OfCluster,
    #[arg(short, long, value_enum, default_value_t)]
    pub(super) format: Shape,
}

/// `report`.
#[derive(Debug, Args)]
pub(super) struct ReportArguments {
    /// The archive [default: pgward-report-CLUSTER-TIME.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// A log whose end to add; the agent's own is found by `log.dir` when -c names its configuration
    #[arg(long, value_name = "FILE")]
    pub(super) log: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) of: OfCluster,
}

/// A role that a member is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum WantedRole {
    /// Holds the leader key.
    Leader,
    /// Holds the leader key and does not call itself the leader of a standby cluster.
    Primary,
    /// Holds the leader key and does not call itself a primary.
    StandbyLeader,
    /// Any other member.
    Replica,
    /// Any other member.
    Standby,
    /// Any member.
    Any,
}

impl WantedRole {
    /// As it is typed.
    pub(super) fn word(self) -> &'static str {
        match self {
            WantedRole::Leader => "leader",
            WantedRole::Primary => "primary",
            WantedRole::StandbyLeader => "standby-leader",
            WantedRole::Replica => "replica",
            WantedRole::Standby => "standby",
            WantedRole::Any => "any",
        }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.trim().parse().map_err(|_| "not a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| "not a positive number of seconds".to_owned())
}
