//! Who may change something: address, certificate, password, in this order.

use std::net::IpAddr;
use std::time::Duration;

use hyper::header::{self, HeaderMap};
use hyper::{StatusCode, Uri};
use pgward_core::cluster::Cluster;
use pgward_core::config::VerifyClient;
use tracing::warn;

use super::reply::Reply;
use super::server::RestConfig;
use crate::http::basic_auth_matches;

/// How long resolving one name may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// The other end of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    /// It showed a certificate that was verified.
    pub(super) has_certificate: bool,
}

/// Addresses that may send unsafe requests. Empty means everybody may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    networks: Vec<Network>,
    /// The hosts in the `api_url` of the present members may, too.
    pub include_members: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Network {
    address: IpAddr,
    prefix: u8,
}

/// An entry that is neither an address nor a network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an IP address nor a network such as 10.0.0.0/8")]
pub struct InvalidNetwork(pub String);

impl AllowList {
    /// Reads addresses, networks and host names. A name stands for the addresses it has now; one without an address
    /// is left out with a warning.
    ///
    /// # Errors
    /// When an entry with a slash is not a network.
    pub async fn resolve(entries: &[String], include_members: bool) -> Result<AllowList, InvalidNetwork> {
        let mut networks = Vec::new();
        for entry in entries {
            match Network::parse(entry) {
                Some(network) => networks.push(network),
                None if entry.contains('/') => return Err(InvalidNetwork(entry.clone())),
                None => {
                    let addresses = resolve(entry).await;
                    if addresses.is_empty() {
                        warn!(host = entry.as_str(), "restapi.allowlist: the name has no address and admits nobody");
                    }
                    networks.extend(addresses.into_iter().map(Network::host));
                }
            }
        }
        Ok(AllowList { networks, include_members })
    }

    async fn admits(&self, address: IpAddr, cluster: Option<&Cluster>, members_count: bool) -> bool {
        let consult_members = members_count && self.include_members;
        if self.networks.is_empty() && !consult_members {
            return true;
        }
        self.networks.iter().any(|network| network.contains(address))
            || (consult_members && is_member(address, cluster).await)
    }
}

impl Network {
    fn host(address: IpAddr) -> Network {
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        Network { address, prefix }
    }

    pub(super) fn parse(text: &str) -> Option<Network> {
        let text = text.trim();
        let Some((address, prefix)) = text.split_once('/') else {
            return text.parse().ok().map(Network::host);
        };
        let whole = Network::host(address.parse().ok()?);
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= whole.prefix)?;
        Some(Network { prefix, ..whole })
    }

    pub(super) fn contains(self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u8| {
            let ignored = u32::from(width - self.prefix);
            a.checked_shr(ignored).unwrap_or(0) == b.checked_shr(ignored).unwrap_or(0)
        };
        match (self.address, address) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

async fn is_member(address: IpAddr, cluster: Option<&Cluster>) -> bool {
    let urls = cluster.into_iter().flat_map(|cluster| cluster.members.values()).filter_map(|member| member.api_url());
    for url in urls {
        let Some(host) = url.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)) else {
            continue;
        };
        if resolve(host.trim_start_matches('[').trim_end_matches(']')).await.contains(&address) {
            return true;
        }
    }
    false
}

/// The addresses of a host; none when there is no answer in time.
async fn resolve(host: &str) -> Vec<IpAddr> {
    if let Ok(address) = host.parse() {
        return vec![address];
    }
    match tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((host, 0))).await {
        Ok(Ok(addresses)) => addresses.map(|address| address.ip().to_canonical()).collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    }
}

/// Whether members count as allowed addresses for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Members {
    Count,
    /// For requests that have to work while nobody knows who is a member.
    DoNotCount,
}

/// Answers who is not admitted; `None` means go on.
pub(super) async fn refuse(
    config: &RestConfig,
    peer: Peer,
    headers: &HeaderMap,
    cluster: Option<&Cluster>,
    members: Members,
) -> Option<Reply> {
    if !config.allowlist.admits(peer.address, cluster, members == Members::Count).await {
        return Some(Reply::text(StatusCode::FORBIDDEN, "Access is denied"));
    }
    let asks_for_certificate = config.tls.as_ref().is_some_and(|tls| tls.verify_client != VerifyClient::None);
    if asks_for_certificate && !peer.has_certificate {
        return Some(Reply::text(StatusCode::FORBIDDEN, "client certificate required"));
    }
    let auth = config.auth.as_ref()?;
    match headers.get(header::AUTHORIZATION) {
        None => Some(Reply::challenge("no auth header received")),
        Some(value) if basic_auth_matches(auth, value.as_bytes()) => None,
        Some(_) => Some(Reply::challenge("not authenticated")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_contains_what_its_prefix_says() {
        for (network, address, want) in [
            ("10.0.0.0/8", "10.200.3.4", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "fe80::1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "fe12::1", false),
        ] {
            assert_eq!(
                Network::parse(network).unwrap().contains(address.parse().unwrap()),
                want,
                "{network} {address}"
            );
        }
        for bad in ["10.0.0.0/33", "10.0.0/8", "::/129", "n1", "", "1.2.3.4/-1"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }
}
