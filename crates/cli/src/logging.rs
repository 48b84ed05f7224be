//! The log of the agent: one line for one fact, on standard error or in a file.

use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Mutex;

use anyhow::Context;
use pgward_core::config::LogConfig;
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// The file in `log.dir`, by the name that log collectors look for.
pub(crate) const FILE: &str = "patroni.log";

/// Starts to log as the configuration says.
///
/// # Errors
/// When the file in `log.dir` cannot be opened.
pub(crate) fn start(config: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().parse_lossy(filter(config));
    let writer = match &config.dir {
        None => BoxMakeWriter::new(std::io::stderr),
        Some(dir) => {
            let path = dir.join(FILE);
            let mut options = OpenOptions::new();
            options.create(true).append(true);
            if let Some(mode) = config.mode {
                options.mode(mode);
            }
            let file = options.open(&path).with_context(|| {
                format!(
                    "cannot write the log {} (log.dir): create the directory, or change the setting",
                    path.display()
                )
            })?;
            BoxMakeWriter::new(Mutex::new(file))
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(false)
        .with_target(false)
        .with_timer(LocalTime)
        .init();
    Ok(())
}

/// The levels in the words of `tracing`: the file uses Python's.
fn filter(config: &LogConfig) -> String {
    let mut filter = level(&config.level).to_string();
    for (module, module_level) in &config.loggers {
        filter.push_str(&format!(",{}={}", module.replace('.', "::"), level(module_level)));
    }
    filter
}

fn level(text: &str) -> Level {
    match text.to_ascii_uppercase().as_str() {
        "DEBUG" | "NOTSET" => Level::DEBUG,
        "WARN" | "WARNING" => Level::WARN,
        "ERROR" | "FATAL" | "CRITICAL" => Level::ERROR,
        _ => Level::INFO,
    }
}

/// `2026-11-21 12:31:08,123`, in the local time zone.
struct LocalTime;

impl FormatTime for LocalTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S,%3f"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_as_pythons_logging_names_them() {
        let mut config = LogConfig { level: "WARNING".to_owned(), ..LogConfig::default() };
        config.loggers.insert("pgward_agent.lease".to_owned(), "DEBUG".to_owned());
        assert_eq!(filter(&config), "WARN,pgward_agent::lease=DEBUG");
        assert_eq!(level("CRITICAL"), Level::ERROR);
    }
}
