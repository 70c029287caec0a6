//! A function's compiled component with its settings: starts guests, for HTTP requests and for commands.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use edgeward_model::{
    EdgeError, EdgeFunction, ErrorKind,
    limits::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX},
};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, Sleep, timeout_at},
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
    body::{self, RequestBody, ResponseBody},
    logs::{FunctionLog, LogStream},
    ticket::{Ticket, timed_out},
    wasm::{
        Compiled, Wasm,
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
}

type GuestResponse = Result<Response<HyperOutgoingBody>, ErrorCode>;

impl Program {
    pub(crate) fn new(
        wasm: &'static Wasm,
        compiled: Compiled,
        function: Arc<EdgeFunction>,
        log: Arc<FunctionLog>,
    ) -> Result<Self, EdgeError> {
        let environment: Vec<_> = function.environment.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let config: WasiConfigVariables = environment.iter().cloned().collect();
        let settings = Settings {
            memory_bytes: function.memory_bytes(),
            environment,
            config: Arc::new(ConfigVariables(config)),
            allow: Arc::new(AllowList::parse(&function.allowed_hosts)?),
        };
        Ok(Self { wasm, compiled, function, settings, log, idle: Mutex::default() })
    }

    /// Answers a request. The ticket counts the invocation when its response ends.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        request: Request<RequestBody>,
        deadline: Instant,
        ticket: &mut Option<Ticket>,
    ) -> Result<Response<ResponseBody>, EdgeError> {
        match &self.compiled {
            Compiled::Http(proxy) => self.serve_http(proxy.clone(), request, deadline, ticket).await,
            Compiled::Command(command) => {
                if let Some(ticket) = ticket.as_mut() {
                    ticket.cold_start = true;
                }
                let payload = timeout_at(deadline, body::collect(request.into_body(), REQUEST_BYTES_MAX));
                let payload = payload.await.map_err(|_| timed_out(&self.function))??;
                self.run_command(command.clone(), payload, deadline).await.map(|output| Response::new(ResponseBody::full(output)))
            }
        }
    }

    async fn run_command(self: &Arc<Self>, command: CommandPre<Sandbox>, stdin: Bytes, deadline: Instant) -> Result<Bytes, EdgeError> {
        let program = Arc::clone(self);
        let guest = Guest::new(self.wasm, async move {
            let stdout = Sink::result();
            let stderr = Sink::log(Arc::clone(&program.log), LogStream::Stderr);
            let stdin = Some(Box::new(MemoryInputPipe::new(stdin)) as _);
            let mut store = Sandbox::store(program.wasm, &program.settings, stdin, stdout.clone(), stderr, deadline);
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
        timeout_at(deadline, guest).await.map_err(|_| timed_out(&self.function))?
    }

    async fn serve_http(
        self: &Arc<Self>,
        proxy: ProxyPre<Sandbox>,
        request: Request<RequestBody>,
        deadline: Instant,
        ticket: &mut Option<Ticket>,
    ) -> Result<Response<ResponseBody>, EdgeError> {
        let (sender, receiver) = oneshot::channel();
        let mut receiver = Some(receiver);
        let idle = self.idle.lock().pop();
        if let Some(ticket) = ticket.as_mut() {
            ticket.cold_start = idle.is_none();
        }
        let mut guest = Some(Guest::new(self.wasm, Arc::clone(self).run_http(proxy, idle, request, sender, deadline)));
        let head = timeout_at(deadline, std::future::poll_fn(|cx| poll_head(&mut guest, &mut receiver, cx)));
        let response = match head.await {
            Ok(Ok(Some(response))) => response,
            Ok(Ok(None)) => return Err(no_response(&self.function)),
            Ok(Err(error)) => return Err(error),
            Err(_elapsed) => return Err(timed_out(&self.function)),
        };
        let (parts, frames) = match response {
            Ok(response) => response.into_parts(),
            Err(code) => {
                let message = format!("function `{}` answered with an error: {code}", self.function.id);
                return Err(EdgeError::new(ErrorKind::ExecutionFailed, message));
            }
        };
        let body = GuestBody {
            guest,
            frames,
            ahead: VecDeque::new(),
            ended: false,
            bytes_left: RESPONSE_BYTES_MAX,
            deadline,
            sleep: None,
            program: Arc::clone(self),
            ticket: ticket.take().map(|ticket| ticket.answered(parts.status)),
        };
        Ok(Response::from_parts(parts, body.look_ahead().await?))
    }

    async fn run_http(
        self: Arc<Self>,
        proxy: ProxyPre<Sandbox>,
        idle: Option<Instance>,
        request: Request<RequestBody>,
        sender: oneshot::Sender<GuestResponse>,
        deadline: Instant,
    ) -> Result<(), EdgeError> {
        let mut instance = match idle {
            Some(mut instance) => {
                instance.store.data_mut().renew(deadline);
                instance.store.set_epoch_deadline(FOREGROUND_TICKS);
                instance
            }
            None => self.instantiate(&proxy, deadline).await?,
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
                    self.idle.lock().push(instance);
                }
                Ok(())
            }
            Err(error) => Err(self.failed(Some(instance.store.data()), &error)),
        }
    }

    async fn instantiate(&self, proxy: &ProxyPre<Sandbox>, deadline: Instant) -> Result<Instance, EdgeError> {
        let log = |stream| Sink::log(Arc::clone(&self.log), stream);
        let mut store = Sandbox::store(self.wasm, &self.settings, None, log(LogStream::Stdout), log(LogStream::Stderr), deadline);
        match proxy.instantiate_async(&mut store).await {
            Ok(proxy) => Ok(Instance { store, proxy, served: 0 }),
            Err(error) => Err(self.failed(Some(store.data()), &error)),
        }
    }

    /// A guest that was started and not called, for benchmarks; `None` when the program is a command.
    pub(crate) async fn bench_instantiate(&self, deadline: Instant) -> Result<Option<impl Send + use<>>, EdgeError> {
        match &self.compiled {
            Compiled::Http(proxy) => self.instantiate(proxy, deadline).await.map(Some),
            Compiled::Command(_) => Ok(None),
        }
    }

    fn failed(&self, sandbox: Option<&Sandbox>, error: &wasmtime::Error) -> EdgeError {
        failed(&self.function, sandbox, &self.log, error)
    }
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

fn no_response(function: &EdgeFunction) -> EdgeError {
    EdgeError::new(ErrorKind::ExecutionFailed, format!("function `{}` ended without an answer", function.id))
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
    sleep: Option<Pin<Box<Sleep>>>,
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
            Ok(ResponseBody::stream(self))
        }
    }

    /// Ends the invocation. A guest that still works after its answer goes on in the background until its deadline.
    fn finish(&mut self, result: Result<(), &EdgeError>) {
        let Some(ticket) = self.ticket.take() else { return };
        let succeeded = result.is_ok();
        let permit = ticket.finish(result);
        if let (true, Some(guest)) = (succeeded, self.guest.take()) {
            let deadline = self.deadline;
            self.program.wasm.background().spawn(async move {
                let _permit = permit;
                // Its failure is in the function's log; the answer is out.
                let _ = timeout_at(deadline, guest).await;
            });
        }
        self.guest = None;
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
                EdgeError::new(ErrorKind::ExecutionFailed, message)
            }
            Poll::Pending => {
                let deadline = self.deadline;
                let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                std::task::ready!(sleep.as_mut().poll(cx));
                timed_out(&self.program.function)
            }
        };
        self.finish(Err(&error));
        Poll::Ready(Some(Err(error)))
    }

    fn count(&mut self, frame: &Frame<Bytes>) -> Result<(), EdgeError> {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let left = self.bytes_left.checked_sub(bytes).ok_or_else(|| {
            let message = format!("function `{}` answered with more than {RESPONSE_BYTES_MAX} bytes", self.program.function.id);
            EdgeError::new(ErrorKind::ExecutionFailed, message)
        })?;
        self.bytes_left = left;
        Ok(())
    }
}

impl Body for GuestBody {
    type Data = Bytes;
    type Error = EdgeError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EdgeError>>> {
        if let Some(frame) = self.ahead.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if !self.ended {
            let frame = std::task::ready!(self.poll_guest_frame(cx));
            if frame.is_some() {
                return Poll::Ready(frame);
            }
            self.ended = true;
        }
        self.finish(Ok(()));
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.ahead.is_empty() && self.ticket.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.ahead.is_empty() { self.frames.size_hint() } else { SizeHint::default() }
    }
}
