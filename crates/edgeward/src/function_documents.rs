//! The documents of a node, as its functions change them: each call is one read or one atomic, durable edit.

use edgeward_model::{DocumentName, EdgeError};
use edgeward_runtime::{DocumentAccess, Swapped};
use edgeward_sync::{Documents, Draft, Precondition};

/// Lets the functions of a runtime reach these documents: for [`RuntimeOptions`](edgeward_runtime::RuntimeOptions).
#[derive(Clone, Debug)]
pub struct FunctionDocuments(pub Documents);

impl FunctionDocuments {
    fn edit<T: Send + 'static>(
        &self,
        document: &DocumentName,
        edit: impl FnOnce(&mut Draft<'_, '_>) -> Result<T, EdgeError> + Send + 'static,
    ) -> Result<T, EdgeError> {
        self.0.document(document.clone()).edit(Precondition::None, edit).map(|edited| edited.result)
    }
}

impl DocumentAccess for FunctionDocuments {
    fn get(&self, document: &DocumentName, key: &str) -> Result<Option<Vec<u8>>, EdgeError> {
        self.0.document(document.clone()).get_bytes(key)
    }

    fn keys(&self, document: &DocumentName, after: Option<&str>, limit: usize) -> Result<Vec<String>, EdgeError> {
        self.0.document(document.clone()).keys(after, limit)
    }

    fn write(&self, document: &DocumentName, writes: Vec<(String, Option<Vec<u8>>)>) -> Result<(), EdgeError> {
        self.edit(document, move |draft| {
            writes.iter().try_for_each(|(key, value)| match value {
                Some(value) => draft.set_bytes(key, value),
                None => draft.remove(key),
            })
        })
    }

    fn increment(&self, document: &DocumentName, key: String, by: i64) -> Result<i64, EdgeError> {
        self.edit(document, move |draft| draft.increment(&key, by))
    }

    fn swap(&self, document: &DocumentName, key: String, expected: Option<Vec<u8>>, value: Vec<u8>) -> Result<Swapped, EdgeError> {
        self.edit(document, move |draft| {
            let found = draft.get_bytes(&key)?;
            if found != expected {
                return Ok(Swapped::Found(found));
            }
            draft.set_bytes(&key, &value).map(|()| Swapped::Done)
        })
    }
}
