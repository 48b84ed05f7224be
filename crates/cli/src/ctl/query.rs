//! `query`: runs SQL on a member that was chosen by name or by role.

use anyhow::bail;
use pgward_core::cluster::{Cluster, Member};
use serde_json::Value;

use super::args::{QueryArguments, WantedRole};
use super::dsn::has_role;
use super::schedule;
use super::sheet::{Column, EmptyCells, Format, Sheet};
use super::terminal::{Terminal, hidden};
use super::world::{ClusterName, Login, QueryFailed, World};

/// Object identifiers of types that are no text in JSON and YAML (`pg_type.dat`).
const BOOL: u32 = 16;
const INTEGERS: [u32; 4] = [20, 21, 23, 26];
const FLOATS: [u32; 2] = [700, 701];

/// Runs the statement once, or again and again.
///
/// # Errors
/// When the arguments contradict each other, or the store cannot be read. What the server answers is printed.
pub(super) async fn query(
    wanted: &QueryArguments,
    name: &ClusterName,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> anyhow::Result<()> {
    if wanted.role.is_some() && wanted.member.is_some() {
        bail!("--role and --member are mutually exclusive options");
    }
    let sql = match (&wanted.command, &wanted.file) {
        (Some(_), Some(_)) => bail!("--file and --command are mutually exclusive options"),
        (None, None) => bail!("You need to specify either --command or --file"),
        (Some(command), None) => command.clone(),
        (None, Some(file)) => world.read_text(file)?,
    };
    let login = Login {
        user: wanted.username.clone(),
        database: wanted.dbname.clone(),
        password: if wanted.password { Some(hidden(terminal, "Password")?) } else { None },
    };
    loop {
        let cluster = world.read(name).await?;
        let text = match run(wanted, &cluster, &login, &sql, world, terminal).await {
            Ok(sheet) => match wanted.format {
                Format::Tsv => sheet.separated(&wanted.delimiter),
                format @ (Format::Pretty | Format::Json | Format::Yaml) => sheet.print(format, None),
            },
            Err(problem) => format!("{}{}{problem}\n", schedule::seconds(&world.now()), wanted.delimiter),
        };
        terminal.print(&text)?;
        let Some(pause) = wanted.watch.pause() else { return Ok(()) };
        world.sleep(pause).await;
    }
}

/// The answer of the first member that can be asked.
async fn run(
    wanted: &QueryArguments,
    cluster: &Cluster,
    login: &Login,
    sql: &str,
    world: &impl World,
    terminal: &mut impl Terminal,
) -> Result<Sheet, String> {
    let role = wanted.role.unwrap_or(WantedRole::Leader);
    let is_chosen = |member: &&Member| match &wanted.member {
        Some(name) => member.name.as_str() == name,
        None => has_role(cluster, member, role),
    };
    let recovers = match (&wanted.member, role) {
        (Some(_), _) | (None, WantedRole::Any | WantedRole::Leader | WantedRole::StandbyLeader) => None,
        (None, WantedRole::Replica | WantedRole::Standby) => Some(true),
        (None, WantedRole::Primary) => Some(false),
    };
    for member in cluster.members.values().filter(is_chosen) {
        match world.query(member, login, recovers, sql).await {
            Ok(answer) => return Ok(sheet(answer)),
            Err(QueryFailed::Refused { code }) => return Err(format!("ERROR, SQLSTATE: {code}")),
            Err(QueryFailed::NotConnected(why)) => {
                let now = schedule::seconds(&world.now());
                terminal.warn(&format!("{now} - WARNING - member {}: {why}", member.name));
            }
        }
    }
    Err(match (&wanted.member, wanted.role) {
        (Some(member), _) => format!("No connection to member {member} is available"),
        (None, Some(role)) => format!("No connection to role {} is available", role.word()),
        (None, None) => "No connection is available".to_owned(),
    })
}

/// The answer to the last of the statements that has columns.
fn sheet(answers: Vec<pgward_postgres::Answer>) -> Sheet {
    let answer = answers.into_iter().rev().find(|answer| !answer.columns.is_empty()).unwrap_or_default();
    let value = |text: Option<&str>, type_oid: u32| {
        let Some(text) = text else { return Value::Null };
        let number = match type_oid {
            BOOL => Some(Value::Bool(text == "t")),
            oid if INTEGERS.contains(&oid) => text.parse::<i64>().ok().map(Value::from),
            oid if FLOATS.contains(&oid) => text.parse::<f64>().ok().filter(|float| float.is_finite()).map(Value::from),
            _ => None,
        };
        number.unwrap_or_else(|| Value::from(text))
    };
    let cells = |row: &pgward_postgres::Row| {
        answer.columns.iter().enumerate().map(|(at, column)| value(row.text(at), column.type_oid)).collect()
    };
    let rows = answer.rows.iter().map(cells).collect();
    let column = |column: &pgward_postgres::Column| Column {
        name: column.name.clone().into(),
        title: column.name.clone().into(),
        ..Column::left("")
    };
    Sheet { columns: answer.columns.iter().map(column).collect(), rows, empty_cells: EmptyCells::Keep }
}
