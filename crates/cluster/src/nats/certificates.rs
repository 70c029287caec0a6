//! TLS without anybody else: an authority of the fleet's own, which signs for its NATS servers and the hub.

use std::fmt;

use async_nats::rustls::pki_types::{CertificateDer, pem::PemObject};
use edgeward_model::{EdgeError, ErrorKind};
use jiff::{Timestamp, ToSpan, civil::Date, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// How long the authority's own certificate is valid, in years.
const AUTHORITY_YEARS: i32 = 20;
/// Clocks of members may be so many days behind.
const DAYS_BACK: i32 = 2;

/// An authority that signs certificates of servers.
pub struct CertificateAuthority {
    certificate: String,
    key: KeyPair,
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateAuthority(secret)")
    }
}

/// A certificate and its secret key, as PEM.
pub struct Certificate {
    /// Of the server, then of its authority.
    pub chain: String,
    /// Secret.
    pub key: String,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificate(secret)")
    }
}

impl CertificateAuthority {
    /// A new one.
    pub fn new(now: Timestamp) -> Result<Self, EdgeError> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = authority_params();
        set_validity(&mut params, now, AUTHORITY_YEARS * 365);
        let certificate = params.self_signed(&key).map_err(failed)?.pem();
        Ok(Self { certificate, key })
    }

    /// The one that was kept as these two texts.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when one of them is none, or the certificate is another key's.
    pub fn from_pem(certificate: impl Into<String>, key: &str) -> Result<Self, EdgeError> {
        let key = KeyPair::from_pem(key).map_err(|error| EdgeError::invalid("the key of the authority is not valid").with_source(error))?;
        let certificate = certificate.into();
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|error| EdgeError::invalid("the certificate of the authority is not valid").with_source(error))?;
        let own = key.public_key_raw();
        if der.windows(own.len()).any(|part| part == own) {
            Ok(Self { certificate, key })
        } else {
            Err(EdgeError::invalid("the certificate of the authority is not that of its key"))
        }
    }

    /// Its certificate as PEM, which members trust.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its secret key as PEM.
    pub fn key(&self) -> String {
        self.key.serialize_pem()
    }

    /// A certificate for a server of these names and addresses, valid for so many days.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when a name is none.
    pub fn server(&self, names: &[String], now: Timestamp, days: u16) -> Result<Certificate, EdgeError> {
        let key = KeyPair::generate().map_err(failed)?;
        let invalid = |error| EdgeError::invalid("a name of the server is not valid in a certificate").with_source(error);
        let mut params = CertificateParams::new(names).map_err(invalid)?;
        set_validity(&mut params, now, days.into());
        params.distinguished_name = name("Edgeward server");
        // Servers of one cluster show their certificates to each other in both roles.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let authority = authority_params();
        let issuer = Issuer::from_params(&authority, &self.key);
        let certificate = params.signed_by(&key, &issuer).map_err(failed)?.pem();
        Ok(Certificate { chain: format!("{certificate}{}", self.certificate), key: key.serialize_pem() })
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("Edgeward");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

/// Makes it valid from some days ago, for so many days from now.
fn set_validity(params: &mut CertificateParams, now: Timestamp, days: i32) {
    let today = now.to_zoned(TimeZone::UTC).date();
    let day = |date: Date| {
        let part = |number: i8| u8::try_from(number).expect("months and days are positive");
        date_time_ymd(date.year().into(), part(date.month()), part(date.day()))
    };
    params.not_before = day(today.saturating_sub(DAYS_BACK.days()));
    params.not_after = day(today.saturating_add(days.days()));
}

fn failed(error: rcgen::Error) -> EdgeError {
    EdgeError::new(ErrorKind::Internal, "failed to make a certificate").with_source(error)
}
