//! How to reach etcd.

use std::fmt;
use std::path::{Path, PathBuf};

use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use crate::StoreError;

/// Where distributions keep the certificates of public authorities; used for `https` without `ca_cert`.
const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How to reach etcd, and which cluster to look at.
#[derive(Clone, Default)]
pub struct EtcdOptions {
    /// Addresses to start with, such as `http://10.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// Ask the endpoints which members there are, and use the addresses they advertise. False behind a proxy.
    pub discover_members: bool,
    /// A domain whose SRV records name the endpoints. Not supported yet: [`EtcdStore::new`](crate::EtcdStore::new)
    /// refuses it when there are no `endpoints` beside it.
    pub srv: Option<String>,
    /// User name; authentication needs the password as well.
    pub username: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// File with the certificates of the authorities that sign etcd's certificates; the system's when absent.
    pub ca_cert: Option<PathBuf>,
    /// File with our certificate.
    pub cert: Option<PathBuf>,
    /// File with its key; the file of the certificate when absent.
    pub key: Option<PathBuf>,
    /// The prefix of the cluster's keys; see [`prefix_of`](crate::prefix_of).
    pub prefix: String,
}

impl fmt::Debug for EtcdOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdOptions")
            .field("endpoints", &self.endpoints)
            .field("discover_members", &self.discover_members)
            .field("srv", &self.srv)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "hidden"))
            .field("ca_cert", &self.ca_cert)
            .field("cert", &self.cert)
            .field("key", &self.key)
            .field("prefix", &self.prefix)
            .finish()
    }
}

impl EtcdOptions {
    /// Checks what can be checked without asking anybody.
    pub(super) fn validate(&self) -> Result<(), StoreError> {
        let refuse = |text: String| Err(StoreError::Options(text));
        if self.endpoints.is_empty() {
            return refuse(match &self.srv {
                Some(domain) => format!(
                    "cannot look up the SRV records of {domain:?}: not supported yet; list the endpoints in `hosts`"
                ),
                None => "no etcd endpoint is given; set `host` or `hosts`".to_owned(),
            });
        }
        if !self.prefix.starts_with('/') || !self.prefix.ends_with('/') || self.prefix.len() < 3 {
            return refuse(format!("the prefix {:?} is not of the form /namespace/scope/", self.prefix));
        }
        if self.cert.is_none() && self.key.is_some() {
            return refuse("`key` is set without `cert`: set both".to_owned());
        }
        for endpoint in &self.endpoints {
            if !is_web_address(endpoint) {
                return refuse(format!("the etcd endpoint {endpoint:?} is not of the form http(s)://host:port"));
            }
        }
        Ok(())
    }

    /// User name and password, when both are set.
    pub(super) fn credentials(&self) -> Option<(String, String)> {
        let username = self.username.clone().filter(|name| !name.is_empty())?;
        let password = self.password.clone().filter(|password| !password.is_empty())?;
        Some((username, password))
    }

    /// True when there are files of certificates that may be renewed.
    pub(super) fn has_certificates(&self) -> bool {
        self.ca_cert.is_some() || self.cert.is_some()
    }

    /// What connections to `https` endpoints use.
    pub(super) fn tls(&self) -> Result<ClientTlsConfig, StoreError> {
        let mut tls = ClientTlsConfig::new();
        if let Some(path) = &self.ca_cert {
            tls = tls.ca_certificate(Certificate::from_pem(read(path, "ca_cert")?));
        } else if let Some(pem) = SYSTEM_ROOTS.iter().find_map(|path| std::fs::read(path).ok()) {
            tls = tls.ca_certificate(Certificate::from_pem(pem));
        }
        if let Some(cert) = &self.cert {
            let key = self.key.as_ref().unwrap_or(cert);
            tls = tls.identity(Identity::from_pem(read(cert, "cert")?, read(key, "key")?));
        }
        Ok(tls)
    }
}

/// True for `http(s)://host[:port]`.
pub(super) fn is_web_address(url: &str) -> bool {
    url.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && matches!(uri.path(), "" | "/")
    })
}

fn read(path: &Path, setting: &str) -> Result<Vec<u8>, StoreError> {
    std::fs::read(path)
        .map_err(|error| StoreError::Options(format!("cannot read {}, the etcd `{setting}`: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> EtcdOptions {
        EtcdOptions {
            endpoints: vec!["http://127.0.0.1:2379".to_owned()],
            prefix: "/service/demo/".to_owned(),
            ..EtcdOptions::default()
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_rule() {
        for (name, options, want) in [
            ("plain", options(), None),
            ("no endpoint", EtcdOptions { endpoints: vec![], ..options() }, Some("no etcd endpoint")),
            (
                "SRV alone",
                EtcdOptions { endpoints: vec![], srv: Some("example.com".into()), ..options() },
                Some("not supported yet"),
            ),
            ("no scheme", EtcdOptions { endpoints: vec!["10.0.0.1:2379".into()], ..options() }, Some("http(s)://")),
            ("a path", EtcdOptions { endpoints: vec!["http://a:1/v3".into()], ..options() }, Some("http(s)://")),
            ("nonsense", EtcdOptions { endpoints: vec!["http://[::1".into()], ..options() }, Some("http(s)://")),
            ("no scope", EtcdOptions { prefix: "//".into(), ..options() }, Some("/namespace/scope/")),
            ("key alone", EtcdOptions { key: Some("/k".into()), ..options() }, Some("without `cert`")),
        ] {
            let problem = options.validate().err().map(|error| error.to_string());
            match want {
                None => assert_eq!(problem, None, "{name}"),
                Some(part) => assert!(problem.clone().is_some_and(|text| text.contains(part)), "{name}: {problem:?}"),
            }
        }
    }

    #[test]
    fn a_password_is_not_printed() {
        let options = EtcdOptions { username: Some("u".into()), password: Some("secret".into()), ..options() };
        assert!(!format!("{options:?}").contains("secret"));
    }

    #[test]
    fn a_missing_certificate_is_named() {
        let problem = EtcdOptions { ca_cert: Some("/nowhere/ca.pem".into()), ..options() }.tls().unwrap_err();
        assert!(problem.to_string().contains("/nowhere/ca.pem"), "{problem}");
    }
}
