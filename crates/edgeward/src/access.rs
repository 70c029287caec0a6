//! Who may call an API: tokens with a role, kept as a document of the node or hub.
//!
//! The document has a key for each token, with the hash of its secret; the secret itself is shown once and kept nowhere. A check
//! looks into memory only. Durable, then visible: a token that was revoked is refused from the moment `revoke` returns.

mod stopped;
mod token;
mod topic_rights;

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use edgeward_model::{DocumentName, EdgeError, ErrorKind, TokenName, limits::API_TOKENS_MAX};
use edgeward_sync::{Document, Documents, Draft, Precondition};
use jiff::Timestamp;
use parking_lot::Mutex;

use self::token::Fingerprint;

pub use stopped::StoppedNode;
pub use token::{Role, Secret, Token};
pub use topic_rights::TopicRights;

/// The document of a node's tokens, which never leaves it.
pub const NODE_TOKENS: &str = "edgeward.local.tokens";

/// The tokens of one document, kept in memory as well.
#[derive(Debug)]
pub struct Tokens {
    document: Document,
    known: ArcSwap<HashMap<Fingerprint, Token>>,
    /// Held while the document is read and what it says becomes known, so that the last one to read it wins.
    reading: Mutex<()>,
}

/// Who calls, by the token that was shown.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The token.
    pub token: Token,
    fingerprint: Fingerprint,
}

impl Tokens {
    /// Reads the document of this name; one that does not exist yet holds no token. Waits for the disk.
    pub fn open(documents: &Documents, name: DocumentName) -> Result<Self, EdgeError> {
        let tokens = Self { document: documents.document(name), known: ArcSwap::default(), reading: Mutex::default() };
        tokens.read()?;
        Ok(tokens)
    }

    /// Every token, by name, those that have expired included.
    pub fn list(&self) -> Vec<Token> {
        let mut tokens: Vec<_> = self.known.load().values().cloned().collect();
        tokens.sort_by(|left, right| left.name.cmp(&right.name));
        tokens
    }

    /// Whether any token is valid at this moment.
    pub fn any_is_valid(&self, now: Timestamp) -> bool {
        self.known.load().values().any(|token| token.is_valid(now))
    }

    /// Who shows this secret.
    ///
    /// It is found by its hash, so how long this takes says nothing of a secret: nobody can choose what a secret's hash begins with.
    ///
    /// # Errors
    /// [`ErrorKind::Unauthenticated`] when it is of no token, or of one that has expired.
    pub fn check(&self, secret: &str, now: Timestamp) -> Result<Caller, EdgeError> {
        let fingerprint = Fingerprint::of(secret);
        let refused = |why: String| EdgeError::new(ErrorKind::Unauthenticated, why);
        let known = self.known.load();
        let token =
            known.get(&fingerprint).ok_or_else(|| refused("the token is not known here: it was revoked, or is another node's".into()))?;
        match token.expires_at {
            Some(end) if !token.is_valid(now) => Err(refused(format!("token `{}` expired at {end:.0}", token.name))),
            _ => Ok(Caller { token: token.clone(), fingerprint }),
        }
    }

    /// Whether the token of this caller is still valid: an answer without an end outlives many a token.
    pub fn is_valid(&self, caller: &Caller, now: Timestamp) -> bool {
        self.known.load().get(&caller.fingerprint).is_some_and(|token| token.is_valid(now))
    }

    /// Makes a token, durably. Its secret is given this once. Waits for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when there is one of this name, [`ErrorKind::TooLarge`] when there are as many as may be,
    /// [`ErrorKind::InvalidInput`] when the topics that it names make no sense.
    pub fn create(&self, token: &Token) -> Result<Secret, EdgeError> {
        token.check()?;
        let secret = Secret::draw()?;
        let (name, value) = (token.name.clone(), token.to_value(&secret)?);
        self.change(move |draft| {
            if draft.get(name.as_str())?.is_some() {
                let why = format!("token `{name}` exists already; revoke it first, or choose another name");
                return Err(EdgeError::new(ErrorKind::Conflict, why));
            }
            if draft.keys(None, API_TOKENS_MAX)?.len() == API_TOKENS_MAX {
                let why = format!("there are {API_TOKENS_MAX} tokens, which is the most; revoke one first");
                return Err(EdgeError::new(ErrorKind::TooLarge, why));
            }
            draft.set(name.as_str(), &value)
        })?;
        Ok(secret)
    }

    /// Revokes a token, durably. Waits for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is none of this name.
    pub fn revoke(&self, name: &TokenName) -> Result<(), EdgeError> {
        let name = name.clone();
        self.change(move |draft| {
            if draft.get(name.as_str())?.is_none() {
                return Err(EdgeError::new(ErrorKind::NotFound, format!("token not found: `{name}`")));
            }
            draft.remove(name.as_str())
        })
    }

    /// Keeps up with changes that are made elsewhere, until it is dropped or the store is closed: for a document that replicates.
    pub async fn follow(self: Arc<Self>) -> Result<(), EdgeError> {
        let mut watch = self.document.watch();
        loop {
            watch.changed().await?;
            let tokens = Arc::clone(&self);
            edgeward_runtime::blocking(move || tokens.read()).await?;
        }
    }

    fn change(&self, edit: impl FnOnce(&mut Draft<'_, '_>) -> Result<(), EdgeError> + Send + 'static) -> Result<(), EdgeError> {
        let edited = self.document.edit(Precondition::None, edit);
        // Also after a failure: it is not known then what is on disk, and a token that was revoked must not stay good.
        self.read()?;
        edited.map(drop)
    }

    fn read(&self) -> Result<(), EdgeError> {
        let _reading = self.reading.lock();
        let state = self.document.view()?;
        let values = state.iter().flat_map(|state| state.data.0.iter());
        let tokens = values.filter_map(|(key, value)| match Token::of_value(key, value) {
            Ok((fingerprint, token)) => Some((fingerprint, token)),
            // One that this release does not understand lets nobody in, and does not shut the others out.
            Err(error) => {
                tracing::warn!(error = error.chain(), "a token is not understood, and so refused");
                None
            }
        });
        self.known.store(Arc::new(tokens.collect()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use edgeward_model::{NodeId, Value};
    use edgeward_sync::{Epoch, Store};

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn documents() -> Documents {
        Documents::new(Store::in_memory(NodeId::new("edge-01").expect("valid"), Epoch::draw().expect("random")).expect("opens"))
    }

    fn open(documents: &Documents) -> Tokens {
        Tokens::open(documents, DocumentName::new(NODE_TOKENS).expect("valid")).expect("opens")
    }

    fn token(name: &str, role: Role) -> Token {
        Token { name: TokenName::new(name).expect("valid"), role, created_at: NOW, expires_at: None, topics: None }
    }

    #[test]
    fn a_secret_is_good_from_its_creation_to_its_revocation_and_is_kept_nowhere() {
        let documents = documents();
        let tokens = open(&documents);
        assert!(!tokens.any_is_valid(NOW));
        let secret = tokens.create(&token("ops", Role::Admin)).expect("created");
        let caller = tokens.check(secret.reveal(), NOW).expect("good");
        assert_eq!((caller.token.name.as_str(), caller.token.role), ("ops", Role::Admin));
        assert!(tokens.any_is_valid(NOW) && tokens.is_valid(&caller, NOW));
        // Another process knows the same.
        open(&documents).check(secret.reveal(), NOW).expect("good");
        let kept = format!("{:?}{tokens:?}{caller:?}{secret:?}", tokens.document.view().expect("reads"));
        assert!(!kept.contains(secret.reveal()) && kept.contains("ops"), "{kept}");

        tokens.revoke(&caller.token.name).expect("revoked");
        assert_eq!(tokens.check(secret.reveal(), NOW).expect_err("revoked").kind(), ErrorKind::Unauthenticated);
        assert!(!tokens.is_valid(&caller, NOW) && tokens.list().is_empty());
        assert_eq!(tokens.revoke(&caller.token.name).expect_err("gone").kind(), ErrorKind::NotFound);
        // A new one of the same name is another.
        tokens.create(&token("ops", Role::Viewer)).expect("created");
        tokens.check(secret.reveal(), NOW).expect_err("the old secret");
        assert!(!tokens.is_valid(&caller, NOW) && tokens.document.pending().expect("reads").is_empty());
    }

    #[test]
    fn a_token_that_has_expired_is_refused_by_name() {
        let tokens = open(&documents());
        let end = NOW + std::time::Duration::from_mins(1);
        let secret = tokens.create(&Token { expires_at: Some(end), ..token("guest", Role::Viewer) }).expect("created");
        let caller = tokens.check(secret.reveal(), NOW).expect("good");
        let error = tokens.check(secret.reveal(), end).expect_err("expired");
        assert_eq!(error.to_string(), "token `guest` expired at 2027-01-15T08:01:00Z");
        assert!(!tokens.any_is_valid(end) && !tokens.is_valid(&caller, end) && tokens.list().len() == 1);
        for other in ["", "edgeward_", "guest", &secret.reveal()[1..]] {
            tokens.check(other, NOW).expect_err("no token");
        }
    }

    #[test]
    fn names_are_unique_and_their_number_is_bounded() {
        let tokens = open(&documents());
        for n in 0..API_TOKENS_MAX {
            tokens.create(&token(&format!("t{n}"), Role::Viewer)).expect("created");
        }
        assert_eq!(tokens.create(&token("more", Role::Viewer)).expect_err("full").kind(), ErrorKind::TooLarge);
        assert_eq!(tokens.create(&token("t0", Role::Admin)).expect_err("there").kind(), ErrorKind::Conflict);
        assert_eq!(tokens.list()[0].role, Role::Viewer);
    }

    #[test]
    fn a_token_of_a_later_release_lets_nobody_in_and_the_others_stay_good() {
        let documents = documents();
        let tokens = open(&documents);
        let secret = tokens.create(&token("ops", Role::Admin)).expect("created");
        let later = tokens.document.get("ops").expect("reads").map(|value| match value {
            Value::Object(mut members) => {
                members.0.insert("role".to_owned(), "owner".into());
                Value::Object(members)
            }
            _ => panic!("an object"),
        });
        let edit = move |draft: &mut Draft<'_, '_>| draft.set("later", &later.expect("there"));
        tokens.document.edit(Precondition::None, edit).expect("edits");
        let tokens = open(&documents);
        tokens.check(secret.reveal(), NOW).expect("good");
        assert_eq!(tokens.list().len(), 1);
    }

    #[tokio::test]
    async fn what_is_revoked_elsewhere_is_refused_here() {
        let documents = documents();
        let (here, elsewhere) = (Arc::new(open(&documents)), Arc::new(open(&documents)));
        let following = tokio::spawn(Arc::clone(&here).follow());
        let secret = elsewhere.create(&token("ops", Role::Admin)).expect("created");
        let until = async |is_good: bool| {
            let known = async {
                while here.check(secret.reveal(), NOW).is_ok() != is_good {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(std::time::Duration::from_secs(30), known).await.expect("in time");
        };
        until(true).await;
        elsewhere.revoke(&TokenName::new("ops").expect("valid")).expect("revoked");
        until(false).await;
        following.abort();
    }
}
