//! Messages on a byte stream. The parser takes any input: what is not a message is an error.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Column;
use crate::error::SqlError;

pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// No answer to the agent is near this.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// One message of the server.
pub(super) struct Message {
    pub(super) tag: u8,
    pub(super) body: Bytes,
}

pub(super) struct Wire {
    stream: Box<dyn Stream>,
    received: BytesMut,
    /// Who is at the other end, for errors.
    pub(super) target: String,
}

impl Wire {
    pub(super) fn new(stream: Box<dyn Stream>, target: String) -> Wire {
        Wire { stream, received: BytesMut::new(), target }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), SqlError> {
        self.stream.write_all(bytes).await.map_err(|source| self.unreachable(source))
    }

    /// The next message. Dropping this loses nothing.
    pub(super) async fn receive(&mut self) -> Result<Message, SqlError> {
        loop {
            match take_message(&mut self.received) {
                Ok(Some(message)) => return Ok(message),
                Ok(None) => {}
                Err(problem) => return Err(self.broken(problem)),
            }
            match self.stream.read_buf(&mut self.received).await {
                Ok(0) => return Err(self.unreachable(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(source) => return Err(self.unreachable(source)),
            }
        }
    }

    pub(super) fn unreachable(&self, source: io::Error) -> SqlError {
        SqlError::Unreachable { target: self.target.clone(), source }
    }

    pub(super) fn broken(&self, problem: impl Into<String>) -> SqlError {
        SqlError::Protocol { target: self.target.clone(), problem: problem.into() }
    }
}

fn take_message(received: &mut BytesMut) -> Result<Option<Message>, String> {
    let Some(mut header) = received.get(..5) else { return Ok(None) };
    let tag = header.get_u8();
    let length = header.get_i32();
    let length = usize::try_from(length).ok().filter(|length| (4..=MESSAGE_BYTES_MAX).contains(length));
    let length = length.ok_or_else(|| format!("a message {:?} of impossible length", char::from(tag)))?;
    if received.len() < length + 1 {
        return Ok(None);
    }
    let mut message = received.split_to(length + 1).freeze();
    message.advance(5);
    Ok(Some(Message { tag, body: message }))
}

/// The fields of an `ErrorResponse`.
pub(super) fn server_error(body: &[u8]) -> SqlError {
    let (mut severity, mut code, mut message) = (None, None, None);
    let mut detail = None;
    for field in body.split(|byte| *byte == 0) {
        let Some((kind, value)) = field.split_first() else { break };
        let text = || Some(String::from_utf8_lossy(value).into_owned());
        match kind {
            b'V' => severity = text(),
            b'S' if severity.is_none() => severity = text(),
            b'C' => code = text(),
            b'M' => message = text(),
            b'D' => detail = text(),
            _ => {}
        }
    }
    let mut message = message.unwrap_or_else(|| "an error without a message".to_owned());
    if let Some(detail) = detail {
        message = format!("{message}: {detail}");
    }
    SqlError::Server {
        severity: severity.unwrap_or_else(|| "ERROR".to_owned()),
        code: code.unwrap_or_else(|| "XX000".to_owned()),
        message,
    }
}

/// The columns of a `DataRow`.
pub(super) fn columns(mut body: Bytes) -> Option<Vec<Option<Bytes>>> {
    let count = body.try_get_u16().ok()?;
    let mut columns = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        columns.push(match body.try_get_i32().ok()? {
            -1 => None,
            length => {
                let length = usize::try_from(length).ok().filter(|length| *length <= body.len())?;
                Some(body.split_to(length))
            }
        });
    }
    Some(columns)
}

/// The columns of a `RowDescription`.
pub(super) fn described(mut body: Bytes) -> Option<Vec<Column>> {
    let count = body.try_get_u16().ok()?;
    let mut columns = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let end = body.iter().position(|byte| *byte == 0)?;
        let name = String::from_utf8_lossy(&body.split_to(end)).into_owned();
        body.advance(1);
        // Table and attribute, then the type, then its length, modifier and format.
        let (_table, _attribute) = (body.try_get_u32().ok()?, body.try_get_u16().ok()?);
        let type_oid = body.try_get_u32().ok()?;
        body.try_get_u64().ok()?;
        columns.push(Column { name, type_oid });
    }
    Some(columns)
}

/// The NUL-terminated texts of a body.
pub(super) fn texts(body: &[u8]) -> impl Iterator<Item = &str> {
    body.split(|byte| *byte == 0).filter_map(|text| std::str::from_utf8(text).ok()).filter(|text| !text.is_empty())
}

/// What holds for any bytes that a server sends.
#[cfg(any(test, fuzzing))]
pub(crate) mod properties {
    use super::*;

    /// What came out of a stream.
    #[derive(Debug, PartialEq)]
    struct Received {
        /// Tags and bodies.
        messages: Vec<(u8, Bytes)>,
        /// What was not taken.
        rest: Vec<u8>,
        /// It is known to begin no message.
        is_broken: bool,
    }

    /// The same messages come out of a stream however it is cut, and nothing of it is lost: `cuts` are the lengths of
    /// the pieces, over and over.
    pub(crate) fn stream(bytes: &[u8], cuts: &[u8]) {
        let whole = receive([bytes]);
        let mut rest = bytes;
        let pieces = cuts.iter().cycle().map_while(|cut| {
            let (piece, after) = rest.split_at(usize::from(*cut).max(1).min(rest.len()));
            rest = after;
            (!piece.is_empty()).then_some(piece)
        });
        let cut = receive(pieces.collect::<Vec<_>>());
        if !cuts.is_empty() {
            assert_eq!(cut, whole);
        }
        let taken: usize = whole.messages.iter().map(|(_, body)| body.len() + 5).sum();
        assert_eq!([&bytes[..taken], &whole.rest[..]].concat(), bytes, "nothing is lost");
    }

    fn receive<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Received {
        let mut received = BytesMut::new();
        let (mut messages, mut is_broken) = (Vec::new(), false);
        for piece in pieces {
            received.extend_from_slice(piece);
            while !is_broken {
                match take_message(&mut received) {
                    Ok(Some(message)) => messages.push((message.tag, message.body)),
                    Ok(None) => break,
                    Err(_) => is_broken = true,
                }
            }
        }
        Received { messages, rest: received.to_vec(), is_broken }
    }

    /// The body of any message is a row, an error and texts, or is refused; a row holds no more than its message.
    pub(crate) fn bodies(body: &[u8]) {
        if let Some(columns) = described(Bytes::copy_from_slice(body)) {
            // Each takes a name's end and 18 bytes.
            assert!(columns.len() * 19 < body.len());
        }
        if let Some(row) = columns(Bytes::copy_from_slice(body)) {
            let bytes: usize = row.iter().flatten().map(Bytes::len).sum();
            assert!(2 + 4 * row.len() + bytes <= body.len(), "{row:?} out of {body:?}");
        }
        let error = server_error(body);
        assert!(error.code().is_some() && !error.to_string().is_empty());
        assert!(texts(body).all(|text| !text.is_empty() && !text.contains('\0')));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_from_the_stream_and_nonsense_is_refused() {
        let mut stream = BytesMut::from(&b"Z\0\0\0\x05IX\0\0\0\x04E\0"[..]);
        let first = take_message(&mut stream).unwrap().unwrap();
        assert_eq!((first.tag, &first.body[..]), (b'Z', &b"I"[..]));
        assert_eq!(take_message(&mut stream).unwrap().unwrap().tag, b'X');
        assert!(take_message(&mut stream).unwrap().is_none());
        for bad in [&b"R\0\0\0\x03"[..], b"R\xff\xff\xff\xff", b"HTTP/"] {
            assert!(take_message(&mut BytesMut::from(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn rows_that_lie_about_their_length_are_refused() {
        let row = columns(Bytes::from_static(b"\0\x02\0\0\0\x01a\xff\xff\xff\xff")).unwrap();
        assert_eq!(row, [Some(Bytes::from_static(b"a")), None]);
        for bad in [&b""[..], b"\0\x01", b"\0\x01\0\0\0\x05a", b"\0\x01\xff\xff\xff\xfe"] {
            assert!(columns(Bytes::from_static(bad)).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_is_read_from_any_fields() {
        let error = server_error(b"SFATALE\0VFATAL\0C57P03\0Mthe database system is starting up\0\0");
        assert!(error.is_cannot_connect_now());
        assert_eq!(error.to_string(), "FATAL: the database system is starting up (SQLSTATE 57P03)");
        assert_eq!(server_error(b"").code(), Some("XX000"));
    }
}
