//! From the configuration's words to those of `pgward_postgres`.

use std::path::{Path, PathBuf};

use pgward_core::config::{Credentials, EffectivePostgresql, LocalConfig, Secret};
use pgward_postgres::{ServerOutput, Settings};

/// What every operation on the server needs to know.
pub(super) fn settings(config: &LocalConfig, effective: &EffectivePostgresql, launcher: &Path) -> Settings {
    let postgresql = &config.postgresql;
    let authentication = &postgresql.authentication;
    Settings {
        name: config.name.clone(),
        scope: config.scope.clone(),
        data_dir: postgresql.data_dir.clone(),
        config_dir: postgresql.config_dir.clone(),
        config_base_name: postgresql.config_base_name.clone(),
        bin_dir: effective.bin_dir.clone(),
        bin_name: effective.bin_name.clone(),
        listen_hosts: postgresql.listen.hosts.clone(),
        port: postgresql.listen.port,
        database: effective.database.clone(),
        pgpass: postgresql.pgpass.clone().unwrap_or_else(default_pgpass),
        superuser: credentials(&authentication.superuser),
        replication: credentials(&authentication.replication),
        rewind: credentials(authentication.effective_rewind()),
        use_unix_socket: effective.use_unix_socket,
        use_unix_socket_repl: effective.use_unix_socket_repl,
        unix_socket_directories: effective.parameters.get("unix_socket_directories").cloned(),
        launcher: vec![launcher.into(), "__launch".into()],
        krbsrvname: effective.krbsrvname.clone(),
        server_output: ServerOutput::File,
    }
}

/// `~/pgpass`, without a dot, as Patroni has it; beside the data directory for a user without a home.
fn default_pgpass() -> PathBuf {
    std::env::var_os("HOME").map(PathBuf::from).unwrap_or_else(|| PathBuf::from("/tmp")).join("pgpass")
}

fn credentials(from: &Credentials) -> pgward_postgres::Credentials {
    let secret = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
    pgward_postgres::Credentials {
        username: from.username.clone(),
        password: secret(&from.password),
        sslmode: from.sslmode.clone(),
        sslcert: from.sslcert.clone(),
        sslkey: from.sslkey.clone(),
        sslpassword: secret(&from.sslpassword),
        sslrootcert: from.sslrootcert.clone(),
        sslcrl: from.sslcrl.clone(),
        sslcrldir: from.sslcrldir.clone(),
        gssencmode: from.gssencmode.clone(),
        channel_binding: from.channel_binding.clone(),
        sslnegotiation: from.sslnegotiation.clone(),
    }
}
