//! The files of a demo: written once, then left to whoever wants to change them.

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::layout::{self, Layout, Node};

/// The passwords of a demo, made at random and kept in its directory.
#[derive(Clone, Serialize, Deserialize)]
struct Passwords {
    superuser: String,
    replication: String,
    rest: String,
}

/// Makes whatever is missing: folders, the copy of the executable, passwords, one configuration file a node and one for ctl.
pub(super) fn write(layout: &Layout) -> anyhow::Result<()> {
    let mut folders =
        vec![layout.dir.clone(), layout.log_dir(), layout.run_dir(), layout.dir.join("bin"), layout.dir.join("etcd")];
    folders.extend(layout.nodes().map(|node| layout.node_dir(node)));
    for folder in folders {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(&folder);
        made.with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let settings = serde_json::to_string_pretty(&layout.settings)?;
    replace(&layout.dir.join("demo.json"), 0o644, &format!("{settings}\n"))?;
    copy_executable(&layout.dir)?;

    let passwords = passwords(&layout.dir.join("passwords.json"))?;
    let pgpass = format!("127.0.0.1:*:*:postgres:{}\n", passwords.superuser);
    write_once(&layout.pass_file(), &pgpass)?;
    write_once(&layout.ctl_file(), &ctl_file(layout, &passwords))?;
    for node in layout.nodes() {
        write_once(&layout.node_file(node), &node_file(layout, node, &passwords))?;
    }
    Ok(())
}

fn passwords(path: &Path) -> anyhow::Result<Passwords> {
    if !path.exists() {
        let made = Passwords { superuser: random()?, replication: random()?, rest: random()? };
        write_once(path, &serde_json::to_string_pretty(&made)?)?;
    }
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not what `pgward demo` wrote there", path.display()))
}

/// 96 random bits as hexadecimal digits: safe in YAML, JSON and a pass file alike.
fn random() -> anyhow::Result<String> {
    let mut bytes = [0; 12];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Copies this executable into the directory, unless it is the one there already.
fn copy_executable(dir: &Path) -> anyhow::Result<()> {
    let source = std::env::current_exe().context("cannot tell which executable this is")?;
    let target = layout::executable(dir);
    if source == target {
        return Ok(());
    }
    let new = target.with_extension("new");
    fs::copy(&source, &new).with_context(|| format!("cannot copy {} to {}", source.display(), new.display()))?;
    fs::rename(&new, &target).with_context(|| format!("cannot replace {}", target.display()))
}

/// Writes a file that only its owner may read, unless it exists: it may have been edited.
fn write_once(path: &Path, text: &str) -> anyhow::Result<()> {
    if path.exists() { Ok(()) } else { replace(path, 0o600, text) }
}

/// Writes a file as a whole or not at all.
fn replace(path: &Path, mode: u32, text: &str) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    let write = || {
        let _ = fs::remove_file(&new);
        let mut file = File::options().create_new(true).write(true).mode(mode).open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&new, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// A YAML scalar that is read back as exactly this text.
fn scalar(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn path(path: &Path) -> String {
    scalar(&path.to_string_lossy())
}

fn etcd_hosts(layout: &Layout) -> String {
    let hosts: Vec<_> = layout.etcd_members().map(|member| layout.etcd_client_address(member).to_string()).collect();
    hosts.join(", ")
}

/// One node, in Patroni's format.
fn node_file(layout: &Layout, node: Node, passwords: &Passwords) -> String {
    let etcd_hosts = etcd_hosts(layout);
    let (rest, postgres) = (layout.rest_address(node), layout.postgres_address(node));
    let data_dir = path(&layout.data_dir(node));
    let bin_dir = path(&layout.settings.pg_bin);
    let pgpass = path(&layout.node_dir(node).join("pgpass"));
    let log_dir = path(&layout.log_dir());
    let Passwords { superuser, replication, rest: rest_password } = passwords;
    format!(
        "\
# Node {node} of a pgward demo, in the format of Patroni 4.1. `pgward demo` wrote it once and does not touch it again.
scope: demo
name: {node}

# The cluster's store. All members of the cluster name the same one.
etcd3:
  hosts: [{etcd_hosts}]

# Health checks for load balancers, metrics, and what ctl asks of a member.
restapi:
  listen: {rest}
  connect_address: {rest}
  authentication:
    username: demo
    password: {rest_password}

bootstrap:
  # Becomes the cluster's dynamic configuration when the cluster is made, and is not read afterwards:
  # from then on it is in etcd, in the key /service/demo/config.
  dcs:
    # The shortest times that are allowed, so that a failover can be watched without waiting long: a crashed node is
    # replaced when its lease of `ttl` seconds has run out. The defaults, for real networks, are 30, 10 and 10.
    ttl: 20
    loop_wait: 5
    retry_timeout: 5
    maximum_lag_on_failover: 1048576
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters:
        max_connections: 100
  initdb:
    - encoding: UTF8
    - locale: C.UTF-8
    - data-checksums

postgresql:
  listen: {postgres}
  connect_address: {postgres}
  data_dir: {data_dir}
  bin_dir: {bin_dir}
  pgpass: {pgpass}
  authentication:
    superuser:
      username: postgres
      password: {superuser}
    replication:
      username: replicator
      password: {replication}
  parameters:
    # Everything goes over the loopback address, so that no path is too long for a socket.
    unix_socket_directories: ''
    shared_buffers: 32MB
    logging_collector: 'on'
    log_directory: {log_dir}
    log_filename: postgresql-{node}.log
    log_rotation_age: 0
    log_rotation_size: 0
    log_line_prefix: '%m [%p] '
  pg_hba:
    - host all all 127.0.0.1/32 scram-sha-256
    - host replication replicator 127.0.0.1/32 scram-sha-256
"
    )
}

/// What `pgward ctl -c` (and Patroni's own patronictl) needs.
fn ctl_file(layout: &Layout, passwords: &Passwords) -> String {
    format!(
        "\
# For `pgward ctl -c`, in the format of Patroni 4.1.
scope: demo
etcd3:
  hosts: [{}]
ctl:
  authentication:
    username: demo
    password: {}
",
        etcd_hosts(layout),
        passwords.rest
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::layout::Settings;

    #[test]
    fn what_somebody_edited_stays_and_secrets_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { nodes: 2, base_port: 15400, pg_bin: "/it's here".into() };
        let layout = Layout { dir: dir.path().to_owned(), settings };
        write(&layout).unwrap();
        let node = "n1".parse().unwrap();
        let first = fs::read_to_string(layout.node_file(node)).unwrap();
        assert!(first.contains("bin_dir: '/it''s here'"), "{first}");
        for secret in [layout.node_file(node), layout.ctl_file(), layout.pass_file(), dir.path().join("passwords.json")]
        {
            let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&secret).unwrap().permissions());
            assert_eq!(mode & 0o777, 0o600, "{}", secret.display());
        }
        fs::write(layout.node_file(node), "edited").unwrap();
        let passwords = fs::read_to_string(dir.path().join("passwords.json")).unwrap();
        let grown = Layout { settings: Settings { nodes: 3, ..layout.settings.clone() }, ..layout.clone() };
        write(&grown).unwrap();
        assert_eq!(fs::read_to_string(layout.node_file(node)).unwrap(), "edited");
        assert_eq!(fs::read_to_string(dir.path().join("passwords.json")).unwrap(), passwords);
        assert!(fs::read_to_string(layout.dir.join("n3.yml")).unwrap().contains("name: n3"));
        assert_eq!(Settings::read(dir.path()).unwrap(), Some(grown.settings));
    }
}
