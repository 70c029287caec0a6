//! Artifacts: WebAssembly bytes, named by their SHA-256, and the machine code that was compiled from them.
//!
//! A file is complete or absent: it is written beside its place, synced and renamed. Machine code is loaded only
//! when its own checksum is right, because loading damaged code would be undefined behaviour; else it is
//! compiled again. What nothing refers to is collected [`GRACE`] after its upload, or after the store was opened:
//! both are told by a clock that no time server moves, as a board without a clock of its own starts in the past.

use std::{
    collections::{HashMap, HashSet},
    fs,
    io::{self, Read as _, Seek as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::Bytes;
use edgeward_durable::{self as durable, disk_error};
use edgeward_model::{Digest, EdgeError, ErrorKind, limits::ARTIFACT_BYTES_MAX};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

/// How long an artifact stays although nothing refers to it: the time between an upload and its deployment.
pub const GRACE: Duration = Duration::from_mins(10);

/// The folder of the artifacts in a store's folder.
pub const FOLDER: &str = "artifacts";

/// Where artifacts lie: in a folder, or in memory for a runtime that keeps nothing.
#[derive(Debug)]
pub struct ArtifactStore {
    place: Place,
    opened: Instant,
    /// What this process uploaded. Held while a file is judged and removed, so that an upload of the same bytes
    /// comes wholly before or wholly after.
    uploads: Mutex<HashMap<Digest, Instant>>,
}

#[derive(Debug)]
enum Place {
    Memory(Mutex<HashMap<Digest, Bytes>>),
    Folder(PathBuf),
}

impl ArtifactStore {
    /// A store that ends with the process.
    pub fn in_memory() -> Self {
        Self::new(Place::Memory(Mutex::default()))
    }

    fn new(place: Place) -> Self {
        Self { place, opened: Instant::now(), uploads: Mutex::default() }
    }

    /// A store in this folder, which is made when it is missing. Left-overs of an interrupted write are removed.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self, EdgeError> {
        let folder = folder.into();
        for part in [FOLDER, "compiled"] {
            let part = folder.join(part);
            durable::create_private_folder(&part)
                .and_then(|()| durable::remove_leftovers(&part))
                .map_err(|error| disk_error("open the artifact store", &part, error))?;
        }
        Ok(Self::new(Place::Folder(folder)))
    }

    /// Stores the bytes durably and gives their digest. Storing the same bytes again is no error.
    pub fn put(&self, bytes: Bytes) -> Result<Digest, EdgeError> {
        if bytes.len() > ARTIFACT_BYTES_MAX {
            return Err(EdgeError::new(
                ErrorKind::RefusedArtifact,
                format!("the artifact is {} bytes; the most is {ARTIFACT_BYTES_MAX}", bytes.len()),
            ));
        }
        let digest = digest_of(&bytes);
        // Noted before anything is written, so that the file is young from its first moment.
        self.uploads.lock().insert(digest, Instant::now());
        match &self.place {
            Place::Memory(artifacts) => {
                artifacts.lock().insert(digest, bytes);
            }
            Place::Folder(folder) => {
                let path = path(folder, &digest);
                // An existing file is written again: that mends it if it was damaged.
                durable::write(&path, &bytes).map_err(|error| disk_error("store the artifact", &path, error))?;
            }
        }
        Ok(digest)
    }

    /// The bytes of an artifact, checked against its name.
    pub fn get(&self, digest: &Digest) -> Result<Bytes, EdgeError> {
        match &self.place {
            Place::Memory(artifacts) => artifacts.lock().get(digest).cloned().ok_or_else(|| not_found(digest)),
            Place::Folder(folder) => read(folder, digest),
        }
    }

    /// A part of an artifact, from `offset` on and at most `length` bytes, and the size of the whole. Its bytes are not checked: who puts
    /// the parts together does.
    pub fn range(&self, digest: &Digest, offset: u64, length: usize) -> Result<(Bytes, u64), EdgeError> {
        match &self.place {
            Place::Memory(artifacts) => {
                let artifacts = artifacts.lock();
                let bytes = artifacts.get(digest).ok_or_else(|| not_found(digest))?;
                let begin = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                Ok((bytes.slice(begin..bytes.len().min(begin.saturating_add(length))), bytes.len() as u64))
            }
            Place::Folder(folder) => {
                let path = path(folder, digest);
                read_range(&path, offset, length).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => not_found(digest),
                    _ => disk_error("read the artifact", &path, error),
                })
            }
        }
    }

    /// Whether the artifact is there. Its bytes are not checked.
    pub fn contains(&self, digest: &Digest) -> bool {
        match &self.place {
            Place::Memory(artifacts) => artifacts.lock().contains_key(digest),
            Place::Folder(folder) => path(folder, digest).exists(),
        }
    }

    /// Forgets an artifact that cannot run here, in a store in memory: nothing can refer to it. In a folder it may be
    /// the artifact of a function that another release can run, so there it is left to [`Self::collect`].
    pub fn discard(&self, digest: &Digest) {
        if let Place::Memory(artifacts) = &self.place {
            artifacts.lock().remove(digest);
        }
    }

    /// Removes artifacts and their machine code that `live` does not name and that are older than `grace`. Returns
    /// how many files went.
    pub fn collect(&self, live: &HashSet<Digest>, grace: Duration) -> Result<usize, EdgeError> {
        let mut uploads = self.uploads.lock();
        uploads.retain(|_, at| at.elapsed() < grace);
        if self.opened.elapsed() < grace {
            return Ok(0);
        }
        let kept: HashSet<Digest> = live.iter().chain(uploads.keys()).copied().collect();
        match &self.place {
            Place::Memory(artifacts) => {
                let mut artifacts = artifacts.lock();
                let before = artifacts.len();
                artifacts.retain(|digest, _| kept.contains(digest));
                Ok(before - artifacts.len())
            }
            Place::Folder(folder) => {
                let kept: HashSet<String> = kept.iter().map(Digest::hex).collect();
                let refers_to_kept = |name: &str| name.get(..64).is_some_and(|hex| kept.contains(hex));
                let mut removed = 0;
                for part in [FOLDER, "compiled"] {
                    let part = folder.join(part);
                    removed +=
                        remove_files(&part, |name| !refers_to_kept(name)).map_err(|error| disk_error("collect garbage", &part, error))?;
                }
                Ok(removed)
            }
        }
    }
}

/// Machine code beside the artifacts that it was compiled from.
#[cfg(feature = "wasm")]
mod compiled {
    use super::{ArtifactStore, Digest, Path, PathBuf, Place, durable, fs, remove_files};

    impl ArtifactStore {
        /// Path of intact machine code for this artifact and engine, when there is some.
        pub(crate) fn compiled(&self, digest: &Digest, engine: u64) -> Option<PathBuf> {
            let Place::Folder(folder) = &self.place else { return None };
            let path = compiled_path(folder, digest, engine);
            let expected = fs::read(checksum_path(&path)).ok()?;
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(fs::File::open(&path).ok()?).ok()?;
            if hasher.finalize().as_bytes().as_slice() == expected {
                Some(path)
            } else {
                tracing::warn!(%digest, "compiled code is damaged and will be compiled again");
                None
            }
        }

        /// Keeps machine code for later, instead of that of other engines. It can be made again, so a failure costs
        /// time only and is logged.
        pub(crate) fn keep_compiled(&self, digest: &Digest, engine: u64, code: &[u8]) {
            let Place::Folder(folder) = &self.place else { return };
            let path = compiled_path(folder, digest, engine);
            let checksum = blake3::hash(code);
            let this = format!("{}-{engine:016x}.", digest.hex());
            let kept = durable::write(&path, code)
                .and_then(|()| durable::write(&checksum_path(&path), checksum.as_bytes()))
                .and_then(|()| remove_files(&folder.join("compiled"), |name| name.starts_with(&digest.hex()) && !name.starts_with(&this)));
            if let Err(error) = kept {
                tracing::warn!(%digest, %error, "compiled code could not be kept");
            }
        }
    }

    fn compiled_path(folder: &Path, digest: &Digest, engine: u64) -> PathBuf {
        folder.join("compiled").join(format!("{}-{engine:016x}.cwasm", digest.hex()))
    }

    fn checksum_path(compiled: &Path) -> PathBuf {
        compiled.with_extension("blake3")
    }
}

/// The name of these bytes as an artifact.
pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

/// The bytes of an artifact in a store's folder, which may be open or a copy, checked against its name.
pub fn read(folder: &Path, digest: &Digest) -> Result<Bytes, EdgeError> {
    let path = path(folder, digest);
    let bytes = fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => not_found(digest),
        _ => disk_error("read the artifact", &path, error),
    })?;
    if digest_of(&bytes) != *digest {
        return Err(EdgeError::new(ErrorKind::Internal, format!("artifact `{digest}` is damaged on disk; upload it again")));
    }
    Ok(bytes.into())
}

fn read_range(path: &Path, offset: u64, length: usize) -> io::Result<(Bytes, u64)> {
    let mut file = fs::File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(io::SeekFrom::Start(offset.min(size)))?;
    let mut bytes = Vec::new();
    file.take(length as u64).read_to_end(&mut bytes)?;
    Ok((bytes.into(), size))
}

/// The file of an artifact in a store's folder.
pub fn path(folder: &Path, digest: &Digest) -> PathBuf {
    folder.join(FOLDER).join(digest.hex()).with_extension("wasm")
}

fn not_found(digest: &Digest) -> EdgeError {
    EdgeError::new(ErrorKind::NotFound, format!("artifact not found: `{digest}`; upload it first"))
}

/// Removes the files of these names. One that is gone meanwhile is no error. Returns how many went.
fn remove_files(folder: &Path, is_garbage: impl Fn(&str) -> bool) -> io::Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if is_garbage(&entry.file_name().to_string_lossy()) {
            match fs::remove_file(entry.path()) {
                Ok(()) => removed += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_comes_back_as_it_was_and_a_damaged_one_is_refused() {
        let folder = tempfile::tempdir().expect("temp folder");
        let store = ArtifactStore::open(folder.path()).expect("opens");
        let digest = store.put(Bytes::from_static(b"abc")).expect("stored");
        assert_eq!(digest.to_string(), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(store.get(&digest).expect("there"), "abc");
        fs::write(path(folder.path(), &digest), "abd").expect("written");
        assert!(store.get(&digest).expect_err("damaged").to_string().contains("damaged"));
        store.put(Bytes::from_static(b"abc")).expect("an upload mends it");
        assert_eq!(store.get(&digest).expect("there"), "abc");
    }

    #[test]
    fn an_artifact_is_read_in_parts_up_to_its_end() {
        let folder = tempfile::tempdir().expect("temp folder");
        for store in [ArtifactStore::open(folder.path()).expect("opens"), ArtifactStore::in_memory()] {
            let digest = store.put(Bytes::from_static(b"abcde")).expect("stored");
            for (offset, length, part) in [(0, 2, "ab"), (2, 2, "cd"), (4, 2, "e"), (5, 2, ""), (u64::MAX / 2, usize::MAX / 2, "")] {
                assert_eq!(store.range(&digest, offset, length).expect("reads"), (Bytes::from_static(part.as_bytes()), 5));
            }
            let other = Digest::from_sha256([0; 32]);
            assert_eq!(store.range(&other, 0, 1).expect_err("not there").kind(), ErrorKind::NotFound);
        }
    }

    #[test]
    fn damaged_machine_code_is_not_offered() {
        let folder = tempfile::tempdir().expect("temp folder");
        let store = ArtifactStore::open(folder.path()).expect("opens");
        let digest = store.put(Bytes::from_static(b"abc")).expect("stored");
        assert!(store.compiled(&digest, 1).is_none());
        store.keep_compiled(&digest, 1, b"code");
        assert!(store.compiled(&digest, 2).is_none(), "another engine");
        let path = store.compiled(&digest, 1).expect("kept");
        fs::write(path, "cod").expect("truncated");
        assert!(store.compiled(&digest, 1).is_none());
    }

    #[test]
    fn what_nothing_refers_to_is_collected_after_its_grace() {
        let folder = tempfile::tempdir().expect("temp folder");
        for store in [ArtifactStore::open(folder.path()).expect("opens"), ArtifactStore::in_memory()] {
            let kept = store.put(Bytes::from_static(b"kept")).expect("stored");
            let gone = store.put(Bytes::from_static(b"gone")).expect("stored");
            store.keep_compiled(&gone, 1, b"code");
            let live = HashSet::from([kept]);
            assert_eq!(store.collect(&live, GRACE).expect("collects"), 0);
            let files = if matches!(store.place, Place::Memory(_)) { 1 } else { 3 };
            assert_eq!(store.collect(&live, Duration::ZERO).expect("collects"), files);
            assert!(store.contains(&kept) && !store.contains(&gone));
        }
    }

    #[test]
    fn a_jump_of_the_wall_clock_makes_nothing_old() {
        let folder = tempfile::tempdir().expect("temp folder");
        let mut store = ArtifactStore::open(folder.path()).expect("opens");
        let digest = store.put(Bytes::from_static(b"abc")).expect("stored");
        let file = fs::File::options().write(true).open(path(folder.path(), &digest)).expect("there");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("set");
        assert_eq!(store.collect(&HashSet::new(), GRACE).expect("collects"), 0, "just opened");
        let grace = Duration::from_millis(1);
        store.opened = Instant::now().checked_sub(grace).expect("the machine runs for longer");
        store.uploads.lock().insert(digest, Instant::now() + GRACE);
        assert_eq!(store.collect(&HashSet::new(), grace).expect("collects"), 0, "just uploaded");
        store.uploads.lock().clear();
        assert_eq!(store.collect(&HashSet::new(), grace).expect("collects"), 1, "of an earlier run");
    }

    #[test]
    fn new_machine_code_replaces_that_of_other_engines_for_its_artifact_only() {
        let folder = tempfile::tempdir().expect("temp folder");
        let store = ArtifactStore::open(folder.path()).expect("opens");
        let [this, other] = ["this", "other"].map(|bytes| store.put(Bytes::from_static(bytes.as_bytes())).expect("stored"));
        for (digest, engine) in [(&this, 1), (&other, 1), (&this, 2)] {
            store.keep_compiled(digest, engine, b"code");
        }
        assert_eq!(fs::read_dir(folder.path().join("compiled")).expect("there").count(), 4);
        assert!(store.compiled(&this, 1).is_none() && store.compiled(&this, 2).is_some() && store.compiled(&other, 1).is_some());
    }

    #[test]
    fn a_refused_artifact_is_forgotten_in_memory_and_stays_in_a_folder() {
        let folder = tempfile::tempdir().expect("temp folder");
        for (store, stays) in [(ArtifactStore::open(folder.path()).expect("opens"), true), (ArtifactStore::in_memory(), false)] {
            let digest = store.put(Bytes::from_static(b"abc")).expect("stored");
            store.discard(&digest);
            assert_eq!(store.contains(&digest), stays);
        }
    }
}
