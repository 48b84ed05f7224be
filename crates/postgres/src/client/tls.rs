//! Encrypted connections, as far as libpq's `sslmode` asks for them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::settings::Credentials;

/// How far a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SslMode {
    Disable,
    /// Unencrypted, and encrypted when the server insists.
    Allow,
    /// Encrypted when the server can.
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    pub(super) fn of(credentials: &Credentials) -> Result<SslMode, String> {
        match credentials.sslmode.as_deref().unwrap_or("prefer") {
            "disable" => Ok(SslMode::Disable),
            "allow" => Ok(SslMode::Allow),
            "" | "prefer" => Ok(SslMode::Prefer),
            "require" => Ok(SslMode::Require),
            "verify-ca" => Ok(SslMode::VerifyCa),
            "verify-full" => Ok(SslMode::VerifyFull),
            other => {
                Err(format!("sslmode {other:?} is none of disable, allow, prefer, require, verify-ca, verify-full"))
            }
        }
    }
}

/// Encrypts a stream on which the server has agreed to it.
pub(super) async fn wrap(
    stream: TcpStream,
    host: &str,
    mode: SslMode,
    credentials: &Credentials,
) -> Result<TlsStream<TcpStream>, String> {
    let config = client_config(mode, credentials)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| error.to_string())
}

fn client_config(mode: SslMode, credentials: &Credentials) -> Result<ClientConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = verifier(mode, credentials, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match (&credentials.sslcert, &credentials.sslkey) {
        (Some(cert), Some(key)) => {
            let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
            let chain = chain.map_err(|error| format!("sslcert {cert}: {error}"))?;
            let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| {
                format!("sslkey {key}: {error} (an encrypted key is not supported for the agent's own connections)")
            })?;
            builder.with_client_auth_cert(chain, key_der).map_err(|error| format!("sslcert {cert}: {error}"))?
        }
        (Some(_) | None, _) => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(config)
}

/// `require` verifies the issuer when a file of trusted certificates is there, as libpq does.
fn verifier(
    mode: SslMode,
    credentials: &Credentials,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let configured = credentials.sslrootcert.as_ref().map(PathBuf::from);
    let standard = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".postgresql/root.crt"));
    let roots = configured.or_else(standard).filter(|path| fs::metadata(path).is_ok());
    let path = match (mode, roots) {
        (SslMode::VerifyCa | SslMode::VerifyFull, None) => {
            return Err("sslrootcert does not exist; set it to a file of trusted certificates".to_owned());
        }
        (SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull, Some(path)) => path,
        (SslMode::Disable | SslMode::Allow | SslMode::Prefer | SslMode::Require, _) => {
            return Ok(Arc::new(AcceptAny(Arc::clone(provider))));
        }
    };
    let failed = |error: &dyn std::fmt::Display| format!("sslrootcert {}: {error}", path.display());
    let read = CertificateDer::pem_file_iter(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let trusted = read.map_err(|error| failed(&error))?;
    let mut store = RootCertStore::empty();
    for certificate in &trusted {
        store.add(certificate.clone()).map_err(|error| failed(&error))?;
    }
    let mut builder = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider));
    if let Some(crl) = &credentials.sslcrl {
        let lists = CertificateRevocationListDer::pem_file_iter(crl).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        builder = builder.with_crls(lists.map_err(|error| format!("sslcrl {crl}: {error}"))?);
    }
    let issuer = builder.build().map_err(|error| failed(&error))?;
    Ok(Arc::new(Trusted { issuer, trusted, check_name: mode == SslMode::VerifyFull }))
}

/// Encrypts without knowing to whom: `sslmode=require` without trusted certificates means just that.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Verifies who issued the certificate and, for `verify-full`, for which name.
#[derive(Debug)]
struct Trusted {
    issuer: Arc<WebPkiServerVerifier>,
    trusted: Vec<CertificateDer<'static>>,
    check_name: bool,
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if self.trusted.iter().any(|trusted| trusted == end_entity) {
            // A self-signed certificate that is itself in the file, which the rules for chains do not provide for.
            if self.check_name {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        // The name is looked at last, after the chain has been found good.
        match self.issuer.verify_server_cert(end_entity, intermediates, name, ocsp, now) {
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.check_name => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.issuer.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.issuer.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.issuer.supported_verify_schemes()
    }
}
