//! All that a fleet's authority consists of, in one file of the hub: who has it is the fleet.

use std::{fmt, path::Path};

use edgeward_model::{EdgeError, ErrorKind};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::nats::{
    authority::{Authority, Seeds},
    certificates::CertificateAuthority,
    fingerprint::Fingerprint,
    secret_file,
};

/// The format of the file.
const VERSION: u32 = 1;
/// How errors name it.
const WHAT: &str = "keys of the fleet";

/// The keys that sign tokens, and those that sign certificates.
#[derive(Debug)]
pub struct FleetKeys {
    authority: Authority,
    certificates: CertificateAuthority,
    fingerprint: Fingerprint,
}

/// The file.
#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    seeds: Seeds,
    /// PEM.
    certificate: String,
    /// PEM.
    certificate_key: String,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kept(secret)")
    }
}

impl FleetKeys {
    /// New keys.
    pub(super) fn new(now: Timestamp) -> Result<Self, EdgeError> {
        Self::of(Authority::new(), CertificateAuthority::new(now)?)
    }

    /// The keys in this file, which is made when it is missing. Its folder must be there, and used by nobody else.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] when others may read the file, [`ErrorKind::Internal`] when it is damaged:
    /// it is never made anew by itself, because every node would have to join again.
    pub(super) fn open_or_create(file: &Path, now: Timestamp) -> Result<Self, EdgeError> {
        if let Some(keys) = Self::open(file)? {
            return Ok(keys);
        }
        let keys = Self::new(now)?;
        let (certificate, certificate_key) = (keys.certificates.certificate().to_owned(), keys.certificates.key());
        secret_file::write(file, WHAT, &Kept { version: VERSION, seeds: keys.authority.seeds()?, certificate, certificate_key })?;
        Ok(keys)
    }

    /// The keys in this file; none when there is no file.
    ///
    /// # Errors
    /// Those of [`Self::open_or_create`].
    pub(super) fn open(file: &Path) -> Result<Option<Self>, EdgeError> {
        let kept = secret_file::read(file, WHAT, VERSION)?;
        let Some(Kept { seeds, certificate, certificate_key, .. }) = kept else { return Ok(None) };
        let damaged = |error: EdgeError| {
            let message = format!("the {WHAT} in `{}` are damaged; restore the file from a backup", file.display());
            EdgeError::new(ErrorKind::Internal, message).with_source(error)
        };
        let authority = Authority::from_seeds(&seeds).map_err(damaged)?;
        let certificates = CertificateAuthority::from_pem(certificate, &certificate_key).map_err(damaged)?;
        Self::of(authority, certificates).map(Some).map_err(damaged)
    }

    fn of(authority: Authority, certificates: CertificateAuthority) -> Result<Self, EdgeError> {
        let fingerprint = Fingerprint::of_pem(certificates.certificate())?;
        Ok(Self { authority, certificates, fingerprint })
    }

    /// Signs tokens.
    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Signs certificates.
    pub(super) fn certificates(&self) -> &CertificateAuthority {
        &self.certificates
    }

    /// That of the certificate of the authority that signs certificates.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn open(file: &Path) -> Result<FleetKeys, EdgeError> {
        FleetKeys::open_or_create(file, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn keys_are_made_once_for_their_owner_alone_and_are_the_same_later() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("authority.json");
        let (made, again) = (open(&file).expect("made"), open(&file).expect("read"));
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        assert_eq!((made.fingerprint, format!("{:?}", made.authority)), (again.fingerprint, format!("{:?}", again.authority)));
        assert_eq!(made.certificates.key(), again.certificates.key());
        let shown = format!("{made:?}");
        assert!(!shown.contains(&made.authority.seeds().expect("it has them").account) && !shown.contains("PRIVATE"));
    }

    #[test]
    fn keys_that_others_may_read_or_that_are_damaged_are_refused_and_stay() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("authority.json");
        open(&file).expect("made");
        let whole = fs::read_to_string(&file).expect("there");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("ours");
        let error = open(&file).expect_err("others may read it");
        assert!(error.kind() == ErrorKind::Forbidden && error.to_string().contains("chmod 600"), "{error}");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("ours");
        open(&file).expect("good again");
        let other = CertificateAuthority::new(Timestamp::UNIX_EPOCH).expect("made").certificate().replace('\n', "\\n");
        let own = whole.split("\"certificate\": \"").nth(1).and_then(|rest| rest.split('"').next()).expect("it is there");
        for (damaged, kind) in [
            (whole[..whole.len() / 2].to_owned(), ErrorKind::Internal),
            (String::new(), ErrorKind::Internal),
            (whole.replace("SO", "SX"), ErrorKind::Internal),
            (whole.replace("BEGIN CERT", "BEGIN"), ErrorKind::Internal),
            (whole.replace(own, &other), ErrorKind::Internal),
            (whole.replace("\"version\": 1", "\"version\": 2"), ErrorKind::Unavailable),
        ] {
            fs::write(&file, &damaged).expect("ours");
            let error = open(&file).expect_err(&damaged);
            assert_eq!(error.kind(), kind, "{error}: {damaged}");
            assert_eq!(fs::read_to_string(&file).expect("there"), damaged, "it is not made anew");
        }
    }
}
