//! The bounds on clients that leave the node waiting.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use edgeward_model::{
    EdgeError, ErrorKind,
    limits::{CLIENT_STALL_TIMEOUT, REQUEST_HEAD_TIMEOUT},
};
use edgeward_runtime::ResponseBody;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::AbortHandle,
    time::Instant,
};

/// What a connection waits for, and since when. One timer per connection looks at it, so that a request costs none.
pub(super) struct Clock {
    opened: Instant,
    /// When bytes last went out, or could not, in milliseconds since the connection was opened.
    moved_ms: AtomicU64,
    /// Whether bytes wait for the client to take them.
    stalled: AtomicBool,
    /// Requests whose answer has not been given in full.
    answering: AtomicU32,
}

impl Clock {
    pub(super) fn new() -> Self {
        Self { opened: Instant::now(), moved_ms: AtomicU64::new(0), stalled: AtomicBool::new(false), answering: AtomicU32::new(0) }
    }

    /// Notes that a request came; the answer is under way until the guard is dropped.
    pub(super) fn answering(self: &Arc<Self>) -> Answering {
        self.answering.fetch_add(1, Ordering::Relaxed);
        Answering(Arc::clone(self))
    }

    fn moved(&self) {
        let elapsed = self.opened.elapsed().as_millis();
        self.moved_ms.store(u64::try_from(elapsed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long the client may still leave the node waiting.
    fn left(&self) -> Duration {
        let patience = match (self.stalled.load(Ordering::Relaxed), self.answering.load(Ordering::Relaxed)) {
            (true, _) => CLIENT_STALL_TIMEOUT,
            (false, 0) => REQUEST_HEAD_TIMEOUT,
            // The function works: its own deadline holds.
            (false, _) => return REQUEST_HEAD_TIMEOUT,
        };
        (Duration::from_millis(self.moved_ms.load(Ordering::Relaxed)) + patience).saturating_sub(self.opened.elapsed())
    }

    /// Ends when the client has left the node waiting for too long: for a whole request head since the connection
    /// was opened or the last answer went out, or for room to write an answer.
    pub(super) async fn runs_out(&self) {
        loop {
            let left = self.left();
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

/// A request that is being answered.
pub(super) struct Answering(Arc<Clock>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A body that holds its request's guard to its end.
pub(super) struct Guarded<B> {
    pub(super) body: B,
    pub(super) _answering: Answering,
}

impl<B: Body + Unpin> Body for Guarded<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that tells its clock when bytes go out and when they cannot.
///
/// It does not offer vectored writes: hyper then joins head and body, and one plain write costs less than a vectored one.
pub(super) struct Timed {
    stream: TcpStream,
    clock: Arc<Clock>,
    stalled: bool,
}

impl Timed {
    pub(super) fn new(stream: TcpStream, clock: Arc<Clock>) -> Self {
        Self { stream, clock, stalled: false }
    }

    /// The first byte that the client sends, which stays to be read.
    pub(super) async fn first_byte(&self) -> io::Result<u8> {
        let mut byte = [0];
        match self.stream.peek(&mut byte).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(byte[0]),
        }
    }

    fn note<T>(&mut self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let stalls = written.is_pending();
        if !(stalls && self.stalled) {
            self.clock.moved();
        }
        if stalls != self.stalled {
            self.stalled = stalls;
            self.clock.stalled.store(stalls, Ordering::Relaxed);
        }
        written
    }
}

impl AsyncRead for Timed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The most that is handed to HTTP/2 at once: it keeps what its client does not take.
const PIECE_BYTES: usize = 64 << 10;

/// A body of HTTP/2 that ends when its client takes nothing for too long.
///
/// On HTTP/2 a client stops one answer by its window: no write waits then, and the body is simply not asked. While
/// the body itself has nothing to give, the function's own deadline holds.
pub(super) struct Watched {
    shared: Arc<Mutex<Shared>>,
    watch: AbortHandle,
}

struct Shared {
    body: Option<ResponseBody>,
    /// What is left of a frame that goes out in pieces.
    rest: Bytes,
    /// Since when a frame has been out without the next one being asked for.
    waits_since: Option<Instant>,
}

impl Watched {
    pub(super) fn new(body: ResponseBody) -> Self {
        let shared = Arc::new(Mutex::new(Shared { body: Some(body), rest: Bytes::new(), waits_since: Some(Instant::now()) }));
        let watch = tokio::spawn(watch(Arc::clone(&shared))).abort_handle();
        Self { shared, watch }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Ends the body when its time is over.
async fn watch(shared: Arc<Mutex<Shared>>) {
    let mut next = Instant::now() + CLIENT_STALL_TIMEOUT;
    loop {
        tokio::time::sleep_until(next).await;
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
        let shared = &mut *self.shared.lock();
        let Some(body) = &mut shared.body else {
            let message = "the client took nothing of its answer for too long";
            return Poll::Ready(Some(Err(EdgeError::new(ErrorKind::Timeout, message))));
        };
        let mut frame = if shared.rest.is_empty() {
            Pin::new(body).poll_frame(cx)
        } else {
            Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut shared.rest)))))
        };
        if let Poll::Ready(Some(Ok(frame))) = &mut frame
            && let Some(data) = frame.data_mut().filter(|data| data.len() > PIECE_BYTES)
        {
            shared.rest = data.split_off(PIECE_BYTES);
        }
        shared.waits_since = frame.is_ready().then(Instant::now);
        frame
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.lock();
        shared.rest.is_empty() && shared.body.as_ref().is_some_and(Body::is_end_stream)
    }
}
