//! A folder for what a demonstration writes.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;

/// A folder that goes away with its owner.
pub(super) struct TempFolder(pub(super) PathBuf);

impl TempFolder {
    /// A new one.
    pub(super) fn create() -> anyhow::Result<Self> {
        let nanos = jiff::Timestamp::now().duration_since(jiff::Timestamp::UNIX_EPOCH).unsigned_abs();
        let name = format!("edgeward-demo-{}-{}", std::process::id(), Duration::as_nanos(&nanos));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).with_context(|| format!("failed to make the folder `{}`", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        // A thread may still be writing a file there. What cannot be removed is only a little rubbish in the folder
        // for it.
        let _ = (0..3).find(|_| std::fs::remove_dir_all(&self.0).is_ok());
    }
}
