//! The tokens of a node that does not run: the first one is made before anybody may call.

use std::path::Path;

use edgeward_durable::FolderLock;
use edgeward_model::{DocumentName, EdgeError, ErrorKind, NodeId};
use edgeward_sync::backup;

use super::{NODE_TOKENS, Tokens};
use crate::node::{DOCUMENTS, open_data_dir};

/// A node's data folder, held while it is changed.
#[derive(Debug)]
pub struct StoppedNode {
    /// The tokens of the node.
    pub tokens: Tokens,
    // Let go last.
    _lock: FolderLock,
}

impl StoppedNode {
    /// Opens the data folder of a node that does not run. Waits for the disk.
    ///
    /// `id` is needed where no node has started yet: the folder is made for that node then.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the node runs, or is another one than `id`; [`ErrorKind::NotFound`] when there is no node, and no
    /// `id` either.
    pub fn open(data_dir: &Path, id: Option<NodeId>) -> Result<Self, EdgeError> {
        let owner = match backup::owner(&data_dir.join(DOCUMENTS)) {
            Ok(owner) => Some(owner),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let Some(id) = id.or(owner) else {
            return Err(EdgeError::new(ErrorKind::NotFound, format!("there is no node in `{}`", data_dir.display())));
        };
        let (lock, documents) = open_data_dir(data_dir, &id)?;
        Ok(Self { tokens: Tokens::open(&documents, DocumentName::new(NODE_TOKENS)?)?, _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use edgeward_model::{EdgeNode, TokenName};
    use jiff::Timestamp;

    use super::*;
    use crate::{
        access::{Role, Token},
        node::{Node, NodeOptions},
    };

    fn start(data_dir: &Path, id: &str) -> Result<std::sync::Arc<Node>, EdgeError> {
        Node::open(NodeOptions::new(EdgeNode::new(id, "test").expect("valid"), data_dir))
    }

    #[test]
    fn the_first_token_is_made_before_the_node_starts_and_while_it_is_stopped() {
        let folder = tempfile::tempdir().expect("temp folder");
        let data_dir = folder.path().join("data");
        let id = || Some(NodeId::new("edge-01").expect("valid"));
        assert_eq!(StoppedNode::open(&data_dir, None).expect_err("no node").kind(), ErrorKind::NotFound);
        assert!(!data_dir.exists(), "nothing was touched");
        let make = |stopped: &StoppedNode, name: &str| {
            let name = TokenName::new(name).expect("valid");
            let token = Token { name, role: Role::Admin, created_at: Timestamp::UNIX_EPOCH, expires_at: None, topics: None };
            stopped.tokens.create(&token).expect("created")
        };
        let first = make(&StoppedNode::open(&data_dir, id()).expect("made"), "first");
        assert_eq!(start(&data_dir, "edge-02").expect_err("another's").kind(), ErrorKind::Conflict);
        let node = start(&data_dir, "edge-01").expect("its own");
        assert_eq!(StoppedNode::open(&data_dir, None).expect_err("it runs").kind(), ErrorKind::Conflict);
        drop(node);
        let second = make(&StoppedNode::open(&data_dir, None).expect("stopped"), "second");
        let node = start(&data_dir, "edge-01").expect("its own");
        let tokens = Tokens::open(node.documents(), DocumentName::new(NODE_TOKENS).expect("valid")).expect("opens");
        for secret in [first, second] {
            tokens.check(secret.reveal(), Timestamp::UNIX_EPOCH).expect("good");
        }
    }
}
