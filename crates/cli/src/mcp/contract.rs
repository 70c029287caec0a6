//! The four tools that every server of this product's specification has: their names, parameters and results are fixed.

use std::collections::BTreeMap;

use edgeward::{DocumentName, EdgeNodeStatus, ErrorKind, FunctionId, NodeId};
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Map, Value, json};

use super::{
    documents::DocumentState,
    functions::{assign, handler_of, targets},
    session::{Place, Session, ToolError},
    tool::{EdgeTool, Effect},
};
use crate::client::{Functions, NodeRecord, Nodes, Request};

/// Begins the names of the documents of `edge_sync`.
const SYNC_DOCUMENT: &str = "edge-sync";
/// MD5 of `{}`: the checksum of nothing.
const EMPTY_CHECKSUM: &str = "99914b932bd37a50b983c5e7c90ae93b";

/// Status of a node.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// It reports and serves.
    Online,
    /// It has not reported for too long.
    Offline,
    /// It reports, but something is wrong with it.
    Degraded,
    /// It catches up after it was away.
    Syncing,
}

impl From<EdgeNodeStatus> for Status {
    fn from(status: EdgeNodeStatus) -> Self {
        match status {
            EdgeNodeStatus::Online => Self::Online,
            EdgeNodeStatus::Offline => Self::Offline,
            EdgeNodeStatus::Degraded => Self::Degraded,
            EdgeNodeStatus::Syncing => Self::Syncing,
        }
    }
}

/// Every node, or the one of this id, if there is one.
pub(super) async fn nodes(session: &Session<'_>, id: Option<&str>) -> Result<Vec<edgeward::EdgeNode>, ToolError> {
    Ok(match session.place().await? {
        Place::Node(node) => Some(*node).into_iter().filter(|node| id.is_none_or(|id| node.id.as_str() == id)).collect(),
        Place::Hub => fleet_nodes(session, id).await?,
    })
}

/// The same of a hub.
pub(super) async fn fleet_nodes(session: &Session<'_>, id: Option<&str>) -> Result<Vec<edgeward::EdgeNode>, ToolError> {
    let records = match id.map(NodeId::new) {
        None => session.read::<Nodes>("/v1/nodes").await?.nodes,
        Some(Ok(id)) => session.find::<NodeRecord>(format!("/v1/nodes/{id}")).await?.into_iter().collect(),
        // What is no id names no node.
        Some(Err(_)) => Vec::new(),
    };
    Ok(records.into_iter().map(|record| record.node).collect())
}

/// Parameters of `edge_deploy_function`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeployFunction {
    /// The function's id. One that is there already is replaced.
    function_id: String,
    /// Its name, and which code it is: the digest of an uploaded artifact (`sha256:…`) names that; else the code of a function of this id
    /// stays, if one is known; else it is the name or id of a function that is known, or of a handler that is registered in the process.
    function_name: String,
    /// Only on this node; left out: on every node.
    #[serde(default)]
    node_id: Option<String>,
    /// Memory of one invocation, in MiB.
    #[serde(default = "memory_mb_default")]
    memory_mb: u32,
    /// Deadline of one invocation, in seconds.
    #[serde(default = "timeout_seconds_default")]
    timeout_seconds: u32,
    /// Environment variables.
    #[serde(default)]
    environment: BTreeMap<String, String>,
}

fn memory_mb_default() -> u32 {
    edgeward::limits::MEMORY_MB_DEFAULT
}

fn timeout_seconds_default() -> u32 {
    30
}

/// Result of `edge_deploy_function`.
#[derive(Debug, Serialize, JsonSchema)]
#[expect(clippy::struct_field_names, reason = "they are the contract's")]
pub(super) struct Deployed {
    /// `deployed`.
    pub(super) status: &'static str,
    /// The function.
    pub(super) function_id: String,
    /// The nodes it was deployed to. One that is away takes it when it is back.
    pub(super) deployed_to: Vec<String>,
    /// How many they are.
    pub(super) deploy_count: usize,
}

impl EdgeTool for DeployFunction {
    const NAME: &'static str = "edge_deploy_function";
    const TITLE: &'static str = "Deploy a function";
    const ABOUT: &'static str = "Puts a function on one node or on all. It deploys by reference: the code must be known already, from an \
        earlier deployment, an uploaded artifact, or a handler of the process. An id that is there already is replaced.";
    const EFFECT: Effect = Effect::Replaces;
    type Output = Deployed;

    async fn run(self, session: &Session<'_>) -> Result<Deployed, ToolError> {
        let id = FunctionId::new(&self.function_id)?;
        let node = self.node_id.as_deref();
        let targets = targets(session, node).await?;
        let mut function = handler_of(session, &id, &self.function_name, (node, &targets)).await?;
        let named = json!({
            "name": self.function_name,
            "memory_mb": self.memory_mb,
            "timeout_seconds": self.timeout_seconds,
            "environment": self.environment,
        });
        function.extend(named.as_object().cloned().unwrap_or_default());
        assign(session, &id, (node, targets), function).await
    }
}

/// Parameters of `edge_node_status`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NodeStatus {
    /// Only this node; left out: every node.
    #[serde(default)]
    node_id: Option<String>,
    /// Tell the functions of each node, too.
    #[serde(default)]
    include_functions: bool,
}

/// Result of `edge_node_status`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Statuses {
    nodes: Vec<NodeHealth>,
    /// How many nodes are told.
    total_nodes: usize,
    /// How many of them are online.
    online_count: usize,
}

/// A node and its health.
#[derive(Debug, Serialize, JsonSchema)]
struct NodeHealth {
    id: String,
    name: String,
    status: Status,
    /// Where it stands, for people.
    location: String,
    /// When it last reported, RFC 3339 in UTC.
    last_heartbeat: String,
    /// What it can do.
    capabilities: Vec<String>,
    /// Its functions, when they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    functions: Option<Vec<FunctionName>>,
}

/// A function by its names.
#[derive(Debug, Serialize, JsonSchema)]
struct FunctionName {
    id: String,
    name: String,
}

impl EdgeTool for NodeStatus {
    const NAME: &'static str = "edge_node_status";
    const TITLE: &'static str = "Status of nodes";
    const ABOUT: &'static str = "Tells the health of one node or of all: status, last heartbeat, capabilities and, when asked, functions. \
        An unknown node gives an empty list.";
    const EFFECT: Effect = Effect::Reads;
    type Output = Statuses;

    async fn run(self, session: &Session<'_>) -> Result<Statuses, ToolError> {
        let found = nodes(session, self.node_id.as_deref()).await?;
        let mut functions: BTreeMap<String, Vec<FunctionName>> = BTreeMap::new();
        if self.include_functions && !found.is_empty() {
            let only = self.node_id.as_ref().map_or_else(String::new, |_| format!("?node={}", found[0].id));
            for record in session.read::<Functions>(format!("/v1/functions{only}")).await?.functions {
                // A node tells of itself only.
                let node = record.node.map_or_else(|| found[0].id.to_string(), |node| node.to_string());
                functions.entry(node).or_default().push(FunctionName { id: record.id.to_string(), name: record.name });
            }
        }
        let nodes: Vec<_> = found
            .into_iter()
            .map(|node| NodeHealth {
                functions: self.include_functions.then(|| functions.remove(node.id.as_str()).unwrap_or_default()),
                id: node.id.to_string(),
                name: node.name,
                status: node.status.into(),
                location: node.location,
                last_heartbeat: node.last_heartbeat.to_string(),
                capabilities: node.capabilities,
            })
            .collect();
        let online_count = nodes.iter().filter(|node| matches!(node.status, Status::Online)).count();
        Ok(Statuses { total_nodes: nodes.len(), online_count, nodes })
    }
}

/// Parameters of `edge_list_nodes`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListNodes {
    /// Only nodes of this status.
    #[serde(default)]
    status_filter: Option<Status>,
}

/// Result of `edge_list_nodes`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Inventory {
    nodes: Vec<NodeEntry>,
    /// How many they are.
    total: usize,
}

/// A node of the inventory.
#[derive(Debug, Serialize, JsonSchema)]
struct NodeEntry {
    id: String,
    name: String,
    status: Status,
    /// Where it stands, for people.
    location: String,
}

impl EdgeTool for ListNodes {
    const NAME: &'static str = "edge_list_nodes";
    const TITLE: &'static str = "Nodes";
    const ABOUT: &'static str = "Lists the nodes, all or those of one status, with their names and where they stand.";
    const EFFECT: Effect = Effect::Reads;
    type Output = Inventory;

    async fn run(self, session: &Session<'_>) -> Result<Inventory, ToolError> {
        let is_wanted =
            |status: Status| self.status_filter.is_none_or(|wanted| std::mem::discriminant(&wanted) == std::mem::discriminant(&status));
        let entry = |node: edgeward::EdgeNode| NodeEntry {
            id: node.id.to_string(),
            name: node.name,
            status: node.status.into(),
            location: node.location,
        };
        let nodes: Vec<_> = nodes(session, None).await?.into_iter().map(entry).filter(|node| is_wanted(node.status)).collect();
        Ok(Inventory { total: nodes.len(), nodes })
    }
}

/// What `edge_sync` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Action {
    /// Makes `data` the new state; the version grows.
    Push,
    /// Tells the current state, to which what came from elsewhere has been joined.
    Pull,
    /// Tells how the state stands.
    Status,
    /// Confirms the pending changes up to `version`.
    Confirm,
}

/// Parameters of `edge_sync`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Sync {
    /// What to do.
    action: Action,
    /// The state of this node: the document `edge-sync.NODE`. Left out: the common one, the document `edge-sync`.
    #[serde(default)]
    node_id: Option<String>,
    /// For `push`: the state, whole.
    #[serde(default)]
    data: Option<Map<String, Value>>,
    /// For `confirm`: up to which version.
    #[serde(default)]
    version: Option<u64>,
}

/// Result of `edge_sync`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Synced {
    /// `synced`: no change waits. `pending`: some do. `confirmed`: after `confirm`.
    status: &'static str,
    /// Version of the state; 0 when there is none.
    version: u64,
    /// MD5 of the state as Python's `json.dumps(data, sort_keys=True)` writes it, in hexadecimal.
    checksum: String,
    /// Changes that nobody has confirmed.
    pending_changes: usize,
    /// When the state last changed here, RFC 3339 in UTC; `null` when there is none.
    last_sync: Option<String>,
    /// After `pull`: the state.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Map<String, Value>>,
}

/// A document without its data.
#[derive(Debug, Deserialize)]
struct State {
    version: u64,
    checksum: String,
    updated_at: String,
}

/// The changes of a document that nobody has confirmed, of which only the number is told.
#[derive(Debug, Deserialize)]
struct Unconfirmed {
    pending: Vec<IgnoredAny>,
}

impl EdgeTool for Sync {
    const NAME: &'static str = "edge_sync";
    const TITLE: &'static str = "Sync state";
    const ABOUT: &'static str = "Pushes, pulls, looks at or confirms a state that is kept in sync: a JSON object, one for each `node_id` and \
        one without. For other documents use `edge_read_document` and `edge_edit_document`.";
    const EFFECT: Effect = Effect::Changes;
    type Output = Synced;

    async fn run(self, session: &Session<'_>) -> Result<Synced, ToolError> {
        let document = match &self.node_id {
            None => SYNC_DOCUMENT.to_owned(),
            Some(node) => format!("{SYNC_DOCUMENT}.{}", NodeId::new(node)?),
        };
        let document = DocumentName::new(document)?;
        let path = format!("/v1/documents/{document}");
        match self.action {
            Action::Push => {
                let data = self.data.ok_or_else(|| ToolError::invalid("`push` needs `data`, the whole state as a JSON object"))?;
                let json = HeaderValue::from_static("application/json");
                let body = Value::Object(data).to_string();
                session.change(Request::new(Method::PUT, path.clone()).header(CONTENT_TYPE, json).payload(body)).await?;
            }
            Action::Confirm => {
                let version =
                    self.version.ok_or_else(|| ToolError::invalid("`confirm` needs `version`, up to which changes are confirmed"))?;
                let body = json!({ "up_to_version": version }).to_string();
                match session.change(Request::new(Method::POST, format!("{path}/confirm")).payload(body)).await {
                    // Where there is no state nothing is pending.
                    Err(error) if error.kind == ErrorKind::NotFound => {}
                    done => drop(done?),
                }
            }
            Action::Pull | Action::Status => {}
        }
        let found = match session.get(path.clone()).await {
            Err(error) if error.kind == ErrorKind::NotFound => None,
            found => Some(found?),
        };
        let Some(found) = found else {
            let status = if self.action == Action::Confirm { "confirmed" } else { "synced" };
            return Ok(Synced { status, version: 0, checksum: EMPTY_CHECKSUM.to_owned(), pending_changes: 0, last_sync: None, data: None });
        };
        let State { version, checksum, updated_at } = found.json()?;
        let data = match self.action {
            // Refused rather than told wrongly, as by the tool for every document.
            Action::Pull => Some(DocumentState::read(&document, &found)?.data),
            _ => None,
        };
        let pending_changes = session.read::<Unconfirmed>(format!("{path}/pending")).await?.pending.len();
        let status = match (self.action, pending_changes) {
            (Action::Confirm, _) => "confirmed",
            (_, 0) => "synced",
            _ => "pending",
        };
        Ok(Synced { status, version, checksum, pending_changes, last_sync: Some(updated_at), data })
    }
}
