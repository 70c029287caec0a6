//! `/v1/trusted-keys`: whose signatures the nodes of the fleet trust.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::{Path, Query, Request, State},
    http::StatusCode,
    response::IntoResponse,
};
use edgeward::{EdgeError, FleetHub, PublicKey, TrustedKey, access::Caller, blocking};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::{Refusal, audit, read_body, wire};

/// Largest description of a key, in bytes.
const BODY_BYTES_MAX: usize = 4 * 1024;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct KeyPath {
    /// The key: `ed25519:` and 64 hexadecimal digits.
    key: String,
}

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct RemovalQuery {
    /// Remove it also when it is the last one, after which everything may run unsigned.
    #[serde(default)]
    allow_unsigned: bool,
}

/// A key that is to be trusted.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TrustedKeyBody {
    /// `ed25519:` and 64 hexadecimal digits.
    #[schema(value_type = String)]
    pub(crate) key: PublicKey,
    /// For people.
    #[serde(default)]
    pub(crate) name: String,
}

/// A key that is trusted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TrustedKeyAnswer {
    #[schema(value_type = String)]
    key: PublicKey,
    name: String,
    #[schema(value_type = String, format = DateTime)]
    added_at: Timestamp,
}

impl From<TrustedKey> for TrustedKeyAnswer {
    fn from(TrustedKey { key, name, added_at }: TrustedKey) -> Self {
        Self { key, name, added_at }
    }
}

/// Every key that is trusted; none: nothing need be signed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TrustedKeysAnswer {
    keys: Vec<TrustedKeyAnswer>,
}

/// The keys whose signatures the nodes of the fleet trust. Where there is none, nothing need be signed.
#[utoipa::path(
    get, path = "/v1/trusted-keys", operation_id = "list_trusted_keys", tag = "trust", responses((status = 200, body = TrustedKeysAnswer))
)]
pub(crate) async fn list(State(hub): State<Arc<FleetHub>>) -> Result<Json<TrustedKeysAnswer>, Refusal> {
    let keys = blocking(move || hub.cluster().trusted_keys().list()).await?;
    Ok(Json(TrustedKeysAnswer { keys: keys.into_iter().map(TrustedKeyAnswer::from).collect() }))
}

/// Lets the nodes trust a key. With the first one they run signed artifacts only, and stop what is not.
#[utoipa::path(
    post, path = "/v1/trusted-keys", operation_id = "trust_key", tag = "trust", request_body = TrustedKeyBody,
    responses(
        (status = 201, body = TrustedKeyAnswer),
        (status = 400, body = wire::Problem),
        (status = 412, description = "It is trusted already.", body = wire::Problem),
        (status = 413, description = "There are as many as may be.", body = wire::Problem),
        (status = 503, description = "This hub is not the active one.", body = wire::Problem),
    )
)]
pub(crate) async fn add(
    State(hub): State<Arc<FleetHub>>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Result<impl IntoResponse, Refusal> {
    let body = read_body(request, BODY_BYTES_MAX).await?;
    let TrustedKeyBody { key, name } = serde_json::from_slice(&body.bytes)
        .map_err(|error| EdgeError::invalid(format!("the description of the key is not valid: {error}")))?;
    hub.check_active()?;
    let trusted = blocking(move || hub.cluster().trust_key(key, name)).await?;
    audit::trust_changed("trusts a key", &key, caller.as_deref());
    Ok((StatusCode::CREATED, Json(TrustedKeyAnswer::from(trusted))))
}

/// Lets the nodes trust a key no more: they stop what it signed.
#[utoipa::path(
    delete, path = "/v1/trusted-keys/{key}", operation_id = "distrust_key", tag = "trust", params(KeyPath, RemovalQuery),
    responses(
        (status = 204),
        (status = 404, body = wire::Problem),
        (status = 412, description = "It is the last one.", body = wire::Problem),
        (status = 503, description = "This hub is not the active one.", body = wire::Problem),
    )
)]
pub(crate) async fn remove(
    State(hub): State<Arc<FleetHub>>,
    caller: Option<Extension<Caller>>,
    Path(KeyPath { key }): Path<KeyPath>,
    Query(RemovalQuery { allow_unsigned }): Query<RemovalQuery>,
) -> Result<StatusCode, Refusal> {
    let key: PublicKey = key.parse()?;
    hub.check_active()?;
    blocking(move || hub.cluster().distrust_key(&key, allow_unsigned)).await?;
    audit::trust_changed("trusts a key no more", &key, caller.as_deref());
    Ok(StatusCode::NO_CONTENT)
}
