//! Prompts, and the three streams of the process behind a trait, so that a whole dialogue is a test.

use std::io::{self, BufRead, Write};

use anyhow::Context;
use rustix::termios;

/// The dialogue was ended by the person: end of input at a prompt.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Aborted;

impl std::fmt::Display for Aborted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Aborted!")
    }
}

impl std::error::Error for Aborted {}

/// The person in front of the command.
pub(super) trait Terminal {
    /// Writes text to the standard output as it is.
    fn print(&mut self, text: &str) -> io::Result<()>;
    /// Writes a line for people to the standard error. A failure to do so has nowhere to be told.
    fn warn(&mut self, line: &str);
    /// Writes the prompt and reads one line, without its line break. `None` at the end of the input.
    fn ask(&mut self, prompt: &str) -> io::Result<Option<String>>;
    /// As [`Terminal::ask`], without showing what is typed.
    fn ask_hidden(&mut self, prompt: &str) -> io::Result<Option<String>>;
    /// True when the output is a screen that can be cleared.
    fn is_screen(&self) -> bool;
}

/// The streams of this process.
pub(super) struct Console;

impl Terminal for Console {
    fn print(&mut self, text: &str) -> io::Result<()> {
        let mut output = io::stdout().lock();
        output.write_all(text.as_bytes())?;
        output.flush()
    }

    fn warn(&mut self, line: &str) {
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    fn ask(&mut self, prompt: &str) -> io::Result<Option<String>> {
        self.print(prompt)?;
        let mut line = Vec::new();
        if io::stdin().lock().read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&line);
        Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned()))
    }

    fn ask_hidden(&mut self, prompt: &str) -> io::Result<Option<String>> {
        let input = io::stdin();
        let Ok(shown) = termios::tcgetattr(&input) else { return self.ask(prompt) }; // No terminal: nothing is shown.
        let mut hidden = shown.clone();
        hidden.local_modes.remove(termios::LocalModes::ECHO);
        termios::tcsetattr(&input, termios::OptionalActions::Now, &hidden)?;
        let answer = self.ask(prompt);
        termios::tcsetattr(&input, termios::OptionalActions::Now, &shown)?;
        self.print("\n")?;
        answer
    }

    fn is_screen(&self) -> bool {
        io::IsTerminal::is_terminal(&io::stdout())
    }
}

/// Asks for a text; an empty answer means `default`.
pub(super) fn prompt(terminal: &mut impl Terminal, question: &str, default: &str) -> anyhow::Result<String> {
    let answer = answer(terminal, &format!("{question} [{default}]: "))?;
    Ok(if answer.is_empty() { default.to_owned() } else { answer })
}

/// Asks for a text that has no default.
pub(super) fn prompt_bare(terminal: &mut impl Terminal, question: &str) -> anyhow::Result<String> {
    loop {
        let answer = answer(terminal, &format!("{question}: "))?;
        if !answer.is_empty() {
            return Ok(answer);
        }
    }
}

/// Asks until the answer is yes or no; an empty one means no.
pub(super) fn confirm(terminal: &mut impl Terminal, question: &str) -> anyhow::Result<bool> {
    loop {
        match answer(terminal, &format!("{question} [y/N]: "))?.trim().to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "n" | "no" | "" => return Ok(false),
            _ => terminal.print("Error: invalid input\n")?,
        }
    }
}

/// Asks for a password.
pub(super) fn hidden(terminal: &mut impl Terminal, question: &str) -> anyhow::Result<String> {
    let answer = terminal.ask_hidden(&format!("{question}: ")).context("cannot read the answer")?;
    answer.ok_or_else(|| Aborted.into())
}

fn answer(terminal: &mut impl Terminal, prompt: &str) -> anyhow::Result<String> {
    terminal.ask(prompt).context("cannot read the answer")?.ok_or_else(|| Aborted.into())
}

#[cfg(test)]
pub(super) mod script {
    //! A person who answers from a script.

    use std::collections::VecDeque;
    use std::io;

    use super::Terminal;

    /// Answers in order, and everything that was printed, prompts included.
    #[derive(Default)]
    pub(in crate::ctl) struct Script {
        answers: VecDeque<String>,
        pub(in crate::ctl) transcript: String,
    }

    impl Script {
        pub(in crate::ctl) fn answering(answers: &[&str]) -> Script {
            Script { answers: answers.iter().map(|answer| (*answer).to_owned()).collect(), ..Script::default() }
        }
    }

    impl Terminal for Script {
        fn print(&mut self, text: &str) -> io::Result<()> {
            self.transcript.push_str(text);
            Ok(())
        }

        fn warn(&mut self, line: &str) {
            self.transcript.push_str(line);
            self.transcript.push('\n');
        }

        fn ask(&mut self, prompt: &str) -> io::Result<Option<String>> {
            self.transcript.push_str(prompt);
            Ok(self.answers.pop_front())
        }

        fn ask_hidden(&mut self, prompt: &str) -> io::Result<Option<String>> {
            self.ask(prompt)
        }

        fn is_screen(&self) -> bool {
            false
        }
    }
}
