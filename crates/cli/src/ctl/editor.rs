//! The person's own editor.

use std::io::Write;
use std::process::Command;

use anyhow::{Context, bail};

/// Editors that are tried when `EDITOR` names none.
const USUAL: [&str; 2] = ["editor", "vi"];

/// Opens `text` in the editor and returns what is saved.
///
/// # Errors
/// When there is no editor, or it does not end well: nothing is to be changed then.
pub(super) fn edit(text: &str, scope: &str) -> anyhow::Result<String> {
    let mut file = tempfile::Builder::new()
        .prefix(&format!("{}-config-", scope.replace('/', "_")))
        .suffix(".yaml")
        .tempfile()
        .context("cannot create a file to edit")?;
    file.write_all(text.as_bytes()).and_then(|()| file.flush()).context("cannot write the file to edit")?;
    let status = match std::env::var("EDITOR").ok().filter(|editor| !editor.trim().is_empty()) {
        // As the shell would run it: it may come with options.
        Some(editor) => {
            let mut command = Command::new("sh");
            command.arg("-c").arg(format!("{editor} \"$1\"")).arg("sh").arg(file.path());
            command.status().with_context(|| format!("cannot run the editor {editor}"))?
        }
        None => {
            let started = USUAL.iter().find_map(|editor| Command::new(editor).arg(file.path()).status().ok());
            match started {
                Some(status) => status,
                None => bail!("EDITOR environment variable is not set. editor or vi are not available"),
            }
        }
    };
    if !status.success() {
        let code = status.code().map_or_else(|| status.to_string(), |code| code.to_string());
        bail!("Editor exited with return code {code}");
    }
    std::fs::read_to_string(file.path()).context("cannot read the edited file")
}
