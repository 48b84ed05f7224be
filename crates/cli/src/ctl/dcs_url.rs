//! `-d`/`DCS_URL`: the store as one URL, `scheme://host:port/namespace`.

use anyhow::{Context, bail};
use pgward_core::config::EtcdConfig;

/// The port of etcd.
const ETCD_PORT: u16 = 2379;

/// A store and, where the URL has a path, the namespace in it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DcsUrl {
    /// How to reach it.
    pub(super) etcd: EtcdConfig,
    /// The path.
    pub(super) namespace: Option<String>,
}

/// Reads `etcd3://host:port/namespace`. `etcd`, `http` and `https` mean etcd too; several hosts are separated by commas;
/// a port may be missing, and so may the host, which is then this machine.
///
/// # Errors
/// For the scheme or the usual port of a store that is not etcd, and for a port that is not a number.
pub(super) fn parse(url: &str) -> anyhow::Result<DcsUrl> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let protocol = match scheme {
        "etcd3" | "etcd" | "http" => "http",
        "https" => "https",
        "" => match hosts.rsplit_once(':').map(|(_, port)| port) {
            Some("8500") => return Err(unsupported(url, "consul")),
            Some("2181") => return Err(unsupported(url, "zookeeper")),
            Some("8181") => return Err(unsupported(url, "exhibitor")),
            Some(_) | None => "http",
        },
        other => return Err(unsupported(url, other)),
    };
    let endpoints = hosts.split(',').map(|host| endpoint(protocol, host.trim())).collect::<anyhow::Result<Vec<_>>>();
    let endpoints = endpoints.with_context(|| format!("cannot use the store {url:?}"))?;
    let namespace = path.trim_matches('/');
    Ok(DcsUrl {
        etcd: EtcdConfig { endpoints, protocol: protocol.to_owned(), ..EtcdConfig::default() },
        namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
    })
}

fn unsupported(url: &str, store: &str) -> anyhow::Error {
    anyhow::anyhow!("cannot use the store {url:?}: {store:?} is not supported; give etcd3://host:port/namespace")
}

fn endpoint(protocol: &str, host: &str) -> anyhow::Result<String> {
    let (name, port) = match host.rsplit_once(':') {
        // The last colon of an IPv6 address is inside its brackets.
        Some((name, port)) if !port.ends_with(']') => (name, port),
        Some(_) | None => (host, ""),
    };
    let port = match port {
        "" => ETCD_PORT,
        text => match text.parse() {
            Ok(port) => port,
            Err(_) => bail!("{text:?} is not a port; a number from 1 to 65535 is needed"),
        },
    };
    let name = if name.is_empty() { "localhost" } else { name };
    Ok(format!("{protocol}://{name}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_endpoints_and_the_namespace() {
        for (url, endpoints, namespace) in [
            ("etcd3://10.0.0.1:2379/service", "http://10.0.0.1:2379", Some("service")),
            ("etcd3://10.0.0.1:2379/", "http://10.0.0.1:2379", None),
            ("etcd://n1", "http://n1:2379", None),
            ("https://n1/a/b/", "https://n1:2379", Some("a/b")),
            ("localhost:12379", "http://localhost:12379", None),
            ("localhost", "http://localhost:2379", None),
            ("etcd3://", "http://localhost:2379", None),
            ("etcd3://[::1]:1/x", "http://[::1]:1", Some("x")),
            ("etcd3://[::1]", "http://[::1]:2379", None),
            ("etcd3://a:1,b:2, c/x", "http://a:1 http://b:2 http://c:2379", Some("x")),
        ] {
            let parsed = parse(url).unwrap();
            assert_eq!((parsed.etcd.endpoints.join(" ").as_str(), parsed.namespace.as_deref()), (endpoints, namespace));
        }
        for (url, part) in [
            ("consul://localhost:8500", "\"consul\" is not supported"),
            ("localhost:2181", "\"zookeeper\" is not supported"),
            ("etcd3://localhost:x", "\"x\" is not a port"),
            ("etcd3://localhost:70000", "\"70000\" is not a port"),
        ] {
            let problem = format!("{:#}", parse(url).unwrap_err());
            assert!(problem.contains(part) && problem.contains(url), "{problem}");
        }
    }
}
