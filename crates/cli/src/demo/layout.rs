//! Where everything of a demo is: files below one directory, ports above one number.

use std::fmt;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// One digit: the port numbers leave room for nine.
pub(super) const NODES_MAX: u8 = 9;
pub(super) const NODES_DEFAULT: u8 = 3;
pub(super) const BASE_PORT_DEFAULT: u16 = 15400;
/// The highest port in use is 33 above the base.
pub(super) const BASE_PORT_MAX: u16 = u16::MAX - 33;
/// The smallest number that survives the loss of one.
const ETCD_MEMBERS: u8 = 3;

/// A PostgreSQL node: `n1`, `n2`, ...
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Node(u8);

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl FromStr for Node {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix('n').and_then(|number| number.parse().ok()) {
            Some(number) if (1..=NODES_MAX).contains(&number) => Ok(Node(number)),
            _ => Err(format!("nodes are named n1 to n{NODES_MAX}")),
        }
    }
}

/// A member of the store: `e1`, `e2`, `e3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EtcdMember(u8);

impl fmt::Display for EtcdMember {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "e{}", self.0)
    }
}

/// What a user can name: a node or a member of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Node(Node),
    Etcd(EtcdMember),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Node(node) => node.fmt(f),
            Part::Etcd(member) => member.fmt(f),
        }
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix('e').and_then(|number| number.parse().ok()) {
            Some(number) if (1..=ETCD_MEMBERS).contains(&number) => Ok(Part::Etcd(EtcdMember(number))),
            _ => {
                text.parse().map(Part::Node).map_err(|problem| format!("{problem}, etcd members e1 to e{ETCD_MEMBERS}"))
            }
        }
    }
}

/// What was chosen when the directory was made; kept in it as `demo.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    pub(super) nodes: u8,
    pub(super) base_port: u16,
    pub(super) pg_bin: PathBuf,
}

impl Settings {
    /// Reads the settings of an existing demo; `None` when `dir` holds none.
    pub(super) fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join("demo.json");
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let settings: Settings = serde_json::from_str(&text).with_context(|| {
            format!(
                "{} is not what `pgward demo` wrote there; choose another --dir, or remove this one",
                path.display()
            )
        })?;
        if !(1..=NODES_MAX).contains(&settings.nodes) || !(1024..=BASE_PORT_MAX).contains(&settings.base_port) {
            bail!(
                "{}: nodes (1 to {NODES_MAX}) or base_port (1024 to {BASE_PORT_MAX}) is out of range",
                path.display()
            );
        }
        Ok(Some(settings))
    }
}

/// The paths and addresses of one demo.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) dir: PathBuf,
    pub(super) settings: Settings,
}

impl Layout {
    /// The demo that exists in `dir`.
    pub(super) fn existing(dir: &Path) -> anyhow::Result<Self> {
        match Settings::read(dir)? {
            Some(settings) => Ok(Layout { dir: dir.canonicalize()?, settings }),
            None => bail!("there is no demo in {}; `pgward demo --dir {0}` makes one", dir.display()),
        }
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = Node> + use<> {
        (1..=self.settings.nodes).map(Node)
    }

    pub(super) fn etcd_members(&self) -> impl Iterator<Item = EtcdMember> + use<> {
        (1..=ETCD_MEMBERS).map(EtcdMember)
    }

    /// Refuses a node that this demo does not have.
    pub(super) fn require(&self, node: Node) -> anyhow::Result<()> {
        if node.0 > self.settings.nodes {
            bail!("the demo in {} has {} nodes; there is no {node}", self.dir.display(), self.settings.nodes);
        }
        Ok(())
    }

    pub(super) fn postgres_address(&self, node: Node) -> SocketAddrV4 {
        self.address(u16::from(node.0))
    }

    pub(super) fn rest_address(&self, node: Node) -> SocketAddrV4 {
        self.address(10 + u16::from(node.0))
    }

    pub(super) fn etcd_client_address(&self, member: EtcdMember) -> SocketAddrV4 {
        self.address(20 + u16::from(member.0))
    }

    pub(super) fn etcd_peer_address(&self, member: EtcdMember) -> SocketAddrV4 {
        self.address(30 + u16::from(member.0))
    }

    fn address(&self, offset: u16) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.settings.base_port + offset)
    }

    /// The executable that the agents run: a copy, so that a new build does not pull it from under them.
    pub(super) fn executable(&self) -> PathBuf {
        executable(&self.dir)
    }

    /// A node's own folder, in which its processes work or which their arguments name: they are found by it.
    pub(super) fn node_dir(&self, node: Node) -> PathBuf {
        self.dir.join(node.to_string())
    }

    pub(super) fn data_dir(&self, node: Node) -> PathBuf {
        self.node_dir(node).join("data")
    }

    pub(super) fn node_file(&self, node: Node) -> PathBuf {
        self.dir.join(format!("{node}.yml"))
    }

    pub(super) fn ctl_file(&self) -> PathBuf {
        self.dir.join("patronictl.yml")
    }

    pub(super) fn pass_file(&self) -> PathBuf {
        self.dir.join("pgpass")
    }

    pub(super) fn etcd_dir(&self, member: EtcdMember) -> PathBuf {
        self.dir.join("etcd").join(member.to_string())
    }

    pub(super) fn log_dir(&self) -> PathBuf {
        self.dir.join("logs")
    }

    /// The output of the process called `name`.
    pub(super) fn log_file(&self, name: &impl fmt::Display) -> PathBuf {
        self.log_dir().join(format!("{name}.log"))
    }

    pub(super) fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The PID file of the process called `name`.
    pub(super) fn pid_file(&self, name: &impl fmt::Display) -> PathBuf {
        self.run_dir().join(format!("{name}.pid"))
    }
}

/// Where the copy of the executable is in a demo's directory.
pub(super) fn executable(dir: &Path) -> PathBuf {
    dir.join("bin").join("pgward")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_addresses_are_the_same() {
        let settings = Settings { nodes: NODES_MAX, base_port: BASE_PORT_MAX, pg_bin: PathBuf::new() };
        let layout = Layout { dir: PathBuf::from("d"), settings };
        let mut ports: Vec<u16> = layout
            .nodes()
            .flat_map(|node| [layout.postgres_address(node), layout.rest_address(node)])
            .chain(layout.etcd_members().flat_map(|e| [layout.etcd_client_address(e), layout.etcd_peer_address(e)]))
            .map(|address| address.port())
            .collect();
        let count = ports.len();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), count);
    }

    #[test]
    fn only_names_of_nodes_are_nodes() {
        assert_eq!("n3".parse(), Ok(Node(3)));
        assert_eq!("n3".parse(), Ok(Part::Node(Node(3))));
        assert_eq!("e3".parse(), Ok(Part::Etcd(EtcdMember(3))));
        assert!("e4".parse::<Part>().is_err());
        for text in ["", "n", "3", "n0", "n10", "N1", "n1 ", "e1", "n-1", "n999"] {
            assert!(text.parse::<Node>().is_err(), "{text:?}");
        }
    }
}
