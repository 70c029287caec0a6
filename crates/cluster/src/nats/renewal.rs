//! How a member gets its next working token: it asks the hub, which signs for the key that it has recorded, and for nobody it removed.

use std::fmt;

use edgeward_model::{EdgeError, ErrorKind, NodeId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    nats::{
        admission::{CredentialsTtl, VERSION},
        authority::Authority,
    },
    subject::Name,
};

/// The service of the hub that gives members their next working token.
pub(super) const RENEW: Name = Name::new("renew");

/// What a node asks. That it holds its key is what NATS verified when it connected.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RenewRequest {
    /// The newest version that the node speaks.
    pub(super) version: u32,
    /// The key that it connected with.
    pub(super) public_key: String,
}

/// What the hub answers. An error of the kind [`ErrorKind::Forbidden`] in its place says that the node was removed.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct RenewAnswer {
    /// The version of this answer, at most that of the request.
    pub(super) version: u32,
    /// The next token to work with.
    pub(super) working: String,
}

impl fmt::Debug for RenewAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RenewAnswer")
    }
}

impl RenewRequest {
    pub(super) fn new(public_key: String) -> Self {
        Self { version: VERSION, public_key }
    }

    pub(super) fn to_payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts are JSON")
    }

    /// The request that is the payload of a message.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is none.
    pub(super) fn read(payload: &[u8]) -> Result<Self, EdgeError> {
        serde_json::from_slice(payload).map_err(|error| EdgeError::invalid("the request to renew is not valid").with_source(error))
    }

    /// The answer to the node of this id. `recorded_key` is the key that it joined with, none when it was removed.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] when it was removed, or joined again with another key.
    pub(super) fn answer(
        &self,
        node: &NodeId,
        recorded_key: Option<&str>,
        authority: &Authority,
        ttl: CredentialsTtl,
        now: Timestamp,
    ) -> Result<RenewAnswer, EdgeError> {
        let refused = |why| EdgeError::new(ErrorKind::Forbidden, format!("the node `{node}` {why}"));
        let key = recorded_key.ok_or_else(|| refused("was removed from the fleet"))?;
        if key != self.public_key {
            return Err(refused("joined again with another key, so this one is no longer its own"));
        }
        Ok(RenewAnswer { version: VERSION, working: authority.node(node, key, ttl.ends_at(now)?, now)? })
    }
}

impl RenewAnswer {
    /// The payload of a message.
    pub(super) fn to_payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts are JSON")
    }

    pub(super) fn read(payload: &[u8]) -> Result<Self, EdgeError> {
        let invalid =
            |error| EdgeError::new(ErrorKind::Internal, "the hub's answer to the request to renew is not valid").with_source(error);
        serde_json::from_slice(payload).map_err(invalid)
    }
}

#[cfg(test)]
mod tests {
    use nkeys::KeyPair;

    use super::*;

    #[test]
    fn a_token_is_signed_for_the_recorded_key_only_and_for_nobody_who_was_removed() {
        let (authority, node, now) = (Authority::new(), NodeId::new("edge-1").expect("valid"), Timestamp::UNIX_EPOCH);
        let (key, other) = (KeyPair::new_user().public_key(), KeyPair::new_user().public_key());
        let request = RenewRequest::read(&RenewRequest::new(key.clone()).to_payload()).expect("its own");
        let ask = |recorded| request.answer(&node, recorded, &authority, CredentialsTtl::default(), now);
        let answer = RenewAnswer::read(&ask(Some(key.as_str())).expect("signed").to_payload()).expect("its own");
        let claims = authority.verify(&answer.working).expect("signed");
        assert_eq!((&claims.sub, claims.name.as_str()), (&key, "edge-1"));
        for (recorded, why) in [(None, "was removed"), (Some(other.as_str()), "another key")] {
            let error = ask(recorded).expect_err(why);
            assert!(error.kind() == ErrorKind::Forbidden && error.to_string().contains(why), "{error}");
        }
        RenewRequest::read(br#"{"version": 2, "public_key": "U", "later": true}"#).expect("what is unknown is ignored");
        assert!(RenewRequest::read(b"{}").is_err() && RenewAnswer::read(b"").is_err());
    }
}
