//! Tools about functions: what is deployed where, deploying it, running it.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use edgeward::{Digest, FunctionId, HandlerName, NodeId, cluster::deadline, limits::MCP_RESULT_BYTES_MAX};
use http::{HeaderName, HeaderValue, Method, header::CONTENT_TYPE};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    contract::{self, Deployed},
    session::{Place, Session, ToolError},
    tool::{EdgeTool, Effect},
};
use crate::{
    api::{FunctionBody, terms::IDEMPOTENT},
    client::{Functions, Record, Request},
    target::OneNode,
};

/// Longest wait for a result: the longest deadline of a function, and as long in its queue.
const RESULT_TIMEOUT: Duration = Duration::from_hours(2);

/// What a function is made of, by what is known: an artifact, a function of this id, or of this name or id, a handler of the process.
pub(super) async fn handler_of(
    session: &Session<'_>,
    id: &FunctionId,
    name: &str,
    (node, targets): (Option<&str>, &Targets),
) -> Result<Map<String, Value>, ToolError> {
    let known = known(session).await?;
    let is_there = |record: &&Record| record.node.as_ref().is_some_and(|of| Some(of.as_str()) == node);
    let newest = |is_it: &dyn Fn(&&Record) -> bool| {
        let matching = || known.iter().filter(is_it);
        matching().find(is_there).or_else(|| matching().max_by_key(|record| record.generation))
    };
    let digest = name.parse::<Digest>().ok();
    let same = newest(&|record| record.id == *id);
    let found = match digest {
        Some(_) => same,
        None => same.or_else(|| newest(&|record| record.name == name || record.id.as_str() == name)),
    };
    if let Some(record) = found {
        let handler = digest.map_or_else(|| json!(record.handler), |digest| json!({ "artifact": digest }));
        let kept = json!({
            "handler": handler,
            "allowed_hosts": record.allowed_hosts,
            "documents": record.documents,
            "max_concurrency": record.max_concurrency,
            "max_queue": record.max_queue,
            "max_reuse": record.max_reuse,
            "resilience": record.resilience,
        });
        let mut kept = kept.as_object().cloned().unwrap_or_default();
        // A signature is of one function, and no other may have it.
        if let Some(signature) = record.signature.filter(|_| record.id == *id) {
            kept.insert("signature".to_owned(), json!(signature));
        }
        return Ok(kept);
    }
    let handler = match (digest, HandlerName::new(name)) {
        (Some(digest), _) => json!({ "artifact": digest }),
        // A node says whether it has one; a hub cannot know what is registered in the processes of others.
        (None, Ok(handler)) if matches!(targets, Targets::Own(_)) => json!({ "native": handler }),
        (None, _) => return Err(unknown_code(id, name)),
    };
    Ok(Map::from_iter([("handler".to_owned(), handler)]))
}

async fn known(session: &Session<'_>) -> Result<Vec<Record>, ToolError> {
    Ok(session.read::<Functions>("/v1/functions").await?.functions)
}

fn unknown_code(id: &FunctionId, name: &str) -> ToolError {
    ToolError::not_found(format!(
        "no code is known for function `{id}`: neither a function of this id, nor a function, artifact or handler `{}`; upload it first, \
         with `edgeward deploy`",
        name.escape_debug()
    ))
}

/// Deploys what is described to a node, or to all.
pub(super) async fn assign(
    session: &Session<'_>,
    id: &FunctionId,
    (node, targets): (Option<&str>, Targets),
    function: Map<String, Value>,
) -> Result<Deployed, ToolError> {
    let native = function["handler"]["native"].as_str().map(str::to_owned);
    let query = match (&targets, node) {
        (Targets::Own(_), _) => String::new(),
        (Targets::Fleet(_), None) => "?all=true".to_owned(),
        (Targets::Fleet(_), Some(node)) => format!("?node={node}"),
    };
    let request = Request::new(Method::PUT, format!("/v1/functions/{id}{query}")).payload(Value::Object(function).to_string());
    session.change(request).await.map_err(|error| match native {
        Some(name) if error.kind == edgeward::ErrorKind::NotFound => unknown_code(id, &name),
        _ => error,
    })?;
    let deployed_to = match targets {
        Targets::Own(own) => vec![own],
        // Nodes may have come and gone since.
        Targets::Fleet(_) if node.is_none() => nodes_with(session, id).await?,
        Targets::Fleet(nodes) => nodes,
    };
    Ok(Deployed { status: "deployed", function_id: id.to_string(), deploy_count: deployed_to.len(), deployed_to })
}

/// On which nodes something is to be done.
pub(super) enum Targets {
    /// On the node that answers.
    Own(String),
    /// On these of a fleet.
    Fleet(Vec<String>),
}

impl Targets {
    fn ids(self) -> Vec<String> {
        match self {
            Self::Own(own) => vec![own],
            Self::Fleet(nodes) => nodes,
        }
    }
}

/// On which nodes a call is to do something: the one of this id, or all.
pub(super) async fn targets(session: &Session<'_>, node: Option<&str>) -> Result<Targets, ToolError> {
    let nodes = match session.place().await? {
        Place::Node(own) if node.is_none_or(|node| own.id.as_str() == node) => return Ok(Targets::Own(own.id.to_string())),
        Place::Node(_) => Vec::new(),
        Place::Hub => contract::fleet_nodes(session, node).await?,
    };
    match node {
        _ if !nodes.is_empty() => Ok(Targets::Fleet(nodes.into_iter().map(|node| node.id.to_string()).collect())),
        Some(node) => Err(edgeward::EdgeError::node_not_found(node).into()),
        None => Err(ToolError::not_found("no node is registered; `edgeward join-token` on the hub lets one join")),
    }
}

async fn nodes_with(session: &Session<'_>, id: &FunctionId) -> Result<Vec<String>, ToolError> {
    let found = session.find::<Functions>(format!("/v1/functions/{id}")).await?;
    let records = found.map(|found| found.functions).unwrap_or_default();
    Ok(records.into_iter().filter_map(|record| record.node).map(|node| node.to_string()).collect())
}

/// The node that was asked for.
pub(super) fn one_node(node: Option<&str>) -> Result<OneNode, ToolError> {
    Ok(OneNode { node: node.map(NodeId::new).transpose()? })
}

/// What stands after a path, for the node that was asked for.
pub(super) fn of_node(node: Option<&str>) -> Result<String, ToolError> {
    Ok(one_node(node)?.query('?'))
}

/// Parameters of `edge_list_functions`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListFunctions {
    /// Only this node; left out: every node.
    #[serde(default)]
    node_id: Option<String>,
}

/// Functions.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct FunctionList {
    functions: Vec<FunctionEntry>,
    /// How many they are, each counted once a node.
    total: usize,
}

/// A function on a node.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct FunctionEntry {
    id: String,
    name: String,
    /// On which node; left out by a node, which tells of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    /// `sha256:…` of its artifact, or `native:…`.
    handler: String,
    /// `pending`, `ready` or `failed`.
    state: String,
    /// Why it failed; else empty.
    message: String,
    /// Memory of one invocation, in MiB.
    memory_mb: u32,
    /// Deadline of one invocation, in seconds.
    timeout_seconds: f64,
    /// Grows with every change.
    generation: u64,
}

impl From<Record> for FunctionEntry {
    fn from(record: Record) -> Self {
        Self {
            id: record.id.to_string(),
            name: record.name,
            node: record.node.map(|node| node.to_string()),
            handler: record.handler.to_string(),
            state: record.state,
            message: record.message,
            memory_mb: record.memory_mb,
            timeout_seconds: record.timeout_seconds,
            generation: record.generation,
        }
    }
}

impl EdgeTool for ListFunctions {
    const NAME: &'static str = "edge_list_functions";
    const TITLE: &'static str = "Functions";
    const ABOUT: &'static str = "Lists what is deployed on one node or on all: each function's code, limits and whether it runs.";
    const EFFECT: Effect = Effect::Reads;
    type Output = FunctionList;

    async fn run(self, session: &Session<'_>) -> Result<FunctionList, ToolError> {
        let query = of_node(self.node_id.as_deref())?;
        let found = session.read::<Functions>(format!("/v1/functions{query}")).await?;
        let functions: Vec<_> = found.functions.into_iter().map(FunctionEntry::from).collect();
        Ok(FunctionList { total: functions.len(), functions })
    }
}

/// Parameters of `edge_deploy_artifact`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DeployArtifact {
    /// The function's id. One that is there already is replaced.
    function_id: String,
    /// Its code: the digest of an uploaded artifact, `sha256:` and 64 hexadecimal digits.
    artifact: String,
    /// For people; the id when it is left out.
    #[serde(default)]
    function_name: Option<String>,
    /// Only on this node; left out: on every node.
    #[serde(default)]
    node_id: Option<String>,
    /// Memory of one invocation, in MiB, 1 to 4096.
    #[serde(default)]
    memory_mb: Option<u32>,
    /// Deadline of one invocation, in seconds, 0.001 to 3600.
    #[serde(default)]
    timeout_seconds: Option<f64>,
    /// Environment variables.
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// Hosts that it may call: `scheme://host[:port]`.
    #[serde(default)]
    allowed_hosts: Vec<String>,
    /// Documents that it may see, and whether it may write them: `read-write` or `read-only`.
    #[serde(default)]
    documents: BTreeMap<String, String>,
    /// Who vouches for the artifact; where signatures are required, it must be given.
    #[serde(default)]
    signature: Option<ArtifactSignature>,
    /// How its calls find a node, and what is done when nodes fail: an object with `balance` (`power_of_two`, `round_robin`, `random`, `weighted`,
    /// `least_connections`), `locality` (`nearest`, `any`), `deadline_seconds`, `idempotent`, `retry` (`attempts`, `budget_percent`, …), `breaker` and `bulkhead`.
    #[serde(default)]
    resilience: Map<String, Value>,
    /// Only tell what would happen.
    #[serde(default)]
    dry_run: bool,
}

/// Who vouches for an artifact, as `edgeward sign` writes it.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ArtifactSignature {
    /// `ed25519:` and 64 hexadecimal digits.
    key: String,
    /// Of the release; it grows from one to the next.
    counter: u64,
    /// 128 hexadecimal digits: the signature of function, artifact and counter.
    signature: String,
}

/// What a tool was told of a function whose code is an artifact.
pub(super) struct Described<'a> {
    pub(super) artifact: &'a str,
    pub(super) name: Option<&'a str>,
    pub(super) memory_mb: Option<u32>,
    pub(super) timeout_seconds: Option<f64>,
    pub(super) environment: &'a BTreeMap<String, String>,
    pub(super) allowed_hosts: &'a [String],
    pub(super) documents: &'a BTreeMap<String, String>,
    pub(super) signature: Option<&'a ArtifactSignature>,
    pub(super) resilience: &'a Map<String, Value>,
}

impl Described<'_> {
    /// As the API takes it, checked against every bound.
    pub(super) fn function(&self, id: &FunctionId) -> Result<Map<String, Value>, ToolError> {
        let documents: Vec<_> = self.documents.iter().map(|(document, access)| json!({ "document": document, "access": access })).collect();
        let mut function = json!({
            "name": self.name.unwrap_or(id.as_str()),
            "handler": { "artifact": self.artifact },
            "environment": self.environment,
            "allowed_hosts": self.allowed_hosts,
            "documents": documents,
            "resilience": self.resilience,
        });
        if let Some(memory_mb) = self.memory_mb {
            function["memory_mb"] = memory_mb.into();
        }
        if let Some(timeout_seconds) = self.timeout_seconds {
            function["timeout_seconds"] = timeout_seconds.into();
        }
        if let Some(signature) = self.signature {
            function["signature"] = json!(signature);
        }
        FunctionBody::read(function.to_string().as_bytes(), id.clone())?.validate()?;
        Ok(function.as_object().cloned().unwrap_or_default())
    }
}

/// What a change of the fleet did, or would do.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct FleetChange {
    /// `deployed`, `undeployed`, or `planned` after a dry run.
    status: &'static str,
    function_id: String,
    /// On which nodes.
    nodes: Vec<String>,
    /// What those nodes had under this id before a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<Vec<FunctionEntry>>,
}

async fn planned(session: &Session<'_>, id: &FunctionId, nodes: Vec<String>) -> Result<FleetChange, ToolError> {
    let is_there = |record: &Record| record.id == *id && record.node.as_ref().is_none_or(|node| nodes.iter().any(|of| of == node.as_str()));
    let replaces = known(session).await?.into_iter().filter(is_there).map(FunctionEntry::from).collect();
    Ok(FleetChange { status: "planned", function_id: id.to_string(), nodes, replaces: Some(replaces) })
}

impl EdgeTool for DeployArtifact {
    const NAME: &'static str = "edge_deploy_artifact";
    const TITLE: &'static str = "Deploy an artifact";
    const ABOUT: &'static str = "Puts an uploaded WebAssembly component on one node or on all, with every option of a function. `dry_run` \
        checks the options and tells which nodes would get it and what they have now, not whether the artifact is there.";
    const EFFECT: Effect = Effect::Replaces;
    type Output = FleetChange;

    async fn run(self, session: &Session<'_>) -> Result<FleetChange, ToolError> {
        let id = FunctionId::new(&self.function_id)?;
        let described = Described {
            artifact: &self.artifact,
            name: self.function_name.as_deref(),
            memory_mb: self.memory_mb,
            timeout_seconds: self.timeout_seconds,
            environment: &self.environment,
            allowed_hosts: &self.allowed_hosts,
            documents: &self.documents,
            signature: self.signature.as_ref(),
            resilience: &self.resilience,
        };
        // What is not valid is told before a node is asked, and by a dry run too.
        let function = described.function(&id)?;
        let node = self.node_id.as_deref();
        let targets = targets(session, node).await?;
        if self.dry_run {
            return planned(session, &id, targets.ids()).await;
        }
        let Deployed { function_id, deployed_to, .. } = assign(session, &id, (node, targets), function).await?;
        Ok(FleetChange { status: "deployed", function_id, nodes: deployed_to, replaces: None })
    }
}

/// Parameters of `edge_undeploy_function`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct UndeployFunction {
    /// The function.
    function_id: String,
    /// Only from this node; left out: from every node.
    #[serde(default)]
    node_id: Option<String>,
    /// Only tell what would happen.
    #[serde(default)]
    dry_run: bool,
}

impl EdgeTool for UndeployFunction {
    const NAME: &'static str = "edge_undeploy_function";
    const TITLE: &'static str = "Undeploy a function";
    const ABOUT: &'static str = "Takes a function from one node or from all. `dry_run` tells from which nodes it would go.";
    const EFFECT: Effect = Effect::Replaces;
    type Output = FleetChange;

    async fn run(self, session: &Session<'_>) -> Result<FleetChange, ToolError> {
        let id = FunctionId::new(&self.function_id)?;
        let node = self.node_id.as_deref();
        let (nodes, query) = match targets(session, node).await? {
            Targets::Own(own) => (vec![own], String::new()),
            Targets::Fleet(nodes) if node.is_some() => (nodes, of_node(node)?),
            Targets::Fleet(_) => (nodes_with(session, &id).await?, "?all=true".to_owned()),
        };
        if self.dry_run {
            return planned(session, &id, nodes).await;
        }
        session.change(Request::new(Method::DELETE, format!("/v1/functions/{id}{query}"))).await?;
        Ok(FleetChange { status: "undeployed", function_id: id.to_string(), nodes, replaces: None })
    }
}

/// Parameters of `edge_invoke_function`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct InvokeFunction {
    /// The function.
    function_id: String,
    /// On this node and no other. Left out: a hub chooses the node that takes it best, and tries another when that fails; a node runs what it has, and has its
    /// hub find the rest.
    #[serde(default)]
    node_id: Option<String>,
    /// How long the call may take with all its attempts, in seconds.
    #[serde(default)]
    timeout_seconds: Option<f64>,
    /// Whether this call may run twice with no harm, so that it is tried again also when it may have run.
    #[serde(default)]
    idempotent: bool,
    /// The input, as text; empty when it is left out.
    #[serde(default)]
    payload: Option<String>,
    /// The input, as Base64, in place of text.
    #[serde(default)]
    payload_base64: Option<String>,
    /// The type of the input.
    #[serde(default)]
    content_type: Option<String>,
}

/// What a function gave.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Invoked {
    function_id: String,
    /// The type of the result, as the function says.
    content_type: String,
    /// The result, where it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The result as Base64, where it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    /// Length of the whole result, in bytes.
    size_bytes: usize,
    /// Whether only its begin is told, as it is larger than 1 MiB.
    truncated: bool,
}

impl EdgeTool for InvokeFunction {
    const NAME: &'static str = "edge_invoke_function";
    const TITLE: &'static str = "Invoke a function";
    const ABOUT: &'static str = "Runs a function, wherever it takes the call best or on one node, and gives its result. What it does is up to the function; a \
        failure tells the end of its standard error.";
    const EFFECT: Effect = Effect::Runs;
    type Output = Invoked;

    async fn run(self, session: &Session<'_>) -> Result<Invoked, ToolError> {
        let id = FunctionId::new(&self.function_id)?;
        let payload = match (self.payload, self.payload_base64) {
            (Some(_), Some(_)) => return Err(ToolError::invalid("give `payload` or `payload_base64`, not both")),
            (None, Some(base64)) => {
                BASE64_STANDARD.decode(base64).map_err(|error| ToolError::invalid(format!("`payload_base64` is not valid: {error}")))?
            }
            (text, None) => text.unwrap_or_default().into_bytes(),
        };
        let query = of_node(self.node_id.as_deref())?;
        let mut request =
            Request::new(Method::POST, format!("/v1/functions/{id}/invoke{query}")).payload(payload).answer_timeout(RESULT_TIMEOUT);
        if let Some(content_type) = self.content_type {
            let refused = |_| ToolError::invalid(format!("`content_type` `{}` is not valid", content_type.escape_debug()));
            request = request.header(CONTENT_TYPE, HeaderValue::try_from(&content_type).map_err(refused)?);
        }
        if let Some(seconds) = self.timeout_seconds {
            let time = Duration::try_from_secs_f64(seconds).ok().filter(|time| time.as_millis() > 0);
            let time = time.ok_or_else(|| ToolError::invalid(format!("`timeout_seconds` is {seconds}; it must be 0.001 or more")))?;
            let left = HeaderValue::try_from(deadline::write(time)).expect("digits are a valid header");
            request = request.header(HeaderName::from_static(deadline::TIMEOUT_MS), left);
        }
        if self.idempotent {
            request = request.header(HeaderName::from_static(IDEMPOTENT), HeaderValue::from_static("true"));
        }
        let reply = session.change(request).await?;
        let content_type = reply.header(CONTENT_TYPE).unwrap_or("application/octet-stream").to_owned();
        let size_bytes = reply.bytes.len();
        let shown = reply.bytes.slice(..size_bytes.min(MCP_RESULT_BYTES_MAX));
        let text = text(&shown, shown.len() < size_bytes);
        let base64 = text.is_none().then(|| BASE64_STANDARD.encode(&shown));
        Ok(Invoked { function_id: id.to_string(), content_type, text, base64, size_bytes, truncated: shown.len() < size_bytes })
    }
}

/// The bytes as text, if they are. Of a text that was cut the last character may be lost.
fn text(bytes: &[u8], is_cut: bool) -> Option<String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text.to_owned()),
        Err(error) if is_cut && error.error_len().is_none() => Some(String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned()),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_was_cut_within_a_character_is_still_text() {
        let bytes = "21 °C".as_bytes();
        assert_eq!(text(bytes, false).as_deref(), Some("21 °C"));
        assert_eq!(text(&bytes[..4], true).as_deref(), Some("21 "));
        assert_eq!(text(&bytes[..4], false), None);
        assert_eq!(text(&[0xff, b'a'], true), None);
    }
}
