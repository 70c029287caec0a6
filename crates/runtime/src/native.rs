//! Native handlers: async Rust closures registered in the process under a name, and code of other languages.
//!
//! They run in the process itself: a deadline drops the future at its next await, but memory is not limited and
//! a loop that never awaits cannot be stopped. Untrusted code belongs in a component.

use std::{any::Any, future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use edgeward_model::{EdgeError, ErrorKind};
use http::request::Parts;
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::Instant;

use crate::admission::Permit;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type BoxFuture = Pin<Box<dyn Future<Output = Result<Bytes, BoxError>> + Send>>;

/// Hands a request and its body to foreign code, until a deadline.
pub(crate) type Serve = dyn Fn(Parts, Bytes, Permit, Instant) -> Pin<Box<dyn Future<Output = Result<(), EdgeError>> + Send>> + Send + Sync;

/// Native code that runs when a function is invoked: bytes in, bytes out, unless it is foreign.
#[derive(Clone)]
pub struct NativeHandler(Kind);

#[derive(Clone)]
enum Kind {
    Bytes(Arc<dyn Fn(Bytes) -> BoxFuture + Send + Sync>),
    Foreign(Arc<dyn Any + Send + Sync>),
    /// The same, and what hands a request to it.
    Serving(Arc<dyn Any + Send + Sync>, Arc<Serve>),
}

impl std::fmt::Debug for NativeHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NativeHandler")
    }
}

impl NativeHandler {
    /// Wraps an async closure from bytes to bytes. Its error becomes the source of the invocation's error.
    pub fn new<F, R, E>(handler: F) -> Self
    where
        F: Fn(Bytes) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Bytes, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self(Kind::Bytes(Arc::new(move |payload| {
            let answer = handler(payload);
            Box::pin(async move { answer.await.map_err(Into::into) })
        })))
    }

    /// Wraps code that takes no bytes, such as a callable of another language: who brought it calls it by
    /// [`Deployed::run_foreign`](crate::Deployed::run_foreign). To be invoked with a payload is an error.
    pub fn foreign(code: Arc<dyn Any + Send + Sync>) -> Self {
        Self(Kind::Foreign(code))
    }

    /// The same for code that takes requests as well, such as the events of topics and schedules: `serve` hands it one with its body. Code that
    /// cannot be stopped at the deadline takes the permit along.
    pub fn foreign_serving<T, F, R>(code: Arc<T>, serve: F) -> Self
    where
        T: Any + Send + Sync,
        F: Fn(Arc<T>, Parts, Bytes, Permit, Instant) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), EdgeError>> + Send + 'static,
    {
        let served = Arc::clone(&code);
        let serve: Arc<Serve> =
            Arc::new(move |parts, body, permit, deadline| Box::pin(serve(Arc::clone(&served), parts, body, permit, deadline)));
        Self(Kind::Serving(code, serve))
    }

    /// What hands a request to the code, where it takes any.
    pub(crate) fn as_serving(&self) -> Option<&Arc<Serve>> {
        match &self.0 {
            Kind::Serving(_, serve) => Some(serve),
            Kind::Bytes(_) | Kind::Foreign(_) => None,
        }
    }

    /// The code that [`NativeHandler::foreign`] wrapped, where it is of this type.
    pub(crate) fn as_foreign<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        match &self.0 {
            Kind::Bytes(_) => None,
            Kind::Foreign(code) | Kind::Serving(code, _) => Arc::clone(code).downcast().ok(),
        }
    }

    /// Wraps an async closure between types that are JSON outside.
    pub fn json<F, I, O, R, E>(handler: F) -> Self
    where
        F: Fn(I) -> R + Send + Sync + 'static,
        I: DeserializeOwned + Send,
        O: Serialize,
        R: Future<Output = Result<O, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        Self(Kind::Bytes(Arc::new(move |payload| {
            let answer = serde_json::from_slice(&payload).map(&handler);
            Box::pin(async move {
                let answer = answer.map_err(|error| format!("the payload is not the JSON that the handler takes: {error}"))?;
                let output = answer.await.map_err(Into::into)?;
                Ok(serde_json::to_vec(&output)?.into())
            })
        })))
    }

    /// Runs the handler once. A panic is caught and becomes an error, as a trap does.
    pub(crate) async fn call(&self, payload: Bytes) -> Result<Bytes, EdgeError> {
        use futures::FutureExt;
        let failed = |message: String| EdgeError::new(ErrorKind::ExecutionFailed, message);
        let Kind::Bytes(handler) = &self.0 else {
            return Err(EdgeError::invalid("the handler takes no payload: only the program that registered it can call it"));
        };
        let run = std::panic::AssertUnwindSafe(async { handler(payload).await });
        match run.catch_unwind().await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failed(format!("the handler failed: {error}")).with_source(error)),
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(ToString::to_string).or_else(|| panic.downcast_ref::<String>().cloned());
                Err(failed(format!("the handler panicked: {}", text.unwrap_or_else(|| "no message".to_owned()))))
            }
        }
    }
}
