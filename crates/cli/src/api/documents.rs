//! `/v1/documents`: reading and changing whole documents. What is inside one has a module of its own.
//!
//! Every route opens its document by [`open`], which refuses those of the node itself. Calls of a document wait for
//! the disk, so they run on a blocking thread, and so does the work with their JSON, which may be large.

pub(crate) mod conflicts;
mod etag;
pub(crate) mod history;
pub(crate) mod keys;
pub(crate) mod pending;
pub(crate) mod policy;
pub(crate) mod watch;
pub(crate) mod wire;

use axum::{
    Json,
    extract::{Path, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use edgeward::{Document, DocumentName, EdgeError, ErrorKind, SyncState, blocking, limits::DOCUMENT_BODY_BYTES_MAX};
use serde::Deserialize;
use utoipa::IntoParams;

use self::{
    etag::{Condition, ETag, is_known},
    wire::{DocumentAnswer, DocumentsAnswer},
};
use super::{Api, Refusal, read_body};

/// The one kind of patch that is taken: RFC 7396.
const MERGE_PATCH: &str = "application/merge-patch+json";
/// Tells which kinds of patches are taken: RFC 5789.
const ACCEPT_PATCH: &str = "accept-patch";

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct NamePath {
    /// The document.
    name: String,
}

/// The document of this name, which need not exist.
fn open(api: &Api, name: &str) -> Result<Document, EdgeError> {
    let name = DocumentName::new(name)?;
    if name.is_reserved() {
        let why = format!("document `{name}` is the node's own, so it is neither read nor written here; choose another name");
        return Err(EdgeError::new(ErrorKind::Forbidden, why));
    }
    Ok(api.documents.document(name))
}

fn not_found(document: &Document) -> EdgeError {
    EdgeError::new(ErrorKind::NotFound, format!("document not found: `{}`", document.name()))
}

/// Answers with what `write` says, as JSON, of a document that exists.
async fn told(
    api: &Api,
    name: &str,
    write: impl FnOnce(&Document) -> Result<String, EdgeError> + Send + 'static,
) -> Result<Response, Refusal> {
    let document = open(api, name)?;
    let text = blocking(move || {
        document.info()?.ok_or_else(|| not_found(&document))?;
        write(&document)
    });
    Ok(([(header::CONTENT_TYPE, "application/json")], text.await?).into_response())
}

/// Every document but the node's own, by name.
#[utoipa::path(
    get, path = "/v1/documents", operation_id = "list_documents", tag = "documents",
    responses((status = 200, body = DocumentsAnswer))
)]
pub(crate) async fn list(State(api): State<Api>) -> Result<Json<DocumentsAnswer>, Refusal> {
    let documents = api.documents.clone();
    let infos = blocking(move || documents.list()).await?;
    Ok(Json(infos.into_iter().filter(|info| !info.name.is_reserved()).collect()))
}

/// One document, whole.
#[utoipa::path(
    get, path = "/v1/documents/{name}", operation_id = "show_document", tag = "documents",
    params(NamePath, ("If-None-Match" = Option<String>, Header, description = "States that the client has, by their ETags.")),
    responses(
        (status = 200, body = DocumentAnswer),
        (status = 304, description = "It is a state that the client has."),
        (status = 403, description = "It is the node's own.", body = super::wire::Problem),
        (status = 404, body = super::wire::Problem),
    )
)]
pub(crate) async fn show(State(api): State<Api>, Path(NamePath { name }): Path<NamePath>, headers: HeaderMap) -> Result<Response, Refusal> {
    let document = open(&api, &name)?;
    let answer = blocking(move || {
        let state = document.view()?.ok_or_else(|| not_found(&document))?;
        let tag = ETag::of(&state);
        if is_known(&headers, &tag) { Ok(not_modified(&tag)) } else { whole(StatusCode::OK, &state) }
    });
    Ok(answer.await?)
}

/// Makes the body, a JSON object, the whole document: keys that it does not have are deleted.
#[utoipa::path(
    put, path = "/v1/documents/{name}", operation_id = "put_document", tag = "documents", request_body = Object,
    params(
        NamePath,
        ("If-Match" = Option<String>, Header, description = "The ETag of the state that is to be replaced; `*`: any."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only when the document is new."),
    ),
    responses(
        (status = 200, description = "Replaced.", body = DocumentAnswer),
        (status = 201, description = "New.", body = DocumentAnswer),
        (status = 400, body = super::wire::Problem),
        (status = 403, description = "It is the node's own, or a key of it is another's.", body = super::wire::Problem),
        (status = 412, description = "It is in another state.", body = super::wire::Problem),
        (status = 413, description = "It is too large.", body = super::wire::Problem),
    )
)]
pub(crate) async fn put(State(api): State<Api>, Path(NamePath { name }): Path<NamePath>, request: Request) -> Result<Response, Refusal> {
    let document = open(&api, &name)?;
    let condition = Condition::read(request.headers())?;
    let body = read_body(request, DOCUMENT_BODY_BYTES_MAX).await?;
    let answer = blocking(move || {
        let data = wire::read_object(&body.bytes)?;
        changed(&document.replace(condition.against(&document)?, data)?)
    });
    Ok(answer.await?)
}

/// Changes the document by a JSON merge patch (RFC 7396): `null` deletes a key. Makes the document when there is none.
#[utoipa::path(
    patch, path = "/v1/documents/{name}", operation_id = "patch_document", tag = "documents",
    request_body(content = Object, content_type = "application/merge-patch+json"),
    params(
        NamePath,
        ("If-Match" = Option<String>, Header, description = "The ETag of the state that is to be changed; `*`: any."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only when the document is new."),
    ),
    responses(
        (status = 200, description = "Changed.", body = DocumentAnswer),
        (status = 201, description = "New.", body = DocumentAnswer),
        (status = 400, body = super::wire::Problem),
        (status = 403, description = "It is the node's own, or a key of it is another's.", body = super::wire::Problem),
        (status = 412, description = "It is in another state.", body = super::wire::Problem),
        (status = 413, description = "It is too large.", body = super::wire::Problem),
        (status = 415, description = "The body is no JSON merge patch.", body = super::wire::Problem),
    )
)]
pub(crate) async fn patch(State(api): State<Api>, Path(NamePath { name }): Path<NamePath>, request: Request) -> Result<Response, Refusal> {
    let document = open(&api, &name)?;
    let condition = Condition::read(request.headers())?;
    if !is_merge_patch(request.headers()) {
        let detail = format!("a document is changed by a body of type `{MERGE_PATCH}` only");
        return Ok((StatusCode::UNSUPPORTED_MEDIA_TYPE, [(ACCEPT_PATCH, MERGE_PATCH)], detail).into_response());
    }
    let body = read_body(request, DOCUMENT_BODY_BYTES_MAX).await?;
    let answer = blocking(move || {
        let patch = wire::read_object(&body.bytes)?;
        changed(&document.patch(condition.against(&document)?, patch)?)
    });
    Ok(answer.await?)
}

/// Deletes every key. The document stays, empty and a version on: its deletion has to reach the other replicas.
#[utoipa::path(
    delete, path = "/v1/documents/{name}", operation_id = "delete_document", tag = "documents",
    params(NamePath, ("If-Match" = Option<String>, Header, description = "The ETag of the state that is to go; `*`: any.")),
    responses(
        (status = 204),
        (status = 403, description = "It is the node's own, or a key of it is another's.", body = super::wire::Problem),
        (status = 404, description = "There is none, or nothing in it.", body = super::wire::Problem),
        (status = 412, description = "It is in another state.", body = super::wire::Problem),
    )
)]
pub(crate) async fn delete(
    State(api): State<Api>,
    Path(NamePath { name }): Path<NamePath>,
    headers: HeaderMap,
) -> Result<StatusCode, Refusal> {
    let document = open(&api, &name)?;
    let condition = Condition::read(&headers)?;
    let deleted = blocking(move || {
        if document.clear(condition.against(&document)?)? {
            return Ok(StatusCode::NO_CONTENT);
        }
        match document.info()? {
            Some(_) => Err(EdgeError::new(ErrorKind::NotFound, format!("document `{}` has no keys to delete", document.name()))),
            None => Err(not_found(&document)),
        }
    });
    Ok(deleted.await?)
}

fn is_merge_patch(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(MERGE_PATCH))
}

/// The answer to a change. The first one makes the document.
fn changed(state: &SyncState) -> Result<Response, EdgeError> {
    whole(if state.version == 1 { StatusCode::CREATED } else { StatusCode::OK }, state)
}

fn whole(status: StatusCode, state: &SyncState) -> Result<Response, EdgeError> {
    Ok(json(status, &ETag::of(state), wire::write_state(state)?))
}

fn json(status: StatusCode, tag: &ETag, text: String) -> Response {
    let headers = [(header::ETAG, tag.to_string()), (header::CONTENT_TYPE, "application/json".to_owned())];
    (status, headers, text).into_response()
}

fn not_modified(tag: &ETag) -> Response {
    (StatusCode::NOT_MODIFIED, [(header::ETAG, tag.to_string())]).into_response()
}
