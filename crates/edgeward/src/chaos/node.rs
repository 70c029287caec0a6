//! The faults of one node, and the seams into which they are injected: the calls of its runtime, its way to the hub, its documents, and its process.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use edgeward_cluster::{
    Backbone,
    chaos::{ActiveFaults, FaultyLink, Injected, Injector},
};
use edgeward_model::{
    EdgeError, ErrorKind, FunctionId, NodeId,
    chaos::{Fault, FaultKind, Side},
    limits::{CRASH_PAUSE, FAULTS_MAX},
};
use edgeward_runtime::{CallFault, EdgeRuntime, OnCall};
use edgeward_sync::Store;
use edgeward_topics::TopicLog;
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    events::{EventKind, FleetEvent},
    services::INVOKE,
};

/// Ends the process of a node at once, as if its machine had lost its power, and has it start again after this time.
pub type Crash = Arc<dyn Fn(Duration) + Send + Sync>;

/// Keeps an event for the hub.
pub(crate) type Tell = Arc<dyn Fn(FleetEvent) -> BoxFuture<'static, ()> + Send + Sync>;

/// The faults of a node. Clones are the same.
#[derive(Clone)]
pub struct NodeChaos(Arc<Seams>);

struct Seams {
    node: NodeId,
    runtime: Arc<EdgeRuntime>,
    injector: Arc<Injector>,
    own: Option<Own>,
    is_allowed: AtomicBool,
    crash: RwLock<Option<Crash>>,
    /// The way to its hub, while there is one.
    tell: RwLock<Option<Tell>>,
    /// Events of faults that a full disk did not take.
    untold: Mutex<Vec<FleetEvent>>,
    /// Held while faults come and go, so that what is injected is what was said last.
    changing: tokio::sync::Mutex<()>,
    /// Ends what has had its time.
    keeper: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// What a node has for itself: its clock and its disk. A node in the process of its hub shares those of the hub.
pub(crate) struct Own {
    pub(crate) store: Arc<Store>,
    pub(crate) topics: Option<Arc<TopicLog>>,
}

impl Own {
    fn set(&self, skew_seconds: i64, is_full: bool) {
        self.store.set_clock_skew(skew_seconds);
        self.store.refuse_writes(is_full);
        if let Some(topics) = &self.topics {
            topics.refuse_writes(is_full);
        }
    }
}

impl fmt::Debug for NodeChaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeChaos").field("is_allowed", &self.is_allowed()).field("faults", &self.0.injector.list()).finish()
    }
}

impl NodeChaos {
    /// Of the node with this runtime, and with what it has for itself.
    pub(crate) fn new(runtime: Arc<EdgeRuntime>, own: Option<Own>) -> Self {
        Self(Arc::new(Seams {
            node: runtime.node().id.clone(),
            runtime,
            injector: Arc::default(),
            own,
            is_allowed: AtomicBool::new(false),
            crash: RwLock::default(),
            tell: RwLock::default(),
            untold: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            keeper: Mutex::default(),
        }))
    }

    /// Lets faults be injected, which its hub asks for. Call it before the node is tied to its hub. Without `crash`, which must not return, its process
    /// cannot be made to end.
    pub fn allow(&self, crash: Option<Crash>) {
        *self.0.crash.write() = crash;
        self.0.is_allowed.store(true, Ordering::Release);
    }

    /// Whether faults may be injected.
    pub fn is_allowed(&self) -> bool {
        self.0.is_allowed.load(Ordering::Acquire)
    }

    /// The faults that are injected now.
    pub fn injected(&self) -> Vec<Injected> {
        self.0.injector.list()
    }

    /// The way to the hub, with what is injected into it; as it is where nothing may be.
    pub(crate) fn link(&self, backbone: Arc<dyn Backbone>) -> Arc<dyn Backbone> {
        if !self.is_allowed() {
            return backbone;
        }
        Arc::new(FaultyLink::to_hub(backbone, Arc::clone(&self.0.injector), INVOKE))
    }

    /// Tells events there from now on.
    pub(crate) fn tell_by(&self, tell: Option<Tell>) {
        *self.0.tell.write() = tell;
    }

    /// Refuses a fault that cannot be injected here.
    pub(crate) fn check(&self, fault: &Fault) -> Result<(), EdgeError> {
        let node = &self.0.node;
        if !self.is_allowed() {
            let message = format!("node `{node}` lets nobody inject faults; start it with `--allow-chaos`");
            return Err(EdgeError::new(ErrorKind::Forbidden, message));
        }
        fault.validate()?;
        let why = match &fault.kind {
            FaultKind::Crash if self.0.crash.read().is_none() => "it is part of another program, which would end with it",
            FaultKind::Partition { between } if between[1] != Side::Hub => {
                "nodes talk to their hub alone, so there is no way between two of them; write `hub` as one side"
            }
            FaultKind::Partition { .. } if self.0.tell.read().is_none() || self.0.own.is_none() => {
                "it is in the process of its hub, and there is no way between them"
            }
            FaultKind::ClockSkew { .. } if self.0.own.is_none() => "it has no clock of its own, but that of its hub",
            FaultKind::DiskFull if self.0.own.is_none() => "it has no disk of its own, but that of its hub",
            _ => return Ok(()),
        };
        Err(EdgeError::invalid(format!("a fault `{}` cannot be injected on node `{node}`: {why}", fault.kind.as_str())))
    }

    /// Has exactly these faults of a run injected. What is there already stays as it is; a crash comes at once, once.
    ///
    /// # Errors
    /// When one cannot be injected here; then nothing is changed.
    pub(crate) async fn inject(&self, run: &str, faults: BTreeMap<String, Fault>) -> Result<(), EdgeError> {
        let of_run = format!("{run}/");
        let mut faults: BTreeMap<_, _> = faults.into_iter().map(|(name, fault)| (format!("{of_run}{name}"), fault)).collect();
        faults.values().try_for_each(|fault| self.check(fault))?;
        let _changing = self.0.changing.lock().await;
        self.0.end_expired().await;
        let active = self.0.injector.list();
        let goes = |active: &Injected| active.id.starts_with(&of_run) && !faults.contains_key(&active.id);
        let (going, staying): (Vec<_>, Vec<_>) = active.iter().partition(|active| goes(active));
        faults.retain(|id, _| staying.iter().all(|active| active.id != *id));
        let (staying, coming) = (staying.len(), faults.values().filter(|fault| fault.kind != FaultKind::Crash).count());
        if staying + coming > FAULTS_MAX {
            let node = &self.0.node;
            let message = format!(
                "node `{node}` has {staying} faults injected, and {coming} more would be too many: {FAULTS_MAX} are the most; wait until some have ended"
            );
            return Err(EdgeError::new(ErrorKind::Conflict, message));
        }
        for gone in going {
            if let Some(fault) = self.0.injector.remove(&gone.id) {
                self.0.apply();
                self.0.runtime.call_faults().let_go();
                self.0.note(&gone.id, &fault, "was ended").await;
            }
        }
        for (id, fault) in faults {
            // Before it is injected: a full disk takes no event.
            self.0.note(&id, &fault, "is injected").await;
            if fault.kind == FaultKind::Crash {
                self.0.crash_soon(fault.duration());
                continue;
            }
            self.0.injector.inject(&id, fault).expect("it is valid, and nothing else takes the room that was seen");
            self.0.apply();
            self.0.keeper.lock().get_or_insert_with(|| AbortOnDropHandle::new(tokio::spawn(keep(Arc::downgrade(&self.0)))));
        }
        Ok(())
    }
}

impl Seams {
    /// Has the seams do what the faults of now say.
    fn apply(&self) {
        let is_of_calls = self.injector.list().iter().any(|active| active.fault.kind.is_of_calls());
        self.runtime.call_faults().set(is_of_calls.then(|| on_call(Arc::clone(&self.injector))));
        if let Some(own) = &self.own {
            let (skew, is_full) = self.injector.ask(|faults, now| (faults.clock_skew_seconds(now), faults.is_disk_full(now)));
            own.set(skew, is_full);
        }
    }

    /// Ends those whose time is over.
    async fn end_expired(&self) {
        let ended = self.injector.expire();
        if ended.is_empty() {
            return;
        }
        self.apply();
        self.runtime.call_faults().let_go();
        for (id, fault) in ended {
            self.note(&id, &fault, "has ended: its time is over").await;
        }
    }

    /// Tells the audit log and the hub of a fault.
    async fn note(&self, id: &str, fault: &Fault, what: &str) {
        let node = &self.node;
        tracing::warn!(target: "audit", %node, fault = id, "the fault `{fault}` {what}");
        let Some(tell) = self.tell.read().clone() else { return };
        let mut event = FleetEvent::new(EventKind::FaultChanged, format!("node `{node}`: the fault `{fault}` {what}")).on(node);
        event.data = Some(serde_json::json!({ "id": id, "fault": fault }));
        event.function.clone_from(&fault.function);
        let events = {
            let mut untold = self.untold.lock();
            untold.push(event);
            // Each fault comes and goes.
            let surplus = untold.len().saturating_sub(2 * FAULTS_MAX);
            untold.drain(..surplus);
            if self.injector.ask(ActiveFaults::is_disk_full) { Vec::new() } else { std::mem::take(&mut *untold) }
        };
        for event in events {
            tell(event).await;
        }
    }

    /// Ends the process once who asked for it has its answer.
    fn crash_soon(&self, down: Duration) {
        let crash = self.crash.read().clone().expect("who checked the fault saw that it is there");
        tokio::spawn(async move {
            sleep(CRASH_PAUSE).await;
            crash(down);
        });
    }
}

impl Drop for Seams {
    fn drop(&mut self) {
        // Others may hold the runtime and the store.
        self.runtime.call_faults().set(None);
        self.runtime.call_faults().let_go();
        if let Some(own) = &self.own {
            own.set(0, false);
        }
    }
}

/// What the faults do to a call.
fn on_call(injector: Arc<Injector>) -> OnCall {
    Arc::new(move |function: &FunctionId| {
        let happens = injector.on_call(function);
        let (memory_mb, concurrency) = injector.ask(|faults, now| (faults.memory_mb(function, now), faults.concurrency(function, now)));
        let memory_bytes = memory_mb.map(|mib| usize::try_from(mib).unwrap_or(usize::MAX).saturating_mul(1 << 20));
        CallFault { delay: happens.delay, failure: happens.failure, concurrency, memory_bytes }
    })
}

/// Ends each fault at its time, as long as the node is there.
async fn keep(seams: Weak<Seams>) {
    loop {
        let Some(here) = seams.upgrade() else { return };
        let mut changes = here.injector.changes();
        let end = here.injector.next_end_in();
        drop(here);
        tokio::select! {
            ended = changes.changed() => if ended.is_err() { return },
            () = sleep(end.unwrap_or_default()), if end.is_some() => {
                let Some(here) = seams.upgrade() else { return };
                let _changing = here.changing.lock().await;
                here.end_expired().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use edgeward_model::{EdgeFunction, EdgeNode, Handler, HandlerName, chaos::Fault};
    use edgeward_runtime::NativeHandler;
    use edgeward_sync::{Documents, Epoch, Precondition};

    use super::*;

    async fn node() -> (NodeChaos, Arc<EdgeRuntime>, Documents) {
        let runtime = Arc::new(EdgeRuntime::new(EdgeNode::new("edge-01", "a").expect("valid")));
        let name = HandlerName::new("h").expect("valid");
        runtime.register(name.clone(), NativeHandler::new(async |payload| Ok::<_, std::io::Error>(payload)));
        let mut function = EdgeFunction::new("f", "f", Handler::Native(name)).expect("valid");
        function.timeout_seconds = 3.0;
        runtime.deploy(function).await.expect("deploys");
        let store = Store::in_memory(runtime.node().id.clone(), Epoch::draw().expect("random")).expect("opens");
        let documents = Documents::new(store);
        let own = Own { store: Arc::clone(documents.store()), topics: None };
        let chaos = NodeChaos::new(Arc::clone(&runtime), Some(own));
        (chaos, runtime, documents)
    }

    fn fault(json: &str) -> Fault {
        serde_json::from_str(json).expect(json)
    }

    async fn inject(chaos: &NodeChaos, json: &str) -> Result<(), EdgeError> {
        chaos.inject("run", BTreeMap::from([("1".to_owned(), fault(json))])).await
    }

    #[tokio::test(start_paused = true)]
    async fn every_fault_of_a_call_happens_and_ends_by_itself() {
        let (chaos, runtime, _) = node().await;
        chaos.allow(None);
        for (json, took, result) in [
            (r#"{"kind":"latency","delay_ms":500,"duration_seconds":2}"#, 500, Ok(())),
            (r#"{"kind":"error","error":"overloaded","function":"f","duration_seconds":2}"#, 0, Err(ErrorKind::Overloaded)),
            (r#"{"kind":"timeout","duration_seconds":5}"#, 3000, Err(ErrorKind::Timeout)),
            // What a fault has caught it lets go when it ends.
            (r#"{"kind":"timeout","duration_seconds":2}"#, 2000, Ok(())),
            (r#"{"kind":"latency","delay_ms":60000,"duration_seconds":2}"#, 2000, Ok(())),
        ] {
            inject(&chaos, json).await.expect(json);
            let begun = tokio::time::Instant::now();
            let called = runtime.invoke("f", "x").await.map(drop).map_err(|error| error.kind());
            assert_eq!((called, begun.elapsed().as_millis()), (result, took), "{json}");
            sleep(Duration::from_secs(2)).await;
            assert!(chaos.injected().is_empty(), "{json}");
            let begun = tokio::time::Instant::now();
            runtime.invoke("f", "x").await.expect("it is over");
            assert!(begun.elapsed().is_zero());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_an_exhausted_resource_a_function_gets_no_more_than_there_is() {
        let (chaos, runtime, _) = node().await;
        chaos.allow(None);
        let late = fault(r#"{"kind":"latency","delay_ms":1000,"duration_seconds":10}"#);
        let narrow = fault(r#"{"kind":"resource_exhaustion","concurrency":1,"duration_seconds":10}"#);
        chaos.inject("run", BTreeMap::from([("1".to_owned(), late), ("2".to_owned(), narrow)])).await.expect("injects");
        let begun = tokio::time::Instant::now();
        let (first, second) = tokio::join!(runtime.invoke("f", "x"), runtime.invoke("f", "x"));
        assert!(first.is_ok() && second.is_ok());
        assert_eq!(begun.elapsed().as_secs(), 2, "one after the other");
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_wait_or_hang_go_on_once_what_held_them_is_ended() {
        let (chaos, runtime, _) = node().await;
        chaos.allow(None);
        let late = fault(r#"{"kind":"latency","delay_ms":1000,"duration_seconds":10}"#);
        let narrow = fault(r#"{"kind":"resource_exhaustion","concurrency":1,"duration_seconds":1}"#);
        chaos.inject("run", BTreeMap::from([("1".to_owned(), late), ("2".to_owned(), narrow)])).await.expect("injects");
        let begun = tokio::time::Instant::now();
        let (first, second, third) = tokio::join!(runtime.invoke("f", "x"), runtime.invoke("f", "x"), runtime.invoke("f", "x"));
        assert!(first.is_ok() && second.is_ok() && third.is_ok());
        assert_eq!(begun.elapsed().as_secs(), 2, "the gate is as wide as ever after a second");
        inject(&chaos, r#"{"kind":"timeout","duration_seconds":2}"#).await.expect("injects");
        let begun = tokio::time::Instant::now();
        let mut hanging = Box::pin(runtime.invoke("f", "x"));
        assert!(futures::poll!(&mut hanging).is_pending());
        chaos.inject("run", BTreeMap::new()).await.expect("ends them");
        hanging.await.expect("nothing holds it");
        assert!(begun.elapsed().is_zero());
    }

    #[cfg(feature = "wasm")]
    #[tokio::test]
    async fn a_guest_gets_no_more_memory_than_there_is() {
        let (chaos, runtime, _) = node().await;
        chaos.allow(None);
        // Ten MiB more, or a trap.
        let greedy = wat::parse_str(
            r#"(module (memory (export "memory") 1) (func (export "_start") (if (i32.eq (memory.grow (i32.const 160)) (i32.const -1)) (then unreachable))))"#,
        );
        let digest = runtime.add_artifact(greedy.expect("valid")).await.expect("runs here");
        runtime.deploy(EdgeFunction::new("g", "g", Handler::Artifact(digest)).expect("valid")).await.expect("deploys");
        runtime.invoke("g", "").await.expect("there is enough");
        inject(&chaos, r#"{"kind":"resource_exhaustion","memory_mb":4,"duration_seconds":1}"#).await.expect("injects");
        let error = runtime.invoke("g", "").await.expect_err("there is too little");
        assert_eq!(error.kind(), ErrorKind::MemoryLimit, "{error}");
        let begun = std::time::Instant::now();
        while !chaos.injected().is_empty() {
            assert!(begun.elapsed().as_secs() < 20, "it ends by itself");
            sleep(Duration::from_millis(20)).await;
        }
        runtime.invoke("g", "").await.expect("there is enough again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_wrong_and_a_disk_that_is_full_are_so_for_a_while() {
        let (chaos, _, documents) = node().await;
        chaos.allow(None);
        let document = documents.document("d".parse().expect("valid"));
        let write = || document.edit(Precondition::None, |draft| draft.set("k", &1_i64.into()));
        inject(&chaos, r#"{"kind":"clock_skew","skew_seconds":3600,"duration_seconds":5}"#).await.expect("injects");
        let ahead = |document: &edgeward_sync::Document| document.now().duration_since(jiff::Timestamp::now()).as_secs();
        assert!((3599..=3600).contains(&ahead(&document)));
        write().expect("it can be written");
        assert!(document.info().expect("reads").expect("there").updated_at > jiff::Timestamp::now());
        inject(&chaos, r#"{"kind":"disk_full","duration_seconds":5}"#).await.expect("stays as it is");
        assert!((3599..=3600).contains(&ahead(&document)), "one of this name is there");
        // A moment more, in which what has ended is noticed.
        sleep(Duration::from_millis(5010)).await;
        assert_eq!(ahead(&document), 0);
        inject(&chaos, r#"{"kind":"disk_full","duration_seconds":5}"#).await.expect("injects");
        let error = write().map(drop).expect_err("it is full");
        assert!(error.kind() == ErrorKind::Unavailable && error.to_string().contains("the disk is full"), "{error}");
        sleep(Duration::from_millis(5010)).await;
        write().expect("there is room again");
    }

    #[tokio::test(start_paused = true)]
    async fn faults_are_refused_unless_they_are_allowed_and_possible_here() {
        let (chaos, runtime, _) = node().await;
        let timeout = r#"{"kind":"timeout","duration_seconds":5}"#;
        let refused = inject(&chaos, timeout).await.expect_err("not allowed");
        assert!(refused.kind() == ErrorKind::Forbidden && refused.to_string().contains("--allow-chaos"), "{refused}");
        chaos.allow(None);
        for impossible in [
            r#"{"kind":"crash","duration_seconds":5}"#,
            r#"{"kind":"partition","between":["all","hub"],"duration_seconds":5}"#,
            r#"{"kind":"partition","between":["node=edge-01","node=b"],"duration_seconds":5}"#,
        ] {
            assert_eq!(inject(&chaos, impossible).await.expect_err(impossible).kind(), ErrorKind::InvalidInput);
        }
        let of_hub = NodeChaos::new(runtime, None);
        of_hub.allow(None);
        for of_the_hub in [r#"{"kind":"clock_skew","skew_seconds":1,"duration_seconds":5}"#, r#"{"kind":"disk_full","duration_seconds":5}"#]
        {
            assert!(inject(&of_hub, of_the_hub).await.is_err(), "{of_the_hub}");
        }
        let (told, mut crashes) = tokio::sync::mpsc::channel(4);
        let crash: Crash = Arc::new(move |down| told.try_send(down).expect("room"));
        chaos.allow(Some(crash));
        inject(&chaos, r#"{"kind":"crash","duration_seconds":5}"#).await.expect("it may");
        assert_eq!(crashes.recv().await.expect("it crashes").as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_ends_its_own_faults_and_no_others() {
        let (chaos, runtime, _) = node().await;
        chaos.allow(None);
        inject(&chaos, r#"{"kind":"error","duration_seconds":50}"#).await.expect("injects");
        chaos.inject("run-2", BTreeMap::new()).await.expect("nothing is its");
        assert_eq!(chaos.injected().len(), 1);
        assert!(runtime.invoke("f", "x").await.is_err());
        chaos.inject("run", BTreeMap::new()).await.expect("ends");
        assert!(chaos.injected().is_empty() && runtime.invoke("f", "x").await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn faults_for_which_there_is_no_room_change_nothing() {
        let (chaos, runtime, _) = node().await;
        chaos.allow(None);
        let timeout = || fault(r#"{"kind":"timeout","function":"g","duration_seconds":50}"#);
        let others = (1..FAULTS_MAX).map(|number| (number.to_string(), timeout())).collect();
        chaos.inject("other", others).await.expect("there is room");
        inject(&chaos, r#"{"kind":"error","duration_seconds":50}"#).await.expect("there is room for one more");
        let told = Arc::<Mutex<Vec<String>>>::default();
        let tells = Arc::clone(&told);
        chaos.tell_by(Some(Arc::new(move |event: FleetEvent| {
            tells.lock().push(event.message);
            Box::pin(std::future::ready(()))
        })));
        let before = chaos.injected();
        // One goes and two come.
        let two = BTreeMap::from([("2".to_owned(), timeout()), ("3".to_owned(), timeout())]);
        let refused = chaos.inject("run", two).await.expect_err("there is room for one");
        assert!(refused.kind() == ErrorKind::Conflict && refused.to_string().contains("`edge-01`"), "{refused}");
        assert_eq!((chaos.injected(), told.lock().len()), (before, 0));
        assert!(runtime.invoke("f", "x").await.is_err(), "what was to go is there");
        chaos.inject("run", BTreeMap::from([("2".to_owned(), timeout())])).await.expect("it takes the place of the other");
        assert_eq!((chaos.injected().len(), told.lock().len()), (FAULTS_MAX, 2));
        runtime.invoke("f", "x").await.expect("what was to go has gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_crash_needs_no_room() {
        let (chaos, _, _) = node().await;
        let (told, mut crashes) = tokio::sync::mpsc::channel(4);
        chaos.allow(Some(Arc::new(move |down| told.try_send(down).expect("room"))));
        let timeout = fault(r#"{"kind":"timeout","duration_seconds":50}"#);
        chaos.inject("other", (0..FAULTS_MAX).map(|number| (number.to_string(), timeout.clone())).collect()).await.expect("there is room");
        inject(&chaos, r#"{"kind":"crash","duration_seconds":5}"#).await.expect("it is not injected, it happens");
        assert_eq!(crashes.recv().await.expect("it crashes").as_secs(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_full_disk_does_not_take_is_told_once_there_is_room() {
        let (chaos, _, documents) = node().await;
        chaos.allow(None);
        let told = Arc::<Mutex<Vec<String>>>::default();
        let (document, tells) = (documents.document("told".parse().expect("valid")), Arc::clone(&told));
        chaos.tell_by(Some(Arc::new(move |event: FleetEvent| {
            if document.edit(Precondition::None, |draft| draft.set("k", &1_i64.into())).is_ok() {
                tells.lock().push(event.message);
            }
            Box::pin(std::future::ready(()))
        })));
        inject(&chaos, r#"{"kind":"disk_full","duration_seconds":5}"#).await.expect("injects");
        let late = fault(r#"{"kind":"latency","delay_ms":1,"duration_seconds":2}"#);
        chaos.inject("other", BTreeMap::from([("1".to_owned(), late)])).await.expect("injects");
        sleep(Duration::from_secs(4)).await;
        assert_eq!(told.lock().len(), 1);
        sleep(Duration::from_secs(2)).await;
        let told = told.lock().clone();
        for (message, parts) in told.iter().zip([
            ["disk_full", "is injected"],
            ["latency", "is injected"],
            ["latency", "has ended"],
            ["disk_full", "has ended"],
        ]) {
            assert!(parts.iter().all(|part| message.contains(part)), "{told:?}");
        }
        assert_eq!(told.len(), 4);
    }
}
