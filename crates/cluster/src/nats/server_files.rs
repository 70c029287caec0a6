//! What an operator's NATS servers need to know of a fleet, as files: whose credentials they take, and a certificate that members know.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use edgeward_durable::disk_error;
use edgeward_model::{EdgeError, limits::SERVER_CERTIFICATE_DAYS};
use jiff::Timestamp;

use crate::nats::{authority::Revoked, fleet_keys::FleetKeys, server_config::ServerConfig};

/// A server that somebody else runs for the fleet.
#[derive(Clone, Debug)]
pub struct ServerFiles {
    /// Names it among the servers of its cluster.
    pub name: String,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Names and addresses by which members and the other servers reach it.
    pub names: Vec<String>,
    /// Where the files will lie on its machine; its data goes to `data` inside.
    pub installed_at: PathBuf,
}

impl ServerFiles {
    /// Writes `nats.conf`, `ca.pem`, `server.pem` and `server.key` (a secret) into this folder, which is made when it is missing.
    ///
    /// # Errors
    /// [`edgeward_model::ErrorKind::InvalidInput`] when a name is none.
    pub fn write(&self, keys: &FleetKeys, revoked: &Revoked, folder: &Path, now: Timestamp) -> Result<(), EdgeError> {
        let certificate = keys.certificates().server(&self.names, now, SERVER_CERTIFICATE_DAYS)?;
        let [chain, key, data] = ["server.pem", "server.key", "data"].map(|name| self.installed_at.join(name));
        let config = ServerConfig { name: &self.name, listen: self.listen, data: &data, tls: (&chain, &key) };
        let config = config.text(keys.authority(), revoked, now)?;
        edgeward_durable::create_private_folder(folder)
            .map_err(|error| disk_error("make the folder for the NATS server", folder, error))?;
        for (name, text) in [
            ("ca.pem", keys.certificates().certificate()),
            ("server.pem", &certificate.chain),
            ("server.key", &certificate.key),
            ("nats.conf", &config),
        ] {
            let file = folder.join(name);
            edgeward_durable::write(&file, text.as_bytes())
                .map_err(|error| disk_error("write a file for the NATS server", &file, error))?;
        }
        Ok(())
    }
}
