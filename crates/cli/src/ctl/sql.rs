//! Connects to a member's PostgreSQL as libpq would: with its variables and its password file (PostgreSQL manual,
//! sections 34.15 and 34.16).

use std::path::PathBuf;
use std::time::Duration;

use pgward_core::cluster::Member;
use pgward_postgres::{Answer, ConnInfo, ConnectOptions, Connection, Credentials, SqlError};

use super::world::{Login, QueryFailed};

/// How long a member may take to let us in.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Runs SQL on a member, without a limit of time: whoever waits for it can interrupt it.
pub(super) async fn run(
    member: &Member,
    login: &Login,
    recovers: Option<bool>,
    sql: &str,
) -> Result<Vec<Answer>, QueryFailed> {
    let address = member.address().ok_or_else(|| QueryFailed::NotConnected("it has no conn_url".to_owned()))?;
    let info = target(&address.host, address.port, login, &|name| std::env::var(name).ok());
    let options = ConnectOptions {
        application_name: "Patroni ctl".to_owned(),
        replication: false,
        statement_timeout: None,
        limit: CONNECT_LIMIT,
    };
    let mut connection = Connection::open(&info, &options).await.map_err(not_connected)?;
    if let Some(recovers) = recovers {
        let rows = connection.query("SELECT pg_is_in_recovery()").await.map_err(not_connected)?;
        if rows.first().is_none_or(|row| row.is_true(0) != recovers) {
            return Err(QueryFailed::NotConnected("it is not what was asked for".to_owned()));
        }
    }
    let answers = connection.answers(sql).await.map_err(|error| match error {
        SqlError::Server { code, .. } => QueryFailed::Refused { code },
        SqlError::Unreachable { .. }
        | SqlError::Timeout { .. }
        | SqlError::Protocol { .. }
        | SqlError::Tls { .. }
        | SqlError::Login { .. } => QueryFailed::Refused { code: error.to_string() },
    })?;
    connection.close().await;
    Ok(answers)
}

fn not_connected(error: SqlError) -> QueryFailed {
    QueryFailed::NotConnected(error.to_string())
}

fn target(host: &str, port: u16, login: &Login, variable: &dyn Fn(&str) -> Option<String>) -> ConnInfo {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let user = login.user.clone().or_else(|| variable("PGUSER")).or_else(|| variable("USER"));
    let user = user.unwrap_or_else(|| "postgres".to_owned());
    let database = login.database.clone().or_else(|| variable("PGDATABASE")).unwrap_or_else(|| user.clone());
    let file = || {
        let path = variable("PGPASSFILE").map(PathBuf::from);
        let path = path.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".pgpass")))?;
        let lines = std::fs::read_to_string(path).ok()?;
        password_in(&lines, [host, &port.to_string(), &database, &user])
    };
    let password = login.password.clone().or_else(|| variable("PGPASSWORD")).or_else(file);
    ConnInfo {
        host: Some(host.to_owned()),
        port,
        database: Some(database),
        credentials: Credentials {
            username: Some(user),
            password,
            sslmode: variable("PGSSLMODE"),
            sslcert: variable("PGSSLCERT"),
            sslkey: variable("PGSSLKEY"),
            sslrootcert: variable("PGSSLROOTCERT"),
            sslcrl: variable("PGSSLCRL"),
            ..Credentials::default()
        },
        target_session_attrs: None,
    }
}

/// The password of the first line of a password file that fits.
fn password_in(lines: &str, wanted: [&str; 4]) -> Option<String> {
    lines.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let password = fields.get(4)?;
        let fits = fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
        fits.then(|| password.clone())
    })
}

/// The fields of a line, whose colons and backslashes are escaped by a backslash.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let taken = match character {
            ':' if fields.len() < 5 => {
                fields.push(String::new());
                continue;
            }
            '\\' => characters.next(),
            other => Some(other),
        };
        if let (Some(taken), Some(field)) = (taken, fields.last_mut()) {
            field.push(taken);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_file_is_read_as_libpq_reads_it() {
        let lines = "# n1:5432:*:app:no\nn1:5432:db:app:first\n*:5432:*:we\\:ird:a\\\\b:c\nn1:*:*:app:any\n";
        for (wanted, password) in [
            (["n1", "5432", "db", "app"], Some("first")),
            (["n1", "5432", "other", "app"], Some("any")),
            (["n2", "5432", "db", "we:ird"], Some("a\\b:c")),
            (["n2", "5433", "db", "we:ird"], None),
        ] {
            assert_eq!(password_in(lines, wanted).as_deref(), password, "{wanted:?}");
        }
    }

    #[test]
    fn what_is_left_out_comes_from_the_variables_of_libpq() {
        let variable = |name: &str| match name {
            "PGUSER" => Some("app".to_owned()),
            "PGPASSWORD" => Some("secret".to_owned()),
            "PGSSLMODE" => Some(String::new()),
            _ => None,
        };
        let info = target("n1", 5433, &Login::default(), &variable);
        assert_eq!((info.user(), info.database.as_deref(), info.port), ("app", Some("app"), 5433));
        assert_eq!((info.credentials.password.as_deref(), info.credentials.sslmode), (Some("secret"), None));
        let login = Login { user: Some("me".into()), database: Some("db".into()), password: Some("typed".into()) };
        let info = target("n1", 5433, &login, &variable);
        let found = (info.user(), info.database.as_deref(), info.credentials.password.as_deref());
        assert_eq!(found, ("me", Some("db"), Some("typed")));
    }
}
