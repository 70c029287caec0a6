//! Knowing a server by the fingerprint of its authority: what a node has that was never in the fleet.

use std::{fmt, str::FromStr, sync::Arc};

use async_nats::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};
use edgeward_model::{Digest, EdgeError};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// SHA-256 of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(Digest);

impl Fingerprint {
    /// That of the first certificate in this PEM.
    ///
    /// # Errors
    /// [`edgeward_model::ErrorKind::InvalidInput`] when there is none.
    pub fn of_pem(certificate: &str) -> Result<Self, EdgeError> {
        let read = CertificateDer::from_pem_slice(certificate.as_bytes());
        let der = read.map_err(|error| EdgeError::invalid("the certificate of the authority is not valid").with_source(error))?;
        Ok(Self::of_der(&der))
    }

    fn of_der(certificate: &CertificateDer<'_>) -> Self {
        Self(Digest::from_sha256(<Sha256 as sha2::Digest>::digest(certificate).into()))
    }

    /// TLS that takes servers whose certificate leads to the one with this fingerprint, which they must show.
    pub(super) fn tls(self) -> ClientConfig {
        let provider = Arc::new(ring::default_provider());
        ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has what TLS 1.2 and 1.3 need")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(OnlyRoot { fingerprint: self, provider }))
            .with_no_client_auth()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Fingerprint {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        text.parse().map(Self)
    }
}

/// Takes one authority as the only one, and verifies everything else as always: the name, the dates and the signatures.
#[derive(Debug)]
struct OnlyRoot {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for OnlyRoot {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let root = intermediates.iter().find(|shown| Fingerprint::of_der(shown) == self.fingerprint).ok_or_else(|| {
            rustls::Error::General(format!("the server does not show the certificate of the authority `{}`", self.fingerprint))
        })?;
        let mut roots = RootCertStore::empty();
        roots.add(root.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
