//! Errors as HTTP answers: the one mapping from [`ErrorKind`] to a status, and problems by RFC 9457.
//!
//! An internal error is traced when it becomes a problem, as its client may learn nothing of it.

use edgeward_model::{EdgeError, ErrorKind, Failure};
use http::{HeaderValue, Response, StatusCode, header};
use serde::{Deserialize, Serialize};

/// Seconds after which a client may come again of what is overloaded or not available now, where it is not known when that ends.
const RETRY_AFTER_SECONDS: u64 = 1;

/// A problem by RFC 9457, with the error's kind and what a failed invocation left behind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// A name for the kind of problem, as a URN.
    pub r#type: String,
    /// The kind of problem in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What failed, on what, and why.
    pub detail: String,
    /// The kind as one word.
    pub kind: ErrorKind,
    /// Status, exit code and standard error of the invocation.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<Failure>,
    /// The causes below the error, outermost first.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub causes: Vec<String>,
    /// Whole seconds after which it may be otherwise: the header field `Retry-After`.
    #[serde(skip)]
    pub retry_after_seconds: Option<u64>,
}

/// The HTTP status of an error.
pub fn status(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::ExecutionFailed | ErrorKind::MemoryLimit | ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorKind::Overloaded | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::RefusedArtifact => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorKind::InvalidInput => StatusCode::BAD_REQUEST,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::Conflict => StatusCode::PRECONDITION_FAILED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
    }
}

fn title(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "Not found",
        ErrorKind::Timeout => "The function ran past its deadline",
        ErrorKind::ExecutionFailed => "The function failed",
        ErrorKind::MemoryLimit => "The function ran out of memory",
        ErrorKind::Overloaded => "Overloaded",
        ErrorKind::RefusedArtifact => "The artifact cannot run here",
        ErrorKind::InvalidInput => "Invalid input",
        ErrorKind::TooLarge => "Too large",
        ErrorKind::Conflict => "The record has changed",
        ErrorKind::Unavailable => "Not available now",
        ErrorKind::Internal => "Internal error",
        ErrorKind::Forbidden => "Not allowed",
        ErrorKind::Unauthenticated => "Not authenticated",
    }
}

impl Problem {
    /// Everything, for those who operate the node.
    pub fn full(error: &EdgeError) -> Self {
        let mut causes = Vec::new();
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        let failure = Some(error.failure().clone()).filter(|failure| *failure != Failure::default());
        Self { failure, causes, detail: error.to_string(), ..Self::of(error) }
    }

    /// Only what the clients of a function may see: nothing of its inside.
    pub fn public(error: &EdgeError) -> Self {
        let inside = matches!(error.kind(), ErrorKind::ExecutionFailed | ErrorKind::MemoryLimit | ErrorKind::Internal);
        let detail = if inside { title(error.kind()).to_owned() } else { error.to_string() };
        Self { detail, ..Self::of(error) }
    }

    fn of(error: &EdgeError) -> Self {
        let kind = error.kind();
        if kind == ErrorKind::Internal {
            tracing::error!(error = error.chain(), "a request met an internal error");
        }
        Self {
            r#type: format!("urn:edgeward:error:{kind}"),
            title: title(kind).to_owned(),
            status: status(kind).as_u16(),
            detail: String::new(),
            kind,
            failure: None,
            causes: Vec::new(),
            retry_after_seconds: matches!(kind, ErrorKind::Overloaded | ErrorKind::Unavailable).then(|| {
                error.retry_after().map_or(RETRY_AFTER_SECONDS, |time| time.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX))
            }),
        }
    }

    /// The problem as an HTTP answer, with its body made by `body`.
    pub fn response<B>(&self, body: impl FnOnce(Vec<u8>) -> B) -> Response<B> {
        let json = serde_json::to_vec(self).expect("a problem has only text and numbers");
        let mut response = Response::new(body(json));
        *response.status_mut() = status(self.kind);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
