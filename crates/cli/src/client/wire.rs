//! What the API answers, as far as the command line shows it.
//!
//! A field that a node of another version leaves out takes a default: `--json` passes on everything anyway.

use std::collections::BTreeMap;

use bytes::Bytes;
use edgeward::{
    ArtifactSignature, ClusterHealth, DocumentGrant, DocumentName, EdgeNode, Environment, ErrorKind, Failure, Handler, Load, Object,
    PublicKey, Resilience, Value,
};
use jiff::Timestamp;
use serde::Deserialize;

/// Answer of `POST /v1/artifacts`.
#[derive(Debug, Deserialize)]
pub(crate) struct Uploaded {
    pub(crate) digest: edgeward::Digest,
}

/// Answer of `GET /v1/functions`.
#[derive(Debug, Deserialize)]
pub(crate) struct Functions {
    pub(crate) functions: Vec<Record>,
}

/// A function as the node keeps it.
#[derive(Debug, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: edgeward::FunctionId,
    /// On which node, where a hub tells of it.
    #[serde(default)]
    pub(crate) node: Option<edgeward::NodeId>,
    pub(crate) name: String,
    pub(crate) handler: Handler,
    pub(crate) memory_mb: u32,
    pub(crate) timeout_seconds: f64,
    #[serde(default)]
    pub(crate) environment: Environment,
    #[serde(default)]
    pub(crate) allowed_hosts: Vec<String>,
    #[serde(default)]
    pub(crate) documents: Vec<DocumentGrant>,
    pub(crate) max_concurrency: u32,
    pub(crate) max_queue: u32,
    pub(crate) max_reuse: u32,
    #[serde(default)]
    pub(crate) signature: Option<ArtifactSignature>,
    #[serde(default)]
    pub(crate) resilience: Resilience,
    pub(crate) generation: u64,
    #[serde(default)]
    pub(crate) observed_generation: u64,
    pub(crate) state: String,
    #[serde(default)]
    pub(crate) message: String,
}

/// Answer of `GET /v1/trusted-keys`.
#[derive(Debug, Deserialize)]
pub(crate) struct TrustedKeys {
    pub(crate) keys: Vec<TrustedKey>,
}

/// A key that a fleet trusts.
#[derive(Debug, Deserialize)]
pub(crate) struct TrustedKey {
    pub(crate) key: PublicKey,
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) added_at: Timestamp,
}

/// Answer of a hub that changed what nodes should run.
#[derive(Debug, Deserialize)]
pub(crate) struct NodesChanged {
    pub(crate) nodes: u64,
}

/// Answer of `GET /v1/nodes`.
#[derive(Debug, Deserialize)]
pub(crate) struct Nodes {
    pub(crate) nodes: Vec<NodeRecord>,
}

/// A node as its hub sees it.
#[derive(Debug, Deserialize)]
pub(crate) struct NodeRecord {
    #[serde(flatten)]
    pub(crate) node: EdgeNode,
    pub(crate) since: Timestamp,
    #[serde(default)]
    pub(crate) reasons: Vec<String>,
    #[serde(default)]
    pub(crate) connectivity: String,
    #[serde(default)]
    pub(crate) behind: u64,
    #[serde(default)]
    pub(crate) load: Option<Load>,
    #[serde(default)]
    pub(crate) dropped_events: u64,
    #[serde(default)]
    pub(crate) draining: bool,
    #[serde(default)]
    pub(crate) held: Option<String>,
    #[serde(default)]
    pub(crate) release: String,
    #[serde(default)]
    pub(crate) joined_at: Option<Timestamp>,
}

/// Answer of `POST /v1/join-tokens`.
#[derive(Deserialize)]
pub(crate) struct CreatedJoinToken {
    pub(crate) token: String,
    pub(crate) expires_at: Timestamp,
    #[serde(default)]
    pub(crate) servers: Vec<String>,
}

/// Answer of `GET /v1/status`, whoever answers.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Process {
    Hub(Box<HubStatus>),
    Node(Box<Status>),
}

/// Answer of `GET /v1/status` of a hub.
#[derive(Debug, Deserialize)]
pub(crate) struct HubStatus {
    pub(crate) hub: edgeward::NodeId,
    pub(crate) standing: String,
    #[serde(default)]
    pub(crate) term: Option<u64>,
    #[serde(default)]
    pub(crate) why: Option<String>,
    #[serde(default)]
    pub(crate) servers: Vec<String>,
    #[serde(default)]
    pub(crate) connected: bool,
    #[serde(default)]
    pub(crate) credentials: Option<String>,
    #[serde(default)]
    pub(crate) broker_pid: Option<u32>,
    pub(crate) health: ClusterHealth,
    pub(crate) version: String,
    pub(crate) started_at: Timestamp,
    pub(crate) uptime_seconds: f64,
    pub(crate) listen: String,
    pub(crate) data_dir: String,
    #[serde(default)]
    pub(crate) disk_free_bytes: Option<u64>,
    #[serde(default)]
    pub(crate) resident_bytes: Option<u64>,
}

/// One line of a function's log.
#[derive(Debug, Deserialize)]
pub(crate) struct LogLine {
    /// Counts the lines of one function; a gap means that lines were dropped.
    pub(crate) seq: u64,
    pub(crate) timestamp: Timestamp,
    pub(crate) stream: String,
    pub(crate) text: String,
}

/// Answer of `GET /v1/tokens`.
#[derive(Debug, Deserialize)]
pub(crate) struct Tokens {
    pub(crate) tokens: Vec<TokenRecord>,
}

/// A token without its secret.
#[derive(Debug, Deserialize)]
pub(crate) struct TokenRecord {
    pub(crate) name: edgeward::TokenName,
    pub(crate) role: String,
    pub(crate) created_at: Timestamp,
    #[serde(default)]
    pub(crate) expires_at: Option<Timestamp>,
    #[serde(default)]
    pub(crate) topics: Option<TokenTopics>,
}

/// What the holder of a token may do on topics.
#[derive(Debug, Deserialize)]
pub(crate) struct TokenTopics {
    pub(crate) publish: Vec<String>,
    pub(crate) subscribe: Vec<String>,
}

/// Answer of `POST /v1/tokens`: the secret.
#[derive(Deserialize)]
pub(crate) struct CreatedToken {
    pub(crate) token: String,
}

/// Answer of `GET /v1/documents`.
#[derive(Debug, Deserialize)]
pub(crate) struct Documents {
    pub(crate) documents: Vec<DocumentSummary>,
}

/// A document without its keys.
#[derive(Debug, Deserialize)]
pub(crate) struct DocumentSummary {
    pub(crate) name: DocumentName,
    pub(crate) version: u64,
    pub(crate) keys: u64,
    pub(crate) updated_at: Timestamp,
}

/// A state of a document, as reading and watching tell it.
#[derive(Debug, Deserialize)]
pub(crate) struct DocumentState {
    pub(crate) version: u64,
    /// Left out of an event when it is large.
    pub(crate) data: Option<Object>,
    pub(crate) updated_at: Timestamp,
}

/// Answer of `GET /v1/documents/{name}/pending`.
#[derive(Debug, Deserialize)]
pub(crate) struct Pending {
    pub(crate) pending: Vec<Change>,
}

/// Answer of `GET /v1/documents/{name}/history`.
#[derive(Debug, Deserialize)]
pub(crate) struct History {
    pub(crate) history: Vec<Change>,
}

/// A change of a document.
#[derive(Debug, Deserialize)]
pub(crate) struct Change {
    pub(crate) r#type: String,
    pub(crate) version: u64,
    pub(crate) data: Object,
    pub(crate) timestamp: Timestamp,
    #[serde(default)]
    pub(crate) coalesced: u64,
}

/// Answer of `GET /v1/documents/{name}/policy`.
#[derive(Debug, Deserialize)]
pub(crate) struct Policies {
    /// By key prefix.
    pub(crate) policies: BTreeMap<String, String>,
}

/// Answer of `GET /v1/documents/{name}/conflicts`.
#[derive(Debug, Deserialize)]
#[expect(clippy::struct_field_names, reason = "they are the API's")]
pub(crate) struct Conflicts {
    pub(crate) conflicts: Vec<Conflict>,
    /// After which id the next ones come.
    pub(crate) next: Option<String>,
    pub(crate) forgotten: u64,
}

/// Two writes that did not know of each other.
#[derive(Debug, Deserialize)]
pub(crate) struct Conflict {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) why: String,
    pub(crate) loser: Side,
    pub(crate) winner: Option<Side>,
}

/// One of the two.
#[derive(Debug, Deserialize)]
pub(crate) struct Side {
    /// Left out where the write deleted the key, or its value is too large to be listed. `null` is a value.
    #[serde(default, deserialize_with = "present")]
    pub(crate) value: Option<Value>,
    #[serde(default)]
    pub(crate) omitted_bytes: Option<u64>,
    pub(crate) node: String,
    pub(crate) time: Timestamp,
}

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Answer of `GET /v1/metrics/summary`.
#[derive(Debug, Deserialize)]
pub(crate) struct Summary {
    pub(crate) total: u64,
    /// In percent.
    pub(crate) success_rate: f64,
    pub(crate) error_count: u64,
    pub(crate) avg_latency_ms: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p95_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) cold_starts: u64,
    #[serde(default)]
    pub(crate) errors: BTreeMap<String, u64>,
}

/// Answer of `GET /v1/status`.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) node: EdgeNode,
    pub(crate) version: String,
    pub(crate) started_at: Timestamp,
    pub(crate) uptime_seconds: f64,
    pub(crate) listen: String,
    pub(crate) functions_listen: String,
    pub(crate) data_dir: String,
    pub(crate) disk_free_bytes: Option<u64>,
    pub(crate) functions: u64,
    pub(crate) running: u64,
    pub(crate) resident_bytes: Option<u64>,
    #[serde(default)]
    pub(crate) fleet: Option<FleetStatus>,
}

/// How a node stands to its fleet.
#[derive(Debug, Deserialize)]
pub(crate) struct FleetStatus {
    pub(crate) connected: bool,
    #[serde(default)]
    pub(crate) documents: String,
    #[serde(default)]
    pub(crate) why: Option<String>,
    #[serde(default)]
    pub(crate) refused: bool,
    #[serde(default)]
    pub(crate) waiting_events: u64,
    #[serde(default)]
    pub(crate) dropped_events: u64,
    #[serde(default)]
    pub(crate) topics: edgeward::TopicExchange,
}

/// Why the node said no: RFC 9457 with the product's fields.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) kind: ErrorKind,
    pub(crate) failure: Failure,
    pub(crate) causes: Vec<String>,
    /// As the node sent it.
    pub(crate) bytes: Bytes,
    title: String,
    detail: String,
    status: u16,
}

impl Problem {
    /// Reads a problem document; `None` when it is not one. A kind that this version does not know counts as internal.
    pub(crate) fn read(status: u16, bytes: Bytes) -> Option<Self> {
        #[derive(Deserialize)]
        struct Document {
            title: String,
            #[serde(default)]
            detail: String,
            #[serde(default)]
            kind: String,
            #[serde(default)]
            failure: Option<Failure>,
            #[serde(default)]
            causes: Vec<String>,
        }
        let Document { title, detail, kind, failure, causes } = serde_json::from_slice(&bytes).ok()?;
        let kind = ErrorKind::ALL.into_iter().find(|known| known.as_str() == kind).unwrap_or(ErrorKind::Internal);
        Some(Self { kind, failure: failure.unwrap_or_default(), causes, bytes, title, detail, status })
    }

    /// What went wrong, in one line.
    pub(crate) fn message(&self) -> String {
        match (self.detail.as_str(), self.title.as_str()) {
            ("", "") => format!("the node answered with status {}", self.status),
            ("", title) => title.to_owned(),
            (detail, _) => detail.to_owned(),
        }
    }
}
