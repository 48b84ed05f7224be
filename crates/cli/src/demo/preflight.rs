//! Everything that can be known to go wrong before anything is started.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddrV4, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use super::Args;
use super::layout::{self, Layout, Settings};
use super::process::Process;

const DEBIAN_POSTGRES: &str = "/usr/lib/postgresql";
/// The releases that the agent manages.
const MAJORS: std::ops::RangeInclusive<u32> = 13..=18;

/// A demo that may be started.
pub(super) struct Plan {
    pub(super) layout: Layout,
    /// As PostgreSQL prints it, such as `15.18`.
    pub(super) postgres_version: String,
    pub(super) etcd_version: String,
}

/// Checks directory, programs, running processes and ports, in this order.
pub(super) fn check(args: &Args, dir: &Path) -> anyhow::Result<Plan> {
    check_directory(dir)?;
    let settings = settings(args, dir)?;
    // Processes are recognised by the paths that the kernel shows, which contain no symbolic links.
    let real_dir = if dir.exists() { dir.canonicalize()? } else { dir.to_owned() };
    let layout = Layout { dir: real_dir, settings };
    let (postgres_version, etcd_version) = check_programs(&layout)?;
    check_nothing_runs(&layout.dir)?;
    check_ports(&layout)?;
    Ok(Plan { layout, postgres_version, etcd_version })
}

/// Refuses a directory that is not this user's, or that holds something else.
fn check_directory(dir: &Path) -> anyhow::Result<()> {
    let Ok(metadata) = fs::metadata(dir) else {
        let parent = dir.parent().unwrap_or(Path::new("/"));
        if !parent.is_dir() {
            bail!("{} cannot be made: {} is not a directory", dir.display(), parent.display());
        }
        return Ok(());
    };
    if !metadata.is_dir() {
        bail!("{} is a file; choose another --dir", dir.display());
    }
    let user = rustix::process::geteuid().as_raw();
    require_owner(dir, metadata.uid(), user)?;
    if !is_demo_or_empty(dir)? {
        bail!("{} holds something that `pgward demo` did not put there; choose another --dir", dir.display());
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let data = entry.path().join("data");
        for path in [entry.path(), data] {
            if let Ok(metadata) = fs::metadata(&path) {
                require_owner(&path, metadata.uid(), user)?;
            }
        }
    }
    Ok(())
}

fn require_owner(path: &Path, owner: u32, user: u32) -> anyhow::Result<()> {
    if owner != user {
        bail!(
            "{} belongs to user {owner}, and this is user {user}: run this as its owner (or as root, which becomes its \
             owner), or choose another --dir",
            path.display()
        );
    }
    Ok(())
}

/// True when starting a demo in `dir` overwrites nothing of anybody else.
pub(super) fn is_demo_or_empty(dir: &Path) -> anyhow::Result<bool> {
    if Settings::read(dir)?.is_some() {
        return Ok(true);
    }
    let entries = fs::read_dir(dir).with_context(|| format!("cannot look into {}", dir.display()))?;
    // The executable alone: the demo got no further than that last time.
    Ok(entries.filter_map(Result::ok).all(|entry| entry.file_name() == "bin"))
}

/// The settings of the directory, or the ones asked for. What a directory was made with can only grow.
fn settings(args: &Args, dir: &Path) -> anyhow::Result<Settings> {
    let Some(mut settings) = Settings::read(dir)? else {
        return Ok(Settings {
            nodes: args.nodes.unwrap_or(layout::NODES_DEFAULT),
            base_port: args.base_port.unwrap_or(layout::BASE_PORT_DEFAULT),
            pg_bin: match &args.pg_bin {
                Some(pg_bin) => std::path::absolute(pg_bin)?,
                None => newest_postgres()?,
            },
        });
    };
    let remedy = "leave the option out, or choose another --dir";
    if let Some(port) = args.base_port.filter(|port| *port != settings.base_port) {
        bail!("{} was made with --base-port {}, not {port}: {remedy}", dir.display(), settings.base_port);
    }
    if let Some(pg_bin) = &args.pg_bin {
        let pg_bin = std::path::absolute(pg_bin)?;
        if pg_bin != settings.pg_bin {
            let made_with = settings.pg_bin.display();
            bail!("{} was made with --pg-bin {made_with}, not {}: {remedy}", dir.display(), pg_bin.display());
        }
    }
    if let Some(nodes) = args.nodes {
        if nodes < settings.nodes {
            bail!("{} has {} nodes, which cannot become {nodes}: {remedy}", dir.display(), settings.nodes);
        }
        settings.nodes = nodes;
    }
    Ok(settings)
}

/// The newest PostgreSQL of Debian's packages.
fn newest_postgres() -> anyhow::Result<PathBuf> {
    let majors = fs::read_dir(DEBIAN_POSTGRES).into_iter().flatten().filter_map(Result::ok).filter_map(|entry| {
        let major = entry.file_name().to_str()?.parse::<u32>().ok()?;
        let bin = entry.path().join("bin");
        (MAJORS.contains(&major) && bin.join("postgres").exists()).then_some((major, bin))
    });
    match majors.collect::<BTreeMap<_, _>>().pop_last() {
        Some((_, bin)) => Ok(bin),
        None => bail!(
            "no PostgreSQL {} to {} in {DEBIAN_POSTGRES}: install Debian's package postgresql, or give --pg-bin",
            MAJORS.start(),
            MAJORS.end()
        ),
    }
}

/// Runs each program once, as the user who will run it; returns the versions of PostgreSQL and etcd.
fn check_programs(layout: &Layout) -> anyhow::Result<(String, String)> {
    let pg_bin = &layout.settings.pg_bin;
    let mut versions = Vec::new();
    for program in ["postgres", "initdb", "pg_ctl", "pg_controldata", "pg_basebackup", "pg_rewind"] {
        let path = pg_bin.join(program);
        let line = first_line(&path).with_context(|| {
            format!(
                "{} does not run; install PostgreSQL's server programs, or choose another --pg-bin (and --dir, if this one \
                 exists)",
                path.display()
            )
        })?;
        // "pg_rewind (PostgreSQL) 15.18 (Debian ...)"
        let version = line.split(") ").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
        versions.push(version.to_owned());
    }
    let version = versions[0].clone();
    let major = version.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
    if !major.is_some_and(|major| MAJORS.contains(&major)) {
        bail!("{} is PostgreSQL {version}, not one of {} to {}", pg_bin.display(), MAJORS.start(), MAJORS.end());
    }
    if let Some(other) = versions.iter().find(|other| **other != version) {
        bail!("{} mixes PostgreSQL {version} and {other}; give a --pg-bin of one version", pg_bin.display());
    }
    for node in layout.nodes() {
        let path = layout.data_dir(node).join("PG_VERSION");
        if let Ok(text) = fs::read_to_string(&path)
            && text.trim().parse().ok() != major
        {
            let data = text.trim();
            let (path, bin) = (path.display(), pg_bin.display());
            bail!(
                "{path} says PostgreSQL {data}, and {bin} is {version}; choose another --dir, or put {data} in its place"
            );
        }
    }
    let line = first_line(Path::new("etcd"))
        .context("etcd, the cluster's store, does not run; install Debian's package etcd-server")?;
    let etcd_version = line.rsplit(' ').next().unwrap_or_default().to_owned();
    Ok((version, etcd_version))
}

fn first_line(program: &Path) -> anyhow::Result<String> {
    let output = Command::new(program).arg("--version").output()?;
    if !output.status.success() {
        bail!("`{} --version` ended with {}", program.display(), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
}

/// Refuses when any process of the demo in `dir` still runs.
pub(super) fn check_nothing_runs(dir: &Path) -> anyhow::Result<()> {
    let entries = fs::read_dir(dir.join("run")).into_iter().flatten().filter_map(Result::ok);
    let mut running: Vec<_> = entries
        .filter_map(|entry| {
            let process = Process::of(&entry.path())?;
            Some(format!("{} (process {process})", entry.path().file_stem()?.to_string_lossy()))
        })
        .collect();
    if !running.is_empty() {
        running.sort();
        let pgward = super::guide::quote(&layout::executable(dir).to_string_lossy());
        let dir = super::guide::quote(&dir.to_string_lossy());
        bail!(
            "this demo runs already: {}\n  look at it:  {pgward} demo status --dir {dir}\n  stop it:     {pgward} demo stop --dir {dir}",
            running.join(", ")
        );
    }
    Ok(())
}

/// Refuses when any port is taken, and names all of them at once.
fn check_ports(layout: &Layout) -> anyhow::Result<()> {
    let nodes = layout.nodes().flat_map(|node| {
        [
            (layout.postgres_address(node), format!("PostgreSQL of {node}")),
            (layout.rest_address(node), format!("REST API of {node}")),
        ]
    });
    let etcd = layout.etcd_members().flat_map(|member| {
        [
            (layout.etcd_client_address(member), format!("etcd {member}")),
            (layout.etcd_peer_address(member), format!("etcd {member}, peers")),
        ]
    });
    let busy: Vec<_> = nodes
        .chain(etcd)
        .filter_map(|(address, user)| taken(address).map(|why| format!("  {address} for {user}: {why}")))
        .collect();
    if busy.is_empty() {
        return Ok(());
    }
    let remedy = if layout.dir.join("demo.json").exists() {
        "stop what uses them; the ports of an existing demo cannot change, so otherwise choose another --dir and --base-port"
    } else {
        "choose another --base-port, or stop what uses them"
    };
    bail!("not every port is free:\n{}\n{remedy}", busy.join("\n"))
}

fn taken(address: SocketAddrV4) -> Option<std::io::Error> {
    TcpListener::bind(address).err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> Args {
        Args {
            command: None,
            dir: "d".into(),
            nodes: None,
            base_port: None,
            pg_bin: Some("/bin".into()),
            user: None,
            detach: false,
        }
    }

    #[test]
    fn an_existing_demo_keeps_what_it_was_made_with() {
        let dir = tempfile::tempdir().unwrap();
        let made = Settings { nodes: 3, base_port: 20000, pg_bin: "/bin".into() };
        fs::write(dir.path().join("demo.json"), serde_json::to_string(&made).unwrap()).unwrap();
        assert_eq!(settings(&args(), dir.path()).unwrap(), made);
        for (name, args, want) in [
            ("more nodes", Args { nodes: Some(5), ..args() }, None),
            ("fewer nodes", Args { nodes: Some(2), ..args() }, Some("has 3 nodes, which cannot become 2")),
            ("another port", Args { base_port: Some(20001), ..args() }, Some("--base-port 20000, not 20001")),
            ("another PostgreSQL", Args { pg_bin: Some("/other".into()), ..args() }, Some("--pg-bin /bin, not /other")),
        ] {
            let error = settings(&args, dir.path()).err().map(|error| error.to_string());
            match (error, want) {
                (None, None) => {}
                (Some(error), Some(want)) => assert!(error.contains(want), "{name}: {error}"),
                (error, want) => panic!("{name}: {error:?}, wanted {want:?}"),
            }
        }
    }

    #[test]
    fn a_directory_with_other_things_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(is_demo_or_empty(dir.path()).unwrap());
        fs::write(dir.path().join("thesis.txt"), "").unwrap();
        assert!(!is_demo_or_empty(dir.path()).unwrap());
        fs::write(dir.path().join("demo.json"), "{").unwrap();
        let error = is_demo_or_empty(dir.path()).unwrap_err().to_string();
        assert!(error.contains("demo.json") && error.contains("--dir"), "{error}");
    }

    #[test]
    fn a_taken_port_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else { panic!("not IPv4") };
        assert!(taken(address).is_some());
        drop(listener);
        assert!(taken(address).is_none());
    }
}
