//! `/v1/documents/{name}/pending` and `…/confirm`: the changes that nobody has confirmed, for those who carry them themselves.

use axum::{
    extract::{Path, Request, State},
    http::StatusCode,
    response::Response,
};
use edgeward::{EdgeError, blocking};

use super::{
    Api, NamePath, Refusal, not_found, open, read_body, told,
    wire::{self, Confirmation, PendingAnswer},
};

/// Largest confirmation, in bytes: one number and its name.
const CONFIRMATION_BYTES_MAX: usize = 1024;

/// The changes of a document that are not confirmed, oldest first.
#[utoipa::path(
    get, path = "/v1/documents/{name}/pending", operation_id = "list_pending", tag = "documents", params(NamePath),
    responses(
        (status = 200, body = PendingAnswer),
        (status = 403, description = "The document is the node's own.", body = crate::api::wire::Problem),
        (status = 404, body = crate::api::wire::Problem),
    )
)]
pub(crate) async fn list(State(api): State<Api>, Path(NamePath { name }): Path<NamePath>) -> Result<Response, Refusal> {
    told(&api, &name, |document| wire::write_changes("pending", &document.pending()?)).await
}

/// Confirms the pending changes up to a version: they are not listed any more.
#[utoipa::path(
    post, path = "/v1/documents/{name}/confirm", operation_id = "confirm_pending", tag = "documents", params(NamePath),
    request_body = Confirmation,
    responses(
        (status = 204),
        (status = 400, body = crate::api::wire::Problem),
        (status = 403, description = "The document is the node's own.", body = crate::api::wire::Problem),
        (status = 404, body = crate::api::wire::Problem),
    )
)]
pub(crate) async fn confirm(
    State(api): State<Api>,
    Path(NamePath { name }): Path<NamePath>,
    request: Request,
) -> Result<StatusCode, Refusal> {
    let document = open(&api, &name)?;
    let body = read_body(request, CONFIRMATION_BYTES_MAX).await?;
    let Confirmation { up_to_version } = serde_json::from_slice(&body.bytes)
        .map_err(|error| EdgeError::invalid(format!("the confirmation is not valid, send {{\"up_to_version\": 3}}: {error}")))?;
    let confirmed = blocking(move || {
        document.info()?.ok_or_else(|| not_found(&document))?;
        document.confirm(up_to_version)
    });
    confirmed.await?;
    Ok(StatusCode::NO_CONTENT)
}
