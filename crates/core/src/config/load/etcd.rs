//! The store's section, in all the forms in which it is written.

use super::read::Section;
use crate::config::address::HostPort;
use crate::config::environment::STORE_SECTIONS;
use crate::config::local::{EtcdConfig, SrvDiscovery};
use crate::config::report::{Report, Rule};
use crate::config::secret::Secret;
use crate::config::yaml::Node;

/// The port of etcd.
const PORT: u16 = 2379;

/// Reads the section `etcd3`, or else `etcd`. `None` when there is neither or when it is unusable.
pub(super) fn read(root: &Node, report: &mut Report) -> Option<EtcdConfig> {
    let path = STORE_SECTIONS[..2].iter().find(|name| is_present(root, name))?;
    let section = Section::of(root, path);
    if *path == "etcd" {
        let problem = "asks for etcd's v2 API, which is not offered; the v3 API of the same servers is used";
        let remedy = "rename the section to etcd3; v2 and v3 keys are separate, so members must agree";
        report.add(Rule::Notice, section.node?.origin.clone(), path, None, problem, remedy);
    }
    for other in STORE_SECTIONS.iter().filter(|other| *other != path && is_present(root, other)) {
        let origin = root.get(other)?.origin.clone();
        let problem = format!("is ignored: the store is {path}");
        report.add(Rule::Notice, origin, other, None, problem, "keep one store");
    }
    let mut etcd = EtcdConfig {
        protocol: section.text("protocol").unwrap_or_else(|| "http".to_owned()).to_ascii_lowercase(),
        use_proxies: section.flag("use_proxies"),
        username: section.text("username"),
        password: section.secret("password"),
        cacert: section.path("cacert"),
        cert: section.path("cert"),
        key: section.path("key"),
        ..EtcdConfig::default()
    };
    if !matches!(etcd.protocol.as_str(), "http" | "https") {
        let problem = "is neither http nor https";
        report.about(Rule::Fatal, &section.key("protocol"), section.get("protocol")?, problem, "write http or https");
        return None;
    }
    if let Some(name) = ["proxy", "url"].into_iter().find(|name| section.text(name).is_some()) {
        etcd.use_proxies |= name == "proxy";
        return take_url(etcd, &section, name, report);
    }
    etcd.srv = ["srv", "discovery_srv", "srv_domain"]
        .into_iter()
        .find_map(|name| section.text(name))
        .map(|domain| SrvDiscovery { domain, suffix: section.text("srv_suffix") });
    etcd.endpoints = endpoints(&section, &etcd.protocol, report)?;
    if etcd.endpoints.is_empty() && etcd.srv.is_none() {
        report.missing(Rule::Fatal, &section.key("hosts"), section.node, "write `hosts: HOST:2379, HOST:2379`");
        return None;
    }
    Some(etcd)
}

/// Says why there is no store.
pub(super) fn complain(root: &Node, report: &mut Report) -> Option<EtcdConfig> {
    if STORE_SECTIONS[..2].iter().any(|name| is_present(root, name)) {
        return None; // Said where it was read.
    }
    let mut others = STORE_SECTIONS[2..].iter().filter_map(|name| Some((*name, root.get(name)?))).peekable();
    if others.peek().is_none() {
        report.missing(
            Rule::Fatal,
            "etcd3",
            Some(root),
            "write `etcd3:` with `hosts:` below it, or set PATRONI_ETCD3_HOSTS",
        );
    }
    for (name, node) in others {
        let problem = "this store is not supported";
        report.add(Rule::Fatal, node.origin.clone(), name, None, problem, "use etcd, in a section `etcd3`");
    }
    None
}

fn is_present(root: &Node, section: &str) -> bool {
    root.get(section).is_some_and(|node| !node.is_null())
}

/// `hosts`, or else `host`, with the default port where there is none.
fn endpoints(section: &Section<'_>, protocol: &str, report: &mut Report) -> Option<Vec<String>> {
    let name = if section.texts("hosts").is_empty() { "host" } else { "hosts" };
    let default = section.integer("port").and_then(|port| u16::try_from(port).ok()).unwrap_or(PORT);
    let mut endpoints = Vec::new();
    let mut usable = true;
    for text in section.texts(name) {
        let (scheme, address) = match text.split_once("://") {
            Some((scheme @ ("http" | "https"), address)) => (scheme, address.trim_end_matches('/')),
            Some(_) | None => (protocol, text.as_str()),
        };
        match HostPort::parse(address, Some(default)) {
            Ok(address) => endpoints.push(format!("{scheme}://{address}")),
            Err(problem) => {
                let origin = section.get(name)?.origin.clone();
                let key = section.key(name);
                report.add(Rule::Fatal, origin, &key, Some(text), problem.to_string(), "write host or host:port");
                usable = false;
            }
        }
    }
    usable.then_some(endpoints)
}

/// `scheme://user:password@host:port`, over the keys of the same meaning.
fn take_url(etcd: EtcdConfig, section: &Section<'_>, name: &str, report: &mut Report) -> Option<EtcdConfig> {
    let text = section.text(name)?;
    let parts = text.split_once("://").filter(|(scheme, _)| matches!(*scheme, "http" | "https"));
    let Some((scheme, rest)) = parts else {
        report.about(Rule::Fatal, &section.key(name), section.get(name)?, "is not an http or https URL", EXAMPLE);
        return None;
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, address) = authority.rsplit_once('@').map_or((None, authority), |(user, address)| (Some(user), address));
    let address = match HostPort::parse(address, Some(PORT)) {
        Ok(address) => address,
        Err(problem) => {
            report.about(Rule::Fatal, &section.key(name), section.get(name)?, problem.to_string(), EXAMPLE);
            return None;
        }
    };
    let (username, password) = match user {
        Some(user) => {
            let (name, password) = user.split_once(':').map_or((user, None), |(name, password)| (name, Some(password)));
            (Some(percent_decoded(name)), password.map(|password| Secret::new(percent_decoded(password))))
        }
        None => (None, None),
    };
    Some(EtcdConfig {
        endpoints: vec![format!("{scheme}://{address}")],
        protocol: scheme.to_owned(),
        username: username.or(etcd.username),
        password: password.or(etcd.password),
        srv: None,
        ..etcd
    })
}

const EXAMPLE: &str = "write it like https://host:2379";

/// Resolves `%40` and the like; anything else stays as it is.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten().and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::finding::Origin;
    use crate::config::report::Purpose;
    use serde_json::{Value, json};

    fn etcd(root: Value) -> Result<EtcdConfig, String> {
        let root = Node::from_value(&root, &Origin::Unknown);
        let mut report = Report::default();
        let read = read(&root, &mut report).or_else(|| complain(&root, &mut report));
        let findings = report.conclude(Purpose::Start);
        read.ok_or_else(|| findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn hosts_are_written_in_many_forms() {
        for (section, want) in [
            (json!({"hosts": "a:1,b:2"}), "http://a:1 http://b:2"),
            (json!({"hosts": "a , b:2"}), "http://a:2379 http://b:2"),
            (
                json!({"hosts": ["a:1", "[::1]:2", "::2"], "protocol": "https"}),
                "https://a:1 https://[::1]:2 https://[::2]:2379",
            ),
            (json!({"hosts": ["a"], "port": "4001"}), "http://a:4001"),
            (json!({"host": "a"}), "http://a:2379"),
            (json!({"host": "a:1", "hosts": ""}), "http://a:1"),
            (json!({"host": "a:1", "hosts": ["b:2"]}), "http://b:2"),
            (json!({"hosts": ["https://a:1/"]}), "https://a:1"),
            (json!({"url": "https://u:p%40@a:1/x", "hosts": "b"}), "https://a:1"),
            (json!({"url": "http://a", "proxy": "http://p:3"}), "http://p:3"),
        ] {
            assert_eq!(etcd(json!({"etcd3": section})).unwrap().endpoints.join(" "), want, "{section}");
        }
    }

    #[test]
    fn a_url_brings_user_and_password() {
        let read = etcd(json!({"etcd3": {"url": "https://u:p%40@a:1", "username": "x"}})).unwrap();
        assert_eq!((read.username.as_deref(), read.password), (Some("u"), Some(Secret::new("p@"))));
        assert!(etcd(json!({"etcd3": {"proxy": "http://a"}})).unwrap().use_proxies);
        let srv = etcd(json!({"etcd": {"discovery_srv": "example.org", "srv_suffix": "x"}})).unwrap().srv;
        assert_eq!(srv, Some(SrvDiscovery { domain: "example.org".into(), suffix: Some("x".into()) }));
    }

    #[test]
    fn what_is_no_store_is_named() {
        for (root, part) in [
            (json!({"consul": {"host": "a"}}), "consul: this store is not supported"),
            (json!({"scope": "x"}), "etcd3: is not set"),
            (json!({"etcd3": {}}), "etcd3.hosts: is not set"),
            (json!({"etcd3": {"hosts": ["a:b"]}}), "etcd3.hosts: a:b: the port \"b\""),
            (json!({"etcd3": {"url": "a:1"}}), "etcd3.url: is not an http or https URL"),
            (json!({"etcd3": {"host": "a", "protocol": "grpc"}}), "grpc: is neither http nor https"),
        ] {
            let problem = etcd(root.clone()).unwrap_err();
            assert!(problem.contains(part), "{root}: {problem}");
        }
    }
}
