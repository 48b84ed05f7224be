//! The keys of the local file.

use super::{DYNAMIC, Key, POSTGRESQL, Type, local};

const PORT_MAX: i64 = 65_535;

/// The top level.
pub(in crate::config) const LOCAL: &[Key] = &[
    local("scope", Type::Text),
    local("name", Type::Text),
    local("namespace", Type::Text),
    local("log", Type::Section(LOG)),
    local("restapi", Type::Section(RESTAPI)),
    local("ctl", Type::Section(CTL)),
    local("etcd3", Type::Section(ETCD)),
    local("etcd", Type::Section(ETCD)),
    local("consul", Type::Any),
    local("zookeeper", Type::Any),
    local("exhibitor", Type::Any),
    local("kubernetes", Type::Any),
    local("raft", Type::Any),
    local("bootstrap", Type::Section(BOOTSTRAP)),
    local("postgresql", Type::Section(POSTGRESQL)),
    local("watchdog", Type::Section(WATCHDOG)),
    local("tags", Type::Mapping),
    local("citus", Type::Mapping).pending(),
    local("thread_pool_size", Type::Integer(0, i64::MAX))
        .ignored("has no meaning here: there is no thread pool", "remove it"),
    local("thread_stack_size", Type::Any).ignored("has no meaning here: there is no thread pool", "remove it"),
    local("dcs", Type::Any).ignored("is not a section of the local file", "move it to bootstrap.dcs"),
];

const LEVELS: &[&str] = &["DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL"];

/// The layout without a setting, which generated files spell out.
const DEFAULT_FORMAT: &str = "%(asctime)s %(levelname)s: %(message)s";

const LOG: &[Key] = &[
    local("type", Type::Choice(&["plain", "json"])).pending_unless(&["plain"]),
    local("level", Type::Choice(LEVELS)),
    local("traceback_level", Type::Choice(&["DEBUG", "ERROR"])).pending_unless(&["ERROR"]),
    local("format", Type::Any).pending_unless(&[DEFAULT_FORMAT]),
    local("dateformat", Type::Text).pending(),
    local("static_fields", Type::Mapping).pending(),
    local("max_queue_size", Type::Integer(0, i64::MAX)).pending_unless(&["1000"]),
    local("dir", Type::Text),
    local("mode", Type::Integer(0, 0o777)),
    local("file_num", Type::Integer(0, i64::MAX)).pending(),
    local("file_size", Type::Integer(0, i64::MAX)).pending(),
    local("loggers", Type::Mapping),
    local("deduplicate_heartbeat_logs", Type::Flag).pending(),
];

const LOGIN: &[Key] = &[local("username", Type::Text), local("password", Type::Text)];

const RESTAPI: &[Key] = &[
    local("listen", Type::Listen),
    local("connect_address", Type::PublicAddress),
    local("authentication", Type::Section(LOGIN)),
    local("certfile", Type::Text),
    local("keyfile", Type::Text),
    local("keyfile_password", Type::Text).pending(),
    local("cafile", Type::Text),
    local("ciphers", Type::Text).pending(),
    local("verify_client", Type::Choice(&["none", "optional", "required"])),
    local("allowlist", Type::Hosts),
    local("allowlist_include_members", Type::Flag),
    local("http_extra_headers", Type::Mapping),
    local("https_extra_headers", Type::Mapping),
    local("request_queue_size", Type::Integer(0, 4096)).pending(),
    local("thread_pool_size", Type::Integer(0, i64::MAX))
        .ignored("has no meaning here: there is no thread pool", "remove it"),
    local("server_tokens", Type::Choice(&["Minimal", "ProductOnly", "Original"])),
];

const CTL: &[Key] = &[
    local("authentication", Type::Section(LOGIN)),
    local("insecure", Type::Flag),
    local("cacert", Type::Text),
    local("certfile", Type::Text),
    local("keyfile", Type::Text),
    local("keyfile_password", Type::Text).pending(),
];

const ETCD: &[Key] = &[
    local("host", Type::Text),
    local("hosts", Type::Hosts),
    local("port", Type::Integer(1, PORT_MAX)),
    local("url", Type::Text),
    local("proxy", Type::Text),
    local("use_proxies", Type::Flag),
    local("srv", Type::Text),
    local("discovery_srv", Type::Text),
    local("srv_domain", Type::Text),
    local("srv_suffix", Type::Text),
    local("protocol", Type::Choice(&["http", "https"])),
    local("username", Type::Text),
    local("password", Type::Text),
    local("cacert", Type::Text),
    local("cert", Type::Text),
    local("key", Type::Text),
];

const BOOTSTRAP: &[Key] = &[
    local("dcs", Type::Section(DYNAMIC)),
    local("method", Type::Text).pending_unless(&["initdb"]),
    local("initdb", Type::Options),
    local("pg_hba", Type::Lines),
    local("post_bootstrap", Type::Text),
    local("post_init", Type::Text),
    local("users", Type::Any)
        .ignored("creates no users: Patroni removed this in 4.0", "create them in bootstrap.post_bootstrap"),
];

/// The users of PostgreSQL.
pub(super) const AUTHENTICATION: &[Key] = &[
    local("superuser", Type::Section(USER)),
    local("replication", Type::Section(USER)),
    local("rewind", Type::Section(USER)),
];

/// One user of PostgreSQL.
pub(super) const USER: &[Key] = &[
    local("username", Type::Text),
    local("password", Type::Text),
    local("sslmode", Type::Choice(&["disable", "allow", "prefer", "require", "verify-ca", "verify-full"])),
    local("sslcert", Type::Text),
    local("sslkey", Type::Text),
    local("sslpassword", Type::Text),
    local("sslrootcert", Type::Text),
    local("sslcrl", Type::Text),
    local("sslcrldir", Type::Text),
    local("gssencmode", Type::Choice(&["disable", "prefer", "require"])),
    local("channel_binding", Type::Choice(&["disable", "prefer", "require"])),
    local("sslnegotiation", Type::Choice(&["postgres", "direct"])),
];

const WATCHDOG: &[Key] = &[
    local("mode", Type::Choice(&["off", "disable", "disabled", "false", "auto", "automatic", "require", "required"])),
    local("device", Type::Text),
    local("safety_margin", Type::Integer(-1, i64::MAX)),
    local("driver", Type::Text).pending_unless(&["default", "testing"]),
];
