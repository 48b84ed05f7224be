//! TLS of the server.

use std::path::PathBuf;
use std::sync::Arc;

use pgward_core::config::VerifyClient;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;

use crate::http::{TlsError, read_certificates, read_private_key, read_roots};

/// What the server needs for `https`. Plain HTTP is then not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The certificate chain; also the key, when there is no `keyfile`.
    pub certfile: PathBuf,
    /// The private key.
    pub keyfile: Option<PathBuf>,
    /// The authorities of client certificates.
    pub cafile: Option<PathBuf>,
    /// Whether clients have to show a certificate.
    pub verify_client: VerifyClient,
}

/// Reads the files.
pub(super) fn server_config(tls: &ServerTls) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match (tls.verify_client, &tls.cafile) {
        (VerifyClient::None, _) => builder.with_no_client_auth(),
        (VerifyClient::Optional | VerifyClient::Required, None) => {
            return Err(TlsError::Unusable(rustls::Error::General(
                "restapi.verify_client needs restapi.cafile, the authorities of client certificates".to_owned(),
            )));
        }
        (VerifyClient::Optional | VerifyClient::Required, Some(cafile)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(read_roots(cafile)?), provider);
            let verifier = match tls.verify_client {
                VerifyClient::Optional => verifier.allow_unauthenticated(),
                VerifyClient::Required | VerifyClient::None => verifier,
            };
            let verifier = verifier.build();
            builder.with_client_cert_verifier(
                verifier.map_err(|error| TlsError::Verifier { path: cafile.clone(), reason: error.to_string() })?,
            )
        }
    };
    let certificates = read_certificates(&tls.certfile)?;
    let key = read_private_key(tls.keyfile.as_ref().unwrap_or(&tls.certfile))?;
    Ok(Arc::new(builder.with_single_cert(certificates, key)?))
}
