//! What a node is given by the hub of its fleet: it is in a document of the node's, so that it is there while the hub is not.

use std::{sync::Arc, time::Duration};

use edgeward_model::{EdgeError, ErrorKind, NodeId};
use edgeward_sync::{Document, Documents};
use tokio::time::sleep;

use super::{
    Allotted, documents,
    record::{self, Records},
};

/// Pause before the document is looked at again that could not be read.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// Where the hub says what it gives to a node.
pub(crate) fn document<T: Allotted>(documents: &Documents, node: &NodeId) -> Result<Document, EdgeError> {
    Ok(documents.document(documents::name::<T>(node)?))
}

/// What is given. One that cannot be read stays as it was.
pub(crate) fn read<T: Allotted>(document: &Document, before: &Records<T>) -> Result<Records<T>, EdgeError> {
    let mut records = Records::<T>::new();
    for (key, value) in document.entries("")? {
        match record::of_value::<T>(&key, &value) {
            Ok(record) => drop(records.insert(record.wanted.id().clone(), Arc::new(record))),
            Err(error) => {
                tracing::warn!(id = key, error = error.chain(), "an assigned {} could not be read; it stays as it was", T::KIND);
                records.extend(before.get(key.as_str()).map(|record| (record.wanted.id().clone(), Arc::clone(record))));
            }
        }
    }
    Ok(records)
}

/// Takes what is given now and after each change, for ever.
pub(crate) async fn follow<T: Allotted, F: Future<Output = Result<(), EdgeError>>>(document: &Document, take: impl Fn() -> F) {
    let mut given = document.watch();
    loop {
        let taken = match given.changed().await {
            Ok(_) => take().await,
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            tracing::warn!(error = error.chain(), "the assigned {}s could not be taken; they stay as they were", T::KIND);
            given = document.watch();
            sleep(LOOK_AGAIN_AFTER).await;
        }
    }
}

/// Refuses to change on a node what is of its hub.
pub(crate) fn check_own<T: Allotted>(given: &Records<T>, id: &str) -> Result<(), EdgeError> {
    if !given.contains_key(id) {
        return Ok(());
    }
    let message = format!("{} `{id}` is assigned to this node by the hub of its fleet; change it there", T::KIND);
    Err(EdgeError::new(ErrorKind::Forbidden, message))
}
