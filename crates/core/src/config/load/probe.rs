//! Checks that need I/O, as data: whoever has the file system and the network runs them.

use std::path::PathBuf;

use crate::config::address::ListenAddress;
use crate::config::finding::{Finding, Origin, Severity};
use crate::config::local::LocalConfig;
use crate::config::yaml::Node;

/// One check, and the setting that it is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// The key.
    pub key: String,
    /// Where it was written.
    pub origin: Origin,
    /// Its value, for the message.
    pub value: String,
    /// What to check.
    pub check: Check,
}

/// What to check.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// Nothing listens there yet.
    PortIsFree(ListenAddress),
    /// A store answers at this URL.
    StoreAnswers(String),
    /// The program exists and can be executed; without a directory it is searched in `PATH`.
    Program {
        /// `postgresql.bin_dir`.
        directory: Option<PathBuf>,
        /// The file name.
        name: String,
    },
    /// Empty or missing, or a data directory of the major version of this `postgres`, owned by us.
    DataDirectory {
        /// PGDATA.
        path: PathBuf,
        /// The directory of `postgres`.
        bin_dir: Option<PathBuf>,
        /// The name of `postgres`.
        postgres: String,
    },
    /// A directory in which files can be created.
    WritableDirectory(PathBuf),
    /// A file that can be read.
    ReadableFile(PathBuf),
    /// A file or nothing, in a directory in which files can be created.
    WritableFile(PathBuf),
}

impl Probe {
    /// The finding for a check that failed.
    pub fn failed(&self, problem: impl Into<String>, remedy: impl Into<String>) -> Finding {
        let (origin, key, value) = (self.origin.clone(), self.key.clone(), Some(self.value.clone()));
        Finding { severity: Severity::Error, origin, key, value, problem: problem.into(), remedy: remedy.into() }
    }
}

/// Programs without which no server can be managed.
const PROGRAMS: [&str; 6] = ["pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "postgres", "pg_isready"];

/// All checks for a configuration.
pub(super) fn probes(config: &LocalConfig, root: &Node) -> Vec<Probe> {
    let mut probes = Vec::new();
    let mut add = |key: &str, value: String, check: Check| {
        let path: Vec<&str> = key.split('.').collect();
        // The nearest thing that was written down.
        let nearest = (0..=path.len()).rev().find_map(|length| root.at(&path[..length]));
        let origin = nearest.map_or(Origin::Unknown, |node| node.origin.clone());
        probes.push(Probe { key: key.to_owned(), origin, value, check });
    };
    let (restapi, postgresql) = (&config.restapi, &config.postgresql);
    add("restapi.listen", restapi.listen.to_string(), Check::PortIsFree(restapi.listen.clone()));
    add("postgresql.listen", postgresql.listen.to_string(), Check::PortIsFree(postgresql.listen.clone()));
    let store = ["etcd3", "etcd"].into_iter().find(|name| root.get(name).is_some()).unwrap_or("etcd3");
    let hosts = ["proxy", "url", "hosts", "host"].into_iter().find(|name| root.at(&[store, name]).is_some());
    for endpoint in &config.etcd.endpoints {
        add(&format!("{store}.{}", hosts.unwrap_or("hosts")), endpoint.clone(), Check::StoreAnswers(endpoint.clone()));
    }
    let bin_dir = postgresql.bin_dir.clone();
    let program = |name: &str| postgresql.bin_name.get(name).cloned().unwrap_or_else(|| name.to_owned());
    for tool in PROGRAMS {
        let name = program(tool);
        add("postgresql.bin_dir", name.clone(), Check::Program { directory: bin_dir.clone(), name });
    }
    let path = postgresql.data_dir.clone();
    let check = Check::DataDirectory { path: path.clone(), bin_dir, postgres: program("postgres") };
    add("postgresql.data_dir", path.display().to_string(), check);
    if let Some(path) = &postgresql.pgpass {
        add("postgresql.pgpass", path.display().to_string(), Check::WritableFile(path.clone()));
    }
    if let Some(path) = &config.log.dir {
        add("log.dir", path.display().to_string(), Check::WritableDirectory(path.clone()));
    }
    let etcd = &config.etcd;
    let files = [
        ("restapi.certfile".to_owned(), &restapi.certfile),
        ("restapi.keyfile".to_owned(), &restapi.keyfile),
        ("restapi.cafile".to_owned(), &restapi.cafile),
        ("ctl.cacert".to_owned(), &config.ctl.cacert),
        ("ctl.certfile".to_owned(), &config.ctl.certfile),
        ("ctl.keyfile".to_owned(), &config.ctl.keyfile),
        (format!("{store}.cacert"), &etcd.cacert),
        (format!("{store}.cert"), &etcd.cert),
        (format!("{store}.key"), &etcd.key),
    ];
    for (key, path) in files.iter().filter_map(|(key, path)| Some((key, path.as_ref()?))) {
        add(key, path.display().to_string(), Check::ReadableFile(path.clone()));
    }
    probes
}
