//! External programs, run with a deadline or cancellable, in the C locale, their output kept.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::error::CommandError;
use crate::process::{Process, all_exited};
use crate::secret::Login;
use crate::settings::Settings;

/// What a program printed. Only the last part of long output is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolOutput {
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Kept of each stream: `pg_controldata` and `--describe-config` are read whole, and errors come last.
const OUTPUT_BYTES_MAX: usize = 256 * 1024;
/// Kept of the output in an error.
const REASON_BYTES_MAX: usize = 4 * 1024;
/// How long a cancelled program may take to end by itself.
const TERMINATE_GRACE: Duration = Duration::from_secs(10);
/// How long the operating system may take to carry out a SIGKILL.
const KILL_GRACE: Duration = Duration::from_secs(10);

/// One run of a program.
pub(crate) struct Tool {
    program: String,
    command: Command,
    limit: Option<Duration>,
    cancel: CancellationToken,
    on_error_output: Option<OnOutput>,
}

/// Called with each piece of output as it arrives.
type OnOutput = Box<dyn Fn(&str) + Send + Sync>;

impl Tool {
    /// One of the server's programs.
    pub(crate) fn new(settings: &Settings, tool: &str) -> Tool {
        Tool::of(settings.program(tool), tool.to_owned())
    }

    /// A shell command line, as `archive_command` and `restore_command` are.
    pub(crate) fn shell(line: &str, what: &str) -> Tool {
        Tool::of("/bin/sh".into(), what.to_owned()).arg("-c").arg(line)
    }

    /// Any program.
    pub(crate) fn of(path: std::path::PathBuf, name: String) -> Tool {
        let mut command = Command::new(path);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own: a signal to the agent's terminal is not meant for it.
        command.process_group(0).kill_on_drop(true);
        clean_environment(command.as_std_mut());
        command.env("LC_ALL", "C");
        Tool { program: name, command, limit: None, cancel: CancellationToken::new(), on_error_output: None }
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Tool {
        self.command.arg(argument);
        self
    }

    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Tool {
        self.command.args(arguments);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Tool {
        self.command.env(name, value);
        self
    }

    /// Tells it where the passwords are.
    pub(crate) fn login(mut self, login: &Login) -> Tool {
        for (name, path) in [("PGPASSFILE", &login.passfile), ("PGSERVICEFILE", &login.servicefile)] {
            if let Some(path) = path {
                self.command.env(name, path);
            }
        }
        self
    }

    pub(crate) fn directory(mut self, directory: &Path) -> Tool {
        self.command.current_dir(directory);
        self
    }

    /// Shows what it writes to standard error while it runs.
    pub(crate) fn on_error_output(mut self, show: impl Fn(&str) + Send + Sync + 'static) -> Tool {
        self.on_error_output = Some(Box::new(show));
        self
    }

    /// Kills it when it has not ended by then.
    pub(crate) fn limit(mut self, limit: Duration) -> Tool {
        self.limit = Some(limit);
        self
    }

    /// Stops it when asked: SIGTERM, and SIGKILL for it and all below it when it does not end.
    pub(crate) fn cancelled_by(mut self, cancel: &CancellationToken) -> Tool {
        self.cancel = cancel.clone();
        self
    }

    /// Runs it to its end.
    pub(crate) async fn run(self) -> Result<ToolOutput, CommandError> {
        let Tool { program, mut command, limit, cancel, on_error_output } = self;
        if cancel.is_cancelled() {
            return Err(CommandError::Cancelled { program });
        }
        let path = command.as_std().get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().map_err(|source| CommandError::Spawn { program: path, source })?;
        let mut streams = Streams::of(&mut child, on_error_output);
        enum End {
            Exited(io::Result<std::process::ExitStatus>),
            TimedOut(Duration),
            Cancelled,
        }
        let end = {
            let work = async {
                // A grandchild may keep the streams open, so the end of the program ends the reading as well.
                tokio::select! {
                    () = streams.read_all() => {}
                    _ = child.wait() => {}
                }
                let status = child.wait().await;
                let _ = tokio::time::timeout(Duration::from_millis(100), streams.read_all()).await;
                status
            };
            tokio::select! {
                status = work => End::Exited(status),
                after = deadline(limit) => End::TimedOut(after),
                () = cancel.cancelled() => End::Cancelled,
            }
        };
        match end {
            End::Exited(Ok(status)) if status.success() => Ok(streams.finish()),
            End::Exited(Ok(status)) => {
                Err(CommandError::Failed { program, status: status.to_string(), output: reason(&streams.finish()) })
            }
            End::Exited(Err(error)) => Err(CommandError::Spawn { program, source: error }),
            End::TimedOut(after) => {
                stop(&mut child, Duration::ZERO).await;
                Err(CommandError::Timeout { program, after, output: reason(&streams.finish()) })
            }
            End::Cancelled => {
                stop(&mut child, TERMINATE_GRACE).await;
                Err(CommandError::Cancelled { program })
            }
        }
    }
}

async fn deadline(limit: Option<Duration>) -> Duration {
    match limit {
        Some(limit) => {
            tokio::time::sleep(limit).await;
            limit
        }
        None => std::future::pending().await,
    }
}

/// Ends a child: politely within `grace`, then with all of its descendants.
async fn stop(child: &mut Child, grace: Duration) {
    let Some(process) = child.id().and_then(|pid| Process::open(pid as i32).ok().flatten()) else { return };
    if !grace.is_zero() {
        let _ = process.signal(Signal::TERM);
        if tokio::time::timeout(grace, child.wait()).await.is_ok() {
            return;
        }
    }
    let children = process.kill_tree().unwrap_or_default();
    let _ = tokio::time::timeout(KILL_GRACE, child.wait()).await;
    all_exited(&children, KILL_GRACE).await;
}

/// Removes what belongs to the agent alone: its configuration, which has passwords, and its service manager's socket.
pub(crate) fn clean_environment(command: &mut std::process::Command) {
    let is_ours = |name: &OsString| {
        let name = name.to_string_lossy();
        name.starts_with("PATRONI_")
            || name.starts_with("PGWARD_")
            || name.starts_with("KUBERNETES_")
            || name == "NOTIFY_SOCKET"
    };
    for name in std::env::vars_os().map(|(name, _)| name).filter(is_ours) {
        command.env_remove(name);
    }
}

/// Output for a reason text: errors after the rest, the end of both.
fn reason(output: &ToolOutput) -> String {
    let text = format!("{}\n{}", output.stdout.trim_end(), output.stderr.trim_end());
    tail(text.trim(), REASON_BYTES_MAX).to_owned()
}

/// The last `bytes_max` bytes, from the start of a line where possible.
pub(crate) fn tail(text: &str, bytes_max: usize) -> &str {
    let Some(from) = text.len().checked_sub(bytes_max) else { return text };
    let from = (from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    let rest = &text[from..];
    rest.split_once('\n').map_or(rest, |(_, lines)| lines)
}

/// Splits a command line as a shell does, without expanding anything. `None` for a quote or an escape without end.
pub fn split_words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut rest = line.chars();
    while let Some(character) = rest.next() {
        match character {
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next()? {
                        '\'' => break,
                        other => word.push(other),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next()? {
                        '"' => break,
                        '\\' => match rest.next()? {
                            escaped @ ('"' | '\\') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        other => word.push(other),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(rest.next()?),
            blank if blank.is_ascii_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

/// Both output streams of a child, each with its last bytes.
struct Streams {
    stdout: Option<tokio::process::ChildStdout>,
    stderr: Option<tokio::process::ChildStderr>,
    out: VecDeque<u8>,
    err: VecDeque<u8>,
    on_error: Option<OnOutput>,
}

impl Streams {
    fn of(child: &mut Child, on_error: Option<OnOutput>) -> Streams {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Streams { stdout, stderr, out: VecDeque::new(), err: VecDeque::new(), on_error }
    }

    /// Reads until both are closed. Can be dropped: what was read stays.
    async fn read_all(&mut self) {
        tokio::join!(
            read_stream(&mut self.stdout, &mut self.out, None),
            read_stream(&mut self.stderr, &mut self.err, self.on_error.as_ref())
        );
    }

    fn finish(self) -> ToolOutput {
        let text = |bytes: VecDeque<u8>| String::from_utf8_lossy(&Vec::from(bytes)).into_owned();
        ToolOutput { stdout: text(self.out), stderr: text(self.err) }
    }
}

async fn read_stream(stream: &mut Option<impl AsyncRead + Unpin>, into: &mut VecDeque<u8>, show: Option<&OnOutput>) {
    let mut chunk = [0; 8192];
    while let Some(open) = stream {
        match open.read(&mut chunk).await {
            Ok(0) | Err(_) => *stream = None,
            Ok(count) => {
                if let Some(show) = show {
                    show(&String::from_utf8_lossy(&chunk[..count]));
                }
                into.extend(&chunk[..count]);
                let excess = into.len().saturating_sub(OUTPUT_BYTES_MAX);
                into.drain(..excess);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(line: &str) -> Tool {
        Tool::shell(line, "test")
    }

    #[tokio::test]
    async fn output_and_status_are_returned() {
        let output = sh("echo out; echo err >&2").run().await.unwrap();
        assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
        let failed = sh("echo why >&2; exit 3").run().await.unwrap_err().to_string();
        assert_eq!(failed, "test failed with exit status: 3: why");
    }

    #[tokio::test]
    async fn a_daemon_that_keeps_the_output_open_does_not_hold_us() {
        let output = sh("sleep 30 & echo done").limit(Duration::from_secs(10)).run().await.unwrap();
        assert_eq!(output.stdout, "done\n");
    }

    #[tokio::test]
    async fn a_program_that_takes_too_long_is_killed_with_its_children() {
        let started = std::time::Instant::now();
        let error = sh("trap '' TERM; sleep 61 & wait").limit(Duration::from_millis(200)).run().await.unwrap_err();
        assert!(matches!(error, CommandError::Timeout { .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5));
    }

    #[tokio::test]
    async fn cancelling_ends_it_politely() {
        let cancel = CancellationToken::new();
        let run = sh("trap 'exit 0' TERM; sleep 62 & wait").cancelled_by(&cancel).run();
        let (result, ()) = tokio::join!(run, async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            cancel.cancel();
        });
        assert!(matches!(result, Err(CommandError::Cancelled { .. })));
    }

    #[test]
    fn a_command_line_is_split_as_a_shell_does() {
        let words = |line: &str| split_words(line).unwrap();
        assert_eq!(words(r#"  /bin/x 'a b'"c \" d" \  e "" "#), ["/bin/x", r#"a bc " d"#, " ", "e", ""]);
        assert!(words("  ").is_empty());
        for bad in ["'a", "\"a", "a\\"] {
            assert_eq!(split_words(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_tail_begins_with_a_whole_line() {
        assert_eq!(tail("one\ntwo\nthree", 8), "three");
        assert_eq!(tail("short", 8), "short");
        assert_eq!(tail("ééééé", 3), "é");
    }
}
