//! Restoring a backup into a data folder: all of it is checked, and the old one is there until the new one is complete.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use edgeward_durable::{FolderLock, create_private_file, create_private_folder, disk_error, sync_folder, write};
use edgeward_model::{Digest, EdgeError, ErrorKind};
use edgeward_runtime::artifacts;
use jiff::{Timestamp, fmt::strtime};

use crate::{
    backup::{
        Progress, Step,
        manifest::{FileDigest, Manifest, damaged, database_in, topics_in},
        referred_in,
        staging::{Staging, is_empty, not_empty},
    },
    node::{DOCUMENTS, FLEET, LOCK},
    topics,
};

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// What the backup holds.
    pub manifest: Manifest,
    /// Where the data folder is that was replaced.
    pub replaced: Option<PathBuf>,
}

/// Makes the data folder what the backup holds; `replace` says whether the data of a node or hub may be there, which is then moved aside
/// to a name with the time `now`. The documents begin a new epoch when the node opens them.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is no backup; [`ErrorKind::Conflict`] when a process has the data folder open, or it is not empty
/// and not to be replaced. After an error the data folder is as it was.
pub fn restore(
    backup: &Path,
    data_dir: &Path,
    replace: bool,
    now: Timestamp,
    mut progress: impl FnMut(Progress),
) -> Result<Restored, EdgeError> {
    let manifest = Manifest::read(backup)?;
    let old = lock_old(data_dir, replace)?;
    let staging = Staging::begin(data_dir)?;
    let documents =
        Database { step: Step::Documents, from: database_in(backup), to: database_in(staging.path()), expected: &manifest.documents };
    copy_database(documents, &mut progress)?;
    if let Some(expected) = &manifest.topics {
        let topics = Database { step: Step::Topics, from: topics_in(backup), to: topics_in(staging.path()), expected };
        copy_database(topics, &mut progress)?;
    }
    copy_artifacts(backup, staging.path(), &manifest, &mut progress)?;
    copy_fleet(backup, staging.path(), &manifest)?;
    check(staging.path(), &manifest)?;
    if old.is_none() {
        staging.place()?;
        return Ok(Restored { manifest, replaced: None });
    }
    let mut name = data_dir.file_name().expect("the folder beside it was named after it").to_owned();
    name.push(strtime::format(".replaced-%Y%m%dT%H%M%SZ", now).expect("the format is valid"));
    let aside = data_dir.with_file_name(name);
    if aside.exists() {
        return Err(not_empty(&aside));
    }
    staging.exchange(&aside)?;
    Ok(Restored { manifest, replaced: Some(aside) })
}

/// Locks the data folder when there is the data of a node in it.
fn lock_old(data_dir: &Path, replace: bool) -> Result<Option<FolderLock>, EdgeError> {
    if is_empty(data_dir)? {
        return Ok(None);
    }
    if !data_dir.join(LOCK).exists() {
        let why = "is not empty, and holds no node's data; choose another folder";
        return Err(EdgeError::new(ErrorKind::Conflict, format!("the folder `{}` {why}", data_dir.display())));
    }
    let lock = FolderLock::take(data_dir, LOCK)?;
    if replace { Ok(Some(lock)) } else { Err(not_empty(data_dir)) }
}

/// A database of a backup, and where it goes.
struct Database<'a> {
    step: Step,
    from: PathBuf,
    to: PathBuf,
    expected: &'a FileDigest,
}

fn copy_database(Database { step, from, to, expected }: Database<'_>, progress: &mut impl FnMut(Progress)) -> Result<(), EdgeError> {
    let failed = |error| disk_error("copy from the backup", &to, error);
    create_private_folder(to.parent().expect("a file is in a folder")).map_err(failed)?;
    let source = fs::File::open(&from).map_err(|error| disk_error("read the backup", &from, error))?;
    let mut copy = create_private_file(&to).map_err(failed)?;
    let mut done_bytes = 0;
    let digest = FileDigest::of_reader(source, |chunk| {
        done_bytes += chunk.len() as u64;
        progress(Progress { step, done_bytes, total_bytes: expected.bytes });
        copy.write_all(chunk)
    });
    if digest.map_err(failed)? != *expected {
        return Err(damaged(&from));
    }
    copy.sync_all().map_err(failed)
}

fn copy_artifacts(backup: &Path, target: &Path, manifest: &Manifest, progress: &mut impl FnMut(Progress)) -> Result<(), EdgeError> {
    let folder = target.join(artifacts::FOLDER);
    create_private_folder(&folder).map_err(|error| disk_error("copy the artifacts", &folder, error))?;
    let (mut done_bytes, total_bytes) = (0, manifest.artifacts_bytes());
    for (digest, expected) in &manifest.artifacts {
        let from = artifacts::path(backup, digest);
        let bytes = artifacts::read(backup, digest).map_err(|error| damaged(&from).with_source(error))?;
        if FileDigest::of(&bytes) != *expected {
            return Err(damaged(&from));
        }
        let to = artifacts::path(target, digest);
        write(&to, &bytes).map_err(|error| disk_error("copy the artifact", &to, error))?;
        done_bytes += expected.bytes;
        progress(Progress { step: Step::Artifacts, done_bytes, total_bytes });
    }
    Ok(())
}

fn copy_fleet(backup: &Path, target: &Path, manifest: &Manifest) -> Result<(), EdgeError> {
    if manifest.fleet.is_empty() {
        return Ok(());
    }
    let folder = target.join(FLEET);
    create_private_folder(&folder).map_err(|error| disk_error("copy what belongs to the fleet", &folder, error))?;
    for (name, expected) in &manifest.fleet {
        let from = backup.join(FLEET).join(name);
        let bytes = fs::read(&from).map_err(|error| damaged(&from).with_source(error))?;
        if FileDigest::of(&bytes) != *expected {
            return Err(damaged(&from));
        }
        let to = folder.join(name);
        write(&to, &bytes).map_err(|error| disk_error("copy what belongs to the fleet", &to, error))?;
    }
    Ok(())
}

/// Shows that this release can open the folder, and that it has all that its functions and assignments refer to, but for what was not there.
fn check(folder: &Path, manifest: &Manifest) -> Result<(), EdgeError> {
    let documents = folder.join(DOCUMENTS);
    let referred = referred_in(&documents, &manifest.node)?;
    let is_here = |digest: &&Digest| manifest.artifacts.contains_key(*digest);
    let lacking = referred.own.keys().find(|digest| !is_here(digest));
    let is_known = |digest: &&Digest| is_here(digest) || manifest.missing_artifacts.contains(*digest);
    if let Some(digest) = lacking.or_else(|| referred.assigned.iter().find(|digest| !is_known(digest))) {
        let whose =
            referred.own.get(digest).map_or_else(|| "a function that is assigned".to_owned(), |function| format!("function `{function}`"));
        let why = format!("the backup is damaged: it has no artifact of {whose}; use another backup");
        return Err(EdgeError::new(ErrorKind::Internal, why));
    }
    // Opening it may have written to it.
    let synced = fs::File::open(database_in(folder))
        .and_then(|file| file.sync_all())
        .and_then(|()| sync_folder(&documents))
        .and_then(|()| create_private_file(&folder.join(LOCK)).map(drop));
    synced.map_err(|error| disk_error("sync the restored documents", &documents, error))?;
    let topics = folder.join(topics::FOLDER);
    if manifest.topics.is_none() {
        return Ok(());
    }
    // It shows that this release can read it, and is closed at once.
    edgeward_topics::TopicLog::open(&topics, edgeward_topics::LogOptions::default()).map(drop)?;
    sync_folder(&topics).map_err(|error| disk_error("sync the restored log of topics", &topics, error))
}
