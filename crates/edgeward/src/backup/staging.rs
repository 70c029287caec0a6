//! A folder that is made beside its place and put there when it is complete: a crash leaves what was there, or the whole new one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use edgeward_durable::{FolderLock, create_private_folder, disk_error, remove, sync_folder};
use edgeward_model::{EdgeError, ErrorKind};
use rustix::{
    fs::{CWD, RenameFlags, renameat_with},
    io::Errno,
};

/// Marks a folder that is being made, and is locked meanwhile. A node removes it at its start.
const LOCK: &str = "lock.unfinished";

/// Removed when it is dropped before it was put in its place.
pub(super) struct Staging {
    path: PathBuf,
    place: PathBuf,
    /// The folder around both.
    parent: PathBuf,
    is_placed: bool,
    _lock: FolderLock,
}

impl Staging {
    /// Makes an empty folder beside `place`, with the folders above. What an interrupted one left is removed.
    pub(super) fn begin(place: &Path) -> Result<Self, EdgeError> {
        let invalid = || EdgeError::invalid(format!("the folder `{}` has no name of its own; give one that has", place.display()));
        let name = place.file_name().and_then(|name| name.to_str()).ok_or_else(invalid)?;
        let parent = place.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        let path = parent.join(format!("{name}.unfinished"));
        let failed = |error| disk_error("make a folder", &path, error);
        if !is_empty(&path)? && !path.join(LOCK).exists() {
            let why = "is in the way: an interrupted restore left there what it replaced; move it away or remove it";
            return Err(EdgeError::new(ErrorKind::Conflict, format!("`{}` {why}", path.display())));
        }
        create_private_folder(&path).map_err(failed)?;
        let lock = FolderLock::take(&path, LOCK)?;
        let staging = Self { path: path.clone(), place: place.to_owned(), parent, is_placed: false, _lock: lock };
        staging.clear().map_err(failed)?;
        Ok(staging)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes what is in it.
    pub(super) fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else if entry.file_name() != LOCK {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Puts it in its place, where there is nothing or an empty folder. Its files are on disk already.
    pub(super) fn place(mut self) -> Result<(), EdgeError> {
        sync(&self.path)?;
        fs::rename(&self.path, &self.place).map_err(|error| match error.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => not_empty(&self.place),
            _ => in_place_failed(&self.place, error),
        })?;
        self.finish()
    }

    /// Puts it in its place, and what is there to `aside`. At every moment one of both is there, whole.
    pub(super) fn exchange(mut self, aside: &Path) -> Result<(), EdgeError> {
        sync(&self.path)?;
        renameat_with(CWD, &self.path, CWD, &self.place, RenameFlags::EXCHANGE).map_err(|error| match error {
            Errno::INVAL | Errno::NOSYS => {
                let why = "cannot exchange two folders; move the old one away yourself";
                EdgeError::new(ErrorKind::Internal, format!("the file system of `{}` {why}", self.place.display()))
            }
            _ => in_place_failed(&self.place, error.into()),
        })?;
        self.is_placed = true;
        sync(&self.parent)?;
        fs::rename(&self.path, aside).map_err(|error| disk_error("move away what was replaced", &self.path, error))?;
        self.finish()
    }

    fn finish(&mut self) -> Result<(), EdgeError> {
        self.is_placed = true;
        sync(&self.parent)?;
        let mark = self.place.join(LOCK);
        remove(&mark).map_err(|error| disk_error("remove the mark of an unfinished folder", &mark, error))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.is_placed {
            // The error that led here is the one to tell; what is left is removed the next time.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Whether there is nothing, or an empty folder.
pub(super) fn is_empty(path: &Path) -> Result<bool, EdgeError> {
    match fs::read_dir(path) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(disk_error("look into the folder", path, error)),
    }
}

/// What is there is not to be overwritten.
pub(super) fn not_empty(path: &Path) -> EdgeError {
    EdgeError::new(ErrorKind::Conflict, format!("the folder `{}` is not empty", path.display()))
}

fn sync(folder: &Path) -> Result<(), EdgeError> {
    sync_folder(folder).map_err(|error| disk_error("sync the folder", folder, error))
}

fn in_place_failed(place: &Path, error: io::Error) -> EdgeError {
    if error.kind() == io::ErrorKind::ResourceBusy {
        let why = "is a mount point, which cannot be put in place as a whole; use a folder inside";
        return EdgeError::invalid(format!("`{}` {why}", place.display())).with_source(error);
    }
    disk_error("put a folder in its place", place, error)
}
