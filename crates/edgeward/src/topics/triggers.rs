//! The triggers of a node: a document of its own with one key for each, those that its hub gives to it, and how each does.
//!
//! A trigger reads the log under the durable subscription `trigger:ID`. Its filters change only while nobody delivers for it: who reads by
//! the old ones would acknowledge what only the new ones match.

mod left;
mod standing;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use edgeward_model::{DocumentName, EdgeError, ErrorKind, NodeId, Trigger, TriggerId, limits::TRIGGERS_MAX};
use edgeward_runtime::blocking;
use edgeward_sync::{Document, Documents, Draft, Precondition, policy::LOCAL_PREFIX};
use edgeward_telemetry::Distribution;
use edgeward_topics::{DeadLetter, TopicLog};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{OwnedMutexGuard, broadcast, watch};

pub(crate) use self::left::Left;
use self::left::LeftBehind;
pub(super) use self::standing::Standing;
pub use self::standing::TriggerView;
use crate::{
    allotments::{given, record::Records},
    node::Source,
    stored,
};

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

/// The triggers that are wanted, and by whom.
#[derive(Debug)]
struct Kept {
    own: Known,
    given: Records<Trigger>,
}

impl Kept {
    /// What is to run under an id, and who wants it. Of two of one id the hub's runs.
    fn find(&self, id: &TriggerId) -> Option<(Arc<Trigger>, Source)> {
        let given = self.given.get(id).map(|record| (Arc::new(record.wanted.clone()), Source::Fleet));
        given.or_else(|| self.own.get(id).map(|trigger| (Arc::clone(trigger), Source::Node)))
    }

    /// All that is to run.
    fn all(&self) -> Known {
        self.own.keys().chain(self.given.keys()).filter_map(|id| Some((id.clone(), self.find(id)?.0))).collect()
    }
}

/// The triggers, kept in memory as well.
#[derive(Debug)]
pub(super) struct Triggers {
    document: Document,
    /// What the hub wants here.
    given: Document,
    /// Those that are to run: without one that is being changed.
    pub(super) wanted: Arc<watch::Sender<Arc<Known>>>,
    /// Those that are delivered for.
    pub(super) active: watch::Sender<BTreeSet<TriggerId>>,
    standings: Mutex<HashMap<TriggerId, Arc<Standing>>>,
    left: LeftBehind,
    /// Held while one is changed.
    kept: Arc<tokio::sync::Mutex<Kept>>,
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
    pub(super) fn open(documents: &Documents, node: &NodeId) -> Result<Self, EdgeError> {
        let document = documents.document(DocumentName::new(format!("{LOCAL_PREFIX}triggers"))?);
        let mut own = Known::new();
        for (key, value) in document.view()?.map(|state| state.data.0).unwrap_or_default() {
            let read = stored::of_value::<Trigger>(&value, || format!("trigger `{}`", key.escape_debug()));
            match read.and_then(|trigger| trigger.validate().map(|()| trigger)) {
                Ok(trigger) => drop(own.insert(trigger.id.clone(), Arc::new(trigger))),
                // The others run, and what it has not handled stays in the log.
                Err(error) => tracing::warn!(trigger = key, error = error.chain(), "a trigger could not be read"),
            }
        }
        let given = given::document::<Trigger>(documents, node)?;
        let kept = Kept { own, given: given::read(&given, &Records::<Trigger>::new())? };
        Ok(Self {
            document,
            given,
            wanted: Arc::new(watch::Sender::new(Arc::new(kept.all()))),
            active: watch::Sender::default(),
            standings: Mutex::default(),
            left: LeftBehind::default(),
            kept: Arc::new(tokio::sync::Mutex::new(kept)),
            running: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn standing(&self, id: &TriggerId) -> Arc<Standing> {
        Arc::clone(self.standings.lock().entry(id.clone()).or_default())
    }

    /// Messages that those have left which the hub took.
    pub(super) fn left_messages(&self) -> u64 {
        self.left.messages()
    }

    /// What those leave that the hub takes from now on.
    pub(super) fn left(&self) -> broadcast::Receiver<Left> {
        self.left.news()
    }

    /// How long the attempts of each took.
    pub(super) fn attempts(&self) -> Vec<(TriggerId, Distribution)> {
        let known = Arc::clone(&self.wanted.borrow());
        known.keys().map(|id| (id.clone(), self.standing(id).attempts())).collect()
    }

    pub(super) async fn put(&self, log: &TopicLog, trigger: Trigger, expected: &Expected) -> Result<bool, EdgeError> {
        trigger.validate()?;
        let kept = Arc::clone(&self.kept).lock_owned().await;
        given::check_own::<Trigger>(&kept.given, trigger.id.as_str())?;
        let before = kept.own.get(&trigger.id);
        expected.check(&trigger.id, before.map(AsRef::as_ref))?;
        if before.map(AsRef::as_ref) == Some(&trigger) {
            return Ok(false);
        }
        let is_new = before.is_none();
        if is_new && kept.own.len() >= TRIGGERS_MAX {
            let why = format!("there are {TRIGGERS_MAX} triggers, which is the most; remove one first");
            return Err(EdgeError::new(ErrorKind::TooLarge, why));
        }
        let paused = self.pause(kept, &trigger.id).await;
        // One of the same id was removed, and a crash kept its place in the log: a new one begins now.
        place(log, &trigger, is_new).await?;
        let (key, value) = (trigger.id.to_string(), stored::to_value(&trigger)?);
        let keep = |own: &mut Known| drop(own.insert(trigger.id.clone(), Arc::new(trigger)));
        self.edit(paused, keep, move |draft| draft.set(&key, &value)).await?;
        Ok(is_new)
    }

    pub(super) async fn remove(&self, log: &TopicLog, id: &TriggerId, expected: &Expected) -> Result<bool, EdgeError> {
        let kept = Arc::clone(&self.kept).lock_owned().await;
        given::check_own::<Trigger>(&kept.given, id.as_str())?;
        let before = kept.own.get(id);
        expected.check(id, before.map(AsRef::as_ref))?;
        // One that could not be read is there as well.
        if before.is_none() && !keys(&self.document).await?.contains(id.as_str()) {
            return Ok(false);
        }
        let paused = self.pause(kept, id).await;
        let (key, gone) = (id.to_string(), id.clone());
        let keep = move |own: &mut Known| drop(own.remove(&gone));
        let _paused = self.edit(paused, keep, move |draft| draft.remove(&key)).await?;
        self.forget(log, id).await?;
        Ok(true)
    }

    /// Takes what the hub wants here now, and whenever it changes, for ever.
    pub(super) async fn follow_given(&self, log: &TopicLog) {
        given::follow::<Trigger, _>(&self.given, || self.take_given(log)).await;
    }

    /// Takes what the hub wants here. How far a trigger got belongs to its name, also when the hub's takes the place of the node's own; one that was removed
    /// and made anew meanwhile begins now.
    async fn take_given(&self, log: &TopicLog) -> Result<(), EdgeError> {
        let (document, before) = (self.given.clone(), self.kept.lock().await.given.clone());
        let (given, before) = blocking(move || Ok::<_, EdgeError>((given::read(&document, &before)?, before))).await?;
        for id in before.keys().chain(given.keys()).collect::<BTreeSet<_>>() {
            let (was, next) = (before.get(id), given.get(id));
            if was == next {
                continue;
            }
            let kept = Arc::clone(&self.kept).lock_owned().await;
            let runs_already = kept.find(id).is_some();
            let mut paused = self.pause(kept, id).await;
            let is_another = was.zip(next).is_some_and(|(was, next)| was.since != next.since);
            let runs_then = next.map(|record| &record.wanted).or(paused.kept.own.get(id).map(AsRef::as_ref));
            let left = if is_another || runs_then.is_none() { left::count(log, id).await } else { 0 };
            match runs_then {
                Some(trigger) => place(log, trigger, is_another || !runs_already).await?,
                None => self.forget(log, id).await?,
            }
            match next {
                Some(record) => drop(paused.kept.given.insert(id.clone(), Arc::clone(record))),
                None => drop(paused.kept.given.remove(id)),
            }
            self.left.note(id, left);
        }
        Ok(())
    }

    /// Changes the document and what is kept of it. Once begun it is done whole, whether its caller waits or not.
    async fn edit(
        &self,
        mut paused: Paused,
        keep: impl FnOnce(&mut Known) + Send + 'static,
        edit: impl FnOnce(&mut Draft<'_, '_>) -> Result<(), EdgeError> + Send + 'static,
    ) -> Result<Paused, EdgeError> {
        let document = self.document.clone();
        blocking(move || {
            document.edit(Precondition::None, edit)?;
            keep(&mut paused.kept.own);
            Ok(paused)
        })
        .await
    }

    /// Forgets how far a trigger got that is gone, and what it did.
    async fn forget(&self, log: &TopicLog, id: &TriggerId) -> Result<(), EdgeError> {
        self.standings.lock().remove(id);
        log.remove_durable(&subscription_of(id)).await?;
        Ok(())
    }

    /// Has nobody deliver for a trigger. When what is returned is dropped, that goes on which is kept then.
    async fn pause(&self, kept: OwnedMutexGuard<Kept>, id: &TriggerId) -> Paused {
        let paused = Paused { wanted: Arc::clone(&self.wanted), id: id.clone(), kept };
        paused.set(None);
        let mut active = self.active.subscribe();
        active.wait_for(|active| !active.contains(id)).await.expect("it lives as long as its owner");
        paused
    }

    pub(super) async fn views(&self, log: &TopicLog) -> Result<Vec<TriggerView>, EdgeError> {
        // No one is being changed meanwhile.
        let kept = self.kept.lock().await;
        let mut views = Vec::new();
        for (id, trigger) in kept.all() {
            let source = if kept.given.contains_key(&id) { Source::Fleet } else { Source::Node };
            views.push(view(log, &trigger, source, &self.standing(&id)).await?);
        }
        Ok(views)
    }

    /// Removes what triggers that are gone have left in the log, as those do that a crash kept from it.
    pub(super) async fn remove_orphans(&self, log: &TopicLog) -> Result<(), EdgeError> {
        let _one = self.kept.lock().await;
        let (own, given) = (keys(&self.document).await?, keys(&self.given).await?);
        let mut after = String::new();
        loop {
            let page = log.durables(SUBSCRIPTION_PREFIX, &after).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after.clone_from(&last.name);
            for durable in page {
                let id = durable.name.strip_prefix(SUBSCRIPTION_PREFIX).unwrap_or_default();
                if !own.contains(id) && !given.contains(id) {
                    log.remove_durable(&durable.name).await?;
                }
            }
        }
    }
}

/// How a trigger does.
pub(super) async fn view(log: &TopicLog, trigger: &Trigger, source: Source, standing: &Standing) -> Result<TriggerView, EdgeError> {
    // One whose log was removed begins anew.
    let acknowledged = log.durable(&subscription_of(&trigger.id)).await?.map_or(0, |durable| durable.acknowledged);
    let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
    Ok(TriggerView {
        source,
        tag: tag_of(trigger),
        trigger: trigger.clone(),
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
    })
}

/// Of all that a document holds, those included that this release cannot read.
async fn keys(document: &Document) -> Result<BTreeSet<String>, EdgeError> {
    let document = document.clone();
    let entries = blocking(move || document.entries("")).await?;
    Ok(entries.into_iter().map(|(key, _)| key).collect())
}

/// Has a trigger its place in the log: a new one the end of it, another the one that it got to.
async fn place(log: &TopicLog, trigger: &Trigger, is_new: bool) -> Result<(), EdgeError> {
    let subscription = subscription_of(&trigger.id);
    if is_new {
        log.remove_durable(&subscription).await?;
    }
    log.put_durable(&subscription, trigger.filters.clone(), Vec::new(), Timestamp::now()).await?;
    Ok(())
}

/// A trigger that nobody delivers for.
struct Paused {
    wanted: Arc<watch::Sender<Arc<Known>>>,
    id: TriggerId,
    /// Held until the trigger goes on.
    kept: OwnedMutexGuard<Kept>,
}

impl Paused {
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
        self.set(self.kept.find(&self.id).map(|(trigger, _)| trigger));
    }
}
