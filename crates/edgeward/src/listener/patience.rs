//! The bounds on clients that take nothing of their answers.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use bytes::Bytes;
use edgeward_model::{EdgeError, ErrorKind, limits::CLIENT_STALL_TIMEOUT};
use edgeward_runtime::ResponseBody;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

/// A connection that fails when its peer takes nothing for too long of what waits for it.
pub(super) struct Patience {
    stream: TcpStream,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patience {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, stalled: None }
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + CLIENT_STALL_TIMEOUT)));
        stalled
            .as_mut()
            .poll(cx)
            .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client took nothing of its answer for too long")))
    }
}

impl AsyncRead for Patience {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Patience {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A streaming body that ends when its client takes nothing for too long.
///
/// On HTTP/2 a client stops one answer by its window: no write waits then, and the body is simply not asked. While
/// the body itself has nothing to give, the function's own deadline holds.
pub(super) struct Watched(Arc<Mutex<Shared>>);

struct Shared {
    body: Option<ResponseBody>,
    /// Since when a frame has been out without the next one being asked for.
    waits_since: Option<Instant>,
}

impl Watched {
    pub(super) fn new(body: ResponseBody) -> Self {
        let shared = Arc::new(Mutex::new(Shared { body: Some(body), waits_since: Some(Instant::now()) }));
        tokio::spawn(watch(Arc::downgrade(&shared)));
        Self(shared)
    }
}

/// Ends with the answer, or ends the answer.
async fn watch(shared: Weak<Mutex<Shared>>) {
    let mut next = Instant::now() + CLIENT_STALL_TIMEOUT;
    loop {
        tokio::time::sleep_until(next).await;
        let Some(shared) = shared.upgrade() else { return };
        let mut shared = shared.lock();
        next = shared.waits_since.unwrap_or_else(Instant::now) + CLIENT_STALL_TIMEOUT;
        if next <= Instant::now() {
            shared.body = None;
            return;
        }
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = EdgeError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EdgeError>>> {
        let mut shared = self.0.lock();
        let Some(body) = &mut shared.body else {
            let message = "the client took nothing of its answer for too long";
            return Poll::Ready(Some(Err(EdgeError::new(ErrorKind::Timeout, message))));
        };
        let frame = Pin::new(body).poll_frame(cx);
        shared.waits_since = frame.is_ready().then(Instant::now);
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().body.as_ref().is_some_and(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}
