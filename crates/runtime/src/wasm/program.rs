//! A function's compiled component with its settings: starts guests, for HTTP requests and for commands.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use edgeward_model::{EdgeError, EdgeFunction, ErrorKind, Failure, limits::REQUEST_BYTES_MAX};
use edgeward_telemetry::TraceContext;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{
    sync::{SemaphorePermit, oneshot},
    time::Instant,
};
use wasmtime::Store;
use wasmtime_wasi::p2::{bindings::CommandPre, pipe::MemoryInputPipe};
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::{
    WasiHttpView as _,
    p2::{
        bindings::{
            Proxy,
            http::types::{ErrorCode, Scheme},
        },
        body::HyperOutgoingBody,
    },
};

use crate::{
    admission::Permit,
    body::{RequestBody, ResponseBody},
    deployed::{StderrTail, read_payload},
    documents::DocumentAccess,
    logs::{FunctionLog, LogStream},
    ticket::{Face, Ticket, timed_out, within},
    wasm::{
        Compiled, Wasm,
        answer::{GuestBody, HttpGuest},
        guest::{Guest, failed},
        keyvalue::Granted,
        outbound::AllowList,
        sandbox::{FOREGROUND_TICKS, Sandbox, Settings},
        stdio::Sink,
    },
};

/// A component, ready to start guests for one function.
pub(crate) struct Program {
    pub(super) wasm: &'static Wasm,
    compiled: Compiled,
    pub(super) function: Arc<EdgeFunction>,
    settings: Arc<Settings>,
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

/// Bytes of a page of a guest's memory.
const PAGE_BYTES: u64 = 64 * 1024;

type GuestResponse = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// Refuses a function that could never start, as one memory of its component begins larger than all may be.
fn check_memory(compiled: &Compiled, function: &EdgeFunction) -> Result<(), EdgeError> {
    let component = match compiled {
        Compiled::Http(proxy) => proxy.instance_pre().component(),
        Compiled::Command(command) => command.instance_pre().component(),
    };
    let pages = component.resources_required().and_then(|required| required.max_initial_memory_size).unwrap_or(0);
    if pages.saturating_mul(PAGE_BYTES) <= function.memory_bytes() as u64 {
        return Ok(());
    }
    let needs = pages.saturating_mul(PAGE_BYTES).div_ceil(1 << 20);
    let message = format!(
        "function `{}` may have {} MiB of memory, and its artifact begins with {needs} MiB; give it more",
        function.id, function.memory_mb
    );
    Err(EdgeError::new(ErrorKind::RefusedArtifact, message))
}

impl Program {
    pub(crate) fn new(
        wasm: &'static Wasm,
        compiled: Compiled,
        function: Arc<EdgeFunction>,
        documents: Option<Arc<dyn DocumentAccess>>,
        log: Arc<FunctionLog>,
    ) -> Result<Arc<Self>, EdgeError> {
        check_memory(&compiled, &function)?;
        let environment: Vec<_> = function.environment.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let config: WasiConfigVariables = environment.iter().cloned().collect();
        let allow = Arc::new(AllowList::parse(&function.allowed_hosts)?);
        let documents = Granted::new(&function, documents);
        let settings = Arc::new(Settings { memory_bytes: function.memory_bytes(), environment, config, allow, documents, log });
        let program = Arc::new(Self { wasm, compiled, function, settings, idle: Mutex::default() });
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
            Compiled::Http(_) => self.serve_http(request, permit, deadline, ticket).await,
            Compiled::Command(command) => {
                if let Some(ticket) = ticket.as_mut() {
                    ticket.cold_start = true;
                }
                let trace = trace_of(&request);
                let payload = read_payload(&self.function, request.into_body(), deadline).await?;
                self.run_command(command.clone(), (payload, trace), permit, deadline)
                    .await
                    .map(|output| Response::new(ResponseBody::full(output)))
            }
        }
    }

    async fn run_command(
        self: &Arc<Self>,
        command: CommandPre<Sandbox>,
        (stdin, trace): (Bytes, Option<TraceContext>),
        permit: Permit,
        deadline: Instant,
    ) -> Result<Bytes, EdgeError> {
        let program = Arc::clone(self);
        let stderr = self.stderr();
        let stderr_of_guest = stderr.clone();
        let guest = Guest::new(self.wasm, async move {
            let memory_bytes = permit.memory_bytes();
            let _permit = permit;
            let _slot = program.wasm.slot(&program.function, deadline).await?;
            let stdout = Sink::result();
            let stdin = Some(Box::new(MemoryInputPipe::new(stdin)) as _);
            let mut store = Sandbox::store(program.wasm, &program.settings, stdin, Some(stdout.clone()), stderr_of_guest);
            store.data_mut().trace = trace;
            store.data_mut().limit_memory(memory_bytes);
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
        request: Request<RequestBody>,
        permit: Permit,
        deadline: Instant,
        ticket: &mut Option<Ticket>,
    ) -> Result<Response<ResponseBody>, EdgeError> {
        let (sender, receiver) = oneshot::channel();
        let mut receiver = Some(receiver);
        // One that has more than a fault leaves it is no instance for this call.
        let idle = if permit.memory_bytes().is_some() { None } else { self.idle.lock().pop() };
        let stderr = match &idle {
            Some(instance) => instance.store.data().stderr.clone(),
            None => self.stderr(),
        };
        let face = ticket.as_mut().map(|ticket| {
            ticket.cold_start = idle.is_none();
            ticket.face
        });
        let start = match idle {
            Some(instance) => Start::Reuse(instance),
            None => Start::Fresh(stderr.clone()),
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
        let ticket = ticket.take().map(|ticket| ticket.answered(parts.status));
        let body = GuestBody::new(self, guest, frames, stderr, deadline, ticket);
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
        let memory_bytes = permit.memory_bytes();
        let _permit = permit;
        let trace = trace_of(&request);
        let mut instance = match start {
            Start::Reuse(mut instance) => {
                instance.store.data_mut().renew();
                instance.store.set_epoch_deadline(FOREGROUND_TICKS);
                instance
            }
            Start::Fresh(stderr) => self.instantiate(stderr, deadline, memory_bytes).await?,
        };
        instance.store.data_mut().trace = trace;
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
                if instance.served < self.function.max_reuse && memory_bytes.is_none() {
                    instance.used = Instant::now();
                    self.idle.lock().push(instance);
                    self.wasm.sweep_later();
                }
                Ok(())
            }
            Err(error) => Err(self.failed(Some(instance.store.data()), &error)),
        }
    }

    fn stderr(&self) -> Sink {
        Sink::log(Arc::clone(&self.settings.log), LogStream::Stderr)
    }

    async fn instantiate(&self, stderr: Sink, deadline: Instant, memory_bytes: Option<usize>) -> Result<Instance, EdgeError> {
        let Compiled::Http(proxy) = &self.compiled else { unreachable!("only components that answer HTTP are instantiated apart") };
        let slot = self.wasm.slot(&self.function, deadline).await?;
        let mut store = Sandbox::store(self.wasm, &self.settings, None, None, stderr);
        store.data_mut().limit_memory(memory_bytes);
        match proxy.instantiate_async(&mut store).await {
            Ok(proxy) => Ok(Instance { store, proxy, served: 0, used: Instant::now(), _slot: slot }),
            Err(error) => Err(self.failed(Some(store.data()), &error)),
        }
    }

    /// A guest that was started and not called, for benchmarks; `None` when the program is a command.
    pub(crate) async fn bench_instantiate(&self, deadline: Instant) -> Result<Option<impl Send + use<>>, EdgeError> {
        match &self.compiled {
            Compiled::Http(_) => self.instantiate(self.stderr(), deadline, None).await.map(Some),
            Compiled::Command(_) => Ok(None),
        }
    }

    fn failed(&self, sandbox: Option<&Sandbox>, error: &wasmtime::Error) -> EdgeError {
        failed(&self.function, sandbox, &self.settings.log, error)
    }
}

/// Where in its trace an invocation is, when it is kept.
fn trace_of(request: &Request<RequestBody>) -> Option<TraceContext> {
    request.extensions().get().copied()
}

/// Where the instance of an invocation comes from.
enum Start {
    Fresh(Sink),
    Reuse(Instance),
}

/// Adds the end of standard error to an error that does not come from the guest itself.
pub(super) fn with_tail(error: EdgeError, stderr: &Sink) -> EdgeError {
    error.with_failure(Failure { stderr_tail: stderr.tail(), ..Failure::default() })
}

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
