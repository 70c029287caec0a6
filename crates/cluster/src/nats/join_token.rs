//! What an operator gives a machine that is to join: where the fleet is, how to know it, and the right to ask once.
//!
//! It is one line of text, and a secret until it ends or was used.

use std::{fmt, str::FromStr, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use data_encoding::BASE32_NOPAD;
use edgeward_model::{
    EdgeError, ErrorKind, NodeId,
    limits::{JOIN_TOKEN_BYTES_MAX, JOIN_TOKEN_TTL_MAX, SERVERS_MAX},
};
use jiff::Timestamp;
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};

use crate::{
    nats::{
        Credentials,
        fingerprint::Fingerprint,
        fleet_keys::FleetKeys,
        jwt::Claims,
        options::{self, Tls},
    },
    subject::Name,
};

/// The service of the hub that lets nodes join. Its requests come under the id of a join token in place of a node's.
pub(super) const JOIN: Name = Name::new("join");

/// How the text begins.
const PREFIX: &str = "edgeward-join-";
/// How the ids begin.
const ID_PREFIX: &str = "join-";
/// The tag of NATS's tokens that are part of a join token.
const TAG: &str = "edgeward-join";
/// The tag that says which node may join by it, before the id.
const NODE_TAG: &str = "edgeward-node:";
const VERSION: u32 = 1;

/// The right to ask, once, to become a member of a fleet.
#[derive(Clone)]
pub struct JoinToken {
    id: NodeId,
    ends_at: Timestamp,
    node: Option<NodeId>,
    text: Text,
}

/// What the text says, as JSON. What NATS's token says is not repeated.
#[derive(Clone, Serialize, Deserialize)]
struct Text {
    version: u32,
    servers: Vec<String>,
    /// Of the authority of the servers' certificates.
    authority: Fingerprint,
    /// Of the key that the token is about.
    seed: String,
    token: String,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}

impl JoinToken {
    /// A token for a fleet whose members reach these servers, such as `nats://10.0.0.5:4222`. It lives at most [`JOIN_TOKEN_TTL_MAX`]. With
    /// a node, only that one may join by it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when a server is none, there is none or too many, or the life is too long.
    pub(super) fn new(
        keys: &FleetKeys,
        servers: Vec<String>,
        node: Option<NodeId>,
        ttl: Duration,
        now: Timestamp,
    ) -> Result<Self, EdgeError> {
        check(&servers)?;
        if ttl.is_zero() || ttl > JOIN_TOKEN_TTL_MAX {
            let minutes = JOIN_TOKEN_TTL_MAX.as_secs() / 60;
            return Err(EdgeError::invalid(format!("a join token lives at most {minutes} minutes, not {} seconds", ttl.as_secs())));
        }
        let failed = || EdgeError::new(ErrorKind::Internal, "failed to make a join token");
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| failed().with_source(error))?;
        let id = NodeId::new(format!("{ID_PREFIX}{}", BASE32_NOPAD.encode(&random).to_lowercase()))?;
        let ends_at = now.saturating_add(ttl).map_err(|error| failed().with_source(error))?;
        let mut tags = vec![TAG.to_owned()];
        tags.extend(node.as_ref().map(|node| format!("{NODE_TAG}{node}")));
        let key = KeyPair::new_user();
        let token = keys.authority().joiner(&id, &key.public_key(), &tags, ends_at, now)?;
        let seed = key.seed().map_err(|error| failed().with_source(error))?;
        Ok(Self { id, ends_at, node, text: Text { version: VERSION, servers, authority: keys.fingerprint(), seed, token } })
    }

    /// The text that [`FromStr`] reads. It is a secret.
    pub fn text(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(serde_json::to_vec(&self.text).expect("texts and numbers are JSON")))
    }

    /// Names it, among all that were ever made.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// When it ends.
    pub fn ends_at(&self) -> Timestamp {
        self.ends_at
    }

    /// The only node that may join by it; none when any may.
    pub fn node(&self) -> Option<&NodeId> {
        self.node.as_ref()
    }

    /// Where the fleet is.
    pub fn servers(&self) -> &[String] {
        &self.text.servers
    }

    /// Of the authority of the servers' certificates.
    pub fn authority(&self) -> Fingerprint {
        self.text.authority
    }

    /// Refuses what could not work, without asking anybody.
    pub(super) fn check_use(&self, node: &NodeId, now: Timestamp) -> Result<(), EdgeError> {
        if let Some(only) = self.node.as_ref().filter(|only| *only != node) {
            return Err(EdgeError::new(ErrorKind::Forbidden, format!("the join token is for the node `{only}`, not for `{node}`")));
        }
        if now >= self.ends_at {
            let message = format!(
                "the join token ended at {}, and it is {} here; make a new one with `edgeward join-token`, or set the clock of this machine",
                shown(self.ends_at),
                shown(now)
            );
            return Err(EdgeError::new(ErrorKind::Forbidden, message));
        }
        Ok(())
    }

    pub(super) fn credentials(&self) -> Result<Credentials, EdgeError> {
        Credentials::new(&self.text.seed, self.text.token.clone())
    }

    pub(super) fn tls(&self) -> Tls {
        Tls::Authority(self.text.authority)
    }

    /// NATS's own token in it, which is no secret.
    pub(super) fn token(&self) -> &str {
        &self.text.token
    }
}

/// What NATS's token says that is part of a join token: the id, the only node that may join by it, and when it ends. None when it is
/// not part of one.
pub(super) fn read_claims(claims: &Claims) -> Option<(NodeId, Option<NodeId>, Timestamp)> {
    let id = NodeId::new(&claims.name).ok()?;
    let node = claims.tagged(NODE_TAG).map(NodeId::new).transpose().ok()?;
    claims.has_tag(TAG).then_some((id, node, claims.ends_at()?))
}

pub(super) fn check(servers: &[String]) -> Result<(), EdgeError> {
    if servers.len() > SERVERS_MAX {
        return Err(EdgeError::invalid(format!("{} addresses of servers are too many, the most is {SERVERS_MAX}", servers.len())));
    }
    options::parse(servers).map(|_| ())
}

/// A time for people, to the second.
fn shown(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

impl FromStr for JoinToken {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        let text = text.trim();
        let Some(encoded) = text.strip_prefix(PREFIX) else {
            return Err(EdgeError::invalid(format!(
                "this is no join token: it must begin with `{PREFIX}`, as `edgeward join-token` prints it"
            )));
        };
        if text.len() > JOIN_TOKEN_BYTES_MAX {
            return Err(EdgeError::invalid(format!("the join token is {} bytes long, the most is {JOIN_TOKEN_BYTES_MAX}", text.len())));
        }
        let damaged = || EdgeError::invalid("the join token is damaged: copy all of the line that `edgeward join-token` printed");
        let json = URL_SAFE_NO_PAD.decode(encoded).map_err(|error| damaged().with_source(error))?;
        let read: Text = serde_json::from_slice(&json).map_err(|error| damaged().with_source(error))?;
        if read.version > VERSION {
            return Err(EdgeError::invalid("the join token is of a later release; update this machine first"));
        }
        check(&read.servers)?;
        let claims = Claims::read(&read.token).map_err(|error| damaged().with_source(error))?;
        let (id, node, ends_at) = read_claims(&claims).ok_or_else(damaged)?;
        let key = KeyPair::from_seed(&read.seed).map_err(|error| damaged().with_source(error))?;
        if key.public_key() != claims.sub {
            return Err(damaged());
        }
        Ok(Self { id, ends_at, node, text: read })
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    const TTL: Duration = Duration::from_mins(10);

    fn keys() -> FleetKeys {
        FleetKeys::new(Timestamp::UNIX_EPOCH).expect("made")
    }

    fn servers() -> Vec<String> {
        vec!["nats://10.0.0.5:4222".to_owned(), "nats://hub.example:4222".to_owned()]
    }

    #[test]
    fn a_token_is_one_line_that_reads_back_and_shows_no_secret_in_logs() {
        let (keys, node) = (keys(), NodeId::new("edge-1").expect("valid"));
        let token = JoinToken::new(&keys, servers(), Some(node.clone()), TTL, Timestamp::UNIX_EPOCH).expect("made");
        let text = token.text();
        assert!(text.starts_with("edgeward-join-") && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{text}");
        let read: JoinToken = format!(" {text}\n").parse().expect("its own text");
        assert_eq!((read.id(), read.ends_at(), read.node(), read.servers()), (token.id(), token.ends_at(), Some(&node), &servers()[..]));
        assert_eq!(read.authority(), keys.fingerprint());
        assert_eq!(format!("{read:?}"), format!("JoinToken({})", token.id()));
        let other = JoinToken::new(&keys, servers(), None, TTL, Timestamp::UNIX_EPOCH).expect("made");
        assert!(other.id() != token.id() && other.node().is_none());
    }

    #[test]
    fn a_text_that_is_no_token_or_part_of_one_is_refused_with_what_to_do() {
        let text = JoinToken::new(&keys(), servers(), None, TTL, Timestamp::UNIX_EPOCH).expect("made").text();
        for (bad, why) in [
            ("", "must begin with"),
            ("edgeward-join", "must begin with"),
            ("edgeward-join-", "damaged"),
            (&text[..text.len() - 40], "damaged"),
            (&text.replacen("edgeward-join-", "edgeward-join-A", 1), "damaged"),
            (&format!("{PREFIX}{}", "A".repeat(JOIN_TOKEN_BYTES_MAX)), "the most is"),
            (&format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode("{}")), "damaged"),
        ] {
            let error = bad.parse::<JoinToken>().expect_err(bad);
            assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains(why), "{bad}: {error}");
        }
        let json = URL_SAFE_NO_PAD.decode(&text[PREFIX.len()..]).expect("base64");
        let mut later: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
        later["added_later"] = true.into();
        let encode = |json: &serde_json::Value| format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json.to_string()));
        encode(&later).parse::<JoinToken>().expect("what is unknown is ignored");
        later["seed"] = KeyPair::new_user().seed().expect("it has one").into();
        assert!(encode(&later).parse::<JoinToken>().is_err(), "the key is another");
        later["version"] = 2.into();
        assert!(encode(&later).parse::<JoinToken>().expect_err("later").to_string().contains("later release"));
    }

    #[test]
    fn a_token_lives_for_minutes_and_names_real_servers() {
        let make = |servers: Vec<String>, ttl| JoinToken::new(&keys(), servers, None, ttl, Timestamp::UNIX_EPOCH);
        assert!(make(servers(), JOIN_TOKEN_TTL_MAX).is_ok());
        assert!(make(servers(), JOIN_TOKEN_TTL_MAX + Duration::from_secs(1)).is_err() && make(servers(), Duration::ZERO).is_err());
        assert!(make(Vec::new(), TTL).is_err() && make(vec!["nats://[".to_owned()], TTL).is_err());
        assert!(make(vec!["nats://a:1".to_owned(); SERVERS_MAX + 1], TTL).is_err());
    }

    #[test]
    fn one_that_ended_or_is_for_another_node_is_refused_before_anybody_is_asked() {
        let node = NodeId::new("edge-1").expect("valid");
        let token = JoinToken::new(&keys(), servers(), Some(node.clone()), TTL, Timestamp::UNIX_EPOCH).expect("made");
        token.check_use(&node, Timestamp::UNIX_EPOCH).expect("good");
        token.check_use(&node, token.ends_at() - SignedDuration::from_secs(1)).expect("good");
        let ended = token.check_use(&node, token.ends_at()).expect_err("it ended");
        assert!(ended.kind() == ErrorKind::Forbidden && ended.to_string().contains("ended at 1970-01-01 00:10:00 UTC"), "{ended}");
        assert!(token.check_use(&NodeId::new("edge-2").expect("valid"), Timestamp::UNIX_EPOCH).is_err());
    }
}
