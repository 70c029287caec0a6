//! Tells the servers of a fleet whose tokens are revoked: they end those connections at once.

use std::time::Duration;

use edgeward_model::{EdgeError, ErrorKind, limits::SEND_TIMEOUT};
use jiff::Timestamp;
use serde_json::Value;

use crate::nats::{
    NatsOptions,
    authority::{Authority, Revoked},
};

const UPDATE: &str = "$SYS.REQ.CLAIMS.UPDATE";
/// How long the token lives that is used for this once.
const SYSTEM_TOKEN_TTL: Duration = Duration::from_mins(2);

impl Authority {
    /// Tells a server, and by it all servers of its cluster, whose tokens are revoked. `options` says where they are; its credentials
    /// are not used.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when there is no server, or none took it: then nothing is known to be revoked.
    pub async fn revoke(&self, options: &NatsOptions, revoked: &Revoked, now: Timestamp) -> Result<(), EdgeError> {
        let servers = options.servers()?;
        let failed = || EdgeError::new(ErrorKind::Unavailable, "failed to tell the NATS server about revoked credentials");
        let system = self.system_user(now.saturating_add(SYSTEM_TOKEN_TTL).map_err(|error| failed().with_source(error))?, now)?;
        let connecting = options.tls.apply(system.apply()).request_timeout(Some(SEND_TIMEOUT)).connect(servers);
        let client = connecting.await.map_err(|error| failed().with_source(error))?;
        let answer = client.request(UPDATE, self.account_token(revoked, now)?.into()).await.map_err(|error| failed().with_source(error))?;
        let answer: Value = serde_json::from_slice(&answer.payload).map_err(|error| failed().with_source(error))?;
        if answer["data"]["code"] == 200 { Ok(()) } else { Err(failed().with_source(answer.to_string())) }
    }
}
