use super::*;

fn key(suffix: &str, value: &[u8]) -> RawKey {
    RawKey {
        suffix: suffix.to_owned(),
        value: value.to_vec(),
        create_revision: Revision(1),
        mod_revision: Revision(2),
        lease: LeaseId(3),
    }
}

fn cluster(keys: &[(&str, &str)]) -> Cluster {
    Cluster::from_keys(Revision(9), keys.iter().map(|(suffix, value)| key(suffix, value.as_bytes())))
}

#[test]
fn garbage_in_any_key_is_a_warning_that_names_the_key() {
    for suffix in ["initialize", "config", "leader", "status", "failover", "sync", "history", "failsafe", "members/a"] {
        for garbage in [&b"\xff\xfe"[..], b"[1,", b"\"text\"", b"{\"a\":1}x", b"a/b"] {
            let cluster = Cluster::from_keys(Revision(1), [key(suffix, garbage)]);
            let explained = cluster.warnings.iter().any(|warning| warning.key == suffix);
            let harmless = suffix == "leader" && std::str::from_utf8(garbage).is_ok_and(|text| !text.contains('/'));
            assert!(explained || harmless, "{suffix} = {garbage:?} gave {cluster:?}");
        }
    }
}

#[test]
fn a_leader_key_with_garbage_still_locks_the_cluster() {
    let cluster = cluster(&[("leader", "a/b")]);
    assert!(!cluster.is_unlocked());
    assert!(!cluster.is_led_by(&"a".parse().unwrap()));
}

#[test]
fn an_empty_failover_request_is_none() {
    for value in ["{}", "", "{\"scheduled_at\":\"2030-01-01T00:00:00+00:00\"}"] {
        assert_eq!(cluster(&[("failover", value)]).failover, None, "{value}");
    }
    let request = cluster(&[("failover", "n1:n2")]).failover.unwrap().value;
    assert_eq!(request.to_value(), r#"{"leader":"n1","member":"n2"}"#);
}

#[test]
fn a_request_that_cannot_be_understood_as_a_whole_is_none() {
    for value in [
        r#"{"leader":"a/b","member":"n2"}"#,
        r#"{"leader":5,"member":"n2"}"#,
        r#"{"leader":"n1","member":["n2"]}"#,
        r#"{"leader":"n1","scheduled_at":5}"#,
        "a/b:n2",
        "n1:a/b",
    ] {
        let cluster = cluster(&[("failover", value)]);
        assert_eq!(cluster.failover, None, "{value}");
        assert_eq!(cluster.warnings.len(), 1, "{value}");
    }
    let request = |value| cluster(&[("failover", value)]).failover.unwrap().value.to_value();
    assert_eq!(request(r#"{"leader":"n1","member":null,"scheduled_at":""}"#), r#"{"leader":"n1"}"#);
    assert_eq!(request(":n2"), r#"{"member":"n2"}"#);
}

#[test]
fn a_lock_or_claim_that_is_not_text_is_there_all_the_same() {
    let garbled = |suffix: &str| Cluster::from_keys(Revision(1), [key(suffix, b"\xff")]);
    assert!(!garbled("leader").is_unlocked(), "nobody can create the key");
    assert!(!garbled("leader").is_led_by(&"\u{fffd}".parse().unwrap()));
    assert!(matches!(garbled("initialize").initialize, Initialize::Invalid(_)), "nobody can claim it");
    assert_eq!(garbled("initialize").initialize_revision, Revision(2));
}

#[test]
fn others_see_the_tags_of_a_member_as_it_sees_them_itself() {
    let member = |tags: &str| Member::parse("a".parse().unwrap(), &format!("{{\"tags\":{tags}}}")).0;
    assert!(member(r#"{"failover_priority":"0"}"#).is_nofailover());
    assert!(member(r#"{"nofailover":null,"failover_priority":0}"#).is_nofailover());
    assert!(!member(r#"{"nostream":"off"}"#).is_nostream());
}

#[test]
fn status_is_read_in_all_three_formats() {
    assert_eq!(cluster(&[("status", "17")]).status.optime, Some(crate::wal::Lsn(17)));
    assert_eq!(cluster(&[("optime/leader", "18")]).status.optime, Some(crate::wal::Lsn(18)));
    let value = r#"{"optime":67416872,"slots":{"pg1":67416872,"pg2":5},"retain_slots":["pg2"]}"#;
    assert_eq!(cluster(&[("status", value), ("optime/leader", "1")]).status.to_value(), value);
}

#[test]
fn sync_counts_only_with_a_leader() {
    assert!(cluster(&[("sync", r#"{"leader":null,"quorum":1,"sync_standby":"a"}"#)]).sync.value.is_empty());
    let sync = cluster(&[("sync", r#"{"leader":"pg2","quorum":1,"sync_standby":"pg1,pg3"}"#)]).sync.value;
    assert!(sync.contains("PG2") && sync.has_voter("Pg3") && !sync.has_voter("pg2"));
    assert_eq!(sync.to_value(), r#"{"leader":"pg2","quorum":1,"sync_standby":"pg1,pg3"}"#);
}

#[test]
fn history_gives_the_cluster_timeline() {
    assert_eq!(cluster(&[]).timeline(), None);
    assert_eq!(cluster(&[("history", "[]")]).timeline(), crate::wal::Timeline::new(1));
    for (value, newest) in [("[[2,5,\"\"],[1,3,\"\"]]", 3), ("[[7,5,\"\"],[7,6,\"\"],[3,1,\"\"]]", 8)] {
        let cluster = cluster(&[("history", value)]);
        assert_eq!(cluster.timeline(), crate::wal::Timeline::new(newest), "{value}");
        assert_eq!(cluster.warnings.len(), 1, "{value}");
    }
    let twice = cluster(&[("history", "[[7,5,\"\"],[7,6,\"\"]]")]).history.unwrap().value;
    assert_eq!(twice.to_value(), "[[7,6,\"\"]]", "the later of two lines is kept");
    let value = r#"[[1,50332080,"no recovery target specified","2026-11-21T03:04:05.123456+00:00","pg2"]]"#;
    let cluster = cluster(&[("history", value)]);
    assert_eq!(cluster.timeline(), crate::wal::Timeline::new(2));
    assert_eq!(cluster.history.unwrap().value.to_value(), value);
}

#[test]
fn connection_urls_are_read_in_every_form_that_members_publish() {
    for (url, host, port) in [
        ("postgres://127.0.0.1:25431/postgres", "127.0.0.1", 25431),
        ("postgres://[::1]:5433/postgres", "::1", 5433),
        ("postgres://[fe80::1]/postgres", "fe80::1", 5432),
        ("postgres://db1/postgres", "db1", 5432),
        ("postgres://u:p@db1:1/x?application_name=y", "db1", 1),
    ] {
        let parsed = ConnUrl::parse(url).unwrap();
        assert_eq!((parsed.host.as_str(), parsed.port), (host, port), "{url}");
    }
    for bad in ["http://x", "postgres://", "postgres://h:x/", "postgres://a:b:1/"] {
        assert_eq!(ConnUrl::parse(bad), None, "{bad}");
    }
}

#[test]
fn a_missing_nofailover_tag_leaves_the_word_to_the_priority() {
    let member = |tags: &str| Member::parse("a".parse().unwrap(), &format!("{{\"tags\":{tags}}}")).0;
    for (tags, forbidden) in [
        ("{}", false),
        (r#"{"nofailover":true}"#, true),
        (r#"{"failover_priority":0}"#, true),
        (r#"{"nofailover":false,"failover_priority":0}"#, false),
        (r#"{"failover_priority":2}"#, false),
    ] {
        assert_eq!(member(tags).is_nofailover(), forbidden, "{tags}");
    }
}

#[test]
fn a_system_identifier_is_a_number_of_64_bits() {
    for (value, valid) in [
        ("7710485511011361242", true),
        ("123456789", false),
        ("99999999999999999999999", false),
        ("-1234567890", false),
        ("+1234567890", false),
    ] {
        assert_eq!(cluster(&[("initialize", value)]).initialize.system_id().is_some(), valid, "{value}");
    }
}
