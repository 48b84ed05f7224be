//! Creating a new cluster: initdb, roles, and the script of the user.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::client::{ConnectOptions, Connection, identifier, literal};
use crate::command::{Tool, ToolOutput, split_words};
use crate::error::{Error, SqlError};
use crate::instance::Instance;
use crate::secret::{Login, write_secret};
use crate::settings::Credentials;

/// Options for `initdb`: a name, and a value where it takes one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InitdbOptions {
    /// Such as `("encoding", Some("UTF8"))` and `("data-checksums", None)`.
    pub options: Vec<(String, Option<String>)>,
}

/// What a role is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleKind {
    /// Everything.
    Superuser,
    /// Streaming.
    Replication,
    /// Only what is granted to it.
    Plain,
}

/// Options that the agent gives itself, or that would hide an error.
const INITDB_FORBIDDEN: [&str; 5] = ["pgdata", "nosync", "pwfile", "sync-only", "version"];

/// Roles are created while nobody else works.
const ROLE_LIMIT: Duration = Duration::from_secs(30);

/// Keeps passwords out of every log, and does not wait for standbys that do not exist yet.
const SECRECY: [&str; 6] = [
    "SET synchronous_commit = 'local'",
    "SET log_statement = 'none'",
    "SET log_min_duration_statement = -1",
    "SET log_min_error_statement = 'log'",
    "SET \"pg_stat_statements.track_utility\" = 'off'",
    "SET \"pgaudit.log\" = 'none'",
];

/// What pg_rewind reads on the server it copies from.
const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_ls_dir(text, boolean, boolean)",
    "pg_stat_file(text, boolean)",
    "pg_read_binary_file(text)",
    "pg_read_binary_file(text, bigint, bigint, boolean)",
];

impl Instance {
    /// Creates a cluster in the empty data directory, with the configured superuser and password.
    ///
    /// # Errors
    /// The end of initdb's output.
    pub async fn bootstrap_initdb(
        &self,
        options: &InitdbOptions,
        cancel: &CancellationToken,
    ) -> Result<ToolOutput, Error> {
        let settings = self.settings();
        let mut tool = Tool::new(&settings, "initdb").cancelled_by(cancel);
        for (name, value) in &options.options {
            if INITDB_FORBIDDEN.contains(&name.as_str()) {
                warn!(option = name, "this option of initdb is set by the agent and ignored");
                continue;
            }
            tool = tool.arg(option(name, value.as_deref()));
        }
        if let Some(user) = &settings.superuser.username {
            tool = tool.arg(format!("--username={user}"));
        }
        let password = settings.superuser.password.as_ref();
        let pwfile = password.map(|password| password_file(&settings.pgpass, password)).transpose()?;
        if let Some(path) = &pwfile {
            let mut argument = std::ffi::OsString::from("--pwfile=");
            argument.push(path);
            tool = tool.arg(argument);
        }
        let result = tool.arg(&settings.data_dir).run().await;
        if let Some(path) = pwfile {
            let _ = std::fs::remove_file(path);
        }
        Ok(result?)
    }

    /// Creates or changes the roles of a new cluster (6): the superuser, the replication user, and the rewind user with
    /// its grants when it is not the superuser.
    ///
    /// # Errors
    /// When the server refuses, or does not answer.
    pub async fn create_roles(&self) -> Result<(), SqlError> {
        let settings = self.settings();
        let mut connection = self.role_connection().await?;
        let rewind = &settings.rewind;
        let is_own_user = rewind.username.is_some() && rewind.username != settings.superuser.username;
        if settings.superuser.username.is_some() {
            create_role(&mut connection, &settings.superuser, RoleKind::Superuser).await?;
        }
        create_role(&mut connection, &settings.replication, RoleKind::Replication).await?;
        if is_own_user {
            let is_replication_user = rewind.username == settings.replication.username;
            let kind = if is_replication_user { RoleKind::Replication } else { RoleKind::Plain };
            create_role(&mut connection, rewind, kind).await?;
            let user = identifier(rewind.username.as_deref().unwrap_or_default());
            for function in REWIND_FUNCTIONS {
                connection.query(&format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {user}")).await?;
            }
        }
        connection.close().await;
        Ok(())
    }

    /// Creates or changes one role.
    ///
    /// # Errors
    /// When the server refuses, or does not answer.
    pub async fn create_role(&self, role: &Credentials, kind: RoleKind) -> Result<(), SqlError> {
        let mut connection = self.role_connection().await?;
        create_role(&mut connection, role, kind).await?;
        connection.close().await;
        Ok(())
    }

    async fn role_connection(&self) -> Result<Connection, SqlError> {
        let options = ConnectOptions {
            application_name: "pgward bootstrap".to_owned(),
            statement_timeout: Some(ROLE_LIMIT),
            ..ConnectOptions::default()
        };
        let mut connection = Connection::open(&self.settings().local(), &options).await?;
        for setting in SECRECY {
            match connection.query(setting).await {
                Ok(_) => {}
                // An extension may refuse its own setting; passwords it logs then are its business.
                Err(error @ SqlError::Server { .. }) if connection.is_usable() => {
                    warn!(%error, setting, "cannot keep passwords out of the log with a setting");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(connection)
    }

    /// Runs a script of the user, such as `pre_promote`, with arguments appended to its own. No shell is involved.
    ///
    /// # Errors
    /// As [`Instance::run_post_bootstrap`].
    pub async fn run_script(
        &self,
        command: &str,
        what: &str,
        arguments: &[&str],
        cancel: &CancellationToken,
    ) -> Result<ToolOutput, Error> {
        Ok(Tool::of_words(command, what)?.args(arguments).cancelled_by(cancel).run().await?)
    }

    /// Runs the user's `post_bootstrap` command with the connection string of the superuser as its argument.
    ///
    /// # Errors
    /// The end of its output when it fails; [`Error::Refused`] for a command line that cannot be split into words.
    pub async fn run_post_bootstrap(&self, command: &str, cancel: &CancellationToken) -> Result<ToolOutput, Error> {
        let settings = self.settings();
        let mut target = settings.local();
        target.host = target.host.or_else(|| Some("localhost".to_owned()));
        let conninfo = target.render_for_tool(self.require_major()?);
        let mut tool = Tool::of_words(command, "post_bootstrap")?
            .arg(conninfo)
            .env("PGOPTIONS", "-c synchronous_commit=local -c statement_timeout=0")
            .cancelled_by(cancel);
        // Both files are there as long as it runs.
        let login = Login::prepare(&settings, &target)?;
        tool = tool.login(&login);
        Ok(tool.run().await?)
    }
}

async fn create_role(connection: &mut Connection, role: &Credentials, kind: RoleKind) -> Result<(), SqlError> {
    let Some(name) = role.username.as_deref() else { return Ok(()) };
    let rows = connection.query(&format!("SELECT FROM pg_roles WHERE rolname = {}", literal(name))).await?;
    let verb = if rows.is_empty() { "CREATE" } else { "ALTER" };
    let attribute = match kind {
        RoleKind::Superuser => " SUPERUSER",
        RoleKind::Replication => " REPLICATION",
        RoleKind::Plain => "",
    };
    let password = role.password.as_deref().map(|password| format!(" PASSWORD {}", literal(password)));
    let user = identifier(name);
    connection.query(&format!("{verb} ROLE {user} WITH LOGIN{attribute}{}", password.unwrap_or_default())).await?;
    Ok(())
}

/// `--name` or `--name=value`.
pub(crate) fn option(name: &str, value: Option<&str>) -> String {
    value.map_or_else(|| format!("--{name}"), |value| format!("--{name}={value}"))
}

/// A file that only its owner may read, beside the password file.
fn password_file(pgpass: &Path, password: &str) -> Result<PathBuf, Error> {
    let mut path = pgpass.as_os_str().to_owned();
    path.push(".initdb");
    let path = PathBuf::from(path);
    write_secret(&path, &format!("{password}\n"))?;
    Ok(path)
}

impl Tool {
    /// A command line of the user, split into words and run without a shell.
    pub(crate) fn of_words(line: &str, what: &str) -> Result<Tool, Error> {
        let unreadable = || Error::Refused(format!("{what}: the command {line:?} has no end to a quote, or is empty"));
        let words = split_words(line).ok_or_else(unreadable)?;
        let (program, arguments) = words.split_first().ok_or_else(unreadable)?;
        Ok(Tool::of(program.into(), what.to_owned()).args(arguments))
    }
}
