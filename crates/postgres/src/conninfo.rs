//! Connection strings as libpq reads them, and password files.

use std::path::Path;

use crate::secret::SERVICE;
use crate::settings::Credentials;

/// How to reach a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnInfo {
    /// Host name, address or socket directory; several comma-joined; `None` is libpq's default socket directory.
    pub host: Option<String>,
    /// Port.
    pub port: u16,
    /// Database.
    pub database: Option<String>,
    /// User and transport security.
    pub credentials: Credentials,
    /// `read-write` only for a remote primary given by several hosts.
    pub target_session_attrs: Option<String>,
}

impl ConnInfo {
    /// The user, or the empty string.
    pub fn user(&self) -> &str {
        self.credentials.username.as_deref().unwrap_or_default()
    }

    /// The hosts one by one; the empty list means libpq's default socket directory.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.host.as_deref().unwrap_or_default().split(',').map(str::trim).filter(|host| !host.is_empty())
    }
}

impl std::fmt::Display for ConnInfo {
    /// `host:port`, for people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host.as_deref().unwrap_or("local socket"), self.port)
    }
}

/// The parts of a connection string that depend on what it is for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Render<'a> {
    /// Major version of the server or tool that reads it: newer keys are left out.
    pub(crate) major: u32,
    /// Put the path of a password file instead of the password.
    pub(crate) passfile: Option<&'a Path>,
    /// Put the password itself; never for process arguments.
    pub(crate) password: bool,
    /// It becomes a process argument, which every user of the machine can read: secrets are named by their service.
    pub(crate) for_arguments: bool,
    pub(crate) application_name: Option<&'a str>,
    pub(crate) krbsrvname: Option<&'a str>,
    /// Fill in the defaults that Patroni writes into `primary_conninfo`.
    pub(crate) defaults: bool,
}

impl ConnInfo {
    /// `key=value` pairs in Patroni's order, so that a running and a wanted setting compare equal as text.
    pub(crate) fn pairs(&self, how: Render<'_>) -> Vec<(&'static str, String)> {
        let secrets = &self.credentials;
        let default =
            |value: &Option<String>, text: &str| value.clone().or_else(|| how.defaults.then(|| text.to_owned()));
        let since = |major: u32, value: Option<String>| value.filter(|_| how.major >= major);
        let password = || secrets.password.clone().filter(|_| how.password);
        let password = match how.passfile {
            Some(path) => ("passfile", Some(path.display().to_string())),
            None => ("password", password()),
        };
        let sslpassword = since(13, secrets.sslpassword.clone()).filter(|secret| !secret.is_empty());
        let (service, sslpassword) = match sslpassword {
            Some(_) if how.for_arguments => (Some(SERVICE.to_owned()), None),
            present => (None, present),
        };
        let candidates = [
            ("service", service),
            ("dbname", self.database.clone()),
            ("user", secrets.username.clone()),
            password,
            ("host", self.host.clone()),
            ("port", Some(self.port.to_string())),
            ("sslmode", default(&secrets.sslmode, "prefer")),
            ("sslcert", secrets.sslcert.clone()),
            ("sslkey", secrets.sslkey.clone()),
            ("sslpassword", sslpassword),
            ("sslrootcert", secrets.sslrootcert.clone()),
            ("sslcrl", secrets.sslcrl.clone()),
            ("sslcrldir", since(14, secrets.sslcrldir.clone())),
            ("application_name", how.application_name.map(str::to_owned)),
            ("krbsrvname", how.krbsrvname.map(str::to_owned)),
            ("gssencmode", since(12, default(&secrets.gssencmode, "prefer"))),
            ("channel_binding", since(13, default(&secrets.channel_binding, "prefer"))),
            ("target_session_attrs", self.target_session_attrs.clone()),
            ("sslnegotiation", since(17, default(&secrets.sslnegotiation, "postgres"))),
        ];
        let present =
            |(key, value): (&'static str, Option<String>)| Some((key, value.filter(|text| !text.is_empty())?));
        candidates.into_iter().filter_map(present).collect()
    }

    /// The same as one string.
    pub(crate) fn render(&self, how: Render<'_>) -> String {
        join(&self.pairs(how))
    }

    /// A string for a tool's arguments: without any password. What it lacks, [`Login`](crate::secret::Login) has.
    pub(crate) fn render_for_tool(&self, major: u32) -> String {
        self.render(Render { major, for_arguments: true, ..Render::default() })
    }
}

/// What separates pairs. libpq counts the vertical tab among them, which Rust does not.
fn is_blank(character: char) -> bool {
    character.is_ascii_whitespace() || character == '\u{b}'
}

/// Joins pairs, escaping `'`, `\` and blanks with a backslash; an empty value is written as `''`.
pub(crate) fn join<K: AsRef<str>>(pairs: &[(K, String)]) -> String {
    let mut text = String::new();
    for (key, value) in pairs {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(key.as_ref());
        text.push('=');
        for character in value.chars() {
            if character == '\'' || character == '\\' || is_blank(character) {
                text.push('\\');
            }
            text.push(character);
        }
        if value.is_empty() {
            text.push_str("''");
        }
    }
    text
}

/// Reads `key=value` pairs, quoted or escaped, and URLs only as far as telling that it is one. `None` for what libpq
/// would refuse.
pub(crate) fn parse(text: &str) -> Option<Vec<(String, String)>> {
    let mut pairs = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| is_blank(*c)).is_some() {}
        if rest.peek().is_none() {
            return Some(pairs);
        }
        let mut key = String::new();
        while let Some(character) = rest.next_if(|c| *c != '=' && !is_blank(*c)) {
            key.push(character);
        }
        while rest.next_if(|c| is_blank(*c)).is_some() {}
        if key.is_empty() || rest.next() != Some('=') {
            return None;
        }
        while rest.next_if(|c| is_blank(*c)).is_some() {}
        let quoted = rest.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        let mut closed = !quoted;
        while let Some(character) = rest.next_if(|c| quoted || !is_blank(*c)) {
            match character {
                '\\' => value.push(rest.next()?),
                '\'' if quoted => {
                    closed = true;
                    break;
                }
                other => value.push(other),
            }
        }
        if !closed {
            return None;
        }
        pairs.push((key, value));
    }
}

/// The lines of a password file for one target; empty without a password.
pub(crate) fn pgpass_lines(target: &ConnInfo) -> Vec<String> {
    let Some(password) = &target.credentials.password else { return Vec::new() };
    let line = |host: &str| {
        let mut line = String::new();
        let user = target.credentials.username.as_deref();
        let port = target.port.to_string();
        for field in [Some(host), Some(port.as_str()), None, user, Some(password.as_str())] {
            if !line.is_empty() {
                line.push(':');
            }
            match field {
                Some(text) if !text.is_empty() => {
                    for character in text.chars() {
                        if matches!(character, ':' | '\\') {
                            line.push('\\');
                        }
                        line.push(character);
                    }
                }
                Some(_) | None => line.push('*'),
            }
        }
        line
    };
    let mut lines: Vec<String> = target.hosts().map(line).collect();
    if target.hosts().any(|host| host.starts_with('/')) {
        lines.push(line("localhost"));
    }
    if lines.is_empty() {
        lines.push(line("*"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> ConnInfo {
        ConnInfo {
            host: Some("10.0.0.2".into()),
            port: 5433,
            database: Some("postgres".into()),
            credentials: Credentials {
                username: Some("replicator".into()),
                password: Some("it's a:b\\c".into()),
                ..Credentials::default()
            },
            target_session_attrs: None,
        }
    }

    #[test]
    fn primary_conninfo_has_the_parts_and_the_order_that_patroni_writes() {
        let how = Render {
            major: 17,
            passfile: Some(Path::new("/tmp/pg pass")),
            application_name: Some("Node-1.a"),
            defaults: true,
            ..Render::default()
        };
        assert_eq!(
            target().render(how),
            "dbname=postgres user=replicator passfile=/tmp/pg\\ pass host=10.0.0.2 port=5433 sslmode=prefer \
             application_name=Node-1.a gssencmode=prefer channel_binding=prefer sslnegotiation=postgres"
        );
        let older = target().render(Render { major: 13, ..how });
        assert!(!older.contains("sslnegotiation") && older.contains("channel_binding"), "{older}");
    }

    #[test]
    fn what_is_escaped_is_read_back() {
        let how = Render { major: 15, password: true, ..Render::default() };
        let pairs = parse(&target().render(how)).unwrap();
        assert!(pairs.contains(&("password".into(), "it's a:b\\c".into())), "{pairs:?}");
        assert_eq!(
            parse("a = 'x \\' y'  b=c").unwrap(),
            [("a".to_owned(), "x ' y".to_owned()), ("b".into(), "c".into())]
        );
        let odd = [("a", String::new()), ("b", "x\u{b}y".to_owned()), ("c", "z".to_owned())];
        assert_eq!(join(&odd), "a='' b=x\\\u{b}y c=z", "libpq reads neither as the end of a value");
        assert_eq!(parse(&join(&odd)).unwrap()[1].1, "x\u{b}y");
        for bad in ["a", "=b", "a='x", "postgres://h/d"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tool_never_sees_the_password_in_its_arguments() {
        assert!(!target().render_for_tool(15).contains("it"));
    }

    #[test]
    fn pgpass_has_a_line_for_each_host_with_its_separators_escaped() {
        let hosts = |host: Option<&str>| pgpass_lines(&ConnInfo { host: host.map(str::to_owned), ..target() });
        assert_eq!(hosts(Some("a,b")), ["a:5433:*:replicator:it's a\\:b\\\\c", "b:5433:*:replicator:it's a\\:b\\\\c"]);
        assert_eq!(hosts(Some("/run/pg"))[1], "localhost:5433:*:replicator:it's a\\:b\\\\c");
        assert_eq!(hosts(Some("::1")), ["\\:\\:1:5433:*:replicator:it's a\\:b\\\\c"]);
        assert_eq!(hosts(None), ["*:5433:*:replicator:it's a\\:b\\\\c"]);
        let mut without = target();
        without.credentials.password = None;
        assert!(pgpass_lines(&without).is_empty());
    }
}
