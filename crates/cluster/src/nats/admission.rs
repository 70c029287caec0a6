//! How a node becomes a member: what it asks, and how the hub judges and answers that. Nothing here is sent or kept.
//!
//! Whoever asks shows two things: that it holds a join token, because NATS lets nobody else send under its id, and that it holds the key
//! that is to be the node's, by a signature. That a token is used once is up to the hub's record of its uses.

use std::{fmt, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use edgeward_model::{
    EdgeError, ErrorKind, NodeId,
    limits::{CREDENTIALS_TTL_DEFAULT, CREDENTIALS_TTL_MAX, CREDENTIALS_TTL_MIN},
};
use jiff::Timestamp;
use nkeys::{KeyPair, KeyPairType};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::nats::{
    authority::Authority,
    fleet_keys::FleetKeys,
    join_token::{self, JoinToken},
};

/// The newest version of requests and answers that this release speaks.
pub(super) const VERSION: u32 = 1;

/// How long working tokens live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialsTtl(Duration);

impl CredentialsTtl {
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is out of bounds.
    pub fn new(ttl: Duration) -> Result<Self, EdgeError> {
        if (CREDENTIALS_TTL_MIN..=CREDENTIALS_TTL_MAX).contains(&ttl) {
            return Ok(Self(ttl));
        }
        let (min, max) = (CREDENTIALS_TTL_MIN.as_secs(), CREDENTIALS_TTL_MAX.as_secs());
        Err(EdgeError::invalid(format!("credentials live {min} to {max} seconds, not {}", ttl.as_secs())))
    }

    /// When credentials end that are signed now.
    pub(super) fn ends_at(self, now: Timestamp) -> Result<Timestamp, EdgeError> {
        now.saturating_add(self.0).map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to read the clock").with_source(error))
    }
}

impl Default for CredentialsTtl {
    fn default() -> Self {
        Self(CREDENTIALS_TTL_DEFAULT)
    }
}

/// What a node asks that wants to join.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct JoinRequest {
    /// The newest version that the node speaks.
    pub(super) version: u32,
    /// NATS's token of the join token, which is no secret without its key.
    pub(super) token: String,
    /// The id that it wants.
    pub(super) node: NodeId,
    /// Its public key, that of a user of NATS.
    pub(super) public_key: String,
    /// Its signature of what it asks, as unpadded base64url.
    pub(super) signature: String,
    /// What else the hub is to know of it.
    #[serde(default)]
    pub(super) description: Value,
}

/// What the hub answers to a node that joined.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct JoinAnswer {
    /// The version of this answer, at most that of the request.
    pub(super) version: u32,
    /// The token by which the node gets its later working tokens, for as long as it belongs to the fleet.
    pub(super) renewal: String,
    /// Its first token to work with.
    pub(super) working: String,
    /// Certificate of the authority of the servers, PEM.
    pub(super) ca_certificate: String,
    /// Where the servers are, when they are not where the join token says.
    #[serde(default)]
    pub(super) servers: Vec<String>,
}

impl fmt::Debug for JoinAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinAnswer")
    }
}

/// Who asks to join, and has proved that it holds a join token and its own key.
#[derive(Clone, Debug, PartialEq)]
pub struct Applicant {
    /// The id of its join token.
    pub join_id: NodeId,
    /// When that ends; its record may be forgotten then.
    pub token_ends_at: Timestamp,
    /// Whether the token was made for this node, rather than for any.
    pub is_expected: bool,
    /// The id that it wants.
    pub node: NodeId,
    /// Its public key, to be recorded with the node: later tokens are for this key only.
    pub public_key: String,
    /// What else it said of itself, unchecked.
    pub description: Value,
}

impl JoinRequest {
    /// What the holder of this key asks.
    pub(super) fn new(token: &JoinToken, node: NodeId, key: &KeyPair, description: Value) -> Result<Self, EdgeError> {
        let public_key = key.public_key();
        let signature = key
            .sign(signed(token.id(), &node, &public_key).as_bytes())
            .map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to sign the request to join").with_source(error))?;
        let signature = URL_SAFE_NO_PAD.encode(signature);
        Ok(Self { version: VERSION, token: token.token().to_owned(), node, public_key, signature, description })
    }

    /// The request that is the payload of a message.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when it is none.
    pub(super) fn read(payload: &[u8]) -> Result<Self, EdgeError> {
        serde_json::from_slice(payload).map_err(|error| EdgeError::invalid("the request to join is not valid").with_source(error))
    }

    /// Who may join by it that asked under this id, which NATS lets only the holder of its token use.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] when its token is not one of this fleet, is another's, has ended, or is for another node, and when the key
    /// is not proved; [`ErrorKind::InvalidInput`] when the key is none.
    pub(super) fn verify(self, asked_as: &NodeId, authority: &Authority, now: Timestamp) -> Result<Applicant, EdgeError> {
        let refused = |why: &str| EdgeError::new(ErrorKind::Forbidden, format!("the node `{}` may not join: {why}", self.node));
        let claims = authority.verify(&self.token).map_err(|_error| refused("its join token is not of this fleet"))?;
        let (join_id, only, token_ends_at) = join_token::read_claims(&claims).ok_or_else(|| refused("its token is not one to join by"))?;
        if join_id != *asked_as {
            return Err(refused("its join token is another's"));
        }
        if now >= token_ends_at {
            return Err(refused("its join token has ended; make a new one with `edgeward join-token`"));
        }
        if only.as_ref().is_some_and(|only| *only != self.node) {
            return Err(refused("its join token is for another node"));
        }
        if self.public_key == claims.sub {
            return Err(refused("its key is that of the join token, which others have seen"));
        }
        let invalid = || EdgeError::invalid(format!("the public key of the node `{}` is not valid", self.node));
        let key = KeyPair::from_public_key(&self.public_key).map_err(|error| invalid().with_source(error))?;
        if key.key_pair_type() != KeyPairType::User {
            return Err(invalid());
        }
        let signed = signed(&join_id, &self.node, &self.public_key);
        let is_proved = URL_SAFE_NO_PAD.decode(&self.signature).is_ok_and(|signature| key.verify(signed.as_bytes(), &signature).is_ok());
        if !is_proved {
            return Err(refused("it does not prove that it holds its key"));
        }
        let Self { node, public_key, description, .. } = self;
        Ok(Applicant { join_id, token_ends_at, is_expected: only.is_some(), node, public_key, description })
    }
}

/// What a node signs: that it asks by this token, under this id, with this key.
fn signed(join_id: &NodeId, node: &NodeId, public_key: &str) -> String {
    format!("edgeward-join-1\n{join_id}\n{node}\n{public_key}")
}

impl Applicant {
    /// The answer that makes it a member.
    pub(super) fn admit(&self, keys: &FleetKeys, ttl: CredentialsTtl, now: Timestamp) -> Result<JoinAnswer, EdgeError> {
        let authority = keys.authority();
        Ok(JoinAnswer {
            version: VERSION,
            renewal: authority.renewal(&self.node, &self.public_key, now)?,
            working: authority.node(&self.node, &self.public_key, ttl.ends_at(now)?, now)?,
            ca_certificate: keys.certificates().certificate().to_owned(),
            servers: Vec::new(),
        })
    }
}

impl JoinAnswer {
    /// The payload of a message.
    pub(super) fn to_payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts are JSON")
    }

    pub(super) fn read(payload: &[u8]) -> Result<Self, EdgeError> {
        let invalid =
            |error| EdgeError::new(ErrorKind::Internal, "the hub's answer to the request to join is not valid").with_source(error);
        serde_json::from_slice(payload).map_err(invalid)
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    struct Fleet {
        keys: FleetKeys,
        token: JoinToken,
        key: KeyPair,
        edge: NodeId,
    }

    impl Fleet {
        fn new(only: Option<&str>) -> Self {
            let keys = FleetKeys::new(NOW).expect("made");
            let only = only.map(|id| NodeId::new(id).expect(id));
            let token = JoinToken::new(&keys, vec!["nats://a:1".to_owned()], only, Duration::from_mins(5), NOW).expect("made");
            Self { keys, token, key: KeyPair::new_user(), edge: NodeId::new("edge-1").expect("valid") }
        }

        fn request(&self) -> JoinRequest {
            JoinRequest::new(&self.token, self.edge.clone(), &self.key, "x".into()).expect("signed")
        }

        fn refused(&self, request: JoinRequest) -> ErrorKind {
            request.verify(self.token.id(), self.keys.authority(), NOW).expect_err("refused").kind()
        }
    }

    #[test]
    fn who_holds_a_token_and_its_own_key_is_admitted_as_often_as_it_asks() {
        let fleet = Fleet::new(Some("edge-1"));
        let payload = serde_json::to_vec(&fleet.request()).expect("JSON");
        let read = || JoinRequest::read(&payload).expect("valid").verify(fleet.token.id(), fleet.keys.authority(), NOW).expect("good");
        let applicant = read();
        assert_eq!((&applicant.join_id, &applicant.node, applicant.is_expected), (fleet.token.id(), &fleet.edge, true));
        assert_eq!((&applicant.public_key, &applicant.description), (&fleet.key.public_key(), &Value::from("x")));
        assert_eq!((applicant.token_ends_at, &read()), (fleet.token.ends_at(), &applicant));
        let answer = applicant.admit(&fleet.keys, CredentialsTtl::default(), NOW).expect("signed");
        let answer = JoinAnswer::read(&answer.to_payload()).expect("its own");
        let (renewal, working) =
            [&answer.renewal, &answer.working].map(|token| fleet.keys.authority().verify(token).expect("signed")).into();
        assert_eq!((renewal.ends_at(), working.life()), (None, Some(CREDENTIALS_TTL_DEFAULT)));
        assert!(renewal.sub == applicant.public_key && working.sub == applicant.public_key);
    }

    #[test]
    fn nobody_joins_with_a_key_that_it_does_not_hold() {
        let fleet = Fleet::new(None);
        let another = KeyPair::new_user();
        assert_eq!(fleet.refused(JoinRequest { public_key: another.public_key(), ..fleet.request() }), ErrorKind::Forbidden);
        assert_eq!(fleet.refused(JoinRequest { node: NodeId::new("edge-2").expect("valid"), ..fleet.request() }), ErrorKind::Forbidden);
        assert_eq!(fleet.refused(JoinRequest { signature: String::new(), ..fleet.request() }), ErrorKind::Forbidden);
        assert_eq!(fleet.refused(JoinRequest { public_key: "U".to_owned(), ..fleet.request() }), ErrorKind::InvalidInput);
        let account = KeyPair::new_account();
        let request = JoinRequest::new(&fleet.token, fleet.edge.clone(), &account, Value::Null).expect("signed");
        assert_eq!(fleet.refused(request), ErrorKind::InvalidInput);
        let text = fleet.token.credentials().expect("valid");
        let request = JoinRequest::new(&fleet.token, fleet.edge.clone(), text.key(), Value::Null).expect("signed");
        assert_eq!(fleet.refused(request), ErrorKind::Forbidden, "the token's own key");
    }

    #[test]
    fn a_token_of_another_fleet_id_node_or_time_admits_nobody() {
        let fleet = Fleet::new(Some("edge-1"));
        let other = Fleet::new(Some("edge-1"));
        assert_eq!(fleet.refused(other.request()), ErrorKind::Forbidden);
        let mixed = JoinRequest { token: other.token.token().to_owned(), ..fleet.request() };
        assert_eq!(fleet.refused(mixed), ErrorKind::Forbidden);
        let judge = |as_id: &NodeId, now| fleet.request().verify(as_id, fleet.keys.authority(), now).map(|_| ());
        judge(fleet.token.id(), NOW + SignedDuration::from_mins(4)).expect("good");
        assert!(judge(fleet.token.id(), fleet.token.ends_at()).expect_err("ended").to_string().contains("ended"));
        assert!(judge(&fleet.edge, NOW).expect_err("another's").to_string().contains("another's"));
        let fleet = Fleet::new(Some("edge-2"));
        assert_eq!(fleet.refused(fleet.request()), ErrorKind::Forbidden);
    }

    #[test]
    fn a_token_that_a_member_works_with_is_none_to_join_by() {
        let fleet = Fleet::new(None);
        let member = KeyPair::new_user();
        let ends_at = NOW + SignedDuration::from_mins(5);
        let token = fleet.keys.authority().node(fleet.token.id(), &member.public_key(), ends_at, NOW).expect("signed");
        assert_eq!(fleet.refused(JoinRequest { token, ..fleet.request() }), ErrorKind::Forbidden);
    }

    #[test]
    fn the_life_of_credentials_is_bounded() {
        for ttl in [CREDENTIALS_TTL_MIN, CREDENTIALS_TTL_MAX] {
            assert_eq!(
                CredentialsTtl::new(ttl).expect("in bounds").ends_at(NOW).expect("a time"),
                NOW + SignedDuration::try_from(ttl).expect("short")
            );
        }
        assert!(CredentialsTtl::new(CREDENTIALS_TTL_MIN / 2).is_err() && CredentialsTtl::new(CREDENTIALS_TTL_MAX * 2).is_err());
    }
}
