//! Rows that come from elsewhere, on their way into the documents: what they change is gathered by document, so that each gets one
//! version and one entry of its history.

use std::{collections::BTreeMap, sync::Arc};

use edgeward_model::{EdgeError, Object, Value, python_json};
use jiff::Timestamp;

use crate::{
    causality::Position,
    changes,
    error::damaged_row,
    policy::POLICIES,
    row::Slot,
    snapshot::{DocumentHead, members},
    transaction::{Transaction, count_keys},
    view::{KeyRows, NewValue, Shown, Stored},
};

/// The documents that a frame changes.
#[derive(Default)]
pub(crate) struct Merge {
    documents: BTreeMap<Arc<str>, Touched>,
}

struct Touched {
    head: DocumentHead,
    /// What the view has otherwise, as a merge patch.
    patch: Object,
    /// The greatest version of a row.
    version: u64,
    /// Its floor, once it was looked up.
    floor: Option<Position>,
}

/// The rows of one key, before and while they change.
pub(crate) struct Place {
    pub(crate) rows: KeyRows,
    before: Option<Shown>,
}

impl Merge {
    /// The document of this name, which is made when there is none.
    pub(crate) fn head(&mut self, transaction: &mut Transaction<'_>, document: &Arc<str>) -> Result<&mut DocumentHead, EdgeError> {
        if !self.documents.contains_key(document) {
            let head = transaction.document_or_new(document)?;
            self.documents.insert(Arc::clone(document), Touched { head, patch: Object::default(), version: 0, floor: None });
        }
        Ok(&mut self.documents.get_mut(document).expect("it was inserted").head)
    }

    /// Up to which position the tombstones of a document are forgotten.
    pub(crate) fn floor(&mut self, transaction: &mut Transaction<'_>, document: &Arc<str>) -> Result<Position, EdgeError> {
        self.head(transaction, document)?;
        let touched = self.documents.get_mut(document).expect("its head was looked up");
        if touched.floor.is_none() {
            touched.floor = Some(transaction.floor(touched.head.id)?);
        }
        Ok(touched.floor.unwrap_or(0))
    }

    /// The rows of the key of a slot.
    pub(crate) fn place(
        &mut self,
        transaction: &mut Transaction<'_>,
        document: &Arc<str>,
        key: &str,
        slot: &Slot,
    ) -> Result<Place, EdgeError> {
        let head = self.head(transaction, document)?;
        let rows = match slot {
            Slot::Whole | Slot::Floor => {
                KeyRows(transaction.row(head, key, slot)?.map(|stored| (slot.clone(), stored)).into_iter().collect())
            }
            _ => transaction.rows(head, key)?,
        };
        let before = rows.shown();
        Ok(Place { rows, before })
    }

    /// Stores a row.
    pub(crate) fn put(
        &mut self,
        transaction: &mut Transaction<'_>,
        document: &Arc<str>,
        key: &str,
        slot: &Slot,
        stored: Stored,
        place: &mut Place,
    ) -> Result<(), EdgeError> {
        let touched = self.documents.get_mut(document).expect("its place was looked up");
        transaction.put_row(&touched.head, key, slot, &stored)?;
        touched.version = touched.version.max(stored.row.version);
        match slot {
            Slot::Whole => {
                let members = stored.row.value().map(|whole| members(whole)).transpose()?.unwrap_or_default();
                touched.head.keys = members.len() as u64;
                touched.patch = members
                    .into_iter()
                    .map(|(key, text)| Ok((key, python_json::read(&text)?)))
                    .collect::<Result<BTreeMap<_, _>, EdgeError>>()
                    .map(Object)?;
            }
            Slot::Floor => touched.floor = None,
            _ => {
                place.rows.put(slot, stored);
                touched.show(key, place)?;
            }
        }
        Ok(())
    }

    /// Sets a key as this replica's own write; returns whether that changed anything.
    pub(crate) fn set(
        &mut self,
        transaction: &mut Transaction<'_>,
        document: &Arc<str>,
        key: &str,
        value: Option<&Value>,
        millis: u64,
    ) -> Result<bool, EdgeError> {
        let text = value.map(|value| python_json::write(value).map(|text| NewValue { text: Arc::from(text), raw: None })).transpose()?;
        self.head(transaction, document)?;
        let touched = self.documents.get_mut(document).expect("its head was looked up");
        let wrote = transaction.set(&mut touched.head, key, text, millis)?;
        if wrote {
            touched.patch.0.insert(key.to_owned(), value.cloned().unwrap_or_default());
        }
        Ok(wrote)
    }

    /// Writes a register anew, as this hub decided about it in this term.
    pub(crate) fn decide(
        &mut self,
        transaction: &mut Transaction<'_>,
        document: &Arc<str>,
        key: &str,
        value: Option<NewValue>,
        term: u64,
        millis: u64,
    ) -> Result<(), EdgeError> {
        let mut place = self.place(transaction, document, key, &Slot::Register)?;
        let touched = self.documents.get_mut(document).expect("its place was looked up");
        transaction.decide(&mut touched.head, key, &mut place.rows, value, term, millis)?;
        touched.show(key, &mut place)
    }

    /// Forgets a row.
    pub(crate) fn remove(
        &mut self,
        transaction: &mut Transaction<'_>,
        document: &Arc<str>,
        key: &str,
        slot: &Slot,
        place: &mut Place,
    ) -> Result<(), EdgeError> {
        let touched = self.documents.get_mut(document).expect("its place was looked up");
        transaction.delete_row(&touched.head, key, slot)?;
        place.rows.remove(slot);
        touched.show(key, place)
    }

    /// Notes what changed of each document.
    pub(crate) fn finish(self, transaction: &mut Transaction<'_>, now: Timestamp) -> Result<(), EdgeError> {
        for (name, Touched { mut head, patch, version, .. }) in self.documents {
            if patch.0.is_empty() {
                head.version = head.version.max(version);
                transaction.store_head(&head);
                continue;
            }
            // What a reader has seen at one version must not become another.
            head.version = if version > head.version { version } else { head.version.saturating_add(1) };
            head.updated_at = now;
            changes::add(transaction, &mut head, changes::MERGE, patch)?;
            transaction.store_head(&head);
            if *name == *POLICIES {
                transaction.reload_policies()?;
            }
        }
        Ok(())
    }
}

impl Touched {
    fn show(&mut self, key: &str, place: &mut Place) -> Result<(), EdgeError> {
        let now = place.rows.shown();
        if now.as_ref().map(|shown| &shown.value) != place.before.as_ref().map(|shown| &shown.value) {
            count_keys(&mut self.head, place.before.is_some(), now.is_some())?;
            let value = match &now {
                Some(shown) => python_json::read(&shown.value).map_err(|error| damaged_row(key).with_source(error))?,
                None => Value::Null,
            };
            self.patch.0.insert(key.to_owned(), value);
        }
        place.before = now;
        Ok(())
    }
}
