//! Tools about what a hub deploys by target and strategy: deployments, their rollouts, and the nodes that take part.

use std::collections::BTreeMap;

use edgeward::{FunctionId, NodeId};
use http::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    functions::{ArtifactSignature, Described},
    session::{Place, Session, ToolError},
    tool::{EdgeTool, Effect},
};
use crate::client::Request;

/// Refuses where nothing is deployed by target and strategy.
pub(super) async fn hub_only(session: &Session<'_>) -> Result<(), ToolError> {
    match session.place().await? {
        Place::Hub => Ok(()),
        Place::Node(node) => {
            let why = format!("this is node `{}`, which has no deployments, rollouts or other nodes: ask the hub of its fleet", node.id);
            Err(ToolError::not_found(why))
        }
    }
}

/// How many nodes of a deployment, or of a wave of its rollout, are how.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct Counts {
    /// Nodes that it is for.
    wanted: u64,
    /// Those that were ordered to serve the revision.
    updated: u64,
    /// Those of them that serve it.
    ready: u64,
    /// Those of them that cannot.
    failed: u64,
    /// Those that cannot be given it now: silent or held.
    pending: u64,
}

/// A rollout.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Rollout {
    /// What names it; in a deployment it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    function: String,
    /// The generation of the deployment that it makes real.
    generation: u64,
    /// The revision to go back to; `null` for the first.
    from: Option<u64>,
    /// The revision that it brings.
    to: u64,
    /// `pending`, `in_progress`, `paused`, `completed`, `rolled_back` or `failed`; the last three have ended.
    state: String,
    /// What it does with its nodes: `preparing`, `updating` or `restoring`.
    phase: String,
    /// The wave that it has come to, from 0 on.
    wave: u64,
    /// How many nodes of that wave may have the revision.
    allowed: u64,
    /// Whether somebody must agree before it goes on: `not_yet`, `awaited` or `given`.
    approval: String,
    /// Why it stands as it does.
    reason: String,
    /// RFC 3339 in UTC.
    started_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_at: Option<String>,
    /// Nodes that came late and did not do well with it, with why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    refused: BTreeMap<String, String>,
    /// Its nodes by wave, for one that was asked for alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    waves: Vec<Wave>,
}

/// The nodes of one wave.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Wave {
    /// Its number, from 0 on.
    number: u64,
    /// What they have in common.
    of: String,
    nodes: Counts,
}

/// What should run where, and how it gets there.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Deployment {
    function: String,
    /// Grows with each change of what is wanted.
    generation: u64,
    /// The generation that was taken up last.
    observed_generation: u64,
    /// The revision that is wanted.
    revision: u64,
    /// Which nodes it is for.
    target: String,
    /// How a revision gets there; what is not said has its default.
    strategy: Map<String, Value>,
    /// Why fewer nodes have it than there are to be.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    missing: String,
    /// The revision that its nodes are to serve: the former one when the rollout of the wanted one went back.
    #[serde(default)]
    serving: u64,
    /// The node that runs it, where one node at a time may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
    /// The function; values of its environment are redacted.
    definition: Map<String, Value>,
    nodes: Counts,
    /// The rollout that is on its way, or was the last.
    rollout: Rollout,
    /// The revisions that are kept, oldest first, for one that was asked for alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    revisions: Vec<Map<String, Value>>,
}

/// Parameters of `edge_list_deployments`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListDeployments {}

/// Deployments.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct DeploymentList {
    deployments: Vec<Deployment>,
}

impl EdgeTool for ListDeployments {
    const NAME: &'static str = "edge_list_deployments";
    const TITLE: &'static str = "Deployments";
    const ABOUT: &'static str = "Lists what a hub deploys by target and strategy: function, revision, target, how many nodes have it, and \
        the present rollout. Only a hub has deployments.";
    const EFFECT: Effect = Effect::Reads;
    type Output = DeploymentList;

    async fn run(self, session: &Session<'_>) -> Result<DeploymentList, ToolError> {
        hub_only(session).await?;
        session.read("/v1/deployments").await
    }
}

/// Parameters of `edge_show_deployment`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowDeployment {
    /// The function.
    function_id: String,
}

impl EdgeTool for ShowDeployment {
    const NAME: &'static str = "edge_show_deployment";
    const TITLE: &'static str = "A deployment";
    const ABOUT: &'static str = "Shows one deployment of a hub with the function that it deploys and the revisions that are kept.";
    const EFFECT: Effect = Effect::Reads;
    type Output = Deployment;

    async fn run(self, session: &Session<'_>) -> Result<Deployment, ToolError> {
        hub_only(session).await?;
        session.read(format!("/v1/deployments/{}", FunctionId::new(&self.function_id)?)).await
    }
}

/// Parameters of `edge_roll_out_artifact`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RollOutArtifact {
    /// The function's id. Of one that is deployed already this is a new revision, unless one that is kept is the same.
    function_id: String,
    /// Its code: the digest of an uploaded artifact, `sha256:` and 64 hexadecimal digits.
    artifact: String,
    /// Which nodes it is for: `all`, `node=ID,node=ID`, labels and capabilities as `site=berlin,capability=gpu`, or with a number of nodes that the
    /// hub chooses, `count=2,site=berlin`, or `one,site=berlin` for one node at a time under a lease. `all` when it is left out.
    #[serde(default)]
    target: Option<String>,
    /// How it gets there. `kind`: `rolling` (batch after batch; the default), `canary` (a few first) or `blue-green` (all at once). `batch` and
    /// `max_unavailable`: nodes as `5` or `10%`. `growth` of batches. `bake_seconds` in which a batch must do well. `progress_seconds` after which it
    /// is paused. `approve`: true to wait for somebody after the first batch. `waves`: a list such as `["site=berlin", "site=paris"]`. `gate`: an object with
    /// `failure_percent`, `p95_factor`, `min_samples` and `probe` as `{"path": "/health"}`.
    #[serde(default)]
    strategy: Map<String, Value>,
    /// For people; the id when it is left out.
    #[serde(default)]
    function_name: Option<String>,
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
    /// How its calls find a node, and what is done when nodes fail, as in `edge_deploy_artifact`.
    #[serde(default)]
    resilience: Map<String, Value>,
    /// Only tell the plan.
    #[serde(default)]
    dry_run: bool,
}

/// What is deployed, or would be.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct RolledOut {
    /// `deployed`, or `planned` after a dry run.
    status: &'static str,
    function_id: String,
    /// The deployment. Its rollout goes on after this call: see `edge_show_rollout` and `edge_watch_events`.
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<Deployment>,
    /// What would be done: `revision`, `is_new`, `from`, `differences` from that, `waves` with their `nodes` and `batches`, `pending` nodes with why they
    /// have to wait, nodes that it is `leaving`, and what is `missing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Map<String, Value>>,
}

impl EdgeTool for RollOutArtifact {
    const NAME: &'static str = "edge_roll_out_artifact";
    const TITLE: &'static str = "Roll out an artifact";
    const ABOUT: &'static str = "Deploys an uploaded WebAssembly component to the nodes of a target by a strategy: step by step, judged on the \
        way, and taken back by itself when it does badly. It replaces the whole deployment of this function. `dry_run` checks everything and \
        tells the plan. Only a hub does it.";
    const EFFECT: Effect = Effect::Replaces;
    type Output = RolledOut;

    async fn run(self, session: &Session<'_>) -> Result<RolledOut, ToolError> {
        hub_only(session).await?;
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
        let mut body = json!({ "function": described.function(&id)?, "strategy": self.strategy });
        if let Some(target) = self.target {
            body["target"] = target.into();
        }
        let put = |query: &str| Request::new(Method::PUT, format!("/v1/deployments/{id}{query}")).payload(body.to_string());
        let (mut deployment, mut plan) = (None, None);
        if self.dry_run {
            plan = Some(session.ask(put("?dry_run=true")).await?.json()?);
        } else {
            deployment = Some(session.change(put("")).await?.json()?);
        }
        let status = if self.dry_run { "planned" } else { "deployed" };
        Ok(RolledOut { status, function_id: id.to_string(), deployment, plan })
    }
}

/// Parameters of `edge_remove_deployment`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveDeployment {
    /// The function.
    function_id: String,
}

/// A deployment that is gone.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Removed {
    /// `removed`.
    status: &'static str,
    function_id: String,
}

impl EdgeTool for RemoveDeployment {
    const NAME: &'static str = "edge_remove_deployment";
    const TITLE: &'static str = "Remove a deployment";
    const ABOUT: &'static str =
        "Removes a deployment of a hub with its revisions: its function is taken from every node. There is no way back.";
    const EFFECT: Effect = Effect::Replaces;
    type Output = Removed;

    async fn run(self, session: &Session<'_>) -> Result<Removed, ToolError> {
        hub_only(session).await?;
        let id = FunctionId::new(&self.function_id)?;
        session.change(Request::new(Method::DELETE, format!("/v1/deployments/{id}"))).await?;
        Ok(Removed { status: "removed", function_id: id.to_string() })
    }
}

/// Parameters of `edge_list_rollouts`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListRollouts {}

/// Rollouts.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct RolloutList {
    /// The newest of each function first.
    rollouts: Vec<Rollout>,
}

impl EdgeTool for ListRollouts {
    const NAME: &'static str = "edge_list_rollouts";
    const TITLE: &'static str = "Rollouts";
    const ABOUT: &'static str = "Lists how revisions got to their nodes: the present rollout of each function and those before it. Only a hub \
        has rollouts.";
    const EFFECT: Effect = Effect::Reads;
    type Output = RolloutList;

    async fn run(self, session: &Session<'_>) -> Result<RolloutList, ToolError> {
        hub_only(session).await?;
        session.read("/v1/rollouts").await
    }
}

/// Parameters of `edge_show_rollout`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowRollout {
    /// The rollout, or its function, of which it is then the present one.
    rollout_id: String,
}

impl EdgeTool for ShowRollout {
    const NAME: &'static str = "edge_show_rollout";
    const TITLE: &'static str = "A rollout";
    const ABOUT: &'static str = "Shows one rollout of a hub: its state and why, and its nodes wave by wave.";
    const EFFECT: Effect = Effect::Reads;
    type Output = Rollout;

    async fn run(self, session: &Session<'_>) -> Result<Rollout, ToolError> {
        hub_only(session).await?;
        session.read(rollout_path(&self.rollout_id)?).await
    }
}

/// Where a rollout is. What can be no part of a path names none.
fn rollout_path(id: &str) -> Result<String, ToolError> {
    if id.is_empty() || id.len() > ROLLOUT_ID_BYTES_MAX || !id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c)) {
        let shown: String = id.chars().take(ROLLOUT_ID_BYTES_MAX).collect();
        return Err(ToolError::not_found(format!("rollout not found: `{}`", shown.escape_debug())));
    }
    Ok(format!("/v1/rollouts/{id}"))
}

/// Longest id of a rollout, in bytes: that of a function, and a number.
const ROLLOUT_ID_BYTES_MAX: usize = 128;

/// What somebody does about a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RolloutAction {
    /// Lets no further node get the revision; what runs is still judged.
    Pause,
    /// Lets a paused one go on.
    Resume,
    /// Agrees to what it waits for.
    Approve,
    /// Ends it, and brings the former revision back.
    Abort,
    /// Goes back to a former revision, on all nodes at once.
    Rollback,
}

/// Parameters of `edge_act_on_rollout`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ActOnRollout {
    /// The rollout, or its function, of which it is then the present one.
    rollout_id: String,
    /// What to do about it.
    action: RolloutAction,
    /// Of a rollback, the revision to go back to; the former one when it is left out.
    #[serde(default)]
    revision: Option<u64>,
}

impl EdgeTool for ActOnRollout {
    const NAME: &'static str = "edge_act_on_rollout";
    const TITLE: &'static str = "Act on a rollout";
    const ABOUT: &'static str = "Pauses a rollout of a hub, lets it go on, agrees to what it waits for, aborts it, or goes back to a former \
        revision. It answers with the present rollout, which may need time to do so.";
    const EFFECT: Effect = Effect::Changes;
    type Output = Rollout;

    async fn run(self, session: &Session<'_>) -> Result<Rollout, ToolError> {
        hub_only(session).await?;
        let path = rollout_path(&self.rollout_id)?;
        let action = json!(self.action);
        let query = self.revision.map_or_else(String::new, |revision| format!("?revision={revision}"));
        let request = Request::new(Method::POST, format!("{path}/{}{query}", action.as_str().unwrap_or_default()));
        session.change(request).await?.json()
    }
}

/// What somebody wants of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum NodeAction {
    /// Functions of which there are to be so many go elsewhere, first there and then gone here.
    Drain,
    /// They may come again.
    Undrain,
    /// It gets no updates; what it runs goes on.
    Hold,
    /// It gets updates again.
    Unhold,
}

/// Parameters of `edge_act_on_node`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ActOnNode {
    /// The node.
    node_id: String,
    /// What is wanted of it.
    action: NodeAction,
    /// Of `hold`: why, for people.
    #[serde(default)]
    reason: Option<String>,
    /// Of `hold`: for how many seconds; until `unhold` when it is left out.
    #[serde(default)]
    hold_seconds: Option<u64>,
}

/// What is wanted of a node now.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct NodeDuties {
    #[serde(rename(deserialize = "id"))]
    node_id: String,
    /// Whether functions of which there are to be so many go elsewhere.
    draining: bool,
    /// Why it gets no updates; `null` when it does.
    held: Option<String>,
}

impl EdgeTool for ActOnNode {
    const NAME: &'static str = "edge_act_on_node";
    const TITLE: &'static str = "Drain or hold a node";
    const ABOUT: &'static str = "Drains a node of a fleet, so that functions with a number of nodes go elsewhere first, or lets it hold what it \
        runs, so that it gets no updates; and takes either back.";
    const EFFECT: Effect = Effect::Changes;
    type Output = NodeDuties;

    async fn run(self, session: &Session<'_>) -> Result<NodeDuties, ToolError> {
        hub_only(session).await?;
        let id = NodeId::new(&self.node_id).map_err(|_| edgeward::EdgeError::node_not_found(&self.node_id))?;
        if self.action != NodeAction::Hold && (self.reason.is_some() || self.hold_seconds.is_some()) {
            return Err(ToolError::invalid("`reason` and `hold_seconds` are for `hold`"));
        }
        let change = match self.action {
            NodeAction::Drain => json!({ "draining": true }),
            NodeAction::Undrain => json!({ "draining": false }),
            NodeAction::Hold => {
                json!({ "hold": { "held": true, "reason": self.reason.unwrap_or_default(), "seconds": self.hold_seconds } })
            }
            NodeAction::Unhold => json!({ "hold": { "held": false } }),
        };
        session.change(Request::new(Method::PATCH, format!("/v1/nodes/{id}")).payload(change.to_string())).await?.json()
    }
}

/// Parameters of `edge_rebalance`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rebalance {
    /// How many functions to move at most, up to 100; 100 when it is left out.
    #[serde(default)]
    moves_max: Option<u32>,
}

/// Functions that are moved.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Moves {
    moves: Vec<MoveEntry>,
}

/// A function that is moved, first there and then gone here.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct MoveEntry {
    function: String,
    /// The node that it leaves.
    from: String,
    /// The node that it goes to.
    to: String,
}

impl EdgeTool for Rebalance {
    const NAME: &'static str = "edge_rebalance";
    const TITLE: &'static str = "Rebalance the fleet";
    const ABOUT: &'static str = "Moves functions of which there are to be so many (`count=` in their target) from nodes with many functions to \
        nodes with few. Functions of named nodes stay.";
    const EFFECT: Effect = Effect::Changes;
    type Output = Moves;

    async fn run(self, session: &Session<'_>) -> Result<Moves, ToolError> {
        hub_only(session).await?;
        let query = self.moves_max.map_or_else(String::new, |moves| format!("?moves={moves}"));
        session.change(Request::new(Method::POST, format!("/v1/rebalance{query}"))).await?.json()
    }
}

#[cfg(test)]
mod tests {
    use edgeward::ErrorKind;

    use super::*;

    #[test]
    fn what_can_be_no_part_of_a_path_names_no_rollout() {
        assert_eq!(rollout_path("hello:12").expect("an id"), "/v1/rollouts/hello:12");
        for bad in ["", "a/pause", "a?b", "a%2Fb", "..%2f", &"a".repeat(129)] {
            assert_eq!(rollout_path(bad).expect_err("refused").kind, ErrorKind::NotFound, "{bad}");
        }
    }
}
