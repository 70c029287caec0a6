//! Desired state: which functions this node should run, with a generation for each.
//!
//! It is the document `edgeward.local.functions` of the node, which never leaves it: a key for each function, its record as the
//! value. A generation is the version that the document had with the change, so generations grow over all functions and are
//! never used twice: a precondition cannot match a record that was deleted and made anew. Reading takes a snapshot and never
//! waits for a change that is on its way to the disk.

mod file;
pub mod record;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use edgeward_model::{DocumentName, EdgeError, EdgeFunction, ErrorKind, FunctionId, limits::FUNCTIONS_MAX};
use edgeward_sync::{Document, Documents, Draft, Precondition as DocumentPrecondition, policy::LOCAL_PREFIX};
use parking_lot::{Mutex, MutexGuard};

use crate::desired::record::FunctionRecord;

pub(crate) use file::check_moved;

/// What must hold for a change to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    #[default]
    None,
    /// The record is there, whatever its generation.
    Present,
    /// The record is there with this generation.
    Generation(u64),
    /// There is no record.
    Absent,
}

impl Precondition {
    /// Whether it holds for a record of this generation, or where there is none; `what` names the record.
    pub(crate) fn check(self, what: impl FnOnce() -> String, found: Option<u64>) -> Result<(), EdgeError> {
        let why = match (self, found) {
            (Self::None, _) | (Self::Absent, None) | (Self::Present, Some(_)) => return Ok(()),
            (Self::Generation(wanted), Some(found)) if wanted == found => return Ok(()),
            (Self::Generation(wanted), Some(found)) => format!("is at generation {found}, not {wanted}"),
            (Self::Generation(wanted), None) => format!("does not exist, so it is not at generation {wanted}"),
            (Self::Absent, Some(found)) => format!("exists already, at generation {found}"),
            (Self::Present, None) => "does not exist".to_owned(),
        };
        Err(EdgeError::new(ErrorKind::Conflict, format!("{} {why}; read it again and retry", what())))
    }
}

/// The document and what it holds. Changing it blocks until the change is on disk.
#[derive(Debug)]
pub struct Desired {
    document: Document,
    snapshot: ArcSwap<Snapshot>,
    /// Held while the document is changed. True after a failed change: what is on disk is then not known.
    doubtful: Mutex<bool>,
}

/// The document at one version.
#[derive(Clone, Debug, Default)]
struct Snapshot {
    version: u64,
    records: BTreeMap<FunctionId, FunctionRecord>,
}

impl Desired {
    /// Reads the document; a missing one means that nothing is desired yet. What an earlier release left in a file in `folder`
    /// is moved into it first.
    pub fn open(documents: &Documents, folder: &Path) -> Result<Self, EdgeError> {
        let document = documents.document(document_name()?);
        file::migrate(folder, &document)?;
        let snapshot = ArcSwap::from_pointee(read(&document)?);
        Ok(Self { document, snapshot, doubtful: Mutex::new(false) })
    }

    /// Every record, by id.
    pub fn records(&self) -> Vec<FunctionRecord> {
        self.snapshot.load().records.values().cloned().collect()
    }

    /// One record.
    pub fn get(&self, id: &str) -> Option<FunctionRecord> {
        self.snapshot.load().records.get(id).cloned()
    }

    /// Makes this the record of its id, durably. Returns it with its new generation, and whether its id is new.
    pub fn put(&self, function: EdgeFunction, precondition: Precondition) -> Result<(FunctionRecord, bool), EdgeError> {
        let mut doubtful = self.settled()?;
        self.check(function.id.as_str(), precondition)?;
        let mut next = Snapshot::clone(&self.snapshot.load());
        next.version += 1;
        let record = FunctionRecord::new(next.version, function);
        let created = next.records.insert(record.function.id.clone(), record.clone()).is_none();
        if next.records.len() > FUNCTIONS_MAX {
            let message = format!("this node has {FUNCTIONS_MAX} functions, which is the most; undeploy one first");
            return Err(EdgeError::new(ErrorKind::TooLarge, message));
        }
        let (id, value) = (record.function.id.to_string(), record.to_value()?);
        self.change(&mut doubtful, next, move |draft| draft.set(&id, &value))?;
        Ok((record, created))
    }

    /// Removes the record of this id, durably. Returns whether there was one.
    pub fn delete(&self, id: &str, precondition: Precondition) -> Result<bool, EdgeError> {
        let mut doubtful = self.settled()?;
        self.check(id, precondition)?;
        let mut next = Snapshot::clone(&self.snapshot.load());
        next.version += 1;
        if next.records.remove(id).is_none() {
            return Ok(false);
        }
        let id = id.to_owned();
        self.change(&mut doubtful, next, move |draft| draft.remove(&id))?;
        Ok(true)
    }

    /// Takes the right to change. After a failed change the disk decides what is desired.
    fn settled(&self) -> Result<MutexGuard<'_, bool>, EdgeError> {
        let mut doubtful = self.doubtful.lock();
        if *doubtful {
            self.snapshot.store(Arc::new(read(&self.document)?));
            *doubtful = false;
        }
        Ok(doubtful)
    }

    fn check(&self, id: &str, precondition: Precondition) -> Result<(), EdgeError> {
        let found = self.snapshot.load().records.get(id).map(|record| record.generation);
        precondition.check(|| format!("function `{id}`"), found)
    }

    /// Makes one change, which leads from the snapshot to `next`. Had somebody else changed the document, it would be refused.
    fn change(
        &self,
        doubtful: &mut bool,
        next: Snapshot,
        edit: impl FnOnce(&mut Draft<'_, '_>) -> Result<(), EdgeError> + Send + 'static,
    ) -> Result<(), EdgeError> {
        let precondition = match self.snapshot.load().version {
            0 => DocumentPrecondition::Absent,
            version => DocumentPrecondition::Version(version),
        };
        self.document.edit(precondition, edit).inspect_err(|_| *doubtful = true)?;
        self.snapshot.store(Arc::new(next));
        Ok(())
    }
}

/// The records in these documents.
pub(crate) fn records_in(documents: &Documents) -> Result<Vec<FunctionRecord>, EdgeError> {
    Ok(read(&documents.document(document_name()?))?.records.into_values().collect())
}

/// The document of the records, which are of this node alone: their environment may be secret.
fn document_name() -> Result<DocumentName, EdgeError> {
    DocumentName::new(format!("{LOCAL_PREFIX}functions"))
}

fn read(document: &Document) -> Result<Snapshot, EdgeError> {
    let Some(state) = document.view()? else { return Ok(Snapshot::default()) };
    let records = state.data.0.iter().map(|(key, value)| {
        let record = FunctionRecord::of_value(key, value)?;
        Ok((record.function.id.clone(), record))
    });
    Ok(Snapshot { version: state.version, records: records.collect::<Result<_, EdgeError>>()? })
}

#[cfg(test)]
mod tests {
    use edgeward_model::{Handler, HandlerName, NodeId};
    use edgeward_sync::{Epoch, Store};

    use super::*;

    fn function(id: &str) -> EdgeFunction {
        EdgeFunction::new(id, id, Handler::Native(HandlerName::new("h").expect("valid"))).expect("valid")
    }

    fn put(desired: &Desired, id: &str, precondition: Precondition) -> (u64, bool) {
        let (record, created) = desired.put(function(id), precondition).expect("put");
        (record.generation, created)
    }

    fn open(folder: &Path) -> Desired {
        let store = Store::open(&folder.join("documents"), NodeId::new("edge-01").expect("valid"), Epoch::draw().expect("random"));
        Desired::open(&Documents::new(store.expect("opens")), folder).expect("opens")
    }

    #[test]
    fn what_was_put_is_there_after_opening_again_and_generations_go_on() {
        let folder = tempfile::tempdir().expect("temp folder");
        let desired = open(folder.path());
        assert_eq!(put(&desired, "a", Precondition::None), (1, true));
        assert_eq!(put(&desired, "a", Precondition::Generation(1)), (2, false));
        assert!(desired.delete("a", Precondition::None).expect("deleted"));
        assert!(!desired.delete("a", Precondition::None).expect("absent"));
        drop(desired);
        let desired = open(folder.path());
        let (generation, created) = put(&desired, "a", Precondition::Absent);
        assert!(created && generation > 2, "a generation is never used twice");
        assert_eq!(put(&desired, "a", Precondition::Present), (generation + 1, false));
        let record = desired.get("a");
        drop(desired);
        assert_eq!(open(folder.path()).get("a"), record);
    }

    #[test]
    fn a_stale_precondition_is_a_conflict_and_changes_nothing() {
        let folder = tempfile::tempdir().expect("temp folder");
        let desired = open(folder.path());
        desired.put(function("a"), Precondition::None).expect("put");
        for precondition in [Precondition::Generation(7), Precondition::Absent] {
            let error = desired.put(function("a"), precondition).expect_err("stale");
            assert_eq!(error.kind(), ErrorKind::Conflict);
        }
        for precondition in [Precondition::Generation(1), Precondition::Present] {
            assert_eq!(desired.delete("b", precondition).expect_err("absent").kind(), ErrorKind::Conflict);
        }
        assert_eq!(desired.get("a").expect("there").generation, 1);
    }

    #[test]
    fn a_document_that_somebody_else_changed_is_read_again_before_the_next_change() {
        let folder = tempfile::tempdir().expect("temp folder");
        let desired = open(folder.path());
        put(&desired, "a", Precondition::None);
        desired.document.edit(DocumentPrecondition::None, |draft| draft.remove("a")).expect("edits");
        assert_eq!(desired.put(function("b"), Precondition::None).expect_err("another version").kind(), ErrorKind::Conflict);
        assert_eq!(put(&desired, "c", Precondition::None), (3, true));
        assert!(desired.get("a").is_none() && desired.get("b").is_none());
    }

    #[test]
    fn the_list_of_unconfirmed_changes_does_not_grow() {
        let folder = tempfile::tempdir().expect("temp folder");
        let desired = open(folder.path());
        put(&desired, "a", Precondition::None);
        desired.delete("a", Precondition::None).expect("deleted");
        assert!(desired.document.pending().expect("reads").is_empty());
    }

    #[test]
    fn reading_does_not_wait_for_a_change_on_its_way_to_the_disk() {
        let folder = tempfile::tempdir().expect("temp folder");
        let desired = open(folder.path());
        put(&desired, "a", Precondition::None);
        let changing = desired.doubtful.lock();
        assert_eq!((desired.records().len(), desired.get("a").is_some()), (1, true));
        drop(changing);
    }

    #[test]
    fn one_function_more_than_the_most_is_refused() {
        let folder = tempfile::tempdir().expect("temp folder");
        let desired = open(folder.path());
        put(&desired, "f0", Precondition::None);
        let mut full = Snapshot::clone(&desired.snapshot.load());
        for n in 1..FUNCTIONS_MAX {
            let function = function(&format!("f{n}"));
            full.records.insert(function.id.clone(), FunctionRecord::new(1, function));
        }
        desired.snapshot.store(Arc::new(full));
        assert_eq!(desired.put(function("a"), Precondition::None).expect_err("full").kind(), ErrorKind::TooLarge);
        put(&desired, "f0", Precondition::None);
    }
}
