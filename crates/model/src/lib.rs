//! The nouns of Edgeward: ids, limits, errors, nodes, functions and invocation records.
//!
//! Nothing here does I/O or waits. Every value that comes from outside is checked once, when it becomes one
//! of these types; inside the product they are valid.

pub mod error;
pub mod function;
pub mod id;
pub mod invocation;
pub mod limits;
pub mod node;

pub use error::{EdgeError, ErrorKind, Failure};
pub use function::{EdgeFunction, Environment, Handler};
pub use id::{Digest, FunctionId, HandlerName, NodeId};
pub use invocation::InvocationRecord;
pub use node::{EdgeNode, EdgeNodeStatus};
