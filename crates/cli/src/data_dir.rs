//! The option that names the data folder of a node, and where it lies without one.

use std::path::PathBuf;

use edgeward::EdgeError;

// No doc comment: it would become the description of each command that takes the option.
#[derive(Debug, clap::Args)]
pub(crate) struct DataDir {
    /// Folder for everything that lasts [default: `$XDG_DATA_HOME/edgeward` or `~/.local/share/edgeward`]
    #[arg(long, env = "EDGEWARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl DataDir {
    /// The folder.
    pub(crate) fn path(self) -> Result<PathBuf, EdgeError> {
        self.data_dir.map_or_else(|| default("edgeward"), Ok)
    }
}

// No doc comment, as above.
#[derive(Debug, clap::Args)]
pub(crate) struct HubDataDir {
    /// Folder of the hub for everything that lasts [default: `$XDG_DATA_HOME/edgeward-hub` or `~/.local/share/edgeward-hub`]
    #[arg(long, env = "EDGEWARD_DATA_DIR")]
    data_dir: Option<PathBuf>,
}

impl HubDataDir {
    /// The folder.
    pub(crate) fn path(self) -> Result<PathBuf, EdgeError> {
        self.data_dir.map_or_else(|| default("edgeward-hub"), Ok)
    }
}

/// A folder of this name in the XDG base directory for data.
fn default(name: &str) -> Result<PathBuf, EdgeError> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|base| base.join(name))
        .ok_or_else(|| EdgeError::invalid("there is no home folder to keep data in; give --data-dir"))
}
