//! Deployments, revisions and rollouts as keys of the document `edgeward.hub.deployments`: `deployment/ID`, `revision/ID/NUMBER`, and of earlier
//! rollouts `rollout/ID/GENERATION`.
//!
//! A revision never changes. Those that a deployment or its rollout names are kept, of the others the newest.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use edgeward_cluster::rollout::{Phase, Rollout};
use edgeward_model::{
    Digest, DocumentName, EdgeError, EdgeFunction, ErrorKind, FunctionId, NodeId, Strategy, Target,
    limits::{DEPLOYMENTS_MAX, REVISIONS_MAX, ROLLOUTS_KEPT_MAX},
};
use edgeward_sync::{Document, Documents, Draft, Precondition};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::DeploymentSpec;
use crate::stored::{of_value, to_value};

const DOCUMENT: &str = "edgeward.hub.deployments";
const DEPLOYMENT: &str = "deployment/";
const REVISION: &str = "revision/";
const ROLLOUT: &str = "rollout/";

/// What should run where, in which revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deployment {
    /// The function, which names it.
    pub function: FunctionId,
    /// Grows with each change of what is wanted.
    pub generation: u64,
    /// The generation that was taken up last: its rollout has begun, or nothing had to be rolled out.
    pub observed_generation: u64,
    /// The revision that is wanted.
    pub revision: u64,
    /// Where.
    pub target: Target,
    /// How it gets there.
    pub strategy: Strategy,
    /// When what is wanted last changed.
    pub updated_at: Timestamp,
    /// Nodes that are to be left for others, as somebody rebalanced the fleet.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub leaving: BTreeSet<NodeId>,
    /// Why fewer nodes have it than there are to be; empty when there are enough.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub missing: String,
    /// Whether its generation goes to all nodes at once: somebody went back to a former revision.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_once: bool,
    /// Whether it is being removed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// The rollout that is on its way, or was the last.
    pub rollout: Rollout,
}

impl Deployment {
    /// How its present rollout gets to its nodes.
    pub(crate) fn rollout_strategy(&self) -> Cow<'_, Strategy> {
        if self.rollout.at_once { Cow::Owned(self.strategy.at_once()) } else { Cow::Borrowed(&self.strategy) }
    }

    /// Whether its revision runs, or is on its way; not when its rollout went back, or is going back.
    fn is_under_way_or_done(&self) -> bool {
        let rollout = &self.rollout;
        let is_waiting = self.generation != self.observed_generation;
        let is_under_way = !rollout.state.is_over() && rollout.phase != Phase::Restoring;
        is_waiting || is_under_way || rollout.keeps(self.revision)
    }
}

/// A function as it was deployed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number, from 1 on for each function.
    pub revision: u64,
    /// When it was first deployed.
    pub created_at: Timestamp,
    /// The function.
    pub function: EdgeFunction,
}

/// What somebody wants deployed, and how that is meant.
pub(crate) struct Wish {
    pub(crate) spec: DeploymentSpec,
    /// The generation that it takes the place of, where that matters; 0 only creates.
    pub(crate) generation: Option<u64>,
    /// What nodes had of the function by themselves, each once. A new deployment has these as revisions.
    pub(crate) adopted: Vec<EdgeFunction>,
    /// Whether it is to go to all nodes at once, this time.
    pub(crate) at_once: bool,
}

/// The document. Changing it blocks until it is on the disk.
#[derive(Clone, Debug)]
pub(crate) struct Deployments {
    document: Document,
}

impl Deployments {
    pub(crate) fn new(documents: &Documents) -> Result<Self, EdgeError> {
        Ok(Self { document: documents.document(DocumentName::new(DOCUMENT)?) })
    }

    /// Every deployment that can be read, those that are being removed too. One that cannot, as of a newer release, does not keep the others.
    pub(crate) fn all(&self) -> Result<BTreeMap<FunctionId, Deployment>, EdgeError> {
        let deployments = self.document.entries(DEPLOYMENT)?.into_iter().filter_map(|(key, value)| {
            let id = key.strip_prefix(DEPLOYMENT)?;
            Some((FunctionId::new(id).ok()?, readable(read_deployment(id, &value))?))
        });
        Ok(deployments.collect())
    }

    /// Whether there is a deployment of this function that cannot be read.
    pub(crate) fn is_unreadable(&self, id: &FunctionId) -> Result<bool, EdgeError> {
        let value = self.document.get(&format!("{DEPLOYMENT}{id}"))?;
        Ok(value.is_some_and(|value| read_deployment(id.as_str(), &value).is_err()))
    }

    /// One deployment, one that is being removed too.
    pub(crate) fn get(&self, id: &FunctionId) -> Result<Option<Deployment>, EdgeError> {
        self.document.get(&format!("{DEPLOYMENT}{id}"))?.map(|value| read_deployment(id.as_str(), &value)).transpose()
    }

    /// One deployment, or that there is none.
    pub(crate) fn find(&self, id: &FunctionId) -> Result<Deployment, EdgeError> {
        self.get(id)?.filter(|deployment| !deployment.deleted).ok_or_else(|| {
            EdgeError::new(ErrorKind::NotFound, format!("deployment not found: `{id}`; `edgeward deployments list` shows them"))
        })
    }

    /// The deployment whose present rollout has this id, or whose function.
    pub(crate) fn by_rollout(&self, id: &str) -> Result<Option<Deployment>, EdgeError> {
        let (function, generation) = id.split_once(':').map_or((id, None), |(function, generation)| (function, Some(generation)));
        let Ok(function) = FunctionId::new(function) else { return Ok(None) };
        let is_meant = |deployment: &Deployment| !deployment.deleted && (generation.is_none() || deployment.rollout.id() == id);
        Ok(self.get(&function)?.filter(is_meant))
    }

    /// The revisions of a function, by number.
    pub(crate) fn revisions(&self, id: &FunctionId) -> Result<Vec<Revision>, EdgeError> {
        let own = self.document.entries(&format!("{REVISION}{id}/"))?;
        let mut revisions: Vec<Revision> = own.iter().map(|(key, value)| of_value(value, || key.clone())).collect::<Result<_, _>>()?;
        revisions.sort_by_key(|revision| revision.revision);
        Ok(revisions)
    }

    /// One revision.
    pub(crate) fn revision(&self, id: &FunctionId, revision: u64) -> Result<Revision, EdgeError> {
        let key = format!("{REVISION}{id}/{revision}");
        let value = self.document.get(&key)?.ok_or_else(|| {
            let message =
                format!("revision {revision} of function `{id}` is not kept; `edgeward deployments show {id}` lists those that are");
            EdgeError::new(ErrorKind::NotFound, message)
        })?;
        of_value(&value, || key)
    }

    /// Every rollout that is kept and can be read, the newest of each function first.
    pub(crate) fn rollouts(&self) -> Result<Vec<Rollout>, EdgeError> {
        let mut rollouts: Vec<Rollout> = self.all()?.into_values().map(|deployment| deployment.rollout).collect();
        rollouts.extend(self.document.entries(ROLLOUT)?.iter().filter_map(|(key, value)| readable(of_value(value, || key.clone()))));
        rollouts.sort_by(|left: &Rollout, right| left.function.cmp(&right.function).then(right.generation.cmp(&left.generation)));
        Ok(rollouts)
    }

    /// The artifacts of every revision that is kept.
    pub(crate) fn artifacts(&self) -> Result<BTreeSet<Digest>, EdgeError> {
        let artifacts = self.document.entries(REVISION)?.into_iter().map(|(key, value)| {
            let revision: Revision = of_value(&value, || key)?;
            Ok(revision.function.handler.artifact())
        });
        artifacts.filter_map(Result::transpose).collect()
    }

    /// The version of the document.
    pub(crate) fn version(&self) -> Result<u64, EdgeError> {
        Ok(self.document.info()?.map_or(0, |info| info.version))
    }

    /// Wants this deployed; returns the deployment when that is news: when it is another, or was and went back.
    pub(crate) fn apply(&self, wish: Wish, now: Timestamp) -> Result<Option<Deployment>, EdgeError> {
        let Wish { spec, generation, adopted, at_once } = wish;
        let next = self.version()? + 1;
        let edited = self.document.edit(Precondition::None, move |draft| {
            let mut writing = Writing { draft, id: spec.function.id.clone() };
            let known = writing.deployment()?;
            let present = known.as_ref().filter(|known| !known.deleted);
            check(&writing.id, generation, present.map(|known| known.generation))?;
            if known.is_none() && writing.count(DEPLOYMENT)? >= DEPLOYMENTS_MAX {
                let message = format!("this fleet has {DEPLOYMENTS_MAX} deployments, which is the most; remove one first");
                return Err(EdgeError::new(ErrorKind::TooLarge, message));
            }
            let adopted = if known.is_none() { adopted } else { Vec::new() };
            let adopted: Vec<_> = adopted.into_iter().map(|function| writing.put_revision(function, now)).collect::<Result<_, _>>()?;
            let revision = writing.put_revision(spec.function, now)?;
            let deployment = match known {
                Some(known)
                    if !known.deleted
                        && known.is_under_way_or_done()
                        && (known.revision, &known.target, &known.strategy) == (revision, &spec.target, &spec.strategy) =>
                {
                    return Ok(None);
                }
                Some(known) => Deployment {
                    generation: next.max(known.generation + 1),
                    revision,
                    target: spec.target,
                    strategy: spec.strategy,
                    updated_at: now,
                    leaving: BTreeSet::new(),
                    at_once,
                    deleted: false,
                    ..known
                },
                None => Deployment {
                    function: writing.id.clone(),
                    generation: next,
                    observed_generation: next,
                    revision,
                    target: spec.target,
                    strategy: spec.strategy,
                    updated_at: now,
                    leaving: BTreeSet::new(),
                    missing: String::new(),
                    at_once: false,
                    deleted: false,
                    rollout: Rollout::new(writing.id.clone(), next, former_of(&adopted, revision), revision, now),
                },
            };
            writing.put(&deployment)?;
            writing.prune(&deployment)?;
            Ok(Some(deployment))
        });
        edited.map(|edited| edited.result)
    }

    /// Changes a deployment, when it is there; an error of `change` changes nothing.
    pub(crate) fn change<T: Send + 'static>(
        &self,
        id: &FunctionId,
        change: impl FnOnce(&mut Deployment) -> Result<T, EdgeError> + Send + 'static,
    ) -> Result<Option<(Deployment, T)>, EdgeError> {
        let id = id.clone();
        let edited = self.document.edit(Precondition::None, move |draft| {
            let mut writing = Writing { draft, id };
            let Some(mut deployment) = writing.deployment()? else { return Ok(None) };
            let result = change(&mut deployment)?;
            writing.put(&deployment)?;
            Ok(Some((deployment, result)))
        });
        edited.map(|edited| edited.result)
    }

    /// Changes the present rollout of a function.
    pub(crate) fn change_rollout(
        &self,
        id: &FunctionId,
        change: impl FnOnce(&mut Rollout) -> Result<(), EdgeError> + Send + 'static,
    ) -> Result<Rollout, EdgeError> {
        let changed = self.change(id, move |deployment| change(&mut deployment.rollout))?;
        let gone = || EdgeError::new(ErrorKind::NotFound, format!("deployment not found: `{id}`"));
        changed.map(|(deployment, ())| deployment.rollout).ok_or_else(gone)
    }

    /// Begins the rollout of the wanted revision, and keeps the former one with those of earlier. Nothing happens when the deployment is not as
    /// it was seen.
    pub(crate) fn begin(&self, seen: &Deployment, rollout: Rollout) -> Result<(), EdgeError> {
        let seen = seen.clone();
        let edited = self.document.edit(Precondition::None, move |draft| {
            let mut writing = Writing { draft, id: seen.function.clone() };
            if writing.deployment()?.as_ref() != Some(&seen) {
                return Ok(());
            }
            writing.keep_rollout(&seen.rollout)?;
            let begun = Deployment { observed_generation: rollout.generation, rollout, ..seen };
            writing.put(&begun)?;
            writing.prune(&begun)
        });
        edited.map(drop)
    }

    /// Marks a deployment as one that is being removed; returns whether there was one.
    pub(crate) fn mark_deleted(&self, id: &FunctionId) -> Result<bool, EdgeError> {
        let marked = self.change(id, |deployment| {
            let is_news = !deployment.deleted;
            if is_news {
                (deployment.deleted, deployment.updated_at) = (true, Timestamp::now());
            }
            Ok(is_news)
        });
        Ok(marked?.is_some_and(|(_, is_news)| is_news))
    }

    /// Forgets a deployment that was removed, or cannot be read, with its revisions and rollouts.
    pub(crate) fn forget(&self, id: &FunctionId) -> Result<(), EdgeError> {
        let id = id.clone();
        let edited = self.document.edit(Precondition::None, move |draft| {
            let writing = Writing { draft, id };
            if writing.deployment().is_ok_and(|deployment| deployment.is_none_or(|deployment| !deployment.deleted)) {
                return Ok(());
            }
            let keys: Vec<_> = [REVISION, ROLLOUT].iter().map(|kind| writing.keys(kind)).collect::<Result<_, _>>()?;
            for key in keys.into_iter().flatten().chain([format!("{DEPLOYMENT}{}", writing.id)]) {
                writing.draft.remove(&key)?;
            }
            Ok(())
        });
        edited.map(drop)
    }
}

/// A change of what belongs to one function.
struct Writing<'d, 'a, 'b> {
    draft: &'d mut Draft<'a, 'b>,
    id: FunctionId,
}

impl Writing<'_, '_, '_> {
    fn deployment(&self) -> Result<Option<Deployment>, EdgeError> {
        let id = &self.id;
        self.draft.get(&format!("{DEPLOYMENT}{id}"))?.map(|value| read_deployment(id.as_str(), &value)).transpose()
    }

    fn put(&mut self, deployment: &Deployment) -> Result<(), EdgeError> {
        self.draft.set(&format!("{DEPLOYMENT}{}", self.id), &to_value(deployment)?)
    }

    fn count(&self, kind: &str) -> Result<usize, EdgeError> {
        Ok(self.all_keys(kind)?.len())
    }

    fn all_keys(&self, prefix: &str) -> Result<Vec<String>, EdgeError> {
        let mut found = Vec::new();
        let mut after = prefix.to_owned();
        loop {
            let keys = self.draft.keys(Some(&after), 500)?;
            let more = keys.len() == 500;
            let own: Vec<_> = keys.into_iter().take_while(|key| key.starts_with(prefix)).collect();
            let Some(last) = own.last().filter(|_| more).cloned() else {
                found.extend(own);
                return Ok(found);
            };
            found.extend(own);
            after = last;
        }
    }

    /// The keys of a kind that belong to this function.
    fn keys(&self, kind: &str) -> Result<Vec<String>, EdgeError> {
        self.all_keys(&format!("{kind}{}/", self.id))
    }

    /// The numbers at the ends of these keys, the smallest first.
    fn numbers(&self, kind: &str) -> Result<Vec<u64>, EdgeError> {
        let keys = self.keys(kind)?;
        let mut numbers: Vec<u64> = keys.iter().filter_map(|key| key.rsplit_once('/')?.1.parse().ok()).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// The number of the revision that is this function; a new one when none is.
    fn put_revision(&mut self, function: EdgeFunction, now: Timestamp) -> Result<u64, EdgeError> {
        let numbers = self.numbers(REVISION)?;
        for number in numbers.iter().rev() {
            let key = format!("{REVISION}{}/{number}", self.id);
            if let Some(value) = self.draft.get(&key)? {
                let known: Revision = of_value(&value, || key)?;
                if known.function == function {
                    return Ok(*number);
                }
            }
        }
        let revision = numbers.last().copied().unwrap_or(0) + 1;
        let value = to_value(&Revision { revision, created_at: now, function })?;
        self.draft.set(&format!("{REVISION}{}/{revision}", self.id), &value)?;
        Ok(revision)
    }

    fn keep_rollout(&mut self, rollout: &Rollout) -> Result<(), EdgeError> {
        self.draft.set(&format!("{ROLLOUT}{}/{}", self.id, rollout.generation), &to_value(rollout)?)
    }

    /// Forgets the oldest of what is kept of earlier.
    fn prune(&mut self, deployment: &Deployment) -> Result<(), EdgeError> {
        let Deployment { revision, rollout, .. } = deployment;
        let is_used = |number: &u64| number == revision || *number == rollout.to || Some(*number) == rollout.from;
        let revisions = self.numbers(REVISION)?;
        let surplus = revisions.len().saturating_sub(REVISIONS_MAX);
        for number in revisions.into_iter().filter(|number| !is_used(number)).take(surplus) {
            self.draft.remove(&format!("{REVISION}{}/{number}", self.id))?;
        }
        let rollouts = self.numbers(ROLLOUT)?;
        let surplus = rollouts.len().saturating_sub(ROLLOUTS_KEPT_MAX);
        for number in rollouts.into_iter().take(surplus) {
            self.draft.remove(&format!("{ROLLOUT}{}/{number}", self.id))?;
        }
        Ok(())
    }
}

/// The former revision of a first deployment, of which nodes had these by themselves. Where they had several each goes back to its own, and there is none
/// for all; but what some had as it is now is taken from nobody.
pub(super) fn former_of(adopted: &[u64], revision: u64) -> Option<u64> {
    if adopted.contains(&revision) {
        return Some(revision);
    }
    if let [one] = adopted { Some(*one) } else { None }
}

fn check(id: &FunctionId, wanted: Option<u64>, found: Option<u64>) -> Result<(), EdgeError> {
    let why = match (wanted, found) {
        (None, _) | (Some(0), None) => return Ok(()),
        (Some(wanted), Some(found)) if wanted == found => return Ok(()),
        (Some(0), Some(found)) => format!("exists already, at generation {found}"),
        (Some(wanted), Some(found)) => format!("is at generation {found}, not {wanted}"),
        (Some(wanted), None) => format!("does not exist, so it is not at generation {wanted}"),
    };
    Err(EdgeError::new(ErrorKind::Conflict, format!("deployment `{id}` {why}; read it again and retry")))
}

fn read_deployment(id: &str, value: &edgeward_model::Value) -> Result<Deployment, EdgeError> {
    of_value(value, || {
        format!("the deployment of function `{id}`; use a newer release, or remove it with `edgeward deployments remove {id}`")
    })
}

/// What could be read.
fn readable<T>(read: Result<T, EdgeError>) -> Option<T> {
    read.inspect_err(|error| tracing::warn!(error = error.chain(), "what is kept of a deployment is passed over")).ok()
}

#[cfg(test)]
mod tests;
