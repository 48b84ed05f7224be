//! TLS of the client, and reading the PEM files that both sides need.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::TlsError;

/// Where distributions keep the certificates that they trust.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem"];

/// Whom the client trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ServerVerification {
    /// The authorities that the system trusts.
    #[default]
    SystemRoots,
    /// The authorities in this file.
    Authorities(PathBuf),
    /// Anybody: the connection is encrypted, but nobody knows with whom.
    Insecure,
}

/// What a client needs for `https`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// Whom it trusts.
    pub verification: ServerVerification,
    /// The certificate chain that it shows when asked, and the key that belongs to it.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Opens TLS connections. The configuration is built at first use where that reads only the system's roots, so that a
/// client that never speaks TLS does not pay for it.
#[derive(Clone)]
pub(super) struct Connector {
    config: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl Connector {
    pub(super) fn new(tls: ClientTls) -> Result<Self, TlsError> {
        let config = OnceLock::new();
        if tls != ClientTls::default() {
            let _ = config.set(Arc::new(client_config(&tls)?));
        }
        Ok(Connector { config: Arc::new(config) })
    }

    fn config(&self) -> io::Result<Arc<ClientConfig>> {
        if let Some(config) = self.config.get() {
            return Ok(config.clone());
        }
        let config = client_config(&ClientTls::default()).map_err(io::Error::other)?;
        Ok(self.config.get_or_init(|| Arc::new(config)).clone())
    }

    pub(super) async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        TlsConnector::from(self.config()?).connect(name, stream).await
    }
}

fn client_config(tls: &ClientTls) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &tls.verification {
        ServerVerification::SystemRoots => builder.with_root_certificates(system_roots()),
        ServerVerification::Authorities(path) => builder.with_root_certificates(read_roots(path)?),
        ServerVerification::Insecure => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAnyone(provider)))
        }
    };
    Ok(match &tls.identity {
        Some((certificates, key)) => {
            builder.with_client_auth_cert(read_certificates(certificates)?, read_private_key(key)?)?
        }
        None => builder.with_no_client_auth(),
    })
}

/// An empty store when the system has none: then every verification fails and says so.
fn system_roots() -> RootCertStore {
    SYSTEM_ROOTS.iter().find_map(|path| read_roots(Path::new(path)).ok()).unwrap_or_else(RootCertStore::empty)
}

/// The certificate authorities in a file. One that cannot be parsed is skipped, as every other program does.
pub(crate) fn read_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(read_certificates(path)?);
    if roots.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned(), wanted: "usable CA certificate" });
    }
    Ok(roots)
}

/// The certificate chain in a file.
pub(crate) fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    certificates
        .ok()
        .filter(|list| !list.is_empty())
        .ok_or_else(|| TlsError::Empty { path: path.to_owned(), wanted: "certificate" })
}

/// The private key in a file.
pub(crate) fn read_private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let path = path.to_owned();
        if is_encrypted(&text) {
            TlsError::EncryptedKey { path }
        } else {
            TlsError::Empty { path, wanted: "private key" }
        }
    })
}

fn is_encrypted(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).contains("ENCRYPTED")
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

/// Accepts every certificate; the handshake itself is still checked.
#[derive(Debug)]
struct AcceptAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
