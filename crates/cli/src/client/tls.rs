//! TLS of the client: whom it trusts, and what a person can do when it trusts nobody.

use std::{path::Path, sync::Arc};

use edgeward::{EdgeError, limits::TLS_FILE_BYTES_MAX};
use tokio_rustls::rustls::{
    self, CertificateError, ClientConfig, RootCertStore, crypto,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::input::Input;

/// Trusts who was certified by an authority in the file, or by one that this machine trusts.
pub(crate) fn config(ca: Option<&Path>) -> Result<ClientConfig, EdgeError> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            let unusable = |why: Box<dyn std::error::Error + Send + Sync>| {
                EdgeError::invalid(format!("failed to use the certificate `{}` that --ca names", path.display())).with_source(why)
            };
            let pem = Input::File(path.to_owned()).read(TLS_FILE_BYTES_MAX).map_err(|error| unusable(error.into()))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| unusable(error.into()))?;
                roots.add(certificate).map_err(|error| unusable(error.into()))?;
            }
            if roots.is_empty() {
                return Err(unusable("there is no `BEGIN CERTIFICATE` in it".into()));
            }
        }
        None => {
            // A few that cannot be read are nothing unusual, and none at all is told when a certificate is looked at.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider knows the versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// What to do about a handshake that failed.
pub(super) fn hint(error: &std::io::Error) -> &'static str {
    let error = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(why)) = error else {
        return "does it speak TLS? an address that only its own machine can reach takes `http://`";
    };
    match why {
        // The signature is bad also when another authority of the same name is trusted.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "if its authority is your own, trust it with `--ca FILE` or EDGEWARD_CA"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "give `--server` a name or address that its certificate is for"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "renew its certificate; the node takes a new file by itself",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => "is the clock of this machine right?",
        _ => "its certificate must be one of a server, not of an authority, and signed by one that is trusted here",
    }
}
