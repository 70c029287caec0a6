//! The specification's `EdgeSynchronizer`: one document, whole, with a version, a checksum and a list of pending changes.

use std::path::Path;

use edgeward_model::{DocumentName, EdgeError, NodeId, Object, SyncState};

use crate::{
    causality::Epoch,
    changes::PendingChange,
    document::{Document, Documents, Precondition},
    store::Store,
};

/// The document of a synchronizer that is not given one.
const DOCUMENT: &str = "state";
/// The node of a synchronizer that belongs to none.
const NODE: &str = "local";

/// Keeps one state, the changes of it that are not confirmed, and merges a newer one. Thread-safe: clones share it.
///
/// ```
/// use edgeward_model::{Object, SyncState};
/// use edgeward_sync::EdgeSynchronizer;
///
/// let sync = EdgeSynchronizer::new();
/// let state = sync.update_local([("temperature", 21.5)].into_iter().collect())?;
/// assert_eq!((state.version, sync.get_pending_changes()?.len()), (1, 1));
///
/// let remote = SyncState::from_data(Object::from_iter([("temperature", 19.0)]), 5)?;
/// assert!(sync.apply_remote(&remote)?);
/// sync.confirm_sync(1)?;
/// assert_eq!(sync.get_local_state()?, Some(remote));
/// # Ok::<(), edgeward_model::EdgeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct EdgeSynchronizer {
    document: Document,
}

impl Default for EdgeSynchronizer {
    fn default() -> Self {
        Self::new()
    }
}

/// The specification's face on one document of a node.
impl From<Document> for EdgeSynchronizer {
    fn from(document: Document) -> Self {
        Self { document }
    }
}

impl EdgeSynchronizer {
    /// An empty synchronizer that ends with the process.
    ///
    /// # Panics
    /// When the operating system gives no memory or no random number.
    pub fn new() -> Self {
        let store = Epoch::draw().and_then(|epoch| Store::in_memory(NodeId::new(NODE)?, epoch));
        store.and_then(Self::on).expect("a database in memory opens")
    }

    /// The synchronizer whose state lies in this folder, which is made when it is missing. Every change is on disk when its call
    /// returns. One process opens a folder at a time.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self, EdgeError> {
        Self::on(Store::open(folder.as_ref(), NodeId::new(NODE)?, Epoch::draw()?)?)
    }

    fn on(store: Store) -> Result<Self, EdgeError> {
        Ok(Documents::new(store).document(DocumentName::new(DOCUMENT)?).into())
    }

    /// Makes `data` the whole state: keys that it does not have are deleted. Returns the new state, one version on.
    pub fn update_local(&self, data: Object) -> Result<SyncState, EdgeError> {
        self.document.replace(Precondition::None, data)
    }

    /// Changes the state by a JSON merge patch (RFC 7396): `null` deletes a key. Returns the new state, one version on.
    pub fn patch_local(&self, patch: Object) -> Result<SyncState, EdgeError> {
        self.document.patch(Precondition::None, patch)
    }

    /// Takes over a remote state when its version is higher, see [`Document::take_over`].
    pub fn apply_remote(&self, state: &SyncState) -> Result<bool, EdgeError> {
        self.document.take_over(state)
    }

    /// The local changes that are not confirmed, oldest first.
    pub fn get_pending_changes(&self) -> Result<Vec<PendingChange>, EdgeError> {
        self.document.pending()
    }

    /// Confirms the pending changes up to this version.
    pub fn confirm_sync(&self, up_to_version: u64) -> Result<(), EdgeError> {
        self.document.confirm(up_to_version)
    }

    /// The state, or none before the first one.
    pub fn get_local_state(&self) -> Result<Option<SyncState>, EdgeError> {
        self.document.view()
    }
}
