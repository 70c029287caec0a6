//! The triggers of a node: a document of its own with one key for each, and how each does.
//!
//! A trigger reads the log under the durable subscription `trigger:ID`. Its filters change only while nobody delivers for it: who reads by
//! the old ones would acknowledge what only the new ones match.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use edgeward_model::{DocumentName, EdgeError, ErrorKind, Trigger, TriggerId, limits::TRIGGERS_MAX};
use edgeward_runtime::blocking;
use edgeward_sync::{Document, Documents, Draft, Precondition, policy::LOCAL_PREFIX};
use edgeward_telemetry::{Distribution, Histogram};
use edgeward_topics::{DeadLetter, DeliveryCounts, TopicLog};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::{OwnedMutexGuard, watch};

use crate::stored;

/// How the names of the durable subscriptions of triggers begin.
pub(super) const SUBSCRIPTION_PREFIX: &str = "trigger:";

/// The triggers that there are, by id.
pub(super) type Known = BTreeMap<TriggerId, Arc<Trigger>>;

/// What a trigger must be for a change of it to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Expected {
    /// Anything.
    #[default]
    Any,
    /// There, whatever it is.
    Present,
    /// Not there.
    Absent,
    /// What this [`TriggerView::tag`] names.
    Tag(String),
}

impl Expected {
    fn check(&self, id: &TriggerId, before: Option<&Trigger>) -> Result<(), EdgeError> {
        let why = match (self, before) {
            (Self::Any, _) | (Self::Present, Some(_)) | (Self::Absent, None) => return Ok(()),
            (Self::Tag(tag), Some(trigger)) if *tag == tag_of(trigger) => return Ok(()),
            (Self::Tag(_), Some(_)) => "has changed meanwhile; read it again and retry",
            (Self::Present | Self::Tag(_), None) => "is not there",
            (Self::Absent, Some(_)) => "exists already",
        };
        Err(EdgeError::new(ErrorKind::Conflict, format!("trigger `{id}` {why}")))
    }
}

/// Names what a trigger is: two that are alike have the same one.
fn tag_of(trigger: &Trigger) -> String {
    let json = serde_json::to_vec(trigger).expect("a trigger has only texts and numbers");
    blake3::hash(&json).to_hex()[..16].to_owned()
}

/// A trigger, and what it has done since the node started.
#[derive(Clone, Debug, Serialize)]
pub struct TriggerView {
    /// The trigger.
    #[serde(flatten)]
    pub trigger: Trigger,
    /// Names what the trigger is, for [`Expected::Tag`].
    #[serde(skip)]
    pub tag: String,
    /// Up to where every message of its filters was handled, or is a dead letter.
    pub acknowledged: u64,
    /// Positions of the log after that, of whatever topic.
    pub behind: u64,
    /// Messages that were handled.
    pub delivered: u64,
    /// Attempts that failed and were followed by another.
    pub retried: u64,
    /// Messages that became dead letters.
    pub dead: u64,
    /// Dead letters that gave way to newer ones.
    pub dead_dropped: u64,
    /// Messages, of whatever topic, that were gone from the log before it came to them.
    pub lost: u64,
    /// Messages that were not durable, and came while too many waited already.
    pub dropped: u64,
    /// Messages that wait for the function to be deployed here.
    pub waiting: u64,
    /// Why it does not run, if it should and cannot.
    pub failure: Option<String>,
}

/// How a trigger does.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) counts: DeliveryCounts,
    waiting: AtomicU64,
    pub(super) failure: Mutex<Option<String>>,
    attempts: Mutex<Attempts>,
}

/// How long attempts took.
#[derive(Debug, Default)]
struct Attempts {
    histogram: Histogram,
    nanos: u128,
}

/// A message that waits for its function.
pub(super) struct Waiting<'a>(&'a AtomicU64);

impl Standing {
    /// Counts an attempt that took so long.
    pub(super) fn attempted(&self, took: Duration) {
        let mut attempts = self.attempts.lock();
        attempts.histogram.record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        attempts.nanos += took.as_nanos();
    }

    pub(super) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(&self.waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The triggers, kept in memory as well.
#[derive(Debug)]
pub(super) struct Triggers {
    document: Document,
    /// Those that are to run: without one that is being changed.
    pub(super) wanted: Arc<watch::Sender<Arc<Known>>>,
    /// Those that are delivered for.
    pub(super) active: watch::Sender<BTreeSet<TriggerId>>,
    standings: Mutex<HashMap<TriggerId, Arc<Standing>>>,
    /// Held while one is changed.
    changing: Arc<tokio::sync::Mutex<()>>,
    /// Held by who runs them.
    pub(super) running: tokio::sync::Mutex<()>,
}

pub(super) fn subscription_of(id: &TriggerId) -> String {
    format!("{SUBSCRIPTION_PREFIX}{id}")
}

/// The id of the trigger whose function could not handle this.
pub fn trigger_of(letter: &DeadLetter) -> &str {
    letter.subscription.strip_prefix(SUBSCRIPTION_PREFIX).unwrap_or(&letter.subscription)
}

impl Triggers {
    pub(super) fn open(documents: &Documents) -> Result<Self, EdgeError> {
        let document = documents.document(DocumentName::new(format!("{LOCAL_PREFIX}triggers"))?);
        let mut known = Known::new();
        for (key, value) in document.view()?.map(|state| state.data.0).unwrap_or_default() {
            let read = stored::of_value::<Trigger>(&value, || format!("trigger `{}`", key.escape_debug()));
            match read.and_then(|trigger| trigger.validate().map(|()| trigger)) {
                Ok(trigger) => drop(known.insert(trigger.id.clone(), Arc::new(trigger))),
                // The others run, and what it has not handled stays in the log.
                Err(error) => tracing::warn!(trigger = key, error = error.chain(), "a trigger could not be read"),
            }
        }
        Ok(Self {
            document,
            wanted: Arc::new(watch::Sender::new(Arc::new(known))),
            active: watch::Sender::default(),
            standings: Mutex::default(),
            changing: Arc::default(),
            running: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn standing(&self, id: &TriggerId) -> Arc<Standing> {
        Arc::clone(self.standings.lock().entry(id.clone()).or_default())
    }

    /// How long the attempts of each took.
    pub(super) fn attempts(&self) -> Vec<(TriggerId, Distribution)> {
        let known = Arc::clone(&self.wanted.borrow());
        let of = |id: &TriggerId| {
            let standing = self.standing(id);
            let attempts = standing.attempts.lock();
            (id.clone(), attempts.histogram.in_seconds(attempts.nanos))
        };
        known.keys().map(of).collect()
    }

    pub(super) async fn put(&self, log: &TopicLog, trigger: Trigger, expected: &Expected) -> Result<bool, EdgeError> {
        trigger.validate()?;
        let one = Arc::clone(&self.changing).lock_owned().await;
        let before = self.wanted.borrow().get(&trigger.id).cloned();
        expected.check(&trigger.id, before.as_deref())?;
        if before.as_deref() == Some(&trigger) {
            return Ok(false);
        }
        if before.is_none() && self.wanted.borrow().len() >= TRIGGERS_MAX {
            let why = format!("there are {TRIGGERS_MAX} triggers, which is the most; remove one first");
            return Err(EdgeError::new(ErrorKind::TooLarge, why));
        }
        let paused = self.pause(one, &trigger.id, before.clone()).await;
        if before.is_none() {
            // One of the same id was removed, and a crash kept its place in the log: a new one begins now.
            log.remove_durable(&subscription_of(&trigger.id)).await?;
        }
        log.put_durable(&subscription_of(&trigger.id), trigger.filters.clone(), Vec::new(), Timestamp::now()).await?;
        let (key, value) = (trigger.id.to_string(), stored::to_value(&trigger)?);
        self.edit(paused, Some(Arc::new(trigger)), move |draft| draft.set(&key, &value)).await?;
        Ok(before.is_none())
    }

    pub(super) async fn remove(&self, log: &TopicLog, id: &TriggerId, expected: &Expected) -> Result<bool, EdgeError> {
        let one = Arc::clone(&self.changing).lock_owned().await;
        let before = self.wanted.borrow().get(id).cloned();
        expected.check(id, before.as_deref())?;
        // One that could not be read is there as well.
        if before.is_none() && !self.document_keys().await?.contains(id.as_str()) {
            return Ok(false);
        }
        let paused = self.pause(one, id, before).await;
        let key = id.to_string();
        let _one = self.edit(paused, None, move |draft| draft.remove(&key)).await?;
        self.standings.lock().remove(id);
        log.remove_durable(&subscription_of(id)).await?;
        Ok(true)
    }

    /// Changes the document, and has the trigger go on as it is there. Once begun it is done whole, whether its caller waits or not.
    async fn edit(
        &self,
        paused: Paused,
        next: Option<Arc<Trigger>>,
        edit: impl FnOnce(&mut Draft<'_, '_>) -> Result<(), EdgeError> + Send + 'static,
    ) -> Result<Arc<OwnedMutexGuard<()>>, EdgeError> {
        let document = self.document.clone();
        blocking(move || {
            document.edit(Precondition::None, edit)?;
            Ok(paused.goes_on_as(next))
        })
        .await
    }

    /// Has nobody deliver for a trigger. It goes on as it was when what is returned is dropped.
    async fn pause(&self, one: OwnedMutexGuard<()>, id: &TriggerId, before: Option<Arc<Trigger>>) -> Paused {
        let paused = Paused { wanted: Arc::clone(&self.wanted), id: id.clone(), next: before, one: Arc::new(one) };
        paused.set(None);
        let mut active = self.active.subscribe();
        active.wait_for(|active| !active.contains(id)).await.expect("it lives as long as its owner");
        paused
    }

    pub(super) async fn views(&self, log: &TopicLog) -> Result<Vec<TriggerView>, EdgeError> {
        // No one is being changed meanwhile.
        let _one = self.changing.lock().await;
        let known = Arc::clone(&self.wanted.borrow());
        let mut views = Vec::new();
        for (id, trigger) in known.iter() {
            // One whose log was removed begins anew.
            let acknowledged = log.durable(&subscription_of(id)).await?.map_or(0, |durable| durable.acknowledged);
            let standing = self.standing(id);
            let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
            views.push(TriggerView {
                trigger: Trigger::clone(trigger),
                tag: tag_of(trigger),
                acknowledged,
                behind: log.state().head.saturating_sub(acknowledged),
                delivered: get(&standing.counts.delivered),
                retried: get(&standing.counts.retried),
                dead: get(&standing.counts.dead),
                dead_dropped: get(&standing.counts.dead_dropped),
                lost: get(&standing.counts.lost),
                dropped: get(&standing.counts.dropped),
                waiting: get(&standing.waiting),
                failure: standing.failure.lock().clone(),
            });
        }
        Ok(views)
    }

    /// Removes what triggers that are gone have left in the log, as those do that a crash kept from it.
    pub(super) async fn remove_orphans(&self, log: &TopicLog) -> Result<(), EdgeError> {
        let _one = self.changing.lock().await;
        let known = self.document_keys().await?;
        let mut after = String::new();
        loop {
            let page = log.durables(SUBSCRIPTION_PREFIX, &after).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(&last.name);
            for durable in page {
                let id = durable.name.strip_prefix(SUBSCRIPTION_PREFIX).unwrap_or_default();
                if !known.contains(id) {
                    log.remove_durable(&durable.name).await?;
                }
            }
        }
    }

    /// Of all that the document holds, those included that this release cannot read.
    async fn document_keys(&self) -> Result<BTreeSet<String>, EdgeError> {
        let document = self.document.clone();
        let state = blocking(move || document.view()).await?;
        Ok(state.map(|state| state.data.0.into_keys().collect()).unwrap_or_default())
    }
}

/// A trigger that nobody delivers for.
struct Paused {
    wanted: Arc<watch::Sender<Arc<Known>>>,
    id: TriggerId,
    next: Option<Arc<Trigger>>,
    /// Held until the trigger goes on.
    one: Arc<OwnedMutexGuard<()>>,
}

impl Paused {
    fn goes_on_as(mut self, trigger: Option<Arc<Trigger>>) -> Arc<OwnedMutexGuard<()>> {
        self.next = trigger;
        Arc::clone(&self.one)
    }

    fn set(&self, trigger: Option<Arc<Trigger>>) {
        self.wanted.send_modify(|wanted| {
            let wanted = Arc::make_mut(wanted);
            match trigger {
                Some(trigger) => drop(wanted.insert(self.id.clone(), trigger)),
                None => drop(wanted.remove(&self.id)),
            }
        });
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        let next = self.next.take();
        self.set(next);
    }
}
