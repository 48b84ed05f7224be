//! Reads the documents into a [`LocalConfig`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};

use super::environment;
use super::local::{
    Authentication, BasicAuth, BootstrapConfig, Credentials, CtlConfig, EtcdConfig, LocalConfig, LogConfig,
    PostgresqlConfig, RestApiConfig,
};
use super::options::option_list;
use super::patch::overlay;
use super::units::{bool_of, parse_int, text_of};
use super::{Finding, HostPort, ListenAddress, Origin, Secret, Severity, Tags, yaml};

fn error(key: &str, problem: String) -> Finding {
    Finding {
        severity: Severity::Error,
        origin: Origin::Unknown,
        key: key.to_owned(),
        value: None,
        problem,
        remedy: String::new(),
    }
}

/// Reads files and environment.
///
/// # Errors
/// All findings that keep the agent from starting.
pub fn load(files: &[(String, String)], variables: &BTreeMap<String, String>) -> Result<LocalConfig, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut document = Vec::new();
    for (name, text) in files {
        let node = yaml::parse(name, text, &mut findings).map_err(|finding| vec![finding])?;
        overlay(&mut document, node.entries().to_vec());
    }
    let (from_environment, mut more) = environment::read(variables);
    findings.append(&mut more);
    overlay(&mut document, from_environment);
    let map = yaml::to_map(&document);
    build(map, findings)
}

fn build(map: Map<String, Value>, findings: Vec<Finding>) -> Result<LocalConfig, Vec<Finding>> {
    let mut errors = Vec::new();
    let empty = Map::new();
    let section = |name: &str| map.get(name).and_then(Value::as_object).unwrap_or(&empty);
    let text = |section: &Map<String, Value>, key: &str| section.get(key).filter(|v| !v.is_null()).map(text_of);
    let path = |section: &Map<String, Value>, key: &str| text(section, key).map(PathBuf::from);
    let flag = |section: &Map<String, Value>, key: &str| section.get(key).and_then(bool_of).unwrap_or(false);
    let pg = section("postgresql");
    let rest = section("restapi");
    let mut need = |value: Option<String>, key: &str| {
        value.unwrap_or_else(|| {
            errors.push(error(key, "is not defined".to_owned()));
            String::new()
        })
    };
    let scope = need(text(&map, "scope"), "scope");
    let name = need(text(&map, "name").or_else(|| text(pg, "name")), "name");
    let data_dir = PathBuf::from(need(text(pg, "data_dir"), "postgresql.data_dir"));
    let listen = need(text(pg, "listen"), "postgresql.listen");
    let rest_listen = need(text(rest, "listen"), "restapi.listen");
    let etcd_section = if map.contains_key("etcd3") { section("etcd3") } else { section("etcd") };
    if etcd_section.is_empty() {
        errors.push(error("etcd3", "is not defined".to_owned()));
    }
    let name = name.parse().map_err(|problem: crate::names::InvalidMemberName| error("name", problem.to_string()));
    let listen = ListenAddress::parse(&listen, Some(5432)).map_err(|problem| error("postgresql.listen", problem.to_string()));
    let rest_listen = ListenAddress::parse(&rest_listen, None).map_err(|problem| error("restapi.listen", problem.to_string()));
    let (Ok(name), Ok(listen), Ok(rest_listen), true) = (name, listen, rest_listen, errors.is_empty()) else {
        return Err(errors);
    };
    let auth = |section: &Map<String, Value>| {
        let auth = section.get("authentication")?.as_object()?;
        Some(BasicAuth { username: text(auth, "username")?, password: Secret::new(text(auth, "password")?) })
    };
    let user = |key: &str| -> Option<Credentials> {
        let user = pg.get("authentication")?.as_object()?.get(key)?.as_object()?;
        Some(Credentials {
            username: text(user, "username"),
            password: text(user, "password").map(Secret::new),
            sslmode: text(user, "sslmode"),
            ..Credentials::default()
        })
    };
    let bootstrap = map.get("bootstrap").and_then(Value::as_object).map(|bootstrap| BootstrapConfig {
        dcs: bootstrap.get("dcs").and_then(Value::as_object).cloned().unwrap_or_default(),
        method: "initdb".to_owned(),
        initdb: bootstrap.get("initdb").map(|list| option_list(list).0).unwrap_or_default(),
        pg_hba: lines(bootstrap.get("pg_hba")),
        post_bootstrap: text(bootstrap, "post_bootstrap").or_else(|| text(bootstrap, "post_init")),
        section: bootstrap.clone(),
    });
    let connect = |section: &Map<String, Value>, key: &str, port: u16| {
        text(section, key).and_then(|text| HostPort::parse(&text, Some(port)).ok())
    };
    let rest_connect = connect(rest, "connect_address", rest_listen.port)
        .unwrap_or_else(|| HostPort { host: rest_listen.hosts[0].clone(), port: rest_listen.port });
    Ok(LocalConfig {
        scope,
        name,
        namespace: text(&map, "namespace").unwrap_or_else(|| "service".to_owned()).trim_matches('/').to_owned(),
        etcd: etcd(etcd_section),
        restapi: RestApiConfig {
            listen: rest_listen,
            connect_address: rest_connect,
            auth: auth(rest),
            certfile: path(rest, "certfile"),
            keyfile: path(rest, "keyfile"),
            keyfile_password: None,
            cafile: path(rest, "cafile"),
            ciphers: None,
            verify_client: Default::default(),
            allowlist: lines(rest.get("allowlist")),
            allowlist_include_members: flag(rest, "allowlist_include_members"),
            http_extra_headers: Vec::new(),
            https_extra_headers: Vec::new(),
            server_tokens: Default::default(),
            request_queue_size: 5,
        },
        ctl: CtlConfig { auth: auth(section("ctl")), ..CtlConfig::default() },
        postgresql: PostgresqlConfig {
            connect_address: connect(pg, "connect_address", listen.port),
            listen,
            proxy_address: connect(pg, "proxy_address", 5432),
            config_dir: path(pg, "config_dir").unwrap_or_else(|| data_dir.clone()),
            data_dir,
            config_base_name: text(pg, "config_base_name").unwrap_or_else(|| "postgresql".to_owned()),
            bin_dir: path(pg, "bin_dir"),
            bin_name: BTreeMap::new(),
            database: text(pg, "database"),
            pgpass: path(pg, "pgpass"),
            authentication: Authentication {
                superuser: user("superuser").unwrap_or_default(),
                replication: user("replication").unwrap_or_default(),
                rewind: user("rewind"),
            },
            section: pg.clone(),
        },
        bootstrap,
        tags: Tags::new(section("tags").clone()),
        log: LogConfig { level: text(section("log"), "level").unwrap_or_else(|| "INFO".to_owned()), ..LogConfig::default() },
        watchdog: Default::default(),
        warnings: findings,
        document: map.clone(),
    })
}

fn lines(value: Option<&Value>) -> Vec<String> {
    value.and_then(Value::as_array).into_iter().flatten().map(text_of).collect()
}

fn etcd(section: &Map<String, Value>) -> EtcdConfig {
    let text = |key: &str| section.get(key).filter(|v| !v.is_null()).map(text_of);
    let protocol = text("protocol").unwrap_or_else(|| "http".to_owned());
    let port = text("port").and_then(|text| parse_int(&text, None)).and_then(|p| u16::try_from(p).ok()).unwrap_or(2379);
    let hosts: Vec<String> = match section.get("hosts") {
        Some(Value::Array(list)) => list.iter().map(text_of).collect(),
        Some(other) => text_of(other).split(',').map(|host| host.trim().to_owned()).collect(),
        None => text("host").into_iter().collect(),
    };
    let endpoints = match text("proxy").or_else(|| text("url")) {
        Some(url) => vec![url],
        None => hosts
            .iter()
            .filter_map(|host| HostPort::parse(host, Some(port)).ok())
            .map(|host| format!("{protocol}://{host}"))
            .collect(),
    };
    EtcdConfig {
        endpoints,
        use_proxies: text("proxy").is_some(),
        srv: None,
        protocol,
        username: text("username"),
        password: text("password").map(Secret::new),
        cacert: text("cacert").map(PathBuf::from),
        cert: text("cert").map(PathBuf::from),
        key: text("key").map(PathBuf::from),
    }
}
