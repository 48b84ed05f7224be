use super::*;
use crate::config::{Check, EffectivePostgresql, HostPort, LogFormat, Secret, WatchdogMode, to_dynamic_for_bootstrap};
use serde_json::{Value, json};

/// A file as they are found on machines: comments, YAML 1.1 words, octal modes, anchors.
const REAL_WORLD: &str = r#"
scope: batman
namespace: /db/
name: pg-1

log:
  level: info
  dir: /var/log/patroni
  mode: 0640

restapi:
  listen: 0.0.0.0:8008
  connect_address: 10.0.0.1:8008
  authentication: &login {username: admin, password: "secret#1"}

ctl:
  authentication: *login
  insecure: off

etcd3:
  hosts:
    - 10.0.0.11:2379
    - 10.0.0.12
  username: patroni
  password: p@ss

bootstrap:
  dcs:
    ttl: 30
    loop_wait: 10
    retry_timeout: 10
    maximum_lag_on_failover: 1_048_576
    postgresql:
      use_pg_rewind: yes
      use_slots: on
      parameters: {wal_level: replica, hot_standby: on, max_connections: 200}
      pg_hba:
        - local all all peer
        - host all all 0.0.0.0/0 scram-sha-256
  initdb:
    - encoding: UTF8
    - data-checksums
  post_init: /usr/local/bin/setup.sh

postgresql:
  listen: "0.0.0.0,::1:5432"
  connect_address: 10.0.0.1:5432
  data_dir: /var/lib/postgresql/15/main
  bin_dir: /usr/lib/postgresql/15/bin
  pgpass: /var/lib/postgresql/pgpass
  authentication:
    replication: {username: replicator, password: rep-pass, sslmode: require}
    superuser: {username: postgres, password: 'su: pass'}
  parameters:
    unix_socket_directories: /var/run/postgresql
    shared_buffers: 1GB

watchdog:
  mode: off

tags:
  nofailover: false
  clonefrom: true
  az: eu-1a
"#;

fn sources(text: &str, environment: &[(&str, &str)]) -> Sources {
    let files = if text.is_empty() { vec![] } else { vec![Source { name: "pg.yml".into(), text: text.into() }] };
    let environment = environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Sources { files, environment }
}

/// The smallest complete configuration, with `change` laid over it.
fn minimal(change: Value) -> String {
    let mut document = json!({
        "scope": "demo", "name": "n1", "etcd3": {"host": "e1"},
        "restapi": {"listen": "10.0.0.1:8008", "connect_address": "10.0.0.1:8008"},
        "postgresql": {
            "listen": "10.0.0.1:5432", "connect_address": "10.0.0.1:5432", "data_dir": "/data",
            "authentication": {"superuser": {"username": "s"}, "replication": {"username": "r"}}
        }
    });
    crate::config::patch(document.as_object_mut().unwrap(), change.as_object().unwrap());
    document.to_string()
}

fn lines(findings: &[Finding]) -> Vec<String> {
    findings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_real_file_is_accepted_without_a_word() {
    let config = LocalConfig::load(&sources(REAL_WORLD, &[])).unwrap_or_else(|rejected| panic!("{rejected}"));
    assert_eq!(lines(&config.warnings), Vec::<String>::new());
    assert_eq!(config.prefix(), "/db/batman/");
    assert_eq!(config.etcd.endpoints, ["http://10.0.0.11:2379", "http://10.0.0.12:2379"]);
    assert_eq!(config.log.mode, Some(0o640));
    assert_eq!(config.log.level, "INFO");
    assert!(matches!(config.log.format, LogFormat::Line(_)));
    assert_eq!(config.restapi.auth.as_ref().map(|auth| auth.password.expose()), Some("secret#1"));
    assert_eq!(config.ctl.auth, config.restapi.auth);
    assert_eq!(config.restapi.api_url(), "http://10.0.0.1:8008/patroni");
    assert_eq!(config.postgresql.listen.hosts, ["0.0.0.0", "::1"]);
    assert_eq!(config.postgresql.authentication.superuser.password, Some(Secret::new("su: pass")));
    assert_eq!(config.postgresql.authentication.replication.sslmode.as_deref(), Some("require"));
    assert_eq!(config.watchdog.mode, WatchdogMode::Off);
    let bootstrap = config.bootstrap.as_ref().unwrap();
    assert_eq!(bootstrap.initdb, [("encoding".into(), Some("UTF8".into())), ("data-checksums".into(), None)]);
    assert_eq!(bootstrap.post_bootstrap.as_deref(), Some("/usr/local/bin/setup.sh"));
    assert_eq!(Value::Object(config.tags.published()), json!({"clonefrom": true, "az": "eu-1a"}));

    let document = to_dynamic_for_bootstrap(&config);
    assert_eq!(document["postgresql"]["use_pg_rewind"], true);
    assert_eq!(document["maximum_lag_on_failover"], 1_048_576);
    let dynamic = crate::config::DynamicConfig::from_map(&document).unwrap();
    let effective = EffectivePostgresql::merge(&config, &dynamic);
    assert!(effective.use_pg_rewind && effective.use_slots);
    assert_eq!(effective.parameters["max_connections"], "200");
    assert_eq!(effective.parameters["shared_buffers"], "1GB");
    assert_eq!(effective.pg_hba.as_ref().map(Vec::len), Some(2));
}

#[test]
fn the_environment_lies_over_the_file_key_by_key() {
    let config = LocalConfig::load(&sources(
        REAL_WORLD,
        &[
            ("PATRONI_NAME", "pg-2"),
            ("PATRONI_REPLICATION_PASSWORD", "other"),
            ("PATRONI_ETCD3_HOSTS", "e1,e2:3"),
            ("PATRONI_SCOPE", ""),
        ],
    ))
    .unwrap();
    assert_eq!((config.name.as_str(), config.scope.as_str()), ("pg-2", "batman"));
    let replication = &config.postgresql.authentication.replication;
    assert_eq!(replication.username.as_deref(), Some("replicator"), "other keys stay");
    assert_eq!(replication.password, Some(Secret::new("other")));
    assert_eq!(config.etcd.endpoints, ["http://e1:2379", "http://e2:3"]);
}

#[test]
fn the_environment_alone_is_enough() {
    let variables = [
        ("PATRONI_NAME", "n1"),
        ("PATRONI_SCOPE", "demo"),
        ("PATRONI_ETCD3_HOST", "e1"),
        ("PATRONI_RESTAPI_LISTEN", "0.0.0.0:8008"),
        ("PATRONI_RESTAPI_CONNECT_ADDRESS", "10.0.0.1:8008"),
        ("PATRONI_POSTGRESQL_LISTEN", "*:5432"),
        ("PATRONI_POSTGRESQL_DATA_DIR", "/data"),
        ("PATRONI_SUPERUSER_USERNAME", "postgres"),
        ("PATRONI_REPLICATION_USERNAME", "replicator"),
    ];
    let config = LocalConfig::load(&sources("", &variables)).unwrap();
    assert_eq!(config.name.as_str(), "n1");
    assert!(config.bootstrap.is_none());
    let mut with_document = variables.to_vec();
    let document = minimal(json!({"name": "n7"}));
    with_document.push(("PATRONI_CONFIGURATION", &document));
    let config = LocalConfig::load(&sources("", &with_document)).unwrap();
    assert_eq!(config.name.as_str(), "n7", "a whole document makes the other variables ignored");
}

#[test]
fn later_files_win_and_null_removes() {
    let files = [("a.yml", minimal(json!({"tags": {"az": 1, "b": 2}}))), ("b.yml", "name: n2\ntags: {az: ~}\n".into())];
    let files = files.map(|(name, text)| Source { name: name.into(), text }).to_vec();
    let config = LocalConfig::load(&Sources { files, ..Sources::default() }).unwrap();
    assert_eq!(config.name.as_str(), "n2");
    assert_eq!(Value::Object(config.tags.configured().clone()), json!({"b": 2}));
    assert_eq!(config_files(["b.yml", "a.yaml", "c.txt", "10.yml"].map(str::to_owned)), ["10.yml", "a.yaml", "b.yml"]);
}

#[test]
fn what_keeps_the_agent_from_starting_is_listed_at_once() {
    for (text, want) in [
        ("a: [\n".to_owned(), &["pg.yml:"][..]),
        ("- a\n".to_owned(), &["pg.yml: the file is not a mapping of keys to values"]),
        ("{}".to_owned(), &["pg.yml: the configuration is empty"]),
        (
            "scope: demo\nconsul: {host: a}\n".to_owned(),
            &[
                "pg.yml: name: is not set; write `name: NAME-OF-THIS-MEMBER`",
                "pg.yml: postgresql.listen: is not set",
                "pg.yml: postgresql.data_dir: is not set",
                "pg.yml: postgresql.authentication.replication: is not set",
                "pg.yml: restapi.listen: is not set",
                "pg.yml:2: consul: this store is not supported; use etcd",
            ],
        ),
        (minimal(json!({"name": "a/b"})), &["pg.yml:1: name: a/b: the member name"]),
        (
            minimal(json!({"restapi": {"listen": "8008"}})),
            &["pg.yml:1: restapi.listen: 8008: has no port; write `listen:"],
        ),
        (
            minimal(json!({"restapi": {"authentication": {"username": "u"}}})),
            &["pg.yml:1: restapi.authentication.password: is not set; set both"],
        ),
        (minimal(json!({"postgresql": {"parameters": [1]}})), &["pg.yml:1: postgresql.parameters: is not a mapping"]),
        (minimal(json!({"postgresql": {"listen": "h:99999"}})), &["postgresql.listen: h:99999: the port \"99999\""]),
    ] {
        let rejected = LocalConfig::load(&sources(&text, &[])).unwrap_err();
        let found = rejected.to_string();
        for part in want {
            assert!(found.contains(part), "{text}\nwanted {part}\nfound  {found}");
        }
    }
    assert!(LocalConfig::load(&Sources::default()).unwrap_err().to_string().contains("the configuration is empty"));
}

#[test]
fn validation_is_stricter_than_a_start() {
    for (name, change, want) in [
        ("a loopback", json!({"restapi": {"connect_address": "127.0.0.1:8008"}}), Some("127.0.0.1 cannot be reached")),
        ("a number as name", json!({"scope": 5}), Some("scope: 5: is a number, not text; quote it")),
        ("both tags", json!({"tags": {"nofailover": false, "failover_priority": 1}}), Some("nofailover wins")),
        (
            "a short ttl",
            json!({"bootstrap": {"dcs": {"ttl": 5}}}),
            Some("bootstrap.dcs.ttl: 5: is less than 20; raise it"),
        ),
        ("an empty list", json!({"postgresql": {"pg_hba": []}}), Some("postgresql.pg_hba: is an empty list")),
        ("an odd flag", json!({"postgresql": {"use_pg_rewind": "maybe"}}), Some("maybe: is not a boolean")),
        ("an unknown level", json!({"log": {"level": "LOUD"}}), Some("LOUD: is not one of DEBUG, INFO")),
        ("quorum is fine", json!({"bootstrap": {"dcs": {"synchronous_mode": "quorum"}}}), None),
        ("words are fine", json!({"ctl": {"insecure": "off"}, "log": {"level": "debug"}}), None),
        (
            "a slot that cannot be named so",
            json!({"bootstrap": {"dcs": {"slots": {"My-Slot": null}}}}),
            Some("bootstrap.dcs.slots.My-Slot: is no name for a replication slot"),
        ),
        (
            "a logical slot without its database",
            json!({"bootstrap": {"dcs": {"permanent_slots": {"a": {"type": "logical", "plugin": "p"}}}}}),
            Some("bootstrap.dcs.permanent_slots.a.database: is not set"),
        ),
        (
            "a logical slot with the name of the member's own",
            json!({"bootstrap": {"dcs": {"slots": {"n1": {"database": "d", "plugin": "p"}}}}}),
            Some("bootstrap.dcs.slots.n1: is logical and has the name of this member's own slot"),
        ),
        (
            "an entry that ignores no slot",
            json!({"bootstrap": {"dcs": {"ignore_slots": [{"type": "both"}]}}}),
            Some("bootstrap.dcs.ignore_slots[0].type: is both, which no slot is"),
        ),
        (
            "a standby cluster that follows itself",
            json!({"bootstrap": {"dcs": {"standby_cluster": {"host": "a,10.0.0.9", "port": 5433}}},
                   "postgresql": {"connect_address": "10.0.0.9:5433"}}),
            Some("bootstrap.dcs.standby_cluster.host: a,10.0.0.9: is this member itself"),
        ),
        ("no superuser", json!({"postgresql": {"authentication": {"superuser": null}}}), Some("superuser: is not set")),
        ("no address", json!({"restapi": {"connect_address": null}}), Some("restapi.connect_address: is not set")),
    ] {
        let sources = sources(&minimal(change), &[]);
        assert!(LocalConfig::load(&sources).is_ok(), "{name}: a start goes on");
        let findings = validate(&sources).findings;
        let errors: Vec<String> =
            lines(&findings.into_iter().filter(|f| f.severity == Severity::Error).collect::<Vec<_>>());
        match want {
            Some(part) => assert!(errors.iter().any(|line| line.contains(part)), "{name}: {errors:?}"),
            None => assert_eq!(errors, Vec::<String>::new(), "{name}"),
        }
    }
}

#[test]
fn what_has_no_effect_is_said_and_what_is_not_built_yet_is_named_once() {
    let config = LocalConfig::load(&sources(
        "scope: demo
name: n1
ttl: 30
etcd: {host: a}
restapi: {listen: '*:8008', thread_pool_size: 5, verify_client: none}
postgresql:
  listen: '*:5432'
  data_dir: /data
  use_slots: true
  dta_dir: x
  parameters: {max_connections: 5}
  authentication: {superuser: {username: a}, replication: {username: b}}
  create_replica_methods: [pgbackrest, basebackup]
  pgbackrest: {command: x}
  callbacks: {on_start: x}
bootstrap:
  dcs: {synchronous_mode: on, standby_cluster: {host: a, create_replica_methods: [x]}, slots: {a: {type: physical}}, my_own: 1}
tags: {nosync: true}
",
        &[],
    ))
    .unwrap();
    let lines = lines(&config.warnings);
    let expected = [
        "pg.yml:3: ttl: 30: is a setting of the whole cluster and ignored in the local file; set it below bootstrap.dcs",
        "pg.yml:4: etcd: asks for etcd's v2 API, which is not offered; the v3 API",
        "pg.yml:5: restapi.thread_pool_size: 5: has no meaning here",
        "pg.yml:9: postgresql.use_slots: true: is a setting of the whole cluster",
        "pg.yml:10: postgresql.dta_dir: is not a known key and is ignored; did you mean data_dir?",
        "pg.yml:11: postgresql.parameters.max_connections: 5: is the same on all members and ignored in the local file",
        "understood, and not acted on by this version: postgresql.create_replica_methods, postgresql.callbacks, \
         bootstrap.dcs.standby_cluster.create_replica_methods",
        "pg.yml:17: bootstrap.dcs.my_own: is not a known key",
    ];
    for part in expected {
        assert!(lines.iter().any(|line| line.contains(part)), "wanted {part}\nfound {lines:#?}");
    }
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    assert_eq!(config.pending.len(), 3);
    let dynamic = crate::config::DynamicConfig::from_map(&to_dynamic_for_bootstrap(&config)).unwrap();
    assert_eq!(dynamic.pending_keys(), ["standby_cluster.create_replica_methods"]);
}

#[test]
fn layouts_of_old_versions_are_understood() {
    let text = "
scope: demo
etcd3: {host: a}
restapi: {listen: '*:8008', connect_address: 'a:8008'}
postgresql:
  name: n1
  listen: '*:5432'
  connect_address: a:5432
  data_dir: /data
  replication: {username: r}
  superuser: {username: s}
  pg_rewind: {username: w}
";
    let config = LocalConfig::load(&sources(text, &[])).unwrap();
    assert_eq!(config.name.as_str(), "n1");
    assert_eq!(config.postgresql.authentication.superuser.username.as_deref(), Some("s"));
    assert_eq!(config.postgresql.section.get("use_pg_rewind"), Some(&Value::Bool(true)));
    let text = text.replace("  superuser: {username: s}\n", "");
    let config = LocalConfig::load(&sources(&text, &[])).unwrap();
    assert_eq!(
        config.postgresql.authentication.superuser.username.as_deref(),
        None,
        "only `authentication` takes pg_rewind"
    );
    let text = minimal(json!({"postgresql": {"authentication": {"superuser": null}, "pg_rewind": {"username": "w"}}}));
    let config = LocalConfig::load(&sources(&text, &[])).unwrap();
    assert_eq!(config.postgresql.authentication.superuser.username.as_deref(), Some("w"));
}

#[test]
fn addresses_have_defaults() {
    let change = json!({"restapi": {"connect_address": null}, "postgresql": {"connect_address": null, "listen": "*"}});
    let config = LocalConfig::load(&sources(&minimal(change), &[])).unwrap();
    assert_eq!(config.restapi.connect_address, HostPort { host: "10.0.0.1".into(), port: 8008 });
    assert_eq!(config.postgresql.published_address(), HostPort { host: "localhost".into(), port: 5432 });
}

#[test]
fn passwords_are_never_shown() {
    let change = json!({
        "restapi": {"authentication": {"username": "u", "password": 4711}},
        "etcd3": {"url": "ftp://u:4711@h", "password": 4711},
        "postgresql": {"authentication": {"superuser": {"password": 4711}}}
    });
    let validation = validate(&sources(&minimal(change), &[]));
    assert!(!validation.findings.is_empty());
    let shown = format!("{:?}", lines(&validation.findings));
    assert!(!shown.contains("4711"), "{shown}");
}

#[test]
fn what_needs_io_is_handed_out() {
    let validation = validate(&sources(REAL_WORLD, &[]));
    assert_eq!(lines(&validation.findings), Vec::<String>::new());
    let find = |key: &str| validation.probes.iter().find(|probe| probe.key == key).unwrap();
    assert!(matches!(&find("postgresql.listen").check, Check::PortIsFree(listen) if listen.port == 5432));
    assert!(matches!(find("postgresql.data_dir").check, Check::DataDirectory { .. }));
    let failed = find("etcd3.hosts").failed("does not answer", "start etcd");
    assert_eq!(failed.to_string(), "pg.yml:21: etcd3.hosts: http://10.0.0.11:2379: does not answer; start etcd");
    assert_eq!(validation.probes.iter().filter(|probe| probe.key == "postgresql.bin_dir").count(), 6);
}

#[test]
fn ctl_needs_almost_nothing() {
    let load = |text: &str, environment: &[(&str, &str)]| ClientConfig::load(&sources(text, environment));
    assert_eq!(load("", &[]).unwrap(), ClientConfig::default());
    let config = load("scope: demo\netcd3: {host: a}\nciti: 1\n", &[("PATRONI_RESTAPI_USERNAME", "u")]).unwrap();
    assert_eq!(config.scope.as_deref(), Some("demo"));
    assert_eq!(config.etcd.as_ref().unwrap().endpoints, ["http://a:2379"]);
    assert_eq!(config.prefix("x"), "/service/x/");
    let config = load(REAL_WORLD, &[]).unwrap();
    assert_eq!(config.ctl.auth.map(|auth| auth.username).as_deref(), Some("admin"));
    assert!(load("a: [", &[]).is_err());
    assert!(load("consul: {host: a}\n", &[]).unwrap_err().to_string().contains("not supported"));
    assert!(load("etcd3: {host: 'a:b'}\n", &[]).is_err());
}

proptest::proptest! {
    #[test]
    fn no_document_panics(text in "((scope|name|etcd3|restapi|postgresql|bootstrap|tags|log|dcs|listen|hosts|initdb|pg_hba|\
                                    parameters|authentication|superuser|method): ?|[ \n]|  |- |\\[|\\]|\\{|\\}|[a-z0-9:/*~]){0,80}") {
        let sources = sources(&text, &[]);
        let _ = validate(&sources);
        let _ = ClientConfig::load(&sources);
    }

    #[test]
    fn no_value_panics(key in 0usize..24, value in value(), inner in value()) {
        let section = ["log", "restapi", "ctl", "etcd3", "postgresql", "bootstrap", "watchdog", "tags", "scope", "name",
            "namespace", "citus"][key % 12];
        let text = minimal(json!({section: value}));
        if let Some(config) = validate(&sources(&text, &[])).config {
            let document = to_dynamic_for_bootstrap(&config);
            let dynamic = crate::config::DynamicConfig::from_map(&document).unwrap();
            EffectivePostgresql::merge(&config, &dynamic);
        }
        let below: Vec<&str> = ["listen", "parameters", "authentication", "pg_hba", "hosts", "dcs", "initdb", "mode"].to_vec();
        let text = minimal(json!({section: {below[key % below.len()]: inner}}));
        if let Some(config) = validate(&sources(&text, &[])).config {
            let _ = to_dynamic_for_bootstrap(&config);
        }
        if let Some(document) = value.as_object()
            && let Ok(dynamic) = crate::config::DynamicConfig::from_map(document)
        {
            let _ = dynamic.pending_keys();
        }
    }
}

/// Any JSON value of moderate size, with keys that mean something here and there.
fn value() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9:,./ -]{0,12}".prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    let key = "ttl|loop_wait|retry_timeout|postgresql|parameters|slots|standby_cluster|host|max_connections|wal_keep_size|[a-z]{1,4}";
    scalar.prop_recursive(4, 32, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((key, inner), 0..5).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}
