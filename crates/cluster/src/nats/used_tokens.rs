//! Which join tokens were used, by whom: so each makes one member, also when the hub starts again in between.

use std::{collections::BTreeMap, path::PathBuf};

use edgeward_model::{EdgeError, ErrorKind, NodeId, limits::USED_TOKENS_MAX};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::nats::{admission::Applicant, secret_file};

const VERSION: u32 = 1;
const WHAT: &str = "used join tokens";

/// The uses, in a file. A use is forgotten when its token has ended.
#[derive(Debug)]
pub(super) struct UsedTokens {
    file: PathBuf,
    kept: Kept,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    by_join_id: BTreeMap<NodeId, Use>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Use {
    node: NodeId,
    public_key: String,
    token_ends_at: Timestamp,
}

impl UsedTokens {
    pub(super) fn open(file: PathBuf) -> Result<Self, EdgeError> {
        let kept = secret_file::read(&file, WHAT, VERSION)?.unwrap_or(Kept { version: VERSION, by_join_id: BTreeMap::new() });
        Ok(Self { file, kept })
    }

    /// Notes a use, and returns when it is on disk. Node and key that used the token before may again: their answer was lost.
    ///
    /// # Errors
    /// [`ErrorKind::Forbidden`] when it was used by another, and [`ErrorKind::Overloaded`] when too many were used of late.
    pub(super) fn take(&mut self, applicant: &Applicant, now: Timestamp) -> Result<(), EdgeError> {
        let Applicant { node, public_key, token_ends_at, .. } = applicant.clone();
        let wanted = Use { node, public_key, token_ends_at };
        if let Some(before) = self.kept.by_join_id.get(&applicant.join_id) {
            if *before == wanted {
                return Ok(());
            }
            let message =
                format!("the node `{}` may not join: its join token was used; make a new one with `edgeward join-token`", wanted.node);
            return Err(EdgeError::new(ErrorKind::Forbidden, message));
        }
        let mut next = self.kept.clone();
        next.by_join_id.retain(|_, used| used.token_ends_at > now);
        if next.by_join_id.len() >= USED_TOKENS_MAX {
            let message = format!("{USED_TOKENS_MAX} join tokens were used within minutes, which is the most; wait until they have ended");
            return Err(EdgeError::new(ErrorKind::Overloaded, message));
        }
        next.by_join_id.insert(applicant.join_id.clone(), wanted);
        secret_file::write(&self.file, WHAT, &next)?;
        self.kept = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn applicant(join_id: &str, node: &str, ends_in: i64) -> Applicant {
        Applicant {
            join_id: NodeId::new(join_id).expect("valid"),
            token_ends_at: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(ends_in),
            is_expected: false,
            node: NodeId::new(node).expect("valid"),
            public_key: format!("key of {node}"),
            description: serde_json::Value::Null,
        }
    }

    #[test]
    fn a_token_is_used_by_one_also_after_a_restart_and_forgotten_when_it_has_ended() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let open = || UsedTokens::open(folder.path().join("joins.json")).expect("readable");
        let now = Timestamp::UNIX_EPOCH;
        open().take(&applicant("join-a", "edge", 60), now).expect("it is the first");
        let mut used = open();
        used.take(&applicant("join-a", "edge", 60), now).expect("its answer was lost");
        for other in [applicant("join-a", "thief", 60), Applicant { public_key: "another".to_owned(), ..applicant("join-a", "edge", 60) }] {
            assert_eq!(used.take(&other, now).expect_err("it was used").kind(), ErrorKind::Forbidden);
        }
        used.take(&applicant("join-b", "edge-2", 90), now + SignedDuration::from_secs(60)).expect("another token");
        assert_eq!(open().kept.by_join_id.len(), 1);
        std::fs::write(folder.path().join("joins.json"), "{").expect("ours");
        assert!(UsedTokens::open(folder.path().join("joins.json")).is_err(), "it is not begun anew");
    }
}
