//! Schedules of a node: what fires, what does not, and what is told of it, over starts of the process.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use edgeward::{
    EdgeFunction, EdgeNode, ErrorKind, FunctionId, Handler, HandlerName, NativeHandler, Node, NodeOptions, Precondition, Schedule,
    ScheduleHistory, ScheduleId, ScheduleView,
    cluster::schedule::{Outcome, Run},
};
use jiff::{SignedDuration, Timestamp};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the function of the tests does, and what it saw.
#[derive(Default)]
struct Function {
    calls: AtomicUsize,
    running: AtomicUsize,
    running_most: AtomicUsize,
    /// Calls that wait for the test take one each.
    turns: Option<Semaphore>,
}

impl Function {
    fn waiting() -> Arc<Self> {
        Arc::new(Self { turns: Some(Semaphore::new(0)), ..Self::default() })
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    fn let_go(&self, calls: usize) {
        self.turns.as_ref().expect("it waits").add_permits(calls);
    }

    fn handler(self: Arc<Self>) -> NativeHandler {
        NativeHandler::new(move |payload| {
            let this = Arc::clone(&self);
            async move {
                this.calls.fetch_add(1, Ordering::SeqCst);
                let running = this.running.fetch_add(1, Ordering::SeqCst) + 1;
                this.running_most.fetch_max(running, Ordering::SeqCst);
                if let Some(turns) = &this.turns {
                    turns.acquire().await.expect("open").forget();
                }
                this.running.fetch_sub(1, Ordering::SeqCst);
                if payload == "fail" { Err(std::io::Error::other("it is broken")) } else { Ok(payload) }
            }
        })
    }
}

/// A node of one life of its process.
struct Life {
    node: Arc<Node>,
    stop: CancellationToken,
    kept: JoinHandle<()>,
}

impl Life {
    /// Starts the node of a folder, on which this function is `f`.
    async fn start(folder: &Path, function: &Arc<Function>) -> Self {
        let node = EdgeNode::new("edge-01", "test").expect("valid");
        // What ended with the life before holds the folder until the processor that it was on comes to drop it.
        let node = until(|| match Node::open(NodeOptions::new(node.clone(), folder)) {
            Err(error) if error.kind() == ErrorKind::Conflict => None,
            opened => Some(opened.expect("opens")),
        })
        .await;
        let name = HandlerName::new("h").expect("valid");
        node.runtime().register(name.clone(), Arc::clone(function).handler());
        let f = EdgeFunction::new("f", "f", Handler::Native(name)).expect("valid");
        node.put_function(f, Precondition::None).await.expect("put");
        let stop = CancellationToken::new();
        let kept = tokio::spawn(Arc::clone(&node).keep_scheduled(stop.clone()));
        Self { node, stop, kept }
    }

    async fn put(&self, schedule: Schedule) -> ScheduleView {
        self.node.schedules().put(schedule, Precondition::None).await.expect("put").view
    }

    fn history(&self) -> ScheduleHistory {
        self.node.schedules().history("s").expect("there")
    }

    /// The last run of this outcome, when there is one.
    async fn told(&self, outcome: Outcome) -> Run {
        until(|| self.history().runs.into_iter().find(|run| run.outcome == outcome)).await
    }

    async fn end(self) {
        self.stop.cancel();
        self.kept.await.expect("ends well");
    }

    /// Ends as a process does that is killed.
    async fn crash(self) {
        self.kept.abort();
        assert!(self.kept.await.expect_err("ended").is_cancelled());
    }
}

/// What this finds, as soon as it does.
async fn until<T>(mut find: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "it did not happen in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn holds(condition: bool) -> Option<()> {
    condition.then_some(())
}

fn schedule(when: &str) -> Schedule {
    let (id, function) = (ScheduleId::new("s").expect("valid"), FunctionId::new("f").expect("valid"));
    Schedule::new(id, function, when.parse().expect("valid"))
}

fn soon() -> Timestamp {
    Timestamp::now() + SignedDuration::from_millis(300)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_fires_without_a_network_and_is_told_with_its_payload_and_next_due_time() {
    let (folder, function) = (tempfile::tempdir().expect("temp folder"), Arc::new(Function::default()));
    let life = Life::start(folder.path(), &function).await;
    let view = life.put(schedule("every 1s")).await;
    assert!(view.next_due_at.is_some_and(|at| at > Timestamp::now() - SignedDuration::from_secs(1)) && view.record.generation == 1);
    until(|| holds(life.history().totals.succeeded >= 2)).await;
    let view = life.node.schedules().get("s").expect("there");
    let last = view.last.expect("it ran");
    assert_eq!((last.outcome, last.attempt, last.due_at.subsec_nanosecond()), (Outcome::Succeeded, 1, 0));
    assert!(last.started_at >= Some(last.due_at) && last.ended_at >= last.started_at, "{last:?}");
    assert!(function.calls() >= 2 && life.node.schedules().list().len() == 1);
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_fails_is_told_with_its_reason() {
    let (folder, function) = (tempfile::tempdir().expect("temp folder"), Arc::new(Function::default()));
    let life = Life::start(folder.path(), &function).await;
    life.put(Schedule { payload: "fail".to_owned(), content_type: "text/plain".to_owned(), ..schedule("every 1s") }).await;
    assert_eq!(life.told(Outcome::Failed).await.message, "the handler failed: it is broken");
    life.put(Schedule { function: FunctionId::new("g").expect("valid"), ..schedule("every 1s") }).await;
    until(|| life.history().runs.into_iter().find(|run| run.message.contains("function not found: `g`"))).await;
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_one_run_goes_on_and_what_is_due_meanwhile_is_skipped() {
    let (folder, function) = (tempfile::tempdir().expect("temp folder"), Function::waiting());
    let life = Life::start(folder.path(), &function).await;
    life.put(schedule("every 1s")).await;
    let due_at = until(|| life.node.schedules().get("s").expect("there").running).await.due_at;
    until(|| holds(function.calls() == 1)).await;
    let error = life.node.schedules().run_now("s").await.expect_err("it runs");
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    until(|| holds(Timestamp::now() > due_at + SignedDuration::from_secs(2))).await;
    function.let_go(1);
    assert!(life.told(Outcome::Skipped).await.count >= 2);
    function.let_go(1000);
    until(|| holds(life.history().totals.succeeded >= 2)).await;
    assert_eq!(function.running_most.load(Ordering::SeqCst), 1);
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_due_while_the_node_was_down_is_made_up_for_and_the_history_goes_on() {
    let (folder, function) = (tempfile::tempdir().expect("temp folder"), Arc::new(Function::default()));
    let life = Life::start(folder.path(), &function).await;
    let due_at = soon() + SignedDuration::from_secs(1);
    life.put(schedule(&format!("at {due_at}"))).await;
    life.node.schedules().run_now("s").await.expect("runs");
    let before = life.told(Outcome::Succeeded).await;
    assert!(before.due_at < due_at, "nobody asked for it but the test");
    life.end().await;
    until(|| holds(Timestamp::now() > due_at)).await;
    assert_eq!(function.calls(), 1, "the node is down");

    let life = Life::start(folder.path(), &function).await;
    assert_eq!(life.history().runs, std::slice::from_ref(&before));
    until(|| holds(function.calls() == 2)).await;
    let runs = until(|| Some(life.history().runs).filter(|runs| runs.len() == 2)).await;
    assert_eq!((runs[0].due_at, runs[0].outcome, &runs[1]), (due_at, Outcome::Succeeded, &before));
    assert_eq!(life.node.schedules().get("s").expect("there").next_due_at, None);
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_the_end_of_the_process_cuts_off_is_told_as_interrupted_and_does_not_start_again() {
    let (folder, function) = (tempfile::tempdir().expect("temp folder"), Function::waiting());
    let life = Life::start(folder.path(), &function).await;
    let due_at = soon();
    life.put(schedule(&format!("at {due_at}"))).await;
    until(|| holds(function.calls() == 1)).await;
    life.crash().await;

    let life = Life::start(folder.path(), &function).await;
    let run = life.told(Outcome::Interrupted).await;
    assert_eq!((run.due_at, run.attempt, run.message.as_str()), (due_at, 1, "the node ended while it ran"));
    // It runs, and starts nothing of what is over.
    life.node.schedules().run_now("s").await.expect("runs");
    until(|| holds(function.calls() == 2)).await;
    function.let_go(2);
    life.told(Outcome::Succeeded).await;
    assert_eq!((function.calls(), life.history().runs.len()), (2, 2));
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_lets_a_run_end_and_starts_no_other() {
    let (folder, function) = (tempfile::tempdir().expect("temp folder"), Function::waiting());
    let life = Life::start(folder.path(), &function).await;
    life.put(schedule("every 1s")).await;
    until(|| holds(function.calls() == 1)).await;
    life.stop.cancel();
    function.let_go(1000);
    let node = Arc::clone(&life.node);
    life.end().await;
    let history = node.schedules().history("s").expect("there");
    assert_eq!((function.calls(), history.totals.succeeded, history.totals.interrupted), (1, 1, 0));
    assert_eq!(node.schedules().run_now("s").await.expect_err("it stopped").kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_is_never_due_is_refused() {
    let (folder, function) = (tempfile::tempdir().expect("temp folder"), Arc::new(Function::default()));
    let life = Life::start(folder.path(), &function).await;
    let past: Timestamp = "2001-01-01T00:00:00Z".parse().expect("valid");
    for schedule in [
        schedule("at 2001-01-01T00:00:00Z"),
        Schedule { ends_at: Some(past), ..schedule("every 1s") },
        Schedule { ends_at: Some(past), ..schedule("0 0 30 1 *") },
    ] {
        let error = life.node.schedules().put(schedule, Precondition::None).await.expect_err("never due");
        assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("schedule `s` is never due"), "{error}");
    }
    let bad = Schedule { content_type: "text/plain\u{e9}".to_owned(), attempts: 0, ..schedule("every 1s") };
    assert_eq!(life.node.schedules().put(bad, Precondition::None).await.expect_err("no tries").kind(), ErrorKind::InvalidInput);
    assert_eq!(life.node.schedules().get("s").expect_err("none").kind(), ErrorKind::NotFound);
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_is_removed_stops_and_its_generation_is_never_used_again() {
    let (folder, function) = (tempfile::tempdir().expect("temp folder"), Function::waiting());
    let life = Life::start(folder.path(), &function).await;
    let schedules = life.node.schedules();
    let id = ScheduleId::new("s").expect("valid");
    let generation = life.put(schedule("every 1s")).await.record.generation;
    until(|| holds(function.calls() == 1)).await;
    let stale = schedules.remove(&id, Precondition::Generation(generation + 1)).await.expect_err("another generation");
    assert_eq!(stale.kind(), ErrorKind::Conflict);
    assert!(schedules.remove(&id, Precondition::Generation(generation)).await.expect("removed"));
    assert!(!schedules.remove(&id, Precondition::None).await.expect("gone"));
    let removed_at = Timestamp::now();
    until(|| holds(Timestamp::now() > removed_at + SignedDuration::from_millis(1500))).await;
    assert_eq!((function.calls(), schedules.list().len()), (1, 0));

    // One of its name waits for the run that still goes on.
    let put = schedules.put(schedule("every 1s"), Precondition::Absent).await.expect("put");
    assert!(put.created && put.view.record.generation > generation + 1 && put.view.totals.succeeded == 0);
    assert_eq!(schedules.run_now("s").await.expect_err("the old one runs").kind(), ErrorKind::Conflict);
    function.let_go(1000);
    until(|| holds(life.history().totals.succeeded >= 1)).await;
    assert_eq!(function.running_most.load(Ordering::SeqCst), 1);
    life.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_that_is_off_runs_only_when_somebody_asks() {
    let (folder, function) = (tempfile::tempdir().expect("temp folder"), Arc::new(Function::default()));
    let life = Life::start(folder.path(), &function).await;
    let view = life.put(Schedule { enabled: false, attempts: 3, ..schedule("every 1s") }).await;
    assert_eq!(view.next_due_at, None);
    let run = until_async(async || life.node.schedules().run_now("s").await.ok()).await;
    let told = life.told(Outcome::Succeeded).await;
    assert_eq!((told.due_at, told.attempt, run.is_asked, function.calls()), (run.due_at, 1, true, 1));
    life.put(schedule("every 1s")).await;
    until(|| holds(life.history().totals.succeeded >= 2)).await;
    assert_eq!(life.history().totals.missed + life.history().totals.skipped, 0, "what was due while it was off is not told");
    life.end().await;
}

/// What this finds, as soon as it does.
async fn until_async<T>(mut find: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = find().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "it did not happen in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
