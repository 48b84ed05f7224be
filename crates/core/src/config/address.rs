//! Addresses as configuration files write them.

use std::fmt;

/// A host and a port. IPv6 hosts are held without brackets and printed with them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Host name or address; several hosts stay comma-joined.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Nothing before the port.
    #[error("names no host")]
    NoHost,
    /// No port, where one is needed.
    #[error("has no port")]
    NoPort,
    /// The part after the last colon is no port number.
    #[error("the port {0:?} is not a number between 1 and 65535")]
    Port(String),
}

impl HostPort {
    /// Splits at the last colon; `default_port` is taken when there is none.
    ///
    /// # Errors
    /// When there is no host, no usable port, or no port and no default.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<HostPort, InvalidAddress> {
        let (host, port) = split_host_port(text.trim(), default_port)?;
        let address = HostPort { host, port };
        if address.hosts().next().is_none() { Err(InvalidAddress::NoHost) } else { Ok(address) }
    }

    /// The individual hosts.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.host.split(',').map(str::trim).filter(|host| !host.is_empty())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') && !self.host.contains(',') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Where a server listens: `h1,h2:port`. An empty host or `*` means all addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    /// The addresses, IPv6 without brackets; `*` for all. Never empty.
    pub hosts: Vec<String>,
    /// The port.
    pub port: u16,
}

impl ListenAddress {
    /// Splits at the last colon, then the hosts at commas.
    ///
    /// # Errors
    /// When there is no usable port, or no port and no default.
    pub fn parse(text: &str, default_port: Option<u16>) -> Result<ListenAddress, InvalidAddress> {
        let (host, port) = split_host_port(text.trim(), default_port)?;
        let mut hosts: Vec<String> = host
            .split(',')
            .map(|part| part.trim_matches(is_around_host).to_owned())
            .filter(|part| !part.is_empty())
            .collect();
        if hosts.is_empty() {
            hosts.push("*".to_owned());
        }
        Ok(ListenAddress { hosts, port })
    }

    /// The value of PostgreSQL's `listen_addresses`.
    pub fn listen_addresses(&self) -> String {
        self.hosts.join(",")
    }

    /// The first address that another machine could use, with the port.
    pub fn reachable(&self) -> HostPort {
        let is_usable = |host: &&String| {
            let address = host.parse::<std::net::IpAddr>();
            host.as_str() != "*" && !address.is_ok_and(|address| address.is_unspecified())
        };
        let host = self.hosts.iter().find(is_usable).cloned().unwrap_or_else(|| "localhost".to_owned());
        HostPort { host, port: self.port }
    }

    /// True when it listens on every address.
    pub fn is_any(&self) -> bool {
        self.hosts.iter().any(|host| matches!(host.as_str(), "*" | "0.0.0.0" | "::"))
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bracketed = |host: &String| if host.contains(':') { format!("[{host}]") } else { host.clone() };
        write!(f, "{}:{}", self.hosts.iter().map(bracketed).collect::<Vec<_>>().join(","), self.port)
    }
}

/// The rule for all addresses: the port follows the last colon, unless that colon belongs to an IPv6 address.
fn split_host_port(text: &str, default_port: Option<u16>) -> Result<(String, u16), InvalidAddress> {
    let is_bare_ipv6 = text.parse::<std::net::Ipv6Addr>().is_ok();
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !is_bare_ipv6 && !port.ends_with(']') => (host, Some(port.trim())),
        Some(_) | None => (text, None),
    };
    let port = match port {
        Some(port) => match port.parse::<u16>() {
            Ok(number) if number > 0 => number,
            Ok(_) | Err(_) => return Err(InvalidAddress::Port(port.to_owned())),
        },
        None => default_port.ok_or(InvalidAddress::NoPort)?,
    };
    // The addresses of a list keep their brackets: who splits the list removes them.
    let host = if host.contains(',') { host.trim() } else { host.trim_matches(is_around_host) };
    Ok((host.to_owned(), port))
}

/// What may stand around a host and is no part of it.
fn is_around_host(character: char) -> bool {
    character.is_whitespace() || matches!(character, '[' | ']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_split_at_the_last_colon() {
        for (text, host, port) in [
            ("10.0.0.1:5433", "10.0.0.1", 5433),
            ("pg1", "pg1", 5432),
            ("[::1]:5433", "::1", 5433),
            ("[::1]", "::1", 5432),
            ("::1", "::1", 5432),
            ("a,b:5433", "a,b", 5433),
            (" pg1 : 5433 ", "pg1", 5433),
            ("[[::1] ]:5433", "::1", 5433),
            ("[::1],[::2]:5433", "[::1],[::2]", 5433),
        ] {
            assert_eq!(HostPort::parse(text, Some(5432)), Ok(HostPort { host: host.into(), port }), "{text}");
        }
    }

    #[test]
    fn an_address_without_a_usable_port_says_so() {
        for (text, problem) in [
            ("pg1", InvalidAddress::NoPort),
            ("pg1:", InvalidAddress::Port(String::new())),
            ("pg1:70000", InvalidAddress::Port("70000".into())),
            ("pg1:0", InvalidAddress::Port("0".into())),
            (":5432", InvalidAddress::NoHost),
            (" , :5432", InvalidAddress::NoHost),
            ("[ ]:5432", InvalidAddress::NoHost),
        ] {
            assert_eq!(HostPort::parse(text, None), Err(problem), "{text}");
        }
    }

    #[test]
    fn an_empty_host_listens_everywhere() {
        for (text, addresses) in [
            (":5432", "*"),
            ("*:5432", "*"),
            ("[ ]:5432", "*"),
            ("[ ::1 ]:5432", "::1"),
            ("a]/]]:5432", "a]/"),
            ("a, [::1]:5432", "a,::1"),
            ("0.0.0.0:5432", "0.0.0.0"),
        ] {
            let listen = ListenAddress::parse(text, None).unwrap();
            assert_eq!(listen.listen_addresses(), addresses, "{text}");
        }
        assert!(ListenAddress::parse("0.0.0.0", Some(5432)).unwrap().is_any());
    }

    #[test]
    fn ipv6_is_printed_with_brackets() {
        assert_eq!(HostPort { host: "::1".into(), port: 1 }.to_string(), "[::1]:1");
        assert_eq!(ListenAddress { hosts: vec!["a".into(), "::1".into()], port: 1 }.to_string(), "a,[::1]:1");
    }
}
