//! What the service manager is told of this process: datagrams to the socket that `NOTIFY_SOCKET` names, as systemd reads them.
//!
//! Where no manager asks, nothing is told. One that cannot be told is no reason to stop serving.

use std::{
    ffi::OsString,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use anyhow::Context;
use tokio_util::sync::CancellationToken;

const SOCKET: &str = "NOTIFY_SOCKET";
/// Within how many microseconds the manager must hear from this process, and whom it means.
const WATCHDOG: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// The way to the service manager.
#[derive(Debug)]
pub(crate) struct Notify {
    socket: Option<UnixDatagram>,
    /// Half of the time in which it must hear from this process; none when it does not watch.
    beat: Option<Duration>,
}

impl Notify {
    /// The way that the environment names; `of` reads a variable.
    ///
    /// # Errors
    /// When it names a socket that cannot be one. Its manager would wait for it in vain.
    pub(crate) fn open(of: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Self> {
        let Some(name) = of(SOCKET).filter(|name| !name.is_empty()) else { return Ok(Self { socket: None, beat: None }) };
        let socket = connect(&name).with_context(|| format!("failed to reach the service manager at {SOCKET} `{}`", name.display()))?;
        let number = |variable| of(variable).and_then(|value| value.to_str()?.parse::<u64>().ok());
        let is_meant = number(WATCHDOG_PID).is_none_or(|pid| pid == u64::from(std::process::id()));
        let beat = number(WATCHDOG).filter(|micros| is_meant && *micros > 0).map(|micros| Duration::from_micros(micros) / 2);
        Ok(Self { socket: Some(socket), beat })
    }

    /// Tells that the process is ready once `ready` ends, with what it does, and then that it is alive, until it is told to stop. It runs
    /// beside the work: when the threads of the runtime are stuck, so is this, and the manager hears nothing.
    pub(crate) async fn tell(self, ready: impl Future<Output = ()>, status: String, stop: CancellationToken) {
        self.send("STATUS=starting");
        let live = async {
            ready.await;
            self.send(&format!("READY=1\nSTATUS={status}"));
            loop {
                match self.beat {
                    Some(beat) => tokio::time::sleep(beat).await,
                    None => std::future::pending().await,
                }
                self.send("WATCHDOG=1");
            }
        };
        let _ = stop.run_until_cancelled(live).await;
        self.send("STOPPING=1\nSTATUS=stopping: running invocations may end");
    }

    /// Tells that the process is alive while it waits for something before its work begins.
    pub(crate) async fn alive_while(&self, waiting: impl Future<Output = ()>) {
        let alive = async {
            loop {
                tokio::time::sleep(self.beat.unwrap_or(Duration::MAX)).await;
                self.send("WATCHDOG=1");
            }
        };
        tokio::select! {
            () = waiting => {}
            () = alive => {}
        }
    }

    fn send(&self, text: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(text.as_bytes()) {
            tracing::warn!(%error, "the service manager could not be told: {text:?}");
        }
    }
}

/// A name that begins with `@` is no path, but one of the kernel's own.
fn connect(name: &OsString) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold this process up.
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manager that listens, and the environment that it gives.
    fn manager(watchdog: &[(&str, &str)]) -> (tempfile::TempDir, UnixDatagram, Vec<(String, OsString)>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("binds");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        let watchdog = watchdog.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value)));
        (folder, socket, watchdog.chain([(SOCKET.to_owned(), path.into_os_string())]).collect())
    }

    fn open(environment: &[(String, OsString)]) -> anyhow::Result<Notify> {
        Notify::open(|variable| environment.iter().find(|(name, _)| name == variable).map(|(_, value)| value.clone()))
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 200];
        let length = socket.recv(&mut bytes).expect("is told");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[tokio::test]
    async fn a_manager_hears_of_the_start_the_life_and_the_end() {
        let (_folder, socket, environment) = manager(&[(WATCHDOG, "20000")]);
        let (becomes_ready, ready) = tokio::sync::oneshot::channel::<()>();
        let stop = CancellationToken::new();
        let notify = open(&environment).expect("opens");
        let mut told = std::pin::pin!(notify.tell(async { drop(ready.await) }, "serving".to_owned(), stop.clone()));
        assert!(futures::poll!(&mut told).is_pending());
        assert_eq!(heard(&socket), "STATUS=starting");
        socket.set_nonblocking(true).expect("set");
        assert_eq!(socket.recv(&mut [0]).expect_err("it is not ready").kind(), io::ErrorKind::WouldBlock);
        socket.set_nonblocking(false).expect("set");

        becomes_ready.send(()).expect("it waits");
        let begun = std::time::Instant::now();
        let live = async { tokio::task::spawn_blocking(move || ([(); 3].map(|()| heard(&socket)), socket)).await.expect("is told") };
        let (first, socket) = tokio::select! {
            heard = live => heard,
            () = &mut told => panic!("it was not told to stop"),
        };
        assert_eq!(first, ["READY=1\nSTATUS=serving", "WATCHDOG=1", "WATCHDOG=1"]);
        assert!(begun.elapsed() >= Duration::from_millis(15), "each half of the time");
        stop.cancel();
        told.await;
        let last = std::iter::repeat_with(|| heard(&socket)).find(|text| text != "WATCHDOG=1");
        assert!(last.as_deref().is_some_and(|text| text.starts_with("STOPPING=1\n")), "{last:?}");
    }

    #[test]
    fn who_is_not_watched_sends_no_sign_of_life() {
        let own = std::process::id().to_string();
        for (watchdog, beat) in [
            (vec![], None),
            (vec![(WATCHDOG, "0")], None),
            (vec![(WATCHDOG, "a minute")], None),
            (vec![(WATCHDOG, "4000000"), (WATCHDOG_PID, "1")], None),
            (vec![(WATCHDOG, "4000000"), (WATCHDOG_PID, own.as_str())], Some(Duration::from_secs(2))),
        ] {
            let (_folder, _socket, environment) = manager(&watchdog);
            assert_eq!(open(&environment).expect("opens").beat, beat, "{watchdog:?}");
        }
    }

    #[test]
    fn a_manager_may_listen_at_a_name_that_is_no_path_or_not_at_all() {
        let name = format!("edgeward-test-{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("valid")).expect("binds");
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set");
        open(&[(SOCKET.to_owned(), format!("@{name}").into())]).expect("opens").send("READY=1");
        assert_eq!(heard(&socket), "READY=1");
        open(&[]).expect("nobody asks").send("READY=1");
        let error = open(&[(SOCKET.to_owned(), "/nowhere/notify".into())]).expect_err("nobody is there");
        assert!(error.to_string().contains("`/nowhere/notify`"), "{error:#}");
    }
}
