//! The keys that a fleet trusts: a document that its hub writes and every node has, with a key for each of them.

use std::collections::BTreeSet;

use edgeward_model::{
    DocumentName, EdgeError, ErrorKind, PublicKey,
    limits::{NAME_BYTES_MAX, TRUSTED_KEYS_MAX},
};
use edgeward_sync::{Document, Documents, Precondition, Watch, policy::FLEET_PREFIX};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::stored;

/// A key that a fleet trusts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// The key.
    pub key: PublicKey,
    /// For people; it may be empty.
    pub name: String,
    /// When it was added.
    pub added_at: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(default)]
    name: String,
    added_at: Timestamp,
}

/// The document of the keys. Its calls wait for the disk.
#[derive(Clone, Debug)]
pub struct TrustedKeys {
    document: Document,
}

impl TrustedKeys {
    pub(super) fn new(documents: &Documents) -> Result<Self, EdgeError> {
        Ok(Self { document: documents.document(DocumentName::new(format!("{FLEET_PREFIX}trusted-keys"))?) })
    }

    pub(super) fn watch(&self) -> Watch {
        self.document.watch()
    }

    /// The keys, by their text. One of a later release is left out.
    pub fn list(&self) -> Result<Vec<TrustedKey>, EdgeError> {
        let data = self.document.view()?.map(|state| state.data.0).unwrap_or_default();
        let keys = data.iter().filter_map(|(key, value)| Some((key.parse::<PublicKey>().ok()?, key, value)));
        keys.map(|(key, text, value)| {
            let Stored { name, added_at } = stored::of_value(value, || format!("trusted key `{text}`"))?;
            Ok(TrustedKey { key, name, added_at })
        })
        .collect()
    }

    /// The keys that are trusted, none where there is no entry at all. An entry that this release does not understand is no key, and all the same
    /// says that signatures are required.
    pub(super) fn trusted(&self) -> Result<Option<BTreeSet<PublicKey>>, EdgeError> {
        let entries = self.document.keys(None, usize::MAX)?;
        Ok((!entries.is_empty()).then(|| entries.iter().filter_map(|entry| entry.parse().ok()).collect()))
    }

    /// Trusts a key from now on.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when it is trusted already, [`ErrorKind::TooLarge`] when there are as many as may be, [`ErrorKind::InvalidInput`] for
    /// a name that is none, [`ErrorKind::Forbidden`] on a node of a fleet.
    pub fn add(&self, TrustedKey { key, name, added_at }: TrustedKey) -> Result<(), EdgeError> {
        if name.len() > NAME_BYTES_MAX || name.chars().any(char::is_control) {
            return Err(EdgeError::invalid(format!(
                "the name of key `{key}` is not valid: it is one line of at most {NAME_BYTES_MAX} bytes"
            )));
        }
        let (key, value) = (key.to_string(), stored::to_value(&Stored { name, added_at })?);
        let edited = self.document.edit(Precondition::None, move |draft| {
            if draft.get(&key)?.is_some() {
                return Err(EdgeError::new(ErrorKind::Conflict, format!("the key `{key}` is trusted already")));
            }
            if draft.keys(None, TRUSTED_KEYS_MAX)?.len() == TRUSTED_KEYS_MAX {
                let why = format!("there are {TRUSTED_KEYS_MAX} trusted keys, which is the most; remove one first");
                return Err(EdgeError::new(ErrorKind::TooLarge, why));
            }
            draft.set(&key, &value)
        });
        edited.map(drop)
    }

    /// Trusts a key no more. With the last of them ends that anything need be signed, so that is to be said by `allow_unsigned`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it was not trusted, [`ErrorKind::Conflict`] when it is the last, [`ErrorKind::Forbidden`] on a node of a fleet.
    pub fn remove(&self, key: &PublicKey, allow_unsigned: bool) -> Result<(), EdgeError> {
        let key = key.to_string();
        let edited = self.document.edit(Precondition::None, move |draft| {
            if draft.get(&key)?.is_none() {
                return Err(EdgeError::new(ErrorKind::NotFound, format!("trusted key not found: `{key}`")));
            }
            if !allow_unsigned && draft.keys(None, 2)?.len() == 1 {
                let why = format!("`{key}` is the last trusted key, and without one everything may run unsigned; add another first");
                return Err(EdgeError::new(ErrorKind::Conflict, why));
            }
            draft.remove(&key)
        });
        edited.map(drop)
    }
}
