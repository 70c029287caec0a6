//! The answer of a guest while it is being given: what drives the guest, what ends it, and what counts it.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use edgeward_model::{EdgeError, ErrorKind, limits::RESPONSE_BYTES_MAX};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{task::AbortHandle, time::Instant};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::{
    body::ResponseBody,
    ticket::{Ticket, timed_out, within},
    wasm::{
        Class,
        guest::Guest,
        program::{Program, with_tail},
        stdio::Sink,
    },
};

/// Parts of a response that are looked at before its head is sent, to send a short answer in one piece.
const LOOK_AHEAD_FRAMES: usize = 4;

pub(super) type HttpGuest = Guest<Result<(), EdgeError>>;

/// The response body: runs the guest as it is read, within the deadline, and counts the invocation at its end.
pub(super) struct GuestBody {
    guest: Option<HttpGuest>,
    frames: HyperOutgoingBody,
    /// Frames that were read before the head was sent.
    ahead: VecDeque<Frame<Bytes>>,
    ended: bool,
    bytes_left: usize,
    deadline: Instant,
    /// Why the invocation was ended while nobody read.
    fault: Option<EdgeError>,
    /// Who waits for the next frame.
    waker: Option<Waker>,
    stderr: Sink,
    program: Arc<Program>,
    ticket: Option<Ticket>,
}

impl GuestBody {
    pub(super) fn new(
        program: &Arc<Program>,
        guest: Option<HttpGuest>,
        frames: HyperOutgoingBody,
        stderr: Sink,
        deadline: Instant,
        ticket: Option<Ticket>,
    ) -> Self {
        Self {
            guest,
            frames,
            ahead: VecDeque::new(),
            ended: false,
            bytes_left: RESPONSE_BYTES_MAX,
            deadline,
            fault: None,
            waker: None,
            stderr,
            program: Arc::clone(program),
            ticket,
        }
    }

    /// Takes what is there already: a short answer becomes one piece with a length.
    pub(super) async fn look_ahead(mut self) -> Result<ResponseBody, EdgeError> {
        std::future::poll_fn(|cx| {
            while self.ahead.len() < LOOK_AHEAD_FRAMES {
                match self.poll_guest_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => self.ahead.push_back(frame),
                    Poll::Ready(None) => {
                        self.ended = true;
                        break;
                    }
                    Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                    Poll::Pending => break,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        let short = self.ended && self.ahead.len() <= 1 && self.ahead.iter().all(Frame::is_data);
        if short {
            let frame = self.ahead.pop_front().and_then(|frame| frame.into_data().ok());
            self.finish(Ok(()));
            Ok(ResponseBody::full(frame.unwrap_or_default()))
        } else {
            Ok(ResponseBody::stream(Streaming::new(self)))
        }
    }

    /// Ends the invocation. A guest that still works after its answer goes on in the background until its deadline.
    fn finish(&mut self, result: Result<(), &EdgeError>) {
        let Some(ticket) = self.ticket.take() else { return };
        ticket.finish(result);
        if let (Ok(()), Some(guest)) = (result, self.guest.take()) {
            let deadline = self.deadline;
            self.program.wasm.compute(Class::Long).spawn(async move {
                // Its failure is in the function's log; the answer is out.
                let _ = within(deadline, guest).await;
            });
        }
        self.guest = None;
    }

    /// Stops a guest that has not ended by the deadline, whether or not somebody reads its answer.
    fn expire(&mut self) {
        if self.guest.is_some() {
            let error = with_tail(timed_out(&self.program.function), &self.stderr);
            self.finish(Err(&error));
            self.fault = Some(error);
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    fn poll_guest_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EdgeError>>> {
        let mut fault = None;
        if let Some(guest) = self.guest.as_mut()
            && let Poll::Ready(result) = Pin::new(guest).poll(cx)
        {
            self.guest = None;
            fault = result.err();
        }
        let error = match Pin::new(&mut self.frames).poll_frame(cx) {
            _ if fault.is_some() => fault.expect("checked in the guard"),
            Poll::Ready(Some(Ok(frame))) => match self.count(&frame) {
                Ok(()) => return Poll::Ready(Some(Ok(frame))),
                Err(error) => error,
            },
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Ready(Some(Err(error))) => {
                let message = format!("function `{}` broke off its answer: {error}", self.program.function.id);
                with_tail(EdgeError::new(ErrorKind::ExecutionFailed, message), &self.stderr)
            }
            Poll::Pending => return Poll::Pending,
        };
        self.finish(Err(&error));
        Poll::Ready(Some(Err(error)))
    }

    fn count(&mut self, frame: &Frame<Bytes>) -> Result<(), EdgeError> {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let left = self.bytes_left.checked_sub(bytes).ok_or_else(|| {
            let message = format!("function `{}` answered with more than {RESPONSE_BYTES_MAX} bytes", self.program.function.id);
            with_tail(EdgeError::new(ErrorKind::ExecutionFailed, message), &self.stderr)
        })?;
        self.bytes_left = left;
        Ok(())
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EdgeError>>> {
        if let Some(error) = self.fault.take() {
            self.ended = true;
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(frame) = self.ahead.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if !self.ended {
            let Poll::Ready(frame) = self.poll_guest_frame(cx) else {
                self.waker = Some(cx.waker().clone());
                return Poll::Pending;
            };
            if frame.is_some() {
                return Poll::Ready(frame);
            }
            self.ended = true;
        }
        self.finish(Ok(()));
        Poll::Ready(None)
    }
}

/// An answer that comes in parts. The deadline ends it also while its client takes nothing.
struct Streaming {
    body: Arc<Mutex<GuestBody>>,
    watch: AbortHandle,
}

impl Streaming {
    fn new(body: GuestBody) -> Self {
        let deadline = body.deadline;
        let body = Arc::new(Mutex::new(body));
        let watched = Arc::downgrade(&body);
        let watch = tokio::spawn(async move {
            tokio::time::sleep_until(deadline).await;
            if let Some(body) = watched.upgrade() {
                body.lock().expire();
            }
        });
        Self { body, watch: watch.abort_handle() }
    }
}

impl Drop for Streaming {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl Body for Streaming {
    type Data = Bytes;
    type Error = EdgeError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EdgeError>>> {
        self.body.lock().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let body = self.body.lock();
        body.ended && body.ahead.is_empty() && body.ticket.is_none() && body.fault.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.lock();
        if body.ahead.is_empty() { body.frames.size_hint() } else { SizeHint::default() }
    }
}
