//! Making a backup. The node or hub may run, and is not asked: the files of its data folder say all, and their permissions who may.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

use edgeward_durable::{create_private_folder, disk_error, write};
use edgeward_model::{Digest, EdgeError, ErrorKind, limits::FLEET_FILES_MAX};
use edgeward_runtime::artifacts;
use edgeward_sync::backup::{copy, owner};
use jiff::Timestamp;

use crate::{
    backup::{
        Progress, Referred, Step,
        manifest::{FORMAT, FileDigest, Manifest, database_in, topics_in},
        referred_in,
        staging::{Staging, is_empty, not_empty},
    },
    desired,
    node::{DOCUMENTS, FLEET},
    topics,
};

/// How often it is tried: a function that is undeployed meanwhile may take its artifact along. One that is assigned and still not there at
/// the last of them is missing here: on a node it is on its way, and a restored hub has not got it back.
const ATTEMPTS_MAX: usize = 3;

/// Copies what the data folder holds `now` into the folder `target`, which is made, and must be empty if it is there.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is no data of a node or hub; [`ErrorKind::Conflict`] when the target is not empty. After an error there is no backup.
pub fn create(data_dir: &Path, target: &Path, now: Timestamp, mut progress: impl FnMut(Progress)) -> Result<Manifest, EdgeError> {
    if !is_empty(target)? {
        return Err(not_empty(target));
    }
    owner(&data_dir.join(DOCUMENTS))?;
    desired::check_moved(data_dir)?;
    let staging = Staging::begin(target)?;
    let mut attempts = 1;
    let manifest = loop {
        match copy_all(data_dir, staging.path(), now, attempts == ATTEMPTS_MAX, &mut progress) {
            Err(error) if is_of_missing_artifact(&error) && attempts < ATTEMPTS_MAX => {
                attempts += 1;
                staging.clear().map_err(|error| disk_error("begin the backup anew", staging.path(), error))?;
            }
            ended => break ended?,
        }
    };
    manifest.write(staging.path())?;
    staging.place()?;
    Ok(manifest)
}

/// Whether an artifact went after the record that refers to it was read.
fn is_of_missing_artifact(error: &EdgeError) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<EdgeError>());
    cause.is_some_and(|cause| cause.kind() == ErrorKind::NotFound)
}

fn copy_all(
    data_dir: &Path,
    target: &Path,
    now: Timestamp,
    is_last: bool,
    progress: &mut impl FnMut(Progress),
) -> Result<Manifest, EdgeError> {
    let documents = make(target, DOCUMENTS)?;
    let node = copy(&data_dir.join(DOCUMENTS), &documents, |done_bytes, total_bytes| {
        progress(Progress { step: Step::Documents, done_bytes, total_bytes });
    })?;
    let referred = referred_in(&documents, &node)?;
    let database = database_in(target);
    let digest = fs::File::open(&database).and_then(|file| FileDigest::of_reader(file, |_| Ok(())));
    let digest = digest.map_err(|error| disk_error("read the copy of the store", &database, error))?;
    let topics = copy_topics(data_dir, target, progress)?;
    let (artifacts, missing_artifacts) = copy_artifacts(data_dir, target, &referred, is_last, progress)?;
    // After the documents: of a node that joined meanwhile it is known at least that its token was used.
    let fleet = copy_fleet(data_dir, target)?;
    Ok(Manifest { format: FORMAT, node, time: now, documents: digest, topics, artifacts, missing_artifacts, fleet })
}

fn make(target: &Path, name: &str) -> Result<PathBuf, EdgeError> {
    let folder = target.join(name);
    create_private_folder(&folder).map_err(|error| disk_error("make a folder", &folder, error))?;
    Ok(folder)
}

/// Copies the log of topics, after the documents: of a trigger that is made meanwhile nothing is known, and what it left is removed.
fn copy_topics(data_dir: &Path, target: &Path, progress: &mut impl FnMut(Progress)) -> Result<Option<FileDigest>, EdgeError> {
    let from = topics_in(data_dir);
    let total_bytes = match fs::metadata(&from) {
        Ok(file) => file.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(disk_error("read the log of topics", &from, error)),
    };
    progress(Progress { step: Step::Topics, done_bytes: 0, total_bytes });
    edgeward_topics::backup::copy(&data_dir.join(topics::FOLDER), &make(target, topics::FOLDER)?)?;
    let copied = topics_in(target);
    let digest = fs::File::open(&copied).and_then(|file| FileDigest::of_reader(file, |_| Ok(())));
    let digest = digest.map_err(|error| disk_error("read the copy of the log of topics", &copied, error))?;
    progress(Progress { step: Step::Topics, done_bytes: digest.bytes, total_bytes: digest.bytes });
    Ok(Some(digest))
}

/// Copies what is referred to, and says what is not there.
fn copy_artifacts(
    data_dir: &Path,
    target: &Path,
    Referred { own, assigned }: &Referred,
    may_miss: bool,
    progress: &mut impl FnMut(Progress),
) -> Result<(BTreeMap<Digest, FileDigest>, BTreeSet<Digest>), EdgeError> {
    make(target, artifacts::FOLDER)?;
    let wanted: BTreeSet<&Digest> = own.keys().chain(assigned).collect();
    let length = |digest| fs::metadata(artifacts::path(data_dir, digest)).map_or(0, |file| file.len());
    let total_bytes = wanted.iter().copied().map(length).sum();
    let (mut copied, mut missing, mut done_bytes) = (BTreeMap::new(), BTreeSet::new(), 0);
    for digest in wanted {
        let bytes = match artifacts::read(data_dir, digest) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound && may_miss && !own.contains_key(digest) => {
                missing.insert(*digest);
                continue;
            }
            Err(error) => {
                let whose =
                    own.get(digest).map_or_else(|| "a function that is assigned".to_owned(), |function| format!("function `{function}`"));
                let why = format!("failed to back up {whose}, of which the artifact cannot be read; deploy it again or undeploy it");
                return Err(EdgeError::new(ErrorKind::Internal, why).with_source(error));
            }
        };
        let path = artifacts::path(target, digest);
        write(&path, &bytes).map_err(|error| disk_error("copy the artifact", &path, error))?;
        copied.insert(*digest, FileDigest::of(&bytes));
        done_bytes += bytes.len() as u64;
        progress(Progress { step: Step::Artifacts, done_bytes, total_bytes });
    }
    Ok((copied, missing))
}

/// Copies the files of the fleet: keys, tokens and addresses, each of which is replaced as a whole when it changes. What the broker keeps in a
/// folder of its own is made anew.
fn copy_fleet(data_dir: &Path, target: &Path) -> Result<BTreeMap<String, FileDigest>, EdgeError> {
    let folder = data_dir.join(FLEET);
    let failed = |error| disk_error("copy what belongs to the fleet", &folder, error);
    let mut copied = BTreeMap::new();
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(copied),
        Err(error) => return Err(failed(error)),
    };
    let to = make(target, FLEET)?;
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().into_string().ok().filter(|name| !edgeward_durable::file::is_unfinished(Path::new(name)));
        let Some(name) = name.filter(|_| entry.path().is_file()) else { continue };
        if copied.len() >= FLEET_FILES_MAX {
            let why =
                format!("`{}` holds more than {FLEET_FILES_MAX} files, which are not all of the fleet; move them away", folder.display());
            return Err(EdgeError::new(ErrorKind::TooLarge, why));
        }
        let bytes = fs::read(entry.path()).map_err(failed)?;
        let path = to.join(&name);
        write(&path, &bytes).map_err(|error| disk_error("copy what belongs to the fleet", &path, error))?;
        copied.insert(name, FileDigest::of(&bytes));
    }
    Ok(copied)
}
