//! What a function may do with a document. What is not granted is denied.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{error::EdgeError, id::DocumentName};

/// How far a grant goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Reading and changing.
    ReadWrite,
    /// Reading only.
    ReadOnly,
}

impl Access {
    /// The access as one word, as the API writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWrite => "read-write",
            Self::ReadOnly => "read-only",
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Access {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        [Self::ReadWrite, Self::ReadOnly].into_iter().find(|access| access.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(32).collect();
            EdgeError::invalid(format!("the access `{}` is not valid: it must be `read-write` or `read-only`", shown.escape_debug()))
        })
    }
}

/// One document that a function may see, which need not exist yet. As text: `NAME`, or `NAME:ro` for reading only.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DocumentGrant {
    /// The document.
    pub document: DocumentName,
    /// What the function may do with it.
    pub access: Access,
}

impl DocumentGrant {
    /// A grant of this document, or why it cannot be granted.
    pub fn new(document: DocumentName, access: Access) -> Result<Self, EdgeError> {
        let grant = Self { document, access };
        grant.validate().map(|()| grant)
    }

    pub(crate) fn validate(&self) -> Result<(), EdgeError> {
        if self.document.is_reserved() {
            let message = format!("document `{}` cannot be granted: it is the node's own; choose another name", self.document);
            return Err(EdgeError::invalid(message));
        }
        Ok(())
    }
}

impl fmt::Display for DocumentGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match self.access {
            Access::ReadWrite => "",
            Access::ReadOnly => ":ro",
        };
        write!(f, "{}{suffix}", self.document)
    }
}

impl FromStr for DocumentGrant {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        match text.split_once(':') {
            None => Self::new(DocumentName::new(text)?, Access::ReadWrite),
            Some((name, "ro")) => Self::new(DocumentName::new(name)?, Access::ReadOnly),
            Some((name, access)) => {
                let shown: String = access.chars().take(32).collect();
                let (name, shown) = (DocumentName::new(name)?, shown.escape_debug());
                let message =
                    format!("the access `{shown}` of document `{name}` is not valid; write `{name}`, or `{name}:ro` for reading only");
                Err(EdgeError::invalid(message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_reads_back_what_it_writes() {
        for (text, access) in [("cellar", Access::ReadWrite), ("cellar:ro", Access::ReadOnly)] {
            let grant: DocumentGrant = text.parse().expect("valid");
            assert_eq!((grant.document.as_str(), grant.access, grant.to_string().as_str()), ("cellar", access, text));
        }
        let json = serde_json::to_string(&"a:ro".parse::<DocumentGrant>().expect("valid")).expect("json");
        assert_eq!(json, r#"{"document":"a","access":"read-only"}"#);
        assert!(serde_json::from_str::<DocumentGrant>(r#"{"document":"a"}"#).is_err(), "an access that was left out is not guessed");
    }

    #[test]
    fn a_grant_that_is_none_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "it is empty"),
            (":ro", "it is empty"),
            ("a/b", "`/` is not allowed"),
            ("cellar:rx", "`rx`"),
            ("cellar:", "`cellar:ro`"),
            ("edgeward.local.functions", "the node's own"),
            ("edgeward.local.functions:ro", "the node's own"),
        ] {
            let error = text.parse::<DocumentGrant>().expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!("edgewards".parse::<DocumentGrant>().is_ok());
    }
}
