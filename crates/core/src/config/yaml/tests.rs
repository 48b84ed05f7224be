use super::*;
use serde_json::json;

fn read(text: &str) -> Result<(Value, Vec<Finding>), Box<Finding>> {
    let mut warnings = Vec::new();
    parse("t.yml", text, &mut warnings).map(|node| (node.to_value(), warnings))
}

fn value(text: &str) -> Value {
    read(text).map(|(value, _)| value).unwrap_or_else(|finding| panic!("{text}: {finding}"))
}

#[test]
fn documents_mean_what_pyyaml_reads() {
    for (text, want) in [
        ("a: on\nb: 'on'\nc: \"1\"\n", json!({"a": true, "b": "on", "c": "1"})),
        ("b: &b {x: 1, y: 2}\nm: {<<: *b, y: 3}\n", json!({"b": {"x": 1, "y": 2}, "m": {"x": 1, "y": 3}})),
        (
            "b: &b {x: 1}\nc: &c {x: 2, z: 3}\nm: {y: 0, <<: [*b, *c]}\n",
            json!({
                "b": {"x": 1}, "c": {"x": 2, "z": 3}, "m": {"x": 1, "z": 3, "y": 0}
            }),
        ),
        ("m: {'<<': 1}\n", json!({"m": {"<<": 1}})),
        ("a: !!str 5\nb: !!int '7'\nc: ! 5\n", json!({"a": "5", "b": 7, "c": "5"})),
        ("a: |\n  x\n  y\n", json!({"a": "x\ny\n"})),
        ("- a\n- {b: c}\n", json!(["a", {"b": "c"}])),
        ("a:\nb: ~\n", json!({"a": null, "b": null})),
        ("5432: x\noff: y\n", json!({"5432": "x", "false": "y"})),
        ("k: &k name\n*k : v\n", json!({"k": "name", "name": "v"})),
        ("", json!(null)),
        ("# only a comment\n", json!(null)),
        ("---\na: 1\n...\n", json!({"a": 1})),
        ("\u{feff}a: 1\n", json!({"a": 1})),
        ("hosts: 10.0.0.1:2379,10.0.0.2:2379\n", json!({"hosts": "10.0.0.1:2379,10.0.0.2:2379"})),
        ("pg_hba:\n- host all all 0.0.0.0/0 md5\n", json!({"pg_hba": ["host all all 0.0.0.0/0 md5"]})),
    ] {
        assert_eq!(value(text), want, "{text}");
    }
}

#[test]
fn every_value_knows_its_line() {
    let mut warnings = Vec::new();
    let node = parse("t.yml", "a: 1\nb:\n  c:\n  - x\n  - y\n  d: 2\n", &mut warnings).unwrap();
    for (path, line) in [(&["a"][..], 1), (&["b"], 2), (&["b", "c"], 3), (&["b", "d"], 6)] {
        let origin = &node.at(path).unwrap().origin;
        assert_eq!(*origin, Origin::File { name: "t.yml".into(), line }, "{path:?}");
    }
}

#[test]
fn the_last_of_two_equal_keys_counts_and_is_reported() {
    let (value, warnings) = read("a: 1\nb: 2\na: 3\n").unwrap();
    assert_eq!(value, json!({"a": 3, "b": 2}));
    let lines: Vec<_> = warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [r#"t.yml:3: a: the key "a" is here again (first at t.yml:1); the last one counts; keep one of them"#]
    );
}

#[test]
fn what_is_not_one_document_is_refused_with_its_line() {
    for (text, line) in [
        ("a: [1\nb: 2\n", 2),
        ("a: 1\n b: 2\n", 2),
        ("a: 'x\n", 2),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: *nowhere\n", 1),
        ("a: &a [*a]\n", 1),
        ("? [1]\n: 2\n", 1),
        ("a: !custom x\n", 1),
        ("a: !!int x\n", 1),
        ("m: {<<: 5}\n", 1),
    ] {
        let finding = read(text).unwrap_err();
        assert_eq!(finding.severity, Severity::Error, "{text}");
        let Origin::File { line: found, .. } = finding.origin else { panic!("{text}: no line") };
        assert!(found.abs_diff(line) <= 1, "{text}: line {found}, not {line}");
    }
}

#[test]
fn a_message_about_a_value_does_not_show_it() {
    let (_, warnings) = read("password: 2024-02-12\n").unwrap();
    let refused = read("password: !!int 4711x\n").unwrap_err();
    for finding in warnings.iter().chain([&*refused]) {
        assert!(!format!("{finding:?}").contains("2024"), "{finding}");
        assert!(!format!("{finding:?}").contains("4711"), "{finding}");
    }
    assert_eq!(warnings.len(), 1);
}

#[test]
fn aliases_do_not_explode() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..12 {
        let list = vec![format!("*a{}", level - 1); 10].join(", ");
        text.push_str(&format!("a{level}: &a{level} [{list}]\n"));
    }
    assert!(read(&text).unwrap_err().problem.contains("more than"));
    let mut deep = String::from("a0: &a0 [x]\n");
    for level in 1..5000 {
        deep.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(read(&deep).unwrap_err().problem.contains("deeper"));
    let nested = format!("a: {}{}\n", "[".repeat(5000), "]".repeat(5000));
    assert!(read(&nested).is_err());
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[\\PC\n\t]{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn no_yaml_like_text_panics(text in "([a-c&*<!?|>'\"\\[\\]{}:,#~ \n-]|<<|: |- |\n  |0x|1:3|&a |\\*a ){0,60}") {
        let _ = read(&text);
    }

    #[test]
    fn no_scalar_panics(text in "[-+0-9._:exobTZ \\PC]{0,24}") {
        let _ = resolve::resolve(&text);
    }
}
