//! From the configuration's words to those of `pgward_postgres`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use pgward_core::config::{Credentials, EffectivePostgresql, LocalConfig, Secret};
use pgward_postgres::{ServerOutput, Settings};

use crate::run::beside;

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
        pgpass: postgresql
            .pgpass
            .clone()
            .unwrap_or_else(|| default_pgpass(&postgresql.data_dir, std::env::var_os("HOME"))),
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
///
/// Never in `/tmp`: whoever makes the file there first can read what is written into it.
fn default_pgpass(data_dir: &Path, home: Option<OsString>) -> PathBuf {
    match home.filter(|home| !home.is_empty()) {
        Some(home) => PathBuf::from(home).join("pgpass"),
        None => beside(data_dir, ".pgpass"),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_a_home_has_its_passwords_beside_the_data() {
        let data_dir = Path::new("/var/lib/pg/data/");
        assert_eq!(default_pgpass(data_dir, Some("/home/pg".into())), Path::new("/home/pg/pgpass"));
        for none in [None, Some(OsString::new())] {
            assert_eq!(default_pgpass(data_dir, none), Path::new("/var/lib/pg/data.pgpass"));
        }
    }
}
