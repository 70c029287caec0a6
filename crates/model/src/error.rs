//! The one error of the product and its one kind, which HTTP, the command line, MCP and Python each map once.

use std::{error::Error, fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// What is shown of an id that nobody has checked.
const NODE_SHOWN_CHARS_MAX: usize = 64;

/// What went wrong, as a caller may act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// No function, artifact, document or node has this id.
    NotFound,
    /// The function ran past its `timeout_seconds` and was stopped.
    Timeout,
    /// The function failed: a trap, an error of its own, a refused answer.
    ExecutionFailed,
    /// The function failed after it was refused memory beyond its `memory_mb`.
    MemoryLimit,
    /// More invocations wait than may; try again later.
    Overloaded,
    /// The artifact cannot be run here, and the message says why.
    RefusedArtifact,
    /// A value is not valid.
    InvalidInput,
    /// A body, or the set of functions, would pass its bound.
    TooLarge,
    /// The record changed since the caller read it.
    Conflict,
    /// The node is stopping or not yet ready.
    Unavailable,
    /// The node itself failed: its disk, or a defect.
    Internal,
    /// Who calls may not do this, whatever the values.
    Forbidden,
    /// Who calls has shown no token, or none that is valid.
    Unauthenticated,
}

impl ErrorKind {
    /// All kinds, in the order of their numbers in metrics.
    pub const ALL: [Self; 13] = [
        Self::NotFound,
        Self::Timeout,
        Self::ExecutionFailed,
        Self::MemoryLimit,
        Self::Overloaded,
        Self::RefusedArtifact,
        Self::InvalidInput,
        Self::TooLarge,
        Self::Conflict,
        Self::Unavailable,
        Self::Internal,
        Self::Forbidden,
        Self::Unauthenticated,
    ];

    /// The kind as one word, as problems, metrics and `--json` write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Timeout => "timeout",
            Self::ExecutionFailed => "execution_failed",
            Self::MemoryLimit => "memory_limit",
            Self::Overloaded => "overloaded",
            Self::RefusedArtifact => "refused_artifact",
            Self::InvalidInput => "invalid_input",
            Self::TooLarge => "too_large",
            Self::Conflict => "conflict",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
            Self::Forbidden => "forbidden",
            Self::Unauthenticated => "unauthenticated",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a failed invocation left behind, for its caller to see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Status of the HTTP answer, where there was one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// Exit code of the command, where it ended by itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit_code: Option<u8>,
    /// The last bytes of standard error, as text, bounded.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub stderr_tail: String,
}

/// An error that tells what failed, on what, why, and what to do.
///
/// With [`ErrorKind::ExecutionFailed`] it is the specification's `EdgeExecutionError`, with
/// [`ErrorKind::NotFound`] its `ValueError`, with [`ErrorKind::Timeout`] its `TimeoutError`. The original
/// error is its [`source`](Error::source).
#[derive(Debug)]
pub struct EdgeError(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    failure: Failure,
    retry_after: Option<Duration>,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl EdgeError {
    /// An error of this kind; `message` names the object and the reason.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), failure: Failure::default(), retry_after: None, source: None }))
    }

    /// Shorthand for a value that is not valid.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// Shorthand for an id that nothing has, with the specification's words.
    pub fn function_not_found(id: &str) -> Self {
        Self::new(ErrorKind::NotFound, format!("function not found: `{id}`"))
    }

    /// Shorthand for an id that no node has.
    pub fn node_not_found(id: &str) -> Self {
        let shown: String = id.chars().take(NODE_SHOWN_CHARS_MAX).collect();
        Self::new(ErrorKind::NotFound, format!("node not found: `{}`", shown.escape_debug()))
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds what the invocation left behind.
    #[must_use]
    pub fn with_failure(mut self, failure: Failure) -> Self {
        self.0.failure = failure;
        self
    }

    /// Adds after which time it may be otherwise.
    #[must_use]
    pub fn with_retry_after(mut self, time: Duration) -> Self {
        self.0.retry_after = Some(time);
        self
    }

    /// The kind, for callers that act on it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Status, exit code and standard error of the invocation, where it got that far.
    pub fn failure(&self) -> &Failure {
        &self.0.failure
    }

    /// After which time it may be otherwise, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The message and every cause below it, joined by `: `.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next = self.source();
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for EdgeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl Error for EdgeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
