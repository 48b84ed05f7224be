//! Where the local server lives, how to reach it, and as whom.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use pgward_core::names::MemberName;

use crate::conninfo::ConnInfo;

/// What every operation on the local server needs to know. Constant for one configuration; a reload replaces it whole.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This member: `application_name` of its replication connection and, mangled, its slot on others.
    pub name: MemberName,
    /// The cluster's name, passed to custom scripts.
    pub scope: String,
    /// `PGDATA`.
    pub data_dir: PathBuf,
    /// Where `postgresql.conf` lives; usually the data directory.
    pub config_dir: PathBuf,
    /// Stem of the main configuration file, `postgresql` unless configured.
    pub config_base_name: String,
    /// Where the server's programs are; `None` searches `PATH`.
    pub bin_dir: Option<PathBuf>,
    /// Programs under other names: tool to file name.
    pub bin_name: BTreeMap<String, String>,
    /// The hosts of `postgresql.listen`.
    pub listen_hosts: Vec<String>,
    /// The port of `postgresql.listen`.
    pub port: u16,
    /// The maintenance database.
    pub database: String,
    /// The password file that the server itself reads for its replication connection.
    pub pgpass: PathBuf,
    /// The superuser.
    pub superuser: Credentials,
    /// The replication user.
    pub replication: Credentials,
    /// Who connects for pg_rewind; equal to the superuser when not configured.
    pub rewind: Credentials,
    /// Reach the local server through its socket.
    pub use_unix_socket: bool,
    /// The same for local replication connections.
    pub use_unix_socket_repl: bool,
    /// The `unix_socket_directories` parameter, when set.
    pub unix_socket_directories: Option<String>,
    /// The command prefix that starts a detached process, such as `[current_exe, "__launch"]`: see [`crate::launch_main`].
    pub launcher: Vec<OsString>,
    /// The Kerberos service name.
    pub krbsrvname: Option<String>,
    /// Where the server's own output goes until its logging collector takes over.
    pub server_output: ServerOutput,
}

/// Where the output of the server goes as long as it does not collect its log itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerOutput {
    /// To a file in the data directory, from which the reason of a failed start is read. See
    /// [`crate::Instance::trim_server_output`].
    #[default]
    File,
    /// To wherever the agent's standard error goes. The reason of a failed start is then only there.
    Inherit,
}

/// A user of PostgreSQL and how it connects. Names are those of libpq.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User name; `None` leaves the choice to the operating system's user.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// `disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`.
    pub sslmode: Option<String>,
    /// Client certificate file.
    pub sslcert: Option<String>,
    /// Client key file.
    pub sslkey: Option<String>,
    /// Password of the client key.
    pub sslpassword: Option<String>,
    /// File of trusted certificates.
    pub sslrootcert: Option<String>,
    /// Revocation list.
    pub sslcrl: Option<String>,
    /// Directory of revocation lists.
    pub sslcrldir: Option<String>,
    /// `gssencmode`.
    pub gssencmode: Option<String>,
    /// `channel_binding`.
    pub channel_binding: Option<String>,
    /// `sslnegotiation`, 17 and later.
    pub sslnegotiation: Option<String>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .field("sslmode", &self.sslmode)
            .finish_non_exhaustive()
    }
}

impl Settings {
    /// How to reach the local server for SQL as the superuser.
    pub fn local(&self) -> ConnInfo {
        self.local_as(self.superuser.clone(), self.use_unix_socket)
    }

    /// How to reach the local server as the replication user.
    pub fn local_replication(&self) -> ConnInfo {
        self.local_as(self.replication.clone(), self.use_unix_socket_repl)
    }

    fn local_as(&self, credentials: Credentials, unix_socket: bool) -> ConnInfo {
        let host = if unix_socket { self.socket_host() } else { Some(self.tcp_host()) };
        ConnInfo { host, port: self.port, database: Some(self.database.clone()), credentials, ..ConnInfo::default() }
    }

    /// The first absolute socket directory; TCP when the parameter is set without a usable one; libpq's default else.
    fn socket_host(&self) -> Option<String> {
        let directories = self.unix_socket_directories.as_ref()?;
        let first = directories.split(',').map(str::trim).find(|directory| directory.starts_with('/'));
        Some(first.map_or_else(|| self.tcp_host(), str::to_owned))
    }

    fn tcp_host(&self) -> String {
        let reaches_localhost = |host: &String| matches!(host.as_str(), "*" | "localhost" | "0.0.0.0" | "127.0.0.1");
        match self.listen_hosts.first() {
            Some(first) if !self.listen_hosts.iter().any(reaches_localhost) => match first.parse::<IpAddr>() {
                Ok(address) if address.is_unspecified() => "localhost".to_owned(),
                Ok(_) | Err(_) => first.clone(),
            },
            Some(_) | None => "localhost".to_owned(),
        }
    }

    /// The path of one of the server's programs.
    pub(crate) fn program(&self, tool: &str) -> PathBuf {
        let name = self.bin_name.get(tool).map_or(tool, String::as_str);
        self.bin_dir.as_ref().map_or_else(|| PathBuf::from(name), |directory| directory.join(name))
    }

    /// `postgresql.conf`.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.config_dir.join(format!("{}.conf", self.config_base_name))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A server below `/nonexistent`.
    pub(crate) fn settings() -> Settings {
        Settings {
            name: "n1".parse().unwrap(),
            scope: "demo".into(),
            data_dir: "/nonexistent/data".into(),
            config_dir: "/nonexistent/data".into(),
            config_base_name: "postgresql".into(),
            bin_dir: None,
            bin_name: BTreeMap::new(),
            listen_hosts: vec!["127.0.0.1".into()],
            port: 5432,
            database: "postgres".into(),
            pgpass: "/nonexistent/pgpass".into(),
            superuser: Credentials { username: Some("postgres".into()), ..Credentials::default() },
            replication: Credentials { username: Some("replicator".into()), ..Credentials::default() },
            rewind: Credentials { username: Some("postgres".into()), ..Credentials::default() },
            use_unix_socket: false,
            use_unix_socket_repl: false,
            unix_socket_directories: None,
            launcher: vec![],
            krbsrvname: None,
            server_output: ServerOutput::File,
        }
    }

    #[test]
    fn the_local_address_follows_listen_and_socket_settings() {
        let with = |hosts: &[&str], socket: bool, directories: Option<&str>| Settings {
            listen_hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
            use_unix_socket: socket,
            unix_socket_directories: directories.map(str::to_owned),
            ..settings()
        };
        for (name, settings, want) in [
            ("a star listens on localhost too", with(&["*"], false, None), Some("localhost")),
            ("one loopback among others is enough", with(&["10.0.0.1", "127.0.0.1"], false, None), Some("localhost")),
            ("else the first address", with(&["10.0.0.1", "10.0.0.2"], false, None), Some("10.0.0.1")),
            ("the any-address of IPv6 cannot be dialled", with(&["::"], false, None), Some("localhost")),
            ("the first absolute directory", with(&["*"], true, Some("@x, /run/a, /run/b")), Some("/run/a")),
            ("no usable directory falls back to TCP", with(&["10.0.0.1"], true, Some("")), Some("10.0.0.1")),
            ("no parameter leaves it to libpq", with(&["*"], true, None), None),
        ] {
            assert_eq!(settings.local().host.as_deref(), want, "{name}");
        }
    }
}
