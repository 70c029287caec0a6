//! Who belongs to the fleet: one key for each node in a document of the hub. Silence never removes a node from it; its owner does.

use std::collections::BTreeMap;

use edgeward_model::{
    DocumentName, EdgeError, EdgeNode, ErrorKind, NodeId, Value,
    limits::{CREDENTIALS_TTL_MAX, LABELS_MAX, NODES_MAX},
    node::check_label,
};
use edgeward_sync::{Document, Documents, Precondition};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{hold::Veto, stored};

/// The document of the nodes.
const DOCUMENT: &str = "edgeward.hub.nodes";

/// What is known of a node that belongs to the fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// When it joined.
    pub joined_at: Timestamp,
    /// Its public key; none where the node is reached without one, as in one process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// Keys that it had, with when each was revoked. They are forgotten when no token for them can live.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub revoked_keys: BTreeMap<String, Timestamp>,
    /// Labels that were given to it here; they win over its own.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What its owner wants with it.
    #[serde(default, skip_serializing_if = "Duties::is_default")]
    pub duties: Duties,
    /// When it was removed; a node that is not there any more has no other way back than to join anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_at: Option<Timestamp>,
}

/// What the owner of a fleet wants with a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duties {
    /// Whether functions of which there are to be so many go elsewhere.
    #[serde(default)]
    pub draining: bool,
    /// That it gets no updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub veto: Option<Veto>,
}

impl Duties {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The registrations. Changing them blocks until it is on the disk.
#[derive(Clone, Debug)]
pub(super) struct Registry {
    document: Document,
}

impl Registry {
    pub(super) fn new(documents: &Documents) -> Result<Self, EdgeError> {
        Ok(Self { document: documents.document(DocumentName::new(DOCUMENT)?) })
    }

    /// Every registration, those of removed nodes too.
    pub(super) fn all(&self) -> Result<BTreeMap<NodeId, Registration>, EdgeError> {
        let Some(state) = self.document.view()? else { return Ok(BTreeMap::new()) };
        state.data.0.iter().map(|(key, value)| Ok((NodeId::new(key)?, of_value(key, value)?))).collect()
    }

    /// One registration.
    pub(super) fn get(&self, id: &NodeId) -> Result<Option<Registration>, EdgeError> {
        self.document.get(id.as_str())?.map(|value| of_value(id.as_str(), &value)).transpose()
    }

    /// Adds a node, or lets it in again with another key. Its labels stay.
    pub(super) fn put(&self, id: &NodeId, public_key: Option<String>) -> Result<Registration, EdgeError> {
        let now = Timestamp::now();
        self.change(id, move |known| {
            let (labels, duties, mut revoked_keys) = match known {
                Some(known) => (known.labels.clone(), known.duties.clone(), known.keys_without(public_key.as_ref(), now)),
                None => Default::default(),
            };
            // A key that is in use again is good.
            revoked_keys.retain(|key, _| Some(key) != public_key.as_ref());
            Ok(Registration { joined_at: now, public_key, revoked_keys, labels, duties, removed_at: None })
        })
    }

    /// Notes that a node was removed; returns what was known of it, none when it did not belong to the fleet.
    pub(super) fn remove(&self, id: &NodeId) -> Result<Option<Registration>, EdgeError> {
        let Some(known) = self.get(id)?.filter(|known| known.removed_at.is_none()) else { return Ok(None) };
        let now = Timestamp::now();
        let revoked_keys = known.clone().keys_without(None, now);
        let removed =
            Registration { removed_at: Some(now), labels: BTreeMap::new(), duties: Duties::default(), revoked_keys, ..known.clone() };
        self.change(id, move |_| Ok(removed))?;
        Ok(Some(known))
    }

    /// Sets labels, or with none removes those that were set here.
    pub(super) fn label(&self, id: &NodeId, labels: BTreeMap<String, Option<String>>) -> Result<Registration, EdgeError> {
        let unknown = EdgeError::node_not_found(id.as_str());
        self.change(id, move |known| {
            let mut known = known.filter(|known| known.removed_at.is_none()).ok_or(unknown)?;
            for (name, value) in labels {
                match value {
                    Some(value) => {
                        check_label(&name, &value)?;
                        known.labels.insert(name, value);
                    }
                    None => drop(known.labels.remove(&name)),
                }
            }
            if known.labels.len() > LABELS_MAX {
                return Err(EdgeError::new(ErrorKind::TooLarge, format!("a node has at most {LABELS_MAX} labels")));
            }
            Ok(known)
        })
    }

    /// Changes what its owner wants with a node.
    pub(super) fn set_duties(&self, id: &NodeId, duties: Duties) -> Result<Registration, EdgeError> {
        let unknown = EdgeError::node_not_found(id.as_str());
        self.change(id, move |known| {
            let known = known.filter(|known| known.removed_at.is_none()).ok_or(unknown)?;
            Ok(Registration { duties, ..known })
        })
    }

    fn change(
        &self,
        id: &NodeId,
        change: impl FnOnce(Option<Registration>) -> Result<Registration, EdgeError> + Send + 'static,
    ) -> Result<Registration, EdgeError> {
        let key = id.to_string();
        let edited = self.document.edit(Precondition::None, move |draft| {
            let known = draft.get(&key)?.map(|value| of_value(&key, &value)).transpose()?;
            if known.is_none() && draft.keys(None, NODES_MAX)?.len() >= NODES_MAX {
                return Err(EdgeError::new(ErrorKind::TooLarge, format!("the node `{key}` is one too many, the most is {NODES_MAX}")));
            }
            let registration = change(known)?;
            draft.set(&key, &stored::to_value(&registration)?)?;
            Ok(registration)
        });
        edited.map(|edited| edited.result)
    }
}

impl Registration {
    /// The revoked keys once `kept` is its only one.
    fn keys_without(self, kept: Option<&String>, now: Timestamp) -> BTreeMap<String, Timestamp> {
        let mut revoked = self.revoked_keys;
        if let Some(key) = self.public_key.filter(|key| Some(key) != kept) {
            revoked.insert(key, now);
        }
        // No token that was signed before then is good any more.
        revoked.retain(|_, at| now.duration_since(*at) <= CREDENTIALS_TTL_MAX.try_into().unwrap_or(SignedDuration::MAX));
        revoked
    }

    /// The node as it is shown: as it describes itself, with the labels that were given to it here.
    pub(super) fn shown(&self, mut node: EdgeNode) -> EdgeNode {
        node.labels.extend(self.labels.clone());
        node
    }
}

fn of_value(key: &str, value: &Value) -> Result<Registration, EdgeError> {
    stored::of_value(value, || format!("the registration of node `{key}`"))
}
