//! The sections of the local file, one function each.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value};

use super::read::Section;
use crate::config::address::{HostPort, InvalidAddress, ListenAddress};
use crate::config::local::{
    Authentication, BasicAuth, BootstrapConfig, Credentials, CtlConfig, LogConfig, LogFormat, LogType,
    PostgresqlConfig, RestApiConfig, ServerTokens, VerifyClient, WatchdogConfig, WatchdogMode,
};
use crate::config::options::option_list;
use crate::config::report::{Report, Rule};
use crate::config::units::text_of;
use crate::config::yaml::Node;
use crate::json::is_truthy;

/// The port of PostgreSQL.
const POSTGRESQL_PORT: u16 = 5432;

/// `restapi`.
pub(super) fn restapi(root: &Node, report: &mut Report) -> Option<RestApiConfig> {
    let section = Section::of(root, "restapi");
    let listen = required(&section, root, "listen", "write `listen: 0.0.0.0:8008`", report, |text| {
        ListenAddress::parse(text, None)
    });
    let connect = address(&section, "connect_address", report);
    if section.node.is_some() && section.text("connect_address").is_none() {
        let remedy = "write the address under which other members reach this one";
        report.missing(Rule::Strict, &section.key("connect_address"), section.node, remedy);
    }
    let auth = basic_auth(root, "restapi.authentication", Rule::Fatal, report);
    let listen = listen?;
    Some(RestApiConfig {
        connect_address: connect.unwrap_or_else(|| listen.reachable()),
        auth: auth.ok()?,
        certfile: section.path("certfile"),
        keyfile: section.path("keyfile"),
        keyfile_password: section.secret("keyfile_password"),
        cafile: section.path("cafile"),
        ciphers: section.text("ciphers"),
        verify_client: match section.text("verify_client").unwrap_or_default().to_ascii_lowercase().as_str() {
            "optional" => VerifyClient::Optional,
            "required" => VerifyClient::Required,
            _ => VerifyClient::None,
        },
        allowlist: section.texts("allowlist"),
        allowlist_include_members: section.flag("allowlist_include_members"),
        http_extra_headers: pairs(section.map("http_extra_headers")),
        https_extra_headers: pairs(section.map("https_extra_headers")),
        server_tokens: match section.text("server_tokens").unwrap_or_default().to_ascii_lowercase().as_str() {
            "minimal" => ServerTokens::Minimal,
            "productonly" => ServerTokens::ProductOnly,
            _ => ServerTokens::Original,
        },
        request_queue_size: section
            .integer("request_queue_size")
            .and_then(|size| u32::try_from(size).ok())
            .filter(|size| *size <= 4096)
            .unwrap_or(5),
        listen,
    })
}

/// `ctl`, with what it takes from `restapi`.
pub(super) fn ctl(root: &Node, report: &mut Report) -> CtlConfig {
    let (section, restapi) = (Section::of(root, "ctl"), Section::of(root, "restapi"));
    let own = basic_auth(root, "ctl.authentication", Rule::Schema, report).ok().flatten();
    let auth = own.or_else(|| basic_auth(root, "restapi.authentication", Rule::Schema, report).ok().flatten());
    CtlConfig {
        auth,
        insecure: section.flag("insecure"),
        cacert: section.path("cacert").or_else(|| restapi.path("cafile")),
        certfile: section.path("certfile"),
        keyfile: section.path("keyfile"),
        keyfile_password: section.secret("keyfile_password"),
    }
}

/// `postgresql`.
pub(super) fn postgresql(root: &Node, report: &mut Report) -> Option<PostgresqlConfig> {
    let section = Section::of(root, "postgresql");
    let listen = required(&section, root, "listen", "write `listen: 0.0.0.0:5432`", report, |text| {
        ListenAddress::parse(text, Some(POSTGRESQL_PORT))
    });
    let data_dir = required(&section, root, "data_dir", "write the path of PGDATA", report, |text| {
        Ok::<_, InvalidAddress>(PathBuf::from(text))
    });
    if let Some(parameters) = section.get("parameters").filter(|node| !node.to_value().is_object()) {
        let remedy = "write `name: value` lines below it";
        report.about(Rule::Fatal, &section.key("parameters"), parameters, "is not a mapping", remedy);
    }
    if section.node.is_some() && section.text("connect_address").is_none() {
        let remedy = "write the address under which other members reach this server";
        report.missing(Rule::Strict, &section.key("connect_address"), section.node, remedy);
    }
    let authentication = authentication(root, report);
    let connect_address = address(&section, "connect_address", report);
    let data_dir = data_dir?;
    let mut own = section.node.map(Node::to_value).and_then(|value| value.as_object().cloned()).unwrap_or_default();
    // The layouts of old versions; what they say is in `authentication` by now.
    own.retain(|key, value| {
        !value.is_null() && !matches!(key.as_str(), "superuser" | "replication" | "pg_rewind" | "name" | "scope")
    });
    Some(PostgresqlConfig {
        listen: listen?,
        connect_address,
        proxy_address: address(&section, "proxy_address", report),
        config_dir: section.path("config_dir").unwrap_or_else(|| data_dir.clone()),
        data_dir,
        config_base_name: section.text("config_base_name").unwrap_or_else(|| "postgresql".to_owned()),
        bin_dir: section.path("bin_dir"),
        bin_name: texts(&section.map("bin_name")),
        database: section.text("database"),
        pgpass: section.path("pgpass"),
        authentication: authentication?,
        section: own,
    })
}

fn authentication(root: &Node, report: &mut Report) -> Option<Authentication> {
    let users = Section::of(root, "postgresql.authentication");
    let user = |name: &str, path: &str| users.get(name).map(|_| credentials(&Section::of(root, path)));
    let superuser = user("superuser", "postgresql.authentication.superuser");
    let replication = user("replication", "postgresql.authentication.replication");
    let postgresql = Section::of(root, "postgresql").node;
    let section = users.node.or(postgresql).or(Some(root));
    for (name, found, rule) in [("superuser", &superuser, Rule::Schema), ("replication", &replication, Rule::Fatal)] {
        let key = users.key(name);
        match found {
            None => report.missing(rule, &key, section, "write its username and password below it"),
            Some(user) if user.username.is_none() => {
                let remedy = "write it; libpq's default is used otherwise";
                report.missing(Rule::Strict, &format!("{key}.username"), users.get(name), remedy);
            }
            Some(_) => {}
        }
    }
    Some(Authentication {
        superuser: superuser.unwrap_or_default(),
        replication: replication?,
        rewind: user("rewind", "postgresql.authentication.rewind"),
    })
}

fn credentials(user: &Section<'_>) -> Credentials {
    Credentials {
        username: user.text("username"),
        password: user.secret("password"),
        sslmode: user.text("sslmode"),
        sslcert: user.text("sslcert"),
        sslkey: user.text("sslkey"),
        sslpassword: user.secret("sslpassword"),
        sslrootcert: user.text("sslrootcert"),
        sslcrl: user.text("sslcrl"),
        sslcrldir: user.text("sslcrldir"),
        gssencmode: user.text("gssencmode"),
        channel_binding: user.text("channel_binding"),
        sslnegotiation: user.text("sslnegotiation"),
    }
}

/// `bootstrap`.
pub(super) fn bootstrap(root: &Node) -> BootstrapConfig {
    let section = Section::of(root, "bootstrap");
    let lines = section.value("pg_hba").and_then(|value| value.as_array().cloned()).unwrap_or_default();
    BootstrapConfig {
        dcs: section.map("dcs"),
        method: section.text("method").unwrap_or_else(|| "initdb".to_owned()),
        initdb: section.value("initdb").map(|value| option_list(&value).0).unwrap_or_default(),
        pg_hba: lines.iter().filter(|line| !line.is_null()).map(text_of).collect(),
        post_bootstrap: section.text("post_bootstrap").or_else(|| section.text("post_init")),
        section: section.node.and_then(|node| node.to_value().as_object().cloned()).unwrap_or_default(),
    }
}

/// `log`.
pub(super) fn log(root: &Node) -> LogConfig {
    let section = Section::of(root, "log");
    let default = LogConfig::default();
    let upper = |name: &str, words: &[&str]| {
        section.text(name).map(|text| text.to_ascii_uppercase()).filter(|text| words.contains(&text.as_str()))
    };
    let count = |name: &str| section.integer(name).and_then(|number| u64::try_from(number).ok());
    let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    let levels = ["DEBUG", "INFO", "WARN", "WARNING", "ERROR", "FATAL", "CRITICAL"];
    LogConfig {
        kind: match section.text("type").as_deref() {
            Some("json") => LogType::Json,
            Some(_) | None => LogType::Plain,
        },
        level: upper("level", &levels).unwrap_or(default.level),
        traceback_level: upper("traceback_level", &["DEBUG", "ERROR"]).unwrap_or(default.traceback_level),
        format: log_format(section.value("format")).unwrap_or(default.format),
        dateformat: section.text("dateformat"),
        static_fields: section.map("static_fields"),
        max_queue_size: count("max_queue_size").and_then(|n| usize::try_from(n).ok()).unwrap_or(default.max_queue_size),
        dir: section.path("dir"),
        mode: count("mode").filter(|mode| *mode <= 0o777).map(small),
        file_num: count("file_num").map_or(default.file_num, small),
        file_size_bytes: count("file_size").unwrap_or(default.file_size_bytes),
        loggers: texts(&section.map("loggers")),
        deduplicate_heartbeat_logs: section.flag("deduplicate_heartbeat_logs"),
    }
}

fn log_format(value: Option<Value>) -> Option<LogFormat> {
    match value? {
        Value::String(line) if !line.is_empty() => Some(LogFormat::Line(line)),
        Value::Array(items) => {
            let mut fields = Vec::new();
            for item in &items {
                match item {
                    Value::String(name) => fields.push((name.clone(), name.clone())),
                    Value::Object(renamed) => fields.extend(renamed.iter().map(|(k, v)| (k.clone(), text_of(v)))),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {}
                }
            }
            (!fields.is_empty()).then_some(LogFormat::Fields(fields))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => None,
    }
}

/// `watchdog`.
pub(super) fn watchdog(root: &Node, report: &mut Report) -> WatchdogConfig {
    let section = Section::of(root, "watchdog");
    let default = WatchdogConfig::default();
    let mode = match section.text("mode").map(|mode| mode.to_ascii_lowercase()).as_deref() {
        None | Some("auto" | "automatic") => WatchdogMode::Automatic,
        Some("require" | "required") => WatchdogMode::Required,
        Some("off" | "disable" | "disabled" | "false") => WatchdogMode::Off,
        Some(_) => {
            if let Some(node) = section.get("mode") {
                let problem = "is not a mode of the watchdog and counts as off";
                report.about(Rule::Schema, &section.key("mode"), node, problem, "write off, automatic or required");
            }
            WatchdogMode::Off
        }
    };
    WatchdogConfig {
        mode,
        device: section.path("device").unwrap_or(default.device),
        safety_margin: match section.integer("safety_margin") {
            Some(seconds) => u64::try_from(seconds).ok().map(Duration::from_secs),
            None => default.safety_margin,
        },
        driver: section.text("driver").unwrap_or(default.driver),
    }
}

/// A user and a password; both, once the section exists.
fn basic_auth(root: &Node, path: &str, rule: Rule, report: &mut Report) -> Result<Option<BasicAuth>, ()> {
    let section = Section::of(root, path);
    let Some(node) = section.node.filter(|node| is_truthy(&node.to_value())) else { return Ok(None) };
    match (section.text("username"), section.secret("password")) {
        (Some(username), Some(password)) => Ok(Some(BasicAuth { username, password })),
        (username, password) => {
            for (name, is_missing) in [("username", username.is_none()), ("password", password.is_none())] {
                if is_missing {
                    report.missing(rule, &section.key(name), Some(node), "set both, or remove authentication");
                }
            }
            Err(())
        }
    }
}

fn required<T, E: std::fmt::Display>(
    section: &Section<'_>,
    root: &Node,
    name: &str,
    remedy: &str,
    report: &mut Report,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Option<T> {
    let key = section.key(name);
    let (Some(text), Some(node)) = (section.text(name), section.get(name)) else {
        report.missing(Rule::Fatal, &key, section.node.or(Some(root)), remedy);
        return None;
    };
    match parse(&text) {
        Ok(value) => Some(value),
        Err(problem) => {
            report.about(Rule::Fatal, &key, node, problem.to_string(), remedy);
            None
        }
    }
}

/// An address that may be left out; one that cannot be read counts as left out, with a finding.
fn address(section: &Section<'_>, name: &str, report: &mut Report) -> Option<HostPort> {
    let text = section.text(name)?;
    match HostPort::parse(&text, Some(POSTGRESQL_PORT).filter(|_| section.path == "postgresql")) {
        Ok(address) => Some(address),
        Err(problem) => {
            report.about(Rule::Fatal, &section.key(name), section.get(name)?, problem.to_string(), "write host:port");
            None
        }
    }
}

fn pairs(map: Map<String, Value>) -> Vec<(String, String)> {
    map.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name, text_of(&value))).collect()
}

fn texts(map: &Map<String, Value>) -> BTreeMap<String, String> {
    let is_scalar = |value: &Value| !matches!(value, Value::Null | Value::Array(_) | Value::Object(_));
    map.iter().filter(|(_, value)| is_scalar(value)).map(|(name, value)| (name.clone(), text_of(value))).collect()
}
