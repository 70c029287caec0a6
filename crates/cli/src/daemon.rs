//! A process that serves until it is told to stop: its parts, its signals, and how it ends.

use edgeward::limits::DRAIN_TIMEOUT;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Waits for a stop signal, then lets the tasks drain. A task that ends before is a failure: the rest drains too, so
/// that the process ends and can be started anew.
pub(crate) async fn run_until_stopped(
    mut tasks: JoinSet<&'static str>,
    stop: &CancellationToken,
    mut signal: impl AsyncFnMut(),
) -> anyhow::Result<()> {
    let outcome = tokio::select! {
        () = signal() => Ok(()),
        ended = tasks.join_next() => Err(match ended {
            Some(Err(error)) => anyhow::Error::new(error).context("a part of the process failed, so the process stops"),
            Some(Ok(name)) => anyhow::anyhow!("{name} ended by itself, so the process stops"),
            None => anyhow::anyhow!("the process has nothing to run"),
        }),
    };
    tracing::info!("stopping: running invocations may end");
    stop.cancel();
    tokio::select! {
        () = async { while tasks.join_next().await.is_some() {} } => tracing::info!("stopped"),
        () = signal() => tracing::warn!("stopped at once: running invocations were cut off"),
        () = tokio::time::sleep(DRAIN_TIMEOUT) => {
            tracing::warn!("stopped while invocations still ran: they took longer than {DRAIN_TIMEOUT:?}");
        }
    }
    outcome
}

/// A part, which tells its name when it ends.
pub(crate) async fn named(name: &'static str, task: impl Future) -> &'static str {
    task.await;
    name
}

/// The host name, as far as it is a valid id.
pub(crate) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    if name.is_empty() { "edge-01".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn until(stop: CancellationToken) {
        stop.cancelled().await;
    }

    #[tokio::test]
    async fn a_part_that_fails_or_ends_stops_the_others_and_is_an_error() {
        for (part, why) in [("panics", "a part of the process failed"), ("ends", "ends ended by itself")] {
            let stop = CancellationToken::new();
            let mut tasks = JoinSet::new();
            tasks.spawn(named("listens", until(stop.clone())));
            tasks.spawn(named(part, async move { assert_eq!(part, "ends") }));
            let error = run_until_stopped(tasks, &stop, async || std::future::pending().await).await.expect_err("it failed");
            assert!(error.to_string().contains(why), "{error:#}");
            assert!(stop.is_cancelled());
        }
    }

    #[tokio::test]
    async fn the_first_signal_drains_and_the_second_ends_at_once() {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(named("drains", until(stop.clone())));
        let mut signals = 0;
        let signal = async || {
            signals += 1;
            if signals > 1 {
                std::future::pending::<()>().await;
            }
        };
        run_until_stopped(tasks, &stop, signal).await.expect("it drains");

        let mut tasks = JoinSet::new();
        tasks.spawn(named("never drains", std::future::pending::<()>()));
        run_until_stopped(tasks, &CancellationToken::new(), async || ()).await.expect("it is cut off");
    }
}
