//! The files of a broker: its configuration and certificates, which are written again at each start.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use edgeward_durable::disk_error;
use edgeward_model::{EdgeError, limits::SERVER_CERTIFICATE_DAYS};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::BrokerOptions;
use crate::nats::{authority::Revoked, fleet_keys::FleetKeys, server_config::ServerConfig};

/// It is made anew so long before its end.
const RENEWED_BEFORE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Every certificate is valid for these.
const LOCAL_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// The folder of a broker.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    name: String,
    names: Vec<String>,
    keys: Arc<FleetKeys>,
    /// When the certificate that is there ends.
    certificate_ends_at: Mutex<Option<Timestamp>>,
}

impl Files {
    pub(super) fn new(options: &BrokerOptions, keys: Arc<FleetKeys>) -> Self {
        let mut names: Vec<String> = LOCAL_NAMES.map(str::to_owned).into();
        let listens_at = Some(options.listen.ip()).filter(|ip| !ip.is_unspecified()).map(|ip| ip.to_string());
        names.extend(options.names.iter().cloned().chain(listens_at));
        names.sort();
        names.dedup();
        Self { folder: options.folder.clone(), name: options.name.clone(), names, keys, certificate_ends_at: Mutex::new(None) }
    }

    /// The certificate of the authority.
    pub(super) fn authority(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Where the server says on which port it listens.
    pub(super) fn ports(&self) -> PathBuf {
        self.folder.join("ports")
    }

    fn certificate(&self) -> [PathBuf; 2] {
        ["server.pem", "server.key"].map(|name| self.folder.join(name))
    }

    /// Writes all of them; the path of the configuration.
    pub(super) fn write(&self, listen: SocketAddr, revoked: &Revoked, now: Timestamp) -> Result<PathBuf, EdgeError> {
        for folder in [&self.folder, &self.ports()] {
            edgeward_durable::create_private_folder(folder)
                .map_err(|error| disk_error("make the folder of the NATS server", folder, error))?;
        }
        edgeward_durable::remove_leftovers(&self.folder).map_err(|error| failed(&self.folder, error))?;
        write(&self.authority(), self.keys.certificates().certificate())?;
        *self.certificate_ends_at.lock() = None;
        self.renew_certificate(now)?;
        let [chain, key] = self.certificate();
        let data = self.folder.join("data");
        let config = ServerConfig { name: &self.name, listen, data: &data, tls: (&chain, &key) };
        let path = self.folder.join("nats.conf");
        write(&path, &config.text(self.keys.authority(), revoked, now)?)?;
        Ok(path)
    }

    /// Makes a certificate when there is none, or the one that is there ends soon; says whether it did.
    pub(super) fn renew_certificate(&self, now: Timestamp) -> Result<bool, EdgeError> {
        let mut ends_at = self.certificate_ends_at.lock();
        if ends_at.is_some_and(|end| end.duration_since(now) > RENEWED_BEFORE) {
            return Ok(false);
        }
        let made = self.keys.certificates().server(&self.names, now, SERVER_CERTIFICATE_DAYS)?;
        let [chain, key] = self.certificate();
        write(&key, &made.key)?;
        write(&chain, &made.chain)?;
        *ends_at = now.checked_add(SignedDuration::from_hours(24 * i64::from(SERVER_CERTIFICATE_DAYS))).ok();
        Ok(true)
    }
}

fn write(path: &Path, text: &str) -> Result<(), EdgeError> {
    // What is the same needs no other disk write.
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    edgeward_durable::write(path, text.as_bytes()).map_err(|error| failed(path, error))
}

fn failed(path: &Path, error: io::Error) -> EdgeError {
    disk_error("write the configuration of the NATS server", path, error)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_certificate_is_made_at_each_start_and_again_a_month_before_its_end() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (now, day) = (Timestamp::now(), SignedDuration::from_hours(24));
        let options = BrokerOptions {
            program: None,
            folder: folder.path().join("broker"),
            name: "hub".to_owned(),
            listen: SocketAddr::from(([0, 0, 0, 0], 4222)),
            names: vec!["hub.example".to_owned(), "localhost".to_owned()],
        };
        let files = Files::new(&options, Arc::new(FleetKeys::new(now).expect("made")));
        assert_eq!(files.names, ["127.0.0.1", "::1", "hub.example", "localhost"]);
        let read = || fs::read_to_string(&files.certificate()[0]).expect("there");
        let config = files.write(options.listen, &Revoked::new(), now).expect("written");
        let first = read();
        files.write(options.listen, &Revoked::new(), now).expect("written");
        let second = read();
        assert_ne!(first, second);
        assert!(!files.renew_certificate(now + day * 334).expect("looked") && read() == second);
        assert!(files.renew_certificate(now + day * 336).expect("looked") && read() != second);
        assert!(!files.renew_certificate(now + day * 336).expect("looked"));
        for file in [&config, &files.certificate()[0], &files.certificate()[1], &files.authority()] {
            let mode = fs::metadata(file).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
    }
}
