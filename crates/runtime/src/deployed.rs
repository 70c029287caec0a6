//! A deployed function: its code, its bounds, and how it is called.

use std::{
    any::Any,
    sync::{Arc, atomic::AtomicUsize},
};

use bytes::Bytes;
use edgeward_model::{EdgeError, EdgeFunction, ErrorKind, Failure, NodeId, limits::REQUEST_BYTES_MAX};
use edgeward_telemetry::{
    Span, SpanKind, TraceContext, begin, span,
    trace::{TRACEPARENT, TRACESTATE},
};
use http::{HeaderMap, HeaderValue, Request, Response, header};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    admission::{Crowd, Gate, Permit},
    body::{self, RequestBody, ResponseBody},
    faults::CallFaults,
    lease::RunLease,
    logs::FunctionLog,
    metrics::EdgeMetrics,
    native::NativeHandler,
    ticket::{Face, Ticket, timed_out, within},
};

/// Bytes of a function's own error answer that an error carries.
const ANSWER_EXCERPT_BYTES: usize = 512;

/// What all functions of one runtime share.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) node_id: NodeId,
    pub(crate) metrics: Arc<EdgeMetrics>,
    /// Invocations whose response has not ended.
    pub(crate) running: AtomicUsize,
    /// Whether its invocations are spans.
    pub(crate) is_traced: bool,
    /// What is injected into its calls.
    pub(crate) faults: Arc<CallFaults>,
}

/// A function that is deployed here, with its code and its bounds. It stays callable after it was replaced or
/// undeployed, for those who hold it.
pub struct Deployed {
    pub(crate) host: Arc<Host>,
    pub(crate) function: Arc<EdgeFunction>,
    pub(crate) code: Code,
    pub(crate) log: Arc<FunctionLog>,
    gate: Arc<Gate>,
    /// Without it no invocation begins, where one node at a time may run the function.
    lease: Option<Arc<RunLease>>,
    /// The narrower gate of the last fault that let fewer invocations run at once.
    squeezed: Mutex<Option<Arc<Squeezed>>>,
}

/// The gate before a function while a fault lets fewer invocations run at once, and the function as if it said so.
struct Squeezed {
    function: EdgeFunction,
    gate: Arc<Gate>,
}

impl std::fmt::Debug for Deployed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Deployed").field(&self.function.id).finish()
    }
}

#[derive(Clone)]
pub(crate) enum Code {
    Native(NativeHandler),
    #[cfg(feature = "wasm")]
    Wasm(Arc<crate::wasm::program::Program>),
}

/// What goes with the payload of a call. Native handlers get the payload alone.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    /// The type of the payload; `application/octet-stream` without one.
    pub content_type: Option<HeaderValue>,
    /// W3C's trace context of the caller, which the function finds in its request. Without one it finds none.
    pub traceparent: Option<HeaderValue>,
    /// What tracing systems add to it. It says nothing without the trace context.
    pub tracestate: Option<HeaderValue>,
}

impl CallOptions {
    /// Makes the call a part of this span.
    #[must_use]
    pub fn below(mut self, span: Option<&Span>) -> Self {
        let Some(context) = span.map(Span::context) else { return self };
        if TraceContext::of_value(self.traceparent.as_ref()).is_none_or(|before| before.trace_id != context.trace_id) {
            self.tracestate = None;
        }
        self.traceparent = Some(context.to_value());
        self
    }

    /// Where in its trace the call is, when it is a part of one.
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::of_value(self.traceparent.as_ref())
    }

    /// What goes with the body of a request.
    pub fn of(headers: &HeaderMap) -> Self {
        let traceparent = headers.get(&TRACEPARENT).cloned();
        let states: Vec<_> = headers.get_all(&TRACESTATE).iter().filter(|_| traceparent.is_some()).map(HeaderValue::as_bytes).collect();
        // Several fields are one list.
        let tracestate =
            (!states.is_empty()).then(|| HeaderValue::from_bytes(&states.join(&b","[..])).expect("made of values and a comma"));
        Self { content_type: headers.get(header::CONTENT_TYPE).cloned(), traceparent, tracestate }
    }
}

/// The result of [`EdgeRuntime::invoke_with`](crate::EdgeRuntime::invoke_with).
#[derive(Debug)]
pub struct Output {
    /// The response body, or what the command wrote to standard output.
    pub body: Bytes,
    /// The content type that the function gave, if it gave one.
    pub content_type: Option<HeaderValue>,
}

/// The end of what the guest wrote to standard error, beside an answer that `invoke` makes an error.
#[derive(Clone)]
pub(crate) struct StderrTail(pub(crate) String);

impl Deployed {
    pub(crate) fn new(host: Arc<Host>, function: Arc<EdgeFunction>, code: Code, log: Arc<FunctionLog>) -> Self {
        Self { gate: Arc::new(Gate::new(&function)), host, function, code, log, lease: None, squeezed: Mutex::default() }
    }

    /// Lets invocations begin only while this lease is held.
    pub(crate) fn under(self, lease: Option<Arc<RunLease>>) -> Self {
        Self { lease, ..self }
    }

    /// Whether it runs only under a lease.
    pub fn is_leased(&self) -> bool {
        self.lease.is_some()
    }

    /// The function.
    pub fn function(&self) -> &EdgeFunction {
        &self.function
    }

    /// Asks the function whether it works: a `GET` of this path must be answered with a status of 2xx; a function that sees no requests is
    /// invoked with an empty payload, and must end well. It is bounded as any invocation is, counted nowhere, and needs no lease.
    pub async fn probe(&self, path: &str) -> Result<(), EdgeError> {
        let host = Host {
            node_id: self.host.node_id.clone(),
            metrics: Arc::default(),
            running: AtomicUsize::new(0),
            is_traced: false,
            faults: Arc::default(),
        };
        let probed = Arc::new(Self::new(Arc::new(host), Arc::clone(&self.function), self.code.clone(), Arc::clone(&self.log)));
        let id = &self.function.id;
        let failed =
            |error: EdgeError| EdgeError::new(error.kind(), format!("function `{id}` failed its probe, `GET {path}`")).with_source(error);
        if !probed.sees_requests() {
            return probed.invoke(Bytes::new(), CallOptions::default()).await.map(drop).map_err(failed);
        }
        let mut request = Request::new(body::empty());
        *request.uri_mut() = path.parse().map_err(|error| EdgeError::invalid(format!("`{path}` is no path")).with_source(error))?;
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
        let (parts, body) = probed.serve(request).await.map_err(failed)?.into_parts();
        body.bytes().await.map_err(failed)?;
        if parts.status.is_success() {
            return Ok(());
        }
        Err(failed(EdgeError::new(ErrorKind::ExecutionFailed, format!("it answered {}", parts.status))))
    }

    /// Whether the function sees a request as it is, and not only its body.
    pub fn sees_requests(&self) -> bool {
        match &self.code {
            Code::Native(handler) => handler.as_serving().is_some(),
            #[cfg(feature = "wasm")]
            Code::Wasm(program) => program.is_http(),
        }
    }

    /// Answers a request as [`EdgeRuntime::serve`](crate::EdgeRuntime::serve) does.
    pub async fn serve(self: Arc<Self>, mut request: Request<RequestBody>) -> Result<Response<ResponseBody>, EdgeError> {
        let span = self.span(|| TraceContext::of(request.headers()));
        if let Some(span) = &span {
            span.carry(request.headers_mut());
        }
        match &self.code {
            Code::Native(handler) => {
                let (parts, body) = request.into_parts();
                let (ticket, permit, deadline) = self.admit(Face::Http, span).await?;
                let result = match (read_payload(&self.function, body, deadline).await, handler.as_serving()) {
                    (Ok(payload), Some(serve)) => {
                        let served = within(deadline, serve(parts, payload, permit, deadline)).await;
                        served.unwrap_or_else(|| Err(foreign_timed_out(&self.function))).map(|()| Bytes::new())
                    }
                    (Ok(payload), None) => self.run_native(handler, payload, deadline).await,
                    (Err(error), _) => Err(error),
                };
                ticket.finish(result.as_ref().map(drop));
                result.map(|body| Response::new(ResponseBody::full(body)))
            }
            #[cfg(feature = "wasm")]
            // Boxed, so that a call of native code does not carry the room for a guest's.
            Code::Wasm(program) => Box::pin(self.run_guest(program, request, Face::Http, span)).await,
        }
    }

    /// Has it answer a request, and waits for the whole of its answer. One that is not of 2xx is an error.
    pub async fn answer(self: Arc<Self>, request: Request<RequestBody>) -> Result<Output, EdgeError> {
        let response = Arc::clone(&self).serve(request).await?;
        self.output_of(response).await
    }

    /// Waits for the whole of an answer. One that is not of 2xx is an error, with the beginning of its body and of what the guest wrote to its standard error.
    async fn output_of(&self, response: Response<ResponseBody>) -> Result<Output, EdgeError> {
        let (mut parts, body) = response.into_parts();
        let body = body.bytes().await?;
        if parts.status.is_success() {
            return Ok(Output { body, content_type: parts.headers.remove(header::CONTENT_TYPE) });
        }
        let excerpt = String::from_utf8_lossy(&body[..body.len().min(ANSWER_EXCERPT_BYTES)]).trim_end().to_owned();
        let id = &self.function.id;
        let message = format!("function `{id}` answered {}{}{excerpt}", parts.status, if excerpt.is_empty() { "" } else { ": " });
        let stderr_tail = parts.extensions.remove::<StderrTail>().map(|tail| tail.0).unwrap_or_default();
        let failure = Failure { status: Some(parts.status.as_u16()), exit_code: None, stderr_tail };
        Err(EdgeError::new(ErrorKind::ExecutionFailed, message).with_failure(failure))
    }

    /// The span of an invocation, below that of its caller; none while nobody traces.
    fn span(&self, parent: impl FnOnce() -> Option<TraceContext>) -> Option<Span> {
        if span::tracer().is_none() || !self.host.is_traced {
            return None;
        }
        let mut span = begin(parent(), SpanKind::Server, || format!("invoke {}", self.function.id))?;
        span.set("faas.name", self.function.id.as_str());
        span.set("edgeward.node.id", self.host.node_id.as_str());
        Some(span)
    }

    pub(crate) fn crowd(&self) -> Crowd {
        self.gate.crowd()
    }

    pub(crate) async fn invoke(self: Arc<Self>, payload: Bytes, options: CallOptions) -> Result<Output, EdgeError> {
        let span = self.span(|| options.trace());
        match &self.code {
            Code::Native(handler) => {
                // No request is made up for native code: the payload is all it sees.
                let (ticket, _permit, deadline) = self.admit(Face::Invoke, span).await?;
                let result = self.run_native(handler, payload, deadline).await;
                ticket.finish(result.as_ref().map(drop));
                result.map(|body| Output { body, content_type: None })
            }
            #[cfg(feature = "wasm")]
            Code::Wasm(program) => Box::pin(self.invoke_guest(program, payload, options.below(span.as_ref()), span)).await,
        }
    }

    /// The code that [`NativeHandler::foreign`] wrapped, when this function is of that kind and type.
    pub fn foreign<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        match &self.code {
            Code::Native(handler) => handler.as_foreign(),
            #[cfg(feature = "wasm")]
            Code::Wasm(_) => None,
        }
    }

    /// Invokes foreign code, which `run` calls: it is admitted, ended at its deadline and recorded as any other. Code that cannot be stopped
    /// takes the permit along, and gives it back when it ends.
    pub async fn run_foreign<T, F>(self: Arc<Self>, run: impl FnOnce(Permit, Instant) -> F) -> Result<T, EdgeError>
    where
        F: Future<Output = Result<T, EdgeError>>,
    {
        let span = self.span(|| None);
        let (ticket, permit, deadline) = self.admit(Face::Invoke, span).await?;
        let result = within(deadline, run(permit, deadline)).await.unwrap_or_else(|| Err(foreign_timed_out(&self.function)));
        ticket.finish(result.as_ref().map(drop));
        result
    }

    async fn admit(self: &Arc<Self>, face: Face, mut span: Option<Span>) -> Result<(Ticket, Permit, Instant), EdgeError> {
        if let Some(lease) = &self.lease {
            // It is no invocation, and says nothing of the function.
            lease.enter(&self.function).inspect_err(|error| span::fail(&mut span, error))?;
        }
        let mut ticket = Ticket::new(Arc::clone(self), face, span);
        let faults = &self.host.faults;
        let squeezed = if faults.is_any() {
            match Box::pin(self.squeeze()).await {
                Ok(permit) => permit,
                Err(error) => {
                    ticket.finish(Err(&error));
                    return Err(error);
                }
            }
        } else {
            None
        };
        let (permit, waited) = match self.gate.try_enter() {
            Some(permit) => (Ok(permit), squeezed.is_some()),
            None => (self.gate.enter(&self.function).await, true),
        };
        // Who waited for a turn may have lost the lease meanwhile.
        let permit = permit.and_then(|permit| match &self.lease {
            Some(lease) => lease.enter(&self.function).map(|running| permit.under(running)),
            None => Ok(permit),
        });
        match permit {
            Ok(permit) => {
                let deadline = ticket.start(waited) + self.function.timeout();
                // As it is now: who waited for a turn may find that they have ended.
                if !faults.is_any() {
                    return Ok((ticket, permit.beside(squeezed), deadline));
                }
                match Box::pin(faults.befall(&self.function, deadline)).await {
                    Ok(memory_bytes) => Ok((ticket, permit.beside(squeezed).with_memory(memory_bytes), deadline)),
                    Err(error) => {
                        ticket.finish(Err(&error));
                        Err(error)
                    }
                }
            }
            Err(error) => {
                ticket.finish(Err(&error));
                Err(error)
            }
        }
    }

    /// A turn of so many at once as a fault says, as long as one does.
    async fn squeeze(&self) -> Result<Option<Permit>, EdgeError> {
        let (faults, mut ended) = (&self.host.faults, self.host.faults.ended());
        loop {
            let Some(concurrency) = faults.of(&self.function.id).concurrency else { return Ok(None) };
            let narrow = self.narrowed(concurrency.min(self.function.max_concurrency));
            if let Some(permit) = narrow.gate.try_enter() {
                return Ok(Some(permit));
            }
            tokio::select! {
                permit = narrow.gate.enter(&narrow.function) => return permit.map(Some),
                // It lives as long as the host.
                _ = ended.changed() => {}
            }
        }
    }

    /// The gate for so many at once.
    fn narrowed(&self, concurrency: u32) -> Arc<Squeezed> {
        let mut squeezed = self.squeezed.lock();
        match &*squeezed {
            Some(narrow) if narrow.function.max_concurrency == concurrency => Arc::clone(narrow),
            _ => {
                let function = EdgeFunction { max_concurrency: concurrency, ..EdgeFunction::clone(&self.function) };
                Arc::clone(squeezed.insert(Arc::new(Squeezed { gate: Arc::new(Gate::new(&function)), function })))
            }
        }
    }

    async fn run_native(&self, handler: &NativeHandler, payload: Bytes, deadline: Instant) -> Result<Bytes, EdgeError> {
        within(deadline, handler.call(payload)).await.unwrap_or_else(|| Err(timed_out(&self.function)))
    }
}

fn foreign_timed_out(EdgeFunction { id, timeout_seconds, .. }: &EdgeFunction) -> EdgeError {
    let message = format!("function `{id}` ran past its deadline of {timeout_seconds} s; its handler may still run");
    EdgeError::new(ErrorKind::Timeout, message)
}

/// The whole body of a request, for code that takes no streams.
pub(crate) async fn read_payload(function: &EdgeFunction, body: RequestBody, deadline: Instant) -> Result<Bytes, EdgeError> {
    within(deadline, body::collect(body, REQUEST_BYTES_MAX)).await.unwrap_or_else(|| Err(timed_out(function)))
}

#[cfg(feature = "wasm")]
impl Deployed {
    async fn run_guest(
        self: &Arc<Self>,
        program: &Arc<crate::wasm::program::Program>,
        mut request: Request<RequestBody>,
        face: Face,
        span: Option<Span>,
    ) -> Result<Response<ResponseBody>, EdgeError> {
        // Room for extensions is an allocation, which a call that nobody traces is spared.
        if let Some(context) = span.as_ref().and_then(Span::kept_context) {
            request.extensions_mut().insert(context);
        }
        let (ticket, permit, deadline) = self.admit(face, span).await?;
        let mut ticket = Some(ticket);
        let result = program.serve(request, permit, deadline, &mut ticket).await;
        // A streaming response took the ticket with it.
        if let Some(ticket) = ticket {
            ticket.finish(result.as_ref().map(drop));
        }
        result
    }

    async fn invoke_guest(
        self: &Arc<Self>,
        program: &Arc<crate::wasm::program::Program>,
        payload: Bytes,
        CallOptions { content_type, traceparent, tracestate }: CallOptions,
        span: Option<Span>,
    ) -> Result<Output, EdgeError> {
        let content_type = content_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
        let length = payload.len();
        let mut request = Request::new(body::full(payload));
        *request.method_mut() = http::Method::POST;
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
        request.headers_mut().insert(header::CONTENT_TYPE, content_type);
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        for (name, value) in [(&TRACEPARENT, traceparent), (&TRACESTATE, tracestate)] {
            request.headers_mut().extend(value.map(|value| (name.clone(), value)));
        }
        self.output_of(self.run_guest(program, request, Face::Invoke, span).await?).await
    }
}
