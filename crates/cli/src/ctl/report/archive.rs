//! A compressed tar file.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Zoned;
use tar::{Builder, Header};

use super::Item;

/// Writes the items below one folder. Only the owner may read the file: it tells much about a cluster.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write(path: &Path, folder: &str, items: &[Item], now: &Zoned) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut builder = Builder::new(GzEncoder::new(file, Compression::default()));
    for Item { path, content } in items {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(now.timestamp().as_second()).unwrap_or_default());
        builder.append_data(&mut header, format!("{folder}/{path}"), content.as_bytes())?;
    }
    builder.into_inner()?.finish()?.flush()
}
