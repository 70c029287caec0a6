//! What can go wrong between two members. Each error says whether the other side may have acted.

use edgeward_model::{EdgeError, ErrorKind};

/// Why a message got no answer, or was not sent.
#[derive(Debug, thiserror::Error)]
pub enum BackboneError {
    /// Nobody serves the subject now. Nothing was executed.
    #[error("nobody serves `{0}`; is the other side connected?")]
    NoResponder(String),
    /// No answer came in time. The request may have been executed, may still run until its deadline, or may be lost.
    #[error("`{0}` did not answer in time")]
    Timeout(String),
    /// The message is larger than messages may be. Nothing was sent.
    #[error("the message to `{subject}` is {bytes} bytes long, the most is {bytes_max}")]
    TooLarge {
        /// Where it was to go.
        subject: String,
        /// Its size.
        bytes: usize,
        /// The most there may be.
        bytes_max: usize,
    },
    /// This member has no connection, or lost it before the answer. A request may have been executed.
    #[error("this member is cut off from the others: {0}")]
    Disconnected(String),
    /// This member waits for as many answers as it may. Nothing was sent.
    #[error("too many requests wait for an answer, the most is {0}; try again later")]
    Overloaded(usize),
    /// The broker does not let this member do it. Nothing was executed.
    #[error("this member has no right to use `{0}`")]
    Forbidden(String),
    /// An argument is not valid. Nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// The broker failed, or answered what it should not.
    #[error("failed to {what}")]
    Broker {
        /// A verb with its object.
        what: String,
        /// What the broker or its client said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The other side answered with an error. It was executed, unless the kind is [`ErrorKind::Overloaded`].
    #[error(transparent)]
    Answered(EdgeError),
}

impl BackboneError {
    /// The kind as a caller may act on it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoResponder(_) | Self::Disconnected(_) => ErrorKind::Unavailable,
            Self::Timeout(_) => ErrorKind::Timeout,
            Self::TooLarge { .. } => ErrorKind::TooLarge,
            Self::Overloaded(_) => ErrorKind::Overloaded,
            Self::Forbidden(_) => ErrorKind::Forbidden,
            Self::Invalid(_) => ErrorKind::InvalidInput,
            Self::Broker { .. } => ErrorKind::Internal,
            Self::Answered(error) => error.kind(),
        }
    }
}

impl From<BackboneError> for EdgeError {
    fn from(error: BackboneError) -> Self {
        match error {
            BackboneError::Answered(error) => error,
            BackboneError::Broker { what, source } => EdgeError::new(ErrorKind::Internal, format!("failed to {what}")).with_source(source),
            other => EdgeError::new(other.kind(), other.to_string()),
        }
    }
}
