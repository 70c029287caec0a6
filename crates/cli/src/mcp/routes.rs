//! The tool about routes: which nodes the calls of each function go to.

use edgeward::FunctionId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    session::{Place, Session, ToolError},
    tool::{EdgeTool, Effect},
};

/// Parameters of `edge_list_routes`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListRoutes {
    /// Only of this function.
    #[serde(default)]
    function_id: Option<String>,
}

/// Routes, by function.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct RouteList {
    routes: Vec<Route>,
}

/// How the calls of one function are routed. Counts are since the hub began.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Route {
    function: String,
    /// How a node is chosen among equals.
    balance: String,
    /// Whether near nodes come first: `nearest` or `any`.
    locality: String,
    /// Calls, each counted once.
    calls: u64,
    /// Attempts beside the first.
    retries: u64,
    /// Retries that the budget denied.
    retries_denied: u64,
    /// Attempts that found every place taken.
    refused_full: u64,
    /// Attempts that found no node.
    refused_unavailable: u64,
    /// Attempts that are under way.
    in_flight: u64,
    /// Its nodes in the order in which they are asked: `node`, `status`, `breaker` (`closed`, `open` or `half_open`), `why_not` when it gets no calls now,
    /// `in_flight`, `latency_ms`, `picks`, `successes`, `failures`, `last_error` and more.
    candidates: Vec<Map<String, Value>>,
}

impl EdgeTool for ListRoutes {
    const NAME: &'static str = "edge_list_routes";
    const TITLE: &'static str = "Routes";
    const ABOUT: &'static str = "Shows which nodes the calls of each function go to, how they do, whose breaker is open, and how often calls were \
        retried or refused. Only a hub has routes.";
    const EFFECT: Effect = Effect::Reads;
    type Output = RouteList;

    async fn run(self, session: &Session<'_>) -> Result<RouteList, ToolError> {
        if let Place::Node(node) = session.place().await? {
            return Err(ToolError::not_found(format!("this is node `{}`, which has no routes: ask the hub of its fleet", node.id)));
        }
        let function = self.function_id.map(FunctionId::new).transpose()?;
        let query = function.map_or_else(String::new, |function| format!("?function={function}"));
        session.read(format!("/v1/routes{query}")).await
    }
}
