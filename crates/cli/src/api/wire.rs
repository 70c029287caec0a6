//! What goes over the wire: the JSON of requests and answers, apart from the types inside.

use std::collections::BTreeMap;

use edgeward::{
    ArtifactSignature, Digest, DocumentGrant, DocumentName, EdgeError, EdgeFunction, Environment, FunctionId, FunctionView, Handler,
    HandlerName, Resilience,
    limits::{CONCURRENCY_DEFAULT, MEMORY_MB_DEFAULT, QUEUE_DEFAULT, TIMEOUT_SECONDS_DEFAULT},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What runs: an artifact by its digest, or native code that is registered in the process.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HandlerBody {
    /// `sha256:` and 64 hexadecimal digits.
    Artifact(String),
    /// The name under which the code is registered.
    Native(String),
}

/// A document that a function may see.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DocumentGrantBody {
    /// The document's name. It need not exist yet; names that begin with `edgeward.` are the node's own.
    document: String,
    /// `read-write` or `read-only`.
    access: String,
}

impl DocumentGrantBody {
    fn into_grant(self) -> Result<DocumentGrant, EdgeError> {
        DocumentGrant::new(DocumentName::new(self.document)?, self.access.parse()?)
    }
}

impl From<DocumentGrant> for DocumentGrantBody {
    fn from(grant: DocumentGrant) -> Self {
        Self { document: grant.document.to_string(), access: grant.access.to_string() }
    }
}

/// Who vouches for an artifact.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignatureBody {
    /// `ed25519:` and 64 hexadecimal digits.
    key: String,
    /// Of the release; it grows from one to the next.
    counter: u64,
    /// 128 hexadecimal digits: the signature of function, artifact and counter, as `edgeward sign` makes it.
    signature: String,
}

impl SignatureBody {
    fn into_signature(self) -> Result<ArtifactSignature, EdgeError> {
        Ok(ArtifactSignature { key: self.key.parse()?, counter: self.counter, signature: self.signature.parse()? })
    }
}

impl From<ArtifactSignature> for SignatureBody {
    fn from(signature: ArtifactSignature) -> Self {
        Self { key: signature.key.to_string(), counter: signature.counter, signature: signature.signature.to_string() }
    }
}

/// What a client says of a function, and the node repeats.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub(crate) struct FunctionBody {
    /// For people; the id when it is left out.
    name: Option<String>,
    /// What runs. It must be given.
    #[schema(required)]
    handler: Option<HandlerBody>,
    /// Memory of one invocation, in MiB, 1 to 4096.
    memory_mb: u32,
    /// Deadline over the whole response, in seconds, 0.001 to 3600.
    timeout_seconds: f64,
    /// Environment variables. The node repeats the names; every value is `[redacted]`.
    environment: BTreeMap<String, String>,
    /// Hosts that the function may call: `scheme://host[:port]`.
    allowed_hosts: Vec<String>,
    /// Documents that the function may see, as buckets of `wasi:keyvalue`.
    documents: Vec<DocumentGrantBody>,
    /// Invocations at once, 1 to 1000.
    max_concurrency: u32,
    /// Invocations that may wait, 0 to 10000.
    max_queue: u32,
    /// Invocations that one sandbox serves; 1 is a fresh one each time.
    max_reuse: u32,
    /// Who vouches for the artifact; where signatures are required, it must be given.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<SignatureBody>,
    /// How calls by the function's name find a node, and what is done when nodes fail, are slow or are full: `balance` (`power_of_two`, `round_robin`,
    /// `random`, `weighted` or `least_connections`), `locality` (`nearest` or `any`), `deadline_seconds`, `idempotent`, `retry` (`attempts`, `attempt_seconds`,
    /// `backoff_min_seconds`, `backoff_max_seconds`, `budget_percent`), `breaker` (`failure_percent`, `window_seconds`, `min_calls`, `open_seconds`,
    /// `open_seconds_max`, `probes`) and `bulkhead` (`calls_per_node_max`, `calls_max`). What is left out has its default.
    #[serde(skip_serializing_if = "is_default")]
    #[schema(value_type = Object)]
    resilience: Resilience,
    /// What is none of these is refused. `deny_unknown_fields` would say so of the answer too, which has more.
    #[serde(flatten, skip_serializing)]
    #[schema(ignore)]
    unknown: BTreeMap<String, serde_json::Value>,
}

impl Default for FunctionBody {
    fn default() -> Self {
        Self {
            name: None,
            handler: None,
            memory_mb: MEMORY_MB_DEFAULT,
            timeout_seconds: TIMEOUT_SECONDS_DEFAULT,
            environment: BTreeMap::new(),
            allowed_hosts: Vec::new(),
            documents: Vec::new(),
            max_concurrency: CONCURRENCY_DEFAULT,
            max_queue: QUEUE_DEFAULT,
            max_reuse: 1,
            signature: None,
            resilience: Resilience::default(),
            unknown: BTreeMap::new(),
        }
    }
}

fn is_default(resilience: &Resilience) -> bool {
    *resilience == Resilience::default()
}

impl FunctionBody {
    /// The function of this id that a body describes.
    pub(crate) fn read(body: &[u8], id: FunctionId) -> Result<EdgeFunction, EdgeError> {
        let read: Self = serde_json::from_slice(body)
            .map_err(|error| EdgeError::invalid(format!("the description of function `{id}` is not valid: {error}")))?;
        read.into_function(id)
    }

    pub(crate) fn into_function(self, id: FunctionId) -> Result<EdgeFunction, EdgeError> {
        if let Some(name) = self.unknown.keys().next() {
            return Err(EdgeError::invalid(format!("function `{id}` has no field `{}`; see /openapi.json", name.escape_debug())));
        }
        let handler = match self.handler {
            Some(HandlerBody::Artifact(digest)) => Handler::Artifact(digest.parse::<Digest>()?),
            Some(HandlerBody::Native(name)) => Handler::Native(HandlerName::new(name)?),
            None => return Err(EdgeError::invalid(format!("function `{id}` has no handler; give {{\"artifact\": \"sha256:…\"}}"))),
        };
        Ok(EdgeFunction {
            name: self.name.unwrap_or_else(|| id.to_string()),
            id,
            handler,
            memory_mb: self.memory_mb,
            timeout_seconds: self.timeout_seconds,
            environment: Environment(self.environment),
            allowed_hosts: self.allowed_hosts,
            documents: self.documents.into_iter().map(DocumentGrantBody::into_grant).collect::<Result<_, _>>()?,
            max_concurrency: self.max_concurrency,
            max_queue: self.max_queue,
            max_reuse: self.max_reuse,
            signature: self.signature.map(SignatureBody::into_signature).transpose()?,
            resilience: self.resilience,
        })
    }
}

impl From<EdgeFunction> for FunctionBody {
    fn from(function: EdgeFunction) -> Self {
        Self {
            name: Some(function.name),
            handler: Some(match function.handler {
                Handler::Artifact(digest) => HandlerBody::Artifact(digest.to_string()),
                Handler::Native(name) => HandlerBody::Native(name.to_string()),
            }),
            memory_mb: function.memory_mb,
            timeout_seconds: function.timeout_seconds,
            environment: function.environment.0,
            allowed_hosts: function.allowed_hosts,
            documents: function.documents.into_iter().map(DocumentGrantBody::from).collect(),
            max_concurrency: function.max_concurrency,
            max_queue: function.max_queue,
            max_reuse: function.max_reuse,
            signature: function.signature.map(SignatureBody::from),
            resilience: function.resilience,
            unknown: BTreeMap::new(),
        }
    }
}

/// A function as the node has it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FunctionAnswer {
    id: String,
    /// On which node; left out by a node, which tells of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    /// Who wants it there: `node` is whoever asked the node itself, `fleet` its hub.
    #[schema(value_type = String)]
    source: edgeward::Source,
    #[serde(flatten)]
    function: FunctionBody,
    /// Grows with every change; the `ETag` of the record.
    pub(crate) generation: u64,
    /// The generation that `state` is about.
    observed_generation: u64,
    /// `pending`, `ready` or `failed`.
    #[schema(value_type = String)]
    state: edgeward::FunctionState,
    /// Why it failed; else empty.
    message: String,
    /// The revision that it is; left out of what no deployment brought.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    /// The revision that is to be ready beside it, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    warm_revision: Option<u64>,
}

impl FunctionAnswer {
    /// A function on a node, as its hub tells of it.
    pub(super) fn on(node: &edgeward::NodeId, view: FunctionView) -> Self {
        Self { node: Some(node.to_string()), ..view.into() }
    }
}

impl From<FunctionView> for FunctionAnswer {
    fn from(view: FunctionView) -> Self {
        let deployed = view.record.deployed.as_ref();
        Self {
            revision: deployed.map(|deployed| deployed.revision),
            warm_revision: deployed.and_then(|deployed| Some(deployed.warm.as_ref()?.revision)),
            id: view.record.function.id.to_string(),
            node: None,
            source: view.source,
            function: view.record.function.into(),
            generation: view.record.generation,
            observed_generation: view.observed_generation,
            state: view.state,
            message: view.message,
        }
    }
}

/// Every function.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FunctionsAnswer {
    pub(crate) functions: Vec<FunctionAnswer>,
}

/// An artifact that was stored.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ArtifactAnswer {
    /// `sha256:` and 64 hexadecimal digits.
    pub(crate) digest: String,
    pub(crate) size_bytes: usize,
}

/// The node and its process.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatusAnswer {
    #[schema(value_type = Object)]
    pub(crate) node: edgeward::EdgeNode,
    pub(crate) version: &'static str,
    #[schema(value_type = String, format = DateTime)]
    pub(crate) started_at: jiff::Timestamp,
    pub(crate) uptime_seconds: u64,
    pub(crate) listen: String,
    pub(crate) functions_listen: String,
    pub(crate) data_dir: String,
    /// Free space where the data folder lies.
    pub(crate) disk_free_bytes: Option<u64>,
    /// Functions that are desired.
    pub(crate) functions: usize,
    /// Invocations whose response has not ended.
    pub(crate) running: usize,
    /// Memory of the process that is in RAM.
    pub(crate) resident_bytes: Option<u64>,
    /// Of a member of a fleet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fleet: Option<FleetAnswer>,
}

/// How a node stands to its fleet.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FleetAnswer {
    /// Whether it reaches the fleet's servers.
    pub(crate) connected: bool,
    /// `connecting`, `syncing`, `synced`, or `clock_ahead` when nothing is sent until the clock of this node is right.
    pub(crate) documents: &'static str,
    /// When the hub last had all that is here, and this node all that it should have.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) synced_at: Option<jiff::Timestamp>,
    /// Why it is not connected or in step; none while it is.
    pub(crate) why: Option<String>,
    /// Whether the fleet refuses it, as after it was removed.
    pub(crate) refused: bool,
    /// Events that wait for the hub.
    pub(crate) waiting_events: u64,
    /// Events that gave way to others while the hub was away, since the node has its data folder.
    pub(crate) dropped_events: u64,
    /// How messages of topics go to the fleet and come from it.
    #[schema(value_type = Object)]
    pub(crate) topics: edgeward::TopicExchange,
}

/// A problem by RFC 9457.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "describes `edgeward::problem::Problem` in the API's document")]
pub(crate) struct Problem {
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    /// One word: `not_found`, `timeout`, `execution_failed`, `memory_limit`, `overloaded`, `refused_artifact`,
    /// `invalid_input`, `too_large`, `conflict`, `unavailable`, `internal`, `forbidden` or `unauthenticated`.
    kind: String,
    /// Status, exit code and the end of standard error of a failed invocation.
    #[schema(value_type = Object)]
    failure: Option<edgeward::Failure>,
    causes: Vec<String>,
}
