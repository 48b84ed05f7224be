//! Logging in: one token for all members, fetched when it is first needed and again when etcd rejects it.

use std::time::Duration;

use tokio::sync::Mutex;
use tonic::metadata::MetadataValue;
use tracing::info;

use super::client::{Token, exchange};
use super::fault::Fault;
use super::pool::Node;
use super::proto::{self, AuthenticateRequest, AuthenticateResponse};

pub(super) struct Session {
    credentials: Option<(String, String)>,
    /// `None`: not asked yet. `Some(None)`: authentication is off. The lock is held while one request logs in, for no
    /// longer than that request may take, so that the others wait for its token instead of logging in as well.
    token: Mutex<Option<Token>>,
}

impl Session {
    pub(super) fn new(credentials: Option<(String, String)>) -> Session {
        Session { credentials, token: Mutex::default() }
    }

    /// True when there is somebody to log in as.
    pub(super) fn is_used(&self) -> bool {
        self.credentials.is_some()
    }

    /// The token to send.
    pub(super) async fn token(&self, node: &Node, within: Duration) -> Result<Token, Fault> {
        let Some((name, password)) = &self.credentials else { return Ok(None) };
        let mut known = self.token.lock().await;
        if let Some(token) = &*known {
            return Ok(token.clone());
        }
        let request = AuthenticateRequest { name: name.clone(), password: password.clone() };
        let answer = exchange(node, proto::AUTHENTICATE, request, &None, within).await;
        let token = match answer {
            Ok((AuthenticateResponse { token, .. }, _)) => {
                let token = MetadataValue::try_from(token)
                    .map_err(|_| Fault::Node { reason: "the token is not printable text".into(), was_sent: false })?;
                Some(token)
            }
            Err(Fault::Node { reason, .. }) if reason.contains("authentication is not enabled") => {
                info!("a user name is set, but authentication is not enabled in etcd");
                None
            }
            // Logging in again and again would not help.
            Err(Fault::Token(reason)) => return Err(Fault::Final(crate::StoreError::Rejected { reason })),
            Err(Fault::Node { reason, .. }) => return Err(Fault::Node { reason, was_sent: false }),
            Err(fault @ (Fault::Final(_) | Fault::Silent(_))) => return Err(fault),
        };
        *known = Some(token.clone());
        Ok(token)
    }

    /// Drops `token` unless another request has replaced it already.
    pub(super) async fn forget(&self, token: &Token) {
        let mut known = self.token.lock().await;
        if known.as_ref() == Some(token) {
            *known = None;
        }
    }

    /// Drops whatever token there is.
    pub(super) async fn forget_any(&self) {
        *self.token.lock().await = None;
    }
}
