//! Who may do what over NATS: the hub signs for each member which subjects are its own, and the servers hold everybody to it.

use std::{collections::BTreeMap, fmt};

use edgeward_model::{EdgeError, ErrorKind, NodeId, limits::REQUEST_TIMEOUT_MAX};
use jiff::Timestamp;
use nkeys::{KeyPair, KeyPairType};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    nats::{
        Credentials,
        join_token::JOIN,
        jwt::{self, About, Claims},
        lease,
        presence::PRESENCE,
        renewal::RENEW,
        topic_stream,
    },
    subject::{Name, Subject, node_token},
};

/// Subscriptions of who asks one question: its inbox.
const ERRAND_SUBSCRIPTIONS_MAX: u32 = 4;

/// Keys whose tokens were revoked, with the time up to which they were.
pub type Revoked = BTreeMap<String, Timestamp>;

/// The keys that sign for a fleet. Whoever has them is the fleet: they stay on the hub.
pub struct Authority {
    operator: KeyPair,
    account: KeyPair,
    system: KeyPair,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({})", self.operator.public_key())
    }
}

/// The secrets of an [`Authority`], to be kept in a file that only the hub's user reads.
#[derive(Clone, Serialize, Deserialize)]
pub struct Seeds {
    /// Signs for the accounts.
    pub operator: String,
    /// Signs for members.
    pub account: String,
    /// Signs for who tells servers about revocations.
    pub system: String,
}

impl fmt::Debug for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seeds(secret)")
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// New keys.
    pub fn new() -> Self {
        Self { operator: KeyPair::new_operator(), account: KeyPair::new_account(), system: KeyPair::new_account() }
    }

    /// The keys of these seeds.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when one is not a seed of its kind.
    pub fn from_seeds(seeds: &Seeds) -> Result<Self, EdgeError> {
        let key = |what: &str, seed: &str, kind| {
            let invalid = || EdgeError::invalid(format!("the seed of the {what} is not valid"));
            let key = KeyPair::from_seed(seed).map_err(|error| invalid().with_source(error))?;
            if key.key_pair_type() == kind { Ok(key) } else { Err(invalid()) }
        };
        Ok(Self {
            operator: key("operator", &seeds.operator, KeyPairType::Operator)?,
            account: key("account", &seeds.account, KeyPairType::Account)?,
            system: key("system account", &seeds.system, KeyPairType::Account)?,
        })
    }

    /// The seeds of its keys.
    pub fn seeds(&self) -> Result<Seeds, EdgeError> {
        let seed =
            |key: &KeyPair| key.seed().map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to read a key").with_source(error));
        Ok(Seeds { operator: seed(&self.operator)?, account: seed(&self.account)?, system: seed(&self.system)? })
    }

    /// What a node may do until `expires_at`, as a token for its public key (`U…`): send to the hub under its own id, receive what is for its
    /// id, and answer what it received. Nothing of JetStream: a consumer could deliver to another node's subjects.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the key is none of a user.
    pub fn node(&self, node: &NodeId, public_key: &str, expires_at: Timestamp, now: Timestamp) -> Result<String, EdgeError> {
        let token = node_token(node);
        let send = vec![format!("rpc.hub.{token}.>")];
        let receive = vec![format!("rpc.node.{token}.>"), format!("_INBOX_{token}.>")];
        self.member(node, public_key, Some(expires_at), now, &user(&send, &receive))
    }

    /// What a hub may do until `expires_at`: what its own node may, receive from every node, send to every node, keep the lease and the topics.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the key is none of a user.
    pub fn hub(&self, hub: &NodeId, public_key: &str, expires_at: Timestamp, now: Timestamp) -> Result<String, EdgeError> {
        let token = node_token(hub);
        let mut send = vec![format!("rpc.hub.{token}.>"), "rpc.node.>".to_owned()];
        send.extend(lease::SUBJECTS.map(str::to_owned));
        send.push(topic_stream::SUBJECTS.to_owned());
        let receive = vec!["rpc.hub.>".to_owned(), format!("rpc.node.{token}.>"), format!("_INBOX_{token}.>")];
        self.member(hub, public_key, Some(expires_at), now, &user(&send, &receive))
    }

    /// What a node may do for ever with the same key: ask for a token to work with, ask whether it may work, and nothing else.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the key is none of a user.
    pub fn renewal(&self, node: &NodeId, public_key: &str, now: Timestamp) -> Result<String, EdgeError> {
        self.member(node, public_key, None, now, &errand(node, &[RENEW, PRESENCE], &[]))
    }

    /// What who holds a join token may do: ask to join, by [`JOIN`]. `tags` say what the hub is to know about the token.
    pub(super) fn joiner(&self, id: &NodeId, key: &str, tags: &[String], ends_at: Timestamp, now: Timestamp) -> Result<String, EdgeError> {
        self.member(id, key, Some(ends_at), now, &errand(id, &[JOIN], tags))
    }

    /// What a token says that is one of a member of this fleet.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] when it is not.
    pub(super) fn verify(&self, token: &str) -> Result<Claims, EdgeError> {
        Claims::verify(token, &self.account)
    }

    fn member(&self, member: &NodeId, key: &str, expires_at: Option<Timestamp>, now: Timestamp, nats: &Value) -> Result<String, EdgeError> {
        let is_user = KeyPair::from_public_key(key).is_ok_and(|key| key.key_pair_type() == KeyPairType::User);
        if !is_user {
            return Err(EdgeError::invalid(format!("the public key of `{member}` is not that of a user")));
        }
        let about = About { name: member.as_str(), subject: key, expires_at };
        jwt::sign(&self.account, about, now, nats)
    }

    /// The credentials of who tells servers about revocations, until `expires_at`. They are made anew each time.
    pub fn system_user(&self, expires_at: Timestamp, now: Timestamp) -> Result<Credentials, EdgeError> {
        let key = KeyPair::new_user();
        let about = About { name: "edgeward-system", subject: &key.public_key(), expires_at: Some(expires_at) };
        let nats = user(&["$SYS.REQ.CLAIMS.UPDATE".to_owned()], &["_INBOX_>".to_owned(), "_INBOX.>".to_owned()]);
        let token = jwt::sign(&self.system, about, now, &nats)?;
        let seed = key.seed().map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to read a key").with_source(error))?;
        Credentials::new(&seed, token)
    }

    /// The token of the fleet's account, which servers are told. Every token that was signed for a revoked key up to its time is refused;
    /// one that is signed later is not: the hub must not sign for who was removed.
    pub fn account_token(&self, revoked: &Revoked, now: Timestamp) -> Result<String, EdgeError> {
        let revocations: BTreeMap<_, _> = revoked.iter().map(|(key, until)| (key, until.as_second())).collect();
        let about = About { name: "edgeward", subject: &self.account_key(), expires_at: None };
        let nats = json!({ "type": "account", "version": 2, "limits": limits(true), "revocations": revocations });
        jwt::sign(&self.operator, about, now, &nats)
    }

    pub(super) fn account_key(&self) -> String {
        self.account.public_key()
    }

    pub(super) fn system_key(&self) -> String {
        self.system.public_key()
    }

    pub(super) fn operator_token(&self, now: Timestamp) -> Result<String, EdgeError> {
        let about = About { name: "edgeward", subject: &self.operator.public_key(), expires_at: None };
        jwt::sign(&self.operator, about, now, &json!({ "type": "operator", "version": 2, "system_account": self.system_key() }))
    }

    pub(super) fn system_token(&self, now: Timestamp) -> Result<String, EdgeError> {
        let about = About { name: "edgeward-system", subject: &self.system_key(), expires_at: None };
        jwt::sign(&self.operator, about, now, &json!({ "type": "account", "version": 2, "limits": limits(false) }))
    }
}

/// What a user may send and receive; to what it received it may answer once, as long as anybody waits for an answer.
fn user(send: &[String], receive: &[String]) -> Value {
    let answer_nanos = u64::try_from(REQUEST_TIMEOUT_MAX.as_nanos()).expect("an hour");
    json!({
        "type": "user",
        "version": 2,
        "pub": { "allow": send },
        "sub": { "allow": receive },
        "resp": { "max": 1, "ttl": answer_nanos },
        "subs": -1,
        "data": -1,
        "payload": -1,
        "allowed_connection_types": ["STANDARD"],
    })
}

/// What a user may do that only asks these questions.
fn errand(asks_as: &NodeId, services: &[Name], tags: &[String]) -> Value {
    let inbox = format!("_INBOX_{}.>", node_token(asks_as));
    let questions: Vec<_> = services.iter().map(|service| Subject::to_hub(asks_as.clone(), *service).to_string()).collect();
    json!({
        "type": "user",
        "version": 2,
        "tags": tags,
        "pub": { "allow": questions },
        "sub": { "allow": [inbox] },
        "subs": ERRAND_SUBSCRIPTIONS_MAX,
        "data": -1,
        "payload": -1,
        "allowed_connection_types": ["STANDARD"],
    })
}

/// Limits of an account: none, and JetStream for the fleet's own.
fn limits(has_jetstream: bool) -> Value {
    let mut limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
    });
    if has_jetstream {
        for what in ["mem_storage", "disk_storage", "streams", "consumer"] {
            limits[what] = (-1).into();
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seeds_are_the_same_authority_and_are_not_shown() {
        let authority = Authority::new();
        let seeds = authority.seeds().expect("it has them");
        let again = Authority::from_seeds(&seeds).expect("they are valid");
        assert_eq!(format!("{again:?}"), format!("{authority:?}"));
        assert_eq!(format!("{seeds:?}"), "Seeds(secret)");
        assert!(!format!("{again:?}").contains(&seeds.operator));
        let swapped = Seeds { operator: seeds.account.clone(), ..seeds };
        assert!(Authority::from_seeds(&swapped).is_err());
    }

    #[test]
    fn only_a_key_of_a_user_is_signed_for() {
        let (authority, now, node) = (Authority::new(), Timestamp::UNIX_EPOCH, NodeId::new("edge-1").expect("valid"));
        for key in [KeyPair::new_account().public_key(), "U".to_owned(), String::new(), KeyPair::new_user().seed().expect("it has one")] {
            assert_eq!(authority.node(&node, &key, now, now).expect_err(&key).kind(), ErrorKind::InvalidInput);
            assert!(authority.hub(&node, &key, now, now).is_err());
        }
        authority.node(&node, &KeyPair::new_user().public_key(), now, now).expect("a user's");
    }
}
