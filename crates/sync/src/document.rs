//! Documents by name: reading one, and changing one atomically and durably.

use std::{collections::BTreeMap, sync::Arc};

use edgeward_model::{DocumentName, EdgeError, ErrorKind, Object, SyncState, Value, limits::VALUE_BYTES_MAX, python_json};
use jiff::Timestamp;

use crate::{
    changes::{self, Change, PendingChange},
    conflict::{self, CONFLICTS, Conflict, ConflictsPage, Resolution, Why},
    error::damaged,
    interest, merge_patch,
    policy::{self, POLICIES, Policies, Policy},
    snapshot::{DocumentHead, Snapshot},
    store::Store,
    transaction::Transaction,
    view::{self, NewValue},
    watch::Watch,
};

/// Keys that are looked up at once.
const ENTRIES_AT_ONCE: usize = 500;

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
    pub fn new(store: impl Into<Arc<Store>>) -> Self {
        Self { store: store.into() }
    }

    /// Where they lie: for a [`Hub`](crate::hub::Hub) or a [`ReplicaSession`](crate::replica::ReplicaSession).
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// The document of this name, whether it exists or not.
    pub fn document(&self, name: DocumentName) -> Document {
        Document { store: Arc::clone(&self.store), name }
    }

    /// The documents that exist, by name.
    pub fn list(&self) -> Result<Vec<DocumentInfo>, EdgeError> {
        self.store.read(|snapshot| {
            let infos = snapshot.heads()?.into_iter().filter(|head| head.version > 0).map(|head| {
                let name = DocumentName::new(&head.name)
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

    /// What time it is for what is written to it, see [`Store::now`].
    pub fn now(&self) -> Timestamp {
        self.store.now()
    }

    /// What is known of it without reading its keys, or none when it does not exist.
    pub fn info(&self) -> Result<Option<DocumentInfo>, EdgeError> {
        let found = self.store.read(|snapshot| existing(snapshot, &self.name))?;
        Ok(found.map(|head| DocumentInfo { name: self.name.clone(), version: head.version, keys: head.keys, updated_at: head.updated_at }))
    }

    /// Tells of the states of this document, the one of now first.
    ///
    /// ```
    /// # use edgeward_model::{DocumentName, NodeId};
    /// # use edgeward_sync::{Documents, Epoch, Precondition, Store};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), edgeward_model::EdgeError> {
    /// # let store = Store::in_memory(NodeId::new("edge-01")?, Epoch::draw()?)?;
    /// # let cellar = Documents::new(store).document(DocumentName::new("cellar")?);
    /// let mut watch = cellar.watch();
    /// cellar.edit(Precondition::None, |draft| draft.set("doors", &2_i64.into()))?;
    /// assert_eq!(watch.changed().await?.version, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self) -> Watch {
        Watch::new(self.clone(), self.store.commits())
    }

    /// The whole document with its version and checksum, or none when it does not exist. Reads every key.
    pub fn view(&self) -> Result<Option<SyncState>, EdgeError> {
        self.store.read(|snapshot| match existing(snapshot, &self.name)? {
            Some(head) => SyncState::from_data_at(snapshot.data(&head)?, head.version, head.updated_at).map(Some),
            None => Ok(None),
        })
    }

    /// The value of one key.
    pub fn get(&self, key: &str) -> Result<Option<Value>, EdgeError> {
        self.store.read(|snapshot| match existing(snapshot, &self.name)? {
            Some(head) => snapshot.value(&head, key),
            None => Ok(None),
        })
    }

    /// The bytes of one key, see [`Draft::get_bytes`].
    pub fn get_bytes(&self, key: &str) -> Result<Option<Vec<u8>>, EdgeError> {
        self.store.read(|snapshot| match existing(snapshot, &self.name)? {
            Some(head) => snapshot.bytes(&head, key),
            None => Ok(None),
        })
    }

    /// The live keys after `after`, in order, at most `limit`.
    pub fn keys(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>, EdgeError> {
        self.store.read(|snapshot| match existing(snapshot, &self.name)? {
            Some(head) => snapshot.keys_from(&head, "", after, limit),
            None => Ok(Vec::new()),
        })
    }

    /// The live keys that begin so, in order, with their values. It costs by those, not by the document.
    pub fn entries(&self, prefix: &str) -> Result<Vec<(String, Value)>, EdgeError> {
        self.store.read(|snapshot| {
            let mut found = Vec::new();
            let Some(head) = existing(snapshot, &self.name)? else { return Ok(found) };
            let mut after = None;
            loop {
                let keys = snapshot.keys_from(&head, prefix, after.as_deref(), ENTRIES_AT_ONCE)?;
                let more = keys.len() == ENTRIES_AT_ONCE;
                for key in keys {
                    if !key.starts_with(prefix) {
                        return Ok(found);
                    }
                    found.extend(snapshot.value(&head, &key)?.map(|value| (key.clone(), value)));
                    after = Some(key);
                }
                if !more {
                    return Ok(found);
                }
            }
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
        self.edit_at(self.store.now(), precondition, edit)
    }

    /// [`Document::edit`] at a moment of the wall clock.
    pub(crate) fn edit_at<T: Send + 'static>(
        &self,
        now: Timestamp,
        precondition: Precondition,
        edit: impl FnOnce(&mut Draft<'_, '_>) -> Result<T, EdgeError> + Send + 'static,
    ) -> Result<Edited<T>, EdgeError> {
        let name = self.name.clone();
        self.store.write(move |transaction| {
            let mut draft = Draft::begin(transaction, &name, precondition, now)?;
            let result = edit(&mut draft)?;
            let (version, changed) = draft.finish()?;
            Ok(Edited { version, changed, result })
        })
    }

    /// Makes `data` the whole document: keys that it does not have are deleted. A version on, also when nothing is different.
    pub fn replace(&self, precondition: Precondition, data: Object) -> Result<SyncState, EdgeError> {
        let (name, now) = (self.name.clone(), self.store.now());
        self.store.write(move |transaction| {
            let mut draft = Draft::begin(transaction, &name, precondition, now)?;
            draft.replace(&data)?;
            let version = draft.commit(changes::UPDATE, data.clone())?;
            SyncState::from_data_at(data, version, now)
        })
    }

    /// Changes the document by a JSON merge patch (RFC 7396): `null` deletes a key. A version on, also when nothing is different.
    pub fn patch(&self, precondition: Precondition, patch: Object) -> Result<SyncState, EdgeError> {
        let (name, now) = (self.name.clone(), self.store.now());
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
            let version = draft.commit(changes::PATCH, patch)?;
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
        let (name, now, state) = (self.name.clone(), self.store.now(), state.clone());
        self.store.write(move |transaction| {
            let mut draft = Draft::begin(transaction, &name, Precondition::None, now)?;
            if state.version <= draft.head.version {
                return Ok(false);
            }
            draft.replace(&state.data)?;
            (draft.head.version, draft.head.updated_at) = (state.version, state.updated_at);
            draft.note(changes::REMOTE, state.data)?;
            Ok(true)
        })
    }

    /// Deletes every key; returns whether there was one. The document stays, empty and a version on, as its deletion has to
    /// reach the other replicas.
    pub fn clear(&self, precondition: Precondition) -> Result<bool, EdgeError> {
        let (name, now) = (self.name.clone(), self.store.now());
        self.store.write(move |transaction| {
            let mut draft = Draft::begin(transaction, &name, precondition, now)?;
            if draft.head.keys == 0 {
                return Ok(false);
            }
            draft.replace(&Object::default())?;
            draft.commit(changes::UPDATE, Object::default()).map(|_| true)
        })
    }

    /// The local changes that are not confirmed, oldest first.
    pub fn pending(&self) -> Result<Vec<PendingChange>, EdgeError> {
        self.store.read(|snapshot| match existing(snapshot, &self.name)? {
            Some(head) => changes::pending(snapshot, &head),
            None => Ok(Vec::new()),
        })
    }

    /// The changes that are kept, oldest first: the pending ones, and a bounded number of those before.
    pub fn history(&self) -> Result<Vec<Change>, EdgeError> {
        self.store.read(|snapshot| match existing(snapshot, &self.name)? {
            Some(head) => changes::history(snapshot, &head),
            None => Ok(Vec::new()),
        })
    }

    /// The conflicts of this document that nobody has resolved, by key.
    pub fn conflicts(&self) -> Result<Vec<Conflict>, EdgeError> {
        let mut conflicts = self.conflicts_after("", usize::MAX)?.conflicts;
        conflicts.sort_by(|left, right| (&left.key, &left.id).cmp(&(&right.key, &right.id)));
        Ok(conflicts)
    }

    /// The conflicts of this document that nobody has resolved and whose ids come after `id`, at most `limit`. A value in them may have
    /// 124 KiB.
    pub fn conflicts_after(&self, id: &str, limit: usize) -> Result<ConflictsPage, EdgeError> {
        self.store.read(|snapshot| {
            let (conflicts, has_more) = conflict::list(snapshot, self.name.as_str(), id, limit)?;
            let next = conflicts.last().filter(|_| has_more).map(|last| last.id.clone());
            Ok(ConflictsPage { conflicts, next, forgotten: conflict::forgotten(snapshot, self.name.as_str())? })
        })
    }

    /// Resolves a conflict: the key gets what the resolution says, and the conflict is no longer listed. Both are one change.
    pub fn resolve(&self, id: &str, resolution: Resolution) -> Result<(), EdgeError> {
        let (name, now, id) = (self.name.clone(), self.store.now(), id.to_owned());
        self.store.write(move |transaction| {
            let found = conflict::find(transaction, name.as_str(), &id)?;
            let counted = if resolution == Resolution::Take { conflict::counted(transaction, name.as_str(), &id)? } else { None };
            let value = match resolution {
                // Of values side by side the one that shows must replace the others.
                Resolution::Keep if found.why == Why::Siblings => Some(found.winner.and_then(|winner| winner.value)),
                Resolution::Keep => None,
                Resolution::Take => Some(found.loser.into_value(&found.key)?),
                Resolution::Set(value) => Some(value),
            };
            if let Some(value) = value {
                let mut draft = Draft::begin(transaction, &name, Precondition::None, now)?;
                match value {
                    // What others counted meanwhile stays.
                    _ if let Some(by) = counted => drop(draft.increment(&found.key, by)?),
                    Some(Value::Object(members)) if draft.whole.is_some() && found.key.is_empty() => {
                        draft.replace(&members)?;
                        draft.patch = members;
                    }
                    Some(value) => draft.set(&found.key, &value)?,
                    None => draft.remove(&found.key)?,
                }
                draft.finish()?;
            }
            if found.why != Why::Siblings {
                let mut log = Draft::begin(transaction, &DocumentName::new(CONFLICTS)?, Precondition::None, now)?;
                log.remove(&format!("{name}/{id}"))?;
                log.finish()?;
            }
            Ok(())
        })
    }

    /// The policies of this document, by key prefix; the empty one is that of the document.
    pub fn policies(&self) -> Result<BTreeMap<String, Policy>, EdgeError> {
        self.store.read(|snapshot| {
            let policies = match snapshot.head(POLICIES)? {
                Some(head) => Policies::of(&snapshot.data(&head)?),
                None => Policies::default(),
            };
            Ok(policies.of_document(self.name.as_str()))
        })
    }

    /// Sets the policy of the keys that begin with `prefix`, or with none removes it. Only a hub may, or a node that has none.
    pub fn set_policy(&self, prefix: &str, policy: Option<&Policy>) -> Result<(), EdgeError> {
        self.set_policy_at(self.store.now(), prefix, policy)
    }

    /// [`Document::set_policy`] at a moment of the wall clock.
    pub(crate) fn set_policy_at(&self, now: Timestamp, prefix: &str, policy: Option<&Policy>) -> Result<(), EdgeError> {
        if policy == Some(&Policy::VersionWins) && !prefix.is_empty() {
            return Err(EdgeError::invalid("`version_wins` is the policy of a whole document, not of a key prefix"));
        }
        let (name, key, policy) = (self.name.clone(), policy::policy_key(&self.name, prefix), policy.map(Policy::to_string));
        self.store.write(move |transaction| {
            let was_whole = transaction.policies()?.is_whole(name.as_str());
            let mut draft = Draft::begin(transaction, &DocumentName::new(POLICIES)?, Precondition::None, now)?;
            match policy {
                Some(policy) => draft.set(&key, &Value::from(policy))?,
                None => draft.remove(&key)?,
            }
            draft.finish()?;
            let is_whole = transaction.policies()?.is_whole(name.as_str());
            let keys = transaction.document(name.as_str())?.map_or(0, |head| head.keys);
            if was_whole != is_whole && keys > 0 {
                let why = format!("document `{name}` has keys already, so `version_wins` can neither begin nor end; clear it first");
                return Err(EdgeError::new(ErrorKind::Conflict, why));
            }
            Ok(())
        })
    }

    /// Confirms the pending changes up to this version.
    pub fn confirm(&self, up_to_version: u64) -> Result<(), EdgeError> {
        let name = self.name.clone();
        self.store.write(move |transaction| match transaction.document(name.as_str())? {
            Some(mut head) => {
                changes::confirm(transaction, &mut head, up_to_version)?;
                transaction.store_head(&head);
                Ok(())
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
    /// Whether a merge patch can say it.
    is_patch: bool,
    /// The members, where the whole document is one register.
    whole: Option<Object>,
}

impl<'a, 'b> Draft<'a, 'b> {
    fn begin(
        transaction: &'a mut Transaction<'b>,
        name: &DocumentName,
        precondition: Precondition,
        now: Timestamp,
    ) -> Result<Self, EdgeError> {
        let known = transaction.document(name.as_str())?;
        let found = known.as_ref().map(|head| head.version).filter(|version| *version > 0);
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
        let head = known.map_or_else(|| transaction.document_or_new(name.as_str()), Ok)?;
        let is_whole = transaction.policies()?.is_whole(name.as_str());
        let whole = if is_whole { Some(transaction.data(&head)?) } else { None };
        Ok(Self { transaction, head, now, patch: Object::default(), is_patch: true, whole })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Result<Option<Value>, EdgeError> {
        match &self.whole {
            Some(whole) => Ok(whole.0.get(key).cloned()),
            None => self.transaction.value(&self.head, key),
        }
    }

    /// The bytes of a key: exactly those that [`Draft::set_bytes`] set; of other values, their canonical JSON.
    pub fn get_bytes(&self, key: &str) -> Result<Option<Vec<u8>>, EdgeError> {
        match &self.whole {
            Some(whole) => {
                whole.0.get(key).map(|value| Ok(view::bytes_of(value).unwrap_or(python_json::write(value)?.into_bytes()))).transpose()
            }
            None => self.transaction.bytes(&self.head, key),
        }
    }

    /// Sets a key.
    pub fn set(&mut self, key: &str, value: &Value) -> Result<(), EdgeError> {
        let text = Arc::from(python_json::write(value)?);
        self.change(key, NewValue { text, raw: None }, value)
    }

    /// Sets a key, and notes what a merge patch says of it, if one can.
    fn change(&mut self, key: &str, new: NewValue, value: &Value) -> Result<(), EdgeError> {
        // Of an object it says what is other than before; else what was is gone.
        let before = if matches!(value, Value::Object(_)) { self.get(key)? } else { None };
        if self.put(key, Some(new))? {
            let patch = if self.patch.0.contains_key(key) { None } else { merge_patch::diff(before.as_ref(), value) };
            self.is_patch &= patch.is_some();
            self.patch.0.insert(key.to_owned(), patch.unwrap_or_default());
        }
        Ok(())
    }

    /// Sets a key to bytes. Where they are JSON the document shows them as that, else as `{"$bytes": "<base64>"}`.
    pub fn set_bytes(&mut self, key: &str, bytes: &[u8]) -> Result<(), EdgeError> {
        if bytes.len() > VALUE_BYTES_MAX {
            let why = format!("the value is {} bytes long, the most is {VALUE_BYTES_MAX}", bytes.len());
            return Err(EdgeError::new(ErrorKind::TooLarge, why));
        }
        let new = view::of_bytes(bytes)?;
        let value = python_json::read(&new.text)?;
        self.change(key, new, &value)
    }

    /// Deletes a key, which need not be there.
    pub fn remove(&mut self, key: &str) -> Result<(), EdgeError> {
        if self.put(key, None)? {
            self.patch.0.insert(key.to_owned(), Value::Null);
        }
        Ok(())
    }

    /// Adds to a key and returns the sum. A key that is not there becomes a counter: what replicas count while apart adds up. A key
    /// with a whole number stays one value.
    pub fn increment(&mut self, key: &str, by: i64) -> Result<i64, EdgeError> {
        let sum = if self.whole.is_some() {
            let number = match self.get(key)? {
                None => Some(0),
                Some(Value::Integer(number)) => number.as_i64(),
                Some(_) => None,
            };
            let sum = number.and_then(|number| number.checked_add(by));
            let sum = sum.ok_or_else(|| EdgeError::invalid(format!("key `{}` counts in whole numbers of 64 bits", key.escape_debug())))?;
            self.set(key, &sum.into())?;
            sum
        } else {
            let millis = self.millis();
            self.transaction.increment(&mut self.head, key, by, millis)?
        };
        self.patch.0.insert(key.to_owned(), sum.into());
        Ok(sum)
    }

    /// The live keys after `after`, in order, at most `limit`.
    pub fn keys(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>, EdgeError> {
        match &self.whole {
            Some(whole) => Ok(whole.0.keys().filter(|key| after.is_none_or(|after| key.as_str() > after)).take(limit).cloned().collect()),
            None => self.transaction.keys_from(&self.head, "", after, limit),
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.now.as_millisecond()).unwrap_or(0)
    }

    fn put(&mut self, key: &str, value: Option<NewValue>) -> Result<bool, EdgeError> {
        let millis = self.millis();
        let Some(whole) = &mut self.whole else { return self.transaction.set(&mut self.head, key, value, millis) };
        match value {
            Some(value) => whole.0.insert(key.to_owned(), python_json::read(&value.text)?),
            None => whole.0.remove(key),
        };
        // It is written as one, at the end.
        Ok(true)
    }

    /// Makes the document what `data` says. What is the same stays untouched.
    fn replace(&mut self, data: &Object) -> Result<(), EdgeError> {
        if self.whole.is_some() {
            self.whole = Some(data.clone());
            return Ok(());
        }
        for (key, _) in self.transaction.values(&self.head)? {
            if !data.0.contains_key(&key) {
                self.put(&key, None)?;
            }
        }
        for (key, value) in &data.0 {
            self.put(key, Some(NewValue { text: Arc::from(python_json::write(value)?), raw: None }))?;
        }
        Ok(())
    }

    /// Ends an edit key by key: notes it when it changed anything. Returns the version and whether it did.
    fn finish(mut self) -> Result<(u64, bool), EdgeError> {
        let patch = std::mem::take(&mut self.patch);
        if patch.0.is_empty() {
            return Ok((self.head.version, false));
        }
        if self.is_patch {
            return Ok((self.commit(changes::PATCH, patch)?, true));
        }
        let data = match &self.whole {
            Some(whole) => whole.clone(),
            None => self.transaction.data(&self.head)?,
        };
        Ok((self.commit(changes::UPDATE, data)?, true))
    }

    /// Moves the version on, and notes the change as pending.
    fn commit(&mut self, kind: &str, change: Object) -> Result<u64, EdgeError> {
        let version = self.head.version.checked_add(1).filter(|next| i64::try_from(*next).is_ok());
        (self.head.version, self.head.updated_at) = (version.ok_or_else(|| damaged("version of the document"))?, self.now);
        self.note(kind, change)?;
        Ok(self.head.version)
    }

    fn note(&mut self, kind: &str, change: Object) -> Result<(), EdgeError> {
        if let Some(whole) = self.whole.take() {
            let millis = self.millis();
            // The row says the version that it makes.
            self.head.version -= 1;
            self.transaction.set_whole(&mut self.head, &whole, millis)?;
            self.head.version += 1;
        }
        changes::add(self.transaction, &mut self.head, kind, change)?;
        if interest::is_own(&self.head.name) {
            // Nobody asks which of these changes are not confirmed, and the list of them must not grow.
            let version = self.head.version;
            changes::confirm(self.transaction, &mut self.head, version)?;
        }
        self.transaction.store_head(&self.head);
        if *self.head.name == *POLICIES {
            self.transaction.reload_policies()?;
        }
        Ok(())
    }
}

/// A document that was changed at least once.
fn existing(snapshot: &Snapshot<'_>, name: &DocumentName) -> Result<Option<DocumentHead>, EdgeError> {
    Ok(snapshot.head(name.as_str())?.filter(|head| head.version > 0))
}
