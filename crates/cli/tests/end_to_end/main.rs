//! The real binary, end to end: a node in a process of its own, its HTTP API, and the commands that talk to it.

mod access;
mod api;
mod backup;
mod chaos;
mod commands;
mod daemon;
mod demo;
mod deployments;
mod documents;
mod fleet;
mod fleet_faults;
mod fleet_hubs;
mod fleet_support;
mod load;
mod mcp;
mod mcp_deployments;
mod mqtt;
mod policies;
mod project;
mod rollout_faults;
mod routing;
mod schedules;
mod signing;
mod state;
mod support;
mod topics;
