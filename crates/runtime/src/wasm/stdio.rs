//! Standard output and error of a guest: bounded sinks that never make the guest wait.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use edgeward_model::limits::{LOG_BYTES_PER_INVOCATION_MAX, LOG_LINE_BYTES_MAX, RESPONSE_BYTES_MAX, STDERR_TAIL_BYTES_MAX};
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamError},
};

use crate::logs::{FunctionLog, LogLine, LogStream};

/// Bytes that a guest may write in one call.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// Where a stream of a guest goes. Clones share one destination.
#[derive(Clone)]
pub(crate) struct Sink(Arc<Mutex<Destination>>);

enum Destination {
    /// The result of a command.
    Result(BytesMut),
    /// The function's log, line by line; what is past the bound is dropped.
    Log(LogWriter),
}

struct LogWriter {
    log: Arc<FunctionLog>,
    stream: LogStream,
    line: Vec<u8>,
    budget: usize,
    /// The last bytes, for the error of a failed invocation.
    tail: Vec<u8>,
}

impl Sink {
    pub(crate) fn result() -> Self {
        Self(Arc::new(Mutex::new(Destination::Result(BytesMut::new()))))
    }

    pub(crate) fn log(log: Arc<FunctionLog>, stream: LogStream) -> Self {
        let writer = LogWriter { log, stream, line: Vec::new(), budget: LOG_BYTES_PER_INVOCATION_MAX, tail: Vec::new() };
        Self(Arc::new(Mutex::new(Destination::Log(writer))))
    }

    /// Takes what a command wrote as its result.
    pub(crate) fn take_result(&self) -> Bytes {
        match &mut *self.0.lock() {
            Destination::Result(bytes) => bytes.split().freeze(),
            Destination::Log(_) => Bytes::new(),
        }
    }

    /// The last bytes that were written, as text.
    pub(crate) fn tail(&self) -> String {
        match &*self.0.lock() {
            Destination::Result(_) => String::new(),
            Destination::Log(writer) => String::from_utf8_lossy(&writer.tail).trim_end().to_owned(),
        }
    }

    /// Prepares a log for the next invocation of a reused instance.
    pub(crate) fn renew(&self) {
        if let Destination::Log(writer) = &mut *self.0.lock() {
            writer.flush_line();
            writer.budget = LOG_BYTES_PER_INVOCATION_MAX;
            writer.tail.clear();
        }
    }

    fn put(&self, bytes: &[u8]) -> Result<(), StreamError> {
        match &mut *self.0.lock() {
            Destination::Result(result) if result.len() + bytes.len() > RESPONSE_BYTES_MAX => {
                Err(StreamError::trap(&format!("the function wrote more than {RESPONSE_BYTES_MAX} bytes to standard output")))
            }
            Destination::Result(result) => {
                result.extend_from_slice(bytes);
                Ok(())
            }
            Destination::Log(writer) => {
                writer.put(bytes);
                Ok(())
            }
        }
    }
}

impl LogWriter {
    fn put(&mut self, bytes: &[u8]) {
        if self.stream == LogStream::Stderr {
            self.tail.extend_from_slice(&bytes[bytes.len().saturating_sub(STDERR_TAIL_BYTES_MAX)..]);
            let surplus = self.tail.len().saturating_sub(STDERR_TAIL_BYTES_MAX);
            self.tail.drain(..surplus);
        }
        if self.budget == 0 {
            return;
        }
        let kept = &bytes[..bytes.len().min(self.budget)];
        for part in kept.split_inclusive(|byte| *byte == b'\n') {
            let room = LOG_LINE_BYTES_MAX.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            self.budget = self.budget.saturating_sub(part.len());
            if part.ends_with(b"\n") {
                self.flush_line();
            }
        }
        if self.budget == 0 {
            self.flush_line();
            self.log.push(
                LogStream::Runtime,
                &format!("the rest of this invocation's output is dropped: more than {LOG_BYTES_PER_INVOCATION_MAX} bytes"),
            );
        }
    }

    fn flush_line(&mut self) {
        if !self.line.is_empty() {
            let text = String::from_utf8_lossy(&self.line);
            self.log.push(self.stream, text.trim_end_matches(['\n', '\r']));
            self.line.clear();
            self.budget = self.budget.saturating_sub(size_of::<LogLine>());
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.flush_line();
    }
}

impl IsTerminal for Sink {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Sink {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Sink {
    async fn ready(&mut self) {}
}

impl OutputStream for Sink {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        self.put(&bytes)
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl AsyncWrite for Sink {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.put(bytes).map(|()| bytes.len()).map_err(|error| io::Error::other(error.to_string())))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_keeps_its_first_lines_in_the_log_and_its_last_bytes_in_the_tail() {
        let log = Arc::new(FunctionLog::default());
        let sink = Sink::log(Arc::clone(&log), LogStream::Stderr);
        for i in 0..100_000 {
            sink.put(format!("line {i}\n").as_bytes()).expect("dropped, not refused");
        }
        assert_eq!(log.lines().first().expect("kept").text, "line 0");
        assert_eq!(log.lines().last().expect("kept").stream, LogStream::Runtime);
        assert!(sink.tail().ends_with("line 99999") && sink.tail().len() <= STDERR_TAIL_BYTES_MAX);
    }

    #[test]
    fn a_result_past_its_bound_stops_the_guest() {
        let sink = Sink::result();
        let block = vec![0; 1 << 20];
        for _ in 0..RESPONSE_BYTES_MAX >> 20 {
            sink.put(&block).expect("fits");
        }
        assert!(matches!(sink.put(b"x"), Err(StreamError::Trap(_))));
        assert_eq!(sink.take_result().len(), RESPONSE_BYTES_MAX);
    }

    #[test]
    fn a_line_without_an_end_is_logged_when_the_guest_is_gone() {
        let log = Arc::new(FunctionLog::default());
        let sink = Sink::log(Arc::clone(&log), LogStream::Stdout);
        sink.put(b"half a ").expect("put");
        sink.put(b"line").expect("put");
        assert!(log.lines().is_empty());
        drop(sink);
        assert_eq!(log.lines()[0].text, "half a line");
    }
}
