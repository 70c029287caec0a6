//! Documents by name: reading one, and changing one atomically and durably.

use std::sync::Arc;

use edgeward_model::{DocumentName, EdgeError, ErrorKind, Object, SyncState, Value, python_json};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::{
    merge_patch,
    pending::{self, PendingChange},
    store::Store,
    transaction::{DocumentHead, Transaction},
};

/// The highest version that is taken from elsewhere: above it no room is left for own changes.
const REMOTE_VERSION_MAX: u64 = 1 << 62;

/// The documents of one replica. Clones share them.
///
/// ```
/// use edgeward_model::{DocumentName, NodeId};
/// use edgeward_sync::{Documents, Epoch, Precondition, Store};
///
/// let store = Store::in_memory(NodeId::new("edge-01")?, Epoch::draw()?)?;
/// let cellar = Documents::new(store).document(DocumentName::new("cellar")?);
/// let edited = cellar.edit(Precondition::None, |draft| {
///     let doors = draft.get("doors")?.unwrap_or(0_i64.into());
///     draft.set("doors-before", &doors)?;
///     draft.set("doors", &2_i64.into())
/// })?;
/// assert_eq!(edited.version, 1);
/// assert_eq!(cellar.get("doors")?, Some(2_i64.into()));
/// # Ok::<(), edgeward_model::EdgeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Documents {
    store: Arc<Store>,
}

/// One document, which may not exist yet: the first change makes it.
#[derive(Clone, Debug)]
pub struct Document {
    store: Arc<Store>,
    name: DocumentName,
}

/// What is known of a document without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentInfo {
    /// Its name.
    pub name: DocumentName,
    /// Grows with each change.
    pub version: u64,
    /// Live keys.
    pub keys: u64,
    /// When it last changed, in UTC.
    pub updated_at: Timestamp,
}

/// What must hold for a change to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// The document is there, in any version.
    Present,
    /// The document is there in this version.
    Version(u64),
    /// There is no document of this name.
    Absent,
}

/// What an edit did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edited<T> {
    /// The version of the document now.
    pub version: u64,
    /// Whether anything changed: an edit that changes nothing makes no version.
    pub changed: bool,
    /// What the edit returned.
    pub result: T,
}

impl Documents {
    /// The documents of this store.
    pub fn new(store: Store) -> Self {
        Self { store: Arc::new(store) }
    }

    /// The document of this name, whether it exists or not.
    pub fn document(&self, name: DocumentName) -> Document {
        Document { store: Arc::clone(&self.store), name }
    }

    /// Changes with each commit, see [`Store::commits`].
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.store.commits()
    }

    /// The documents that exist, by name.
    pub fn list(&self) -> Result<Vec<DocumentInfo>, EdgeError> {
        self.store.read(|transaction| {
            let infos = transaction.documents()?.into_iter().map(|(name, head)| {
                let name = DocumentName::new(&name)
                    .map_err(|error| EdgeError::new(ErrorKind::Internal, "the store holds a name that is none").with_source(error))?;
                Ok(DocumentInfo { name, version: head.version, keys: head.keys, updated_at: head.updated_at })
            });
            infos.collect()
        })
    }
}

impl Document {
    /// Its name.
    pub fn name(&self) -> &DocumentName {
        &self.name
    }

    /// The whole document with its version and checksum, or none when it does not exist. Reads every key.
    pub fn view(&self) -> Result<Option<SyncState>, EdgeError> {
        self.store.read(|transaction| match existing(transaction, &self.name)? {
            Some(head) => SyncState::from_data_at(transaction.data(&head)?, head.version, head.updated_at).map(Some),
            None => Ok(None),
        })
    }

    /// The value of one key.
    pub fn get(&self, key: &str) -> Result<Option<Value>, EdgeError> {
        self.store.read(|transaction| match existing(transaction, &self.name)? {
            Some(head) => transaction.value(&head, key),
            None => Ok(None),
        })
    }

    /// Changes keys, all or none: an error of `edit` takes everything back. Durable when it returns.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the precondition does not hold; else those of `edit` and of the disk.
    pub fn edit<T: Send + 'static>(
        &self,
        precondition: Precondition,
        edit: impl FnOnce(&mut Draft<'_, '_>) -> Result<T, EdgeError> + Send + 'static,
    ) -> Result<Edited<T>, EdgeError> {
        let (name, now) = (self.name.clone(), Timestamp::now());
        self.store.write(move |transaction| {
            let mut draft = Draft::begin(transaction, &name, precondition, now)?;
            let result = edit(&mut draft)?;
            let patch = std::mem::take(&mut draft.patch);
            if patch.0.is_empty() {
                return Ok(Edited { version: draft.head.version, changed: false, result });
            }
            let version = draft.commit(pending::PATCH, patch)?;
            Ok(Edited { version, changed: true, result })
        })
    }

    /// Makes `data` the whole document: keys that it does not have are deleted. A version on, also when nothing is different.
    pub fn replace(&self, precondition: Precondition, data: Object) -> Result<SyncState, EdgeError> {
        let (name, now) = (self.name.clone(), Timestamp::now());
        self.store.write(move |transaction| {
            let mut draft = Draft::begin(transaction, &name, precondition, now)?;
            draft.replace(&data)?;
            let version = draft.commit(pending::UPDATE, data.clone())?;
            SyncState::from_data_at(data, version, now)
        })
    }

    /// Changes the document by a JSON merge patch (RFC 7396): `null` deletes a key. A version on, also when nothing is different.
    pub fn patch(&self, precondition: Precondition, patch: Object) -> Result<SyncState, EdgeError> {
        let (name, now) = (self.name.clone(), Timestamp::now());
        self.store.write(move |transaction| {
            let mut draft = Draft::begin(transaction, &name, precondition, now)?;
            for (key, change) in &patch.0 {
                // Only a patch of a member needs what is there.
                let before = if matches!(change, Value::Object(_)) { draft.get(key)? } else { None };
                match merge_patch::apply(before, change) {
                    Some(after) => draft.set(key, &after)?,
                    None => draft.remove(key)?,
                }
            }
            let version = draft.commit(pending::PATCH, patch)?;
            SyncState::from_data_at(draft.transaction.data(&draft.head)?, version, now)
        })
    }

    /// Takes over a state of a higher version, whole; one of the same or a lower version changes nothing. Returns whether it was
    /// taken. It is not a pending change.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when the checksum is not that of the data, or the version above 2⁶².
    pub fn take_over(&self, state: &SyncState) -> Result<bool, EdgeError> {
        if !state.verify() {
            let why = format!("the state of version {} is damaged: its checksum is not that of its data; fetch it again", state.version);
            return Err(EdgeError::new(ErrorKind::InvalidInput, why));
        }
        if state.version > REMOTE_VERSION_MAX {
            let why = format!("the version {} is higher than any document reaches; the most is {REMOTE_VERSION_MAX}", state.version);
            return Err(EdgeError::new(ErrorKind::InvalidInput, why));
        }
        let (name, now, state) = (self.name.clone(), Timestamp::now(), state.clone());
        self.store.write(move |transaction| {
            let mut draft = Draft::begin(transaction, &name, Precondition::None, now)?;
            if state.version <= draft.head.version {
                return Ok(false);
            }
            draft.replace(&state.data)?;
            (draft.head.version, draft.head.updated_at) = (state.version, state.updated_at);
            draft.transaction.store_head(&draft.head)?;
            Ok(true)
        })
    }

    /// Deletes every key; returns whether there was one. The document stays, empty and a version on, as its deletion has to
    /// reach the other replicas.
    pub fn clear(&self, precondition: Precondition) -> Result<bool, EdgeError> {
        let (name, now) = (self.name.clone(), Timestamp::now());
        self.store.write(move |transaction| {
            let mut draft = Draft::begin(transaction, &name, precondition, now)?;
            if draft.head.keys == 0 {
                return Ok(false);
            }
            draft.replace(&Object::default())?;
            draft.commit(pending::UPDATE, Object::default()).map(|_| true)
        })
    }

    /// The local changes that are not confirmed, oldest first.
    pub fn pending(&self) -> Result<Vec<PendingChange>, EdgeError> {
        self.store.read(|transaction| match existing(transaction, &self.name)? {
            Some(head) => pending::list(transaction, &head),
            None => Ok(Vec::new()),
        })
    }

    /// Confirms the pending changes up to this version.
    pub fn confirm(&self, up_to_version: u64) -> Result<(), EdgeError> {
        let name = self.name.clone();
        self.store.write(move |transaction| match transaction.document(name.as_str())? {
            Some(mut head) => {
                pending::confirm(transaction, &mut head, up_to_version)?;
                transaction.store_head(&head)
            }
            None => Ok(()),
        })
    }
}

/// A document while it is edited. What is read has what was changed before.
pub struct Draft<'a, 'b> {
    transaction: &'a mut Transaction<'b>,
    head: DocumentHead,
    now: Timestamp,
    /// What was changed, as a merge patch of top-level members.
    patch: Object,
}

impl<'a, 'b> Draft<'a, 'b> {
    fn begin(
        transaction: &'a mut Transaction<'b>,
        name: &DocumentName,
        precondition: Precondition,
        now: Timestamp,
    ) -> Result<Self, EdgeError> {
        let known = transaction.document(name.as_str())?;
        let found = known.map(|head| head.version).filter(|version| *version > 0);
        let conflict =
            |what: String| Err(EdgeError::new(ErrorKind::Conflict, format!("document `{name}` {what}; read it again and retry")));
        match (precondition, found) {
            (Precondition::None, _) | (Precondition::Present, Some(_)) | (Precondition::Absent, None) => {}
            (Precondition::Version(wanted), Some(found)) if wanted == found => {}
            (Precondition::Version(wanted), Some(found)) => return conflict(format!("is at version {found}, not {wanted}")),
            (Precondition::Version(wanted), None) => return conflict(format!("does not exist, so it is not at version {wanted}")),
            (Precondition::Absent, Some(found)) => return conflict(format!("exists already, at version {found}")),
            (Precondition::Present, None) => return conflict("does not exist".to_owned()),
        }
        let head = known.map_or_else(|| transaction.new_document(name.as_str()), Ok)?;
        Ok(Self { transaction, head, now, patch: Object::default() })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Result<Option<Value>, EdgeError> {
        self.transaction.value(&self.head, key)
    }

    /// Sets a key.
    pub fn set(&mut self, key: &str, value: &Value) -> Result<(), EdgeError> {
        let text = python_json::write(value)?;
        if self.put(key, Some(&text))? {
            self.patch.0.insert(key.to_owned(), value.clone());
        }
        Ok(())
    }

    /// Deletes a key, which need not be there.
    pub fn remove(&mut self, key: &str) -> Result<(), EdgeError> {
        if self.put(key, None)? {
            self.patch.0.insert(key.to_owned(), Value::Null);
        }
        Ok(())
    }

    fn put(&mut self, key: &str, text: Option<&str>) -> Result<bool, EdgeError> {
        let millis = u64::try_from(self.now.as_millisecond()).unwrap_or(0);
        self.transaction.put_register(&mut self.head, key, text, millis)
    }

    /// Makes the document what `data` says. What is the same stays untouched.
    fn replace(&mut self, data: &Object) -> Result<(), EdgeError> {
        for (key, _) in self.transaction.values(&self.head)? {
            if !data.0.contains_key(&key) {
                self.put(&key, None)?;
            }
        }
        for (key, value) in &data.0 {
            self.put(key, Some(&python_json::write(value)?))?;
        }
        Ok(())
    }

    /// Moves the version on, and notes the change as pending.
    fn commit(&mut self, kind: &str, change: Object) -> Result<u64, EdgeError> {
        self.head.version = self.head.next_version()?;
        self.head.updated_at = self.now;
        pending::add(self.transaction, &mut self.head, kind, change)?;
        self.transaction.store_head(&self.head)?;
        Ok(self.head.version)
    }
}

/// A document that was changed at least once.
fn existing(transaction: &Transaction<'_>, name: &DocumentName) -> Result<Option<DocumentHead>, EdgeError> {
    Ok(transaction.document(name.as_str())?.filter(|head| head.version > 0))
}
