//! The manifest of a backup: whose it is, of when, and the digest of each of its files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::{Component, Path, PathBuf},
};

use edgeward_durable::{disk_error, write};
use edgeward_model::{Digest, EdgeError, ErrorKind, NodeId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::topics;

/// Version of a backup's format. A newer one is refused.
pub(super) const FORMAT: u32 = 1;
/// The manifest, in JSON.
const NAME: &str = "manifest.json";
/// Its BLAKE3, as `b3sum` writes it.
const DIGEST_NAME: &str = "manifest.blake3";
/// Bytes that are read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub(super) format: u32,
    /// The node or hub whose data it is.
    pub node: NodeId,
    /// When it was begun. All that was acknowledged before is in it.
    pub time: Timestamp,
    /// The database of the documents.
    pub documents: FileDigest,
    /// The database of the log of topics, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topics: Option<FileDigest>,
    /// The artifacts that functions and assignments refer to.
    pub artifacts: BTreeMap<Digest, FileDigest>,
    /// Those that assignments refer to and that were not there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub missing_artifacts: BTreeSet<Digest>,
    /// The files of the fleet, by name: of a node what makes it a member, of a hub the keys of all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fleet: BTreeMap<String, FileDigest>,
}

/// What is known of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigest {
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of its bytes, in hexadecimal.
    pub blake3: String,
}

/// The part of a manifest that every release can read.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl Manifest {
    /// Length of all files together.
    pub fn bytes(&self) -> u64 {
        let topics = self.topics.as_ref().map_or(0, |topics| topics.bytes);
        self.documents.bytes + topics + self.artifacts_bytes() + self.fleet.values().map(|file| file.bytes).sum::<u64>()
    }

    pub(super) fn artifacts_bytes(&self) -> u64 {
        self.artifacts.values().map(|file| file.bytes).sum()
    }

    /// Writes it into this folder, durably.
    pub(super) fn write(&self, folder: &Path) -> Result<(), EdgeError> {
        let failed = |error: io::Error| disk_error("write the manifest", folder, error);
        let json = serde_json::to_vec_pretty(self).map_err(|error| failed(error.into()))?;
        write(&folder.join(NAME), &json).and_then(|()| write(&folder.join(DIGEST_NAME), digest_line(&json).as_bytes())).map_err(failed)
    }

    /// Reads the manifest of the backup in this folder, and checks it against its digest.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when the folder is no backup.
    pub fn read(folder: &Path) -> Result<Self, EdgeError> {
        let read = |name: &str| {
            fs::read(folder.join(name)).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => EdgeError::new(ErrorKind::NotFound, format!("there is no backup in `{}`", folder.display())),
                _ => disk_error("read the backup", folder, error),
            })
        };
        let (json, expected) = (read(NAME)?, read(DIGEST_NAME)?);
        let path = folder.join(NAME);
        if expected != digest_line(&json).as_bytes() {
            return Err(damaged(&path));
        }
        let Format { format } = serde_json::from_slice(&json).map_err(|error| damaged(&path).with_source(error))?;
        if format > FORMAT {
            let why =
                format!("the backup in `{}` has format {format}, and this release knows {FORMAT}; use a newer release", folder.display());
            return Err(EdgeError::new(ErrorKind::Internal, why));
        }
        let manifest: Self = serde_json::from_slice(&json).map_err(|error| damaged(&path).with_source(error))?;
        // What is restored stays in its folder.
        let is_name =
            |name: &str| matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(only)] if only == name);
        if manifest.fleet.keys().all(|name| is_name(name)) { Ok(manifest) } else { Err(damaged(&path)) }
    }
}

impl FileDigest {
    /// Of these bytes.
    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.len() as u64, blake3: blake3::hash(bytes).to_hex().to_string() }
    }

    /// Of what this reader gives, which each chunk of is also handed to `take`.
    pub(super) fn of_reader(mut reader: impl Read, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<Self> {
        let (mut hasher, mut bytes) = (blake3::Hasher::new(), 0);
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let length = match reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            hasher.update(&chunk[..length]);
            bytes += length as u64;
            take(&chunk[..length])?;
        }
        Ok(Self { bytes, blake3: hasher.finalize().to_hex().to_string() })
    }
}

fn digest_line(json: &[u8]) -> String {
    format!("{}  {NAME}\n", blake3::hash(json).to_hex())
}

/// The database in a backup or data folder.
pub(super) fn database_in(folder: &Path) -> PathBuf {
    folder.join("documents/documents.sqlite3")
}

/// The log of topics in a backup or data folder.
pub(super) fn topics_in(folder: &Path) -> PathBuf {
    edgeward_topics::backup::database_in(&folder.join(topics::FOLDER))
}

/// A file of a backup that is not what the manifest says.
pub(super) fn damaged(path: &Path) -> EdgeError {
    let message = format!("the backup is damaged: `{}` is not what was written there; use another backup", path.display());
    EdgeError::new(ErrorKind::Internal, message)
}
