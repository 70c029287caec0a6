//! What a hub keeps of its fleet: its keys, where its servers are, which join tokens were used, and the broker's folder.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use edgeward_durable::disk_error;
use edgeward_model::{EdgeError, ErrorKind, NodeId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::nats::{
    fleet_keys::FleetKeys,
    join_token::{self, JoinToken},
    secret_file,
};

const KEYS: &str = "authority.json";
const SERVERS: &str = "servers.json";
const SERVERS_WHAT: &str = "addresses of the fleet's servers";
const SERVERS_VERSION: u32 = 1;

/// The folder of a fleet, on its hub.
#[derive(Clone, Debug)]
pub struct FleetFolder {
    path: PathBuf,
    keys: Arc<FleetKeys>,
}

/// The file of the addresses.
#[derive(Serialize, Deserialize)]
struct Servers {
    version: u32,
    servers: Vec<String>,
}

impl FleetFolder {
    /// The fleet in this folder, or a new one when there is none. Nobody else may make one there meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] when others may read the keys, [`ErrorKind::Internal`] when they are damaged: they are never made anew,
    /// because every node would have to join again.
    pub fn open_or_create(path: &Path, now: Timestamp) -> Result<Self, EdgeError> {
        edgeward_durable::create_private_folder(path).map_err(|error| disk_error("make the folder of the fleet", path, error))?;
        let keys = Arc::new(FleetKeys::open_or_create(&path.join(KEYS), now)?);
        Ok(Self { path: path.to_owned(), keys })
    }

    /// The fleet in this folder, also while its hub runs.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none, and those of [`Self::open_or_create`].
    pub fn open(path: &Path) -> Result<Self, EdgeError> {
        let none = || {
            let message = format!("there is no fleet in `{}`; `edgeward hub` makes it at its first start", path.display());
            EdgeError::new(ErrorKind::NotFound, message)
        };
        let keys = FleetKeys::open(&path.join(KEYS))?.ok_or_else(none)?;
        Ok(Self { path: path.to_owned(), keys: Arc::new(keys) })
    }

    /// Its keys.
    pub fn keys(&self) -> &Arc<FleetKeys> {
        &self.keys
    }

    /// Where its broker keeps its files, see [`crate::nats::BrokerOptions::folder`].
    pub fn broker(&self) -> PathBuf {
        self.path.join("broker")
    }

    pub(super) fn used_tokens(&self) -> PathBuf {
        self.path.join("joins.json")
    }

    /// Keeps the addresses by which members reach the servers, such as `nats://hub.example:4222`, for the join tokens to come.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when one is none, there is none or too many.
    pub fn set_servers(&self, servers: &[String]) -> Result<(), EdgeError> {
        join_token::check(servers)?;
        secret_file::write(&self.path.join(SERVERS), SERVERS_WHAT, &Servers { version: SERVERS_VERSION, servers: servers.to_vec() })
    }

    /// A join token for the addresses that were set, or for these when there are some. It needs nobody to run: what it says is signed by
    /// the fleet's keys. It lives at most [`edgeward_model::limits::JOIN_TOKEN_TTL_MAX`]. With a node, only that one may join by it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when no address is known, one is none, there are too many, or the life is too long.
    pub fn join_token(&self, servers: Vec<String>, node: Option<NodeId>, ttl: Duration, now: Timestamp) -> Result<JoinToken, EdgeError> {
        let servers = if servers.is_empty() {
            let kept: Option<Servers> = secret_file::read(&self.path.join(SERVERS), SERVERS_WHAT, SERVERS_VERSION)?;
            kept.map(|kept| kept.servers).unwrap_or_default()
        } else {
            servers
        };
        JoinToken::new(&self.keys, servers, node, ttl, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_without_a_hub_for_the_addresses_that_it_left_or_others() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (path, ttl, now) = (folder.path().join("fleet"), Duration::from_mins(5), Timestamp::UNIX_EPOCH);
        assert_eq!(FleetFolder::open(&path).expect_err("none").kind(), ErrorKind::NotFound);
        let made = FleetFolder::open_or_create(&path, now).expect("made");
        assert_eq!(made.join_token(Vec::new(), None, ttl, now).expect_err("no address").kind(), ErrorKind::InvalidInput);
        let addresses = vec!["nats://hub.example:4222".to_owned()];
        made.set_servers(&addresses).expect("kept");
        assert!(made.set_servers(&[]).is_err());
        let again = FleetFolder::open(&path).expect("there");
        let token = again.join_token(Vec::new(), None, ttl, now).expect("made");
        assert_eq!((token.servers(), token.authority()), (&addresses[..], made.keys().fingerprint()));
        let elsewhere = vec!["nats://10.0.0.5:4222".to_owned()];
        assert_eq!(again.join_token(elsewhere.clone(), None, ttl, now).expect("made").servers(), elsewhere);
    }
}
