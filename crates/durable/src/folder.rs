//! Folders whose names are on disk before anything is written inside.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

/// Makes a folder and those above it, for this user only, and returns when the new ones are on disk: what is then
/// written inside cannot vanish with them.
pub fn create_private_folder(path: &Path) -> io::Result<()> {
    let missing: Vec<_> = path.ancestors().take_while(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()).collect();
    // A process that made the last one that is there may have died before it was on disk. None is made before those above it are.
    let last = missing.last().map_or(Some(path), |first_missing| first_missing.parent());
    if let Some(last) = last.filter(|folder| !folder.as_os_str().is_empty()) {
        match sync_parent(last) {
            // Then this user did not make it.
            Err(error) if error.kind() != ErrorKind::PermissionDenied => return Err(error),
            _ => {}
        }
    }
    for folder in missing.into_iter().rev() {
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists || !folder.is_dir() => return Err(error),
            _ => sync_parent(folder)?,
        }
    }
    Ok(())
}

/// Returns when the names in this folder are on disk. The files need a sync of their own.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

/// Returns when the name of this file or folder is on disk.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_folder(parent.unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        create_private_folder(Path::new("/")).expect("there already");
    }
}
