//! `/v1/routes` of a hub: which nodes the calls of each function may go to, and how they do.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State},
};
use edgeward::{EdgeError, FleetHub, RouteView, blocking};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::{Refusal, wire};

#[derive(Debug, Deserialize, IntoParams)]
pub(crate) struct RoutesQuery {
    /// Only of this function.
    function: Option<String>,
}

/// The ways of calls, by function.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RoutesAnswer {
    /// `function`, `balance`, `locality`; `calls`, `retries`, `retries_denied` by the budget, `refused_full` and `refused_unavailable` since the hub began;
    /// calls `in_flight`; and `candidates` in the order in which they are asked, each with `node`, `site`, `nearness`, `status`, `is_draining`, `weight`,
    /// `breaker` (`closed`, `open` or `half_open`), its `openings`, `why_not` when it gets no calls now, `in_flight`, `latency_ms`, `cost`, `picks`, `successes`,
    /// `failures`, `cancelled` and `last_error`.
    #[schema(value_type = Vec<Object>)]
    routes: Vec<RouteView>,
}

/// How the calls of each function are routed, and what the hub has seen of its nodes.
#[utoipa::path(
    get, path = "/v1/routes", operation_id = "list_routes", tag = "functions", params(RoutesQuery),
    responses(
        (status = 200, body = RoutesAnswer),
        (status = 404, description = "No node has such a function.", body = wire::Problem),
        (status = 503, description = "This hub is not the active one.", body = wire::Problem),
    )
)]
pub(crate) async fn list(State(hub): State<Arc<FleetHub>>, Query(query): Query<RoutesQuery>) -> Result<Json<RoutesAnswer>, Refusal> {
    hub.check_active()?;
    let cluster = hub.cluster().clone();
    let mut routes = blocking(move || cluster.routes()).await?;
    if let Some(function) = query.function {
        routes.retain(|route| route.function.as_str() == function);
        if routes.is_empty() {
            return Err(EdgeError::function_not_found(&function).into());
        }
    }
    Ok(Json(RoutesAnswer { routes }))
}
