//! ETags of documents, and what requests ask by them.
//!
//! A version names one state of a document as long as nothing is restored from a backup; the checksum tells the rest
//! apart. A tag is valid at the node that gave it.

use std::fmt;

use axum::http::{HeaderMap, HeaderName, header};
use edgeward::{Document, EdgeError, ErrorKind, SyncState, document::Precondition};

/// Names one state of a document: `"{version}-{checksum}"`, with the quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ETag {
    version: u64,
    checksum: String,
}

impl ETag {
    pub(super) fn of(state: &SyncState) -> Self {
        Self { version: state.version, checksum: state.checksum.clone() }
    }

    fn read(text: &str) -> Option<Self> {
        let (version, checksum) = text.strip_prefix('"')?.strip_suffix('"')?.split_once('-')?;
        Some(Self { version: version.parse().ok()?, checksum: checksum.to_owned() })
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}-{}\"", self.version, self.checksum)
    }
}

/// In which state a document must be for a change to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    None,
    Present,
    Absent,
    Is(ETag),
}

impl Condition {
    /// Reads `If-Match` and `If-None-Match` of a request that changes something.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, EdgeError> {
        match (text(headers, header::IF_MATCH), text(headers, header::IF_NONE_MATCH)) {
            (None, None) => Ok(Self::None),
            (None, Some("*")) => Ok(Self::Absent),
            (Some("*"), None) => Ok(Self::Present),
            (Some(tag), None) => ETag::read(tag).map(Self::Is).ok_or_else(|| {
                let shown = tag.escape_debug();
                EdgeError::invalid(format!("If-Match `{shown}` is neither an ETag of a document, such as \"3-99914b93…\", nor `*`"))
            }),
            (_, Some(_)) => Err(EdgeError::invalid("If-None-Match takes only `*` here, and not together with If-Match")),
        }
    }

    /// The same as the document itself checks it, together with the change: the version stands for the state that is looked at
    /// here. Waits for the disk.
    pub(super) fn against(self, document: &Document) -> Result<Precondition, EdgeError> {
        let tag = match self {
            Self::None => return Ok(Precondition::None),
            Self::Present => return Ok(Precondition::Present),
            Self::Absent => return Ok(Precondition::Absent),
            Self::Is(tag) => tag,
        };
        match document.view()? {
            Some(state) if state.version == tag.version && state.checksum != tag.checksum => {
                let why = format!("document `{}` at version {} is not what the ETag names", document.name(), tag.version);
                Err(EdgeError::new(ErrorKind::Conflict, format!("{why}; read it again and retry")))
            }
            _ => Ok(Precondition::Version(tag.version)),
        }
    }
}

/// Whether `If-None-Match` of a request that reads names this state.
pub(super) fn is_known(headers: &HeaderMap, tag: &ETag) -> bool {
    let tag = tag.to_string();
    let is_it = |known: &str| matches!(known.trim(), "*") || known.trim().trim_start_matches("W/") == tag;
    text(headers, header::IF_NONE_MATCH).is_some_and(|known| known.split(',').any(is_it))
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or_default().trim())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    fn tag() -> ETag {
        ETag { version: 7, checksum: "0a".to_owned() }
    }

    #[test]
    fn a_tag_reads_back_what_it_writes() {
        assert_eq!(tag().to_string(), "\"7-0a\"");
        assert_eq!(ETag::read("\"7-0a\""), Some(tag()));
    }

    #[test]
    fn conditions_of_a_change_are_read_from_their_headers() {
        let read = |pairs: &[_]| Condition::read(&headers(pairs));
        assert_eq!(read(&[]).expect("none"), Condition::None);
        assert_eq!(read(&[(header::IF_MATCH, "\"7-0a\"")]).expect("valid"), Condition::Is(tag()));
        assert_eq!(read(&[(header::IF_MATCH, "*")]).expect("valid"), Condition::Present);
        assert_eq!(read(&[(header::IF_NONE_MATCH, "*")]).expect("valid"), Condition::Absent);
        for bad in [
            vec![(header::IF_MATCH, "7-0a")],
            vec![(header::IF_MATCH, "\"7\"")],
            vec![(header::IF_MATCH, "W/\"7-0a\"")],
            vec![(header::IF_MATCH, "\"-1-0a\"")],
            vec![(header::IF_NONE_MATCH, "\"7-0a\"")],
            vec![(header::IF_MATCH, "*"), (header::IF_NONE_MATCH, "*")],
        ] {
            assert_eq!(read(&bad).expect_err("bad").kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
    }

    #[test]
    fn a_reader_knows_a_state_by_one_of_its_tags() {
        let is_known = |known| is_known(&headers(&[(header::IF_NONE_MATCH, known)]), &tag());
        assert!(is_known("*") && is_known("\"7-0a\"") && is_known("\"6-ff\", W/\"7-0a\""));
        assert!(!is_known("\"7-0b\"") && !is_known("7-0a") && !is_known(""));
    }
}
