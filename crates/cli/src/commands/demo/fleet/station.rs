//! One node of the demonstration: its data folder, its tie to the hub, and the work that it does whether it has a hub or not.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use edgeward::{
    Document, DocumentName, EdgeNode, ErrorKind, Node, NodeId, NodeOptions, Object, Uplink, UplinkOptions, Value, blocking,
    cluster::{LocalNetwork, membership::Timing},
    document::Precondition,
    python_json,
};
use parking_lot::Mutex;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::super::waiting::eventually;

/// The function that every station calls with each of its days.
pub(super) const FUNCTION: &str = "daily-stats";

/// A gateway with readings, in a data folder of its own.
pub(super) struct Station {
    pub(super) id: NodeId,
    pub(super) place: &'static str,
    folder: PathBuf,
    days: Arc<Vec<String>>,
    every: Duration,
    /// How many of its days it may take up for now.
    allowed: Arc<AtomicUsize>,
    tally: Arc<Mutex<Tally>>,
    running: Option<Running>,
}

/// What a station did, over all its starts.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Dates of the days that are in its document, in the order in which they came there.
    pub(super) written: Vec<String>,
    pub(super) calls: usize,
    pub(super) errors: usize,
    /// Calls by the revision that answered them.
    pub(super) revisions: BTreeMap<String, usize>,
}

struct Running {
    node: Arc<Node>,
    uplink: Uplink,
    /// None once it was awaited.
    work: Option<AbortOnDropHandle<anyhow::Result<()>>>,
    stop: CancellationToken,
}

/// The document in which a station keeps what it found.
pub(super) fn document_name(id: &NodeId) -> DocumentName {
    DocumentName::new(format!("days.{id}")).expect("an id is valid in the name of a document")
}

impl Station {
    /// One that has these days of readings, each a CSV, and takes one at a time.
    pub(super) fn new(id: &str, place: &'static str, folder: PathBuf, days: Vec<String>, every: Duration) -> anyhow::Result<Self> {
        Ok(Self {
            id: NodeId::new(id)?,
            place,
            folder,
            days: Arc::new(days),
            every,
            allowed: Arc::default(),
            tally: Arc::default(),
            running: None,
        })
    }

    /// Opens its data folder and begins to serve what is assigned there, and to work as soon as the function is.
    pub(super) async fn start(&mut self, network: &LocalNetwork, timing: Timing) -> anyhow::Result<()> {
        let mut described = EdgeNode::new(self.id.as_str(), self.id.as_str())?;
        described.location = self.place.to_owned();
        let mut opened = None;
        // What still reads on another thread has the folder a moment longer than the node that was stopped.
        eventually("the data folder is free", async || match Node::open(NodeOptions::new(described.clone(), self.folder.clone())) {
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
            result => {
                opened = Some(result?);
                Ok(true)
            }
        })
        .await?;
        let node = opened.context("it was opened")?;
        let member = Arc::new(network.member(self.id.clone()));
        let uplink = Uplink::start(Arc::clone(&node), member, UplinkOptions { timing, ..UplinkOptions::default() }).await?;
        let document = node.documents().document(document_name(&self.id));
        let (days, tally, stop) = (Arc::clone(&self.days), Arc::clone(&self.tally), CancellationToken::new());
        let allowed = Arc::clone(&self.allowed);
        let work = Work { node: Arc::clone(&node), document, days, every: self.every, allowed, tally };
        let work = Some(AbortOnDropHandle::new(tokio::spawn(work.run(stop.clone()))));
        self.running = Some(Running { node, uplink, work, stop });
        Ok(())
    }

    /// Ends its process, as far as it has one of its own, and waits until nobody has its data folder.
    pub(super) async fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(running) = &self.running {
            running.stop.cancel();
        }
        self.finish().await?;
        let Some(Running { node, uplink, .. }) = self.running.take() else { return Ok(()) };
        drop(uplink);
        eventually("the node has stopped", async || Ok(Arc::strong_count(&node) == 1)).await
    }

    /// The revision of the function that serves here now.
    pub(super) fn revision(&self) -> Option<String> {
        revision(&self.running.as_ref()?.node)
    }

    pub(super) fn tally(&self) -> Tally {
        self.tally.lock().clone()
    }

    /// Lets it go on until it has taken up this share of its days, so that it does not run out of them before the story ends.
    pub(super) fn allow(&self, percent: usize) {
        self.allowed.store(self.days.len() * percent / 100, Ordering::Relaxed);
    }

    /// Whether it has taken up all that it may.
    pub(super) fn has_done_its_share(&self) -> bool {
        self.tally.lock().written.len() >= self.allowed.load(Ordering::Relaxed)
    }

    pub(super) fn days(&self) -> usize {
        self.days.len()
    }

    /// Waits until it has worked through all of its days, or was told to stop.
    pub(super) async fn finish(&mut self) -> anyhow::Result<()> {
        let work = self.running.as_mut().and_then(|running| running.work.take());
        match work {
            Some(work) => work.await?.with_context(|| format!("node `{}` could not go on", self.id)),
            None => Ok(()),
        }
    }
}

fn revision(node: &Node) -> Option<String> {
    node.runtime().list_functions().into_iter().find(|function| function.id.as_str() == FUNCTION).map(|function| function.name)
}

struct Work {
    node: Arc<Node>,
    document: Document,
    days: Arc<Vec<String>>,
    every: Duration,
    allowed: Arc<AtomicUsize>,
    tally: Arc<Mutex<Tally>>,
}

impl Work {
    /// Takes up the days that are left, one after the other: the function's answer goes into the document of the station.
    async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Self { node, document, days, every, allowed, tally } = self;
        let mut pace = interval(every);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = pace.tick() => {}
                () = stop.cancelled() => return Ok(()),
            }
            // Before its first assignment there is nothing to call.
            let Some(revision) = revision(&node) else { continue };
            let next = tally.lock().written.len();
            let Some(day) = days.get(next) else { return Ok(()) };
            if next >= allowed.load(Ordering::Relaxed) {
                continue;
            }
            let answer = node.runtime().invoke(FUNCTION, day.clone()).await;
            {
                let mut tally = tally.lock();
                tally.calls += 1;
                tally.errors += usize::from(answer.is_err());
                *tally.revisions.entry(revision).or_default() += 1;
            }
            // A call that failed is counted, and its day comes again.
            let Ok(answer) = answer else { continue };
            let (date, stats) = read(&answer)?;
            let (key, document) = (date.clone(), document.clone());
            blocking(move || document.edit(Precondition::None, move |draft| draft.set(&key, &stats))).await?;
            tally.lock().written.push(date);
        }
    }
}

/// The date of the one day in an answer, and what is said of it.
fn read(answer: &[u8]) -> anyhow::Result<(String, Value)> {
    let answer = std::str::from_utf8(answer).context("the function did not answer with text")?;
    let Value::Array(days) = python_json::read(answer)? else { anyhow::bail!("the function did not answer with a list") };
    let [day] = <[Value; 1]>::try_from(days).map_err(|days| anyhow::anyhow!("the function answered with {} days, not 1", days.len()))?;
    match &day {
        Value::Object(Object(fields)) => match fields.get("day") {
            Some(Value::String(date)) => Ok((date.clone(), day.clone())),
            _ => anyhow::bail!("the function answered with a day without a date"),
        },
        _ => anyhow::bail!("the function did not answer with a day"),
    }
}
