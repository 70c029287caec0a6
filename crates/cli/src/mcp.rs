//! The Model Context Protocol: tools and resources by which an assistant works with a node or with a fleet.
//!
//! A face like the command line: every tool makes calls of the HTTP API, of a process elsewhere or of this one, and shows the token of
//! whoever calls. So it may do what they may do there, and what is refused is refused and audited there. It decides nothing.

mod chaos;
mod contract;
mod deployments;
mod documents;
mod events;
mod functions;
mod observe;
mod resources;
mod routes;
mod schedules;
mod session;
mod tool;
mod topics;

use std::sync::{Arc, LazyLock};

use axum::Router;
use edgeward::limits::MCP_REQUEST_BYTES_MAX;
use http::request::Parts;
use rmcp::{
    ErrorData, RoleServer, ServerHandler, ServiceExt as _,
    model::{
        CallToolRequestParams, CallToolResponse, Implementation, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
        PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig,
    },
    service::RequestContext,
    transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager},
};
use tokio_util::sync::CancellationToken;

use self::{
    session::{Door, Session},
    tool::Toolbox,
};
use crate::client::Client;

/// What the tools are for, in words for an assistant.
const INSTRUCTIONS: &str = "\
Edgeward runs functions on edge nodes and keeps their documents in sync. This server is one of two: a node alone, which is then the one \
node that the tools know, or the hub of a fleet. Begin with `edge_list_nodes`. On a hub, tools about functions take a `node_id`; `edge_invoke_function` finds a node without. \
Documents are JSON objects that merge between nodes; edit them with a merge patch. On a hub, `edge_roll_out_artifact` deploys to many nodes step \
by step and goes back by itself; it, `edge_deploy_artifact` and `edge_undeploy_function` take `dry_run`. A \
node has topics: a message calls the functions that `edge_put_trigger` names, on a hub for nodes of its fleet.";

/// What the tools of a server may do, whatever the role of who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Access {
    /// There is no server
    Off,
    /// Tools that change or run something are refused
    ReadOnly,
    /// All of them, as far as the caller's token may
    ReadWrite,
}

// No doc comment: it would become the description of each command that takes the option.
#[derive(Debug, clap::Args)]
pub(crate) struct McpArgs {
    /// What the Model Context Protocol may do at `/mcp` of the API
    #[arg(long = "mcp", value_name = "ACCESS", default_value = "read-only")]
    pub(crate) access: Access,
}

/// One server, whatever carries its messages.
#[derive(Clone)]
struct Server {
    door: Arc<Door>,
    access: Access,
}

/// Made when somebody first asks: most processes are asked by no assistant.
static TOOLS: LazyLock<Toolbox> = LazyLock::new(Toolbox::all);

impl Server {
    fn new(door: Door, access: Access) -> Self {
        Self { door: Arc::new(door), access }
    }

    /// The session of whoever made this request. A request that came over HTTP has its head.
    fn session<'a>(&'a self, context: &'a RequestContext<RoleServer>) -> Session<'a> {
        Session::new(&self.door, context.extensions.get::<Parts>(), self.access)
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("edgeward", env!("CARGO_PKG_VERSION")).with_title("Edgeward"))
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(TOOLS.list()))
    }

    fn get_tool(&self, name: &str) -> Option<rmcp::model::Tool> {
        TOOLS.get(name).cloned()
    }

    async fn call_tool(&self, request: CallToolRequestParams, context: RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
        TOOLS.call(&self.session(&context), &request.name, request.arguments.unwrap_or_default()).await
    }

    async fn list_resources(
        &self,
        request: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        resources::list(&self.session(&context), request.and_then(|request| request.cursor)).await
    }

    async fn list_resource_templates(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(resources::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        resources::read(&self.session(&context), &request.uri).await
    }
}

/// Serves on standard input and output until the input ends. The tools call the API of the client's server.
pub(crate) async fn serve_stdio(client: Client, access: Access) -> anyhow::Result<()> {
    let running = Server::new(Door::Server(client), access).serve(rmcp::transport::stdio()).await?;
    running.waiting().await?;
    Ok(())
}

/// Serves as streamable HTTP, without sessions. The tools call the API in this process.
pub(crate) fn http_service(
    api: Router,
    access: Access,
    stop: CancellationToken,
) -> StreamableHttpService<impl ServerHandler, NeverSessionManager> {
    let server = Server::new(Door::Here(api), access);
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        // Both are judged where every call of the API is.
        .disable_allowed_hosts()
        .disable_allowed_origins()
        .with_max_request_body_bytes(MCP_REQUEST_BYTES_MAX)
        .with_cancellation_token(stop);
    StreamableHttpService::new(move || Ok(server.clone()), Arc::new(NeverSessionManager::default()), config)
}
