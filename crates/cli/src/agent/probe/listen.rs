//! Can this machine listen there?

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use pgward_core::config::ListenAddress;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use super::{Broken, UsedPorts};

/// The first host at which no server could listen.
pub(super) fn problem(address: &ListenAddress, ports: UsedPorts) -> Option<Broken> {
    address.hosts.iter().find_map(|host| problem_of_host(host, address.port, ports))
}

fn problem_of_host(host: &str, port: u16, ports: UsedPorts) -> Option<Broken> {
    let addresses = match addresses(host, port) {
        Ok(addresses) => addresses,
        Err(problem) => {
            return Some(Broken::new(
                format!("{host} cannot be resolved: {problem}"),
                "write an address of this machine",
            ));
        }
    };
    // A host with addresses of two families serves with one of them.
    let refused: Vec<io::Error> = addresses.iter().filter_map(|address| claim(address).err()).collect();
    if refused.iter().any(|problem| problem.kind() == ErrorKind::AddrInUse) {
        let remedy = "stop what listens there or choose another port; with -i this is no problem";
        return (ports == UsedPorts::AreProblems).then(|| Broken::new(format!("port {port} is in use"), remedy));
    }
    if refused.len() < addresses.len() {
        return None;
    }
    let problem = refused.first()?;
    let kind = problem.kind();
    Some(if kind == ErrorKind::AddrNotAvailable {
        Broken::new(format!("{host} is not an address of this machine"), "write one of its addresses, or 0.0.0.0")
    } else if kind == ErrorKind::PermissionDenied {
        Broken::new(format!("this user must not listen on port {port}"), "choose a port above 1023")
    } else {
        Broken::new(format!("cannot listen on {host}: {problem}"), "write an address of this machine")
    })
}

/// Takes the address as a server does, and gives it back. It does not listen, so that nobody can connect, and so that a
/// program that is being started at the same time and shares the socket for a moment is not in the way of the next try.
fn claim(address: &SocketAddr) -> io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    Ok(bind(&socket, address)?)
}

fn addresses(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if host == "*" {
        let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        return Ok(all.map(|address| SocketAddr::new(address, port)).into());
    }
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    if addresses.is_empty() { Err(io::Error::new(ErrorKind::NotFound, "it has no address")) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn found(text: &str, ports: UsedPorts) -> Option<String> {
        problem(&ListenAddress::parse(text, None).unwrap(), ports).map(|broken| broken.problem)
    }

    #[test]
    fn a_used_port_a_foreign_address_and_an_unknown_name_are_problems() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let in_use = Some(format!("port {port} is in use"));
        for host in ["127.0.0.1", "*", "0.0.0.0", "localhost"] {
            assert_eq!(found(&format!("{host}:{port}"), UsedPorts::AreProblems), in_use, "{host}");
            assert_eq!(found(&format!("{host}:{port}"), UsedPorts::AreFine), None, "{host}");
        }
        let foreign = found("192.0.2.1:5432", UsedPorts::AreFine).unwrap();
        assert_eq!(foreign, "192.0.2.1 is not an address of this machine");
        let unknown = found("nowhere.invalid:5432", UsedPorts::AreFine).unwrap();
        assert!(unknown.starts_with("nowhere.invalid cannot be resolved: "), "{unknown}");
        assert_eq!(found("127.0.0.1,localhost,*:1", UsedPorts::AreProblems).filter(|_| is_root()), None);
    }

    /// Who may listen on every port.
    fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }
}
