//! Ids: short, printable, safe in a path, a URL and a log line. Cheap to clone.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    error::{EdgeError, ErrorKind},
    hex,
    limits::ID_BYTES_MAX,
};

fn check(what: &str, text: &str) -> Result<(), EdgeError> {
    let why = if text.is_empty() {
        "it is empty".to_owned()
    } else if text.len() > ID_BYTES_MAX {
        format!("it is {} bytes long, the most is {ID_BYTES_MAX}", text.len())
    } else if let Some(bad) = text.chars().find(|c| !(c.is_ascii_alphanumeric() || "-_.".contains(*c))) {
        format!("`{}` is not allowed; use letters, digits, `-`, `_` and `.`", bad.escape_default())
    } else if text.starts_with('.') {
        "it starts with a dot".to_owned()
    } else {
        return Ok(());
    };
    let shown: String = text.chars().take(ID_BYTES_MAX).collect();
    Err(EdgeError::new(ErrorKind::InvalidInput, format!("the {what} `{}` is not valid: {why}", shown.escape_debug())))
}

/// What every text has that is checked when it is made, which is its own `new`.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// It as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::error::EdgeError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Self::new(std::borrow::Cow::<'de, str>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(crate) use checked_text;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        checked_text!($(#[$doc])* $name);

        impl $name {
            #[doc = concat!("Checks `text` and makes it a ", $what, ": 1 to 64 bytes of letters, digits, `-`, `_` and `.`, no dot first.")]
            pub fn new(text: impl AsRef<str>) -> Result<Self, EdgeError> {
                let text = text.as_ref();
                check($what, text)?;
                Ok(Self(text.into()))
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id!(
    /// Names a function on a node; the last part of its address `/fn/{id}/`.
    FunctionId,
    "function id"
);
id!(
    /// Names a node.
    NodeId,
    "node id"
);
id!(
    /// Names a document on a node.
    DocumentName,
    "document name"
);
id!(
    /// Names an API token; it is no secret.
    TokenName,
    "token name"
);
id!(
    /// Names a schedule.
    ScheduleId,
    "schedule id"
);
id!(
    /// Names a trigger.
    TriggerId,
    "trigger id"
);
id!(
    /// Names an experiment of chaos engineering.
    ExperimentName,
    "experiment name"
);
id!(
    /// Names native code that is registered in the process.
    HandlerName,
    "handler name"
);

/// How the names of a node's own documents begin.
pub const RESERVED_PREFIX: &str = "edgeward.";

impl DocumentName {
    /// Whether it names a document of the node's own, which may hold secrets: no face reads, lists or writes it.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED_PREFIX)
    }
}

/// SHA-256 of an artifact's bytes, written `sha256:` and 64 hexadecimal digits. It names the artifact.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Wraps the 32 bytes of a SHA-256.
    pub fn from_sha256(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 64 hexadecimal digits, without the prefix: the name of the artifact's file.
    pub fn hex(&self) -> String {
        hex::encode(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        let refused = || {
            let shown: String = text.chars().take(80).collect();
            EdgeError::new(
                ErrorKind::InvalidInput,
                format!("the digest `{}` is not valid: it must be `sha256:` and 64 hexadecimal digits", shown.escape_debug()),
            )
        };
        text.strip_prefix("sha256:").and_then(hex::decode).map(Self).ok_or_else(refused)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_not_safe_in_a_path_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "empty"),
            ("a/b", "`/` is not allowed"),
            ("..", "starts with a dot"),
            ("a b", "` ` is not allowed"),
            ("ü", "is not allowed"),
            (&"x".repeat(65), "65 bytes"),
        ] {
            let error = FunctionId::new(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(why), "{text:?}: {error}");
        }
        assert_eq!(FunctionId::new("fn-1.v2_A").expect("valid").as_str(), "fn-1.v2_A");
    }

    #[test]
    fn documents_of_the_node_itself_are_known_by_their_names() {
        let is_reserved = |text: &str| DocumentName::new(text).expect(text).is_reserved();
        assert!(is_reserved("edgeward.") && is_reserved("edgeward.local.functions"));
        assert!(!is_reserved("edgeward") && !is_reserved("edgewards.x") && !is_reserved("my.edgeward.x") && !is_reserved("Edgeward.x"));
    }

    #[test]
    fn a_digest_reads_back_what_it_writes_and_refuses_the_rest() {
        let digest = Digest::from_sha256(std::array::from_fn(|i| u8::try_from(i * 7 % 256).expect("below 256")));
        assert_eq!(digest.to_string().parse::<Digest>().expect("its own text"), digest);
        for bad in [
            "",
            "sha256:",
            "md5:00",
            &format!("sha256:{}", "g".repeat(64)),
            &format!("sha256:{}", "+1".repeat(32)),
            &format!("sha256:{}é", "0".repeat(62)),
        ] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
