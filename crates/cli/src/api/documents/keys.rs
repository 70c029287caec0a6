//! `/v1/documents/{name}/keys/{key}`: the value of one key.

use axum::{
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use edgeward::{Document, EdgeError, Edited, ErrorKind, blocking, limits::DOCUMENT_BODY_BYTES_MAX, python_json};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api, Refusal,
    etag::{Condition, ETag, is_known},
    json, not_found, not_modified, open, read_body, wire,
};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct KeyPath {
    /// The document.
    name: String,
    /// The key.
    key: String,
}

fn key_not_found(document: &Document, key: &str) -> EdgeError {
    EdgeError::new(ErrorKind::NotFound, format!("document `{}` has no key `{}`", document.name(), key.escape_debug()))
}

/// The value of one key, with the ETag of the document.
#[utoipa::path(
    get, path = "/v1/documents/{name}/keys/{key}", operation_id = "show_key", tag = "documents",
    params(KeyPath, ("If-None-Match" = Option<String>, Header, description = "States of the document that the client has, by their ETags.")),
    responses(
        (status = 200, body = serde_json::Value),
        (status = 304, description = "The document is in a state that the client has."),
        (status = 403, description = "The document is the node's own.", body = crate::api::wire::Problem),
        (status = 404, body = crate::api::wire::Problem),
    )
)]
pub(crate) async fn show(
    State(api): State<Api>,
    Path(KeyPath { name, key }): Path<KeyPath>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let document = open(&api, &name)?;
    let answer = blocking(move || {
        let state = document.view()?.ok_or_else(|| not_found(&document))?;
        let value = state.data.0.get(&key).ok_or_else(|| key_not_found(&document, &key))?;
        let tag = ETag::of(&state);
        if is_known(&headers, &tag) { Ok(not_modified(&tag)) } else { Ok(json(StatusCode::OK, &tag, python_json::write(value)?)) }
    });
    Ok(answer.await?)
}

/// Sets one key to the body, any JSON value; `null` is one. Makes the document when there is none.
#[utoipa::path(
    put, path = "/v1/documents/{name}/keys/{key}", operation_id = "put_key", tag = "documents", request_body = serde_json::Value,
    params(
        KeyPath,
        ("If-Match" = Option<String>, Header, description = "The ETag of the document that is to be changed; `*`: any."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only when the document is new."),
    ),
    responses(
        (status = 204, description = "Set; the ETag is left out when the document has changed again since."),
        (status = 400, body = crate::api::wire::Problem),
        (status = 403, description = "The document is the node's own, or the key is another's.", body = crate::api::wire::Problem),
        (status = 412, description = "The document is in another state.", body = crate::api::wire::Problem),
        (status = 413, description = "The value is too large.", body = crate::api::wire::Problem),
    )
)]
pub(crate) async fn put(State(api): State<Api>, Path(KeyPath { name, key }): Path<KeyPath>, request: Request) -> Result<Response, Refusal> {
    let document = open(&api, &name)?;
    let condition = Condition::read(request.headers())?;
    let body = read_body(request, DOCUMENT_BODY_BYTES_MAX).await?;
    let answer = blocking(move || {
        let value = wire::read_value(&body.bytes)?;
        let edited = document.edit(condition.against(&document)?, move |draft| draft.set(&key, &value))?;
        changed(&document, &edited)
    });
    Ok(answer.await?)
}

/// Deletes one key.
#[utoipa::path(
    delete, path = "/v1/documents/{name}/keys/{key}", operation_id = "delete_key", tag = "documents",
    params(KeyPath, ("If-Match" = Option<String>, Header, description = "The ETag of the document that is to be changed; `*`: any.")),
    responses(
        (status = 204, description = "Deleted; the ETag is left out when the document has changed again since."),
        (status = 403, description = "The document is the node's own, or the key is another's.", body = crate::api::wire::Problem),
        (status = 404, body = crate::api::wire::Problem),
        (status = 412, description = "The document is in another state.", body = crate::api::wire::Problem),
    )
)]
pub(crate) async fn delete(
    State(api): State<Api>,
    Path(KeyPath { name, key }): Path<KeyPath>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let document = open(&api, &name)?;
    let condition = Condition::read(&headers)?;
    let answer = blocking(move || {
        let precondition = condition.against(&document)?;
        let missing = key_not_found(&document, &key);
        let edited = document.edit(precondition, move |draft| match draft.get(&key)? {
            Some(_) => draft.remove(&key),
            None => Err(missing),
        })?;
        changed(&document, &edited)
    });
    Ok(answer.await?)
}

/// The answer to a change. Its tag is of the state that the change led to, or none: with that of a later state the client
/// would overwrite what it never saw.
fn changed<T>(document: &Document, edited: &Edited<T>) -> Result<Response, EdgeError> {
    let state = document.view()?.filter(|state| state.version == edited.version);
    let tag = state.map(|state| [(header::ETAG, ETag::of(&state).to_string())]);
    Ok((StatusCode::NO_CONTENT, tag, ()).into_response())
}
