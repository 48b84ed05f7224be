//! `pgward agent` as a process: its configuration, its names, and what its children inherit.

#![expect(clippy::unwrap_used, reason = "helpers of tests stop the test when the machine fails them")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PGWARD: &str = env!("CARGO_BIN_EXE_pgward");

/// Long enough for a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A part of every password here, so that one that leaks is found.
const SECRET: &str = "t0p-secret";

/// A process that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory with stand-ins for PostgreSQL's programs.
struct Machine {
    directory: TempDir,
    rest_port: u16,
    port: u16,
}

impl Machine {
    fn new() -> Machine {
        let directory = TempDir::new().unwrap();
        fs::create_dir(directory.path().join("bin")).unwrap();
        for tool in ["pg_ctl", "initdb", "pg_controldata", "pg_basebackup", "postgres", "pg_isready"] {
            let path = directory.path().join("bin").join(tool);
            fs::write(&path, "#!/bin/sh\necho 'postgres (PostgreSQL) 15.20'\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        Machine { directory, rest_port: quiet_port(), port: quiet_port() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A configuration without a mistake, if etcd answers at `etcd`.
    fn text(&self, etcd: &str) -> String {
        let (here, rest, port) = (self.directory.path().display(), self.rest_port, self.port);
        format!(
            "scope: demo\nname: n1\netcd3:\n  hosts: {etcd}\nrestapi:\n  listen: 127.0.0.1:{rest}\n  connect_address: \
             10.0.0.1:{rest}\npostgresql:\n  listen: 127.0.0.1:{port}\n  connect_address: 10.0.0.1:{port}\n  data_dir: \
             {here}/data\n  bin_dir: {here}/bin\n  authentication:\n    superuser: {{username: postgres, password: \
             {SECRET}}}\n    replication: {{username: replicator, password: {SECRET}}}\n"
        )
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

struct Etcd {
    _process: Running,
    _directory: TempDir,
    address: String,
}

fn etcd() -> Etcd {
    let directory = TempDir::new().unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let (client, peer) = (format!("http://{address}"), format!("http://127.0.0.1:{}", free_port()));
    let process = Command::new("etcd")
        .arg("--data-dir")
        .arg(directory.path().join("etcd"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--unsafe-no-fsync"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let process = Running(process.expect("etcd is needed: apt-get install etcd-server"));
    // It listens only once it is ready.
    wait_for("etcd", || std::net::TcpStream::connect(&address).ok());
    Etcd { _process: process, _directory: directory, address }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A free port that the system gives to nobody who only connects: such a connection would keep the port from a server.
fn quiet_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 1000).unwrap() * 10;
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut ports = (0..1000).map(|_| 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000);
    ports.find(is_free).unwrap()
}

/// Asks again and again: nothing tells a test when another process has come that far.
#[expect(clippy::disallowed_methods, reason = "files and processes of others are looked at again and again")]
fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A command that nothing in our own environment reaches.
fn command(program: impl AsRef<Path>, arguments: &[&str]) -> Command {
    let mut command = Command::new(program.as_ref());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PATRONI")) {
        command.env_remove(name);
    }
    command.args(arguments).env("HOME", "/nonexistent").env_remove("XDG_CONFIG_HOME").stdin(Stdio::null());
    command
}

fn agent(arguments: &[&str]) -> Command {
    command(PGWARD, &[&["agent"], arguments].concat())
}

fn validate(arguments: &[&str]) -> Command {
    agent(&[&["--validate-config"], arguments].concat())
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Ran with this code and these two outputs.
fn assert_said(command: &mut Command, code: i32, out: &str, err: &str) {
    let output = command.output().unwrap();
    assert_eq!((stdout(&output).as_str(), stderr(&output).as_str(), output.status.code()), (out, err, Some(code)));
}

#[test]
fn a_configuration_without_a_problem_is_silent_and_can_be_printed() {
    let (machine, etcd) = (Machine::new(), etcd());
    let file = machine.write("patroni.yml", &machine.text(&etcd.address));
    assert_said(&mut validate(&[&file]), 0, "", "");
    let printed = format!(
        "etcd3:\n  hosts: {}\nlog:\n  mode: 416\nname: n9\npostgresql:\n  authentication:\n    replication:\n      \
         password: {SECRET}\n      username: replicator\n",
        etcd.address
    );
    let output = validate(&["-p", &file]).env("PATRONI_NAME", "n9").env("PATRONI_LOG_MODE", "0640").output().unwrap();
    assert!(stdout(&output).starts_with(&printed), "{}{}", stdout(&output), stderr(&output));
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(0)));
}

#[test]
fn every_problem_of_the_text_is_listed_with_line_and_remedy() {
    let machine = Machine::new();
    let text = "scope: demo\nname: a/b\nttl: 30\nrestapi:\n  listen: 8008\npostgresql:\n  listen: 127.0.0.1:5432\n  \
                conect_address: 10.0.0.1:5432\n  callbacks: {on_start: /bin/true}\n  use_pg_rewind: maybe\n";
    let file = machine.write("patroni.yml", text);
    let output = validate(&["-p", &file]).output().unwrap();
    let text = stderr(&output);
    let lines: Vec<&str> = text.lines().collect();
    for (line, words) in [
        (2, "name: a/b: "),
        (5, "restapi.listen: 8008: has no port; write `listen: 0.0.0.0:8008`"),
        (6, "postgresql.data_dir: is not set; "),
        (6, "postgresql.authentication.superuser: is not set; "),
        (10, "postgresql.use_pg_rewind: maybe: is not a boolean; write true or false"),
        (3, "ttl: 30: is a setting of the whole cluster and ignored in the local file; "),
        (8, "postgresql.conect_address: is not a known key and is ignored; did you mean connect_address?"),
        (9, "understood, and not acted on by this version: postgresql.callbacks; "),
    ] {
        let want = format!("{file}:{line}: {words}");
        assert!(lines.iter().any(|said| said.starts_with(&want)), "{want:?} is missing in:\n{text}");
    }
    assert!(lines.iter().any(|said| said.contains("etcd3: is not set; ")), "{text}");
    assert!(lines.last().unwrap().ends_with(" errors (above), then 3 warnings"), "{text}");
    assert_eq!((stdout(&output).as_str(), output.status.code()), ("", Some(1)));

    // The same text does not start, and says the errors.
    let started = agent(&[&file]).output().unwrap();
    assert!(stderr(&started).contains(&format!("{file}:2: name: a/b: ")), "{}", stderr(&started));
    assert_eq!(started.status.code(), Some(1));
}

#[test]
fn every_problem_of_the_machine_is_listed() {
    let machine = Machine::new();
    // One endpoint refuses, the other never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (refusing, silent) = (format!("127.0.0.1:{}", free_port()), silent.local_addr().unwrap().to_string());
    let _listener = TcpListener::bind(("127.0.0.1", machine.rest_port)).unwrap();
    fs::create_dir(machine.path("data")).unwrap();
    fs::write(machine.path("data/PG_VERSION"), "14\n").unwrap();
    if rustix::process::geteuid().is_root() {
        chown(machine.path("data"), Some(65_534), None).unwrap();
    }
    fs::remove_file(machine.path("bin/initdb")).unwrap();
    let text =
        machine.text(&format!("{refusing},{silent}")) + "  pgpass: /nonexistent/pgpass\nlog: {dir: /nonexistent}\n";
    let text = text.replace(&format!("connect_address: 10.0.0.1:{}", machine.port), "connect_address: localhost:1");
    let file = machine.write("patroni.yml", &text);
    let start = Instant::now();
    let output = validate(&[&file]).output().unwrap();
    assert!(start.elapsed() < Duration::from_secs(10), "took {:?}", start.elapsed());
    let said = stderr(&output);
    let here = machine.directory.path().display();
    let rest = machine.rest_port;
    for (line, words) in [
        (4, format!("etcd3.hosts: http://{refusing}: ")),
        (4, format!("etcd3.hosts: http://{silent}: ")),
        (6, format!("restapi.listen: 127.0.0.1:{rest}: port {rest} is in use; ")),
        (10, "postgresql.connect_address: localhost:1: localhost cannot be reached from other machines; ".to_owned()),
        (11, format!("postgresql.data_dir: {here}/data: is neither empty nor a data directory of PostgreSQL: ")),
        (12, format!("postgresql.bin_dir: initdb: there is no such program in {here}/bin; ")),
        (16, "postgresql.pgpass: /nonexistent/pgpass: its directory does not exist; ".to_owned()),
        (17, "log.dir: /nonexistent: is not a directory; ".to_owned()),
    ] {
        let want = format!("{file}:{line}: {words}");
        assert!(said.lines().any(|line| line.starts_with(&want)), "{want:?} is missing in:\n{said}");
    }
    assert!(said.ends_with("\n8 errors\n"), "{said}");
    assert_eq!(output.status.code(), Some(1));

    let output = validate(&["-i", &file]).output().unwrap();
    assert!(!stderr(&output).contains("is in use"), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(1));
    let wrong = agent(&["-i", &file]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2), "-i without --validate-config: {}", stderr(&wrong));
}

#[test]
fn what_the_parts_of_the_agent_would_refuse_is_listed() {
    let machine = Machine::new();
    let certificate = machine.write("garbage.pem", "no certificate");
    let text =
        machine.text("[]").replace("hosts: []", "srv: example.org") + &format!("ctl: {{certfile: {certificate}}}\n");
    let rest = format!("restapi:\n  certfile: {certificate}\n  allowlist: [10.0.0.0/8]\n");
    let file = machine.write("patroni.yml", &text.replace("restapi:\n", &rest));
    let said = stderr(&validate(&[&file]).output().unwrap());
    assert!(said.contains(&format!("{file}:6: restapi.certfile: {certificate} holds no certificate")), "{said}");
    assert!(said.contains(": ctl.certfile: ") && said.contains("holds no certificate in PEM form"), "{said}");
    assert!(said.contains("etcd3: ") && said.contains("SRV records of \"example.org\": not supported yet"), "{said}");
    assert!(said.ends_with("\n3 errors\n"), "{said}");
    let file = machine.write("patroni.yml", &text.replace("restapi:\n", &rest.replace("/8", "/99")));
    let said = stderr(&validate(&[&file]).output().unwrap());
    assert!(said.contains("restapi.allowlist: \"10.0.0.0/99\" is neither an IP address nor a network"), "{said}");
}

#[test]
fn nothing_at_all_is_an_empty_configuration() {
    let nothing = "configuration: the configuration is empty; name a configuration file, or set PATRONI_CONFIGURATION or \
                   PATRONI_ variables\n";
    assert_said(&mut agent(&[]), 1, "", nothing);
    assert_said(&mut validate(&[]), 1, "", &format!("{nothing}1 error\n"));
    let missing =
        "/nonexistent/patroni.yml: does not exist, so the environment is the whole configuration; check the path\n";
    assert_said(&mut agent(&["/nonexistent/patroni.yml"]), 1, "", &format!("pgward: {missing}{nothing}"));
    let machine = Machine::new();
    let empty = machine.write("patroni.yml", "");
    let output = agent(&[&empty]).output().unwrap();
    assert!(stderr(&output).starts_with(&format!("{empty}: the file is not a mapping")), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(1));
    let garbage = machine.path("garbage.yml");
    fs::write(&garbage, b"\xff\xfe").unwrap();
    let output = agent(&[garbage.to_str().unwrap()]).output().unwrap();
    let want = format!("pgward: cannot read the configuration {}: ", garbage.display());
    assert!(stderr(&output).starts_with(&want), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_directory_is_merged_in_the_order_of_names() {
    let (machine, etcd) = (Machine::new(), etcd());
    fs::create_dir(machine.path("conf.d")).unwrap();
    machine.write("conf.d/1-base.yml", &machine.text(&etcd.address));
    machine.write("conf.d/2-node.yaml", "name: n2\ntags: {az: b}\n");
    machine.write("conf.d/3-off.yml.disabled", "name: n3\n");
    let output = validate(&["-p", machine.path("conf.d").to_str().unwrap()]).output().unwrap();
    let printed = stdout(&output);
    assert!(printed.contains("\nname: n2\n") && printed.contains("\ntags:\n  az: b\n"), "{printed}{}", stderr(&output));
    machine.write("conf.d/4-list.yml", "- 1\n");
    let broken = machine.path("conf.d/4-list.yml").display().to_string();
    let output = validate(&[machine.path("conf.d").to_str().unwrap()]).output().unwrap();
    assert!(stderr(&output).starts_with(&format!("{broken}: the file is not a mapping")), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn the_environment_alone_will_do() {
    let (machine, etcd) = (Machine::new(), etcd());
    let mut variables = validate(&["-p"]);
    for (name, value) in [
        ("SCOPE", "demo"),
        ("NAME", "n7"),
        ("ETCD3_HOSTS", &etcd.address),
        ("RESTAPI_LISTEN", &format!("127.0.0.1:{}", machine.rest_port)),
        ("RESTAPI_CONNECT_ADDRESS", "10.0.0.1:8008"),
        ("POSTGRESQL_LISTEN", &format!("127.0.0.1:{}", machine.port)),
        ("POSTGRESQL_CONNECT_ADDRESS", "10.0.0.1:5432"),
        ("POSTGRESQL_DATA_DIR", machine.path("data").to_str().unwrap()),
        ("POSTGRESQL_BIN_DIR", machine.path("bin").to_str().unwrap()),
        ("SUPERUSER_USERNAME", "postgres"),
        ("SUPERUSER_PASSWORD", SECRET),
        ("REPLICATION_USERNAME", "replicator"),
        ("REPLICATION_PASSWORD", SECRET),
    ] {
        variables.env(format!("PATRONI_{name}"), value);
    }
    let output = variables.output().unwrap();
    assert!(stdout(&output).contains("\nname: n7\n"), "{}{}", stdout(&output), stderr(&output));
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("", Some(0)));

    // As one document, which leaves no room for other variables; a file takes its place.
    let whole = machine.text(&etcd.address);
    let document = |arguments: &[&str]| {
        let mut command = validate(&[&["-p"], arguments].concat());
        stdout(&command.env("PATRONI_CONFIGURATION", &whole).env("PATRONI_NAME", "n8").output().unwrap())
    };
    assert!(document(&[]).contains("\nname: n1\n"), "{}", document(&[]));
    let file = machine.write("patroni.yml", &whole.replace("scope: demo", "scope: other"));
    let printed = document(&[&file]);
    assert!(printed.contains("\nname: n8\n") && printed.contains("\nscope: other\n"), "{printed}");
}

#[test]
fn the_program_answers_to_the_names_of_patroni() {
    let machine = Machine::new();
    for name in ["patroni", "patronictl"] {
        symlink(PGWARD, machine.path(name)).unwrap();
    }
    let own = env!("CARGO_PKG_VERSION");
    assert_said(&mut command(PGWARD, &["--version"]), 0, &format!("pgward {own}\n"), "");
    let patroni = machine.path("patroni");
    assert_said(&mut command(&patroni, &["--version"]), 0, &format!("patroni 4.1.5 (pgward {own})\n"), "");
    let ctl = format!("patronictl version 4.1.5 (pgward {own})\n");
    assert_said(&mut command(machine.path("patronictl"), &["version"]), 0, &ctl, "");
    let usage = command(&patroni, &["--help"]).output().unwrap();
    assert!(stdout(&usage).contains("Usage: patroni [OPTIONS] [CONFIG]"), "{}", stdout(&usage));
    assert_eq!(command(&patroni, &["--no-such-option"]).output().unwrap().status.code(), Some(2));
    assert_eq!(command(&patroni, &["--validate-config"]).output().unwrap().status.code(), Some(1));
}

/// The user to run PostgreSQL as, when we are root.
fn postgres_user() -> Option<(u32, u32)> {
    let is_root = rustix::process::geteuid().is_root();
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let fields = |name: &str| Some(users.lines().find(|line| line.starts_with(name))?.split(':').collect::<Vec<_>>());
    let fields = fields("postgres:").or_else(|| fields("nobody:")).expect("a user that PostgreSQL can run as");
    is_root.then(|| (fields[2].parse().unwrap(), fields[3].parse().unwrap()))
}

/// The folder of PostgreSQL's programs: `PG_BIN`, or the newest that is installed.
fn programs() -> PathBuf {
    if let Some(directory) = std::env::var_os("PG_BIN") {
        return directory.into();
    }
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is needed: apt-get install postgresql");
    versions.flatten().map(|entry| entry.path().join("bin")).filter(|bin| bin.join("postgres").is_file()).max().unwrap()
}

/// Processes with both texts in their command line.
fn processes(first: &str, second: &str) -> Vec<i32> {
    let numbers = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let command_line = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    numbers.filter(|pid| [first, second].iter().all(|text| command_line(*pid).contains(text))).collect()
}

#[test]
fn a_member_that_is_started_as_patroni_keeps_its_passwords_from_its_children() {
    let (machine, etcd) = (Machine::new(), etcd());
    let user = postgres_user();
    let link = machine.path("patroni");
    symlink(PGWARD, &link).unwrap();
    let seen = machine.path("environment");
    let text = machine.text(&etcd.address).replace("10.0.0.1:", "127.0.0.1:")
        + &format!(
            "  pgpass: {}\n  parameters: {{unix_socket_directories: ''}}\nbootstrap:\n  dcs: {{ttl: 20, loop_wait: 1, \
             slots: {{x: null}}}}\n  initdb: [no-sync]\n  pg_hba: [host all all 127.0.0.1/32 trust]\n  post_bootstrap: \
             /bin/sh -c 'env > {}'\ncitus: {{group: 0, database: x}}\n",
            machine.path("pgpass").display(),
            seen.display()
        );
    let text = text.replace(machine.path("bin").to_str().unwrap(), programs().to_str().unwrap());
    let file = machine.write("patroni.yml", &text.replace(SECRET, "from-the-file"));
    let log = machine.path("log");
    let mut patroni = command(&link, &[&file]);
    for name in
        ["SUPERUSER_PASSWORD", "REPLICATION_PASSWORD", "RESTAPI_USERNAME", "RESTAPI_PASSWORD", "NO_SUCH_VARIABLE"]
    {
        patroni.env(format!("PATRONI_{name}"), SECRET);
    }
    if let Some((uid, gid)) = user {
        chown(machine.directory.path(), Some(uid), Some(gid)).unwrap();
        patroni.uid(uid).gid(gid);
    }
    patroni.env("NOTIFY_SOCKET", "/nonexistent").stderr(fs::File::create(&log).unwrap()).current_dir("/");
    let mut agent = Running(patroni.spawn().unwrap());
    let data = machine.path("data").display().to_string();
    let log = || fs::read_to_string(&log).unwrap();
    wait_for("the bootstrap", || {
        assert!(agent.0.try_wait().unwrap().is_none(), "the agent has ended:\n{}", log());
        Some(()).filter(|()| seen.exists() && !processes("-D", &data).is_empty())
    });

    let tool = wait_for("what post_bootstrap printed", || {
        fs::read_to_string(&seen).ok().filter(|text| text.ends_with('\n') && text.contains("PATH="))
    });
    let environment =
        |pid: i32| fs::read(format!("/proc/{pid}/environ")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let (fencers, servers) = (processes("__fencer", &data), processes("-D", &data));
    let [fencer] = fencers[..] else { panic!("one fencer, not {fencers:?}") };
    assert_eq!(environment(fencer).unwrap(), "", "the fencer inherits nothing");
    let own = environment(i32::try_from(agent.0.id()).unwrap()).unwrap();
    assert!(own.contains(SECRET) && own.contains("NOTIFY_SOCKET"), "the agent itself has them");
    let server = environment(servers[0]).unwrap();
    assert!(server.contains("PATH="), "the environment of the server can be read");
    for (who, text) in [("the server", server), ("post_bootstrap", tool)] {
        for word in [SECRET, "PATRONI_", "NOTIFY_SOCKET"] {
            assert!(!text.contains(word), "{who} has inherited {word}: {text}");
        }
    }

    // What deserves attention was logged once each, in whole lines, and without a password.
    let log = log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains(" WARN ") && line.contains("; ")).collect();
    let about = |words: &str| warnings.iter().filter(|line| line.contains(words)).count();
    assert_eq!(about("patroni.yml:23: understood, and not acted on by this version: "), 1, "{log}");
    assert_eq!(about("PATRONI_NO_SUCH_VARIABLE: is not a known variable and is ignored"), 1, "{log}");
    assert!(!log.contains(SECRET), "{log}");

    let pid = rustix::process::Pid::from_raw(i32::try_from(agent.0.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let code = wait_for("the end of the agent", || agent.0.try_wait().unwrap());
    assert_eq!(code.code(), Some(0), "{log}");
    // It would stay for some minutes, to be adopted.
    for fencer in processes("__fencer", &data) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_raw(fencer).unwrap(),
            rustix::process::Signal::KILL,
        );
    }
    assert_eq!(processes("-D", &data), [] as [i32; 0]);
}
