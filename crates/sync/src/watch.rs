//! Watching one document: who waits sees every state that stays, and not all that pass.

use edgeward_model::{EdgeError, ErrorKind};
use jiff::Timestamp;
use tokio::{sync::watch, task};

use crate::document::{Document, DocumentInfo};

/// Waits for changes of a document, made here or elsewhere, see [`Document::watch`].
#[derive(Debug)]
pub struct Watch {
    document: Document,
    commits: watch::Receiver<u64>,
    has_looked: bool,
    /// The version that was told, and when it came to be: one version may come from elsewhere in place of another.
    told: Option<(u64, Timestamp)>,
}

impl Watch {
    pub(crate) fn new(document: Document, commits: watch::Receiver<u64>) -> Self {
        // It listens before it looks, so that it misses no commit after its first look.
        Self { document, commits, has_looked: false, told: None }
    }

    /// Waits until the document is in another state than the one that this told last, and tells what is known of it then: the first
    /// time at once, unless there is no such document yet. May be dropped and called again. Runs within Tokio.
    pub async fn changed(&mut self) -> Result<DocumentInfo, EdgeError> {
        loop {
            if self.has_looked {
                self.commits.changed().await.map_err(|_| EdgeError::new(ErrorKind::Unavailable, "the store of the document is closed"))?;
            }
            self.has_looked = true;
            let document = self.document.clone();
            let found = task::spawn_blocking(move || document.info()).await;
            let found = found.map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to look at a document").with_source(error))??;
            let Some(info) = found else { continue };
            let now = Some((info.version, info.updated_at));
            if now != self.told {
                self.told = now;
                return Ok(info);
            }
        }
    }
}
