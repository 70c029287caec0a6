//! The end of a node's process as a cut of its power is one: nothing that it has is written, told or closed. For experiments.
//!
//! Its own program takes its place, with the same arguments, and waits before it does anything: a node must be able to start again where nobody
//! watches over it, and a service manager sees the process that it knows. The kernel ends every thread and closes every file and connection at that
//! moment, as after `kill -9`.

use std::{convert::Infallible, os::unix::process::CommandExt, process::Command, time::Duration};

use tokio::time::sleep;

use crate::{notify::Notify, signals::StopSignals};

/// How long the process that takes its place stays down, in milliseconds.
const DOWN: &str = "EDGEWARD_DOWN_MS";
/// The program of this process, also when its file was replaced meanwhile.
const PROGRAM: &str = "/proc/self/exe";

/// Ends it, and has it start again after this time. Where that is not possible it ends for good.
pub(crate) fn crash(down: Duration) -> Infallible {
    let mut arguments = std::env::args_os();
    let mut program = Command::new(PROGRAM);
    if let Some(name) = arguments.next() {
        program.arg0(name);
    }
    let error = program.args(arguments).env(DOWN, down.as_millis().to_string()).exec();
    tracing::error!(%error, "this process could not be replaced by a new one, and ends");
    std::process::abort()
}

/// What became of a process that may have to stay down.
pub(crate) enum Down {
    /// It is up, and catches the signals to stop if it was down.
    Up(Option<StopSignals>),
    /// It was asked to stop.
    Stopped,
}

/// Stays down for as long as the process before this one said, or until it is asked to stop: as the first process of a container it would not end by itself.
pub(crate) async fn stay_down(notify: &Notify) -> anyhow::Result<Down> {
    let down = std::env::var(DOWN).ok().and_then(|millis| millis.parse().ok()).map(Duration::from_millis);
    let Some(down) = down else { return Ok(Down::Up(None)) };
    let mut signals = StopSignals::catch()?;
    tracing::warn!(target: "audit", "an injected fault ended this process; it starts again in {} s", down.as_secs_f64());
    tokio::select! {
        () = notify.alive_while(sleep(down)) => Ok(Down::Up(Some(signals))),
        () = signals.next() => Ok(Down::Stopped),
    }
}
