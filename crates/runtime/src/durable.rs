//! Files that are complete or absent, whatever happens while they are written.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

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

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    fs::File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Makes a folder and those above it, for this user only, and returns when the new ones are on disk: what is then
/// written inside cannot vanish with them.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()).collect();
    for folder in missing.into_iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists || !folder.is_dir() => return Err(error),
            _ => sync_parent(folder)?,
        }
    }
    Ok(())
}

/// Removes what an interrupted [`write()`] left in this folder.
pub fn remove_leftovers(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
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

    #[test]
    fn every_missing_folder_is_made_for_this_user_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("temp folder");
        let path = folder.path().join("a/b/c");
        create_private_folder(&path).expect("made");
        create_private_folder(&path).expect("there already");
        for made in ["a", "a/b", "a/b/c"] {
            let mode = fs::metadata(folder.path().join(made)).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{made}");
        }
        fs::write(folder.path().join("file"), "").expect("written");
        assert!(create_private_folder(&folder.path().join("file")).is_err());
        sync_parent(Path::new("relative")).expect("its parent is the working folder");
    }
}
