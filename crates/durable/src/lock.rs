//! The lock of a folder: one process has it, and it goes with the process.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use edgeward_model::{EdgeError, ErrorKind};

use crate::{error::disk_error, file::create_private_file};

/// The right to use a folder, held until it is dropped.
#[derive(Debug)]
pub struct FolderLock {
    _file: fs::File,
}

impl FolderLock {
    /// Locks `folder`, which must exist, by the empty file of this name inside.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when another process has it.
    pub fn take(folder: &Path, file_name: &str) -> Result<Self, EdgeError> {
        let path = folder.join(file_name);
        let failed = |error| disk_error("lock the folder", folder, error);
        loop {
            let file = create_private_file(&path).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) => {
                    let message =
                        format!("the folder `{}` is in use by another process; stop it, or choose another folder", folder.display());
                    return Err(EdgeError::new(ErrorKind::Conflict, message));
                }
                Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
            }
            // Who had the lock may have put another folder in its place meanwhile.
            if is_at(&file, &path).map_err(failed)? {
                return Ok(Self { _file: file });
            }
        }
    }
}

fn is_at(file: &fs::File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_locked_once_and_free_again_when_its_lock_goes() {
        let folder = tempfile::tempdir().expect("temp folder");
        let lock = FolderLock::take(folder.path(), "lock").expect("free");
        let error = FolderLock::take(folder.path(), "lock").expect_err("in use");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().contains("in use by another process"), "{error}");
        FolderLock::take(folder.path(), "another").expect("another lock");
        drop(lock);
        FolderLock::take(folder.path(), "lock").expect("free");
        assert_eq!(FolderLock::take(&folder.path().join("absent"), "lock").expect_err("no folder").kind(), ErrorKind::Internal);
    }

    #[test]
    fn a_lock_of_a_file_that_was_replaced_is_none() {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("lock");
        let file = create_private_file(&path).expect("made");
        assert!(is_at(&file, &path).expect("there"));
        fs::remove_file(&path).expect("removed");
        assert!(!is_at(&file, &path).expect("absent"));
        create_private_file(&path).expect("made");
        assert!(!is_at(&file, &path).expect("another"));
    }
}
