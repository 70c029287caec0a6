//! `POST /v1/artifacts`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
    response::IntoResponse,
};
use edgeward::{Node, limits::ARTIFACT_BYTES_MAX};

use super::{Refusal, read_body, wire::ArtifactAnswer};

/// Stores an artifact and compiles it.
#[utoipa::path(
    post, path = "/v1/artifacts", tag = "artifacts",
    request_body(content = Vec<u8>, content_type = "application/wasm"),
    responses(
        (status = 201, body = ArtifactAnswer),
        (status = 413, description = "It is too large.", body = super::wire::Problem),
        (status = 422, description = "It cannot run here, and why.", body = super::wire::Problem),
        (status = 503, description = "The node holds too many request bodies; see Retry-After.", body = super::wire::Problem),
    )
)]
pub(crate) async fn upload(State(node): State<Arc<Node>>, request: Request) -> Result<impl IntoResponse, Refusal> {
    let body = read_body(request, ARTIFACT_BYTES_MAX).await?;
    let size_bytes = body.bytes.len();
    let digest = node.add_artifact(body.bytes.clone()).await?.to_string();
    Ok((StatusCode::CREATED, Json(ArtifactAnswer { digest, size_bytes })))
}
