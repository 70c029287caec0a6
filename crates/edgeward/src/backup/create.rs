//! Making a backup. The node may run, and is not asked: the files of its data folder say all, and their permissions who may.

use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

use edgeward_durable::{create_private_folder, disk_error, write};
use edgeward_model::{Digest, EdgeError, ErrorKind, FunctionId};
use edgeward_runtime::artifacts;
use edgeward_sync::backup::{copy, owner};
use jiff::Timestamp;

use crate::{
    backup::{
        Progress, Step,
        manifest::{FileDigest, Manifest, database_in},
        records_in,
        staging::{Staging, is_empty, not_empty},
    },
    desired,
    node::DOCUMENTS,
};

/// How often it is tried: a function that is undeployed meanwhile may take its artifact along.
const ATTEMPTS_MAX: usize = 3;

/// Copies what the data folder holds `now` into the folder `target`, which is made, and must be empty if it is there.
///
/// # Errors
/// [`ErrorKind::NotFound`] when there is no node's data; [`ErrorKind::Conflict`] when the target is not empty. After an error there is no backup.
pub fn create(data_dir: &Path, target: &Path, now: Timestamp, mut progress: impl FnMut(Progress)) -> Result<Manifest, EdgeError> {
    if !is_empty(target)? {
        return Err(not_empty(target));
    }
    owner(&data_dir.join(DOCUMENTS))?;
    desired::check_moved(data_dir)?;
    let staging = Staging::begin(target)?;
    let mut attempts = 1;
    let manifest = loop {
        match copy_all(data_dir, staging.path(), now, &mut progress) {
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

/// Whether the artifact of a function went after its record was read.
fn is_of_missing_artifact(error: &EdgeError) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<EdgeError>());
    cause.is_some_and(|cause| cause.kind() == ErrorKind::NotFound)
}

fn copy_all(data_dir: &Path, target: &Path, now: Timestamp, progress: &mut impl FnMut(Progress)) -> Result<Manifest, EdgeError> {
    let make = |name: &str| -> Result<PathBuf, EdgeError> {
        let folder = target.join(name);
        create_private_folder(&folder).map_err(|error| disk_error("make a folder", &folder, error))?;
        Ok(folder)
    };
    let documents = make(DOCUMENTS)?;
    let node = copy(&data_dir.join(DOCUMENTS), &documents, |done_bytes, total_bytes| {
        progress(Progress { step: Step::Documents, done_bytes, total_bytes });
    })?;
    let wanted: BTreeMap<Digest, FunctionId> = records_in(&documents, &node)?
        .into_iter()
        .filter_map(|record| Some((record.function.handler.artifact()?, record.function.id)))
        .collect();
    let database = database_in(target);
    let digest = fs::File::open(&database).and_then(|file| FileDigest::of_reader(file, |_| Ok(())));
    let digest = digest.map_err(|error| disk_error("read the copy of the store", &database, error))?;
    make(artifacts::FOLDER)?;
    let length = |digest| fs::metadata(artifacts::path(data_dir, digest)).map_or(0, |file| file.len());
    let total_bytes = wanted.keys().map(length).sum();
    let (mut copied, mut done_bytes) = (BTreeMap::new(), 0);
    for (digest, function) in wanted {
        let bytes = artifacts::read(data_dir, &digest).map_err(|error| {
            let why =
                format!("failed to back up function `{function}`, of which the artifact cannot be read; deploy it again or undeploy it");
            EdgeError::new(ErrorKind::Internal, why).with_source(error)
        })?;
        let path = artifacts::path(target, &digest);
        write(&path, &bytes).map_err(|error| disk_error("copy the artifact", &path, error))?;
        copied.insert(digest, FileDigest::of(&bytes));
        done_bytes += bytes.len() as u64;
        progress(Progress { step: Step::Artifacts, done_bytes, total_bytes });
    }
    Ok(Manifest::new(node, now, digest, copied))
}
