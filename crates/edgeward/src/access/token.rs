//! A token: its role, its secret, and its form as a value of a document.
//!
//! A secret is 32 random bytes, so a plain hash keeps it: there is nothing to guess that a slow hash would make dearer, and every
//! call would pay for it.

use std::fmt;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use edgeward_model::{EdgeError, ErrorKind, TokenName, Value, python_json};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::topic_rights::TopicRights;

/// How every secret begins, so that people and scanners know what it is.
const PREFIX: &str = "edgeward_";
/// Random bytes of a secret.
const SECRET_BYTES: usize = 32;

/// What the holder of a token may do; each may also do what those before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Speak on the topics that the token names, over MQTT or HTTP, and nothing else.
    Client,
    /// Look at everything but secrets.
    Viewer,
    /// Deploy, invoke and undeploy functions, and write documents.
    Deployer,
    /// Everything.
    Admin,
}

impl Role {
    /// All roles, the least first.
    pub const ALL: [Self; 4] = [Self::Client, Self::Viewer, Self::Deployer, Self::Admin];

    /// What it allows on topics, where a token names none.
    pub fn topic_rights(self) -> TopicRights {
        let filter = |text: &str| text.parse().expect("it is a filter");
        let mut rights = TopicRights::default();
        if self >= Self::Viewer {
            rights.subscribe.push(filter("#"));
        }
        if self >= Self::Deployer {
            rights.publish.push(filter("#"));
        }
        if self >= Self::Admin {
            rights.subscribe.push(filter("$edgeward/#"));
        }
        rights
    }

    /// The role as one word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Viewer => "viewer",
            Self::Deployer => "deployer",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Role {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or_else(|| {
            EdgeError::invalid(format!("there is no role `{}`; there are client, viewer, deployer and admin", text.escape_debug()))
        })
    }
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Its name, which is no secret.
    pub name: TokenName,
    /// What its holder may do.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is refused, if ever.
    pub expires_at: Option<Timestamp>,
    /// What its holder may do on topics; none: what the role allows.
    pub topics: Option<TopicRights>,
}

/// What the holder of a token shows: `edgeward_` and 43 characters of base64url. It is never written by `Debug`.
pub struct Secret(String);

impl Secret {
    /// A new one.
    pub(super) fn draw() -> Result<Self, EdgeError> {
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to draw a token").with_source(error))?;
        Ok(Self(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))))
    }

    /// The text, for the one to whom it is given.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret([redacted])")
    }
}

/// The BLAKE3 hash of a secret, by which it is known.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    pub(super) fn of(secret: &str) -> Self {
        Self(blake3::hash(secret.as_bytes()).into())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint([redacted])")
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    blake3: String,
    role: Role,
    created_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    expires_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    topics: Option<TopicRights>,
}

impl Token {
    /// Whether it has not expired.
    pub fn is_valid(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }

    /// What its holder may do on topics: what it names, or else what its role allows.
    pub fn topic_rights(&self) -> TopicRights {
        self.topics.clone().unwrap_or_else(|| self.role.topic_rights())
    }

    /// Checks that a client has topics, and not too many.
    pub(super) fn check(&self) -> Result<(), EdgeError> {
        if self.role == Role::Client && self.topics.as_ref().is_none_or(TopicRights::is_empty) {
            let why = format!("token `{}` of the role client must name topics: what it publishes to, or what it follows", self.name);
            return Err(EdgeError::invalid(why));
        }
        self.topics.as_ref().map_or(Ok(()), TopicRights::check)
    }

    /// The token as a value, with the hash of its secret.
    pub(super) fn to_value(&self, secret: &Secret) -> Result<Value, EdgeError> {
        let blake3 = HEXLOWER.encode(&Fingerprint::of(secret.reveal()).0);
        let stored =
            Stored { blake3, role: self.role, created_at: self.created_at, expires_at: self.expires_at, topics: self.topics.clone() };
        python_json::read(&serde_json::to_string(&stored).expect("a token has only text"))
    }

    /// Reads the value of this key. No error repeats what was read.
    pub(super) fn of_value(key: &str, value: &Value) -> Result<(Fingerprint, Self), EdgeError> {
        let damaged = || EdgeError::new(ErrorKind::Internal, format!("failed to read token `{}`", key.escape_debug()));
        let name = TokenName::new(key).map_err(|error| damaged().with_source(error))?;
        let stored: Stored = serde_json::from_str(&python_json::write(value)?).map_err(|_| damaged())?;
        let hash = HEXLOWER.decode(stored.blake3.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(damaged)?;
        let Stored { role, created_at, expires_at, topics, .. } = stored;
        Ok((Fingerprint(hash), Self { name, role, created_at, expires_at, topics }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_long_random_and_safe_in_a_header() {
        let secrets = [Secret::draw().expect("random"), Secret::draw().expect("random")];
        assert_ne!(secrets[0].reveal(), secrets[1].reveal());
        for secret in &secrets {
            let random = secret.reveal().strip_prefix("edgeward_").expect("the prefix");
            assert_eq!(random.len(), 43);
            assert!(random.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)), "{random}");
        }
    }

    #[test]
    fn a_role_may_do_what_those_before_it_may() {
        assert!(Role::ALL.is_sorted());
        for role in Role::ALL {
            assert_eq!(role.to_string().parse::<Role>().expect("its own word"), role);
        }
        assert!("root".parse::<Role>().expect_err("none").to_string().contains("client, viewer, deployer and admin"));
    }

    #[test]
    fn a_role_says_what_may_be_done_on_topics() {
        let allowed = |role: Role| {
            let TopicRights { publish, subscribe } = role.topic_rights();
            (publish.len(), subscribe.len())
        };
        assert_eq!(Role::ALL.map(allowed), [(0, 0), (0, 1), (1, 1), (1, 2)]);
    }

    #[test]
    fn a_token_keeps_the_topics_that_it_names_and_a_client_must_name_some() {
        let filters = |text: &str| vec![text.parse().expect("a filter")];
        let topics = TopicRights { publish: filters("site/#"), subscribe: Vec::new() };
        let name = TokenName::new("sensor").expect("valid");
        let mut token = Token { name, role: Role::Client, created_at: Timestamp::UNIX_EPOCH, expires_at: None, topics: Some(topics) };
        token.check().expect("it names one");
        assert_eq!(Some(token.topic_rights()), token.topics, "and nothing else");
        let value = token.to_value(&Secret::draw().expect("random")).expect("a value");
        assert_eq!(Token::of_value("sensor", &value).expect("reads").1, token);
        for none in [None, Some(TopicRights::default())] {
            token.topics = none;
            assert!(token.check().expect_err("none").to_string().contains("must name topics"));
        }
        token.role = Role::Viewer;
        token.check().expect("a viewer need not");
        token.topics = None;
        assert_eq!(token.topic_rights(), Role::Viewer.topic_rights());
    }

    #[test]
    fn a_damaged_token_is_refused() {
        let good = format!(r#"{{"blake3": "{}", "role": "viewer", "created_at": "2026-01-02T03:04:05Z"}}"#, "0a".repeat(32));
        let read = |json: &str| Token::of_value("t", &python_json::read(json).expect("JSON"));
        assert_eq!(read(&good).expect("whole").1.expires_at, None);
        // What a later release adds is no reason to refuse it.
        read(&good.replace("\"role\"", "\"note\": 1, \"role\"")).expect("whole");
        for bad in ["7", "{}", &good.replace("0a0a", "0a"), &good.replace("viewer", "owner"), &good.replace("2026", "x")] {
            read(bad).expect_err(bad);
        }
    }
}
