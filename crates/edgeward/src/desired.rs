//! Desired state: which functions this node should run, with a generation for each.
//!
//! One file, replaced as a whole: after any crash it holds the state before or after a change, and a change that
//! was acknowledged is on disk. Generations grow over all functions and are never used twice, so that a
//! precondition cannot match a record that was deleted and made anew. Reading takes a snapshot and never waits for
//! a change that is on its way to the disk.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use edgeward_durable as durable;
use edgeward_model::{EdgeError, EdgeFunction, ErrorKind, FunctionId, limits::FUNCTIONS_MAX};
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

/// Version of the file's format. A newer one is refused.
const FORMAT: u32 = 1;

/// A function that should run, and the generation of that wish.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FunctionRecord {
    /// Grows with every change of desired state on this node.
    pub generation: u64,
    /// The function.
    #[serde(flatten)]
    pub function: EdgeFunction,
}

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

/// The file and what it holds. Changing it blocks until the change is on disk.
#[derive(Debug)]
pub struct Desired {
    contents: ArcSwap<Contents>,
    file: Mutex<File>,
}

/// The file, held while it is replaced.
#[derive(Debug)]
struct File {
    path: PathBuf,
    /// Set after a failed write: what is on disk is then not known.
    doubtful: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Contents {
    format: u32,
    last_generation: u64,
    functions: BTreeMap<FunctionId, FunctionRecord>,
}

impl Desired {
    /// Reads the file in this folder; a missing one means that nothing is desired yet.
    pub fn open(folder: &Path) -> Result<Self, EdgeError> {
        let path = folder.join("desired.json");
        let contents = ArcSwap::from_pointee(read(&path)?);
        Ok(Self { contents, file: Mutex::new(File { path, doubtful: false }) })
    }

    /// Every record, by id.
    pub fn records(&self) -> Vec<FunctionRecord> {
        self.contents.load().functions.values().cloned().collect()
    }

    /// One record.
    pub fn get(&self, id: &str) -> Option<FunctionRecord> {
        self.contents.load().functions.get(id).cloned()
    }

    /// Makes this the record of its id, durably. Returns it with its new generation, and whether its id is new.
    pub fn put(&self, function: EdgeFunction, precondition: Precondition) -> Result<(FunctionRecord, bool), EdgeError> {
        let mut file = self.settled_file()?;
        self.check(function.id.as_str(), precondition)?;
        let mut next = Contents::clone(&self.contents.load());
        next.last_generation += 1;
        let record = FunctionRecord { generation: next.last_generation, function };
        let created = next.functions.insert(record.function.id.clone(), record.clone()).is_none();
        if next.functions.len() > FUNCTIONS_MAX {
            let message = format!("this node has {FUNCTIONS_MAX} functions, which is the most; undeploy one first");
            return Err(EdgeError::new(ErrorKind::TooLarge, message));
        }
        self.replace(&mut file, next)?;
        Ok((record, created))
    }

    /// Removes the record of this id, durably. Returns whether there was one.
    pub fn delete(&self, id: &str, precondition: Precondition) -> Result<bool, EdgeError> {
        let mut file = self.settled_file()?;
        self.check(id, precondition)?;
        let mut next = Contents::clone(&self.contents.load());
        if next.functions.remove(id).is_none() {
            return Ok(false);
        }
        self.replace(&mut file, next)?;
        Ok(true)
    }

    /// Takes the file. After a failed write the disk decides what is desired.
    fn settled_file(&self) -> Result<MutexGuard<'_, File>, EdgeError> {
        let mut file = self.file.lock();
        if file.doubtful {
            self.contents.store(Arc::new(read(&file.path)?));
            file.doubtful = false;
        }
        Ok(file)
    }

    fn check(&self, id: &str, precondition: Precondition) -> Result<(), EdgeError> {
        let found = self.contents.load().functions.get(id).map(|record| record.generation);
        let conflict = |what: String| Err(EdgeError::new(ErrorKind::Conflict, format!("function `{id}` {what}; read it again and retry")));
        match (precondition, found) {
            (Precondition::None, _) | (Precondition::Absent, None) | (Precondition::Present, Some(_)) => Ok(()),
            (Precondition::Generation(wanted), Some(found)) if wanted == found => Ok(()),
            (Precondition::Generation(wanted), Some(found)) => conflict(format!("is at generation {found}, not {wanted}")),
            (Precondition::Generation(wanted), None) => conflict(format!("does not exist, so it is not at generation {wanted}")),
            (Precondition::Absent, Some(found)) => conflict(format!("exists already, at generation {found}")),
            (Precondition::Present, None) => conflict("does not exist".to_owned()),
        }
    }

    fn replace(&self, file: &mut File, next: Contents) -> Result<(), EdgeError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>, path: &Path| {
            EdgeError::new(ErrorKind::Internal, format!("failed to write desired state to `{}`", path.display())).with_source(error)
        };
        let json = serde_json::to_vec_pretty(&next).map_err(|error| failed(error.into(), &file.path))?;
        if let Err(error) = durable::write(&file.path, &json) {
            file.doubtful = true;
            return Err(failed(error.into(), &file.path));
        }
        self.contents.store(Arc::new(next));
        Ok(())
    }
}

/// The part of the file that every release can read.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

fn read(path: &Path) -> Result<Contents, EdgeError> {
    let failed =
        |why: String| EdgeError::new(ErrorKind::Internal, format!("failed to read desired state from `{}`: {why}", path.display()));
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Contents { format: FORMAT, last_generation: 0, functions: BTreeMap::new() });
        }
        Err(error) => return Err(failed(error.to_string())),
    };
    let malformed =
        // The parser's own words may quote a value of an environment.
        |error: serde_json::Error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            failed(format!("it is damaged at {place}; restore it from a backup, or move it away to begin anew"))
        };
    let Format { format } = serde_json::from_slice(&bytes).map_err(malformed)?;
    if format > FORMAT {
        return Err(failed(format!("it has format {format}, and this release knows {FORMAT}; use a newer release")));
    }
    let contents: Contents = serde_json::from_slice(&bytes).map_err(malformed)?;
    for record in contents.functions.values() {
        record.function.validate()?;
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use edgeward_model::{Handler, HandlerName};

    use super::*;

    fn function(id: &str) -> EdgeFunction {
        EdgeFunction::new(id, id, Handler::Native(HandlerName::new("h").expect("valid"))).expect("valid")
    }

    fn put(desired: &Desired, id: &str, precondition: Precondition) -> (u64, bool) {
        let (record, created) = desired.put(function(id), precondition).expect("put");
        (record.generation, created)
    }

    #[test]
    fn what_was_put_is_there_after_opening_again_and_generations_go_on() {
        let folder = tempfile::tempdir().expect("temp folder");
        let desired = Desired::open(folder.path()).expect("opens");
        assert_eq!(put(&desired, "a", Precondition::None), (1, true));
        assert_eq!(put(&desired, "a", Precondition::Generation(1)), (2, false));
        assert!(desired.delete("a", Precondition::None).expect("deleted"));
        assert!(!desired.delete("a", Precondition::None).expect("absent"));
        let desired = Desired::open(folder.path()).expect("opens");
        assert_eq!(put(&desired, "a", Precondition::Absent), (3, true), "a generation is never used twice");
        assert_eq!(put(&desired, "a", Precondition::Present), (4, false));
        assert_eq!(Desired::open(folder.path()).expect("opens").get("a"), desired.get("a"));
    }

    #[test]
    fn a_stale_precondition_is_a_conflict_and_changes_nothing() {
        let folder = tempfile::tempdir().expect("temp folder");
        let desired = Desired::open(folder.path()).expect("opens");
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
    fn a_damaged_or_newer_file_is_refused_and_kept() {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("desired.json");
        let wrong_type = r#"{"format":1,"last_generation":1,"functions":{"a":"s3cret"}}"#;
        for (text, why) in [("{\"format\":1,", "damaged"), ("{\"format\":2}", "newer release"), (wrong_type, "damaged at line 1")] {
            fs::write(&path, text).expect("written");
            let error = Desired::open(folder.path()).expect_err("refused");
            assert!(error.to_string().contains(why) && !error.chain().contains("s3cret"), "{error}");
            assert_eq!(fs::read_to_string(&path).expect("kept"), text);
        }
    }

    #[test]
    fn after_a_failed_write_the_disk_decides() {
        let folder = tempfile::tempdir().expect("temp folder");
        let desired = Desired::open(folder.path()).expect("opens");
        desired.put(function("a"), Precondition::None).expect("put");
        let path = std::mem::replace(&mut desired.file.lock().path, folder.path().join("absent").join("desired.json"));
        assert_eq!(desired.put(function("b"), Precondition::None).expect_err("no folder").kind(), ErrorKind::Internal);
        desired.file.lock().path = path;
        assert!(desired.get("b").is_none());
        assert_eq!(put(&desired, "c", Precondition::None), (2, true));
        assert!(desired.get("a").is_some());
    }

    #[test]
    fn reading_does_not_wait_for_a_change_on_its_way_to_the_disk() {
        let folder = tempfile::tempdir().expect("temp folder");
        let desired = Desired::open(folder.path()).expect("opens");
        put(&desired, "a", Precondition::None);
        let changing = desired.file.lock();
        assert_eq!((desired.records().len(), desired.get("a").is_some()), (1, true));
        drop(changing);
    }

    #[test]
    fn one_function_more_than_the_most_is_refused() {
        let folder = tempfile::tempdir().expect("temp folder");
        let desired = Desired::open(folder.path()).expect("opens");
        let mut full = Contents::clone(&desired.contents.load());
        for n in 0..FUNCTIONS_MAX {
            let function = function(&format!("f{n}"));
            full.functions.insert(function.id.clone(), FunctionRecord { generation: 1, function });
        }
        desired.contents.store(Arc::new(full));
        assert_eq!(desired.put(function("a"), Precondition::None).expect_err("full").kind(), ErrorKind::TooLarge);
        put(&desired, "f0", Precondition::None);
    }
}
