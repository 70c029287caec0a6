//! `/v1/triggers` of a hub: which messages call which function on nodes of the fleet.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use edgeward::{FleetHub, FleetTriggerView, NodeId, TriggerId, limits::TRIGGER_BODY_BYTES_MAX};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::{
    Refusal,
    functions::precondition,
    read_body, tagged,
    triggers::{IdPath, TriggerBody, not_found},
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

/// Every trigger of the fleet, by id. How each does is told by its nodes.
#[utoipa::path(
    get, path = "/v1/triggers", operation_id = "list_triggers", tag = "triggers", responses((status = 200, body = FleetTriggersAnswer))
)]
pub(crate) async fn list(State(hub): State<Arc<FleetHub>>) -> Result<Json<FleetTriggersAnswer>, Refusal> {
    let triggers = hub.cluster().triggers().list().await?.into_iter().map(FleetTriggerAnswer::from).collect();
    Ok(Json(FleetTriggersAnswer { triggers }))
}

/// One trigger of the fleet.
#[utoipa::path(
    get, path = "/v1/triggers/{id}", operation_id = "show_trigger", tag = "triggers", params(IdPath),
    responses((status = 200, body = FleetTriggerAnswer), (status = 404, body = wire::Problem))
)]
pub(crate) async fn show(State(hub): State<Arc<FleetHub>>, Path(IdPath { id }): Path<IdPath>) -> Result<Response, Refusal> {
    Ok(answer(StatusCode::OK, hub.cluster().triggers().get(&id).await?))
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
