//! A function's compiled component with its settings: starts guests, for HTTP requests and for commands.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use edgeward_model::{
    EdgeError, EdgeFunction, ErrorKind, Failure,
    limits::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX},
};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{
    sync::{SemaphorePermit, oneshot},
    task::AbortHandle,
    time::Instant,
};
use wasmtime::Store;
use wasmtime_wasi::p2::{bindings::CommandPre, pipe::MemoryInputPipe};
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::{
    WasiHttpView as _,
    p2::{
        bindings::{
            Proxy, ProxyPre,
            http::types::{ErrorCode, Scheme},
        },
        body::HyperOutgoingBody,
    },
};

use crate::{
    admission::Permit,
    body::{self, RequestBody, ResponseBody},
    deployed::StderrTail,
    logs::{FunctionLog, LogStream},
    ticket::{Face, Ticket, timed_out, within},
    wasm::{
        Class, Compiled, Wasm,
        guest::{Guest, failed},
        outbound::AllowList,
        sandbox::{ConfigVariables, FOREGROUND_TICKS, Sandbox, Settings},
        stdio::Sink,
    },
};

/// Parts of a response that are looked at before its head is sent, to send a short answer in one piece.
const LOOK_AHEAD_FRAMES: usize = 4;

/// A component, ready to start guests for one function.
pub(crate) struct Program {
    wasm: &'static Wasm,
    compiled: Compiled,
    function: Arc<EdgeFunction>,
    settings: Settings,
    log: Arc<FunctionLog>,
    /// Instances that may serve again; none unless the function asks for reuse.
    idle: Mutex<Vec<Instance>>,
}

struct Instance {
    store: Store<Sandbox>,
    proxy: Proxy,
    served: u32,
    /// When it last served.
    used: Instant,
    _slot: SemaphorePermit<'static>,
}

type GuestResponse = Result<Response<HyperOutgoingBody>, ErrorCode>;

impl Program {
    pub(crate) fn new(
        wasm: &'static Wasm,
        compiled: Compiled,
        function: Arc<EdgeFunction>,
        log: Arc<FunctionLog>,
    ) -> Result<Arc<Self>, EdgeError> {
        let environment: Vec<_> = function.environment.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let config: WasiConfigVariables = environment.iter().cloned().collect();
        let settings = Settings {
            memory_bytes: function.memory_bytes(),
            environment,
            config: Arc::new(ConfigVariables(config)),
            allow: Arc::new(AllowList::parse(&function.allowed_hosts)?),
        };
        let program = Arc::new(Self { wasm, compiled, function, settings, log, idle: Mutex::default() });
        if program.function.max_reuse > 1 {
            wasm.keeps_instances(&program);
        }
        Ok(program)
    }

    /// Whether the component answers HTTP requests, as against a command.
    pub(crate) fn is_http(&self) -> bool {
        matches!(self.compiled, Compiled::Http(_))
    }

    /// Drops instances that wait to be reused and were not for this long; returns how many are left.
    pub(super) fn drop_unused(&self, unused: Duration) -> usize {
        let now = Instant::now();
        let mut idle = self.idle.lock();
        let (dropped, kept): (Vec<_>, Vec<_>) = idle.drain(..).partition(|instance| now.duration_since(instance.used) >= unused);
        *idle = kept;
        let left = idle.len();
        drop(idle);
        // Not under the lock: this clears their memory.
        drop(dropped);
        left
    }

    /// Answers a request. The ticket counts the invocation when its response ends; the permit goes with the guest.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        permit: Permit,
        deadline: Instant,
        ticket: &mut Option<Ticket>,
    ) -> Result<Response<ResponseBody>, EdgeError> {
        match &self.compiled {
            Compiled::Http(proxy) => self.serve_http(proxy.clone(), request, permit, deadline, ticket).await,
            Compiled::Command(command) => {
                if let Some(ticket) = ticket.as_mut() {
                    ticket.cold_start = true;
                }
                let payload = within(deadline, body::collect(request.into_body(), REQUEST_BYTES_MAX)).await;
                let payload = payload.unwrap_or_else(|| Err(timed_out(&self.function)))?;
                self.run_command(command.clone(), payload, permit, deadline).await.map(|output| Response::new(ResponseBody::full(output)))
            }
        }
    }

    async fn run_command(
        self: &Arc<Self>,
        command: CommandPre<Sandbox>,
        stdin: Bytes,
        permit: Permit,
        deadline: Instant,
    ) -> Result<Bytes, EdgeError> {
        let program = Arc::clone(self);
        let stderr = self.sink(LogStream::Stderr);
        let stderr_of_guest = stderr.clone();
        let guest = Guest::new(self.wasm, async move {
            let _permit = permit;
            let _slot = program.wasm.slot(&program.function, deadline).await?;
            let stdout = Sink::result();
            let stdin = Some(Box::new(MemoryInputPipe::new(stdin)) as _);
            let mut store = Sandbox::store(program.wasm, &program.settings, stdin, stdout.clone(), stderr_of_guest);
            let result = match command.instantiate_async(&mut store).await {
                Ok(command) => command.wasi_cli_run().call_run(&mut store).await,
                Err(error) => Err(error),
            };
            let exit = |code| wasmtime::Error::from(wasmtime_wasi::I32Exit(code));
            let result = match result {
                Ok(Ok(())) => Ok(()),
                Ok(Err(())) => Err(exit(1)),
                Err(error) if error.downcast_ref::<wasmtime_wasi::I32Exit>().is_some_and(|exit| exit.0 == 0) => Ok(()),
                Err(error) => Err(error),
            };
            result.map(|()| stdout.take_result()).map_err(|error| program.failed(Some(store.data()), &error))
        });
        within(deadline, guest).await.unwrap_or_else(|| Err(with_tail(timed_out(&self.function), &stderr)))
    }

    async fn serve_http(
        self: &Arc<Self>,
        proxy: ProxyPre<Sandbox>,
        request: Request<RequestBody>,
        permit: Permit,
        deadline: Instant,
        ticket: &mut Option<Ticket>,
    ) -> Result<Response<ResponseBody>, EdgeError> {
        let (sender, receiver) = oneshot::channel();
        let mut receiver = Some(receiver);
        let idle = self.idle.lock().pop();
        let stderr = match &idle {
            Some(instance) => instance.store.data().stderr.clone(),
            None => self.sink(LogStream::Stderr),
        };
        let face = ticket.as_mut().map(|ticket| {
            ticket.cold_start = idle.is_none();
            ticket.face
        });
        let start = match idle {
            Some(instance) => Start::Reuse(instance),
            None => Start::Fresh(proxy, stderr.clone()),
        };
        let mut guest = Some(Guest::new(self.wasm, Arc::clone(self).run_http(start, request, permit, sender, deadline)));
        let head = within(deadline, std::future::poll_fn(|cx| poll_head(&mut guest, &mut receiver, cx)));
        let failed = |message: String| with_tail(EdgeError::new(ErrorKind::ExecutionFailed, message), &stderr);
        let response = match head.await {
            Some(Ok(Some(response))) => response,
            Some(Ok(None)) => return Err(failed(format!("function `{}` ended without an answer", self.function.id))),
            Some(Err(error)) => return Err(error),
            None => return Err(with_tail(timed_out(&self.function), &stderr)),
        };
        let (mut parts, frames) = match response {
            Ok(response) => response.into_parts(),
            Err(code) => return Err(failed(format!("function `{}` answered with an error: {code}", self.function.id))),
        };
        if face == Some(Face::Invoke) && !parts.status.is_success() {
            parts.extensions.insert(StderrTail(stderr.tail()));
        }
        let body = GuestBody {
            guest,
            frames,
            ahead: VecDeque::new(),
            ended: false,
            bytes_left: RESPONSE_BYTES_MAX,
            deadline,
            fault: None,
            waker: None,
            stderr,
            program: Arc::clone(self),
            ticket: ticket.take().map(|ticket| ticket.answered(parts.status)),
        };
        Ok(Response::from_parts(parts, body.look_ahead().await?))
    }

    async fn run_http(
        self: Arc<Self>,
        start: Start,
        request: Request<RequestBody>,
        permit: Permit,
        sender: oneshot::Sender<GuestResponse>,
        deadline: Instant,
    ) -> Result<(), EdgeError> {
        let _permit = permit;
        let mut instance = match start {
            Start::Reuse(mut instance) => {
                instance.store.data_mut().renew();
                instance.store.set_epoch_deadline(FOREGROUND_TICKS);
                instance
            }
            Start::Fresh(proxy, stderr) => self.instantiate(&proxy, stderr, deadline).await?,
        };
        let store = &mut instance.store;
        let result = async {
            let mut http = store.data_mut().http();
            let request = http.new_incoming_request(Scheme::Http, request.map(GuestRequestBody))?;
            let response = http.new_response_outparam(sender)?;
            instance.proxy.wasi_http_incoming_handler().call_handle(&mut *store, request, response).await
        };
        match result.await {
            Ok(()) => {
                instance.served += 1;
                if instance.served < self.function.max_reuse {
                    instance.used = Instant::now();
                    self.idle.lock().push(instance);
                    self.wasm.sweep_later();
                }
                Ok(())
            }
            Err(error) => Err(self.failed(Some(instance.store.data()), &error)),
        }
    }

    fn sink(&self, stream: LogStream) -> Sink {
        Sink::log(Arc::clone(&self.log), stream)
    }

    async fn instantiate(&self, proxy: &ProxyPre<Sandbox>, stderr: Sink, deadline: Instant) -> Result<Instance, EdgeError> {
        let slot = self.wasm.slot(&self.function, deadline).await?;
        let mut store = Sandbox::store(self.wasm, &self.settings, None, self.sink(LogStream::Stdout), stderr);
        match proxy.instantiate_async(&mut store).await {
            Ok(proxy) => Ok(Instance { store, proxy, served: 0, used: Instant::now(), _slot: slot }),
            Err(error) => Err(self.failed(Some(store.data()), &error)),
        }
    }

    /// A guest that was started and not called, for benchmarks; `None` when the program is a command.
    pub(crate) async fn bench_instantiate(&self, deadline: Instant) -> Result<Option<impl Send + use<>>, EdgeError> {
        match &self.compiled {
            Compiled::Http(proxy) => self.instantiate(proxy, self.sink(LogStream::Stderr), deadline).await.map(Some),
            Compiled::Command(_) => Ok(None),
        }
    }

    fn failed(&self, sandbox: Option<&Sandbox>, error: &wasmtime::Error) -> EdgeError {
        failed(&self.function, sandbox, &self.log, error)
    }
}

/// Where the instance of an invocation comes from.
enum Start {
    Fresh(ProxyPre<Sandbox>, Sink),
    Reuse(Instance),
}

/// Adds the end of standard error to an error that does not come from the guest itself.
fn with_tail(error: EdgeError, stderr: &Sink) -> EdgeError {
    error.with_failure(Failure { stderr_tail: stderr.tail(), ..Failure::default() })
}

type HttpGuest = Guest<Result<(), EdgeError>>;

/// Lets the guest run until it has answered or ended.
fn poll_head(
    guest: &mut Option<HttpGuest>,
    receiver: &mut Option<oneshot::Receiver<GuestResponse>>,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<GuestResponse>, EdgeError>> {
    let ended = match guest.as_mut().map(|guest| Pin::new(guest).poll(cx)) {
        Some(Poll::Ready(result)) => {
            *guest = None;
            Some(result)
        }
        Some(Poll::Pending) => None,
        None => Some(Ok(())),
    };
    // A guest that fails after its answer but before the head was sent has failed.
    if let Some(Err(error)) = ended {
        return Poll::Ready(Err(error));
    }
    if ended.is_some() {
        // Asked without `poll`, which answers "not yet" when the task has used up its budget.
        return Poll::Ready(Ok(receiver.take().and_then(|mut receiver| receiver.try_recv().ok())));
    }
    if let Some(Poll::Ready(answer)) = receiver.as_mut().map(|receiver| Pin::new(receiver).poll(cx)) {
        *receiver = None;
        if let Ok(response) = answer {
            return Poll::Ready(Ok(Some(response)));
        }
    }
    Poll::Pending
}

/// The request body as a guest may see it: no empty frames, and our errors in its words.
struct GuestRequestBody(RequestBody);

impl Body for GuestRequestBody {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            let frame = std::task::ready!(Pin::new(&mut self.0).poll_frame(cx));
            return Poll::Ready(match frame {
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => continue,
                Some(Ok(frame)) => Some(Ok(frame)),
                Some(Err(error)) if error.kind() == ErrorKind::TooLarge => {
                    Some(Err(wasmtime_wasi_http::Error::HttpRequestBodySize(Some(REQUEST_BYTES_MAX as u64))))
                }
                Some(Err(error)) => Some(Err(wasmtime_wasi_http::Error::InternalError(Some(error.to_string())))),
                None => None,
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// The response body: runs the guest as it is read, within the deadline, and counts the invocation at its end.
struct GuestBody {
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
    /// Takes what is there already: a short answer becomes one piece with a length.
    async fn look_ahead(mut self) -> Result<ResponseBody, EdgeError> {
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
