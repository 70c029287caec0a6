//! Edgeward as a library: a node that runs functions next to the data.
//!
//! [`EdgeRuntime`] runs functions in this process and keeps nothing. [`Node`] adds what a daemon needs: desired
//! state that survives a power cut, and a reconciler that makes the runtime match it. [`EdgeSynchronizer`] keeps one
//! state with its unconfirmed changes, in memory or in a folder.

pub mod access;
mod allotments;
mod assignments;
pub mod backup;
pub mod chaos;
pub mod deployments;
pub mod desired;
pub mod events;
pub mod fleet;
mod function_documents;
pub mod hold;
pub mod hub;
mod installer;
mod last_good;
mod leases;
pub mod listener;
pub mod node;
pub mod problem;
pub mod replication;
pub mod reports;
pub mod schedules;
mod services;
pub mod signing;
mod stored;
pub mod telemetry;
pub mod topics;
pub mod trust;
pub mod uplink;

pub use allotments::record::Record;
pub use chaos::{ClusterChaos, ExperimentView, NodeChaos};
pub use deployments::{
    ClusterDeployments, Deployment as FleetDeployment, DeploymentSpec, DeploymentView, Plan, Revision, RolloutView, steering::Steering,
};
pub use desired::{Precondition, record::FunctionRecord};
pub use edgeward_cluster as cluster;
pub use edgeward_cluster::{RouteView, routing::Terms};
pub use edgeward_model::map_only;
pub use edgeward_model::{
    Access, Amount, ArtifactSignature, Balance, CatchUp, ContentMode, Digest, DocumentGrant, DocumentName, EdgeError, EdgeFunction,
    EdgeNode, EdgeNodeStatus, Environment, ErrorKind, Failure, FunctionId, Gate, Handler, HandlerName, Integer, InvocationRecord,
    LineLimit, Load, Locality, NodeId, Object, Probe, PublicKey, Redelivery, Resilience, Schedule, ScheduleId, Selector, SignatureBytes,
    Strategy, StrategyKind, SyncState, Target, TokenName, TopicFilter, TopicName, Trigger, TriggerId, Value, When, Zone, checksum_of,
    limits, python_json, signed_bytes,
};
pub use edgeward_runtime::{
    ArtifactStore, CallOptions, Deployed, DocumentAccess, EdgeMetrics, EdgeRuntime, Filter, FunctionLog, LogLine, LogStream, NativeHandler,
    Output, Permit, RequestBody, ResponseBody, RuntimeOptions, Summary, Swapped, artifacts::digest_of, blocking, body,
};
pub use edgeward_sync::{
    Change, Conflict, ConflictsPage, Document, DocumentInfo, Documents, Draft, EdgeSynchronizer, Edited, Epoch, Hub, Pattern,
    PendingChange, Policy, ReplicaSession, Resolution, Role, SessionState, Side, Stamp, Store, Watch, Why, document,
};
pub use edgeward_topics::cloud_event;
pub use edgeward_topics::{
    Batch, CloudEvent, DeadLetter, Latest, LogState, Message, Origin, Received, Start, Subscription, TopicInfo, TopicLog,
};
pub use events::{EventKind, EventLog, FleetEvent};
pub use fleet::{
    Attempt, ClusterHealth, ClusterOptions, ClusterTopics, Duties, EdgeCluster, FleetService, NodeRuntime, NodeView, ServiceOptions,
};
pub use function_documents::FunctionDocuments;
pub use hold::{UpdateHours, Veto};
pub use hub::{FleetHub, HubOptions, HubServers, HubStanding};
pub use node::{Deployment, FunctionState, FunctionView, Node, NodeOptions, Source};
pub use reports::FunctionReport;
pub use schedules::{
    PutSchedule, ScheduleHistory, ScheduleRecord, ScheduleView, Schedules,
    fleet::{ClusterSchedules, FleetScheduleView},
};
pub use topics::{
    MqttOptions, Topics, TriggerView,
    fleet::{ClusterTriggers, FleetTriggerView, TriggerRecord},
    program::ProgramTrigger,
    serve_mqtt,
};
pub use trust::{Trust, TrustedKey, TrustedKeys};
pub use uplink::{TopicExchange, TopicSharing, Uplink, UplinkOptions};
