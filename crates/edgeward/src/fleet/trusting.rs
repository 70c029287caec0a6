//! Whose signatures the fleet trusts.

use std::sync::Arc;

use edgeward_model::{EdgeError, EdgeFunction, PublicKey};
use edgeward_runtime::blocking;
use jiff::Timestamp;
use tokio::time::Instant;

use super::EdgeCluster;
use crate::{
    events::{EventKind, FleetEvent},
    trust::{self, TrustedKey, TrustedKeys},
};

impl EdgeCluster {
    /// The keys whose signatures the nodes of this fleet trust.
    pub fn trusted_keys(&self) -> &TrustedKeys {
        self.0.trust.fleet_keys()
    }

    /// Lets the nodes of this fleet trust a key. With the first one they run signed artifacts only, and stop what is not. Waits for the disk.
    ///
    /// # Errors
    /// Those of [`TrustedKeys::add`].
    pub fn trust_key(&self, key: PublicKey, name: String) -> Result<TrustedKey, EdgeError> {
        let trusted = TrustedKey { key, name, added_at: Timestamp::now() };
        self.trusted_keys().add(trusted.clone())?;
        self.0.events.tell(FleetEvent::new(EventKind::TrustChanged, format!("the key `{key}` is trusted")));
        self.tend_trust_here()?;
        Ok(trusted)
    }

    /// Lets the nodes of this fleet trust a key no more: they stop what it signed. Waits for the disk.
    ///
    /// # Errors
    /// Those of [`TrustedKeys::remove`].
    pub fn distrust_key(&self, key: &PublicKey, allow_unsigned: bool) -> Result<(), EdgeError> {
        self.trusted_keys().remove(key, allow_unsigned)?;
        self.0.events.tell(FleetEvent::new(EventKind::TrustChanged, format!("the key `{key}` is trusted no more")));
        self.tend_trust_here()
    }

    /// Refuses what the nodes of this fleet would refuse by its keys. Which releases ran on each of them, they know themselves.
    pub(crate) async fn check_trust(&self, function: &EdgeFunction) -> Result<(), EdgeError> {
        let trust = Arc::clone(&self.0.trust);
        blocking(move || trust.refresh()).await?;
        self.0.trust.check(function).inspect_err(|why| trust::tell_refused(function, None, why))
    }

    /// Whether the nodes of this fleet run only what is signed, as far as it says so.
    pub(crate) fn requires_signatures(&self) -> bool {
        self.0.trust.requires_signatures()
    }

    /// Has the nodes of this process stop what is not trusted, try again what is, and remember which releases have come to stay, as nodes elsewhere do
    /// by themselves. Waits for the disk.
    pub(crate) fn tend_trust_here(&self) -> Result<(), EdgeError> {
        let here = self.installers_here();
        if here.is_empty() {
            return Ok(());
        }
        let is_news = self.0.trust.refresh()?;
        for (node, installer) in here {
            if is_news {
                installer.forget_failures();
            }
            installer.stop_untrusted(Instant::now());
            if !self.requires_signatures() {
                continue;
            }
            let records = self.assignment_records(&node)?.into_iter().filter_map(|(_, record)| record.ok());
            for record in records.filter(|record| record.is_confirmed() && record.function.signature.is_some()) {
                if installer.serves(&record) {
                    self.0.trust.confirm(&record.function)?;
                }
            }
        }
        Ok(())
    }
}
