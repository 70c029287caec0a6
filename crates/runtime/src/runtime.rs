//! Executes functions on one node. Every invocation, from whichever face, passes [`EdgeRuntime::serve`] or
//! [`EdgeRuntime::invoke`], is admitted, limited and timed by its `Deployed`, and is recorded once, by its `Ticket`.

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
use edgeward_model::{Digest, EdgeError, EdgeFunction, EdgeNode, ErrorKind, FunctionId, Handler, HandlerName, limits::FUNCTIONS_MAX};
use http::{Request, Response};
use parking_lot::{Mutex, RwLock};

use crate::{
    admission::Crowd,
    artifacts::ArtifactStore,
    body::{RequestBody, ResponseBody},
    deployed::{CallOptions, Code, Deployed, Host, Output},
    documents::DocumentAccess,
    faults::CallFaults,
    lease::RunLease,
    logs::FunctionLog,
    metrics::EdgeMetrics,
    native::NativeHandler,
};

/// What a runtime is made with beside its node.
#[derive(Debug)]
pub struct RuntimeOptions {
    /// Where artifacts and their compiled code lie.
    pub artifacts: Arc<ArtifactStore>,
    /// The documents that functions may be granted; without it they find none.
    pub documents: Option<Arc<dyn DocumentAccess>>,
}

impl Default for RuntimeOptions {
    fn default() -> Self {
        Self { artifacts: Arc::new(ArtifactStore::in_memory()), documents: None }
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
    node: EdgeNode,
    host: Arc<Host>,
    artifacts: Arc<ArtifactStore>,
    handlers: RwLock<HashMap<HandlerName, NativeHandler>>,
    functions: ArcSwap<HashMap<FunctionId, Arc<Deployed>>>,
    /// Held while `functions` is replaced.
    changing: Mutex<()>,
    #[cfg(feature = "wasm")]
    documents: Option<Arc<dyn DocumentAccess>>,
    #[cfg(feature = "wasm")]
    compiled: Arc<Mutex<HashMap<Digest, crate::wasm::Compiled>>>,
    #[cfg(not(feature = "wasm"))]
    stand_in: RwLock<Option<NativeHandler>>,
}

impl std::fmt::Debug for EdgeRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let functions = self.functions.load();
        f.debug_struct("EdgeRuntime").field("node", &self.node.id).field("functions", &functions.keys()).finish_non_exhaustive()
    }
}

impl EdgeRuntime {
    /// A runtime for this node that keeps artifacts in memory.
    pub fn new(node: EdgeNode) -> Self {
        Self::with_options(node, RuntimeOptions::default())
    }

    /// A runtime for this node.
    pub fn with_options(node: EdgeNode, options: RuntimeOptions) -> Self {
        Self {
            host: Arc::new(Host {
                node_id: node.id.clone(),
                metrics: Arc::default(),
                running: AtomicUsize::new(0),
                is_traced: true,
                faults: Arc::default(),
            }),
            node,
            artifacts: options.artifacts,
            handlers: RwLock::default(),
            functions: ArcSwap::default(),
            changing: Mutex::default(),
            #[cfg(feature = "wasm")]
            documents: options.documents,
            #[cfg(feature = "wasm")]
            compiled: Arc::default(),
            #[cfg(not(feature = "wasm"))]
            stand_in: RwLock::default(),
        }
    }

    /// The node that this runtime is.
    pub fn node(&self) -> &EdgeNode {
        &self.node
    }

    /// What ran here so far.
    pub fn metrics(&self) -> &Arc<EdgeMetrics> {
        &self.host.metrics
    }

    /// What is injected into its calls.
    pub fn call_faults(&self) -> &Arc<CallFaults> {
        &self.host.faults
    }

    /// The artifacts of this runtime, which others may share.
    pub fn artifacts(&self) -> &Arc<ArtifactStore> {
        &self.artifacts
    }

    /// Invocations whose response has not ended.
    pub fn running(&self) -> usize {
        self.host.running.load(Ordering::Relaxed)
    }

    /// Makes native code available to functions under a name; the same name again replaces it for later deployments.
    pub fn register(&self, name: HandlerName, handler: NativeHandler) {
        self.handlers.write().insert(name, handler);
    }

    /// Forgets a name; functions that are deployed keep their code.
    pub fn unregister(&self, name: &HandlerName) {
        self.handlers.write().remove(name);
    }

    /// Stores an artifact and compiles it, so that it can be deployed by its digest. An artifact that cannot run
    /// here is refused with [`ErrorKind::RefusedArtifact`] and the reason.
    pub async fn add_artifact(&self, bytes: impl Into<Bytes>) -> Result<Digest, EdgeError> {
        let bytes = bytes.into();
        let artifacts = Arc::clone(&self.artifacts);
        let digest = blocking(move || artifacts.put(bytes)).await?;
        self.load(digest).await.inspect_err(|error| {
            if error.kind() == ErrorKind::RefusedArtifact {
                self.artifacts.discard(&digest);
            }
        })?;
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

    /// Runs this in place of every artifact, in a build without the engine: a simulated node takes artifacts as others do, and compiles none. One
    /// that is not here or not whole is refused as ever.
    #[cfg(not(feature = "wasm"))]
    pub fn stand_in_for_artifacts(&self, handler: NativeHandler) {
        *self.stand_in.write() = Some(handler);
    }

    #[cfg(not(feature = "wasm"))]
    async fn load(&self, digest: Digest) -> Result<NativeHandler, EdgeError> {
        let Some(stand_in) = self.stand_in.read().clone() else {
            let message = format!("artifact `{digest}` is refused: this build has no WebAssembly engine");
            return Err(EdgeError::new(ErrorKind::RefusedArtifact, message));
        };
        let artifacts = Arc::clone(&self.artifacts);
        blocking(move || artifacts.get(&digest)).await.map(|_| stand_in)
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
                let (function, documents, log) = (Arc::clone(function), self.documents.clone(), Arc::clone(log));
                let program = crate::wasm::program::Program::new(wasm, compiled, function, documents, log)?;
                Ok(Code::Wasm(program))
            }
            #[cfg(not(feature = "wasm"))]
            Handler::Artifact(digest) => self.load(*digest).await.map(Code::Native),
        }
    }

    /// Deploys a function; one of the same id is replaced, and its running invocations end undisturbed.
    pub async fn deploy(&self, function: EdgeFunction) -> Result<(), EdgeError> {
        self.install(self.prepare(function).await?).map(drop)
    }

    /// Makes a function ready without serving it: [`EdgeRuntime::install`] then takes no time. It writes to the log of the one of its id that
    /// serves.
    pub async fn prepare(&self, function: EdgeFunction) -> Result<Arc<Deployed>, EdgeError> {
        self.prepare_under(function, None).await
    }

    /// The same for a function that runs only while this lease is held, if there is one.
    pub async fn prepare_under(&self, function: EdgeFunction, lease: Option<Arc<RunLease>>) -> Result<Arc<Deployed>, EdgeError> {
        function.validate()?;
        let function = Arc::new(function);
        let log = self.functions.load().get(&function.id).map(|old| Arc::clone(&old.log)).unwrap_or_default();
        let code = self.code(&function, &log).await?;
        Ok(Arc::new(Deployed::new(Arc::clone(&self.host), function, code, log).under(lease)))
    }

    /// Serves a function that was made ready by this runtime, in place of one of its id, which is returned. Running invocations end
    /// undisturbed.
    pub fn install(&self, deployed: Arc<Deployed>) -> Result<Option<Arc<Deployed>>, EdgeError> {
        self.change(|functions| {
            if functions.len() >= FUNCTIONS_MAX && !functions.contains_key(&deployed.function.id) {
                let message = format!("this node has {FUNCTIONS_MAX} functions, which is the most; undeploy one first");
                return Err(EdgeError::new(ErrorKind::TooLarge, message));
            }
            Ok(functions.insert(deployed.function.id.clone(), deployed))
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

    /// Who is at the gates of the functions that are deployed here.
    pub fn crowds(&self) -> Vec<(FunctionId, Crowd)> {
        self.functions.load().iter().map(|(id, deployed)| (id.clone(), deployed.crowd())).collect()
    }

    /// The log of a function that is deployed here.
    pub fn log(&self, id: &str) -> Option<Arc<FunctionLog>> {
        self.functions.load().get(id).map(|deployed| Arc::clone(&deployed.log))
    }

    /// Removes artifacts, their machine code and their loaded form when neither `live` nor a deployed function
    /// names them and they are older than `grace`, counted from their upload in this process or from the opening of
    /// the store.
    pub fn collect_garbage(&self, live: &HashSet<Digest>, grace: Duration) -> Result<usize, EdgeError> {
        let mut live = live.clone();
        live.extend(self.functions.load().values().filter_map(|deployed| deployed.function.handler.artifact()));
        let removed = self.artifacts.collect(&live, grace)?;
        #[cfg(feature = "wasm")]
        {
            // The store looks at files, which others should not wait for.
            let loaded: Vec<_> = self.compiled.lock().keys().copied().collect();
            let gone: Vec<_> = loaded.into_iter().filter(|digest| !live.contains(digest) && !self.artifacts.contains(digest)).collect();
            self.compiled.lock().retain(|digest, _| !gone.contains(digest));
        }
        Ok(removed)
    }

    /// Invokes a function with a payload: the body of a `POST /` for an HTTP component, standard input for a
    /// command, the argument of a native handler. Returns the response body, standard output or result.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] for an unknown id; else the invocation failed: timeout, memory limit, overloaded, or
    /// [`ErrorKind::ExecutionFailed`] for a trap, any answer but 2xx and any exit code but 0.
    pub async fn invoke(&self, id: &str, payload: impl Into<Bytes>) -> Result<Bytes, EdgeError> {
        self.invoke_with(id, payload, CallOptions::default()).await.map(|output| output.body)
    }

    /// The same, with what goes with the payload, and the content type of the result.
    pub async fn invoke_with(&self, id: &str, payload: impl Into<Bytes>, options: CallOptions) -> Result<Output, EdgeError> {
        self.find(id)?.invoke(payload.into(), options).await
    }

    /// Answers an HTTP request as the function does: status, headers, trailers and a body that streams both ways.
    /// Native handlers and commands get the body and answer 200 with their result.
    pub async fn serve(&self, id: &str, request: Request<RequestBody>) -> Result<Response<ResponseBody>, EdgeError> {
        self.find(id)?.serve(request).await
    }

    /// A fresh sandbox of an HTTP component, for benchmarks only; `None` for any other function.
    #[cfg(feature = "wasm")]
    #[doc(hidden)]
    pub async fn bench_instantiate(&self, id: &str) -> Result<Option<impl Send + use<>>, EdgeError> {
        let deployed = self.find(id)?;
        match &deployed.code {
            Code::Native(_) => Ok(None),
            Code::Wasm(program) => program.bench_instantiate(tokio::time::Instant::now() + deployed.function.timeout()).await,
        }
    }

    /// The function that is deployed under this id, or [`ErrorKind::NotFound`].
    pub fn find(&self, id: &str) -> Result<Arc<Deployed>, EdgeError> {
        self.functions.load().get(id).cloned().ok_or_else(|| EdgeError::function_not_found(id))
    }
}

/// Does work that blocks, on a thread that may.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, EdgeError> + Send + 'static) -> Result<T, EdgeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(EdgeError::new(ErrorKind::Internal, "a worker thread failed").with_source(error)),
    }
}
