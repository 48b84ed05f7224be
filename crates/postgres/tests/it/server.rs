//! A server in a directory of its own, and the way to run a test as an ordinary user.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pgward_postgres::{
    ConnInfo, Credentials, InitdbOptions, Instance, Postmaster, RecoverySettings, Replace, ServerConfig, ServerOutput,
    Settings, StartOutcome, StopMode, StopOptions,
};
use tokio_util::sync::CancellationToken;

/// Long enough for a machine that is busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Runs `test` as an ordinary user: PostgreSQL refuses to run as root. As root, the test executable is started once more
/// as the user `postgres`, for the one test `name`.
pub(crate) fn as_ordinary_user(name: &str, test: impl AsyncFnOnce()) {
    let executable = std::env::current_exe().unwrap();
    if rustix::process::geteuid().is_root() {
        let status = Command::new("setpriv")
            .args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--"])
            .arg(executable)
            .args(["--exact", name, "--nocapture"])
            .env("HOME", "/nonexistent")
            .status()
            .expect("setpriv of util-linux");
        assert!(status.success(), "see above");
        return;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(test());
}

/// Where the server's programs are.
fn bin_dir() -> PathBuf {
    if let Some(directory) = std::env::var_os("PG_BIN") {
        return directory.into();
    }
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).max();
    let newest = newest.expect("no PostgreSQL below /usr/lib/postgresql: install one or set PG_BIN");
    format!("/usr/lib/postgresql/{newest}/bin").into()
}

/// One of the server's programs.
pub(crate) fn program(name: &str) -> PathBuf {
    bin_dir().join(name)
}

fn launcher() -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    let target = executable.parent().and_then(Path::parent).unwrap();
    target.join("examples/launch")
}

/// A server and what it is configured with. It is killed when this is dropped.
pub(crate) struct Server {
    pub(crate) instance: Instance,
    pub(crate) config: ServerConfig,
    pub(crate) root: tempfile::TempDir,
    pub(crate) port: u16,
}

impl Server {
    /// Nothing on disk yet.
    pub(crate) fn new(name: &str) -> Server {
        let root = tempfile::Builder::new().prefix("pgward-postgres-").tempdir_in("/tmp").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = |name: &str| root.path().join(name);
        let user = |name: &str, password: &str| Credentials {
            username: Some(name.into()),
            password: Some(password.into()),
            ..Credentials::default()
        };
        let settings = Settings {
            name: name.parse().unwrap(),
            scope: "test".into(),
            data_dir: at("data"),
            config_dir: at("data"),
            config_base_name: "postgresql".into(),
            bin_dir: Some(bin_dir()),
            bin_name: BTreeMap::new(),
            listen_hosts: vec!["127.0.0.1".into()],
            port,
            database: "postgres".into(),
            pgpass: at("pgpass"),
            superuser: user("admin", "a:d\\m'in $$"),
            replication: user("replicator", "rep"),
            rewind: user("rewinder", "rew"),
            use_unix_socket: false,
            use_unix_socket_repl: false,
            unix_socket_directories: None,
            launcher: vec![launcher().into()],
            krbsrvname: None,
            server_output: ServerOutput::File,
        };
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let port_text = port.to_string();
        let command_line = owned(&[
            ("listen_addresses", "127.0.0.1"),
            ("port", &port_text),
            ("cluster_name", "test"),
            ("wal_level", "replica"),
            ("hot_standby", "on"),
            ("max_connections", "30"),
            ("max_wal_senders", "5"),
            ("wal_log_hints", "on"),
        ]);
        let file_only = owned(&[
            ("unix_socket_directories", &root.path().display().to_string()),
            ("shared_buffers", "16MB"),
            ("fsync", "off"),
            ("wal_keep_size", "64MB"),
        ]);
        let config = ServerConfig {
            parameters: command_line.iter().cloned().chain(file_only).collect(),
            command_line,
            hba: Some(vec![
                "host all all 127.0.0.1/32 scram-sha-256".into(),
                "host replication replicator 127.0.0.1/32 scram-sha-256".into(),
                "local all all trust".into(),
            ]),
            ..ServerConfig::default()
        };
        Server { instance: Instance::new(settings), config, root, port }
    }

    /// A new cluster, running, with its roles.
    pub(crate) async fn bootstrapped(name: &str) -> Server {
        Server::new(name).bootstrap().await
    }

    /// The same for a server whose configuration was changed.
    pub(crate) async fn bootstrap(self) -> Server {
        let options =
            InitdbOptions { options: vec![("encoding".into(), Some("UTF8".into())), ("no-sync".into(), None)] };
        self.instance.bootstrap_initdb(&options, &CancellationToken::new()).await.unwrap();
        self.start().await;
        self.instance.create_roles().await.unwrap();
        self
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.config.parameters.insert(name.into(), value.into());
    }

    pub(crate) async fn start(&self) -> Postmaster {
        match self.instance.start(&self.config, LIMIT).await.unwrap() {
            StartOutcome::Accepting(postmaster) => postmaster,
            other @ (StartOutcome::Starting(_) | StartOutcome::Failed { .. }) => panic!("{other:?}"),
        }
    }

    pub(crate) async fn stop(&self) {
        let options = StopOptions { timeout: Some(LIMIT), ..StopOptions::default() };
        self.instance.stop(&options, None).await.unwrap();
    }

    /// How `user` of the settings reaches this server.
    pub(crate) fn address(&self, credentials: &Credentials) -> ConnInfo {
        ConnInfo {
            host: Some("127.0.0.1".into()),
            port: self.port,
            database: Some("postgres".into()),
            credentials: credentials.clone(),
            ..ConnInfo::default()
        }
    }

    /// Recovery settings of a standby of this server.
    pub(crate) fn as_upstream(&self) -> RecoverySettings {
        let primary = Some(self.address(&self.instance.settings().replication));
        RecoverySettings { primary, ..RecoverySettings::default() }
    }

    /// A running standby of this server.
    pub(crate) async fn standby(&self, name: &str) -> Server {
        let mut standby = Server::new(name);
        let source = self.address(&self.instance.settings().replication);
        let options = pgward_postgres::BasebackupOptions { options: vec![("checkpoint".into(), Some("fast".into()))] };
        let cancel = CancellationToken::new();
        standby.instance.clone_from(&source, Replace::Nothing, &options, None, &cancel).await.unwrap();
        standby.config.recovery = Some(self.as_upstream());
        standby.start().await;
        standby
    }

    pub(crate) async fn sql(&self, sql: &str) -> String {
        let rows = self.instance.query(sql).await.unwrap();
        rows.first().and_then(|row| row.text(0)).unwrap_or_default().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let instance = self.instance.clone();
        let kill = async move {
            let options = StopOptions { mode: StopMode::Immediate, ..StopOptions::default() };
            let _ = instance.stop(&options, None).await;
            let _ = instance.kill_leftovers(LIMIT).await;
        };
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(kill);
        };
        std::thread::spawn(run).join().unwrap();
    }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + LIMIT;
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
