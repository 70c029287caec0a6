//! `/v1/schedules`: what a node runs by itself, when, and what came of it.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode},
    response::Response,
};
use edgeward::{
    CatchUp, EdgeError, ErrorKind, FunctionId, Node, Schedule, ScheduleHistory, ScheduleId, ScheduleView, Target, When, Zone,
    cluster::schedule::Try, limits::SCHEDULE_PAYLOAD_BYTES_MAX,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Refusal, check_target_here, functions::precondition, read_body, tagged, wire};

/// Largest description of a schedule, in bytes: its payload as JSON, which writes some bytes as six, and the rest.
pub(super) const SCHEDULE_BODY_BYTES_MAX: usize = 6 * SCHEDULE_PAYLOAD_BYTES_MAX + 64 * 1024;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct SchedulePath {
    /// The schedule.
    pub(super) id: String,
}

/// When which function runs by itself.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScheduleBody {
    /// The id of the path; may be left out.
    #[schema(value_type = Option<String>)]
    id: Option<ScheduleId>,
    /// The function that runs.
    #[schema(value_type = String)]
    function: FunctionId,
    /// `every 30s`, `at 2026-12-24T18:00:00Z`, or a cron expression such as `0 3 * * MON-FRI`.
    #[schema(value_type = String)]
    when: When,
    /// Whose local time a cron expression means, such as `Europe/Berlin`; `UTC` when it is left out.
    #[schema(value_type = Option<String>)]
    zone: Option<Zone>,
    /// Of a hub: which nodes run it, each for itself, as `all`, `node=ID`, `site=berlin`, `count=2`, or `one` for any one of them, which is what it is when
    /// it is left out.
    #[schema(value_type = Option<String>)]
    target: Option<Target>,
    /// What the function gets, 64 KiB at most; empty when it is left out.
    payload: Option<String>,
    /// What the payload is; `application/json` when it is left out.
    content_type: Option<String>,
    /// What becomes of due times at which the node could not: `skip`, `once` for all of them together, or `all=5` for up to 5 one after the other; `once` when
    /// it is left out.
    #[schema(value_type = Option<String>)]
    catch_up: Option<CatchUp>,
    /// By how much a run may begin later, in seconds; 0 when it is left out, 86400 at most.
    jitter_seconds: Option<u32>,
    /// Tries of a due time that fails or is interrupted, 1 to 10; 1 when it is left out.
    attempts: Option<u32>,
    /// Deadline of one try, in seconds; the function's own when it is left out.
    timeout_seconds: Option<f64>,
    /// Whether it runs at all; true when it is left out.
    enabled: Option<bool>,
    /// Before this nothing is due.
    #[schema(value_type = Option<String>, format = DateTime)]
    starts_at: Option<Timestamp>,
    /// From this on nothing is due.
    #[schema(value_type = Option<String>, format = DateTime)]
    ends_at: Option<Timestamp>,
}

impl ScheduleBody {
    /// The schedule of this id that a body describes.
    pub(super) fn read(body: &[u8], id: ScheduleId) -> Result<Schedule, EdgeError> {
        let read: Self = serde_json::from_slice(body)
            .map_err(|error| EdgeError::invalid(format!("the description of schedule `{id}` is not valid: {error}")))?;
        if let Some(other) = read.id.filter(|other| *other != id) {
            return Err(EdgeError::invalid(format!("the description of schedule `{id}` is of schedule `{other}`")));
        }
        let new = Schedule::new(id, read.function, read.when);
        Ok(Schedule {
            zone: read.zone.unwrap_or_default(),
            target: read.target.unwrap_or(new.target),
            payload: read.payload.unwrap_or_default(),
            content_type: read.content_type.unwrap_or(new.content_type),
            catch_up: read.catch_up.unwrap_or_default(),
            jitter_seconds: read.jitter_seconds.unwrap_or(new.jitter_seconds),
            attempts: read.attempts.unwrap_or(new.attempts),
            timeout_seconds: read.timeout_seconds,
            enabled: read.enabled.unwrap_or(new.enabled),
            starts_at: read.starts_at,
            ends_at: read.ends_at,
            ..new
        })
    }
}

/// Schedules, by id.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SchedulesAnswer {
    /// What the description says, with `generation`, `source` (`node`, or `fleet` for what the hub wants here), `next_due_at`, `running` (`due_at`, `attempt`,
    /// `started_at`, `is_late`, `is_asked`), `waiting` due times that are made up for, the `last` run, and `totals` by outcome.
    #[schema(value_type = Vec<Object>)]
    schedules: Vec<ScheduleView>,
}

/// Every schedule, by id.
#[utoipa::path(get, path = "/v1/schedules", operation_id = "list_schedules", tag = "schedules", responses((status = 200, body = SchedulesAnswer)))]
pub(crate) async fn list(State(node): State<Arc<Node>>) -> Json<SchedulesAnswer> {
    Json(SchedulesAnswer { schedules: node.schedules().list() })
}

/// One schedule.
#[utoipa::path(
    get, path = "/v1/schedules/{id}", operation_id = "show_schedule", tag = "schedules", params(SchedulePath),
    responses((status = 200, body = Object), (status = 404, body = wire::Problem))
)]
pub(crate) async fn show(State(node): State<Arc<Node>>, Path(SchedulePath { id }): Path<SchedulePath>) -> Result<Response, Refusal> {
    let view = node.schedules().get(&id)?;
    Ok(tagged(StatusCode::OK, view.record.generation, view))
}

/// Makes this the schedule of its id, durably. It begins with what is due from now on.
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
        (status = 403, description = "The hub wants a schedule of this id here.", body = wire::Problem),
        (status = 412, description = "It is at another generation.", body = wire::Problem),
        (status = 413, body = wire::Problem),
    )
)]
pub(crate) async fn put(
    State(node): State<Arc<Node>>,
    Path(SchedulePath { id }): Path<SchedulePath>,
    request: Request,
) -> Result<Response, Refusal> {
    let id = ScheduleId::new(id)?;
    let precondition = precondition(request.headers())?;
    let body = read_body(request, SCHEDULE_BODY_BYTES_MAX).await?;
    let schedule = ScheduleBody::read(&body.bytes, id.clone())?;
    let new = Schedule::new(id.clone(), schedule.function.clone(), schedule.when.clone());
    check_target_here(&node, "schedule", id.as_str(), &schedule.target, &new.target)?;
    let put = node.schedules().put(schedule, precondition).await?;
    let status = if put.created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(tagged(status, put.view.record.generation, put.view))
}

/// Removes a schedule and its history. A run of it that goes on ends by itself.
#[utoipa::path(
    delete, path = "/v1/schedules/{id}", operation_id = "delete_schedule", tag = "schedules",
    params(SchedulePath, ("If-Match" = Option<String>, Header, description = "The generation that is to go, in quotes; `*`: any.")),
    responses(
        (status = 204),
        (status = 403, body = wire::Problem),
        (status = 404, body = wire::Problem),
        (status = 412, body = wire::Problem),
    )
)]
pub(crate) async fn delete(
    State(node): State<Arc<Node>>,
    Path(SchedulePath { id }): Path<SchedulePath>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let existed = node.schedules().remove(&ScheduleId::new(&id)?, precondition(&headers)?).await?;
    if existed { Ok(StatusCode::NO_CONTENT) } else { Err(not_found(&id).into()) }
}

/// Starts a run now, beside the due times, also of a schedule that is off. Its end will be in the history.
#[utoipa::path(
    post, path = "/v1/schedules/{id}/run", operation_id = "run_schedule", tag = "schedules", params(SchedulePath),
    responses(
        (status = 202, description = "`due_at`, `attempt` and `started_at` of the run.", body = Object),
        (status = 404, body = wire::Problem),
        (status = 412, description = "A run of it goes on.", body = wire::Problem),
        (status = 503, description = "The node starts or stops.", body = wire::Problem),
    )
)]
pub(crate) async fn run(
    State(node): State<Arc<Node>>,
    Path(SchedulePath { id }): Path<SchedulePath>,
) -> Result<(StatusCode, Json<Try>), Refusal> {
    Ok((StatusCode::ACCEPTED, Json(node.schedules().run_now(&id).await?)))
}

/// What ran of a schedule and what did not, newest first, and how often which outcome came.
#[utoipa::path(
    get, path = "/v1/schedules/{id}/history", operation_id = "schedule_history", tag = "schedules", params(SchedulePath),
    responses(
        (status = 200, description = "`runs` with `due_at`, `count`, `attempt`, `started_at`, `ended_at`, `outcome` and `message`, and `totals`.", body = Object),
        (status = 404, body = wire::Problem),
    )
)]
pub(crate) async fn history(
    State(node): State<Arc<Node>>,
    Path(SchedulePath { id }): Path<SchedulePath>,
) -> Result<Json<ScheduleHistory>, Refusal> {
    Ok(Json(node.schedules().history(&id)?))
}

pub(super) fn not_found(id: &str) -> EdgeError {
    EdgeError::new(ErrorKind::NotFound, format!("schedule not found: `{}`", id.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Schedule, EdgeError> {
        ScheduleBody::read(body.as_bytes(), ScheduleId::new("s").expect("valid"))
    }

    #[test]
    fn a_schedule_is_read_back_from_what_it_is_written_as_and_what_is_left_out_has_its_default() {
        let least = read(r#"{"function": "f", "when": "every 30s"}"#).expect("valid");
        assert_eq!(least, Schedule::new(least.id.clone(), least.function.clone(), "every 30s".parse().expect("valid")));
        let whole = Schedule {
            zone: "Europe/Berlin".parse().expect("valid"),
            target: "site=berlin".parse().expect("valid"),
            payload: "x".to_owned(),
            content_type: "text/plain".to_owned(),
            catch_up: "all=3".parse().expect("valid"),
            jitter_seconds: 9,
            attempts: 2,
            timeout_seconds: Some(1.5),
            enabled: false,
            starts_at: Some("2026-01-01T00:00:00Z".parse().expect("valid")),
            ends_at: Some("2027-01-01T00:00:00Z".parse().expect("valid")),
            ..least
        };
        assert_eq!(read(&serde_json::to_string(&whole).expect("JSON")).expect("its own"), whole);
    }

    #[test]
    fn what_is_wrong_is_told_in_words() {
        for (body, words) in [
            (r#"{"function": "f", "when": "0 0 30 2 *"}"#, "never"),
            (r#"{"function": "f", "when": "every 30s", "zone": "Mars/Base"}"#, "there is no time zone `Mars/Base`"),
            (r#"{"function": "f", "when": "every 30s", "jitter_seconds": -1}"#, "integer `-1`"),
            (r#"{"function": "f", "when": "every 30s", "jiter": 1}"#, "unknown field `jiter`"),
            (r#"{"when": "every 30s"}"#, "missing field `function`"),
            (r#"{"id": "t", "function": "f", "when": "every 30s"}"#, "is of schedule `t`"),
        ] {
            let error = read(body).expect_err(body).to_string();
            assert!(error.contains("schedule `s`") && error.contains(words), "{error}");
        }
    }
}
