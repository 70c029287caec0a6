//! A node: the runtime, the desired state, and the reconciler that makes one match the other.
//!
//! The reconciler reads the whole of both, runs after every change and on a timer, and can run at any time
//! without harm. What the hub assigned anew takes the place of what serves only when it is ready, and not while the node holds.

pub(crate) mod calls;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use edgeward_durable::{FolderLock, create_private_folder, disk_error, remove_leftovers};
use edgeward_model::{Digest, EdgeError, EdgeFunction, EdgeNode, ErrorKind, FunctionId, NodeId, PublicKey, limits::FUNCTION_LEASE_TTL};
use edgeward_runtime::{ArtifactStore, EdgeRuntime, RuntimeOptions, artifacts::GRACE, blocking};
use edgeward_sync::{Documents, Epoch, Role, Store, backup};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    assignments::Assignments,
    chaos::{NodeChaos, node::Own},
    desired::{Desired, Precondition, record::FunctionRecord},
    function_documents::FunctionDocuments,
    hold::{Hold, UpdateHours, Veto},
    installer::Installer,
    last_good::LastGood,
    leases::{LeaseAnswer, LeaseQuestion},
    reports::FunctionReport,
    schedules::Schedules,
    topics::{LogOptions, Topics},
    trust::{self, Trust},
};

/// The file by which a data folder is locked.
pub(crate) const LOCK: &str = "lock";
/// The folder of the documents in a data folder.
pub(crate) const DOCUMENTS: &str = "documents";
/// The folder of what makes it a member, or the hub, of a fleet.
pub(crate) const FLEET: &str = "fleet";
/// How often the reconciler runs without a change.
const RECONCILE_EVERY: Duration = Duration::from_secs(30);
/// What a node is opened with.
#[derive(Debug)]
pub struct NodeOptions {
    /// The node itself.
    pub node: EdgeNode,
    /// Where everything that must last lies; made when it is missing.
    pub data_dir: PathBuf,
    /// When the node takes what its hub assigns anew; none for always.
    pub update_hours: Option<UpdateHours>,
    /// Keys that its owner trusts: with any, it runs only artifacts that one of them signed, whatever its fleet trusts.
    pub trusted_keys: BTreeSet<PublicKey>,
    /// How much it keeps of its topics.
    pub topics: LogOptions,
}

impl NodeOptions {
    /// A node in this folder that takes updates at any time, without keys of its own, and keeps as much of its topics as is usual.
    pub fn new(node: EdgeNode, data_dir: impl Into<PathBuf>) -> Self {
        Self { node, data_dir: data_dir.into(), update_hours: None, trusted_keys: BTreeSet::new(), topics: LogOptions::default() }
    }
}

/// Who wants a function on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Whoever asked the node itself.
    #[default]
    Node,
    /// The hub of its fleet.
    Fleet,
}

/// How far a function's desired state has become real.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Who wants it here.
    pub source: Source,
    /// The generation that the state below is about.
    pub observed_generation: u64,
    /// How far it is.
    pub state: FunctionState,
    /// Why it failed or what it waits for; else empty.
    pub message: String,
}

impl FunctionView {
    /// A function as its hub sees it: what it wants, and what the node last said of it.
    pub(crate) fn of_assignment(record: FunctionRecord, report: Option<FunctionReport>) -> Self {
        let record = record.redacted();
        let generation = record.generation;
        let observed = report.map(|report| FunctionReport { generation: report.generation.min(generation), ..report });
        let (observed_generation, state, message) = match observed {
            Some(report) if report.generation == generation => (generation, report.state, report.message),
            Some(report) => (report.generation, FunctionState::Pending, String::new()),
            None => (0, FunctionState::Pending, String::new()),
        };
        Self { record, source: Source::Fleet, observed_generation, state, message }
    }
}

/// What [`Node::put_function`] did.
#[derive(Clone, Debug)]
pub struct Deployment {
    /// Whether there was no function of this id before.
    pub created: bool,
    /// The function, and what became of it.
    pub view: FunctionView,
}

/// A node with its data folder. One process opens a folder at a time.
#[derive(Debug)]
pub struct Node {
    installer: Installer,
    data_dir: PathBuf,
    documents: Documents,
    desired: Desired,
    assignments: Assignments,
    trust: Arc<Trust>,
    /// What the hub wants here, as it was read last.
    assigned: ArcSwap<BTreeMap<FunctionId, FunctionRecord>>,
    last_good: LastGood,
    schedules: Schedules,
    hold: Hold,
    topics: Topics,
    chaos: NodeChaos,
    hub: calls::WayToHub,
    /// Why artifacts that are assigned are not here.
    lacking: Mutex<HashMap<Digest, Lack>>,
    /// How often the reconciler ran.
    reconciled: watch::Sender<u64>,
    /// Held from the look at an artifact's file to the record that refers to it, and while garbage is collected.
    referring: Mutex<()>,
    /// Held by the one reconciliation that runs.
    reconciling: tokio::sync::Mutex<()>,
    ready: AtomicBool,
    /// Locked while the node lives.
    _lock: FolderLock,
}

/// Why an artifact that is assigned is not here.
#[derive(Clone, Debug)]
struct Lack {
    why: String,
    /// Whether it came and cannot run here.
    is_refused: bool,
}

impl Node {
    /// Opens the data folder. Nothing runs until [`Node::reconcile`] or [`Node::keep_reconciled`].
    pub fn open(options: NodeOptions) -> Result<Arc<Self>, EdgeError> {
        options.node.validate()?;
        let data_dir = options.data_dir;
        let (lock, documents) = open_data_dir(&data_dir, &options.node.id)?;
        if documents.store().role() != Role::Replica {
            let message = format!("the data folder `{}` belongs to a hub, not to a node", data_dir.display());
            return Err(EdgeError::new(ErrorKind::Conflict, message));
        }
        let artifacts = Arc::new(ArtifactStore::open(&data_dir)?);
        let desired = Desired::open(&documents, &data_dir)?;
        let trust = Arc::new(Trust::open(&documents, options.trusted_keys)?);
        let runtime_options = RuntimeOptions { artifacts, documents: Some(Arc::new(FunctionDocuments(documents.clone()))) };
        let runtime = Arc::new(EdgeRuntime::with_options(options.node, runtime_options));
        let topics = Topics::open(&data_dir, options.topics, &documents, Arc::clone(&runtime))?;
        let own = Own { store: Arc::clone(documents.store()), topics: Some(Arc::clone(topics.log())) };
        Ok(Arc::new(Self {
            topics,
            schedules: Schedules::open(&documents, Arc::clone(&runtime))?,
            chaos: NodeChaos::new(Arc::clone(&runtime), Some(own)),
            installer: Installer::new(runtime, Arc::clone(&trust)),
            data_dir,
            assignments: Assignments::new(documents.clone()),
            last_good: LastGood::open(&documents)?,
            hold: Hold::open(&documents, options.update_hours)?,
            hub: calls::WayToHub::default(),
            documents,
            desired,
            trust,
            assigned: ArcSwap::default(),
            lacking: Mutex::default(),
            reconciled: watch::Sender::new(0),
            referring: Mutex::default(),
            reconciling: tokio::sync::Mutex::default(),
            ready: AtomicBool::new(false),
            _lock: lock,
        }))
    }

    /// The runtime that executes this node's functions.
    pub fn runtime(&self) -> &Arc<EdgeRuntime> {
        self.installer.runtime()
    }

    /// The folder with everything that lasts.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The folder for what this node keeps as a member of a fleet, which is made when it is missing.
    pub fn fleet_folder(&self) -> Result<PathBuf, EdgeError> {
        let folder = self.data_dir.join(FLEET);
        create_private_folder(&folder).map_err(|error| disk_error("make the folder of the credentials", &folder, error))?;
        Ok(folder)
    }

    /// The documents of this node. Their calls wait for the disk: from async code, make them on a blocking thread.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// The topics of this node.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// The faults that are injected on this node, for experiments.
    pub fn chaos(&self) -> &NodeChaos {
        &self.chaos
    }

    /// Whose signatures this node trusts.
    pub fn trust(&self) -> &Arc<Trust> {
        &self.trust
    }

    /// What runs here by itself.
    pub fn schedules(&self) -> &Schedules {
        &self.schedules
    }

    /// Whether every desired function has been looked at since the start.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    /// Waits until it is.
    pub async fn until_ready(&self) {
        let mut reconciled = self.reconciled();
        while !self.is_ready() {
            if reconciled.changed().await.is_err() {
                return;
            }
        }
    }

    /// Stores and compiles an artifact, and deploys the functions that failed for want of it. See
    /// [`EdgeRuntime::add_artifact`].
    pub async fn add_artifact(&self, bytes: impl Into<Bytes>) -> Result<Digest, EdgeError> {
        let digest = self.runtime().add_artifact(bytes).await?;
        self.lacking.lock().remove(&digest);
        let mut wanted = false;
        for (record, source) in self.records().into_values().filter(|(record, _)| record.artifacts().any(|wanted| wanted == digest)) {
            // Of what is assigned nothing was observed without its artifact.
            wanted |= self.installer.forget_failure(&record.function.id) || source == Source::Fleet;
        }
        if wanted {
            self.reconcile().await;
        }
        Ok(digest)
    }

    /// Makes a function desired, durably, and brings the runtime there. What cannot run here is refused first.
    pub async fn put_function(self: &Arc<Self>, function: EdgeFunction, precondition: Precondition) -> Result<Deployment, EdgeError> {
        self.check_own(&function.id)?;
        self.trust.check(&function).inspect_err(|why| trust::tell_refused(&function, None, why))?;
        self.runtime().check(&function).await?;
        let node = Arc::clone(self);
        let (record, created) = blocking(move || node.refer_to(function, precondition)).await?;
        self.reconcile().await;
        Ok(Deployment { created, view: self.view(record, Source::Node) })
    }

    /// Writes the record while its artifact cannot be collected. The runtime knows code that is gone from the disk:
    /// that would serve until the next start only.
    fn refer_to(&self, function: EdgeFunction, precondition: Precondition) -> Result<(FunctionRecord, bool), EdgeError> {
        let _referring = self.referring.lock();
        if let Some(digest) = function.handler.artifact()
            && !self.runtime().artifacts().contains(&digest)
        {
            return Err(EdgeError::new(ErrorKind::NotFound, format!("artifact not found: `{digest}`; upload it first")));
        }
        self.desired.put(function, precondition)
    }

    /// Makes a function undesired, durably, and stops serving it. Returns whether it was desired.
    pub async fn delete_function(self: &Arc<Self>, id: &FunctionId, precondition: Precondition) -> Result<bool, EdgeError> {
        self.check_own(id)?;
        let (node, wanted) = (Arc::clone(self), id.clone());
        let existed = blocking(move || node.desired.delete(wanted.as_str(), precondition)).await?;
        self.reconcile().await;
        Ok(existed)
    }

    /// What the hub wants here is not changed here.
    fn check_own(&self, id: &FunctionId) -> Result<(), EdgeError> {
        if !self.assigned.load().contains_key(id) {
            return Ok(());
        }
        let message = format!("function `{id}` is assigned to this node by the hub of its fleet; change it there");
        Err(EdgeError::new(ErrorKind::Forbidden, message))
    }

    /// What should run here, and who wants it. Of two functions of one id the hub's runs.
    fn records(&self) -> BTreeMap<FunctionId, (FunctionRecord, Source)> {
        let own = self.desired.records().into_iter().map(|record| (record, Source::Node));
        let assigned = self.assigned.load();
        let assigned = assigned.values().map(|record| (record.clone(), Source::Fleet));
        own.chain(assigned).map(|(record, source)| (record.function.id.clone(), (record, source))).collect()
    }

    /// One function.
    pub fn function(&self, id: &str) -> Result<FunctionView, EdgeError> {
        let assigned = self.assigned.load().get(id).cloned().map(|record| (record, Source::Fleet));
        let found = assigned.or_else(|| self.desired.get(id).map(|record| (record, Source::Node)));
        found.map(|(record, source)| self.view(record, source)).ok_or_else(|| EdgeError::function_not_found(id))
    }

    /// Every function, by id.
    pub fn functions(&self) -> Vec<FunctionView> {
        self.records().into_values().map(|(record, source)| self.view(record, source)).collect()
    }

    fn view(&self, record: FunctionRecord, source: Source) -> FunctionView {
        let record = record.redacted();
        let status = self.installer.status(&record.function.id).filter(|status| status.source == source);
        let (mut observed_generation, mut message, beside) =
            status.map_or((0, None, None), |status| (status.generation, status.failure, status.warm_failure));
        if source == Source::Fleet
            && observed_generation != record.generation
            && let Some(lack) = record.artifacts().find_map(|digest| self.lacking.lock().get(&digest).cloned())
        {
            message = Some(lack.why);
            if lack.is_refused {
                observed_generation = record.generation;
            }
        }
        let state = match &message {
            _ if observed_generation != record.generation => FunctionState::Pending,
            None => FunctionState::Ready,
            Some(_) => FunctionState::Failed,
        };
        match state {
            FunctionState::Pending if source == Source::Fleet => message = message.or_else(|| self.held()),
            // It serves, and has no lease, or what is to be ready beside it is not.
            FunctionState::Ready => message = self.installer.leases().why_waiting(&record.function.id).or(beside),
            FunctionState::Pending | FunctionState::Failed => {}
        }
        // An earlier generation's failure says nothing of this one.
        let message = message.filter(|_| state == FunctionState::Failed || source == Source::Fleet);
        FunctionView { record, source, observed_generation, state, message: message.unwrap_or_default() }
    }

    /// How the functions are that the hub assigned, for it.
    pub(crate) fn reports(&self) -> BTreeMap<FunctionId, FunctionReport> {
        let now = Instant::now();
        let fleet = self.functions().into_iter().filter(|view| view.source == Source::Fleet);
        let report = |view: FunctionView| {
            let id = view.record.function.id.clone();
            let is_observed = view.observed_generation == view.record.generation;
            let warm = self.installer.status(&id).filter(|_| is_observed).and_then(|status| status.warm);
            let doing = self.assigned.load().get(&id).and_then(|record| self.installer.doing(record, now)).filter(|_| is_observed);
            let report = FunctionReport {
                generation: view.record.generation,
                state: view.state,
                message: view.message,
                former_serves: view.state != FunctionState::Ready && self.runtime().find(id.as_str()).is_ok(),
                warm: warm.filter(|_| view.record.warm().is_some()),
                // One that is not judged any more has served for longer than that.
                baked: view.state == FunctionState::Ready && doing.is_none_or(|doing| doing.time >= view.record.bake()),
                sample: doing.map(|doing| doing.sample),
                before: doing.map(|doing| doing.before),
            };
            (id, report)
        };
        fleet.map(report).collect()
    }

    /// The time until the hub is to be told how a revision does, if it wants to know.
    pub(crate) fn tells_in(&self) -> Option<Duration> {
        let (assigned, now) = (self.assigned.load(), Instant::now());
        assigned.values().filter_map(|record| self.installer.tells_in(record, now)).min()
    }

    /// What to ask the hub about functions that one node at a time may run; none when there is nothing to ask.
    pub(crate) fn lease_question(&self) -> Option<LeaseQuestion> {
        self.installer.lease_question()
    }

    /// Takes what the hub answered to a question of this moment; returns the time until the next.
    pub(crate) fn take_leases(&self, asked_at: Duration, question: &LeaseQuestion, answer: &LeaseAnswer) -> Duration {
        if self.installer.take_leases(asked_at, question, answer) {
            // The report says who waits.
            self.reconciled.send_modify(|times| *times += 1);
        }
        self.installer.leases().pause()
    }

    /// Why this node takes nothing that its hub assigns anew, if it does not.
    pub fn held(&self) -> Option<String> {
        self.hold.why(Timestamp::now())
    }

    /// Has this node take nothing that its hub assigns anew, or take it again. What runs goes on.
    pub async fn set_veto(self: &Arc<Self>, veto: Option<Veto>) -> Result<(), EdgeError> {
        let node = Arc::clone(self);
        blocking(move || node.hold.set(veto)).await?;
        self.reconcile().await;
        Ok(())
    }

    /// Artifacts that are assigned and not here, first those of what is to serve. While the node holds, none.
    pub(crate) fn missing_artifacts(&self) -> Vec<Digest> {
        if self.held().is_some() {
            return Vec::new();
        }
        let assigned = self.assigned.load();
        let serving = assigned.values().filter_map(|record| record.function.handler.artifact());
        let warm = assigned.values().filter_map(|record| record.warm()?.function.handler.artifact());
        let mut missing = Vec::new();
        for digest in serving.chain(warm) {
            if !missing.contains(&digest) && !self.runtime().artifacts().contains(&digest) {
                missing.push(digest);
            }
        }
        missing
    }

    /// Notes why an artifact is not here; its functions say so.
    pub(crate) fn note_lacking(&self, digest: Digest, error: &EdgeError) {
        let is_refused = error.kind() == ErrorKind::RefusedArtifact;
        let what = if is_refused { "its artifact cannot run here" } else { "its artifact could not be fetched yet" };
        self.lacking.lock().insert(digest, Lack { why: format!("{what}: {}", error.chain()), is_refused });
        self.reconciled.send_modify(|times| *times += 1);
    }

    /// Changes with each run of the reconciler.
    pub(crate) fn reconciled(&self) -> watch::Receiver<u64> {
        self.reconciled.subscribe()
    }

    /// Reads what the hub wants here. A record that cannot be read, as of a newer release, leaves the one that runs as it is.
    async fn read_assigned(&self) {
        let (assignments, node) = (self.assignments.clone(), self.runtime().node().id.clone());
        let before = self.assigned.load_full();
        let read = blocking(move || {
            let mut assigned = BTreeMap::new();
            for (id, record) in assignments.records(&node)? {
                match record {
                    Ok(record) => drop(assigned.insert(record.function.id.clone(), record)),
                    Err(error) => {
                        tracing::warn!(function = id, error = error.chain(), "an assignment could not be read; it stays as it was");
                        assigned.extend(before.get(id.as_str()).map(|record| (record.function.id.clone(), record.clone())));
                    }
                }
            }
            Ok(assigned)
        });
        match read.await {
            Ok(assigned) => self.assigned.store(Arc::new(assigned)),
            Err(error) => tracing::warn!(error = error.chain(), "the assignments could not be read; they stay as they were"),
        }
    }

    /// Brings the runtime to the desired state, once.
    pub async fn reconcile(&self) {
        self.reconcile_at(Instant::now()).await;
    }

    async fn reconcile_at(&self, now: Instant) {
        let _one = self.reconciling.lock().await;
        self.read_assigned().await;
        self.read_trust().await;
        let mut records = self.records();
        let last_good = self.last_good.records();
        let is_held = self.held().is_some();
        if is_held {
            // The fleet's functions stay as they were, also those that it has taken from this node.
            records.retain(|_, (_, source)| *source == Source::Node);
            records.extend(last_good.iter().map(|(id, record)| (id.clone(), (record.clone(), Source::Fleet))));
        }
        self.installer.retain(|id| records.contains_key(id));
        for (id, (record, source)) in &records {
            let good = last_good.get(id).filter(|_| *source == Source::Fleet);
            let lacks = |digest: &Digest| !self.runtime().artifacts().contains(digest);
            if *source == Source::Fleet && record.artifacts().any(|digest| lacks(&digest)) {
                // It is fetched, and what ran before goes on, also over a start.
                if let Some(good) =
                    good.filter(|good| self.runtime().find(id.as_str()).is_err() && !good.artifacts().any(|digest| lacks(&digest)))
                {
                    self.installer.install(good, Source::Fleet, None, now).await;
                }
                continue;
            }
            self.installer.install(record, *source, good, now).await;
        }
        self.installer.stop_untrusted(now);
        self.confirm().await;
        if !is_held {
            self.keep_last_good(&records, &last_good).await;
        }
        self.ready.store(true, Ordering::Release);
        self.reconciled.send_modify(|times| *times += 1);
    }

    /// Reads whose signatures are trusted. When others are, what was refused is tried again at once.
    async fn read_trust(&self) {
        let trust = Arc::clone(&self.trust);
        match blocking(move || trust.refresh()).await {
            Ok(true) => self.installer.forget_failures(),
            Ok(false) => {}
            Err(error) => tracing::warn!(error = error.chain(), "the fleet's trusted keys could not be read; they stay as they were"),
        }
    }

    /// Notes which releases have come to stay: nothing older runs under their ids any more. Of what the hub assigned it says so itself, as the node may
    /// have to go back until then. While the node holds, too, what is wanted counts, and not what serves in its stead.
    async fn confirm(&self) {
        let records = self.records();
        let staying = records.values().map(|(record, _)| record).filter(|record| record.is_confirmed() && self.installer.serves(record));
        let signed: Vec<_> = staying.filter(|record| record.function.signature.is_some()).map(|record| record.function.clone()).collect();
        if signed.is_empty() {
            return;
        }
        let trust = Arc::clone(&self.trust);
        if let Err(error) = blocking(move || signed.iter().try_for_each(|function| trust.confirm(function))).await {
            tracing::warn!(error = error.chain(), "the counter of a function could not be kept; it is tried again");
        }
    }

    /// Notes what serves of what is assigned.
    async fn keep_last_good(
        &self,
        records: &BTreeMap<FunctionId, (FunctionRecord, Source)>,
        last_good: &BTreeMap<FunctionId, FunctionRecord>,
    ) {
        let assigned = records.iter().filter(|(_, (_, source))| *source == Source::Fleet);
        let good: BTreeMap<_, _> = assigned
            .filter_map(|(id, (record, _))| {
                let good = if self.installer.serves(record) { Some(record.alone()) } else { last_good.get(id).cloned() };
                good.map(|good| (id.clone(), good))
            })
            .collect();
        let kept = self.last_good.clone();
        if let Err(error) = blocking(move || kept.keep(good)).await {
            tracing::warn!(error = error.chain(), "what serves could not be noted; it is noted with the next change");
        }
    }

    /// Reconciles and collects garbage now and every 30 seconds, until it is dropped.
    pub async fn keep_reconciled(self: Arc<Self>) {
        let mut timer = tokio::time::interval(RECONCILE_EVERY);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            self.reconcile().await;
            let live: HashSet<_> = self.records().into_keys().collect();
            self.runtime().metrics().make_room(|id| live.contains(id));
            let node = Arc::clone(&self);
            if let Err(error) = blocking(move || node.collect_garbage(GRACE)).await {
                tracing::warn!(error = error.chain(), "garbage could not be collected");
            }
        }
    }

    /// Runs the schedules of this node, from when its functions have been looked at, until it is told to stop; then no other run starts, and those
    /// that go on get half a minute to end. Dropped, it ends at once, and what ran is told as interrupted.
    pub async fn keep_scheduled(self: Arc<Self>, stop: CancellationToken) {
        let ready = async {
            self.until_ready().await;
            self.until_leased().await;
        };
        if stop.run_until_cancelled(ready).await.is_some() {
            self.schedules.keep(&stop).await;
        }
    }

    /// Waits until it is known who has the leases of functions that schedules run here, for as long as one lasts at most: what is made up for at the
    /// start would fail else.
    async fn until_leased(&self) {
        let settled = async {
            let mut reconciled = self.reconciled();
            loop {
                reconciled.borrow_and_update();
                if !self.schedules.functions().iter().any(|function| self.installer.leases().is_unknown(function)) {
                    return;
                }
                if reconciled.changed().await.is_err() {
                    return;
                }
            }
        };
        // Who hears nothing goes on: it has other schedules, too.
        let _ = tokio::time::timeout(FUNCTION_LEASE_TTL, settled).await;
    }

    fn collect_garbage(&self, grace: Duration) -> Result<usize, EdgeError> {
        let _referring = self.referring.lock();
        let (records, last_good) = (self.records(), self.last_good.records());
        let records = records.values().map(|(record, _)| record).chain(last_good.values());
        let live = records.flat_map(FunctionRecord::artifacts).collect();
        self.runtime().collect_garbage(&live, grace)
    }
}

/// Makes the data folder when it is missing, locks it, and opens the documents of this node in it.
pub(crate) fn open_data_dir(data_dir: &Path, id: &NodeId) -> Result<(FolderLock, Documents), EdgeError> {
    let failed = |error| disk_error("open the data folder", data_dir, error);
    create_private_folder(data_dir).map_err(failed)?;
    let lock = FolderLock::take(data_dir, LOCK)?;
    // Only now: what is being written by who holds the lock is not left over.
    remove_leftovers(data_dir).map_err(failed)?;
    Ok((lock, Documents::new(open_store(data_dir, id)?)))
}

fn open_store(data_dir: &Path, id: &NodeId) -> Result<Store, EdgeError> {
    let folder = data_dir.join(DOCUMENTS);
    Store::open_as_it_is(&folder, id.clone(), Epoch::draw()?, Role::Replica).map_err(|error| match backup::owner(&folder) {
        Ok(owner) if owner != *id => {
            let message = format!("the data folder `{}` belongs to node `{owner}`, not to `{id}`", data_dir.display());
            EdgeError::new(ErrorKind::Conflict, message)
        }
        _ => error,
    })
}

#[cfg(test)]
mod assigned_tests;
#[cfg(test)]
mod tests {
    use std::fs;

    use edgeward_model::{Handler, HandlerName};
    use edgeward_runtime::NativeHandler;

    use super::*;

    fn open() -> (tempfile::TempDir, Arc<Node>) {
        let folder = tempfile::tempdir().expect("temp folder");
        let node = EdgeNode::new("edge-01", "test").expect("valid");
        let node = Node::open(NodeOptions::new(node, folder.path())).expect("opens");
        (folder, node)
    }

    /// A command that does nothing; `name` makes its digest another.
    fn command(name: &str) -> Vec<u8> {
        wat::parse_str(format!(r#"(module ${name} (memory (export "memory") 1) (func (export "_start")))"#)).expect("valid")
    }

    fn function(handler: Handler) -> EdgeFunction {
        EdgeFunction::new("f", "f", handler).expect("valid")
    }

    #[test]
    fn a_data_folder_belongs_to_the_node_that_first_opened_it() {
        let (folder, node) = open();
        drop(node);
        let open = |id: &str| {
            let node = EdgeNode::new(id, "test").expect("valid");
            Node::open(NodeOptions::new(node, folder.path()))
        };
        let error = open("edge-02").expect_err("another's");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(error.to_string().ends_with("belongs to node `edge-01`, not to `edge-02`"), "{error}");
        open("edge-01").expect("its own");
    }

    #[tokio::test]
    async fn a_function_whose_artifact_is_gone_from_the_disk_is_not_acknowledged() {
        let (folder, node) = open();
        let digest = node.add_artifact(command("a")).await.expect("runs here");
        fs::remove_file(folder.path().join("artifacts").join(digest.hex()).with_extension("wasm")).expect("there");
        let error = node.put_function(function(Handler::Artifact(digest)), Precondition::None).await.expect_err("gone");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(node.functions().is_empty());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_acknowledged_while_garbage_is_collected_stays_on_the_disk() {
        let (_folder, node) = open();
        let mut acknowledged = 0;
        for n in 0..200_u64 {
            let digest = node.add_artifact(command("a")).await.expect("runs here");
            let put = node.put_function(function(Handler::Artifact(digest)), Precondition::None);
            let collected = tokio::task::spawn_blocking({
                let node = Arc::clone(&node);
                move || {
                    // Each time at another moment of the deployment.
                    std::thread::sleep(Duration::from_micros(n * 10));
                    node.collect_garbage(Duration::ZERO).expect("collects")
                }
            });
            let (put, _) = tokio::join!(put, collected);
            if put.is_ok() {
                acknowledged += 1;
                assert!(node.runtime().artifacts().contains(&digest), "its artifact was collected");
                node.delete_function(&FunctionId::new("f").expect("valid"), Precondition::None).await.expect("deleted");
            }
        }
        assert_ne!(acknowledged, 0);
    }

    #[tokio::test]
    async fn a_function_that_fails_is_tried_again_after_a_growing_pause_and_at_once_when_it_changes() {
        let (_folder, node) = open();
        let name = HandlerName::new("late").expect("valid");
        let wish = function(Handler::Native(name.clone()));
        node.desired.put(wish.clone(), Precondition::None).expect("put");
        let mut now = Instant::now();
        let pause = || node.installer.pause(&FunctionId::new("f").expect("valid"));
        let mut pauses = Vec::new();
        for _ in 0..7 {
            node.reconcile_at(now).await;
            let failed = pause().expect("no handler");
            pauses.push(failed.as_secs());
            node.reconcile_at(now + failed - Duration::from_millis(1)).await;
            assert_eq!(pause(), Some(failed), "it was not tried");
            now += failed;
        }
        assert_eq!(pauses, [20, 40, 80, 160, 320, 600, 600]);
        node.runtime().register(name, NativeHandler::new(async |payload| Ok::<_, std::io::Error>(payload)));
        node.reconcile_at(now - Duration::from_millis(1)).await;
        assert_eq!(node.function("f").expect("there").state, FunctionState::Failed);
        let changed = node.put_function(wish, Precondition::None).await.expect("put");
        assert_eq!((changed.created, changed.view.state), (false, FunctionState::Ready));
    }

    #[tokio::test]
    async fn an_upload_deploys_the_function_that_failed_for_want_of_it() {
        let (folder, node) = open();
        let digest = node.add_artifact(command("a")).await.expect("runs here");
        node.put_function(function(Handler::Artifact(digest)), Precondition::None).await.expect("put");
        drop(node);
        fs::remove_dir_all(folder.path().join("artifacts")).expect("there");
        fs::remove_dir_all(folder.path().join("compiled")).expect("there");
        let options = NodeOptions::new(EdgeNode::new("edge-01", "test").expect("valid"), folder.path());
        let node = Node::open(options).expect("opens");
        node.reconcile().await;
        assert_eq!(node.function("f").expect("there").state, FunctionState::Failed);
        node.add_artifact(command("a")).await.expect("runs here");
        assert_eq!(node.function("f").expect("there").state, FunctionState::Ready);
    }
}
