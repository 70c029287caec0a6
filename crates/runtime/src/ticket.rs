//! The one place where an invocation is recorded.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

use edgeward_model::{EdgeError, EdgeFunction, ErrorKind};
use edgeward_telemetry::Span;
use http::StatusCode;
use tokio::time::{Instant, timeout_at};

use crate::{deployed::Deployed, logs::LogStream, metrics::Observation};

/// Through which door an invocation came: that decides which answers of an HTTP function are failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    /// `invoke`: anything but 2xx failed.
    Invoke,
    /// Served as HTTP: 5xx failed, the rest is between the function and its client.
    Http,
}

/// One invocation: counts it exactly once, at the end of its response.
pub(crate) struct Ticket {
    deployed: Arc<Deployed>,
    started: Instant,
    pub(crate) cold_start: bool,
    pub(crate) face: Face,
    status: StatusCode,
    state: State,
    /// Ends with the invocation.
    span: Option<Span>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Counted,
}

impl Ticket {
    /// An invocation that waits for its permit.
    pub(crate) fn new(deployed: Arc<Deployed>, face: Face, span: Option<Span>) -> Self {
        deployed.host.running.fetch_add(1, Ordering::Relaxed);
        Self { deployed, started: Instant::now(), cold_start: false, face, status: StatusCode::OK, state: State::Waiting, span }
    }

    /// The invocation has its permit and runs from now on, or since the ticket was made when it did not wait.
    pub(crate) fn start(&mut self, waited: bool) -> Instant {
        self.state = State::Running;
        if waited {
            self.started = Instant::now();
        }
        self.started
    }

    /// Notes the status of the answer whose body now follows.
    #[cfg(feature = "wasm")]
    pub(crate) fn answered(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Counts the invocation.
    pub(crate) fn finish(mut self, result: Result<(), &EdgeError>) {
        self.count(result);
    }

    fn count(&mut self, result: Result<(), &EdgeError>) {
        self.state = State::Counted;
        let deployed = &*self.deployed;
        let failed_answer = match self.face {
            Face::Invoke => !self.status.is_success(),
            Face::Http => self.status.is_server_error(),
        };
        let error_kind = match result {
            Err(error) => Some(error.kind()),
            Ok(()) => failed_answer.then_some(ErrorKind::ExecutionFailed),
        };
        // Calls that are refused by the thousand would drive everything else out of the log.
        if error_kind.is_some_and(|kind| kind != ErrorKind::Overloaded) {
            let why = result.err().map_or_else(|| format!("answered {}", self.status), EdgeError::chain);
            deployed.log.push(LogStream::Runtime, &why);
        }
        if let Some(mut span) = self.span.take() {
            span.set("faas.coldstart", self.cold_start);
            if deployed.sees_requests() && result.is_ok() {
                span.set("http.response.status_code", u64::from(self.status.as_u16()));
            }
            match (result, error_kind) {
                (Err(error), _) => span.fail(error),
                (Ok(()), Some(kind)) => span.fail_as(kind, &format!("answered {}", self.status)),
                (Ok(()), None) => {}
            }
        }
        deployed.host.metrics.observe(&Observation {
            function_id: &deployed.function.id,
            node_id: &deployed.host.node_id,
            duration_ms: self.started.elapsed().as_secs_f64() * 1e3,
            success: error_kind.is_none(),
            error_kind,
            cold_start: self.cold_start,
        });
    }
}

impl Drop for Ticket {
    /// The caller went away before the response ended: the function did not fail, so only a failed status counts.
    /// One that went away before its turn came has not been an invocation.
    fn drop(&mut self) {
        if self.state == State::Running {
            self.count(Ok(()));
        }
        self.deployed.host.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits for the work until the deadline. The timer is made only when the work has to wait.
pub(crate) async fn within<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    if let std::task::Poll::Ready(output) = futures::poll!(work.as_mut()) {
        return Some(output);
    }
    timeout_at(deadline, work).await.ok()
}

/// The error of an invocation that was stopped at its deadline.
pub(crate) fn timed_out(function: &EdgeFunction) -> EdgeError {
    EdgeError::new(
        ErrorKind::Timeout,
        format!("function `{}` ran past its deadline of {} s and was stopped", function.id, function.timeout_seconds),
    )
}
