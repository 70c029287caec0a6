//! The option that says how often nodes report, which a hub and its nodes take alike.

use std::time::Duration;

use edgeward::{EdgeError, cluster::membership::Timing};

// No doc comment: it would become the description of each command that takes the option.
#[derive(Debug, clap::Args)]
pub(crate) struct Heartbeat {
    /// Time between two heartbeats of a node, which is OFFLINE after three; the same for the hub and its nodes
    #[arg(long, value_name = "S", default_value_t = 1.5, env = "EDGEWARD_HEARTBEAT_SECONDS")]
    heartbeat_seconds: f64,
}

impl Heartbeat {
    pub(crate) fn timing(&self) -> Result<Timing, EdgeError> {
        let heartbeat = Duration::try_from_secs_f64(self.heartbeat_seconds);
        Timing::new(heartbeat.map_err(|error| EdgeError::invalid("--heartbeat-seconds is no time").with_source(error))?)
    }
}
