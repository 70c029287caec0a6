//! What a node knows that is a member: its key, its tokens, and where its fleet is. It joins once, and keeps it in one file.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    time::Duration,
};

use edgeward_durable::disk_error;
use edgeward_model::{EdgeError, ErrorKind, NodeId, limits::JOIN_TIMEOUT};
use jiff::Timestamp;
use nkeys::KeyPair;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    backoff,
    nats::{
        Credentials, NatsOptions, Tls,
        admission::{JoinAnswer, JoinRequest},
        errand::{Errand, Failed},
        fingerprint::Fingerprint,
        join_token::{JOIN, JoinToken},
        secret_file,
    },
    subject::Subject,
};

/// The file with all of it, in a folder of the node.
const FILE: &str = "fleet.json";
/// A copy of the certificate, for whom a file of its own is needed.
const CA_FILE: &str = "fleet-ca.pem";
const WHAT: &str = "credentials of the node";
/// Longest pause between two requests to join: somebody waits for it.
const JOIN_PAUSE_MAX: Duration = Duration::from_secs(2);
const VERSION: u32 = 1;

/// A node's membership of a fleet.
#[derive(Clone, Serialize, Deserialize)]
pub struct Enrolment {
    version: u32,
    node: NodeId,
    /// The id of the token that it joined by; none in files of earlier releases.
    #[serde(default)]
    joined_by: Option<NodeId>,
    servers: Vec<String>,
    /// Of the node's key.
    seed: String,
    /// The token by which it gets the next working token.
    renewal: String,
    /// The last token to work with.
    working: String,
    /// Certificate of the authority of the servers, PEM.
    ca_certificate: String,
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Enrolment({})", self.node)
    }
}

impl Enrolment {
    /// What is kept in this folder, which must be there. When nothing is, or it was joined by another token than this one, the node asks to join
    /// by it, with a new key, and keeps the answer; so a token that was used may stay in the command that starts the node. `description` is for
    /// the hub. While no answer comes it asks again, at most for [`JOIN_TIMEOUT`].
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when nothing is kept and no token given; [`ErrorKind::Conflict`] when the folder is another node's;
    /// [`ErrorKind::Forbidden`] when the token has ended, was used, is for another node, the server is not the fleet's, or the hub refuses;
    /// [`ErrorKind::Unavailable`] when no hub was reached; and those of [`Self::load`].
    pub async fn open_or_join(
        folder: &Path,
        node: &NodeId,
        token: Option<&JoinToken>,
        description: Value,
        now: Timestamp,
    ) -> Result<Self, EdgeError> {
        let kept = Self::load(folder)?;
        if let Some(kept) = &kept
            && kept.node != *node
        {
            let message = format!("the folder `{}` belongs to the node `{}`, not to `{node}`", folder.display(), kept.node);
            return Err(EdgeError::new(ErrorKind::Conflict, message));
        }
        match (kept, token) {
            (Some(kept), None) => Ok(kept),
            (Some(kept), Some(token)) if kept.joined_by.as_ref() == Some(token.id()) => Ok(kept),
            (_, Some(token)) => {
                let joined = Self::join(token, node, description, now).await?;
                joined.store(folder)?;
                Ok(joined)
            }
            (None, None) => {
                let message =
                    format!("the node `{node}` never joined a fleet; make a token with `edgeward join-token` on the hub, and give it");
                Err(EdgeError::new(ErrorKind::NotFound, message))
            }
        }
    }

    /// Asks to join; nothing is kept.
    async fn join(token: &JoinToken, node: &NodeId, description: Value, now: Timestamp) -> Result<Self, EdgeError> {
        token.check_use(node, now)?;
        let key = KeyPair::new_user();
        let seed = key.seed().map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to make a key").with_source(error))?;
        let request = JoinRequest::new(token, node.clone(), &key, description)?;
        let payload = serde_json::to_vec(&request).expect("texts are JSON");
        let answer = ask(token, node, payload).await?;
        let answer = JoinAnswer::read(&answer)?;
        if Fingerprint::of_pem(&answer.ca_certificate)? != token.authority() {
            return Err(EdgeError::new(
                ErrorKind::Forbidden,
                "the hub answered with the certificate of another authority than the join token's",
            ));
        }
        Ok(Self {
            version: VERSION,
            node: node.clone(),
            joined_by: Some(token.id().clone()),
            servers: if answer.servers.is_empty() { token.servers().to_vec() } else { answer.servers },
            seed,
            renewal: answer.renewal,
            working: answer.working,
            ca_certificate: answer.ca_certificate,
        })
    }

    /// What is kept in this folder; none when its node never joined.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] when others may read it, and [`ErrorKind::Internal`] when it is damaged.
    pub fn load(folder: &Path) -> Result<Option<Self>, EdgeError> {
        let Some(enrolment) = secret_file::read::<Self>(&folder.join(FILE), WHAT, VERSION)? else { return Ok(None) };
        let copy = certificate_file(folder);
        if fs::read_to_string(&copy).ok().as_ref() != Some(&enrolment.ca_certificate) {
            enrolment.store_certificate(folder)?;
        }
        Ok(Some(enrolment))
    }

    /// Keeps it in this folder, which must be there, and returns when it is on disk.
    pub(super) fn store(&self, folder: &Path) -> Result<(), EdgeError> {
        self.store_certificate(folder)?;
        secret_file::write(&folder.join(FILE), WHAT, self)
    }

    fn store_certificate(&self, folder: &Path) -> Result<(), EdgeError> {
        let file = certificate_file(folder);
        edgeward_durable::write(&file, self.ca_certificate.as_bytes())
            .map_err(|error| disk_error("write the certificate of the fleet", &file, error))
    }

    /// Who is a member.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// Where the fleet's servers are.
    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    /// How the node connects, from the folder in which this is kept.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the key is damaged.
    pub(super) fn options(&self, folder: &Path) -> Result<NatsOptions, EdgeError> {
        let credentials = Credentials::new(&self.seed, self.working.clone())?;
        let tls = Tls::Ca(certificate_file(folder));
        Ok(NatsOptions { tls, credentials: Some(credentials), ..NatsOptions::new(self.node.clone(), self.servers.clone()) })
    }

    pub(super) fn working(&self) -> &str {
        &self.working
    }

    pub(super) fn set_working(&mut self, token: String) {
        self.working = token;
    }

    /// What shows the token that renews.
    pub(super) fn renewal(&self) -> Result<Credentials, EdgeError> {
        Credentials::new(&self.seed, self.renewal.clone())
    }
}

/// The authority's certificate in the folder of a node.
pub(super) fn certificate_file(folder: &Path) -> PathBuf {
    folder.join(CA_FILE)
}

async fn ask(token: &JoinToken, node: &NodeId, payload: Vec<u8>) -> Result<bytes::Bytes, EdgeError> {
    let (question, tls, start) = (Subject::to_hub(token.id().clone(), JOIN), token.tls(), Instant::now());
    for failed in 1.. {
        let errand = Errand { servers: token.servers(), tls: &tls, credentials: token.credentials()? };
        let error = match errand.ask(&question, payload.clone()).await {
            Ok(answer) => return Ok(answer.payload),
            Err(Failed::Refused) => {
                let message =
                    format!("the node `{node}` may not join: the servers of the fleet do not take its join token; make a new one");
                return Err(EdgeError::new(ErrorKind::Forbidden, message));
            }
            Err(Failed::Answered(error) | Failed::Untrusted(error)) => return Err(error),
            Err(Failed::Unreached(error)) => error,
        };
        let pause = backoff::pause(failed).min(JOIN_PAUSE_MAX);
        if start.elapsed() + pause >= JOIN_TIMEOUT {
            let message = format!("the node `{node}` did not join: no hub was reached at {}", token.servers().join(", "));
            return Err(EdgeError::new(ErrorKind::Unavailable, message).with_source(error));
        }
        sleep(pause).await;
    }
    unreachable!("the time ends before the numbers do")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_a_node_keeps_reads_back_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(Enrolment::load(folder.path()).expect("nothing is no error").is_none());
        let mut kept = Enrolment {
            version: VERSION,
            node: NodeId::new("edge-1").expect("valid"),
            joined_by: None,
            servers: vec!["nats://a:1".to_owned()],
            seed: KeyPair::new_user().seed().expect("it has one"),
            renewal: "renewal".to_owned(),
            working: "working".to_owned(),
            ca_certificate: "PEM".to_owned(),
        };
        kept.store(folder.path()).expect("stored");
        kept.set_working("newer".to_owned());
        kept.store(folder.path()).expect("stored over it");
        fs::remove_file(certificate_file(folder.path())).expect("it was there");
        let read = Enrolment::load(folder.path()).expect("readable").expect("there");
        assert_eq!((read.node(), read.servers(), read.working()), (kept.node(), kept.servers(), "newer"));
        assert_eq!(fs::read_to_string(certificate_file(folder.path())).expect("made again"), "PEM");
        let options = read.options(folder.path()).expect("valid");
        assert_eq!(options.tls, Tls::Ca(certificate_file(folder.path())));
        assert!(!format!("{read:?} {options:?}").contains(&kept.seed));
        let file = folder.path().join(FILE);
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("ours");
        assert_eq!(Enrolment::load(folder.path()).expect_err("others may read it").kind(), ErrorKind::Forbidden);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("ours");
        fs::write(&file, "{").expect("ours");
        assert_eq!(Enrolment::load(folder.path()).expect_err("damaged").kind(), ErrorKind::Internal);
    }
}
