//! From an open stream to a session: the start-up message and the password.

use bytes::{Buf, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;

use super::ConnectOptions;
use super::wire::{Wire, server_error, texts};
use crate::conninfo::ConnInfo;
use crate::error::SqlError;

const SCRAM: &str = "SCRAM-SHA-256";

/// The first message on a connection.
pub(super) fn startup_message(info: &ConnInfo, options: &ConnectOptions) -> std::io::Result<BytesMut> {
    let mut settings = String::new();
    if !options.replication {
        settings.push_str("-c search_path=pg_catalog -c pg_stat_statements.track=none");
    }
    let timeout = options.statement_timeout.map_or(0, |timeout| timeout.as_millis());
    settings.push_str(&format!(" -c statement_timeout={timeout}"));
    let user = login_name(info);
    let mut parameters = vec![
        ("user", user.as_str()),
        ("database", info.database.as_deref().unwrap_or("postgres")),
        ("application_name", options.application_name.as_str()),
        ("client_encoding", "UTF8"),
        ("DateStyle", "ISO"),
        ("TimeZone", "UTC"),
        ("options", settings.trim()),
    ];
    if options.replication {
        parameters.push(("replication", "true"));
    }
    let mut message = BytesMut::new();
    frontend::startup_message(parameters, &mut message)?;
    Ok(message)
}

/// Without a configured user, the name of the operating system's user, as libpq does.
fn login_name(info: &ConnInfo) -> String {
    let from_environment = || ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    info.credentials.username.clone().or_else(from_environment).unwrap_or_else(|| "postgres".to_owned())
}

/// Answers the server's questions until it accepts statements; returns its version number, such as 150004.
pub(super) async fn log_in(wire: &mut Wire, info: &ConnInfo, options: &ConnectOptions) -> Result<u32, SqlError> {
    let refused =
        |wire: &Wire, problem: String| SqlError::Login { target: wire.target.clone(), user: login_name(info), problem };
    let startup = startup_message(info, options).map_err(|error| refused(wire, error.to_string()))?;
    wire.send(&startup).await?;
    let mut scram = None;
    let mut version = 0;
    loop {
        let mut message = wire.receive().await?;
        match message.tag {
            b'R' => {
                let kind = message.body.try_get_i32().map_err(|_| wire.broken("a cut authentication message"))?;
                let reply = answer(info, kind, &message.body, &mut scram).map_err(|problem| refused(wire, problem))?;
                if let Some(reply) = reply {
                    wire.send(&reply).await?;
                }
            }
            b'S' => {
                let mut pair = texts(&message.body);
                if let (Some("server_version"), Some(text)) = (pair.next(), pair.next()) {
                    version = version_number(text);
                }
            }
            b'Z' => return Ok(version),
            b'E' => return Err(server_error(&message.body)),
            b'K' | b'N' | b'v' => {}
            other => return Err(wire.broken(format!("an unexpected message {:?} during log-in", char::from(other)))),
        }
    }
}

/// The reply to one authentication request; `None` when none is due.
fn answer(
    info: &ConnInfo,
    kind: i32,
    body: &[u8],
    scram: &mut Option<ScramSha256>,
) -> Result<Option<BytesMut>, String> {
    let password = || {
        info.credentials.password.as_deref().ok_or_else(|| "the server wants a password, and none is set".to_owned())
    };
    let mut reply = BytesMut::new();
    let mut send_password = |bytes: &[u8]| {
        frontend::password_message(bytes, &mut reply).map_err(|error| error.to_string())?;
        Ok(Some(std::mem::take(&mut reply)))
    };
    match kind {
        0 => Ok(None),
        3 => send_password(password()?.as_bytes()),
        5 => {
            let salt: [u8; 4] = body.try_into().map_err(|_| "a salt of the wrong length".to_owned())?;
            send_password(md5_hash(login_name(info).as_bytes(), password()?.as_bytes(), salt).as_bytes())
        }
        10 => {
            if info.credentials.channel_binding.as_deref() == Some("require") {
                return Err("channel_binding=require is not supported for the agent's own connections".to_owned());
            }
            if !texts(body).any(|mechanism| mechanism == SCRAM) {
                return Err("the server offers no SCRAM-SHA-256".to_owned());
            }
            let started = scram.insert(ScramSha256::new(password()?.as_bytes(), ChannelBinding::unsupported()));
            frontend::sasl_initial_response(SCRAM, started.message(), &mut reply).map_err(|error| error.to_string())?;
            Ok(Some(reply))
        }
        11 => {
            let running = scram.as_mut().ok_or("SCRAM continues before it began")?;
            running.update(body).map_err(|error| error.to_string())?;
            frontend::sasl_response(running.message(), &mut reply).map_err(|error| error.to_string())?;
            Ok(Some(reply))
        }
        12 => {
            let mut running = scram.take().ok_or("SCRAM ends before it began")?;
            running.finish(body).map_err(|error| error.to_string())?;
            Ok(None)
        }
        other => Err(format!("the server wants authentication of kind {other}, which is not supported")),
    }
}

/// `15.4 (Debian …)` is 150004; `17beta1` is 170000.
fn version_number(text: &str) -> u32 {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse::<u32>().unwrap_or(0));
    let major = numbers.next().unwrap_or(0).min(9999);
    let minor = if text.contains('.') { numbers.next().unwrap_or(0) } else { 0 };
    major * 10_000 + minor.min(9999)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_as_the_server_counts_them() {
        for (text, number) in [("15.4 (Debian 15.4-1)", 150_004), ("17beta1", 170_000), ("18.0", 180_000), ("x", 0)] {
            assert_eq!(version_number(text), number, "{text}");
        }
    }

    #[test]
    fn nonsense_from_the_server_is_an_error() {
        let info = ConnInfo::default();
        for (kind, body) in
            [(3, &b""[..]), (5, b"abc"), (10, b"PLAIN\0\0"), (11, b"x"), (12, b"x"), (7, b""), (-1, b"")]
        {
            assert!(answer(&info, kind, body, &mut None).is_err(), "{kind}");
        }
    }
}
