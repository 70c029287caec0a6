//! Fetches an artifact from the hub, part by part. What has come stays on the disk, so that a break costs no part twice.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use edgeward_cluster::{Backbone, Subject};
use edgeward_durable::{create_private_folder, disk_error};
use edgeward_model::{
    Digest, EdgeError, ErrorKind, NodeId,
    limits::{ARTIFACT_BYTES_MAX, ARTIFACT_RANGE_BYTES_MAX, ARTIFACT_TIMEOUT},
};
use edgeward_runtime::{artifacts::digest_of, blocking};
use tokio::time::{Instant, sleep_until};

use crate::services::{self, ARTIFACT, ArtifactRange, SIZE};

/// The folder of what is being fetched, in the data folder.
const FOLDER: &str = "fetching";

/// Whose artifacts are fetched, and where their parts stay meanwhile: in a folder in its data folder.
#[derive(Clone, Copy)]
pub(crate) struct Fetching<'a> {
    pub(crate) member: &'a NodeId,
    pub(crate) data_dir: &'a Path,
    pub(crate) backbone: &'a dyn Backbone,
    /// As fast at most; none for as fast as can be.
    pub(crate) bytes_per_second: Option<u64>,
}

/// Fetches an artifact, and gives it to `keep` when it is what it should be.
pub(crate) async fn fetch(
    fetching: Fetching<'_>,
    digest: &Digest,
    keep: impl AsyncFnOnce(Bytes) -> Result<Digest, EdgeError>,
) -> Result<(), EdgeError> {
    let Fetching { member, data_dir, backbone, bytes_per_second } = fetching;
    let digest = *digest;
    let part = Part { path: data_dir.join(FOLDER).join(digest.hex()) };
    let mut offset = part.run(Part::begin).await?;
    let to = Subject::to_hub(member.clone(), ARTIFACT);
    // What is asked for at once takes a second at most.
    let length = bytes_per_second.unwrap_or(u64::MAX).min(ARTIFACT_RANGE_BYTES_MAX as u64).max(1);
    loop {
        let asked_at = Instant::now();
        let range = ArtifactRange { digest, offset, length };
        let answer = backbone.request(&to, services::write(&range), ARTIFACT_TIMEOUT).await?;
        let size = answer.headers.get(SIZE).and_then(|size| size.parse::<u64>().ok()).filter(|size| *size <= ARTIFACT_BYTES_MAX as u64);
        let size = size.ok_or_else(|| EdgeError::invalid(format!("the hub told no valid size of artifact `{digest}`")))?;
        let came = answer.payload.len() as u64;
        if came > 0 {
            let bytes = answer.payload;
            offset = part.run(move |part| part.add(offset, &bytes)).await?;
            if let Some(limit) = bytes_per_second {
                sleep_until(asked_at + Duration::from_secs_f64(came as f64 / limit.max(1) as f64)).await;
            }
        }
        if offset >= size {
            break;
        }
        if came == 0 {
            return Err(EdgeError::new(
                ErrorKind::Unavailable,
                format!("the hub ended artifact `{digest}` after {offset} of {size} bytes"),
            ));
        }
    }
    let bytes = part.run(Part::read).await?;
    let came = digest_of(&bytes);
    // What a power cut or a failing disk spoilt is no artifact: to try it would say that the artifact cannot run.
    let kept = if came == digest { keep(bytes).await.map(drop) } else { Err(spoilt(&digest, &came)) };
    // Whole and in its place, or not what it should be.
    part.run(Part::remove).await?;
    kept
}

fn spoilt(digest: &Digest, came: &Digest) -> EdgeError {
    EdgeError::new(ErrorKind::Internal, format!("artifact `{digest}` came as `{came}`; it is fetched anew"))
}

/// The part of an artifact that has come.
#[derive(Clone)]
struct Part {
    path: PathBuf,
}

impl Part {
    async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static) -> Result<T, EdgeError> {
        let part = self.clone();
        blocking(move || work(&part).map_err(|error| disk_error("keep a part of an artifact", &part.path, error))).await
    }

    /// Makes room for it, and returns how much there is already.
    fn begin(&self) -> io::Result<u64> {
        create_private_folder(self.path.parent().unwrap_or(Path::new(".")))?;
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.len() <= ARTIFACT_BYTES_MAX as u64 => Ok(metadata.len()),
            Ok(_) => self.remove().map(|()| 0),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Adds bytes at an offset, and returns where they end.
    fn add(&self, offset: u64, bytes: &Bytes) -> io::Result<u64> {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&self.path)?;
        if file.metadata()?.len() != offset {
            return Err(io::Error::other("somebody else changed it"));
        }
        file.write_all(bytes)?;
        Ok(offset + bytes.len() as u64)
    }

    fn read(&self) -> io::Result<Bytes> {
        let mut bytes = Vec::new();
        fs::File::open(&self.path)?.take(ARTIFACT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    fn remove(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
