//! A real nats-server with a data folder of its own, on a free port of this machine. It ends with the test.

use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const VARIABLE: &str = "EDGEWARD_NATS_SERVER";
const READY: &str = "Server is ready";
const LISTENING: &str = "Listening for client connections on 127.0.0.1:";

/// The text of a configuration, of the port (0 for any) and the folder of the data.
type Configure = Box<dyn Fn(u16, &Path) -> String + Send + Sync>;

pub(crate) struct Server {
    folder: TempDir,
    configure: Configure,
    /// 0 until the first start has chosen one.
    port: u16,
    process: Option<Child>,
}

impl Server {
    /// Starts one without credentials; `more` is added to its configuration.
    pub(crate) async fn start(more: &'static str) -> Self {
        Self::start_with(move |port, data| {
            let port = if port == 0 { -1 } else { i32::from(port) };
            let data = data.display();
            format!(
                "server_name: test\nlisten: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{data}\", sync_interval: always }}\n{more}\n"
            )
        })
        .await
    }

    /// Starts one with this configuration.
    pub(crate) async fn start_with(configure: impl Fn(u16, &Path) -> String + Send + Sync + 'static) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut server = Self { folder, configure: Box::new(configure), port: 0, process: None };
        server.start_again().await;
        server
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What it has said since it was started.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).expect("it has a log")
    }

    /// Starts it on the same port and data.
    pub(crate) async fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let path = self.folder.path().join("nats.conf");
        fs::write(&path, (self.configure)(self.port, &self.data())).expect("the folder takes a file");
        let errors = File::create(self.folder.path().join("log")).expect("the folder takes a file");
        let mut command = Command::new(program());
        command.arg("--config").arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        self.process = Some(command.spawn().expect("nats-server starts"));
        let start = Instant::now();
        loop {
            let text = self.log();
            if text.contains(READY) {
                let digits = text.split_once(LISTENING).expect("it says its port").1;
                let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
                self.port = digits[..end].parse().expect("a port");
                return;
            }
            let ended = self.process.as_mut().expect("it was started").try_wait().expect("it is ours");
            assert!(ended.is_none() && start.elapsed() < Duration::from_secs(20), "nats-server is not ready; its log:\n{text}");
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it as a power cut would, but for the disk.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it is ours");
            process.wait().expect("it is ours");
        }
    }

    /// Deletes all that it keeps. To be called while it is down.
    pub(crate) fn delete_data(&self) {
        fs::remove_dir_all(self.data()).expect("it is there");
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Named by the variable, on the path, or where set-up puts it.
pub(crate) fn program() -> PathBuf {
    if let Some(named) = env::var_os(VARIABLE) {
        return named.into();
    }
    let on_path = env::var_os("PATH").into_iter().flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
    let cache = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| Some(Path::new(&env::var_os("HOME")?).join(".cache")));
    let set_up = cache.map(|cache| cache.join("edgeward/venv/bin"));
    let found = on_path.chain(set_up).map(|folder| folder.join("nats-server")).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("nats-server is not there; install it by `cargo xtask setup`, or name it in the variable {VARIABLE}"))
}
