//! The one place where an invocation is recorded.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use edgeward_model::{EdgeError, EdgeFunction, ErrorKind, FunctionId, InvocationRecord, NodeId};
use http::StatusCode;
use tokio::time::Instant;

use crate::{
    admission::Permit,
    logs::{FunctionLog, LogStream},
    metrics::EdgeMetrics,
};

/// Bytes of an error that a record keeps.
const RECORD_ERROR_BYTES: usize = 256;

/// Through which door an invocation came: that decides which answers of an HTTP function are failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Face {
    /// `invoke`: anything but 2xx failed.
    Invoke,
    /// Served as HTTP: 5xx failed, the rest is between the function and its client.
    Http,
}

/// Whose invocation is counted, and where.
pub(crate) struct Counted {
    pub(crate) metrics: Arc<EdgeMetrics>,
    pub(crate) function_id: FunctionId,
    pub(crate) node_id: NodeId,
    pub(crate) log: Arc<FunctionLog>,
    /// Invocations whose response has not ended.
    pub(crate) running: Arc<AtomicUsize>,
}

/// One invocation: counts it exactly once, at the end of its response.
pub(crate) struct Ticket {
    counted: Counted,
    permit: Option<Permit>,
    started: Instant,
    pub(crate) cold_start: bool,
    face: Face,
    status: StatusCode,
    finished: bool,
}

impl Ticket {
    /// An invocation that waits for its permit.
    pub(crate) fn new(counted: Counted, face: Face) -> Self {
        counted.running.fetch_add(1, Ordering::Relaxed);
        Self { counted, permit: None, started: Instant::now(), cold_start: false, face, status: StatusCode::OK, finished: false }
    }

    /// Starts the clock of an admitted invocation.
    pub(crate) fn start(mut self, permit: Permit) -> (Self, Instant) {
        (self.permit, self.started) = (Some(permit), Instant::now());
        let started = self.started;
        (self, started)
    }

    /// Notes the status of the answer whose body now follows.
    #[cfg(feature = "wasm")]
    pub(crate) fn answered(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Counts the invocation. Gives the permit back to the caller, who may keep it while the guest still works.
    pub(crate) fn finish(mut self, result: Result<(), &EdgeError>) -> Option<Permit> {
        self.count(result);
        self.permit.take()
    }

    fn count(&mut self, result: Result<(), &EdgeError>) {
        self.finished = true;
        let failed_answer = match self.face {
            Face::Invoke => !self.status.is_success(),
            Face::Http => self.status.is_server_error(),
        };
        let (error, error_kind) = match result {
            Err(error) => {
                let chain = error.chain();
                self.counted.log.push(LogStream::Runtime, &chain);
                (chain, Some(error.kind()))
            }
            Ok(()) if failed_answer => {
                let answered = format!("answered {}", self.status);
                self.counted.log.push(LogStream::Runtime, &answered);
                (answered, Some(ErrorKind::ExecutionFailed))
            }
            Ok(()) => (String::new(), None),
        };
        let duration_ms = self.started.elapsed().as_secs_f64() * 1e3;
        let success = error_kind.is_none();
        let mut record = InvocationRecord::new(self.counted.function_id.clone(), self.counted.node_id.clone(), duration_ms, success);
        record.error = error;
        record.error.truncate(record.error.floor_char_boundary(RECORD_ERROR_BYTES));
        record.error_kind = error_kind;
        record.cold_start = self.cold_start;
        self.counted.metrics.record(&record);
    }
}

impl Drop for Ticket {
    /// The caller went away before the response ended: the function did not fail, so only a failed status counts.
    fn drop(&mut self) {
        if !self.finished {
            self.count(Ok(()));
        }
        self.counted.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts the invocation, unless a streaming response took the ticket with it.
pub(crate) fn finish(ticket: &mut Option<Ticket>, result: Result<(), &EdgeError>) {
    if let Some(ticket) = ticket.take() {
        ticket.finish(result);
    }
}

/// The error of an invocation that was stopped at its deadline.
pub(crate) fn timed_out(function: &EdgeFunction) -> EdgeError {
    EdgeError::new(
        ErrorKind::Timeout,
        format!("function `{}` ran past its deadline of {} s and was stopped", function.id, function.timeout_seconds),
    )
}
