//! Starts the server so that it belongs to nobody: the body of the hidden `__launch` subcommand.
//!
//! The agent cannot start the server itself, because a child would see the agent's end, and process groups, terminals and
//! service managers treat a child as part of its parent. The launcher begins a new session, starts the server, tells its
//! number and ends, so that the server is handed to process 1.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

/// Runs `[--] PROGRAM [ARGUMENT…]` detached and prints its process number as one line on standard output.
///
/// The program gets no input, and the launcher's standard error for both outputs. The launcher stays until its own
/// standard input is closed: as long as it does, the number cannot be given to another process.
pub fn launch_main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match launch(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is the server's log, where the reason of a failed start is looked for.
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn launch(arguments: impl IntoIterator<Item = OsString>) -> io::Result<()> {
    let mut arguments = arguments.into_iter().skip_while(|argument| argument == "--");
    let program = arguments.next().ok_or_else(|| io::Error::other("no program to launch was named"))?;
    // Refused only when this process leads a group already, which is as good.
    let _ = rustix::process::setsid();
    let output = || io::stderr().as_fd().try_clone_to_owned().map(Stdio::from);
    let mut command = Command::new(&program);
    command.args(arguments).stdin(Stdio::null()).stdout(output()?).stderr(output()?).process_group(0);
    let child =
        command.spawn().map_err(|error| io::Error::other(format!("cannot run {}: {error}", program.display())))?;
    writeln!(io::stdout(), "{}", child.id())?;
    io::stdout().flush()?;
    let _ = io::stdin().read(&mut [0]);
    Ok(())
}
