//! `/v1/documents/{name}/conflicts`: writes that did not know of each other, and what becomes of them.

use axum::{
    extract::{Path, Query, Request, State},
    http::StatusCode,
    response::Response,
};
use edgeward::{
    EdgeError, blocking,
    limits::{CONFLICTS_PAGE_DEFAULT, CONFLICTS_PAGE_MAX, DOCUMENT_BODY_BYTES_MAX},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{
    Api, NamePath, Refusal, open, read_body, told,
    wire::{self, ConflictsAnswer, ResolutionBody},
};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct ConflictPath {
    /// The document.
    name: String,
    /// The conflict.
    id: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PartOfConflicts {
    /// Only those with ids after this one: the `next` of the answer before.
    #[serde(default)]
    after: String,
    /// At most so many, from 1 to 1000; 100 when it is not told.
    limit: Option<usize>,
}

/// The conflicts of a document that nobody has resolved, in the order in which what lost was written.
#[utoipa::path(
    get, path = "/v1/documents/{name}/conflicts", operation_id = "list_conflicts", tag = "documents", params(NamePath, PartOfConflicts),
    responses(
        (status = 200, body = ConflictsAnswer),
        (status = 400, body = crate::api::wire::Problem),
        (status = 403, description = "The document is the node's own.", body = crate::api::wire::Problem),
        (status = 404, body = crate::api::wire::Problem),
    )
)]
pub(crate) async fn list(
    State(api): State<Api>,
    Path(NamePath { name }): Path<NamePath>,
    Query(PartOfConflicts { after, limit }): Query<PartOfConflicts>,
) -> Result<Response, Refusal> {
    let limit = limit.unwrap_or(CONFLICTS_PAGE_DEFAULT);
    if limit == 0 || limit > CONFLICTS_PAGE_MAX {
        return Err(EdgeError::invalid(format!("`limit` is from 1 to {CONFLICTS_PAGE_MAX}, not {limit}")).into());
    }
    told(&api, &name, move |document| wire::write_conflicts(&document.conflicts_after(&after, limit)?)).await
}

/// Resolves a conflict, here and at every replica: the key gets what the body says, which is one of four.
#[utoipa::path(
    post, path = "/v1/documents/{name}/conflicts/{id}/resolve", operation_id = "resolve_conflict", tag = "documents",
    params(ConflictPath), request_body = ResolutionBody,
    responses(
        (status = 204),
        (status = 400, body = crate::api::wire::Problem),
        (status = 403, description = "The document is the node's own.", body = crate::api::wire::Problem),
        (status = 404, description = "There is no such conflict, or somebody has resolved it.", body = crate::api::wire::Problem),
        (status = 413, description = "The value is too large, or was too large to be listed.", body = crate::api::wire::Problem),
    )
)]
pub(crate) async fn resolve(
    State(api): State<Api>,
    Path(ConflictPath { name, id }): Path<ConflictPath>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    let document = open(&api, &name)?;
    let body = read_body(request, DOCUMENT_BODY_BYTES_MAX).await?;
    blocking(move || document.resolve(&id, wire::read_resolution(&body.bytes)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
