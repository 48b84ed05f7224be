//! Commands that change something: the configuration, members, or what the store has of a cluster.

use super::*;

/// What comes behind the last table; the table itself has tests of its own.
fn behind_tables(text: &str) -> &str {
    text.rfind("-+\n").map_or(text, |at| &text[at + 3..])
}

/// Compares all that a command printed, tables left out, and returns what it asked of others.
fn check_behind_tables(case: Case, world: Recorded) -> Vec<String> {
    let want = golden(case.golden);
    let command = want.lines().next().and_then(|line| line.strip_prefix("$ ")).unwrap();
    let found = transcript(command, case.answers, &world);
    let (want, has) = (behind_tables(&want).trim_end(), behind_tables(&found).trim_end());
    assert!(has == want, "{}\n--- expected\n{want}\n--- found\n{has}\n--- all\n{found}", case.golden);
    world.requests()
}

const TAGGED: &str = "05-pending-restart-and-tags";
const SCHEDULED: &str = "06-scheduled-switchover-and-restart";
const PAUSED: &str = "10-paused";

/// As it was when changes of the configuration were recorded.
const fn configured(edits: &'static [(&'static str, &'static str)]) -> Moment {
    Moment { stage: STEADY, edits }
}

#[test]
fn edit_config_shows_and_stores_what_patronictl_shows_and_stores() {
    const ONE_MORE: Moment = configured(&[("1048576", "1048577")]);
    const NESTED: Moment =
        Moment { stage: TAGGED, edits: &[("\"ttl\":20,", "\"ttl\":20,\"custom\":{\"nested\":{\"key\":\"abc\"}},")] };
    let document = |change: &dyn Fn(&mut serde_json::Value), stage: &str| {
        let mut document = serde_json::from_str(&stages()[stage]["/service/demo/config"]).unwrap();
        change(&mut document);
        vec![format!("demo config: {document}")]
    };
    let nothing: Vec<String> = Vec::new();
    for (golden, before, answers, text, written) in [
        ("04-edit-config-not-changed", configured(&[]), &[][..], "", nothing.clone()),
        ("04-edit-config-bad", configured(&[]), &[], "", nothing.clone()),
        ("04-edit-config-set-nonforce-notty", ONE_MORE, &[], "", nothing.clone()),
        ("04-edit-config-apply-stdin-noforce-notchanged", configured(&[]), &[], "ttl: 20\n", nothing.clone()),
        ("04-edit-config-apply-stdin-noforce", at(TAGGED), &[], "maximum_lag_on_failover: 2048576\n", nothing.clone()),
        (
            "04-edit-config-force",
            ONE_MORE,
            &[],
            "",
            document(&|config| config["postgresql"]["parameters"]["max_connections"] = 60.into(), STEADY),
        ),
        ("04-edit-config-null", NESTED, &[], "", document(&|_| (), TAGGED)),
    ] {
        let case = Case { answers, ..Case::of(golden, before) };
        let world = Recorded { text, ..Recorded::new(case, "2026-11-21 05:06:00") };
        assert_eq!(check_behind_tables(case, world), written, "{golden}");
    }
    let case = Case::of("04-edit-config-quiet", at(TAGGED));
    let requests = check_behind_tables(case, Recorded::new(case, "2026-11-21 05:06:00"));
    assert!(requests[0].ends_with(r#","custom":{"nested":{"key":"abc"}}}"#), "{requests:?}");
}

/// Runs a command on the idle cluster; `text` is what an editor saves or a file holds.
fn edited(command: &str, answers: &[&str], text: &'static str, loses: bool) -> (String, Vec<String>) {
    let case = Case::of("", at(STEADY));
    let world = Recorded { text, loses, ..Recorded::new(case, "2026-11-21 05:06:00") };
    (transcript(command, answers, &world), world.requests())
}

#[test]
fn an_editor_a_lost_race_and_nonsense_end_as_they_should() {
    let (found, written) = edited("patronictl edit-config", &["y"], "{}failsafe_mode: true\n", false);
    assert!(found.ends_with("Apply these changes? [y/N]: Configuration changed\n[exit 0]\n"), "{found}");
    assert!(
        written[0].ends_with(r#","failsafe_mode":true}"#) || written[0].contains(r#""failsafe_mode":true"#),
        "{written:?}"
    );

    let (found, written) = edited("patronictl edit-config", &[], "{}", false);
    assert_eq!((found.as_str(), written.len()), ("$ patronictl edit-config\nNot changed\n[exit 0]\n", 0));

    let (found, _) = edited("patronictl edit-config -s ttl=40 --force -q", &[], "", true);
    assert!(found.contains("Error: Config modification aborted due to concurrent changes\n[exit 1]"), "{found}");

    for (command, text, problem) in [
        (
            "patronictl edit-config -s ttl=soon --force",
            "",
            "Error: ttl is \"soon\", which is not a whole number of seconds",
        ),
        ("patronictl edit-config -s pause=often --force", "", "pause: \"often\": is not a boolean"),
        ("patronictl edit-config", "ttl: [", "Error: the edited text:1:"),
        ("patronictl edit-config --replace x.yml --force", "just text", "x.yml does not hold a mapping"),
        ("patronictl edit-config other", "", "Error: The config key does not exist in the cluster other"),
    ] {
        let (found, written) = edited(command, &["y"], text, false);
        assert!(found.contains(problem) && found.ends_with("[exit 1]\n"), "{command}: {found}");
        assert_eq!(written.len(), 0, "{command}");
    }
}

#[test]
fn pause_and_resume_are_sent_to_the_leader_and_waited_for() {
    let knows = Moment { stage: PAUSED, edits: &[] };
    for (golden, before, after, request) in [
        ("10-pause-already", at(PAUSED), at(PAUSED), None),
        ("10-resume-again", at(STEADY), at(STEADY), None),
        ("10-pause-wait", at(STEADY), knows, Some(r#"PATCH http://127.0.0.1:28001/config {"pause":true}"#)),
        ("10-resume-nowait", at(PAUSED), at(STEADY), Some(r#"PATCH http://127.0.0.1:28003/config {"pause":null}"#)),
    ] {
        let case = Case { after, post: Some((200, "{}")), ..Case::of(golden, before) };
        let requests = check_behind_tables(case, Recorded::new(case, "2026-11-21 05:06:00"));
        assert_eq!(requests.first().map(String::as_str), request, "{golden}");
    }
    let run = |post| {
        let world = Recorded::new(Case { post, ..Case::of("", at(STEADY)) }, "2026-11-21 05:06:00");
        transcript("patronictl pause --wait", &[], &world)
    };
    assert!(run(None).ends_with("Error: Can not find accessible cluster member\n[exit 1]\n"));
    let late = "pg1, pg2, pg3 members didn't recognized pause state after 3 seconds\n";
    assert!(run(Some((200, "{}"))).contains(late), "nobody publishes it");
    assert!(run(Some((503, "no"))).contains("Failed: pause cluster management status code=503, (no)\n[exit 0]"));
}

#[test]
fn members_are_reloaded_and_restarted_as_patronictl_does() {
    let post = |status, text| Some((status, text));
    const PENDING: Moment = at(TAGGED);
    // Recorded when the switchover had been taken back.
    const RESTART_ONLY: Moment = Moment { stage: SCHEDULED, edits: &[("\"scheduled_at\"", "\"x\"")] };
    for (golden, before, answers, answer, requests) in [
        ("04-reload-force", PENDING, &[][..], post(202, ""), &["POST http://127.0.0.1:28001/reload"][..]),
        ("04-reload-confirm-no", PENDING, &[], None, &[]),
        ("04-reload-role-replica", PENDING, &[], post(202, ""), &["POST http://127.0.0.1:28002/reload"]),
        (
            "07-restart-pending-force",
            PENDING,
            &[],
            post(200, ""),
            &[r#"POST http://127.0.0.1:28001/restart {"restart_pending":true}"#],
        ),
        ("07-restart-bad-schedule", PENDING, &[], None, &[]),
        ("07-restart-bad-version", PENDING, &[], None, &[]),
        ("07-restart-wrong-member", PENDING, &[], None, &[]),
        (
            "07-restart-interactive-409",
            PENDING,
            &["y"],
            post(409, ""),
            &[
                r#"POST http://127.0.0.1:28003/restart {"postgres_version":"16.1","schedule":"2032-05-06T07:08:00+02:00"}"#,
            ],
        ),
        (
            "07-restart-scheduled",
            PENDING,
            &[],
            post(202, ""),
            &[r#"POST http://127.0.0.1:28003/restart {"schedule":"2031-05-06T07:08:00+02:00"}"#],
        ),
        ("10-paused-restart-scheduled", at(PAUSED), &[], None, &[]),
        ("06-flush-restart", RESTART_ONLY, &[], post(200, ""), &["DELETE http://127.0.0.1:28002/restart"]),
        (
            "06-flush-switchover",
            at(SCHEDULED),
            &[],
            post(200, "scheduled switchover deleted"),
            &["DELETE http://127.0.0.1:28001/switchover"],
        ),
        ("06-flush-switchover-none", at(STEADY), &[], None, &[]),
    ] {
        let case = Case { answers, post: answer, ..Case::of(golden, before) };
        let sent = check_behind_tables(case, Recorded::new(case, "2026-11-21 05:06:00"));
        assert_eq!(sent.first().map(String::as_str), requests.first().copied(), "{golden}");
        assert!(!requests.is_empty() || sent.is_empty(), "{golden} sends nothing: {sent:?}");
    }
}

#[test]
fn what_is_scheduled_already_is_taken_back_first_when_forced() {
    let case = Case { post: Some((202, "")), ..Case::of("", at(SCHEDULED)) };
    let world = Recorded::new(case, "2026-11-21 05:06:00");
    transcript("patronictl restart demo pg2 --scheduled 2031-01-01T00:00Z --force", &[], &world);
    let want = [
        "DELETE http://127.0.0.1:28002/restart",
        r#"POST http://127.0.0.1:28002/restart {"schedule":"2031-01-01T00:00:00+00:00"}"#,
    ];
    assert_eq!(world.requests(), want);
}

#[test]
fn a_flush_without_members_goes_through_the_store() {
    let world = Recorded::new(Case::of("", at(SCHEDULED)), "2026-11-21 05:06:00");
    let found = transcript("patronictl flush demo switchover", &[], &world);
    assert!(found.contains("Could not find any accessible member of cluster demo\n[exit 0]"), "{found}");
    assert_eq!(world.requests().last().unwrap(), "demo failover: {}");
    let found = transcript("patronictl flush demo", &[], &world);
    assert!(found.ends_with("Error: flush ends with what to take back: restart or switchover\n[exit 2]\n"), "{found}");
}

#[test]
fn replicas_are_copied_anew_as_patronictl_does() {
    const DURING: Moment = at("19-during-reinit");
    let settled = Some(r#"{"state":"running"}"#);
    for (golden, answers, post, request) in [
        (
            "19-reinit-force-wait",
            &[][..],
            Some((200, "reinitialize started")),
            Some(r#"POST http://127.0.0.1:28003/reinitialize {"force":true,"from_leader":false}"#),
        ),
        (
            "19-reinit-interactive-yes",
            &["pg3", "y"],
            Some((200, "reinitialize started")),
            Some(r#"POST http://127.0.0.1:28003/reinitialize {"force":false,"from_leader":false}"#),
        ),
        ("19-reinit-leader", &[], None, None),
        ("19-reinit-noforce-abort", &[], None, None),
    ] {
        let case = Case { answers, post, ..Case::of(golden, DURING) };
        let world = Recorded { status: settled, ..Recorded::new(case, "2026-11-21 05:06:00") };
        assert_eq!(check_behind_tables(case, world).first().map(String::as_str), request, "{golden}");
    }
}

#[test]
fn a_busy_member_is_interrupted_only_when_the_person_says_so() {
    let case = Case { post: Some((503, "restart already in progress")), ..Case::of("", at(STEADY)) };
    for (answers, requests, tail) in [
        (&["y", "n"][..], 1, "Do you want to cancel it and reinitialize anyway? [y/N]: [exit 0]\n"),
        (
            &["y", "y"],
            2,
            "Failed: reinitialize for member pg2, status code=503, (restart already in progress)\n[exit 0]\n",
        ),
    ] {
        let world = Recorded::new(case, "2026-11-21 05:06:00");
        let found = transcript("patronictl reinit demo pg2", answers, &world);
        assert!(found.ends_with(tail), "{found}");
        assert_eq!(world.requests().len(), requests);
    }
    assert!(case.post.is_some());
    let world = Recorded::new(case, "2026-11-21 05:06:00");
    transcript("patronictl reinit demo --force", &[], &world);
    assert_eq!(world.requests(), Vec::<String>::new(), "nobody was named");
}

#[test]
fn the_cluster_may_be_left_out_when_the_configuration_names_it() {
    for (command, requests) in [
        ("patronictl reload --force", 3),
        ("patronictl reload pg2 --force", 1),
        ("patronictl reload demo pg2 pg3 --force", 2),
        ("patronictl restart pg1 --force", 1),
        ("patronictl reinit pg2 --force", 1),
    ] {
        let world = Recorded::new(Case { post: Some((202, "")), ..Case::of("", at(STEADY)) }, "2026-11-21 05:06:00");
        transcript(command, &[], &world);
        assert_eq!(world.requests().len(), requests, "{command}");
    }
    let world = Recorded::new(Case::of("", at(STEADY)), "2026-11-21 05:06:00");
    let found = transcript("patronictl restart elsewhere --force", &[], &world);
    assert!(found.contains("Error: elsewhere cluster doesn't have any members\n[exit 1]"), "{found}");
    let world = Recorded::new(Case { post: Some((202, "")), ..Case::of("", at(STEADY)) }, "2026-11-21 05:06:00");
    let found = transcript("patronictl reload demo pg2 pg9 --force", &[], &world);
    assert!(found.contains("Warning: cluster demo has no member pg9\n"), "{found}");
}

#[test]
fn a_cluster_is_removed_after_three_right_answers() {
    const DEMO2: Moment = at(STANDBY_CLUSTER);
    for (golden, answers, removed) in [
        ("23-remove-wrong-name", &["demo"][..], false),
        ("23-remove-wrong-phrase", &["demo2", "yes"], false),
        ("23-remove-wrong-leader", &["demo2", "Yes I am aware", "pg1"], false),
    ] {
        let case = Case { scope: "demo2", answers, ..Case::of(golden, DEMO2) };
        let requests = check_behind_tables(case, Recorded::new(case, "2026-11-21 05:06:00"));
        assert_eq!(!requests.is_empty(), removed, "{golden}");
    }
    let answers = ["demo2", "Yes I am aware", "pg4"];
    let world = Recorded::new(Case { scope: "demo2", ..Case::of("", DEMO2) }, "2026-11-21 05:06:00");
    assert!(transcript("patronictl remove demo2", &answers, &world).ends_with("[exit 0]\n"));
    assert_eq!(world.requests(), ["demo2 deleted"]);
}

#[test]
fn only_a_stopped_member_is_removed_alone() {
    let run = |command: &str, stage: &'static str, answers: &[&str]| {
        let world = Recorded::new(Case::of("", at(stage)), "2026-11-21 05:06:00");
        let found = transcript(command, answers, &world);
        (found, world.requests())
    };
    const STOPPED: &str = "17-replica-stopped-cleanly-lease-pending";
    let (found, requests) = run("patronictl remove demo pg2", STOPPED, &["pg2"]);
    assert!(found.contains("Please confirm the member name to remove: Removed member pg2;"), "{found}");
    assert_eq!(requests, ["demo members/pg2 deleted"]);
    for (command, answers, problem) in [
        ("patronictl remove demo pg1", &[][..], "pg1 is not stopped (running)"),
        ("patronictl remove demo pg9", &[], "cluster demo has no member pg9"),
        ("patronictl remove demo pg3", &[], "pg3 leads cluster demo"),
        ("patronictl remove demo pg2", &["pg3"], "Member names specified do not match"),
    ] {
        let (found, requests) = run(command, STOPPED, answers);
        assert!(found.contains(problem) && found.ends_with("[exit 1]\n"), "{command}: {found}");
        assert_eq!(requests.len(), 0, "{command}");
    }
}

#[test]
fn a_cluster_is_demoted_and_promoted_as_a_whole() {
    const STANDBY: Moment = at(STANDBY_CLUSTER);
    const OWN: Moment = at("22b-after-promote-cluster-demo2");
    for (golden, moment) in [("22-demote-cluster-no-options", OWN), ("22-promote-cluster-again", OWN)] {
        let case = Case { scope: "demo2", ..Case::of(golden, moment) };
        assert_eq!(check_behind_tables(case, Recorded::new(case, "2026-11-21 05:06:00")), Vec::<String>::new());
    }
    let run = |command: &str, before, after, answers: &[&str]| {
        let case = Case { scope: "demo2", after, post: Some((200, "{}")), ..Case::of("", before) };
        let world = Recorded::new(case, "2026-11-21 05:25:18");
        (transcript(command, answers, &world), world.requests())
    };
    let (found, requests) = run("patronictl promote-cluster demo2 --force", STANDBY, OWN, &[]);
    assert!(found.contains("-+\n2026-11-21 05:25:18 cluster is successfully promoted\n+ Cluster: demo2"), "{found}");
    assert_eq!(requests, [r#"PATCH http://127.0.0.1:28004/config {"standby_cluster":null}"#]);
    let (found, requests) = run("patronictl demote-cluster --host a --port 5", OWN, STANDBY, &["y"]);
    assert!(
        found.contains("demote demo2 cluster? [y/N]: 2026-11-21 05:25:18 cluster is successfully demoted"),
        "{found}"
    );
    assert_eq!(requests, [r#"PATCH http://127.0.0.1:28004/config {"standby_cluster":{"host":"a","port":5}}"#]);
    let (found, requests) = run("patronictl demote-cluster --host a", OWN, STANDBY, &["n"]);
    assert!(found.ends_with("Error: Aborted cluster demotion\n[exit 1]\n"), "{found}");
    assert_eq!(requests.len(), 0);
}

#[test]
fn a_query_is_refused_and_asks_the_member_that_was_chosen() {
    for (golden, requests) in
        [("18-query-both", 0), ("18-query-nothing", 0), ("18-query-no-such-member", 0), ("18-query-sql-error", 1)]
    {
        let want = super::golden(golden);
        let (command, words) = words_of(&want);
        let case = Case::of("", at(STEADY));
        let world = Recorded::new(case, "2026-11-21 05:21:07");
        let found = transcript_of(command, &words, &[], &world);
        assert_eq!(found.trim_end(), want.trim_end(), "{golden}");
        assert_eq!(world.requests().len(), requests, "{golden}");
    }
    for (options, request) in [
        (&["-r", "replica"][..], "pg2 None None Some(true) select 1"),
        (&["-r", "primary", "-U", "me"], "pg1 Some(\"me\") None Some(false) select 1"),
        (&["-m", "pg3", "-d", "db"], "pg3 None Some(\"db\") None select 1"),
        (&[], "pg1 None None None select 1"),
    ] {
        let world = Recorded::new(Case::of("", at(STEADY)), "2026-11-21 05:06:00");
        let words = [&["patronictl", "query", "demo", "-c", "select 1"], options].concat();
        transcript_of("", &words, &[], &world);
        assert_eq!(world.requests(), [request]);
    }
}

/// The command line of a recording, whose SQL was one word to the shell.
fn words_of(text: &str) -> (&str, Vec<&str>) {
    let command = text.lines().next().and_then(|line| line.strip_prefix("$ ")).unwrap();
    let (options, sql) = command.split_once(" -c ").map_or((command, None), |(options, sql)| (options, Some(sql)));
    let mut words: Vec<&str> = options.split_whitespace().collect();
    words.extend(sql.into_iter().flat_map(|sql| ["-c", sql]));
    (command, words)
}
