//! A NATS server of the hub's own: found, configured, started, and started again whenever it ends, for as long as the hub wants it.
//!
//! It keeps nothing that is not elsewhere: its folder may be deleted while it is down.

mod files;
mod log;
mod process;
mod program;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    time::Duration,
};

use edgeward_durable::{FolderLock, disk_error};
use edgeward_model::{
    EdgeError, ErrorKind,
    limits::{BROKER_RESTART_PAUSE_MAX, BROKER_RESTART_PAUSE_MIN, BROKER_RETRY_PAUSE_MAX, BROKER_START_TIMEOUT},
};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, interval_at, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{files::Files, process::Process};
use crate::nats::{Tls, authority::Revoked, fleet_keys::FleetKeys};

/// A broker that ends sooner than this after its start did not do well.
const STEADY: Duration = Duration::from_secs(10);
/// How often it is looked whether the certificate of the server ends soon.
const CERTIFICATE_LOOK: Duration = Duration::from_hours(12);

/// What a broker needs to know.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// The program; none for the one that `EDGEWARD_NATS_SERVER` names, or that is on the path.
    pub program: Option<PathBuf>,
    /// A folder for all that it keeps, which is made when it is missing, and used by one broker at a time.
    pub folder: PathBuf,
    /// Names it among others.
    pub name: String,
    /// Where it listens. Port 0 is one that is free, and stays the same when it is started again.
    pub listen: SocketAddr,
    /// Names and addresses under which members reach it, besides those of this machine alone.
    pub names: Vec<String>,
}

/// What a broker does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerState {
    /// It listens.
    Running {
        /// Where.
        address: SocketAddr,
        /// Its process.
        pid: u32,
    },
    /// It ended, and is being started again.
    Restarting {
        /// Why it ended, for people.
        why: String,
    },
    /// It was stopped.
    Stopped,
}

/// A NATS server that runs until this is stopped or dropped. It does not outlive the process.
#[derive(Debug)]
pub struct Broker {
    supervisor: Arc<Supervisor>,
    state: watch::Receiver<BrokerState>,
    /// Where it listens.
    address: SocketAddr,
    task: JoinHandle<()>,
    stop: DropGuard,
    _lock: FolderLock,
}

impl Broker {
    /// Starts it, and returns when it listens. It refuses the tokens that are `revoked`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no program, [`ErrorKind::Conflict`] when another broker uses the folder, and
    /// [`ErrorKind::Unavailable`] when the program is too old, or does not come to listen: its last words are in the error.
    pub async fn start(options: BrokerOptions, keys: Arc<FleetKeys>, revoked: Revoked) -> Result<Self, EdgeError> {
        let program = program::find(options.program.as_deref())?;
        program::check_version(&program).await?;
        let folder = &options.folder;
        edgeward_durable::create_private_folder(folder).map_err(|error| disk_error("make the folder of the NATS server", folder, error))?;
        let lock = FolderLock::take(folder, "lock")?;
        let files = Files::new(&options, keys);
        let supervisor = Arc::new(Supervisor { program, files, revoked: Mutex::new(revoked), listen: Mutex::new(options.listen) });
        let (process, address) = supervisor.start_first().await?;
        let (state, seen) = watch::channel(BrokerState::Running { address, pid: process.pid() });
        let stop = CancellationToken::new();
        let task = tokio::spawn(Arc::clone(&supervisor).supervise(process, state, stop.clone()));
        Ok(Self { supervisor, state: seen, address, task, stop: stop.drop_guard(), _lock: lock })
    }

    /// What it does.
    pub fn state(&self) -> watch::Receiver<BrokerState> {
        self.state.clone()
    }

    /// Where it listens, with the port that was chosen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address for members on this machine.
    pub fn local_url(&self) -> String {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("nats://{}", SocketAddr::new(ip, self.address.port()))
    }

    /// How members of this machine know it.
    pub fn tls(&self) -> Tls {
        Tls::Ca(self.supervisor.files.authority())
    }

    /// Refuses these tokens from its next start on.
    pub(super) fn set_revoked(&self, revoked: Revoked) {
        *self.supervisor.revoked.lock() = revoked;
    }

    /// Stops it, and returns when it has ended.
    pub async fn stop(self) {
        drop(self.stop);
        // It panics with its process, which is ours.
        let _ = self.task.await;
    }
}

/// Starts a broker as often as it has to.
#[derive(Debug)]
struct Supervisor {
    program: PathBuf,
    files: Files,
    revoked: Mutex<Revoked>,
    /// Where it listens; with the port that was chosen, once it was.
    listen: Mutex<SocketAddr>,
}

impl Supervisor {
    /// The first start. Of a process that was killed, the broker may still be there for a moment; any other failure is the last.
    async fn start_first(&self) -> Result<(Process, SocketAddr), EdgeError> {
        let start = Instant::now();
        for attempts in 1.. {
            match self.start().await {
                Err(error) if error.chain().contains("address already in use") && start.elapsed() < BROKER_START_TIMEOUT / 3 => {
                    sleep(pause(attempts, BROKER_RESTART_PAUSE_MAX)).await;
                }
                other => return other,
            }
        }
        unreachable!("the time ends before the numbers do")
    }

    /// Starts it, and returns when it listens.
    async fn start(&self) -> Result<(Process, SocketAddr), EdgeError> {
        let (listen, revoked) = (*self.listen.lock(), self.revoked.lock().clone());
        let config = self.files.write(listen, &revoked, Timestamp::now())?;
        let mut process = Process::start(&self.program, &config, self.files.ports()).await?;
        let port = process.listens().await?;
        let address = SocketAddr::new(listen.ip(), port);
        *self.listen.lock() = address;
        Ok((process, address))
    }

    async fn supervise(self: Arc<Self>, mut process: Process, state: watch::Sender<BrokerState>, stop: CancellationToken) {
        let mut failed = 0;
        loop {
            let started = Instant::now();
            let why = tokio::select! {
                ended = self.watch(&mut process) => ended,
                () = stop.cancelled() => {
                    process.stop().await;
                    state.send_replace(BrokerState::Stopped);
                    return;
                }
            };
            tracing::warn!(why, "the NATS server ended");
            state.send_replace(BrokerState::Restarting { why });
            failed = if started.elapsed() < STEADY { failed + 1 } else { 0 };
            let again = stop.run_until_cancelled(self.start_again(failed, &state)).await;
            let Some((next, address)) = again else {
                state.send_replace(BrokerState::Stopped);
                return;
            };
            process = next;
            tracing::info!(%address, pid = process.pid(), "the NATS server runs again");
            state.send_replace(BrokerState::Running { address, pid: process.pid() });
        }
    }

    /// Returns when it has ended, with the reason. Meanwhile it gets new certificates in time.
    async fn watch(&self, process: &mut Process) -> String {
        let mut look = interval_at(Instant::now() + CERTIFICATE_LOOK, CERTIFICATE_LOOK);
        loop {
            tokio::select! {
                status = process.ended() => return ended(status, process.last_words()),
                _ = look.tick() => match self.files.renew_certificate(Timestamp::now()) {
                    Ok(true) => process.reload(),
                    Ok(false) => {}
                    Err(error) => tracing::error!(error = error.chain(), "the certificate of the NATS server is not renewed"),
                },
            }
        }
    }

    /// Starts it until it listens. `failed` says how often it ended soon after it had listened.
    async fn start_again(&self, failed: u32, state: &watch::Sender<BrokerState>) -> (Process, SocketAddr) {
        sleep(pause(failed, BROKER_RESTART_PAUSE_MAX)).await;
        for failed in 1.. {
            match self.start().await {
                Ok(started) => return started,
                Err(error) => {
                    let why = error.chain();
                    tracing::error!(why, "the NATS server does not start");
                    state.send_replace(BrokerState::Restarting { why });
                    sleep(pause(failed, BROKER_RETRY_PAUSE_MAX)).await;
                }
            }
        }
        unreachable!("4 billion attempts take longer than anything")
    }
}

fn ended(status: std::io::Result<ExitStatus>, last_words: Option<String>) -> String {
    let how = status.map_or_else(|error| error.to_string(), |status| status.to_string());
    match last_words {
        Some(words) => format!("it ended ({how}); it said: {words}"),
        None => format!("it ended ({how})"),
    }
}

/// None at first, then twice as long each time. Nobody else waits for the same, so it needs no jitter.
fn pause(failed: u32, most: Duration) -> Duration {
    let Some(doublings) = failed.checked_sub(1) else { return Duration::ZERO };
    BROKER_RESTART_PAUSE_MIN.saturating_mul(1_u32.checked_shl(doublings.min(31)).unwrap_or(u32::MAX)).min(most)
}

/// The error of a broker that does not run.
fn unavailable(message: String) -> EdgeError {
    EdgeError::new(ErrorKind::Unavailable, message)
}

/// The path as text, for a message.
fn shown(path: &Path) -> std::path::Display<'_> {
    path.display()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pause_is_none_and_the_others_double_up_to_the_longest() {
        let pauses = |most| [0, 1, 2, 3, 4, 5, 6, 40, u32::MAX].map(|failed| pause(failed, most).as_millis());
        assert_eq!(pauses(BROKER_RESTART_PAUSE_MAX), [0, 100, 200, 400, 500, 500, 500, 500, 500]);
        assert_eq!(pauses(BROKER_RETRY_PAUSE_MAX)[7..], [5000, 5000]);
    }
}
