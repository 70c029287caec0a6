//! `GET /v1/documents/{name}/history`: how a document came to be what it is, as far back as that is kept.

use axum::{
    extract::{Path, State},
    response::Response,
};

use super::{
    Api, NamePath, Refusal, told,
    wire::{self, HistoryAnswer},
};

/// The changes of a document that are kept, oldest first: those that are not confirmed, and a bounded number of the others.
#[utoipa::path(
    get, path = "/v1/documents/{name}/history", operation_id = "list_history", tag = "documents", params(NamePath),
    responses(
        (status = 200, body = HistoryAnswer),
        (status = 403, description = "The document is the node's own.", body = crate::api::wire::Problem),
        (status = 404, body = crate::api::wire::Problem),
    )
)]
pub(crate) async fn list(State(api): State<Api>, Path(NamePath { name }): Path<NamePath>) -> Result<Response, Refusal> {
    told(&api, &name, |document| wire::write_changes("history", &document.history()?)).await
}
