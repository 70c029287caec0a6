//! The process of a broker. It ends with ours, whatever ends ours.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use edgeward_model::{
    EdgeError,
    limits::{BROKER_START_TIMEOUT, BROKER_STOP_TIMEOUT},
};
use rustix::process::{Pid, Signal, getpid, getppid, kill_process, set_parent_process_death_signal};
use serde::Deserialize;
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::oneshot,
    time::{Instant, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    log::{self, LastWords},
    shown, unavailable,
};

/// How often it is looked whether it listens.
const LOOK: Duration = Duration::from_millis(10);
/// How it is called among processes, and how it names the file with its ports.
const NAME: &str = "nats-server";
/// Longest wait for the rest of what it said after it ended.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// A process that is killed when this is dropped.
pub(super) struct Process {
    child: Child,
    pid: u32,
    /// Where it says on which port it listens.
    ports: PathBuf,
    last_words: LastWords,
    log: AbortOnDropHandle<()>,
    /// The thread that started it lives as long as this: with its thread, the kernel would end the process.
    _thread: mpsc::Sender<()>,
}

/// What a server tells of its ports.
#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

impl Process {
    pub(super) async fn start(program: &Path, config: &Path, ports: PathBuf) -> Result<Self, EdgeError> {
        let failed = |error: io::Error| unavailable(format!("failed to start the NATS server `{}`", shown(program))).with_source(error);
        let mut command = Command::new(program);
        command.arg0(NAME).arg("--config").arg(config).arg("--ports_file_dir").arg(&ports).arg("--logtime=false");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        end_with_parent(&mut command);
        let (mut child, thread) = spawn(command).await.map_err(failed)?;
        let pid = child.id().expect("nobody waited for it yet");
        let last_words = LastWords::default();
        let said = child.stderr.take().expect("it is piped");
        let log = AbortOnDropHandle::new(tokio::spawn(log::forward(said, last_words.clone())));
        Ok(Self { child, pid, ports: ports.join(format!("{NAME}_{pid}.ports")), last_words, log, _thread: thread })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the port when it listens.
    pub(super) async fn listens(&mut self) -> Result<u16, EdgeError> {
        let start = Instant::now();
        loop {
            if let Some(port) = self.port() {
                return Ok(port);
            }
            let error = if let Ok(ended) = timeout(LOOK, self.ended()).await {
                let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                unavailable(format!("the NATS server ended before it listened ({how})"))
            } else if start.elapsed() > BROKER_START_TIMEOUT {
                unavailable(format!("the NATS server does not listen after {} seconds", BROKER_START_TIMEOUT.as_secs()))
            } else {
                continue;
            };
            return Err(match self.last_words() {
                Some(words) => error.with_source(words),
                None => error,
            });
        }
    }

    /// None while its file is not there, or not complete.
    fn port(&self) -> Option<u16> {
        let ports: Ports = serde_json::from_slice(&fs::read(&self.ports).ok()?).ok()?;
        ports.nats.first()?.rsplit_once(':')?.1.parse().ok()
    }

    /// Returns when it has ended and all that it said was read.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        // Who was killed leaves its file.
        let _ = fs::remove_file(&self.ports);
        let _ = timeout(LAST_WORDS_TIMEOUT, &mut self.log).await;
        status
    }

    /// The last line that said what is wrong.
    pub(super) fn last_words(&self) -> Option<String> {
        self.last_words.lock().clone()
    }

    /// Makes it read its certificates again.
    pub(super) fn reload(&self) {
        self.signal(Signal::HUP);
    }

    /// Ends it, and returns when it has ended.
    pub(super) async fn stop(mut self) {
        self.signal(Signal::TERM);
        if timeout(BROKER_STOP_TIMEOUT, self.ended()).await.is_err() {
            tracing::warn!(pid = self.pid, "the NATS server does not stop and is killed");
            // It is ours, so only one that has ended cannot be killed.
            let _ = self.child.kill().await;
        }
    }

    fn signal(&self, signal: Signal) {
        // The number is its own as long as nobody waited for its end, which only `ended` does.
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            // One that has ended gets none.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Has the kernel kill it when the thread that starts it ends, so also when our process is killed.
fn end_with_parent(command: &mut Command) {
    let parent = getpid();
    let before_it_runs = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // Who ended before that sends no signal.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotConnected.into()) }
    };
    #[expect(unsafe_code, reason = "between fork and exec it makes two system calls, and neither allocates nor locks")]
    unsafe {
        command.pre_exec(before_it_runs);
    }
}

/// Starts it from a thread that lives until the sender is dropped: the threads of the runtime may end before.
async fn spawn(mut command: Command) -> io::Result<(Child, mpsc::Sender<()>)> {
    let (runtime, (started, child), (thread_lives, until)) = (Handle::current(), oneshot::channel(), mpsc::channel());
    let start = move || {
        let child = {
            let _inside = runtime.enter();
            command.spawn()
        };
        if started.send(child).is_ok() {
            // It ends when the sender is dropped.
            let _ = until.recv();
        }
    };
    thread::Builder::new().name("edgeward-broker".to_owned()).spawn(start)?;
    let child = child.await.expect("the thread sends it")?;
    Ok((child, thread_lives))
}
