//! `/v1/triggers`: which messages call which function.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use edgeward::{
    ContentMode, EdgeError, ErrorKind, FunctionId, Node, Redelivery, Source, Target, TopicFilter, Trigger, TriggerId, TriggerView,
    limits::{TRIGGER_BODY_BYTES_MAX, TRIGGER_CONCURRENCY_DEFAULT},
    topics::Expected,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Refusal, check_target_here, read_body};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct IdPath {
    /// The trigger.
    pub(super) id: String,
}

/// How a message that failed is tried again.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RetryBody {
    /// Attempts in all, 1 to 100.
    pub(crate) attempts: u32,
    /// Pause after the first attempt, which doubles with each.
    pub(crate) pause_min_ms: u64,
    /// Longest pause, up to 3600000.
    pub(crate) pause_max_ms: u64,
}

impl Default for RetryBody {
    fn default() -> Self {
        Redelivery::default().into()
    }
}

impl From<Redelivery> for RetryBody {
    fn from(Redelivery { attempts, pause_min_ms, pause_max_ms }: Redelivery) -> Self {
        Self { attempts, pause_min_ms, pause_max_ms }
    }
}

fn concurrency_default() -> u32 {
    TRIGGER_CONCURRENCY_DEFAULT
}

fn mode_default() -> String {
    "binary".to_owned()
}

/// Which messages call which function.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TriggerBody {
    /// The function that is called; it need not be deployed yet.
    pub(crate) function: String,
    /// Filters of topics, 1 to 32. A message that several match comes once.
    pub(crate) filters: Vec<String>,
    #[serde(default)]
    pub(crate) retry: RetryBody,
    /// Messages that are handled at once, of different keys, 1 to 256.
    #[serde(default = "concurrency_default")]
    pub(crate) concurrency: u32,
    /// How a message becomes a request: `binary` has its payload as the body, `structured` one JSON object.
    #[serde(default = "mode_default")]
    pub(crate) mode: String,
    /// Of a hub: which nodes have it, of those that are to have the function, as `all`, `node=ID` or `site=berlin`; `all` when it is left out.
    #[serde(default = "Target::all")]
    #[schema(value_type = Option<String>)]
    pub(crate) target: Target,
}

impl TriggerBody {
    /// The trigger of this id that a body describes.
    pub(super) fn read(body: &[u8], id: TriggerId) -> Result<Trigger, EdgeError> {
        let read: Self = serde_json::from_slice(body).map_err(|error| {
            let example = r#"{"function": "average", "filters": ["site/+/temp"]}"#;
            EdgeError::invalid(format!("the description of trigger `{id}` is not valid, send {example}: {error}"))
        })?;
        read.into_trigger(id)
    }

    /// The trigger of this id. Its bounds are checked when it is made.
    fn into_trigger(self, id: TriggerId) -> Result<Trigger, EdgeError> {
        let Self { function, filters, retry: RetryBody { attempts, pause_min_ms, pause_max_ms }, concurrency, mode, target } = self;
        let mode = match mode.as_str() {
            "binary" => ContentMode::Binary,
            "structured" => ContentMode::Structured,
            other => {
                let why = format!("trigger `{id}` has the mode `{}`; there are `binary` and `structured`", other.escape_debug());
                return Err(EdgeError::invalid(why));
            }
        };
        Ok(Trigger {
            id,
            function: FunctionId::new(function)?,
            filters: filters.into_iter().map(TopicFilter::new).collect::<Result<_, _>>()?,
            retry: Redelivery { attempts, pause_min_ms, pause_max_ms },
            concurrency,
            mode,
            target,
        })
    }
}

impl From<Trigger> for TriggerBody {
    fn from(trigger: Trigger) -> Self {
        Self {
            function: trigger.function.to_string(),
            filters: trigger.filters.iter().map(ToString::to_string).collect(),
            retry: trigger.retry.into(),
            concurrency: trigger.concurrency,
            mode: match trigger.mode {
                ContentMode::Binary => "binary",
                ContentMode::Structured => "structured",
            }
            .to_owned(),
            target: trigger.target,
        }
    }
}

/// A trigger, and what it has done since the node started.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TriggerAnswer {
    id: String,
    #[serde(flatten)]
    trigger: TriggerBody,
    /// `node`, or `fleet` for what the hub wants here.
    #[schema(value_type = String)]
    source: Source,
    /// Up to which position every message of its filters was handled, or is a dead letter.
    acknowledged: u64,
    /// Positions of the log after that, of whatever topic.
    behind: u64,
    /// Messages that were handled.
    delivered: u64,
    /// Attempts that failed and were followed by another.
    retried: u64,
    /// Messages that became dead letters.
    dead: u64,
    /// Dead letters that gave way to newer ones.
    dead_dropped: u64,
    /// Messages, of whatever topic, that were gone from the log before it came to them.
    lost: u64,
    /// Messages that were not durable, and came while too many waited already.
    dropped: u64,
    /// Messages that wait for the function to be deployed here.
    waiting: u64,
    /// Why it does not run, if it should and cannot.
    failure: Option<String>,
}

impl From<TriggerView> for TriggerAnswer {
    fn from(view: TriggerView) -> Self {
        Self {
            id: view.trigger.id.to_string(),
            trigger: view.trigger.into(),
            source: view.source,
            acknowledged: view.acknowledged,
            behind: view.behind,
            delivered: view.delivered,
            retried: view.retried,
            dead: view.dead,
            dead_dropped: view.dead_dropped,
            lost: view.lost,
            dropped: view.dropped,
            waiting: view.waiting,
            failure: view.failure,
        }
    }
}

/// Every trigger.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TriggersAnswer {
    triggers: Vec<TriggerAnswer>,
}

impl From<Vec<TriggerView>> for TriggersAnswer {
    fn from(views: Vec<TriggerView>) -> Self {
        Self { triggers: views.into_iter().map(TriggerAnswer::from).collect() }
    }
}

/// Every trigger, by id, and how it does.
#[utoipa::path(
    get, path = "/v1/triggers", operation_id = "list_triggers", tag = "triggers", responses((status = 200, body = TriggersAnswer))
)]
pub(crate) async fn list(State(node): State<Arc<Node>>) -> Result<Json<TriggersAnswer>, Refusal> {
    Ok(Json(node.topics().triggers().await?.into()))
}

/// One trigger, and how it does.
#[utoipa::path(
    get, path = "/v1/triggers/{id}", operation_id = "show_trigger", tag = "triggers", params(IdPath),
    responses((status = 200, body = TriggerAnswer), (status = 404, body = super::wire::Problem))
)]
pub(crate) async fn show(State(node): State<Arc<Node>>, Path(IdPath { id }): Path<IdPath>) -> Result<Response, Refusal> {
    Ok(tagged(StatusCode::OK, node.topics().trigger(&TriggerId::new(id)?).await?))
}

/// Makes a trigger, durably. A new one gets what is published from now on; a changed one goes on where it was, by what it is now.
#[utoipa::path(
    put, path = "/v1/triggers/{id}", operation_id = "put_trigger", tag = "triggers", request_body = TriggerBody,
    params(
        IdPath,
        ("If-Match" = Option<String>, Header, description = "The ETag of the trigger that is to be replaced; `*`: any."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only when the trigger is new."),
    ),
    responses(
        (status = 200, description = "Replaced.", body = TriggerAnswer),
        (status = 201, description = "New.", body = TriggerAnswer),
        (status = 400, body = super::wire::Problem),
        (status = 403, description = "The hub wants a trigger of this id here.", body = super::wire::Problem),
        (status = 412, description = "It is another by now.", body = super::wire::Problem),
        (status = 413, description = "There are as many as may be.", body = super::wire::Problem),
    )
)]
pub(crate) async fn put(State(node): State<Arc<Node>>, Path(IdPath { id }): Path<IdPath>, request: Request) -> Result<Response, Refusal> {
    let id = TriggerId::new(id)?;
    let expected = expected(request.headers())?;
    let body = read_body(request, TRIGGER_BODY_BYTES_MAX).await?;
    let trigger = TriggerBody::read(&body.bytes, id.clone())?;
    check_target_here(&node, "trigger", id.as_str(), &trigger.target, &Target::all())?;
    let is_new = node.topics().put_trigger_if(trigger, &expected).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(tagged(status, node.topics().trigger(&id).await?))
}

/// Removes a trigger, durably, and how far it got. Its dead letters stay.
#[utoipa::path(
    delete, path = "/v1/triggers/{id}", operation_id = "delete_trigger", tag = "triggers",
    params(IdPath, ("If-Match" = Option<String>, Header, description = "The ETag of the trigger that is to go; `*`: any.")),
    responses(
        (status = 204),
        (status = 403, body = super::wire::Problem),
        (status = 404, body = super::wire::Problem),
        (status = 412, body = super::wire::Problem),
    )
)]
pub(crate) async fn delete(
    State(node): State<Arc<Node>>,
    Path(IdPath { id }): Path<IdPath>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let id = TriggerId::new(id)?;
    if node.topics().remove_trigger_if(&id, &expected(&headers)?).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(not_found(&id).into())
}

pub(super) fn not_found(id: &TriggerId) -> EdgeError {
    EdgeError::new(ErrorKind::NotFound, format!("trigger not found: `{id}`"))
}

fn tagged(status: StatusCode, view: TriggerView) -> Response {
    let tag = view.tag.clone();
    super::tagged(status, tag, TriggerAnswer::from(view))
}

/// Reads `If-Match` and `If-None-Match` of a request that changes something.
fn expected(headers: &HeaderMap) -> Result<Expected, EdgeError> {
    let text = |name: header::HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Expected::Any),
        (None, Some("*")) => Ok(Expected::Absent),
        (Some("*"), None) => Ok(Expected::Present),
        (Some(tag), None) => {
            let bare = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            bare.map(|tag| Expected::Tag(tag.to_owned())).ok_or_else(|| {
                EdgeError::invalid(format!("If-Match `{}` is neither an ETag of a trigger, in quotes, nor `*`", tag.escape_debug()))
            })
        }
        (_, Some(_)) => Err(EdgeError::invalid("If-None-Match takes only `*` here, and not together with If-Match")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Trigger, EdgeError> {
        TriggerBody::read(json.as_bytes(), TriggerId::new("t").expect("valid"))
    }

    #[test]
    fn a_trigger_reads_back_what_it_writes() {
        let least = read(r#"{"function": "f", "filters": ["site/+/temp"]}"#).expect("reads");
        let filters = vec![TopicFilter::new("site/+/temp").expect("valid")];
        assert_eq!(least, Trigger::new(least.id.clone(), FunctionId::new("f").expect("valid"), filters));
        for mode in [ContentMode::Binary, ContentMode::Structured] {
            let trigger = Trigger { mode, concurrency: 3, target: "site=berlin".parse().expect("valid"), ..least.clone() };
            let json = serde_json::to_string(&TriggerBody::from(trigger.clone())).expect("writes");
            assert_eq!(read(&json).expect("reads"), trigger);
        }
    }

    #[test]
    fn what_is_no_trigger_is_refused_with_the_reason() {
        for (json, why) in [
            ("[]", "send {\"function\""),
            (r#"{"function": "f"}"#, "missing field `filters`"),
            (r#"{"function": "f", "filters": ["a"], "more": 1}"#, "`more`"),
            (r#"{"function": "a b", "filters": ["a"]}"#, "`a b`"),
            (r#"{"function": "f", "filters": ["a/#/b"]}"#, "last level"),
            (r#"{"function": "f", "filters": ["a"], "mode": "batch"}"#, "`binary` and `structured`"),
            (r#"{"function": "f", "filters": ["a"], "target": "count=0"}"#, "count"),
        ] {
            let error = read(json).expect_err(json).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
