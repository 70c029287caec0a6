//! What a hub has nodes do by themselves, with and without a network: schedules and triggers.
//!
//! The hub keeps what is wanted in `edgeward.hub.KINDs`, chooses the nodes, and writes what each is to have to that node's `edgeward.KINDs.NODE`. Which
//! nodes have one stands there alone: who was chosen stays chosen.

pub(crate) mod assigner;
mod documents;
pub(crate) mod given;
pub(crate) mod record;
pub(crate) mod wanted;

use std::{
    borrow::Borrow,
    fmt::{Debug, Display},
    str::FromStr,
};

use edgeward_model::{EdgeError, ErrorKind, FunctionId, Target};
use serde::{Serialize, de::DeserializeOwned};

/// A kind of it.
pub(crate) trait Allotted: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Names one.
    type Id: Borrow<str> + Clone + Debug + Display + FromStr<Err = EdgeError> + Ord + Send + Sync + 'static;
    /// What one is called; with an `s`, what several are.
    const KIND: &'static str;
    /// Most of a fleet.
    const MAX: usize;
    /// Whether it is on those nodes alone that are to have its function.
    const FOLLOWS_FUNCTION: bool;

    /// Its name.
    fn id(&self) -> &Self::Id;
    /// What is called.
    fn function(&self) -> &FunctionId;
    /// Which nodes it is for.
    fn target(&self) -> &Target;
    /// Checks every field against its bound.
    fn validate(&self) -> Result<(), EdgeError>;
}

/// The error of who asks for one that there is not.
pub(crate) fn not_found<T: Allotted>(id: &str) -> EdgeError {
    let shown: String = id.chars().take(128).collect();
    EdgeError::new(ErrorKind::NotFound, format!("{} not found: `{}`", T::KIND, shown.escape_debug()))
}
