//! Files that hold passwords: written only where nobody else can read them or put something in their place.
//!
//! Passwords never stand on a command line, which every user of the machine can read. libpq takes `password` from a
//! password file; `sslpassword` has no such file and no environment variable, so it goes into a connection service file.

use std::fs;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::conninfo::{ConnInfo, pgpass_lines};
use crate::error::Error;
use crate::settings::Settings;

/// The name of the one service in our connection service file.
pub(crate) const SERVICE: &str = "pgward";

/// What an external program needs to log in. The files are removed with this value.
#[derive(Debug, Default)]
pub(crate) struct Login {
    /// For `PGPASSFILE`.
    pub(crate) passfile: Option<PathBuf>,
    /// For `PGSERVICEFILE`.
    pub(crate) servicefile: Option<PathBuf>,
}

impl Login {
    /// Writes the files that this target needs, beside the server's own password file.
    ///
    /// # Errors
    /// When a file cannot be written safely, and [`Error::Refused`] for an `sslpassword` that a service file cannot hold.
    pub(crate) fn prepare(settings: &Settings, target: &ConnInfo) -> Result<Login, Error> {
        let beside = |suffix: &str| {
            let mut path = settings.pgpass.clone().into_os_string();
            path.push(suffix);
            PathBuf::from(path)
        };
        let mut login = Login::default();
        let lines = pgpass_lines(target);
        if !lines.is_empty() {
            // Noted first: what was written is removed also when the rest fails.
            let path = login.passfile.insert(beside(".tools"));
            write_secret(path, &(lines.join("\n") + "\n"))?;
        }
        if let Some(text) = service_file(target)? {
            let path = login.servicefile.insert(beside(".service"));
            write_secret(path, &text)?;
        }
        Ok(login)
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        for path in [&self.passfile, &self.servicefile].into_iter().flatten() {
            if let Err(error) = fs::remove_file(path)
                && error.kind() != io::ErrorKind::NotFound
            {
                warn!(file = %path.display(), %error, "a file with a password could not be removed");
            }
        }
    }
}

/// The connection service file of a target that has an `sslpassword`. libpq reads it line by line, without quotes, and takes
/// blanks off the end of a line.
fn service_file(target: &ConnInfo) -> Result<Option<String>, Error> {
    let Some(password) = target.credentials.sslpassword.as_deref().filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let has_line_break = password.contains(['\n', '\r', '\0']);
    if has_line_break || password.ends_with(|last: char| last.is_ascii_whitespace() || last == '\u{b}') {
        return Err(Error::Refused(
            "sslpassword: PostgreSQL's programs cannot be given one with a line break, or a blank at its end; give the \
             key another passphrase"
                .to_owned(),
        ));
    }
    Ok(Some(format!("[{SERVICE}]\nsslpassword={password}\n")))
}

/// Writes a file with a password, readable by its owner alone, and only when its content differs; true when it did.
///
/// It is written in place, since it may be mounted on its own, but never through a link, and never into a file of somebody
/// else: in a directory that others may write to, either could be theirs.
///
/// # Errors
/// When it cannot be written, and [`Error::Refused`] for what is in its place.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<bool, Error> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        let create = fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        create.map_err(Error::file("create", parent))?;
    }
    let open = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .mode(0o600)
        .custom_flags((rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed())
        .open(path);
    let mut file = match open {
        Ok(file) => file,
        Err(_) if fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) => {
            return Err(in_the_way(path, "it is a symbolic link, which a password is not written through"));
        }
        Err(error) => return Err(Error::file("write", path)(error)),
    };
    let failed = |error| Error::file("write", path)(error);
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(in_the_way(path, "it is not a file"));
    }
    if found.uid() != rustix::process::geteuid().as_raw() {
        return Err(in_the_way(path, &format!("it belongs to another user (uid {})", found.uid())));
    }
    if found.mode() & 0o077 != 0 {
        warn!(file = %path.display(), mode = format!("{:o}", found.mode() & 0o7777), "a password file was open to others: its mode becomes 600");
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
    }
    let mut present = Vec::new();
    file.read_to_end(&mut present).map_err(failed)?;
    if present == text.as_bytes() {
        return Ok(false);
    }
    let write = |file: &mut fs::File| {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write(&mut file).map_err(failed)?;
    Ok(true)
}

fn in_the_way(path: &Path, why: &str) -> Error {
    let path = path.display();
    Error::Refused(format!(
        "cannot write the password file {path}: {why}; remove it, or set postgresql.pgpass to a file in a directory of the \
         agent's user"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Credentials;
    use crate::settings::tests::settings;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_password_is_written_only_into_a_file_of_ours_that_nobody_else_reads() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sub/pgpass");
        assert!(write_secret(&path, "one\n").unwrap());
        assert_eq!(mode(&path), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(!write_secret(&path, "one\n").unwrap(), "the content is the same");
        assert_eq!(mode(&path), 0o600, "but nobody else reads it any more");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(write_secret(&path, "2\n").unwrap());
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), mode(&path)), ("2\n", 0o600));

        for target in ["elsewhere", "pgpass"] {
            let link = directory.path().join("sub").join(format!("to-{target}"));
            std::os::unix::fs::symlink(directory.path().join("sub").join(target), &link).unwrap();
            let refused = write_secret(&link, "3\n").unwrap_err().to_string();
            assert!(refused.contains("symbolic link") && refused.contains("postgresql.pgpass"), "{refused}");
        }
        assert!(!directory.path().join("sub/elsewhere").exists());
        assert_eq!(fs::read_to_string(&path).unwrap(), "2\n");
        let pipe = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(write_secret(&pipe, "4\n").unwrap_err().to_string().contains("not a file"));
    }

    #[test]
    fn a_file_of_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return; // Only root can give a file away.
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pgpass");
        fs::write(&path, "theirs").unwrap();
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        let refused = write_secret(&path, "ours").unwrap_err().to_string();
        assert!(refused.contains("uid 65534"), "{refused}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    }

    #[test]
    fn what_a_program_logs_in_with_is_gone_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let settings = crate::Settings { pgpass: directory.path().join("pgpass"), ..settings() };
        let credentials = Credentials {
            password: Some("secret".into()),
            sslpassword: Some(" it's = a [pass]\\phrase".into()),
            ..Credentials::default()
        };
        let target = ConnInfo { host: Some("h".into()), port: 1, credentials, ..ConnInfo::default() };
        let login = Login::prepare(&settings, &target).unwrap();
        let files = [login.passfile.clone().unwrap(), login.servicefile.clone().unwrap()];
        assert_eq!(fs::read_to_string(&files[0]).unwrap(), "h:1:*:*:secret\n");
        assert_eq!(fs::read_to_string(&files[1]).unwrap(), "[pgward]\nsslpassword= it's = a [pass]\\phrase\n");
        assert!(files.iter().all(|file| mode(file) == 0o600));
        drop(login);
        assert!(!files.iter().any(|file| file.exists()));

        for unusable in ["two\nlines", "phrase ", "tab\t", "a\rb"] {
            let mut target = target.clone();
            target.credentials.sslpassword = Some(unusable.into());
            let refused = Login::prepare(&settings, &target).unwrap_err().to_string();
            assert!(refused.contains("sslpassword") && !refused.contains(unusable), "{refused}");
            assert!(!files.iter().any(|file| file.exists()), "what was written for it is gone");
        }
    }
}
