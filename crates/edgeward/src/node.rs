//! A node: the runtime, the desired state, and the reconciler that makes one match the other.
//!
//! The reconciler reads the whole of both, runs after every change and on a timer, and can run at any time
//! without harm. An artifact that fails to load now is tried again at the next run.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use edgeward_model::{Digest, EdgeError, EdgeFunction, EdgeNode, ErrorKind, FunctionId, Handler};
use edgeward_runtime::{ArtifactStore, EdgeRuntime, RuntimeOptions, artifacts::GRACE, durable};
use parking_lot::Mutex;
use serde::Serialize;

use crate::desired::{Desired, FunctionRecord, Precondition};

/// How often the reconciler runs without a change.
const RECONCILE_EVERY: Duration = Duration::from_secs(30);

/// What a node is opened with.
#[derive(Debug)]
pub struct NodeOptions {
    /// The node itself.
    pub node: EdgeNode,
    /// Where everything that must last lies; made when it is missing.
    pub data_dir: PathBuf,
}

/// How far a function's desired state has become real.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FunctionState {
    /// The reconciler has not come to this generation.
    Pending,
    /// It serves.
    Ready,
    /// It could not be deployed; the message says why, and the reconciler tries again.
    Failed,
}

/// A function as a caller may see it: its desired state, without secrets, and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct FunctionView {
    /// The desired state; values of the environment are redacted.
    #[serde(flatten)]
    pub record: FunctionRecord,
    /// The generation that the state below is about.
    pub observed_generation: u64,
    /// How far it is.
    pub state: FunctionState,
    /// Why it failed; else empty.
    pub message: String,
}

/// A node with its data folder. One process opens a folder at a time.
#[derive(Debug)]
pub struct Node {
    runtime: Arc<EdgeRuntime>,
    data_dir: PathBuf,
    desired: Arc<Mutex<Desired>>,
    observed: Mutex<HashMap<FunctionId, Observed>>,
    /// Held by the one reconciliation that runs.
    reconciling: tokio::sync::Mutex<()>,
    ready: AtomicBool,
    /// Locked while the node lives.
    _lock: fs::File,
}

#[derive(Clone, Debug)]
struct Observed {
    generation: u64,
    failure: Option<String>,
}

impl Node {
    /// Opens the data folder. Nothing runs until [`Node::reconcile`] or [`Node::keep_reconciled`].
    pub fn open(options: NodeOptions) -> Result<Arc<Self>, EdgeError> {
        options.node.validate()?;
        let data_dir = options.data_dir;
        durable::create_private_folder(&data_dir)
            .and_then(|()| durable::remove_leftovers(&data_dir))
            .map_err(|error| folder_error("open", &data_dir, error))?;
        let lock = lock(&data_dir)?;
        let artifacts = ArtifactStore::open(&data_dir)?;
        let desired = Desired::open(&data_dir)?;
        Ok(Arc::new(Self {
            runtime: Arc::new(EdgeRuntime::with_options(options.node, RuntimeOptions { artifacts })),
            data_dir,
            desired: Arc::new(Mutex::new(desired)),
            observed: Mutex::default(),
            reconciling: tokio::sync::Mutex::default(),
            ready: AtomicBool::new(false),
            _lock: lock,
        }))
    }

    /// The runtime that executes this node's functions.
    pub fn runtime(&self) -> &Arc<EdgeRuntime> {
        &self.runtime
    }

    /// The folder with everything that lasts.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Whether every desired function has been looked at since the start.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Stores and compiles an artifact. See [`EdgeRuntime::add_artifact`].
    pub async fn add_artifact(&self, bytes: impl Into<Bytes>) -> Result<Digest, EdgeError> {
        self.runtime.add_artifact(bytes).await
    }

    /// Makes a function desired, durably, and brings the runtime there. What cannot run here is refused first.
    pub async fn put_function(&self, function: EdgeFunction, precondition: Precondition) -> Result<FunctionView, EdgeError> {
        function.validate()?;
        self.runtime.check(&function).await?;
        let desired = Arc::clone(&self.desired);
        let record = blocking(move || desired.lock().put(function, precondition)).await?;
        self.reconcile().await;
        Ok(self.view(record))
    }

    /// Makes a function undesired, durably, and stops serving it. Returns whether it was desired.
    pub async fn delete_function(&self, id: &FunctionId, precondition: Precondition) -> Result<bool, EdgeError> {
        let desired = Arc::clone(&self.desired);
        let wanted = id.clone();
        let existed = blocking(move || desired.lock().delete(wanted.as_str(), precondition)).await?;
        self.reconcile().await;
        Ok(existed)
    }

    /// One function.
    pub fn function(&self, id: &str) -> Result<FunctionView, EdgeError> {
        let record = self.desired.lock().get(id).cloned();
        record.map(|record| self.view(record)).ok_or_else(|| EdgeError::function_not_found(id))
    }

    /// Every function, by id.
    pub fn functions(&self) -> Vec<FunctionView> {
        let records: Vec<_> = self.desired.lock().records().cloned().collect();
        records.into_iter().map(|record| self.view(record)).collect()
    }

    fn view(&self, mut record: FunctionRecord) -> FunctionView {
        record.function.environment = record.function.environment.redacted();
        let observed = self.observed.lock().get(&record.function.id).cloned();
        let (observed_generation, message) = observed.map_or((0, None), |observed| (observed.generation, observed.failure));
        let state = match &message {
            _ if observed_generation < record.generation => FunctionState::Pending,
            None => FunctionState::Ready,
            Some(_) => FunctionState::Failed,
        };
        FunctionView { record, observed_generation, state, message: message.unwrap_or_default() }
    }

    /// Brings the runtime to the desired state, once.
    pub async fn reconcile(&self) {
        let _one = self.reconciling.lock().await;
        let records: Vec<_> = self.desired.lock().records().cloned().collect();
        let wanted: HashSet<_> = records.iter().map(|record| record.function.id.clone()).collect();
        for function in self.runtime.list_functions() {
            if !wanted.contains(&function.id) {
                self.runtime.undeploy(function.id.as_str());
            }
        }
        self.observed.lock().retain(|id, _| wanted.contains(id));
        for FunctionRecord { generation, function } in records {
            let done = |observed: &Observed| observed.generation == generation && observed.failure.is_none();
            if self.observed.lock().get(&function.id).is_some_and(done) {
                continue;
            }
            let id = function.id.clone();
            let failure = self.runtime.deploy(function).await.err().map(|error| error.chain());
            if let Some(why) = &failure {
                tracing::error!(function = %id, generation, why, "a function could not be deployed");
            }
            self.observed.lock().insert(id, Observed { generation, failure });
        }
        self.ready.store(true, Ordering::Release);
    }

    /// Reconciles and collects garbage now and every 30 seconds, until it is dropped.
    pub async fn keep_reconciled(self: Arc<Self>) {
        let mut timer = tokio::time::interval(RECONCILE_EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            self.reconcile().await;
            let node = Arc::clone(&self);
            if let Err(error) = blocking(move || node.collect_garbage()).await {
                tracing::warn!(error = error.chain(), "garbage could not be collected");
            }
        }
    }

    fn collect_garbage(&self) -> Result<usize, EdgeError> {
        let artifact = |record: &FunctionRecord| match record.function.handler {
            Handler::Artifact(digest) => Some(digest),
            Handler::Native(_) => None,
        };
        let live = self.desired.lock().records().filter_map(artifact).collect();
        self.runtime.collect_garbage(&live, GRACE)
    }
}

fn lock(data_dir: &Path) -> Result<fs::File, EdgeError> {
    let path = data_dir.join("lock");
    let file =
        fs::File::options().create(true).truncate(false).write(true).open(&path).map_err(|error| folder_error("lock", data_dir, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(EdgeError::new(
            ErrorKind::Conflict,
            format!("the data folder `{}` is in use by another process; stop it, or choose another folder", data_dir.display()),
        )),
        Err(fs::TryLockError::Error(error)) => Err(folder_error("lock", data_dir, error)),
    }
}

fn folder_error(what: &str, folder: &Path, error: std::io::Error) -> EdgeError {
    EdgeError::new(ErrorKind::Internal, format!("failed to {what} the data folder `{}`", folder.display())).with_source(error)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, EdgeError> + Send + 'static) -> Result<T, EdgeError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(EdgeError::new(ErrorKind::Internal, "a worker thread failed").with_source(error)),
    }
}
