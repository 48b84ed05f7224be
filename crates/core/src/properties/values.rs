//! Texts that stand for one value: WAL positions, timelines, names, addresses, numbers with units.

use crate::cluster::ConnUrl;
use crate::config::units::{ParameterType, bool_of, is_same_setting, parse_bool, parse_int, parse_real, text_of};
use crate::config::{HostPort, ListenAddress};
use crate::names::MemberName;
use crate::wal::{Lsn, Timeline};

/// A WAL position is printed as PostgreSQL prints it and read back, and their order is that of the bytes in the log.
pub fn positions(one: u64, other: u64) {
    let (a, b) = (Lsn(one), Lsn(other));
    for lsn in [a, b] {
        let text = lsn.to_string();
        assert_eq!(text.parse(), Ok(lsn), "{text}");
        let (high, low) = text.split_once('/').expect("a slash");
        let padded: Result<Lsn, _> = format!("{high:0>8}/{low:0>8}").parse();
        assert_eq!(padded, Ok(lsn), "pg_waldump pads with zeros");
    }
    assert_eq!(a < b, a.bytes_behind(b) > 0, "behind exactly when less");
    assert!(a.bytes_behind(b) == 0 || b.bytes_behind(a) == 0, "not each behind the other");
}

/// A text is a WAL position or a timeline only when PostgreSQL could have printed it.
pub fn wal_texts(text: &str) {
    if let Ok(lsn) = text.parse::<Lsn>() {
        let (high, low) = text.trim().split_once('/').expect("a slash");
        let bare = |digits: &str| match digits.trim_start_matches('0') {
            "" => "0".to_owned(),
            digits => digits.to_ascii_uppercase(),
        };
        assert_eq!(lsn.to_string(), format!("{}/{}", bare(high), bare(low)), "{text:?}");
    }
    if let Ok(timeline) = text.parse::<Timeline>() {
        assert_eq!(timeline.to_string(), text.trim().trim_start_matches('0'), "{text:?}");
        assert!(timeline.next() >= timeline);
    }
}

/// A member name is one key of the store, and gives a slot name that PostgreSQL accepts.
pub fn names(text: &str) {
    let Ok(name) = text.parse::<MemberName>() else { return };
    assert_eq!(name.as_str(), text, "a name is kept as it was written");
    assert!(!text.is_empty() && !text.contains('/'), "one key below members/: {text:?}");
    let slot = name.slot_name();
    assert!(matches!(slot.len(), 1..=63), "{slot:?}");
    assert!(slot.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')), "{slot:?}");
}

/// An address that was understood is printed in a form that means the same.
pub fn addresses(text: &str) {
    for default_port in [None, Some(5432)] {
        if let Ok(address) = HostPort::parse(text, default_port) {
            assert!(address.port > 0 && !address.host.is_empty(), "{text:?} is {address:?}");
            assert_eq!(HostPort::parse(&address.to_string(), None), Ok(address), "{text:?}");
        }
        if let Ok(listen) = ListenAddress::parse(text, default_port) {
            assert!(!listen.hosts.is_empty() && listen.port > 0, "{text:?} is {listen:?}");
            assert_eq!(ListenAddress::parse(&listen.to_string(), None), Ok(listen.clone()), "{text:?}");
            let reachable = listen.reachable();
            assert_ne!(reachable.host, "*", "nobody can connect to an asterisk");
            assert_eq!(reachable.port, listen.port);
        }
    }
}

/// What members publish as their address is read back, and any other text is refused or gives a usable address.
pub fn connection_urls(text: &str) {
    let urls = [text.to_owned(), format!("postgres://{text}/postgres"), format!("postgres://{text}")];
    for url in urls {
        let Some(read) = ConnUrl::parse(&url) else { continue };
        assert!(!read.host.is_empty(), "{url:?}");
        let is_list_with_ipv6 = read.host.contains(',') && read.host.contains(':');
        if read.host.contains(['/', '?', '@', '[', ']']) || is_list_with_ipv6 {
            continue; // No host that anybody could publish; whoever connects to it is told so.
        }
        let address = HostPort { host: read.host.clone(), port: read.port };
        let published = format!("postgres://{address}/postgres");
        let again = ConnUrl::parse(&published).map(|url| (url.host, url.port));
        assert_eq!(again, Some((read.host, read.port)), "{published}");
    }
}

/// Numbers with units mean one value, whatever they are compared with.
pub fn settings(one: &str, other: &str) {
    for unit in [None, Some("B"), Some("kB"), Some("8kB"), Some("MB"), Some("ms"), Some("s"), Some("min")] {
        if let Some(number) = parse_int(one, unit) {
            let exact = number.unsigned_abs() < 1 << 53;
            assert!(!exact || parse_int(&number.to_string(), unit) == Some(number), "{one:?} in {unit:?}");
        }
        // A fraction is rounded to the next smaller unit first, as PostgreSQL does for integers only.
        if let (Some(whole), Some(real), false) =
            (parse_int(one, unit), parse_real(one, unit), one.contains(['.', 'e', 'E']))
        {
            let difference = (whole as f64 - real).abs();
            assert!(difference <= 0.5 + real.abs() * 1e-9, "{one:?} in {unit:?}: {whole} and {real}");
        }
        for kind in ["bool", "integer", "real", "enum", "string"].map(ParameterType::from_vartype) {
            assert!(is_same_setting(kind, unit, one, one), "{one:?} equals itself as {kind:?}");
            let same = is_same_setting(kind, unit, one, other);
            assert_eq!(same, is_same_setting(kind, unit, other, one), "{one:?} and {other:?} as {kind:?}");
        }
    }
    if let Some(value) = parse_bool(one) {
        assert_eq!(parse_bool(&text_of(&value.into())), Some(value));
        assert_eq!(bool_of(&one.into()), Some(value));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(crate::properties::repeatable(256))]

        #[test]
        fn positions_are_read_as_they_are_printed(one: u64, other: u64, near in 0u64..3) {
            positions(one, other);
            positions(one, one.saturating_add(near));
        }

        #[test]
        fn only_what_postgresql_prints_is_a_position(text in "[-+ 0-9A-Fa-fxg]{0,9}/?[-+ 0-9A-Fa-f]{0,9}") {
            wal_texts(&text);
        }

        #[test]
        fn a_name_gives_a_slot_that_postgresql_accepts(text in "\\PC{0,80}", plain in "[A-Za-z0-9_.-]{1,80}") {
            names(&text);
            names(&plain);
        }

        #[test]
        fn an_address_means_the_same_after_it_was_printed(
            text in "(\\[?[0-9a-f:.]{0,12}\\]?|[a-z0-9.-]{0,8}|\\*|\\PC{0,4})( ?, ?[a-z:*\\[\\]]{0,6})?( ?: ?[0-9]{0,6})?",
        ) {
            addresses(&text);
            connection_urls(&text);
        }

        #[test]
        fn settings_equal_themselves_and_each_other_in_both_directions(
            one in "[-+]?[0-9.]{1,6}([eE][-+]?[0-9]{1,3})? ?(B|kB|MB|GB|TB|us|ms|s|min|h|d|x)?|\\PC{0,6}|0x[0-9a-f]{0,17}",
            other in "[-+]?[0-9.]{1,6} ?(B|kB|MB|GB|TB|us|ms|s|min|h|d)?|on|off|yes|no|1|0",
        ) {
            settings(&one, &other);
            settings(&other, &one);
        }
    }
}
