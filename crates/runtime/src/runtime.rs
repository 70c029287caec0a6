//! Executes functions on one node. Every invocation, from whichever face, passes [`EdgeRuntime::serve`] or
//! [`EdgeRuntime::invoke`], is admitted, limited and timed here, and is recorded once, by its `Ticket`.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use edgeward_model::{
    Digest, EdgeError, EdgeFunction, EdgeNode, ErrorKind, Failure, FunctionId, Handler, HandlerName, NodeId,
    limits::{FUNCTIONS_MAX, REQUEST_BYTES_MAX},
};
use http::{HeaderValue, Request, Response, header};
use parking_lot::{Mutex, RwLock};
use tokio::time::{Instant, timeout_at};

use crate::{
    admission::Gate,
    artifacts::ArtifactStore,
    body::{self, RequestBody, ResponseBody},
    logs::FunctionLog,
    metrics::EdgeMetrics,
    native::NativeHandler,
    ticket::{Counted, Face, Ticket, finish, timed_out},
};

/// Bytes of a function's own error answer that an error carries.
const ANSWER_EXCERPT_BYTES: usize = 512;

/// What a runtime is made with beside its node.
#[derive(Debug)]
pub struct RuntimeOptions {
    /// Where artifacts and their compiled code lie.
    pub artifacts: ArtifactStore,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self { artifacts: ArtifactStore::in_memory() }
    }
}

/// Runs functions on one node. Thread-safe.
///
/// ```
/// use edgeward_model::{EdgeFunction, EdgeNode, Handler, HandlerName};
/// use edgeward_runtime::{EdgeRuntime, NativeHandler};
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// let runtime = EdgeRuntime::new(EdgeNode::new("edge-01", "warehouse-sensor")?);
/// let shout = HandlerName::new("shout")?;
/// runtime.register(shout.clone(), NativeHandler::json(async |text: String| Ok::<_, std::io::Error>(text.to_uppercase())));
/// runtime.deploy(EdgeFunction::new("fn-1", "shout", Handler::Native(shout))?).await?;
/// assert_eq!(runtime.invoke("fn-1", r#""hello""#).await?, r#""HELLO""#);
/// assert!(runtime.undeploy("fn-1"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EdgeRuntime {
    node: RwLock<EdgeNode>,
    node_id: NodeId,
    metrics: Arc<EdgeMetrics>,
    artifacts: Arc<ArtifactStore>,
    handlers: RwLock<HashMap<HandlerName, NativeHandler>>,
    functions: ArcSwap<HashMap<FunctionId, Arc<Deployed>>>,
    /// Held while `functions` is replaced.
    changing: Mutex<()>,
    #[cfg(feature = "wasm")]
    compiled: Arc<Mutex<HashMap<Digest, crate::wasm::Compiled>>>,
    running: Arc<AtomicUsize>,
}

impl std::fmt::Debug for EdgeRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let functions = self.functions.load();
        f.debug_struct("EdgeRuntime").field("node", &self.node_id).field("functions", &functions.keys()).finish_non_exhaustive()
    }
}

/// A function that is deployed here, with its code and its bounds.
struct Deployed {
    function: Arc<EdgeFunction>,
    code: Code,
    gate: Gate,
    log: Arc<FunctionLog>,
}

enum Code {
    Native(NativeHandler),
    #[cfg(feature = "wasm")]
    Wasm(Arc<crate::wasm::program::Program>),
}

impl Deployed {
    #[cfg_attr(not(feature = "wasm"), expect(clippy::unnecessary_wraps, reason = "there is only native code in this build"))]
    fn native(&self) -> Option<&NativeHandler> {
        match &self.code {
            Code::Native(handler) => Some(handler),
            #[cfg(feature = "wasm")]
            Code::Wasm(_) => None,
        }
    }
}

/// The result of [`EdgeRuntime::invoke_with`].
#[derive(Debug)]
pub struct Output {
    /// The response body, or what the command wrote to standard output.
    pub body: Bytes,
    /// The content type that the function gave, if it gave one.
    pub content_type: Option<HeaderValue>,
}

impl EdgeRuntime {
    /// A runtime for this node that keeps artifacts in memory.
    pub fn new(node: EdgeNode) -> Self {
        Self::with_options(node, RuntimeOptions::default())
    }

    /// A runtime for this node.
    pub fn with_options(node: EdgeNode, options: RuntimeOptions) -> Self {
        Self {
            node_id: node.id.clone(),
            node: RwLock::new(node),
            metrics: Arc::default(),
            artifacts: Arc::new(options.artifacts),
            handlers: RwLock::default(),
            functions: ArcSwap::default(),
            changing: Mutex::default(),
            #[cfg(feature = "wasm")]
            compiled: Arc::default(),
            running: Arc::default(),
        }
    }

    /// The node as it is now.
    pub fn node(&self) -> EdgeNode {
        self.node.read().clone()
    }

    /// What ran here so far.
    pub fn metrics(&self) -> &Arc<EdgeMetrics> {
        &self.metrics
    }

    /// The artifacts of this runtime.
    pub fn artifacts(&self) -> &ArtifactStore {
        &self.artifacts
    }

    /// Invocations whose response has not ended.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Makes native code available to functions under a name; the same name again replaces it for later deployments.
    pub fn register(&self, name: HandlerName, handler: NativeHandler) {
        self.handlers.write().insert(name, handler);
    }

    /// Whether a native handler of this name is registered.
    pub fn has_handler(&self, name: &HandlerName) -> bool {
        self.handlers.read().contains_key(name)
    }

    /// Stores an artifact and compiles it, so that it can be deployed by its digest. An artifact that cannot run
    /// here is refused with [`ErrorKind::RefusedArtifact`] and the reason.
    pub async fn add_artifact(&self, bytes: impl Into<Bytes>) -> Result<Digest, EdgeError> {
        let bytes = bytes.into();
        let artifacts = Arc::clone(&self.artifacts);
        let digest = blocking(move || artifacts.put(bytes)).await?;
        self.load(digest).await?;
        Ok(digest)
    }

    #[cfg(feature = "wasm")]
    async fn load(&self, digest: Digest) -> Result<crate::wasm::Compiled, EdgeError> {
        // One compilation at a time: each uses all cores as it is.
        static COMPILING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let known = |this: &Self| this.compiled.lock().get(&digest).cloned();
        if let Some(compiled) = known(self) {
            return Ok(compiled);
        }
        let _turn = COMPILING.lock().await;
        if let Some(compiled) = known(self) {
            return Ok(compiled);
        }
        let artifacts = Arc::clone(&self.artifacts);
        let compiled = blocking(move || crate::wasm::Wasm::shared()?.load(&artifacts, &digest)).await?;
        self.compiled.lock().insert(digest, compiled.clone());
        Ok(compiled)
    }

    #[cfg(not(feature = "wasm"))]
    #[expect(clippy::unused_async, reason = "its twin with the engine waits")]
    async fn load(&self, digest: Digest) -> Result<std::convert::Infallible, EdgeError> {
        Err(EdgeError::new(ErrorKind::RefusedArtifact, format!("artifact `{digest}` is refused: this build has no WebAssembly engine")))
    }

    /// Says whether a function could be deployed here, and if not, why. Compiles its artifact.
    pub async fn check(&self, function: &EdgeFunction) -> Result<(), EdgeError> {
        function.validate()?;
        self.code(&Arc::new(function.clone()), &Arc::default()).await.map(drop)
    }

    #[cfg_attr(not(feature = "wasm"), expect(unused_variables, reason = "native code has no output to log"))]
    async fn code(&self, function: &Arc<EdgeFunction>, log: &Arc<FunctionLog>) -> Result<Code, EdgeError> {
        match &function.handler {
            Handler::Native(name) => {
                let handler = self.handlers.read().get(name).cloned().ok_or_else(|| {
                    let message = format!("handler not found: `{name}`, wanted by function `{}`; register it first", function.id);
                    EdgeError::new(ErrorKind::NotFound, message)
                })?;
                Ok(Code::Native(handler))
            }
            #[cfg(feature = "wasm")]
            Handler::Artifact(digest) => {
                let compiled = self.load(*digest).await?;
                let wasm = crate::wasm::Wasm::shared()?;
                let program = crate::wasm::program::Program::new(wasm, compiled, Arc::clone(function), Arc::clone(log))?;
                Ok(Code::Wasm(Arc::new(program)))
            }
            #[cfg(not(feature = "wasm"))]
            Handler::Artifact(digest) => match self.load(*digest).await {
                Err(error) => Err(error),
                Ok(never) => match never {},
            },
        }
    }

    /// Deploys a function; one of the same id is replaced, and its running invocations end undisturbed.
    pub async fn deploy(&self, function: EdgeFunction) -> Result<(), EdgeError> {
        function.validate()?;
        let function = Arc::new(function);
        let log = self.functions.load().get(&function.id).map(|old| Arc::clone(&old.log)).unwrap_or_default();
        let code = self.code(&function, &log).await?;
        let deployed = Arc::new(Deployed { gate: Gate::new(&function), function, code, log });
        self.change(|functions| {
            if functions.len() >= FUNCTIONS_MAX && !functions.contains_key(&deployed.function.id) {
                return Err(EdgeError::new(ErrorKind::Overloaded, format!("this node has {FUNCTIONS_MAX} functions, which is the most")));
            }
            functions.insert(deployed.function.id.clone(), Arc::clone(&deployed));
            Ok(())
        })
    }

    /// Removes a function; running invocations end undisturbed. Returns whether it was there.
    pub fn undeploy(&self, id: &str) -> bool {
        self.change(|functions| functions.remove(id).is_some())
    }

    fn change<T>(&self, change: impl FnOnce(&mut HashMap<FunctionId, Arc<Deployed>>) -> T) -> T {
        let _changing = self.changing.lock();
        let mut functions = HashMap::clone(&self.functions.load());
        let result = change(&mut functions);
        self.functions.store(Arc::new(functions));
        result
    }

    /// The functions that are deployed here, by id.
    pub fn list_functions(&self) -> Vec<EdgeFunction> {
        let mut functions: Vec<_> = self.functions.load().values().map(|deployed| EdgeFunction::clone(&deployed.function)).collect();
        functions.sort_by(|left, right| left.id.cmp(&right.id));
        functions
    }

    /// The log of a function that is deployed here.
    pub fn log(&self, id: &str) -> Option<Arc<FunctionLog>> {
        self.functions.load().get(id).map(|deployed| Arc::clone(&deployed.log))
    }

    /// Removes artifacts, their machine code and their loaded form when neither `live` nor a deployed function
    /// names them and they are older than `grace`.
    pub fn collect_garbage(&self, live: &HashSet<Digest>, grace: Duration) -> Result<usize, EdgeError> {
        let mut live = live.clone();
        live.extend(self.functions.load().values().filter_map(|deployed| match deployed.function.handler {
            Handler::Artifact(digest) => Some(digest),
            Handler::Native(_) => None,
        }));
        let removed = self.artifacts.collect(&live, grace)?;
        #[cfg(feature = "wasm")]
        self.compiled.lock().retain(|digest, _| live.contains(digest) || self.artifacts.contains(digest));
        Ok(removed)
    }

    /// Invokes a function with a payload: the body of a `POST /` for an HTTP component, standard input for a
    /// command, the argument of a native handler. Returns the response body, standard output or result.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown id; else the invocation failed: timeout, memory limit, overloaded, or
    /// [`ErrorKind::ExecutionFailed`] for a trap, any answer but 2xx and any exit code but 0.
    pub async fn invoke(&self, id: &str, payload: impl Into<Bytes>) -> Result<Bytes, EdgeError> {
        self.invoke_with(id, payload, None).await.map(|output| output.body)
    }

    /// The same, with the content type of the payload (else `application/octet-stream`) and of the result.
    pub async fn invoke_with(&self, id: &str, payload: impl Into<Bytes>, content_type: Option<HeaderValue>) -> Result<Output, EdgeError> {
        let payload = payload.into();
        let deployed = self.find(id)?;
        if let Some(handler) = deployed.native() {
            // No request is made up for native code: the payload is all it sees.
            let (mut ticket, deadline) = self.admit(&deployed, Face::Invoke).await?;
            let result = run_native(&deployed.function, handler, payload, deadline).await;
            finish(&mut ticket, result.as_ref().map(drop));
            return result.map(|body| Output { body, content_type: None });
        }
        let content_type = content_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
        let mut request = Request::new(body::full(payload.clone()));
        *request.method_mut() = http::Method::POST;
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
        request.headers_mut().insert(header::CONTENT_TYPE, content_type);
        request.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(payload.len()));
        let response = self.run(&deployed, request, Face::Invoke).await?;
        let (parts, body) = response.into_parts();
        let body = body.bytes().await?;
        if parts.status.is_success() {
            return Ok(Output { body, content_type: parts.headers.get(header::CONTENT_TYPE).cloned() });
        }
        let excerpt = String::from_utf8_lossy(&body[..body.len().min(ANSWER_EXCERPT_BYTES)]).trim_end().to_owned();
        let message = format!("function `{id}` answered {}{}{excerpt}", parts.status, if excerpt.is_empty() { "" } else { ": " });
        let failure = Failure { status: Some(parts.status.as_u16()), ..Failure::default() };
        Err(EdgeError::new(ErrorKind::ExecutionFailed, message).with_failure(failure))
    }

    /// Answers an HTTP request as the function does: status, headers, trailers and a body that streams both ways.
    /// Native handlers and commands get the body and answer 200 with their result.
    pub async fn serve(&self, id: &str, request: Request<RequestBody>) -> Result<Response<ResponseBody>, EdgeError> {
        let deployed = self.find(id)?;
        self.run(&deployed, request, Face::Http).await
    }

    /// A fresh sandbox of an HTTP component, for benchmarks only; `None` for any other function.
    #[cfg(feature = "wasm")]
    #[doc(hidden)]
    pub async fn bench_instantiate(&self, id: &str) -> Result<Option<impl Send + use<>>, EdgeError> {
        let deployed = self.find(id)?;
        match &deployed.code {
            Code::Native(_) => Ok(None),
            Code::Wasm(program) => program.bench_instantiate(Instant::now() + deployed.function.timeout()).await,
        }
    }

    fn find(&self, id: &str) -> Result<Arc<Deployed>, EdgeError> {
        self.functions.load().get(id).cloned().ok_or_else(|| EdgeError::function_not_found(id))
    }

    async fn admit(&self, deployed: &Deployed, face: Face) -> Result<(Option<Ticket>, Instant), EdgeError> {
        let counted = Counted {
            metrics: Arc::clone(&self.metrics),
            function_id: deployed.function.id.clone(),
            node_id: self.node_id.clone(),
            log: Arc::clone(&deployed.log),
            running: Arc::clone(&self.running),
        };
        let ticket = Ticket::new(counted, face);
        match deployed.gate.enter(&deployed.function).await {
            Ok(permit) => {
                let (ticket, started) = ticket.start(permit);
                Ok((Some(ticket), started + deployed.function.timeout()))
            }
            Err(error) => {
                ticket.finish(Err(&error));
                Err(error)
            }
        }
    }

    async fn run(&self, deployed: &Deployed, request: Request<RequestBody>, face: Face) -> Result<Response<ResponseBody>, EdgeError> {
        let (mut ticket, deadline) = self.admit(deployed, face).await?;
        let result = match &deployed.code {
            Code::Native(handler) => match timeout_at(deadline, body::collect(request.into_body(), REQUEST_BYTES_MAX)).await {
                Ok(Ok(payload)) => {
                    let result = run_native(&deployed.function, handler, payload, deadline).await;
                    result.map(|body| Response::new(ResponseBody::full(body)))
                }
                Ok(Err(error)) => Err(error),
                Err(_elapsed) => Err(timed_out(&deployed.function)),
            },
            #[cfg(feature = "wasm")]
            Code::Wasm(program) => program.serve(request, deadline, &mut ticket).await,
        };
        // A streaming response took the ticket with it.
        finish(&mut ticket, result.as_ref().map(drop));
        result
    }
}

async fn run_native(function: &EdgeFunction, handler: &NativeHandler, payload: Bytes, deadline: Instant) -> Result<Bytes, EdgeError> {
    timeout_at(deadline, handler.call(payload)).await.unwrap_or_else(|_elapsed| Err(timed_out(function)))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, EdgeError> + Send + 'static) -> Result<T, EdgeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(EdgeError::new(ErrorKind::Internal, "a worker thread failed").with_source(error)),
    }
}
