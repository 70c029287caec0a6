//! TLS of a listener: the certificate with its key, read again when the files change, and the handshake within its bounds.
//!
//! A handshake that is slow holds up nobody: it runs in the task of its connection, and a client that has not sent a byte yet takes no
//! turn from the others.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use edgeward_model::{
    EdgeError, ErrorKind,
    limits::{TLS_FILE_BYTES_MAX, TLS_FILES_EVERY, TLS_HANDSHAKE_TIMEOUT, TLS_HANDSHAKES_MAX},
};
use edgeward_runtime::blocking;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig, crypto,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
    server::TlsStream,
};

use super::patience::{Clock, Timed};

/// The first byte of a handshake. What begins otherwise is no TLS, and gets no answer that it would misread.
const HANDSHAKE_BYTE: u8 = 22;
/// The right of those to read a file who are neither its owner nor of its group, and of all but its owner to write it.
const MODE_OPEN: u32 = 0o026;

/// Where a certificate lies.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The chain as PEM: the server's own certificate first.
    pub certificate: PathBuf,
    /// The secret key as PEM. Others than its owner and group must not be able to read it.
    pub key: PathBuf,
}

/// What the listeners of a process show to prove who they are.
pub struct Tls {
    files: TlsFiles,
    current: ArcSwap<Loaded>,
    handshakes: Semaphore,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

struct Loaded {
    config: Arc<ServerConfig>,
    /// Of the files that it was made of.
    hash: blake3::Hash,
}

/// What the two files held at one look.
struct Pem {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    /// Reads the files. Waits for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when a file is missing, holds nothing that fits, or is open to others.
    pub fn open(files: TlsFiles) -> Result<Arc<Self>, EdgeError> {
        let current = ArcSwap::from_pointee(files.read()?.load(&files)?);
        Ok(Arc::new(Self { files, current, handshakes: Semaphore::new(TLS_HANDSHAKES_MAX) }))
    }

    /// Takes a new certificate when the files have changed. One that does not fit leaves the present one in use.
    pub fn refresh(&self) -> Result<(), EdgeError> {
        let pem = self.files.read()?;
        if pem.hash() != self.current.load().hash {
            self.current.store(Arc::new(pem.load(&self.files)?));
            tracing::info!(certificate = %self.files.certificate.display(), "the listeners show a new certificate");
        }
        Ok(())
    }

    /// Looks for a new certificate every minute, until it is dropped.
    pub async fn keep_current(self: Arc<Self>) {
        loop {
            tokio::time::sleep(TLS_FILES_EVERY).await;
            let tls = Arc::clone(&self);
            if let Err(error) = blocking(move || tls.refresh()).await {
                tracing::warn!(error = error.chain(), "the new certificate cannot be used, so the old one stays in use");
            }
        }
    }

    /// Answers the handshake of a client that has just connected and does not speak HTTP.
    pub(crate) async fn handshake_of(&self, stream: TcpStream) -> io::Result<impl AsyncRead + AsyncWrite + Send + use<>> {
        self.handshake(Timed::new(stream, Arc::new(Clock::new()))).await
    }

    /// Answers the handshake of a client that has just connected.
    pub(super) async fn handshake(&self, stream: Timed) -> io::Result<TlsStream<Timed>> {
        let handshake = async {
            if stream.first_byte().await? != HANDSHAKE_BYTE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the client does not speak TLS"));
            }
            let _turn = self.handshakes.acquire().await.expect("the semaphore is never closed");
            TlsAcceptor::from(Arc::clone(&self.current.load().config)).accept(stream).await
        };
        timeout(TLS_HANDSHAKE_TIMEOUT, handshake).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl TlsFiles {
    fn read(&self) -> Result<Pem, EdgeError> {
        let (_, certificate) = read(&self.certificate).map_err(|error| unusable("certificate", &self.certificate, error))?;
        let (mode, key) = read(&self.key).map_err(|error| unusable("key", &self.key, error))?;
        if mode & MODE_OPEN != 0 {
            let key = self.key.display();
            let why = format!("the key `{key}` is open to other users of this machine; close it with: chmod g-w,o-rw {key}");
            return Err(EdgeError::invalid(why));
        }
        Ok(Pem { certificate, key })
    }
}

impl Pem {
    fn hash(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for file in [&self.certificate, &self.key] {
            hasher.update(&file.len().to_le_bytes()).update(file);
        }
        hasher.finalize()
    }

    fn load(&self, files: &TlsFiles) -> Result<Loaded, EdgeError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(|error| unusable("certificate", &files.certificate, error))?;
        if chain.is_empty() {
            return Err(unusable("certificate", &files.certificate, "there is no `BEGIN CERTIFICATE` in it"));
        }
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| unusable("key", &files.key, error))?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows the versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| unusable("certificate", &files.certificate, error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Loaded { config: Arc::new(config), hash: self.hash() })
    }
}

/// The mode of a file, and the whole of it, which may not be larger than it could ever need to be.
fn read(path: &Path) -> io::Result<(u32, Vec<u8>)> {
    let (file, mut bytes) = (File::open(path)?, Vec::new());
    let mode = file.metadata()?.permissions().mode();
    file.take(TLS_FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > TLS_FILE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {TLS_FILE_BYTES_MAX} bytes")));
    }
    Ok((mode, bytes))
}

fn unusable(what: &str, path: &Path, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> EdgeError {
    EdgeError::new(ErrorKind::InvalidInput, format!("failed to use the {what} `{}`", path.display())).with_source(why)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use edgeward_cluster::nats::CertificateAuthority;
    use jiff::Timestamp;

    use super::*;

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("temp folder"))
        }

        fn files(&self) -> TlsFiles {
            TlsFiles { certificate: self.0.path().join("chain.pem"), key: self.0.path().join("key.pem") }
        }

        fn write(&self, certificate: &str, key: &str) {
            let files = self.files();
            fs::write(&files.certificate, certificate).expect("written");
            fs::write(&files.key, key).expect("written");
            set_mode(&files.key, 0o600);
        }
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    }

    fn certificate() -> edgeward_cluster::nats::Certificate {
        let now = Timestamp::now();
        CertificateAuthority::new(now).and_then(|authority| authority.server(&["edge".to_owned()], now, 30)).expect("made")
    }

    #[test]
    fn files_that_do_not_fit_are_refused_with_the_reason() {
        let (folder, one, other) = (Folder::new(), certificate(), certificate());
        let refused = || {
            let error = Tls::open(folder.files()).expect_err("refused");
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            error.chain()
        };
        assert!(refused().contains("chain.pem"), "it is missing");
        for (chain, key, why) in [
            ("", &*one.key, "BEGIN CERTIFICATE"),
            (&*one.chain, "", "the key `"),
            (&one.chain, &other.key, "KeyMismatch"),
            (&one.key, &one.chain, "BEGIN CERTIFICATE"),
        ] {
            folder.write(chain, key);
            let told = refused();
            assert!(told.contains(why), "{why}: {told}");
        }
        folder.write(&"x".repeat(TLS_FILE_BYTES_MAX + 1), &one.key);
        assert!(refused().contains("larger"), "its size is bounded");
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let (folder, certificate) = (Folder::new(), certificate());
        folder.write(&certificate.chain, &certificate.key);
        for (mode, is_good) in [(0o600, true), (0o640, true), (0o400, true), (0o644, false), (0o604, false), (0o660, false)] {
            set_mode(&folder.files().key, mode);
            let opened = Tls::open(folder.files());
            assert_eq!(opened.is_ok(), is_good, "{mode:o}");
            assert!(opened.err().is_none_or(|error| error.to_string().contains("chmod")));
        }
    }

    #[test]
    fn a_new_certificate_is_taken_and_half_of_one_is_not() {
        let (folder, old, new) = (Folder::new(), certificate(), certificate());
        folder.write(&old.chain, &old.key);
        let tls = Tls::open(folder.files()).expect("opens");
        let shown = || tls.current.load().hash;
        let first = shown();
        tls.refresh().expect("unchanged");
        // Renewed, and not yet its key.
        folder.write(&new.chain, &old.key);
        tls.refresh().expect_err("they do not fit");
        assert_eq!(shown(), first);
        folder.write(&new.chain, &new.key);
        tls.refresh().expect("new");
        assert_ne!(shown(), first);
        assert!(!format!("{tls:?}").contains("PRIVATE KEY"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_files_are_looked_at_again_and_again() {
        let (folder, old, new) = (Folder::new(), certificate(), certificate());
        folder.write(&old.chain, &old.key);
        let tls = Tls::open(folder.files()).expect("opens");
        let first = tls.current.load().hash;
        let looking = tokio::spawn(Arc::clone(&tls).keep_current());
        folder.write("", &new.key);
        tokio::time::sleep(TLS_FILES_EVERY * 3).await;
        assert_eq!(tls.current.load().hash, first, "a certificate that does not fit leaves the old one in use");
        folder.write(&new.chain, &new.key);
        let taken = async {
            while tls.current.load().hash == first {
                tokio::time::sleep(TLS_FILES_EVERY).await;
            }
        };
        tokio::time::timeout(TLS_FILES_EVERY * 100, taken).await.expect("it is taken");
        looking.abort();
    }
}
