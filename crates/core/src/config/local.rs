//! The local configuration: what one member reads from its own file and environment.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::address::{HostPort, ListenAddress};
use super::dynamic::{DynamicConfig, InvalidDynamicConfig};
use super::finding::Finding;
use super::secret::Secret;
use super::tags::Tags;
use crate::names::MemberName;

/// The configuration of one member, complete and typed.
///
/// An `Option` in [`PostgresqlConfig`] means "not said here": the dynamic configuration or a default may supply it, and
/// [`super::EffectivePostgresql`] is where that is settled.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalConfig {
    /// The name of the cluster.
    pub scope: String,
    /// The name of this member.
    pub name: MemberName,
    /// The first part of every key, without slashes around it; `service` unless configured.
    pub namespace: String,
    /// How to reach the store.
    pub etcd: EtcdConfig,
    /// The REST API of this member.
    pub restapi: RestApiConfig,
    /// How this member, and `ctl`, talk to the REST API of others.
    pub ctl: CtlConfig,
    /// The local server.
    pub postgresql: PostgresqlConfig,
    /// How to create a cluster. A member without it never creates one (BOO-1).
    pub bootstrap: Option<BootstrapConfig>,
    /// The tags of this member.
    pub tags: Tags,
    /// Logging.
    pub log: LogConfig,
    /// The kernel watchdog.
    pub watchdog: WatchdogConfig,
    /// Keys that are set and that this version does not act on; also named by one of the warnings.
    pub pending: Vec<String>,
    /// What deserves attention and does not prevent a start: to be logged once at each load.
    pub warnings: Vec<Finding>,
    /// The merged document, environment included. It holds passwords in clear text.
    pub document: Map<String, Value>,
}

impl LocalConfig {
    /// The prefix of the cluster's keys, with slashes at both ends: `/service/demo/`.
    pub fn prefix(&self) -> String {
        key_prefix(&self.namespace, &self.scope)
    }
}

/// What becomes the dynamic configuration of a new cluster: `bootstrap.dcs`, its timing corrected (TIM-1). A key that would
/// have the whole document refused is left out.
pub fn to_dynamic_for_bootstrap(config: &LocalConfig) -> Map<String, Value> {
    let mut document = config.bootstrap.as_ref().map(|bootstrap| bootstrap.dcs.clone()).unwrap_or_default();
    loop {
        let refused = match DynamicConfig::from_map(&document) {
            Ok(dynamic) => return dynamic.document,
            Err(InvalidDynamicConfig::NotANumber { key, .. } | InvalidDynamicConfig::NotAMapping { key, .. }) => key,
        };
        match refused.split_once('.') {
            Some((section, key)) => drop(document[section].as_object_mut().and_then(|below| below.shift_remove(key))),
            None => drop(document.shift_remove(refused)),
        }
    }
}

/// `/<namespace>/<scope>/`, with repeated slashes collapsed.
pub(super) fn key_prefix(namespace: &str, scope: &str) -> String {
    let mut prefix = String::from("/");
    for part in namespace.split('/').chain(scope.split('/')).filter(|part| !part.is_empty()) {
        prefix.push_str(part);
        prefix.push('/');
    }
    prefix
}

/// How to reach etcd.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EtcdConfig {
    /// `http://host:port` or `https://host:port`, in the order of the file. Empty only when `srv` is set.
    pub endpoints: Vec<String>,
    /// Take `endpoints` as they are: no discovery of further etcd members.
    pub use_proxies: bool,
    /// Look the endpoints up in DNS. Tried before `endpoints`.
    pub srv: Option<SrvDiscovery>,
    /// The scheme of discovered endpoints that do not bring their own: `http` or `https`.
    pub protocol: String,
    /// The user, when etcd has authentication enabled.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// Trusted certificates. Giving them enables the verification of the server.
    pub cacert: Option<PathBuf>,
    /// The client certificate.
    pub cert: Option<PathBuf>,
    /// The client key; it may live in `cert`.
    pub key: Option<PathBuf>,
}

/// Discovery of etcd by DNS SRV records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SrvDiscovery {
    /// The domain.
    pub domain: String,
    /// Appended to the service label after a `-`.
    pub suffix: Option<String>,
}

impl SrvDiscovery {
    /// The names to look up, in order, with the scheme that their answers use. The last two name the peer ports, whose
    /// `/members` document lists the client URLs.
    pub fn names(&self) -> Vec<(String, &'static str)> {
        let services = ["etcd-client-ssl", "etcd-client", "etcd-ssl", "etcd", "etcd-server-ssl", "etcd-server"];
        services
            .iter()
            .map(|service| {
                let suffix = self.suffix.as_ref().map(|suffix| format!("-{suffix}")).unwrap_or_default();
                let scheme = if service.ends_with("-ssl") { "https" } else { "http" };
                (format!("_{service}{suffix}._tcp.{}", self.domain), scheme)
            })
            .collect()
    }
}

/// A user name and a password for HTTP basic authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuth {
    /// The user.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// The REST API.
#[derive(Clone, Debug, PartialEq)]
pub struct RestApiConfig {
    /// Where it listens.
    pub listen: ListenAddress,
    /// Where others reach it; published in the member key.
    pub connect_address: HostPort,
    /// Required from those who call unsafe methods.
    pub auth: Option<BasicAuth>,
    /// The certificate. TLS is on when it is set.
    pub certfile: Option<PathBuf>,
    /// The key; it may live in `certfile`.
    pub keyfile: Option<PathBuf>,
    /// The password of the key.
    pub keyfile_password: Option<Secret>,
    /// Trusted certificates of clients, and of peers.
    pub cafile: Option<PathBuf>,
    /// Ciphers in OpenSSL's notation.
    pub ciphers: Option<String>,
    /// Whose certificates are asked for.
    pub verify_client: VerifyClient,
    /// Who may call unsafe methods: addresses, networks or names. Empty means everybody.
    pub allowlist: Vec<String>,
    /// Members of the cluster may, too.
    pub allowlist_include_members: bool,
    /// Headers added to every answer.
    pub http_extra_headers: Vec<(String, String)>,
    /// Headers added to every answer over TLS.
    pub https_extra_headers: Vec<(String, String)>,
    /// What the `Server` header tells.
    pub server_tokens: ServerTokens,
    /// Connections that may wait to be accepted.
    pub request_queue_size: u32,
}

impl RestApiConfig {
    /// `http`, or `https` when a certificate is configured.
    pub fn scheme(&self) -> &'static str {
        if self.certfile.is_some() { "https" } else { "http" }
    }

    /// What is published as `api_url`.
    pub fn api_url(&self) -> String {
        format!("{}://{}/patroni", self.scheme(), self.connect_address)
    }
}

/// When the REST API asks for a client certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VerifyClient {
    /// Never.
    #[default]
    None,
    /// For unsafe methods.
    Optional,
    /// Always.
    Required,
}

/// What the `Server` header tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ServerTokens {
    /// Software and its version.
    #[default]
    Original,
    /// The product's name.
    ProductOnly,
    /// The product's name and version.
    Minimal,
}

/// How `ctl`, and the agent itself, call the REST API of members.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CtlConfig {
    /// `ctl.authentication`, else `restapi.authentication`.
    pub auth: Option<BasicAuth>,
    /// Do not verify server certificates.
    pub insecure: bool,
    /// `ctl.cacert`, else `restapi.cafile`.
    pub cacert: Option<PathBuf>,
    /// The client certificate.
    pub certfile: Option<PathBuf>,
    /// Its key; it may live in `certfile`.
    pub keyfile: Option<PathBuf>,
    /// The password of the key.
    pub keyfile_password: Option<Secret>,
}

/// The local server as its own file describes it.
#[derive(Clone, Debug, PartialEq)]
pub struct PostgresqlConfig {
    /// Where it listens.
    pub listen: ListenAddress,
    /// Where others reach it; published in the member key. `None` when the file leaves it out: the address then
    /// follows `listen`, see [`PostgresqlConfig::published_address`].
    pub connect_address: Option<HostPort>,
    /// A pooler in front of it; published as `proxy_url`.
    pub proxy_address: Option<HostPort>,
    /// `PGDATA`.
    pub data_dir: PathBuf,
    /// Where the configuration files are; the data directory unless configured.
    pub config_dir: PathBuf,
    /// The stem of the main file; `postgresql` unless configured.
    pub config_base_name: String,
    /// The directory of the server's programs; `$PATH` is searched without it.
    pub bin_dir: Option<PathBuf>,
    /// Programs under other names: tool to file name.
    pub bin_name: BTreeMap<String, String>,
    /// The maintenance database.
    pub database: Option<String>,
    /// The password file that is written for each connection target; `~/pgpass` without it.
    pub pgpass: Option<PathBuf>,
    /// The users the agent connects as.
    pub authentication: Authentication,
    /// The `postgresql` section as written, in its present layout: what [`super::EffectivePostgresql::merge`] lays over
    /// the dynamic one, key by key.
    pub section: Map<String, Value>,
}

impl PostgresqlConfig {
    /// `connect_address`, or the first address of `listen` that another machine could use.
    pub fn published_address(&self) -> HostPort {
        self.connect_address.clone().unwrap_or_else(|| self.listen.reachable())
    }
}

/// The users the agent connects as.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Authentication {
    /// Manages the server.
    pub superuser: Credentials,
    /// Streams.
    pub replication: Credentials,
    /// Connects for pg_rewind; `None` means the superuser.
    pub rewind: Option<Credentials>,
}

impl Authentication {
    /// Who connects for pg_rewind.
    pub fn effective_rewind(&self) -> &Credentials {
        self.rewind.as_ref().unwrap_or(&self.superuser)
    }
}

/// A user and how it connects. Fields without a comment mean what libpq's parameter of that name means.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Credentials {
    /// The user; without it libpq's default, the name of the operating system's user.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// `sslmode`.
    pub sslmode: Option<String>,
    /// `sslcert`.
    pub sslcert: Option<String>,
    /// `sslkey`.
    pub sslkey: Option<String>,
    /// `sslpassword`, PostgreSQL 13 and later.
    pub sslpassword: Option<Secret>,
    /// `sslrootcert`.
    pub sslrootcert: Option<String>,
    /// `sslcrl`.
    pub sslcrl: Option<String>,
    /// `sslcrldir`, PostgreSQL 14 and later.
    pub sslcrldir: Option<String>,
    /// `gssencmode`.
    pub gssencmode: Option<String>,
    /// `channel_binding`, PostgreSQL 13 and later.
    pub channel_binding: Option<String>,
    /// `sslnegotiation`, PostgreSQL 17 and later.
    pub sslnegotiation: Option<String>,
}

/// Options of a command-line tool: the name without dashes, and the value when there is one.
pub type OptionList = Vec<(String, Option<String>)>;

/// How a new cluster is created.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BootstrapConfig {
    /// What becomes the dynamic configuration.
    pub dcs: Map<String, Value>,
    /// The name of the method; `initdb` unless configured.
    pub method: String,
    /// Options of initdb.
    pub initdb: OptionList,
    /// Lines appended to `pg_hba.conf` when nothing else manages that file.
    pub pg_hba: Vec<String>,
    /// A command to run once the new cluster is up: `post_bootstrap`, else `post_init`.
    pub post_bootstrap: Option<String>,
    /// The section as written.
    pub section: Map<String, Value>,
}

/// Logging.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// Lines of text or JSON objects.
    pub kind: LogType,
    /// The lowest level that is written, in upper case.
    pub level: String,
    /// The level at which chains of causes are written.
    pub traceback_level: String,
    /// The layout, in the notation of Python's logging.
    pub format: LogFormat,
    /// The layout of the time, in strftime's notation.
    pub dateformat: Option<String>,
    /// Fields added to each JSON object.
    pub static_fields: Map<String, Value>,
    /// Records that may wait to be written; further ones are dropped and counted.
    pub max_queue_size: usize,
    /// The directory of `patroni.log`; standard error without it.
    pub dir: Option<PathBuf>,
    /// The permissions of the file.
    pub mode: Option<u32>,
    /// Rotated files that are kept.
    pub file_num: u32,
    /// Size in bytes at which the file is rotated.
    pub file_size_bytes: u64,
    /// Levels by module.
    pub loggers: BTreeMap<String, String>,
    /// Drop a repeated, identical heartbeat line.
    pub deduplicate_heartbeat_logs: bool,
}

/// The shape of log records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogType {
    /// Lines of text.
    #[default]
    Plain,
    /// JSON objects.
    Json,
}

/// The layout of log records.
#[derive(Clone, Debug, PartialEq)]
pub enum LogFormat {
    /// A line with `%(attribute)s` in it.
    Line(String),
    /// The attributes of a JSON object and the names they get.
    Fields(Vec<(String, String)>),
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            kind: LogType::Plain,
            level: "INFO".to_owned(),
            traceback_level: "ERROR".to_owned(),
            format: LogFormat::Line("%(asctime)s %(levelname)s: %(message)s".to_owned()),
            dateformat: None,
            static_fields: Map::new(),
            max_queue_size: 1000,
            dir: None,
            mode: None,
            file_num: 4,
            file_size_bytes: 25_000_000,
            loggers: BTreeMap::new(),
            deduplicate_heartbeat_logs: false,
        }
    }
}

/// The kernel watchdog.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchdogConfig {
    /// Whether it is used.
    pub mode: WatchdogMode,
    /// The device.
    pub device: PathBuf,
    /// Seconds by which it fires before the lease ends; `None` (-1 in the file) fires at half the lease.
    pub safety_margin: Option<Duration>,
    /// The driver; `default` for the kernel's.
    pub driver: String,
}

/// Whether the kernel watchdog is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WatchdogMode {
    /// Never.
    Off,
    /// When it is there.
    #[default]
    Automatic,
    /// No member becomes primary without it.
    Required,
}

impl Default for WatchdogConfig {
    fn default() -> Self {
        WatchdogConfig {
            mode: WatchdogMode::Automatic,
            device: PathBuf::from("/dev/watchdog"),
            safety_margin: Some(Duration::from_secs(5)),
            driver: "default".to_owned(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A member of the cluster `demo` with this `postgresql` section.
    pub(in crate::config) fn local_config(section: Value) -> LocalConfig {
        let text = |key: &str| section.get(key).and_then(Value::as_str).unwrap_or_default();
        LocalConfig {
            scope: "demo".into(),
            name: "n1".parse().unwrap(),
            namespace: "service".into(),
            etcd: EtcdConfig::default(),
            restapi: RestApiConfig {
                listen: ListenAddress::parse("*:8008", None).unwrap(),
                connect_address: HostPort::parse("10.0.0.1:8008", None).unwrap(),
                auth: None,
                certfile: None,
                keyfile: None,
                keyfile_password: None,
                cafile: None,
                ciphers: None,
                verify_client: VerifyClient::None,
                allowlist: vec![],
                allowlist_include_members: false,
                http_extra_headers: vec![],
                https_extra_headers: vec![],
                server_tokens: ServerTokens::Original,
                request_queue_size: 5,
            },
            ctl: CtlConfig::default(),
            postgresql: PostgresqlConfig {
                listen: ListenAddress::parse(text("listen"), Some(5432)).unwrap(),
                connect_address: None,
                proxy_address: None,
                data_dir: text("data_dir").into(),
                config_dir: text("data_dir").into(),
                config_base_name: "postgresql".into(),
                bin_dir: None,
                bin_name: BTreeMap::new(),
                database: None,
                pgpass: None,
                authentication: Authentication::default(),
                section: section.as_object().unwrap().clone(),
            },
            bootstrap: None,
            tags: Tags::default(),
            log: LogConfig::default(),
            watchdog: WatchdogConfig::default(),
            pending: vec![],
            warnings: vec![],
            document: Map::new(),
        }
    }

    #[test]
    fn slashes_around_the_namespace_do_not_matter() {
        for namespace in ["service", "/service", "/service/", "//service//"] {
            assert_eq!(key_prefix(namespace, "demo"), "/service/demo/", "{namespace}");
        }
        assert_eq!(key_prefix("/", "demo"), "/demo/");
        assert_eq!(key_prefix("a/b", "demo"), "/a/b/demo/");
    }

    #[test]
    fn srv_names_are_tried_from_client_to_server() {
        let names = SrvDiscovery { domain: "example.org".into(), suffix: Some("x".into()) }.names();
        assert_eq!(names[0], ("_etcd-client-ssl-x._tcp.example.org".to_owned(), "https"));
        assert_eq!(names[5], ("_etcd-server-x._tcp.example.org".to_owned(), "http"));
    }
}
