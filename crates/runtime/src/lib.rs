//! Runs Edgeward functions: WebAssembly sandboxes and native handlers, with limits and metrics.
//!
//! [`EdgeRuntime`] is the one place where a function is executed and the one place where an invocation is
//! recorded. Everything else of the product (HTTP, command line, library) goes through it.

mod admission;
pub mod artifacts;
pub mod body;
mod deployed;
pub mod documents;
pub mod faults;
pub mod lease;
mod logs;
pub mod metrics;
pub mod native;
pub mod runtime;
mod ticket;
#[cfg(feature = "wasm")]
mod wasm;

pub use admission::{Crowd, Permit};
pub use artifacts::ArtifactStore;
pub use body::{RequestBody, ResponseBody};
pub use deployed::{CallOptions, Deployed, Output};
pub use documents::{DocumentAccess, Swapped};
pub use faults::{CallFault, CallFaults, OnCall};

pub use lease::{RunLease, uptime};
pub use logs::{FunctionLog, LogLine, LogStream};
pub use metrics::{EdgeMetrics, Filter, Mark, Span, Summary};
pub use native::NativeHandler;
pub use runtime::{EdgeRuntime, RuntimeOptions, blocking};
