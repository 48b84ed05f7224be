use super::super::*;
use super::names;

#[test]
fn the_setting_is_written_as_patroni_writes_it_and_read_as_postgresql_reads_it() {
    let some = |list: &[&str]| list.iter().copied().collect::<Names>();
    for (rule, setting, text) in [
        ("SYN-6: nobody", StandbyNames::nobody(), ""),
        ("SYN-6: one", StandbyNames::all_of(names("b")), "b"),
        ("SYN-6: several", StandbyNames::all_of(names("cb")), "2 (b,c)"),
        ("SYN-6: some of several", StandbyNames::new(Method::Priority, 1, names("bc")), "1 (b,c)"),
        ("SYN-6: quorum", StandbyNames::new(Method::Quorum, 1, names("bc")), "ANY 1 (b,c)"),
        ("SYN-6: quorum of one", StandbyNames::new(Method::Quorum, 1, names("b")), "ANY 1 (b)"),
        ("SYN-6: nobody who exists", StandbyNames::new(Method::Priority, 1, Names::default()), PLACEHOLDER),
        ("SYN-6: keywords", StandbyNames::all_of(some(&["any", "First"])), "2 (\"any\",\"First\")"),
        (
            "SYN-6: odd names",
            StandbyNames::all_of(some(&["pg-1", "1a", "a\"b", "_x$"])),
            "4 (\"1a\",_x$,\"a\"\"b\",\"pg-1\")",
        ),
    ] {
        assert_eq!(setting.to_string(), text, "{rule}");
        assert_eq!(StandbyNames::parse(text).unwrap(), setting, "{rule}");
    }
    for (rule, text, method, count, list) in [
        ("a bare list names the first", "a, b", Method::Priority, 1, "ab"),
        ("keywords in any case", " any 2( a ,b ,c ) ", Method::Quorum, 2, "abc"),
        ("FIRST", "FIRST 2 (a,b)", Method::Priority, 2, "ab"),
        ("a name in two spellings is one", "2 (a,A,b)", Method::Priority, 2, "ab"),
    ] {
        assert_eq!(StandbyNames::parse(text).unwrap(), StandbyNames::new(method, count, names(list)), "{rule}");
    }
    let anybody = StandbyNames::parse("ANY 1 (*)").unwrap();
    assert!(anybody.names.contains("*") && anybody.names.len() == 1, "SYN-6: everybody is a foreign name");
    for text in ["ANY 1", "(a)", "a b", "ANY (a)", "2 (a", "\"a", "a-b", "1 ()", "0 (a)", "a,", "ANY 99999999999 (a)"] {
        assert!(StandbyNames::parse(text).is_err(), "{text}");
    }
}

#[test]
fn names_are_compared_without_regard_to_case() {
    let some: Names = ["Beta", "alpha"].into_iter().collect();
    assert!(some.contains("BETA") && some == ["ALPHA", "beta"].into_iter().collect(), "SYN-6");
    assert_eq!(some.with("beta").to_vec(), ["alpha", "Beta"], "the spelling that came first stays");
    assert_eq!((some.first(1).to_vec(), some.last(1).to_vec()), (vec!["alpha".to_owned()], vec!["Beta".to_owned()]));
    assert!(some.minus(&names("x")) == some && some.without("Alpha").len() == 1);
}
