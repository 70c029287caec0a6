//! How functions reach documents. They live outside this crate, so whoever makes the runtime brings the way there.

use std::fmt::Debug;

use edgeward_model::{DocumentName, EdgeError};

/// The documents of a node, as functions use them: keys with bytes. Every call waits for the disk.
///
/// Who calls has checked the grant and the bounds of a function; the bounds of a document are checked here.
pub trait DocumentAccess: Debug + Send + Sync {
    /// The bytes of a key, exactly as they were set.
    fn get(&self, document: &DocumentName, key: &str) -> Result<Option<Vec<u8>>, EdgeError>;

    /// The keys after this one, in their order, at most `limit`.
    fn keys(&self, document: &DocumentName, after: Option<&str>, limit: usize) -> Result<Vec<String>, EdgeError>;

    /// Sets keys, or deletes those without a value, in their order; all or none.
    fn write(&self, document: &DocumentName, writes: Vec<(String, Option<Vec<u8>>)>) -> Result<(), EdgeError>;

    /// Adds to a number and returns it; a new key becomes a counter.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](edgeward_model::ErrorKind::InvalidInput) when the key has anything but an integer, or the sum
    /// is none of 64 bits.
    fn increment(&self, document: &DocumentName, key: String, by: i64) -> Result<i64, EdgeError>;

    /// Sets a key if it still has these bytes, or none, with no other write in between.
    fn swap(&self, document: &DocumentName, key: String, expected: Option<Vec<u8>>, value: Vec<u8>) -> Result<Swapped, EdgeError>;
}

/// What became of a compare-and-swap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// The key has the new value.
    Done,
    /// The key had this, and has it still.
    Found(Option<Vec<u8>>),
}
