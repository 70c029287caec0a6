//! Bodies of requests and responses, as streams of bytes with a bound on their size.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use edgeward_model::{EdgeError, ErrorKind};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, combinators::UnsyncBoxBody};

/// The body of a request to a function.
pub type RequestBody = UnsyncBoxBody<Bytes, EdgeError>;

/// A request body that is there already.
pub fn full(bytes: impl Into<Bytes>) -> RequestBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A request without a body.
pub fn empty() -> RequestBody {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// The body of a function's response: there already, or still being written by the guest.
pub struct ResponseBody(Kind);

enum Kind {
    Full(Option<Bytes>),
    Stream(UnsyncBoxBody<Bytes, EdgeError>),
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ResponseBody")
    }
}

impl ResponseBody {
    /// A body that is there already.
    pub fn full(bytes: Bytes) -> Self {
        Self(Kind::Full(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    /// A body that comes in parts.
    pub fn stream(body: impl Body<Data = Bytes, Error = EdgeError> + Send + 'static) -> Self {
        Self(Kind::Stream(body.boxed_unsync()))
    }

    /// Waits for the whole body. The stream itself bounds its size.
    pub async fn bytes(self) -> Result<Bytes, EdgeError> {
        match self.0 {
            Kind::Full(bytes) => Ok(bytes.unwrap_or_default()),
            Kind::Stream(body) => Ok(body.collect().await?.to_bytes()),
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = EdgeError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, EdgeError>>> {
        match &mut self.0 {
            Kind::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Stream(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Full(bytes) => bytes.is_none(),
            Kind::Stream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Full(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Stream(body) => body.size_hint(),
        }
    }
}

/// Reads a request body to its end, at most `bytes_max` of it.
pub async fn collect(body: RequestBody, bytes_max: usize) -> Result<Bytes, EdgeError> {
    if body.size_hint().exact().is_some_and(|bytes| bytes > bytes_max as u64) {
        return Err(too_large("request", bytes_max));
    }
    match http_body_util::Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(match error.downcast::<EdgeError>() {
            Ok(error) => *error,
            Err(_) => too_large("request", bytes_max),
        }),
    }
}

/// The error of a body past its bound; `what` is "request" or "response".
pub fn too_large(what: &str, bytes_max: usize) -> EdgeError {
    EdgeError::new(ErrorKind::TooLarge, format!("the {what} body is larger than {bytes_max} bytes, which is the most"))
}
