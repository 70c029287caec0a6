//! `/v1/triggers` of a hub: which messages call which function on nodes of the fleet.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use edgeward::{FleetHub, FleetTriggerView, NodeId, TriggerId, limits::TRIGGER_BODY_BYTES_MAX};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::{
    Refusal,
    functions::precondition,
    read_body, tagged,
    triggers::{IdPath, TriggerAnswer, TriggerBody, TriggersAnswer, not_found},
    wire,
};

/// A trigger of the fleet.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FleetTriggerAnswer {
    id: String,
    #[serde(flatten)]
    trigger: TriggerBody,
    /// Grows with every change of a trigger of the fleet.
    generation: u64,
    /// The nodes that have it, each for the messages that come into its log.
    #[schema(value_type = Vec<String>)]
    nodes: Vec<NodeId>,
}

impl From<FleetTriggerView> for FleetTriggerAnswer {
    fn from(FleetTriggerView { record, nodes }: FleetTriggerView) -> Self {
        Self {
            id: record.wanted.id.to_string(),
            trigger: record.wanted.into(),
            generation: record.generation,
            nodes: nodes.into_iter().collect(),
        }
    }
}

/// Every trigger of the fleet.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FleetTriggersAnswer {
    triggers: Vec<FleetTriggerAnswer>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct OnNodeQuery {
    /// On this node, which is asked how it does.
    node: Option<String>,
}

/// Every trigger of the fleet, or of a node with how each does.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ListAnswer {
    OfFleet(FleetTriggersAnswer),
    OfNode(TriggersAnswer),
}

/// A trigger of the fleet, or of a node with how it does.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what `show` answers")]
pub(crate) enum ShowAnswer {
    OfFleet(FleetTriggerAnswer),
    OfNode(TriggerAnswer),
}

/// Every trigger of the fleet, by id. With `node` those of that node, its own included, and how each does there.
#[utoipa::path(
    get, path = "/v1/triggers", operation_id = "list_triggers", tag = "triggers", params(OnNodeQuery),
    responses(
        (status = 200, body = ListAnswer),
        (status = 404, description = "There is no such node.", body = wire::Problem),
        (status = 503, description = "The node is not connected.", body = wire::Problem),
    )
)]
pub(crate) async fn list(
    State(hub): State<Arc<FleetHub>>,
    Query(OnNodeQuery { node }): Query<OnNodeQuery>,
) -> Result<Json<ListAnswer>, Refusal> {
    let Some(node) = node else {
        let triggers = hub.cluster().triggers().list().await?.into_iter().map(FleetTriggerAnswer::from).collect();
        return Ok(Json(ListAnswer::OfFleet(FleetTriggersAnswer { triggers })));
    };
    hub.check_active()?;
    Ok(Json(ListAnswer::OfNode(hub.cluster().runtime(&node)?.triggers().await?.into())))
}

/// One trigger of the fleet. With `node` that of this node and how it does there; then without an `ETag`, as it is changed by that of the fleet.
#[utoipa::path(
    get, path = "/v1/triggers/{id}", operation_id = "show_trigger", tag = "triggers", params(IdPath, OnNodeQuery),
    responses(
        (status = 200, body = ShowAnswer),
        (status = 404, body = wire::Problem),
        (status = 503, description = "The node is not connected.", body = wire::Problem),
    )
)]
pub(crate) async fn show(
    State(hub): State<Arc<FleetHub>>,
    Path(IdPath { id }): Path<IdPath>,
    Query(OnNodeQuery { node }): Query<OnNodeQuery>,
) -> Result<Response, Refusal> {
    let Some(node) = node else { return Ok(answer(StatusCode::OK, hub.cluster().triggers().get(&id).await?)) };
    hub.check_active()?;
    let view = hub.cluster().runtime(&node)?.trigger(&TriggerId::new(id)?).await?;
    Ok(Json(TriggerAnswer::from(view)).into_response())
}

/// Makes this the trigger of its id, durably. Nodes of its target that are to have its function get it when they are heard, and handle messages by
/// themselves from then on.
#[utoipa::path(
    put, path = "/v1/triggers/{id}", operation_id = "put_trigger", tag = "triggers", request_body = TriggerBody,
    params(
        IdPath,
        ("If-Match" = Option<String>, Header, description = "The generation that is to be replaced, in quotes; `*`: any."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only when the trigger is new."),
    ),
    responses(
        (status = 200, description = "Replaced.", body = FleetTriggerAnswer),
        (status = 201, description = "New.", body = FleetTriggerAnswer),
        (status = 400, body = wire::Problem),
        (status = 412, description = "It is at another generation.", body = wire::Problem),
        (status = 413, description = "There are as many as may be.", body = wire::Problem),
        (status = 503, description = "This hub is not the active one.", body = wire::Problem),
    )
)]
pub(crate) async fn put(
    State(hub): State<Arc<FleetHub>>,
    Path(IdPath { id }): Path<IdPath>,
    request: Request,
) -> Result<Response, Refusal> {
    let id = TriggerId::new(id)?;
    let precondition = precondition(request.headers())?;
    let body = read_body(request, TRIGGER_BODY_BYTES_MAX).await?;
    let trigger = TriggerBody::read(&body.bytes, id)?;
    hub.check_active()?;
    let (view, created) = hub.cluster().triggers().put(trigger, precondition).await?;
    Ok(answer(if created { StatusCode::CREATED } else { StatusCode::OK }, view))
}

/// Removes a trigger; its nodes stop when they hear of it, and forget how far it got. Dead letters stay.
#[utoipa::path(
    delete, path = "/v1/triggers/{id}", operation_id = "delete_trigger", tag = "triggers",
    params(IdPath, ("If-Match" = Option<String>, Header, description = "The generation that is to go, in quotes; `*`: any.")),
    responses(
        (status = 204),
        (status = 404, body = wire::Problem),
        (status = 412, body = wire::Problem),
        (status = 503, body = wire::Problem),
    )
)]
pub(crate) async fn delete(
    State(hub): State<Arc<FleetHub>>,
    Path(IdPath { id }): Path<IdPath>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let id = TriggerId::new(id)?;
    let precondition = precondition(&headers)?;
    hub.check_active()?;
    let existed = hub.cluster().triggers().remove(&id, precondition).await?;
    if existed { Ok(StatusCode::NO_CONTENT) } else { Err(not_found(&id).into()) }
}

fn answer(status: StatusCode, view: FleetTriggerView) -> Response {
    tagged(status, view.record.generation, FleetTriggerAnswer::from(view))
}
