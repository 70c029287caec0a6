//! `/v1/dead-letters`: messages that the functions of triggers could not handle.

use axum::{
    Extension, Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use edgeward::{DeadLetter, TriggerId, access::Caller, topics::trigger_of};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{kept::KeptTopics, rights, wire::MessageAnswer};
use crate::api::{Refusal, audit, wire::Problem};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct LettersQuery {
    /// Those of this trigger only.
    trigger: Option<String>,
    /// Those after this id: the `next` of the page before.
    #[serde(default)]
    after: u64,
    /// Those of this node, which a hub asks and must be told.
    node: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct LetterPath {
    /// The dead letter.
    id: u64,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct OfNodeQuery {
    /// That of this node, which a hub asks and must be told.
    node: Option<String>,
}

/// A message that could not be handled.
#[derive(Debug, Serialize, ToSchema)]
struct LetterAnswer {
    id: u64,
    /// The trigger whose function could not handle it.
    trigger: String,
    /// What the last attempt failed of.
    why: String,
    /// How often it was tried.
    attempts: u32,
    /// When it was given up.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Whether it is to be tried again.
    is_to_retry: bool,
    message: MessageAnswer,
}

impl From<DeadLetter> for LetterAnswer {
    fn from(letter: DeadLetter) -> Self {
        Self {
            id: letter.id,
            trigger: trigger_of(&letter).to_owned(),
            message: MessageAnswer::of(&letter.message),
            why: letter.why,
            attempts: letter.attempts,
            at: letter.at,
            is_to_retry: letter.is_to_retry,
        }
    }
}

/// A page of dead letters.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LettersAnswer {
    dead_letters: Vec<LetterAnswer>,
    /// What to give as `after` for the next page, which may be empty; `null` when there is none.
    next: Option<u64>,
}

/// Messages that were given up, by id. They stay until they are tried again or discarded; there are 10,000 at most.
#[utoipa::path(
    get, path = "/v1/dead-letters", operation_id = "list_dead_letters", tag = "topics", params(LettersQuery),
    responses(
        (status = 200, body = LettersAnswer),
        (status = 400, body = Problem),
        (status = 404, body = Problem),
        (status = 503, description = "The node is not connected.", body = Problem),
    )
)]
pub(crate) async fn list(
    State(kept): State<KeptTopics>,
    caller: Option<Extension<Caller>>,
    Query(LettersQuery { trigger, after, node }): Query<LettersQuery>,
) -> Result<Json<LettersAnswer>, Refusal> {
    let rights = rights(caller.as_deref());
    let trigger = trigger.map(TriggerId::new).transpose()?;
    let letters = kept.dead_letters(node.as_deref(), trigger.as_ref(), after).await?;
    let next = letters.last().map(|last| last.id);
    let seen = letters.into_iter().filter(|letter| rights.may_see(&letter.message.topic));
    Ok(Json(LettersAnswer { dead_letters: seen.map(LetterAnswer::from).collect(), next }))
}

/// Has a message tried again by its trigger, from the first attempt on.
#[utoipa::path(
    post, path = "/v1/dead-letters/{id}/retry", operation_id = "retry_dead_letter", tag = "topics", params(LetterPath, OfNodeQuery),
    responses(
        (status = 202),
        (status = 404, body = Problem),
        (status = 412, description = "Its trigger was removed.", body = Problem),
        (status = 503, description = "The node is not connected.", body = Problem),
    )
)]
pub(crate) async fn retry(
    State(kept): State<KeptTopics>,
    Path(LetterPath { id }): Path<LetterPath>,
    Query(OfNodeQuery { node }): Query<OfNodeQuery>,
    caller: Option<Extension<Caller>>,
) -> Result<StatusCode, Refusal> {
    kept.retry_dead_letter(node.as_deref(), id).await?;
    audit::dead_letter("had a dead letter tried again", id, node.as_deref(), caller.as_deref());
    Ok(StatusCode::ACCEPTED)
}

/// Removes a message that was given up, for good.
#[utoipa::path(
    delete, path = "/v1/dead-letters/{id}", operation_id = "discard_dead_letter", tag = "topics", params(LetterPath, OfNodeQuery),
    responses(
        (status = 204),
        (status = 404, body = Problem),
        (status = 503, description = "The node is not connected.", body = Problem),
    )
)]
pub(crate) async fn discard(
    State(kept): State<KeptTopics>,
    Path(LetterPath { id }): Path<LetterPath>,
    Query(OfNodeQuery { node }): Query<OfNodeQuery>,
    caller: Option<Extension<Caller>>,
) -> Result<StatusCode, Refusal> {
    kept.discard_dead_letter(node.as_deref(), id).await?;
    audit::dead_letter("discarded a dead letter", id, node.as_deref(), caller.as_deref());
    Ok(StatusCode::NO_CONTENT)
}
