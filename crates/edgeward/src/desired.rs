//! Desired state: which functions this node should run, with a generation for each.
//!
//! One file, replaced as a whole: after any crash it holds the state before or after a change, and a change that
//! was acknowledged is on disk. Generations grow over all functions and are never used twice, so that a
//! precondition cannot match a record that was deleted and made anew.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use edgeward_model::{EdgeError, EdgeFunction, ErrorKind, FunctionId, limits::FUNCTIONS_MAX};
use edgeward_runtime::durable;
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
    /// The record is there with this generation.
    Generation(u64),
    /// There is no record.
    Absent,
}

/// The file and what it holds.
#[derive(Debug)]
pub struct Desired {
    path: PathBuf,
    contents: Contents,
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
        let contents = read(&path)?;
        Ok(Self { path, contents, doubtful: false })
    }

    /// Every record, by id.
    pub fn records(&self) -> impl Iterator<Item = &FunctionRecord> {
        self.contents.functions.values()
    }

    /// One record.
    pub fn get(&self, id: &str) -> Option<&FunctionRecord> {
        self.contents.functions.get(id)
    }

    /// Makes this the record of its id, durably. Returns it with its new generation.
    pub fn put(&mut self, function: EdgeFunction, precondition: Precondition) -> Result<FunctionRecord, EdgeError> {
        self.settle_doubt()?;
        self.check(function.id.as_str(), precondition)?;
        let mut next = self.contents.clone();
        next.last_generation += 1;
        let record = FunctionRecord { generation: next.last_generation, function };
        next.functions.insert(record.function.id.clone(), record.clone());
        if next.functions.len() > FUNCTIONS_MAX {
            return Err(EdgeError::new(ErrorKind::Overloaded, format!("this node has {FUNCTIONS_MAX} functions, which is the most")));
        }
        self.replace(next)?;
        Ok(record)
    }

    /// Removes the record of this id, durably. Returns whether there was one.
    pub fn delete(&mut self, id: &str, precondition: Precondition) -> Result<bool, EdgeError> {
        self.settle_doubt()?;
        self.check(id, precondition)?;
        let mut next = self.contents.clone();
        if next.functions.remove(id).is_none() {
            return Ok(false);
        }
        self.replace(next)?;
        Ok(true)
    }

    fn check(&self, id: &str, precondition: Precondition) -> Result<(), EdgeError> {
        let found = self.get(id).map(|record| record.generation);
        let conflict = |what: String| Err(EdgeError::new(ErrorKind::Conflict, format!("function `{id}` {what}; read it again and retry")));
        match (precondition, found) {
            (Precondition::None, _) | (Precondition::Absent, None) => Ok(()),
            (Precondition::Generation(wanted), Some(found)) if wanted == found => Ok(()),
            (Precondition::Generation(wanted), Some(found)) => conflict(format!("is at generation {found}, not {wanted}")),
            (Precondition::Generation(wanted), None) => conflict(format!("does not exist, so it is not at generation {wanted}")),
            (Precondition::Absent, Some(found)) => conflict(format!("exists already, at generation {found}")),
        }
    }

    fn replace(&mut self, next: Contents) -> Result<(), EdgeError> {
        let failed = |error: Box<dyn std::error::Error + Send + Sync>, path: &Path| {
            EdgeError::new(ErrorKind::Internal, format!("failed to write desired state to `{}`", path.display())).with_source(error)
        };
        let json = serde_json::to_vec_pretty(&next).map_err(|error| failed(error.into(), &self.path))?;
        if let Err(error) = durable::write(&self.path, &json) {
            self.doubtful = true;
            return Err(failed(error.into(), &self.path));
        }
        self.contents = next;
        Ok(())
    }

    /// After a failed write the disk decides what is desired.
    fn settle_doubt(&mut self) -> Result<(), EdgeError> {
        if self.doubtful {
            self.contents = read(&self.path)?;
            self.doubtful = false;
        }
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
        |error: serde_json::Error| failed(format!("it is damaged ({error}); restore it from a backup, or move it away to begin anew"));
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

    #[test]
    fn what_was_put_is_there_after_opening_again_and_generations_go_on() {
        let folder = tempfile::tempdir().expect("temp folder");
        let mut desired = Desired::open(folder.path()).expect("opens");
        assert_eq!(desired.put(function("a"), Precondition::None).expect("put").generation, 1);
        assert_eq!(desired.put(function("a"), Precondition::Generation(1)).expect("put").generation, 2);
        assert!(desired.delete("a", Precondition::None).expect("deleted"));
        assert!(!desired.delete("a", Precondition::None).expect("absent"));
        let mut desired = Desired::open(folder.path()).expect("opens");
        assert_eq!(desired.put(function("a"), Precondition::Absent).expect("put").generation, 3, "a generation is never used twice");
        assert_eq!(Desired::open(folder.path()).expect("opens").get("a"), desired.get("a"));
    }

    #[test]
    fn a_stale_precondition_is_a_conflict_and_changes_nothing() {
        let folder = tempfile::tempdir().expect("temp folder");
        let mut desired = Desired::open(folder.path()).expect("opens");
        desired.put(function("a"), Precondition::None).expect("put");
        for precondition in [Precondition::Generation(7), Precondition::Absent] {
            let error = desired.put(function("a"), precondition).expect_err("stale");
            assert_eq!(error.kind(), ErrorKind::Conflict);
        }
        assert_eq!(desired.delete("b", Precondition::Generation(1)).expect_err("absent").kind(), ErrorKind::Conflict);
        assert_eq!(desired.get("a").expect("there").generation, 1);
    }

    #[test]
    fn a_damaged_or_newer_file_is_refused_and_kept() {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("desired.json");
        for (text, why) in [("{\"format\":1,", "damaged"), ("{\"format\":2}", "newer release")] {
            fs::write(&path, text).expect("written");
            let error = Desired::open(folder.path()).expect_err("refused");
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(fs::read_to_string(&path).expect("kept"), text);
        }
    }

    #[test]
    fn after_a_failed_write_the_disk_decides() {
        let folder = tempfile::tempdir().expect("temp folder");
        let mut desired = Desired::open(folder.path()).expect("opens");
        desired.put(function("a"), Precondition::None).expect("put");
        let path = std::mem::replace(&mut desired.path, folder.path().join("absent").join("desired.json"));
        assert_eq!(desired.put(function("b"), Precondition::None).expect_err("no folder").kind(), ErrorKind::Internal);
        desired.path = path;
        assert!(desired.get("b").is_none());
        assert_eq!(desired.put(function("c"), Precondition::None).expect("put").generation, 2);
        assert!(desired.get("a").is_some());
    }
}
