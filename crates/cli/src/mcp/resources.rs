//! Resources: nodes, functions and documents under addresses of their own, as JSON.

use edgeward::{DocumentName, ErrorKind, FunctionId, NodeId};
use rmcp::{
    ErrorData,
    model::{ListResourcesResult, ReadResourceResponse, ReadResourceResult, Resource, ResourceContents, ResourceTemplate},
};

use super::{
    contract, documents,
    session::{Place, Session, ToolError},
};
use crate::client::{Documents, Functions};

/// Resources that are listed at once.
const PAGE: usize = 500;
const JSON: &str = "application/json";

/// What a resource is.
#[derive(Debug, PartialEq, Eq)]
enum Address {
    Node(NodeId),
    Function(FunctionId),
    Document(DocumentName),
}

impl Address {
    fn read(uri: &str) -> Result<Self, ErrorData> {
        let unknown = || {
            let shown: String = uri.chars().take(128).collect();
            let known = "edgeward://nodes/ID, edgeward://functions/ID and edgeward://documents/NAME";
            ErrorData::resource_not_found(format!("there is no resource `{}`; there are {known}", shown.escape_debug()), None)
        };
        let (kind, name) = uri.strip_prefix("edgeward://").and_then(|path| path.split_once('/')).ok_or_else(unknown)?;
        match kind {
            "nodes" => NodeId::new(name).map(Self::Node).map_err(|_| unknown()),
            "functions" => FunctionId::new(name).map(Self::Function).map_err(|_| unknown()),
            "documents" => DocumentName::new(name).map(Self::Document).map_err(|_| unknown()),
            _ => Err(unknown()),
        }
    }
}

fn protocol_error(error: &ToolError) -> ErrorData {
    let message = error.message().to_owned();
    match error.kind {
        ErrorKind::NotFound => ErrorData::resource_not_found(message, None),
        ErrorKind::InvalidInput
        | ErrorKind::TooLarge
        | ErrorKind::RefusedArtifact
        | ErrorKind::Conflict
        | ErrorKind::Forbidden
        | ErrorKind::Unauthenticated => ErrorData::invalid_request(message, None),
        // Nothing was wrong with the request.
        ErrorKind::Internal
        | ErrorKind::Unavailable
        | ErrorKind::Overloaded
        | ErrorKind::Timeout
        | ErrorKind::ExecutionFailed
        | ErrorKind::MemoryLimit => ErrorData::internal_error(message, None),
    }
}

/// The resources that there are, a page of them. The cursor is the number of those before.
pub(super) async fn list(session: &Session<'_>, cursor: Option<String>) -> Result<ListResourcesResult, ErrorData> {
    let refused = |_| ErrorData::invalid_params("the cursor is not one that this server gave", None);
    let first: usize = cursor.map(|cursor| cursor.parse()).transpose().map_err(refused)?.unwrap_or_default();
    let mut every = every(session).await.map_err(|error| protocol_error(&error))?;
    let mut page = every.split_off(first.min(every.len()));
    let is_more = page.len() > PAGE;
    page.truncate(PAGE);
    let mut result = ListResourcesResult::with_all_items(page);
    result.next_cursor = is_more.then(|| (first + PAGE).to_string());
    Ok(result)
}

async fn every(session: &Session<'_>) -> Result<Vec<Resource>, ToolError> {
    let resource =
        |kind: &str, id: &str, title: String| Resource::new(format!("edgeward://{kind}/{id}"), id).with_title(title).with_mime_type(JSON);
    let mut resources = Vec::new();
    for node in contract::nodes(session, None).await? {
        resources.push(resource("nodes", node.id.as_str(), format!("Node {} ({})", node.name, node.status)));
    }
    let mut functions = session.read::<Functions>("/v1/functions").await?.functions;
    functions.sort_by(|a, b| a.id.cmp(&b.id));
    functions.dedup_by(|a, b| a.id == b.id);
    for function in functions {
        resources.push(resource("functions", function.id.as_str(), format!("Function {}", function.name)));
    }
    for document in session.read::<Documents>("/v1/documents").await?.documents {
        resources.push(resource(
            "documents",
            document.name.as_str(),
            format!("Document {} at version {}", document.name, document.version),
        ));
    }
    Ok(resources)
}

/// How the addresses of resources are made.
pub(super) fn templates() -> Vec<ResourceTemplate> {
    [
        ("edgeward://nodes/{id}", "node", "A node: status, why, load, labels"),
        ("edgeward://functions/{id}", "function", "A function, on every node that has it"),
        ("edgeward://documents/{name}", "document", "A document: data, version, checksum"),
    ]
    .into_iter()
    .map(|(uri, name, about)| ResourceTemplate::new(uri, name).with_description(about).with_mime_type(JSON))
    .collect()
}

/// One resource.
pub(super) async fn read(session: &Session<'_>, uri: &str) -> Result<ReadResourceResponse, ErrorData> {
    let address = Address::read(uri)?;
    let text = text(session, &address).await.map_err(|error| protocol_error(&error))?;
    let contents = ResourceContents::text(text, uri).with_mime_type(JSON);
    Ok(ReadResourceResult::new(vec![contents]).into())
}

async fn text(session: &Session<'_>, address: &Address) -> Result<String, ToolError> {
    let path = match address {
        Address::Document(document) => {
            // Refused rather than told wrongly, as by the tool.
            let state = documents::state_of(session, document).await?;
            return Ok(serde_json::to_string(&state).expect("a state is an object with keys of text"));
        }
        Address::Function(id) => format!("/v1/functions/{id}"),
        Address::Node(id) => match session.place().await? {
            Place::Hub => format!("/v1/nodes/{id}"),
            Place::Node(node) if node.id == *id => {
                return Ok(serde_json::to_string(&node).expect("a node is an object with keys of text"));
            }
            Place::Node(_) => return Err(edgeward::EdgeError::node_not_found(id.as_str()).into()),
        },
    };
    Ok(String::from_utf8_lossy(&session.get(path).await?.bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_a_node_a_function_or_a_document() {
        let id = |id| NodeId::new(id).expect("valid");
        assert_eq!(Address::read("edgeward://nodes/edge-01").expect("valid"), Address::Node(id("edge-01")));
        for bad in ["edgeward://nodes/", "edgeward://nodes/a/b", "edgeward://tokens/a", "file:///etc/passwd", ""] {
            assert!(Address::read(bad).expect_err(bad).message.contains("there is no resource"), "{bad}");
        }
    }

    #[test]
    fn a_server_that_cannot_be_reached_is_not_the_fault_of_the_request() {
        let code = |kind| protocol_error(&ToolError::from(edgeward::EdgeError::new(kind, "why"))).code;
        assert_eq!(code(ErrorKind::Unavailable), rmcp::model::ErrorCode::INTERNAL_ERROR);
        assert_eq!(code(ErrorKind::Forbidden), rmcp::model::ErrorCode::INVALID_REQUEST);
    }
}
