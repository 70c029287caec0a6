//! `/v1/documents/{name}/policy`: how concurrent values of a document, or of some of its keys, become one.
//!
//! A document may have policies before it has keys.

use axum::{
    Json,
    extract::{Path, Query, Request, State},
    http::StatusCode,
};
use edgeward::{EdgeError, ErrorKind, Policy, blocking, limits::KEY_BYTES_MAX};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api, NamePath, Refusal, open, read_body,
    wire::{PoliciesAnswer, PolicyBody},
};

/// Largest body that sets a policy, in bytes: a prefix of which each byte may be escaped, a policy, and their names.
const POLICY_BODY_BYTES_MAX: usize = 6 * KEY_BYTES_MAX + 1024;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
// A name that is mistaken for `prefix` must not remove the policy of the whole document.
#[serde(deny_unknown_fields)]
pub(crate) struct PrefixQuery {
    /// The prefix of the keys whose policy is removed; without it, the policy of the document is.
    #[serde(default)]
    prefix: String,
}

/// The policies of a document by key prefix; the longest that a key begins with holds for it. Where there is none, the latest write
/// wins.
#[utoipa::path(
    get, path = "/v1/documents/{name}/policy", operation_id = "show_policy", tag = "documents", params(NamePath),
    responses(
        (status = 200, body = PoliciesAnswer),
        (status = 403, description = "The document is the node's own.", body = crate::api::wire::Problem),
    )
)]
pub(crate) async fn show(State(api): State<Api>, Path(NamePath { name }): Path<NamePath>) -> Result<Json<PoliciesAnswer>, Refusal> {
    let document = open(&api, &name)?;
    let policies = blocking(move || document.policies()).await?;
    Ok(Json(policies.into_iter().collect()))
}

/// Sets the policy of a document, or of its keys with a prefix. Only a hub can, or a node without one.
#[utoipa::path(
    put, path = "/v1/documents/{name}/policy", operation_id = "put_policy", tag = "documents", params(NamePath),
    request_body = PolicyBody,
    responses(
        (status = 204),
        (status = 400, description = "There is no such policy, or the hub alone sets it.", body = crate::api::wire::Problem),
        (status = 403, description = "The document is the node's own.", body = crate::api::wire::Problem),
        (status = 412, description = "The document has keys, so `version_wins` cannot begin or end.", body = crate::api::wire::Problem),
    )
)]
pub(crate) async fn put(State(api): State<Api>, Path(NamePath { name }): Path<NamePath>, request: Request) -> Result<StatusCode, Refusal> {
    let document = open(&api, &name)?;
    let body = read_body(request, POLICY_BODY_BYTES_MAX).await?;
    let PolicyBody { policy, prefix } = serde_json::from_slice(&body.bytes)
        .map_err(|error| EdgeError::invalid(format!("the policy is not valid, send {{\"policy\": \"max\", \"prefix\": \"\"}}: {error}")))?;
    let policy: Policy = policy.parse()?;
    blocking(move || document.set_policy(&prefix, Some(&policy))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Removes the policy of a document, or of its keys with a prefix.
#[utoipa::path(
    delete, path = "/v1/documents/{name}/policy", operation_id = "delete_policy", tag = "documents", params(NamePath, PrefixQuery),
    responses(
        (status = 204),
        (status = 400, description = "The hub alone removes it.", body = crate::api::wire::Problem),
        (status = 403, description = "The document is the node's own.", body = crate::api::wire::Problem),
        (status = 404, body = crate::api::wire::Problem),
        (status = 412, description = "The document has keys, so `version_wins` cannot end.", body = crate::api::wire::Problem),
    )
)]
pub(crate) async fn delete(
    State(api): State<Api>,
    Path(NamePath { name }): Path<NamePath>,
    Query(PrefixQuery { prefix }): Query<PrefixQuery>,
) -> Result<StatusCode, Refusal> {
    let document = open(&api, &name)?;
    let removed = blocking(move || {
        if !document.policies()?.contains_key(&prefix) {
            let of =
                if prefix.is_empty() { String::new() } else { format!(" of its own for keys with the prefix `{}`", prefix.escape_debug()) };
            return Err(EdgeError::new(ErrorKind::NotFound, format!("document `{}` has no policy{of}", document.name())));
        }
        document.set_policy(&prefix, None)
    });
    removed.await?;
    Ok(StatusCode::NO_CONTENT)
}
