//! `/v1/deployments` and `/v1/rollouts` of a hub: what should run where, and how it gets there.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use edgeward::{
    DeploymentSpec, DeploymentView, EdgeError, FleetHub, FunctionId, Precondition, Revision, RolloutView, Strategy, Target,
    cluster::placement::Move, deployments::MOVES_MAX,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::{
    Refusal,
    functions::{FUNCTION_BODY_BYTES_MAX, IdPath, precondition},
    read_body, tagged,
    wire::{self, FunctionBody},
};

/// Longest wait until what somebody asked for has begun; it begins all the same.
const BEGUN_TIMEOUT: Duration = Duration::from_secs(2);

/// What is to run where.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeploymentBody {
    /// The function.
    function: FunctionBody,
    /// Which nodes it is for: `all`, `node=ID,node=ID`, labels and capabilities as `site=berlin,capability=gpu`, or with a number of nodes that the hub
    /// chooses, `count=2,site=berlin`, or `one,site=berlin` for one node at a time under a lease.
    #[serde(default = "Target::all")]
    #[schema(value_type = String)]
    target: Target,
    /// How it gets there: `kind` is `rolling`, `canary` or `blue-green`; `batch`, `growth`, `max_unavailable`, `bake_seconds`, `progress_seconds`,
    /// `approve`, `waves`, and `gate` with `failure_percent`, `p95_factor`, `min_samples` and `probe`.
    #[serde(default)]
    #[schema(value_type = Object)]
    strategy: Strategy,
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct DryRunQuery {
    /// Say what would be done, and do nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Deployments, by function.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeploymentsAnswer {
    /// `function`, `generation`, `observed_generation`, `revision`, `target`, `strategy`, `rollout`, `definition` (the function), `serving` (the revision
    /// that its nodes are to serve, which is the former one when the rollout went back), `nodes` (how many are
    /// `wanted`, `updated`, `ready`, `failed` and `pending`), `missing` when fewer could be placed than there are to be, and as `lease` the
    /// node that runs it where one node at a time may.
    #[schema(value_type = Vec<Object>)]
    deployments: Vec<DeploymentView>,
}

/// A deployment with the revisions of its function that are kept.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeploymentAnswer {
    #[serde(flatten)]
    #[schema(value_type = Object)]
    deployment: DeploymentView,
    /// The revisions, oldest first.
    #[schema(value_type = Vec<Object>)]
    revisions: Vec<Revision>,
}

/// Rollouts, the newest of each function first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RolloutsAnswer {
    /// `id`, `function`, `from`, `to`, `state`, `phase`, `wave`, `allowed`, `approval`, `reason`, `started_at`, `ended_at`.
    #[schema(value_type = Vec<Object>)]
    rollouts: Vec<RolloutView>,
}

/// Every deployment, by function.
#[utoipa::path(
    get, path = "/v1/deployments", operation_id = "list_deployments", tag = "deployments",
    responses((status = 200, body = DeploymentsAnswer))
)]
pub(crate) async fn list(State(hub): State<Arc<FleetHub>>) -> Result<Json<DeploymentsAnswer>, Refusal> {
    Ok(Json(DeploymentsAnswer { deployments: hub.cluster().deployments().list().await? }))
}

/// One deployment.
#[utoipa::path(
    get, path = "/v1/deployments/{id}", operation_id = "show_deployment", tag = "deployments", params(IdPath),
    responses((status = 200, body = DeploymentAnswer), (status = 404, body = wire::Problem))
)]
pub(crate) async fn show(State(hub): State<Arc<FleetHub>>, Path(IdPath { id }): Path<IdPath>) -> Result<Response, Refusal> {
    let id = FunctionId::new(id)?;
    let deployments = hub.cluster().deployments();
    let deployment = deployments.get(&id).await?;
    let revisions = deployments.revisions(&id).await?;
    Ok(tagged(StatusCode::OK, deployment.deployment.generation, DeploymentAnswer { deployment, revisions }))
}

/// Wants a function deployed, durably: a new revision when none that is kept is the same. Its rollout begins as soon as the one before has ended. With
/// `dry_run` it answers with the plan: the revision, the waves with their nodes, who has to wait, and what differs.
#[utoipa::path(
    put, path = "/v1/deployments/{id}", operation_id = "put_deployment", tag = "deployments", params(
        IdPath, DryRunQuery,
        ("If-Match" = Option<String>, Header, description = "The generation that is to be replaced, in quotes."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only when the deployment is new."),
    ),
    request_body = DeploymentBody,
    responses(
        (status = 200, description = "The deployment, or with `dry_run` the plan.", body = Object),
        (status = 400, body = wire::Problem),
        (status = 404, description = "Its artifact or a named node is not known.", body = wire::Problem),
        (status = 412, description = "It is at another generation.", body = wire::Problem),
        (status = 422, body = wire::Problem),
        (status = 503, description = "This hub is not the active one.", body = wire::Problem),
    )
)]
pub(crate) async fn put(
    State(hub): State<Arc<FleetHub>>,
    Path(IdPath { id }): Path<IdPath>,
    Query(DryRunQuery { dry_run }): Query<DryRunQuery>,
    request: Request,
) -> Result<Response, Refusal> {
    let id = FunctionId::new(id)?;
    let generation = generation(request.headers())?;
    let body = read_body(request, FUNCTION_BODY_BYTES_MAX).await?;
    let read: DeploymentBody = serde_json::from_slice(&body.bytes)
        .map_err(|error| EdgeError::invalid(format!("the description of deployment `{id}` is not valid: {error}")))?;
    let spec = DeploymentSpec { function: read.function.into_function(id)?, target: read.target, strategy: read.strategy };
    hub.check_active()?;
    let deployments = hub.cluster().deployments();
    if dry_run {
        return Ok(Json(deployments.plan(spec).await?).into_response());
    }
    let deployment = deployments.apply(spec, generation).await?;
    Ok(tagged(StatusCode::OK, deployment.deployment.generation, deployment))
}

/// Removes a deployment: its function is taken from every node.
#[utoipa::path(
    delete, path = "/v1/deployments/{id}", operation_id = "delete_deployment", tag = "deployments", params(IdPath),
    responses((status = 204), (status = 404, body = wire::Problem), (status = 503, body = wire::Problem))
)]
pub(crate) async fn delete(State(hub): State<Arc<FleetHub>>, Path(IdPath { id }): Path<IdPath>) -> Result<StatusCode, Refusal> {
    let id = FunctionId::new(id)?;
    hub.check_active()?;
    let deployments = hub.cluster().deployments();
    if !deployments.remove(&id).await? {
        deployments.get(&id).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct DiffQuery {
    /// The one revision; the former one when it is not said.
    from: Option<u64>,
    /// The other; the one that is wanted when it is not said.
    to: Option<u64>,
}

/// In what two revisions of a function differ. Values of the environment are not shown.
#[utoipa::path(
    get, path = "/v1/deployments/{id}/diff", operation_id = "diff_deployment", tag = "deployments", params(IdPath, DiffQuery),
    responses((status = 200, description = "`from`, `to`, and `differences` as `field`, `from` and `to`.", body = Object), (status = 404, body = wire::Problem))
)]
pub(crate) async fn diff(
    State(hub): State<Arc<FleetHub>>,
    Path(IdPath { id }): Path<IdPath>,
    Query(query): Query<DiffQuery>,
) -> Result<Json<serde_json::Value>, Refusal> {
    let id = FunctionId::new(id)?;
    let deployments = hub.cluster().deployments();
    let to = match query.to {
        Some(to) => to,
        None => deployments.get(&id).await?.deployment.revision,
    };
    let from = if let Some(from) = query.from {
        from
    } else {
        let revisions = deployments.revisions(&id).await?;
        let former = revisions.iter().rev().map(|revision| revision.revision).find(|revision| *revision < to);
        former.ok_or_else(|| EdgeError::invalid(format!("function `{id}` has no revision before {to}; say `from`")))?
    };
    let differences = deployments.diff(&id, from, to).await?;
    Ok(Json(serde_json::json!({ "from": from, "to": to, "differences": differences })))
}

/// Every rollout that is kept.
#[utoipa::path(
    get, path = "/v1/rollouts", operation_id = "list_rollouts", tag = "deployments",
    responses((status = 200, body = RolloutsAnswer))
)]
pub(crate) async fn rollouts(State(hub): State<Arc<FleetHub>>) -> Result<Json<RolloutsAnswer>, Refusal> {
    Ok(Json(RolloutsAnswer { rollouts: hub.cluster().deployments().rollouts().await? }))
}

/// One rollout, with its nodes wave by wave; by its id, or by its function, of which it is then the present one.
#[utoipa::path(
    get, path = "/v1/rollouts/{id}", operation_id = "show_rollout", tag = "deployments", params(IdPath),
    responses((status = 200, body = Object), (status = 404, body = wire::Problem))
)]
pub(crate) async fn rollout(State(hub): State<Arc<FleetHub>>, Path(IdPath { id }): Path<IdPath>) -> Result<Json<RolloutView>, Refusal> {
    Ok(Json(hub.cluster().deployments().rollout(&id).await?))
}

/// What somebody does to a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    Pause,
    Resume,
    Approve,
    Abort,
    Rollback,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct ActionPath {
    /// The rollout, or its function.
    id: String,
    /// `pause`, `resume`, `approve`, `abort` or `rollback`.
    #[param(value_type = String)]
    action: Action,
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct RollbackQuery {
    /// Of a rollback, the revision to go back to; the former one when it is not said.
    revision: Option<u64>,
}

/// Pauses a rollout, lets it go on, agrees to what it waits for, aborts it, or goes back to a former revision. Answers with the present rollout.
#[utoipa::path(
    post, path = "/v1/rollouts/{id}/{action}", operation_id = "act_on_rollout", tag = "deployments", params(ActionPath, RollbackQuery),
    responses(
        (status = 200, body = Object),
        (status = 404, body = wire::Problem),
        (status = 412, description = "It is not in a state for that, and in which.", body = wire::Problem),
        (status = 503, body = wire::Problem),
    )
)]
pub(crate) async fn act(
    State(hub): State<Arc<FleetHub>>,
    Path(ActionPath { id, action }): Path<ActionPath>,
    Query(RollbackQuery { revision }): Query<RollbackQuery>,
) -> Result<Json<RolloutView>, Refusal> {
    hub.check_active()?;
    if revision.is_some() && action != Action::Rollback {
        return Err(EdgeError::invalid("`revision` is for a rollback").into());
    }
    let deployments = hub.cluster().deployments();
    let function = deployments.rollout(&id).await?.rollout.function;
    match action {
        Action::Pause => deployments.pause(&id).await?,
        Action::Resume => deployments.resume(&id).await?,
        Action::Approve => deployments.approve(&id).await?,
        Action::Abort => deployments.abort(&id).await?,
        Action::Rollback => {
            deployments.rollback(&id, revision).await?;
            deployments.until_observed(&function, BEGUN_TIMEOUT).await?;
        }
    }
    Ok(Json(deployments.rollout(function.as_str()).await?))
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct RebalanceQuery {
    /// Moves at most [default: 100].
    moves: Option<usize>,
}

/// Functions that are moved.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MovesAnswer {
    /// `function`, `from` and `to`.
    #[schema(value_type = Vec<Object>)]
    moves: Vec<Move>,
}

/// Moves functions of which there are to be so many from nodes with many functions to nodes with few. Functions of named nodes stay.
#[utoipa::path(
    post, path = "/v1/rebalance", operation_id = "rebalance", tag = "deployments", params(RebalanceQuery),
    responses((status = 200, body = MovesAnswer), (status = 503, body = wire::Problem))
)]
pub(crate) async fn rebalance(
    State(hub): State<Arc<FleetHub>>,
    Query(RebalanceQuery { moves }): Query<RebalanceQuery>,
) -> Result<Json<MovesAnswer>, Refusal> {
    hub.check_active()?;
    Ok(Json(MovesAnswer { moves: hub.cluster().deployments().rebalance(moves.unwrap_or(MOVES_MAX)).await? }))
}

/// The generation that must be there: 0 for none.
fn generation(headers: &HeaderMap) -> Result<Option<u64>, EdgeError> {
    match precondition(headers)? {
        Precondition::None => Ok(None),
        Precondition::Generation(generation) => Ok(Some(generation)),
        Precondition::Absent => Ok(Some(0)),
        Precondition::Present => Err(EdgeError::invalid("If-Match `*` is not for deployments; give their generation")),
    }
}
