//! How a tool calls the HTTP API: in the name of who called the tool, here or elsewhere.

use std::error::Error as _;

use axum::{Router, body::Body};
use bytes::Bytes;
use edgeward::{EdgeError, EdgeNode, ErrorKind, listener::Peer};
use http::{
    HeaderMap, Method, StatusCode,
    header::{AUTHORIZATION, HOST, USER_AGENT},
    request::Parts,
};
use http_body_util::{BodyExt as _, Limited};
use serde::de::DeserializeOwned;
use serde_json::json;
use tower::ServiceExt as _;

use super::Access;
use crate::client::{self, ANSWER_BYTES_MAX, Client, Problem, Process, Request};

/// Which API the tools call.
pub(super) enum Door {
    /// That of another process.
    Server(Client),
    /// That of this process.
    Here(Router),
}

/// The calls of one request.
pub(super) struct Session<'a> {
    door: &'a Door,
    /// The head of the HTTP request, if it came so.
    caller: Option<&'a Parts>,
    access: Access,
}

/// A success of the API, whole.
pub(super) struct Reply {
    pub(super) headers: HeaderMap,
    pub(super) bytes: Bytes,
}

/// Who answers.
pub(super) enum Place {
    /// The hub of a fleet.
    Hub,
    /// A node alone, or a member that speaks for itself.
    Node(Box<EdgeNode>),
}

/// Why a tool failed, in words for its caller.
#[derive(Debug)]
pub(super) struct ToolError {
    pub(super) kind: ErrorKind,
    message: String,
}

impl ToolError {
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::InvalidInput, message: message.into() }
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::NotFound, message: message.into() }
    }

    /// What the contract says of an error, and its kind.
    pub(super) fn json(&self) -> serde_json::Value {
        json!({ "status": "error", "error": self.message, "kind": self.kind.as_str() })
    }

    /// What failed, and why.
    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

impl From<EdgeError> for ToolError {
    fn from(error: EdgeError) -> Self {
        Self { kind: error.kind(), message: error.chain() }
    }
}

impl From<client::Error> for ToolError {
    fn from(error: client::Error) -> Self {
        let client::Error::Refused(problem) = error else {
            let mut message = error.to_string();
            let mut next = error.source();
            while let Some(cause) = next {
                message = format!("{message}: {cause}");
                next = cause.source();
            }
            return Self { kind: ErrorKind::Unavailable, message };
        };
        let mut message = problem.message();
        for cause in &problem.causes {
            message = format!("{message}: {cause}");
        }
        if !problem.failure.stderr_tail.is_empty() {
            message = format!("{message}\nthe end of its standard error:\n{}", problem.failure.stderr_tail);
        }
        Self { kind: problem.kind, message }
    }
}

impl<'a> Session<'a> {
    pub(super) fn new(door: &'a Door, caller: Option<&'a Parts>, access: Access) -> Self {
        Self { door, caller, access }
    }

    /// Asks for what is at `path`.
    pub(super) async fn get(&self, path: impl Into<String>) -> Result<Reply, ToolError> {
        Ok(self.send(Request::new(Method::GET, path)).await?)
    }

    /// The same, read from JSON.
    pub(super) async fn read<T: DeserializeOwned>(&self, path: impl Into<String>) -> Result<T, ToolError> {
        self.get(path).await?.json()
    }

    /// The same, where nothing may be there.
    pub(super) async fn find<T: DeserializeOwned>(&self, path: impl Into<String>) -> Result<Option<T>, ToolError> {
        match self.read(path).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a call that changes nothing, though its method is not `GET`.
    pub(super) async fn ask(&self, request: Request) -> Result<Reply, ToolError> {
        Ok(self.send(request).await?)
    }

    /// Changes or runs something.
    pub(super) async fn change(&self, request: Request) -> Result<Reply, ToolError> {
        if self.access != Access::ReadWrite {
            let message = "this server is read-only: start `edgeward up`, `node` or `hub` with `--mcp read-write`, or use `edgeward mcp`";
            return Err(ToolError { kind: ErrorKind::Forbidden, message: message.to_owned() });
        }
        Ok(self.send(request).await?)
    }

    /// Who answers.
    pub(super) async fn place(&self) -> Result<Place, ToolError> {
        Ok(match self.read("/v1/status").await? {
            Process::Hub(_) => Place::Hub,
            Process::Node(status) => Place::Node(Box::new(status.node)),
        })
    }

    async fn send(&self, request: Request) -> Result<Reply, client::Error> {
        match self.door {
            Door::Server(client) => {
                let (headers, bytes) = client.send(request).await?.into_whole().await?;
                Ok(Reply { headers, bytes })
            }
            Door::Here(router) => self.send_here(router, request).await,
        }
    }

    /// Every call passes the same doors as one from outside: who calls shows the same token, and is told of by the same address.
    async fn send_here(&self, router: &Router, request: Request) -> Result<Reply, client::Error> {
        let mut request = request.into_http().map(Body::new);
        if let Some(caller) = self.caller {
            for name in [AUTHORIZATION, HOST, USER_AGENT] {
                if let Some(value) = caller.headers.get(&name) {
                    request.headers_mut().insert(name, value.clone());
                }
            }
            if let Some(peer) = caller.extensions.get::<Peer>() {
                request.extensions_mut().insert(*peer);
            }
        }
        let response = router.clone().oneshot(request).await.unwrap_or_else(|never| match never {});
        let (head, body) = response.into_parts();
        let bytes = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| {
            client::Error::Local(EdgeError::new(ErrorKind::TooLarge, "the answer of the API is too large, or broke off").with_source(error))
        })?;
        let bytes = bytes.to_bytes();
        if head.status.is_success() {
            return Ok(Reply { headers: head.headers, bytes });
        }
        Err(refused(head.status, bytes))
    }
}

fn refused(status: StatusCode, bytes: Bytes) -> client::Error {
    match Problem::read(status.as_u16(), bytes) {
        Some(problem) => client::Error::Refused(Box::new(problem)),
        None => client::Error::Local(EdgeError::new(ErrorKind::Internal, format!("the API answered with status {status}"))),
    }
}

impl Reply {
    /// What it says, as JSON.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ToolError> {
        serde_json::from_slice(&self.bytes).map_err(|error| ToolError {
            kind: ErrorKind::Internal,
            message: format!("failed to read what the API answered, perhaps of another version: {error}"),
        })
    }

    /// A header, where it is there and is text.
    pub(super) fn header(&self, name: http::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
