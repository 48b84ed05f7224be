use super::*;
use serde_json::json;

fn local(postgresql: Value) -> LocalConfig {
    let mut section = json!({"listen": "10.0.0.1,127.0.0.1:5433", "data_dir": "/data"});
    section.as_object_mut().unwrap().extend(postgresql.as_object().unwrap().clone());
    crate::config::local::tests::local_config(section)
}

fn merge(local_section: Value, dynamic: Value) -> EffectivePostgresql {
    let dynamic = DynamicConfig::from_map(dynamic.as_object().unwrap()).unwrap();
    EffectivePostgresql::merge(&local(local_section), &dynamic)
}

#[test]
fn the_command_line_has_the_observed_order() {
    let merged =
        merge(json!({}), json!({"postgresql": {"parameters": {"max_connections": 50, "Wal_Level": "logical"}}}));
    let line: Vec<String> = merged.command_line.iter().map(|(name, value)| format!("--{name}={value}")).collect();
    assert_eq!(
        line.join(" "),
        "--listen_addresses=10.0.0.1,127.0.0.1 --port=5433 --cluster_name=demo --wal_level=logical --hot_standby=on \
         --max_connections=50 --max_wal_senders=10 --max_prepared_transactions=0 --max_locks_per_transaction=64 \
         --track_commit_timestamp=off --max_replication_slots=10 --max_worker_processes=8 --wal_log_hints=on"
    );
    assert_eq!(merged.parameters["wal_keep_size"], "128MB");
    assert!(merged.warnings.is_empty());
}

#[test]
fn parameters_merge_one_by_one_and_names_ignore_case() {
    let merged = merge(
        json!({"parameters": {"Shared_Buffers": "64MB", "max_connections": 500, "my.Thing": true, "autovacuum": false}}),
        json!({"postgresql": {"parameters": {"shared_buffers": "32MB", "work_mem": "8MB", "gone": null}}}),
    );
    let shown: Vec<_> = merged.parameters.iter().filter(|(name, _)| !is_governed(name)).collect();
    let want = [("Shared_Buffers", "64MB"), ("autovacuum", "off"), ("my.Thing", "on"), ("work_mem", "8MB")];
    assert_eq!(shown.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect::<Vec<_>>(), want);
    assert_eq!(merged.parameters["max_connections"], "100", "a governed parameter is not taken from the local file");
}

#[test]
fn a_local_section_hides_the_dynamic_one_as_a_whole() {
    let dynamic = json!({"postgresql": {
        "pg_hba": ["host all all all md5"], "use_pg_rewind": true, "use_slots": false,
        "recovery_conf": {"restore_command": "a", "recovery_end_command": "b"}, "listen": "*:1", "pg_ctl_timeout": "2min"
    }});
    let merged = merge(json!({"recovery_conf": {"restore_command": "c"}, "use_slots": true}), dynamic);
    assert_eq!(merged.pg_hba, Some(vec!["host all all all md5".to_owned()]));
    assert!(merged.use_pg_rewind && !merged.use_slots, "use_slots is dynamic only");
    assert_eq!(merged.recovery, BTreeMap::from([("restore_command".to_owned(), "c".to_owned())]));
    assert_eq!(merged.pg_ctl_timeout, Duration::from_secs(120));
    assert_eq!(merged.parameters["port"], "5433");
}

#[test]
fn recovery_settings_among_parameters_replace_recovery_conf() {
    let merged = merge(
        json!({"recovery_conf": {"recovery_end_command": "b"}}),
        json!({"postgresql": {"parameters": {"restore_command": "cp", "recovery_target_time": "x", "primary_conninfo": "y"}}}),
    );
    assert_eq!(merged.recovery, BTreeMap::from([("restore_command".to_owned(), "cp".to_owned())]));
    assert!(!merged.parameters.contains_key("restore_command"));
}

#[test]
fn a_foreign_hba_file_is_left_alone() {
    for (hba_file, managed, parameter) in [
        (json!("/data/pg_hba.conf"), true, None),
        (json!("pg_hba.conf"), true, None),
        (json!("mine.conf"), false, Some("/data/mine.conf")),
        (json!("/etc/hba"), false, Some("/etc/hba")),
    ] {
        let merged = merge(json!({"parameters": {"HBA_file": hba_file}, "pg_hba": ["local all all trust"]}), json!({}));
        assert_eq!(merged.pg_hba.is_some(), managed, "{hba_file}");
        assert_eq!(merged.parameters.get("hba_file").map(String::as_str), parameter, "{hba_file}");
    }
}

#[test]
fn segments_count_only_without_a_size() {
    for (parameters, size) in [
        (json!({"wal_keep_segments": 4}), "64MB"),
        (json!({"wal_keep_segments": 4, "wal_keep_size": "32MB"}), "32MB"),
        (json!({"wal_keep_segments": 0}), "128MB"),
    ] {
        let merged = merge(json!({}), json!({"postgresql": {"parameters": parameters}}));
        assert_eq!(merged.parameters["wal_keep_size"], size, "{parameters}");
        assert!(!merged.parameters.contains_key("wal_keep_segments"));
    }
}

#[test]
fn an_invalid_governed_value_is_a_warning_and_the_default() {
    let merged = merge(json!({}), json!({"postgresql": {"parameters": {"max_connections": 20, "port": 1}}}));
    assert_eq!(merged.parameters["max_connections"], "100");
    assert_eq!(merged.warnings.len(), 2, "{:?}", merged.warnings);
}

#[test]
fn odd_types_fall_back_without_a_panic() {
    for odd in [json!(null), json!(5), json!("x"), json!([]), json!({}), json!([{"a": null}]), json!(true)] {
        for key in [
            "pg_hba",
            "pg_ident",
            "recovery_conf",
            "callbacks",
            "create_replica_methods",
            "basebackup",
            "rewind",
            "pg_ctl_timeout",
            "bin_name",
            "bin_dir",
            "parameters",
            "use_pg_rewind",
            "custom_conf",
        ] {
            merge(json!({key: odd}), json!({}));
        }
    }
}
