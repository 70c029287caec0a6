//! The nouns of Edgeward: ids, limits, errors, nodes, functions, invocation records and state.
//!
//! Nothing here does I/O or waits. Every value that comes from outside is checked once, when it becomes one
//! of these types; inside the product they are valid.

pub mod chaos;
pub mod deployment;
pub mod error;
pub mod function;
pub mod grant;
mod hex;
pub mod id;
pub mod integer;
pub mod invocation;
pub mod limits;
pub mod line_limit;
mod map_only;
pub mod node;
pub mod python_json;
pub mod resilience;
pub mod schedule;
pub mod signature;
pub mod sync_state;
pub mod topic;
pub mod trigger;
pub mod value;

pub use chaos::{Experiment, Fault, FaultKind};
pub use deployment::{Amount, Gate, Probe, Selector, Strategy, StrategyKind, Target};
pub use error::{EdgeError, ErrorKind, Failure};
pub use function::{EdgeFunction, Environment, Handler};
pub use grant::{Access, DocumentGrant};
pub use id::{Digest, DocumentName, ExperimentName, FunctionId, HandlerName, NodeId, ScheduleId, TokenName, TriggerId};
pub use integer::Integer;
pub use invocation::InvocationRecord;
pub use line_limit::LineLimit;
pub use node::{EdgeNode, EdgeNodeStatus, Load};
pub use resilience::{Balance, Breaker, Bulkhead, Locality, Resilience, Retry};
pub use schedule::{CatchUp, Cron, Schedule, When, Zone};
pub use signature::{ArtifactSignature, PublicKey, SignatureBytes, signed_bytes};
pub use sync_state::{SyncState, checksum_of};
pub use topic::{TopicFilter, TopicName};
pub use trigger::{ContentMode, Redelivery, Trigger};
pub use value::{Object, Value};
