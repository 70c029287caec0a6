//! What a user names to be run: a file of this machine, or what a node knows.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use edgeward::{Digest, EdgeError, Handler, HandlerName};

/// What the user wants to run.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Artifact {
    /// A file, or the folder of a project.
    File(PathBuf),
    /// An artifact that was uploaded, or native code.
    Known(Handler),
}

impl Artifact {
    /// The same with the path of a file taken from this folder.
    pub(crate) fn below(self, folder: &Path) -> Self {
        match self {
            Self::File(path) => Self::File(folder.join(path)),
            known @ Self::Known(_) => known,
        }
    }
}

impl FromStr for Artifact {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        if text.starts_with("sha256:") {
            return Ok(Self::Known(Handler::Artifact(text.parse::<Digest>()?)));
        }
        Ok(match text.strip_prefix("native:") {
            Some(name) => Self::Known(Handler::Native(HandlerName::new(name)?)),
            None => Self::File(text.into()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_artifact_is_a_digest_a_native_name_or_a_file() {
        let parse = |text: &str| text.parse::<Artifact>();
        assert_eq!(parse("./native:x").expect("valid"), Artifact::File("./native:x".into()));
        assert_eq!(parse("native:x").expect("valid"), Artifact::Known(Handler::Native(HandlerName::new("x").expect("valid"))));
        let digest = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(parse(&digest).expect("valid"), Artifact::Known(Handler::Artifact(digest.parse().expect("valid"))));
        assert!(parse("sha256:12").is_err() && parse("native:").is_err());
    }

    #[test]
    fn only_a_file_lies_in_a_folder() {
        let below = |text: &str| text.parse::<Artifact>().expect("valid").below(Path::new("/a"));
        assert_eq!(below("b.wasm"), Artifact::File("/a/b.wasm".into()));
        assert_eq!(below("/c/b.wasm"), Artifact::File("/c/b.wasm".into()));
        assert_eq!(below("native:x"), "native:x".parse().expect("valid"));
    }
}
