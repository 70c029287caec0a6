//! The file in which earlier releases kept desired state, and its way into the document.
//!
//! The document is durable before the file goes, so a crash at any moment loses nothing: what it finds then is the same in
//! both. A file that differs from the document was written later by an earlier release, and is not guessed about.

use std::{collections::BTreeMap, fs, io, path::Path};

use edgeward_durable as durable;
use edgeward_model::{EdgeError, ErrorKind, FunctionId, Object, SyncState};
use edgeward_sync::Document;
use serde::Deserialize;

use crate::desired::record::FunctionRecord;

/// Version of the file's format, the only one that there was.
const FORMAT: u32 = 1;
const NAME: &str = "desired.json";

#[derive(Deserialize)]
struct Contents {
    last_generation: u64,
    functions: BTreeMap<FunctionId, FunctionRecord>,
}

/// The part of the file that every release can read.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Refuses a folder with records that are not in the documents yet.
pub(crate) fn check_moved(folder: &Path) -> Result<(), EdgeError> {
    let path = folder.join(NAME);
    if path.exists() {
        let why = "holds functions' records of an earlier release; start the node once, which moves them into the documents";
        return Err(EdgeError::new(ErrorKind::Unavailable, format!("`{}` {why}", path.display())));
    }
    Ok(())
}

/// Moves the records of the file in this folder, where there is one, into the document.
pub(super) fn migrate(folder: &Path, document: &Document) -> Result<(), EdgeError> {
    let path = folder.join(NAME);
    if copy(&path, document)? {
        durable::remove(&path).map_err(|error| durable::disk_error("remove the file of an earlier release", &path, error))?;
        tracing::info!(path = %path.display(), "the functions' records moved into the documents");
    }
    Ok(())
}

/// Makes the document say what the file says. Returns whether there is a file.
fn copy(path: &Path, document: &Document) -> Result<bool, EdgeError> {
    let Some(contents) = read(path)? else { return Ok(false) };
    let records = contents.functions.values().map(|record| Ok((record.function.id.to_string(), record.to_value()?)));
    // The document goes on with the generations of the file.
    let state = SyncState::from_data(Object(records.collect::<Result<_, EdgeError>>()?), contents.last_generation)?;
    match document.view()? {
        None if state.version == 0 => {}
        None => {
            document.take_over(&state)?;
        }
        Some(found) if (found.version, &found.data) == (state.version, &state.data) => {}
        Some(_) => {
            let why = "the documents hold other functions' records; an earlier release wrote the file later: move it away, or the folder `documents` beside it";
            return Err(refused(path, why));
        }
    }
    Ok(true)
}

fn read(path: &Path) -> Result<Option<Contents>, EdgeError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(durable::disk_error("read desired state", path, error)),
    };
    let malformed =
        // The parser's own words may quote a value of an environment.
        |error: serde_json::Error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            refused(path, &format!("it is damaged at {place}; restore it from a backup, or move it away to begin anew"))
        };
    let Format { format } = serde_json::from_slice(&bytes).map_err(malformed)?;
    if format > FORMAT {
        return Err(refused(path, &format!("it has format {format}, and this release knows {FORMAT}; use a newer release")));
    }
    let contents: Contents = serde_json::from_slice(&bytes).map_err(malformed)?;
    for (id, record) in &contents.functions {
        record.function.validate()?;
        if *id != record.function.id || !(1..=contents.last_generation).contains(&record.generation) {
            return Err(refused(path, &format!("the record of function `{id}` is damaged; restore the file from a backup")));
        }
    }
    Ok(Some(contents))
}

fn refused(path: &Path, why: &str) -> EdgeError {
    EdgeError::new(ErrorKind::Internal, format!("failed to read desired state from `{}`: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use edgeward_model::{DocumentName, NodeId, Value};
    use edgeward_sync::{Documents, Epoch, Precondition, Store};

    use super::*;

    const WHOLE: &str = r#"{"format": 1, "last_generation": 7, "functions": {
        "a": {"generation": 3, "id": "a", "name": "a", "handler": {"native": "h"}, "environment": {"TOKEN": "s3cret"}},
        "b": {"generation": 6, "id": "b", "name": "b", "handler": {"native": "h"}}}}"#;

    fn document() -> Document {
        let store = Store::in_memory(NodeId::new("edge-01").expect("valid"), Epoch::draw().expect("random")).expect("opens");
        Documents::new(store).document(DocumentName::new("records").expect("valid"))
    }

    fn folder(text: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("temp folder");
        fs::write(folder.path().join(NAME), text).expect("written");
        folder
    }

    #[test]
    fn the_records_move_into_the_document_which_goes_on_with_the_generations() {
        let (folder, document) = (folder(WHOLE), document());
        migrate(folder.path(), &document).expect("moves");
        let state = document.view().expect("reads").expect("there");
        assert_eq!((state.version, state.data.0.len()), (7, 2));
        let record = FunctionRecord::of_value("a", &state.data.0["a"]).expect("a record");
        assert_eq!((record.generation, record.function.environment.0["TOKEN"].as_str()), (3, "s3cret"));
        assert!(!folder.path().join(NAME).exists() && document.pending().expect("reads").is_empty());
        migrate(folder.path(), &document).expect("nothing to do");
    }

    #[test]
    fn a_crash_before_the_file_is_gone_leaves_the_same_in_both() {
        let (folder, document) = (folder(WHOLE), document());
        assert!(copy(&folder.path().join(NAME), &document).expect("copies"));
        // Here it crashed.
        let before = document.view().expect("reads");
        migrate(folder.path(), &document).expect("goes on");
        assert!(document.view().expect("reads") == before && !folder.path().join(NAME).exists());
    }

    #[test]
    fn a_file_that_differs_from_the_document_is_refused_and_both_are_kept() {
        let (folder, document) = (folder(WHOLE), document());
        document.edit(Precondition::None, |draft| draft.set("a", &Value::Null)).expect("edits");
        let error = migrate(folder.path(), &document).expect_err("they differ");
        assert!(error.to_string().contains("an earlier release wrote the file later"), "{error}");
        assert!(folder.path().join(NAME).exists() && document.get("a").expect("reads").is_some());
    }

    #[test]
    fn a_damaged_or_newer_file_is_refused_and_kept() {
        let wrong_type = r#"{"format":1,"last_generation":1,"functions":{"a":"s3cret"}}"#;
        let late = WHOLE.replace("\"last_generation\": 7", "\"last_generation\": 5");
        let renamed = WHOLE.replace("\"id\": \"a\"", "\"id\": \"c\"");
        for (text, why) in [
            ("{\"format\":1,", "damaged"),
            ("", "damaged"),
            ("{\"format\":2}", "newer release"),
            (wrong_type, "damaged at line 1"),
            (&late, "function `b` is damaged"),
            (&renamed, "function `a` is damaged"),
        ] {
            let (folder, document) = (folder(text), document());
            let error = migrate(folder.path(), &document).expect_err("refused");
            assert!(error.to_string().contains(why) && !error.chain().contains("s3cret"), "{error}");
            assert_eq!(fs::read_to_string(folder.path().join(NAME)).expect("kept"), text);
            assert!(document.view().expect("reads").is_none());
        }
    }

    #[test]
    fn a_file_without_a_change_leaves_no_document() {
        let (folder, document) = (folder(r#"{"format": 1, "last_generation": 0, "functions": {}}"#), document());
        migrate(folder.path(), &document).expect("moves");
        assert!(document.view().expect("reads").is_none() && !folder.path().join(NAME).exists());
    }
}
