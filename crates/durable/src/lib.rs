//! Files that are complete or absent, folders that stay, and the lock of a folder.
//!
//! What returns without an error is on disk: a power cut directly after it loses nothing. Everything is made for this user only.

pub mod error;
pub mod file;
pub mod folder;
pub mod lock;

pub use error::{disk_error, failed};
pub use file::{create_private_file, remove, remove_leftovers, write};
pub use folder::{create_private_folder, sync_folder};
pub use lock::FolderLock;
