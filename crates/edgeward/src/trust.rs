//! Which artifacts may run here: those that a trusted key signed for their function, in no older release than was confirmed before.
//!
//! A node that was given keys trusts these alone; another trusts the keys of its fleet, which its hub says. Where there is no key, nothing need be
//! signed. Native code is the process's own and needs no signature. A check looks into memory only.

mod floors;
mod keys;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use arc_swap::ArcSwap;
use edgeward_model::{
    EdgeError, EdgeFunction, ErrorKind, FunctionId, PublicKey,
    limits::{FUNCTIONS_MAX, TRUSTED_KEYS_MAX},
};
use edgeward_sync::{Documents, Watch};
use parking_lot::Mutex;

use self::floors::Floors;
pub use self::keys::{TrustedKey, TrustedKeys};
use crate::{desired::record::FunctionRecord, signing};

/// Decides which functions may run.
#[derive(Debug)]
pub struct Trust {
    /// Keys that the owner of this node gave it.
    own: BTreeSet<PublicKey>,
    fleet: TrustedKeys,
    /// The keys of the fleet as they were read last; none where it trusts none in particular.
    known: ArcSwap<Option<BTreeSet<PublicKey>>>,
    floors: Floors,
    /// Of which generation of a function the audit log heard last.
    told: Mutex<HashMap<FunctionId, u64>>,
}

impl Trust {
    /// Reads the keys of the fleet and the counters from the documents. With keys of its own (`own`) those of the fleet do not count. Waits for
    /// the disk.
    pub fn open(documents: &Documents, own: BTreeSet<PublicKey>) -> Result<Self, EdgeError> {
        if own.len() > TRUSTED_KEYS_MAX {
            return Err(EdgeError::new(ErrorKind::TooLarge, format!("a node trusts at most {TRUSTED_KEYS_MAX} keys, not {}", own.len())));
        }
        let fleet = TrustedKeys::new(documents)?;
        let (known, floors) = (ArcSwap::from_pointee(fleet.trusted()?), Floors::open(documents)?);
        Ok(Self { own, fleet, known, floors, told: Mutex::default() })
    }

    /// The keys of the fleet.
    pub fn fleet_keys(&self) -> &TrustedKeys {
        &self.fleet
    }

    /// Reads the keys of the fleet anew; returns whether others are trusted now. Waits for the disk.
    pub fn refresh(&self) -> Result<bool, EdgeError> {
        let trusted = self.fleet.trusted()?;
        let is_changed = **self.known.load() != trusted;
        if is_changed {
            self.known.store(Arc::new(trusted));
        }
        Ok(is_changed && self.own.is_empty())
    }

    /// Tells when the keys of the fleet may have changed; then [`Trust::refresh`] finds out.
    pub fn watch(&self) -> Watch {
        self.fleet.watch()
    }

    /// Whether only signed artifacts run here.
    pub fn requires_signatures(&self) -> bool {
        !self.own.is_empty() || self.known.load().is_some()
    }

    fn trusts(&self, key: &PublicKey) -> bool {
        if self.own.is_empty() {
            self.known.load().as_ref().as_ref().is_some_and(|known| known.contains(key))
        } else {
            self.own.contains(key)
        }
    }

    /// Says whether a function may run here. It is to be asked before anything of its artifact is instantiated, and again of what runs when other keys
    /// are trusted.
    ///
    /// # Errors
    /// [`ErrorKind::RefusedArtifact`] when it is not signed, its key is not trusted, its signature is wrong, or it is older than what was
    /// confirmed. [`ErrorKind::TooLarge`] when there is no room to keep its counter.
    pub fn check(&self, function: &EdgeFunction) -> Result<(), EdgeError> {
        let Some(artifact) = function.handler.artifact().filter(|_| self.requires_signatures()) else { return Ok(()) };
        let id = &function.id;
        let refused = |why: String| Err(EdgeError::new(ErrorKind::RefusedArtifact, why));
        let Some(signature) = &function.signature else {
            return refused(format!("function `{id}` is not signed, and only signed artifacts run here; sign it with `edgeward sign`"));
        };
        if !self.trusts(&signature.key) {
            return refused(format!("function `{id}` is signed by `{}`, which is not trusted here", signature.key));
        }
        signing::verify(id, &artifact, signature)?;
        self.floors.check(id, signature.counter)
    }

    /// [`Trust::check`] of a record, of whose refusal the audit log hears once a generation.
    pub fn admit(&self, record: &FunctionRecord) -> Result<(), EdgeError> {
        let FunctionRecord { generation, function, .. } = record;
        self.check(function).inspect_err(|why| {
            let mut told = self.told.lock();
            if told.len() >= 2 * FUNCTIONS_MAX {
                told.clear();
            }
            if told.insert(function.id.clone(), *generation) != Some(*generation) {
                tell_refused(function, Some(*generation), why);
            }
        })
    }

    /// Notes that this release of a function has come to stay: an older one is refused from now on. Durable when it returns; waits for the disk.
    ///
    /// What may not run raises nothing, and neither does what runs where no signature is checked: anybody could have written its counter.
    ///
    /// # Errors
    /// Those of [`Trust::check`], and of the disk.
    pub fn confirm(&self, function: &EdgeFunction) -> Result<(), EdgeError> {
        let Some(signature) = function.signature.as_ref().filter(|_| self.requires_signatures()) else { return Ok(()) };
        self.check(function)?;
        self.floors.raise(&function.id, signature.counter)
    }
}

/// Tells the audit log of a function that was refused; without a generation it never became desired.
pub(crate) fn tell_refused(function: &EdgeFunction, generation: Option<u64>, why: &EdgeError) {
    let EdgeFunction { id, handler, signature, .. } = function;
    let (key, counter) = (signature.map(|signature| signature.key.to_string()), signature.map(|signature| signature.counter));
    tracing::warn!(target: "audit", function = %id, %handler, generation, key, counter, why = why.chain(), "refused a function");
}

#[cfg(test)]
mod tests;
