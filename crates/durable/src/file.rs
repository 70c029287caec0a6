//! Files that are complete or absent, whatever happens while they are written.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::folder::sync_parent;

/// Names a file that is still being written; nothing else has this extension.
const UNFINISHED: &str = "unfinished";

/// Writes `bytes` to `path` so that a crash leaves the old file or the new one, and returns when it is on disk.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let unfinished = path.with_extension(format!("{}.{UNFINISHED}", NEXT.fetch_add(1, Ordering::Relaxed)));
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        sync_parent(path)
    })();
    if written.is_err() {
        // The first error is the one to tell; a left-over is removed at the next start.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// Removes a file and returns when its absence is on disk. A missing file is no error.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_parent(path),
    }
}

/// Makes an empty file for this user only, when it is missing. Its name is on disk with the next
/// [`sync_folder`](crate::folder::sync_folder).
pub fn create_private_file(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// Removes what an interrupted [`write()`] left in this folder.
pub fn remove_leftovers(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if is_unfinished(&path) {
            match fs::remove_file(path) {
                // Whoever wrote it is still there, and was done with it meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
    }
    Ok(())
}

/// Whether this is a file that is still being written, or what an interrupted [`write()`] left.
pub fn is_unfinished(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == UNFINISHED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_left_over_is_removed_and_a_finished_file_stays() {
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("a.json");
        write(&path, b"1").expect("written");
        write(&path, b"2").expect("replaced");
        fs::write(folder.path().join("a.7.unfinished"), "half").expect("written");
        remove_leftovers(folder.path()).expect("removed");
        assert_eq!(fs::read_dir(folder.path()).expect("there").count(), 1);
        assert_eq!(fs::read(&path).expect("there"), b"2");
        remove(&path).expect("removed");
        remove(&path).expect("absent already");
    }
}
