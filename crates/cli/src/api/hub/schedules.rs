//! `/v1/schedules` of a hub: what nodes of the fleet run by themselves.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use edgeward::{FleetHub, FleetScheduleView, ScheduleHistory, ScheduleId, cluster::schedule::Try};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::{
    Refusal,
    functions::precondition,
    read_body,
    schedules::{SCHEDULE_BODY_BYTES_MAX, ScheduleBody, SchedulePath, not_found},
    tagged, wire,
};

/// Schedules of the fleet, by id.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct FleetSchedulesAnswer {
    /// What the description says, with `generation`, `next_due_at`, and the `nodes` that have it, each for itself.
    #[schema(value_type = Vec<Object>)]
    schedules: Vec<FleetScheduleView>,
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct OfNodeQuery {
    /// On this node; may be left out when one alone has it.
    node: Option<String>,
}

/// Every schedule of the fleet, by id.
#[utoipa::path(
    get, path = "/v1/schedules", operation_id = "list_schedules", tag = "schedules",
    responses((status = 200, body = FleetSchedulesAnswer))
)]
pub(crate) async fn list(State(hub): State<Arc<FleetHub>>) -> Result<Json<FleetSchedulesAnswer>, Refusal> {
    Ok(Json(FleetSchedulesAnswer { schedules: hub.cluster().schedules().list().await? }))
}

/// One schedule of the fleet.
#[utoipa::path(
    get, path = "/v1/schedules/{id}", operation_id = "show_schedule", tag = "schedules", params(SchedulePath),
    responses((status = 200, body = Object), (status = 404, body = wire::Problem))
)]
pub(crate) async fn show(State(hub): State<Arc<FleetHub>>, Path(SchedulePath { id }): Path<SchedulePath>) -> Result<Response, Refusal> {
    let view = hub.cluster().schedules().get(&id).await?;
    Ok(tagged(StatusCode::OK, view.record.generation, view))
}

/// Makes this the schedule of its id, durably. Its nodes get it when they are heard, and run it by themselves from then on.
#[utoipa::path(
    put, path = "/v1/schedules/{id}", operation_id = "put_schedule", tag = "schedules", request_body = ScheduleBody,
    params(
        SchedulePath,
        ("If-Match" = Option<String>, Header, description = "The generation that is to be replaced, in quotes; `*`: any."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only when the schedule is new."),
    ),
    responses(
        (status = 200, description = "Replaced.", body = Object),
        (status = 201, description = "New.", body = Object),
        (status = 400, description = "It is not valid, or never due.", body = wire::Problem),
        (status = 412, description = "It is at another generation.", body = wire::Problem),
        (status = 413, body = wire::Problem),
        (status = 503, description = "This hub is not the active one.", body = wire::Problem),
    )
)]
pub(crate) async fn put(
    State(hub): State<Arc<FleetHub>>,
    Path(SchedulePath { id }): Path<SchedulePath>,
    request: Request,
) -> Result<Response, Refusal> {
    let id = ScheduleId::new(id)?;
    let precondition = precondition(request.headers())?;
    let body = read_body(request, SCHEDULE_BODY_BYTES_MAX).await?;
    let schedule = ScheduleBody::read(&body.bytes, id)?;
    hub.check_active()?;
    let (view, created) = hub.cluster().schedules().put(schedule, precondition).await?;
    Ok(tagged(if created { StatusCode::CREATED } else { StatusCode::OK }, view.record.generation, view))
}

/// Removes a schedule; its nodes stop when they hear of it.
#[utoipa::path(
    delete, path = "/v1/schedules/{id}", operation_id = "delete_schedule", tag = "schedules",
    params(SchedulePath, ("If-Match" = Option<String>, Header, description = "The generation that is to go, in quotes; `*`: any.")),
    responses(
        (status = 204),
        (status = 404, body = wire::Problem),
        (status = 412, body = wire::Problem),
        (status = 503, body = wire::Problem),
    )
)]
pub(crate) async fn delete(
    State(hub): State<Arc<FleetHub>>,
    Path(SchedulePath { id }): Path<SchedulePath>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let precondition = precondition(&headers)?;
    hub.check_active()?;
    let existed = hub.cluster().schedules().remove(&ScheduleId::new(&id)?, precondition).await?;
    if existed { Ok(StatusCode::NO_CONTENT) } else { Err(not_found(&id).into()) }
}

/// Has a node start a run now, beside the due times, also of a schedule that is off. Its end will be in the history of the node.
#[utoipa::path(
    post, path = "/v1/schedules/{id}/run", operation_id = "run_schedule", tag = "schedules", params(SchedulePath, OfNodeQuery),
    responses(
        (status = 202, description = "`due_at`, `attempt` and `started_at` of the run.", body = Object),
        (status = 400, description = "Several nodes have it.", body = wire::Problem),
        (status = 404, body = wire::Problem),
        (status = 412, description = "A run of it goes on.", body = wire::Problem),
        (status = 503, description = "The node is not connected, starts or stops.", body = wire::Problem),
    )
)]
pub(crate) async fn run(
    State(hub): State<Arc<FleetHub>>,
    Path(SchedulePath { id }): Path<SchedulePath>,
    Query(OfNodeQuery { node }): Query<OfNodeQuery>,
) -> Result<(StatusCode, Json<Try>), Refusal> {
    hub.check_active()?;
    let run = hub.cluster().schedules().run_now(&ScheduleId::new(&id)?, node.as_deref()).await?;
    Ok((StatusCode::ACCEPTED, Json(run)))
}

/// What ran of a schedule on a node and what did not, newest first, and how often which outcome came. The node is asked.
#[utoipa::path(
    get, path = "/v1/schedules/{id}/history", operation_id = "schedule_history", tag = "schedules", params(SchedulePath, OfNodeQuery),
    responses(
        (status = 200, description = "`runs` with `due_at`, `count`, `attempt`, `started_at`, `ended_at`, `outcome` and `message`, and `totals`.", body = Object),
        (status = 400, description = "Several nodes have it.", body = wire::Problem),
        (status = 404, body = wire::Problem),
        (status = 503, description = "The node is not connected.", body = wire::Problem),
    )
)]
pub(crate) async fn history(
    State(hub): State<Arc<FleetHub>>,
    Path(SchedulePath { id }): Path<SchedulePath>,
    Query(OfNodeQuery { node }): Query<OfNodeQuery>,
) -> Result<Json<ScheduleHistory>, Refusal> {
    hub.check_active()?;
    Ok(Json(hub.cluster().schedules().history(&ScheduleId::new(&id)?, node.as_deref()).await?))
}
