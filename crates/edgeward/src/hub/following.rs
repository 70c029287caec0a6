//! What a hub does that stands by: it follows the active one, documents and artifacts.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use edgeward_cluster::Backbone;
use edgeward_model::EdgeError;
use edgeward_runtime::blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    fleet::EdgeCluster,
    replication::Replicator,
    uplink::artifacts::{self, Fetching},
};

/// Time between two looks for artifacts that are missing.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Follows the active hub until it is stopped or dropped.
pub(super) struct Following {
    replicator: Replicator,
    _artifacts: AbortOnDropHandle<()>,
}

impl Following {
    pub(super) async fn start(cluster: &EdgeCluster, backbone: &Arc<dyn Backbone>, data_dir: &Path) -> Result<Self, EdgeError> {
        let replicator = Replicator::start(Arc::clone(cluster.documents().store()), Arc::clone(backbone), Vec::new()).await?;
        let artifacts = follow_artifacts(cluster.clone(), Arc::clone(backbone), data_dir.to_owned());
        Ok(Self { replicator, _artifacts: AbortOnDropHandle::new(tokio::spawn(artifacts)) })
    }

    /// Returns when nothing of it touches the store any more, which may then become that of the hub.
    pub(super) async fn stop(self) {
        self.replicator.stop().await;
    }
}

/// Fetches what is assigned and not here, for ever.
async fn follow_artifacts(cluster: EdgeCluster, backbone: Arc<dyn Backbone>, data_dir: PathBuf) {
    let mut looking = interval(LOOK_EVERY);
    looking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looking.tick().await;
        let of = cluster.clone();
        let missing = blocking(move || of.missing_artifacts()).await;
        let missing = missing.unwrap_or_else(|error| {
            tracing::warn!(error = error.chain(), "it cannot be told which artifacts are missing");
            Vec::new()
        });
        for digest in missing {
            let fetching = Fetching { member: cluster.id(), data_dir: &data_dir, backbone: backbone.as_ref(), bytes_per_second: None };
            let keep = async |bytes| {
                let of = cluster.clone();
                blocking(move || of.artifacts().put(bytes)).await
            };
            if let Err(error) = artifacts::fetch(fetching, &digest, keep).await {
                tracing::debug!(%digest, error = error.chain(), "an artifact could not be fetched from the active hub yet");
            }
        }
    }
}
