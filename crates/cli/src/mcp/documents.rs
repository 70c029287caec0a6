//! Tools about documents: reading and editing them, and their conflicts.
//!
//! JSON of this protocol carries integers of 64 bits. A document with a larger one is not told wrongly but refused.

use edgeward::{DocumentName, Object, Value as Exact, limits::CONFLICTS_PAGE_MAX, python_json};
use http::{
    HeaderValue, Method,
    header::{CONTENT_TYPE, ETAG, IF_MATCH},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    session::{Reply, Session, ToolError},
    tool::{EdgeTool, Effect},
};
use crate::client::{Conflicts, Documents, Request, Side};

/// Conflicts that are told when nobody says how many.
const CONFLICTS_DEFAULT: usize = 100;

/// Parameters of `edge_list_documents`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListDocuments {}

/// Documents without their keys.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DocumentList {
    documents: Vec<DocumentEntry>,
    /// How many they are.
    total: usize,
}

/// A document without its keys.
#[derive(Debug, Serialize, JsonSchema)]
struct DocumentEntry {
    name: String,
    /// Grows with each change.
    version: u64,
    /// How many keys it has.
    keys: u64,
    /// RFC 3339 in UTC.
    updated_at: String,
}

impl EdgeTool for ListDocuments {
    const NAME: &'static str = "edge_list_documents";
    const TITLE: &'static str = "Documents";
    const ABOUT: &'static str =
        "Lists the documents that this process keeps, with their versions. On a hub these are those of the whole fleet.";
    const EFFECT: Effect = Effect::Reads;
    type Output = DocumentList;

    async fn run(self, session: &Session<'_>) -> Result<DocumentList, ToolError> {
        let found = session.read::<Documents>("/v1/documents").await?.documents;
        let entry = |document: crate::client::DocumentSummary| DocumentEntry {
            name: document.name.to_string(),
            version: document.version,
            keys: document.keys,
            updated_at: document.updated_at.to_string(),
        };
        let documents: Vec<_> = found.into_iter().map(entry).collect();
        Ok(DocumentList { total: documents.len(), documents })
    }
}

/// Parameters of `edge_read_document`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadDocument {
    /// The document's name.
    document: String,
}

/// A document, whole.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct DocumentState {
    document: String,
    /// Grows with each change.
    version: u64,
    /// MD5 of the data as Python's `json.dumps(data, sort_keys=True)` writes it, in hexadecimal.
    checksum: String,
    /// RFC 3339 in UTC.
    updated_at: String,
    /// Names this state; give it to `edge_edit_document` as `if_match`.
    etag: String,
    pub(super) data: Map<String, Value>,
}

impl DocumentState {
    /// A document as the API tells it.
    pub(super) fn read(document: &DocumentName, reply: &Reply) -> Result<Self, ToolError> {
        #[derive(Deserialize)]
        struct State {
            version: u64,
            checksum: String,
            updated_at: String,
        }
        let State { version, checksum, updated_at } = reply.json()?;
        let text = String::from_utf8_lossy(&reply.bytes);
        let data = match python_json::read(&text)? {
            Exact::Object(Object(mut whole)) => whole.remove("data"),
            _ => None,
        };
        let Some(Value::Object(data)) = data.map(|data| told(data, document)).transpose()? else {
            return Err(ToolError::invalid(format!("failed to read document `{document}`: it has no data")));
        };
        let etag = reply.header(ETAG).unwrap_or_default().to_owned();
        Ok(Self { document: document.to_string(), version, checksum, updated_at, etag, data })
    }
}

/// A value as this protocol can carry it, exactly.
fn told(value: Exact, document: &DocumentName) -> Result<Value, ToolError> {
    let refused = |what: &str| {
        let why = format!("document `{document}` holds {what}, which this protocol cannot carry; `edgeward state get {document}` shows it");
        ToolError::invalid(why)
    };
    Ok(match value {
        Exact::Null => Value::Null,
        Exact::Bool(bool) => Value::Bool(bool),
        Exact::Integer(integer) => match (integer.as_i64(), integer.as_u64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => return Err(refused("an integer of more than 64 bits")),
        },
        Exact::Float(number) => {
            serde_json::Number::from_f64(number).map(Value::Number).ok_or_else(|| refused("an infinite number or NaN"))?
        }
        Exact::String(text) => Value::String(text),
        Exact::Array(items) => Value::Array(items.into_iter().map(|item| told(item, document)).collect::<Result<_, _>>()?),
        Exact::Object(Object(members)) => {
            let told = |(key, value)| Ok::<_, ToolError>((key, told(value, document)?));
            Value::Object(members.into_iter().map(told).collect::<Result<_, _>>()?)
        }
    })
}

/// Reads a document.
pub(super) async fn state_of(session: &Session<'_>, document: &DocumentName) -> Result<DocumentState, ToolError> {
    DocumentState::read(document, &session.get(format!("/v1/documents/{document}")).await?)
}

impl EdgeTool for ReadDocument {
    const NAME: &'static str = "edge_read_document";
    const TITLE: &'static str = "Read a document";
    const ABOUT: &'static str =
        "Reads a document, whole: its data, version, checksum and the ETag by which an edit can demand this very state.";
    const EFFECT: Effect = Effect::Reads;
    type Output = DocumentState;

    async fn run(self, session: &Session<'_>) -> Result<DocumentState, ToolError> {
        state_of(session, &DocumentName::new(&self.document)?).await
    }
}

/// Parameters of `edge_edit_document`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EditDocument {
    /// The document's name. It is made when there is none.
    document: String,
    /// A JSON merge patch (RFC 7396): keys get these values, `null` deletes a key, the rest stays.
    patch: Map<String, Value>,
    /// Only if the document is still in the state of this ETag, from `edge_read_document`.
    #[serde(default)]
    if_match: Option<String>,
}

impl EdgeTool for EditDocument {
    const NAME: &'static str = "edge_edit_document";
    const TITLE: &'static str = "Edit a document";
    const ABOUT: &'static str = "Changes a document by a JSON merge patch, durably, and gives its new state. The edit is merged with those of \
        other nodes by the policy of the document.";
    const EFFECT: Effect = Effect::Replaces;
    type Output = DocumentState;

    async fn run(self, session: &Session<'_>) -> Result<DocumentState, ToolError> {
        let document = DocumentName::new(&self.document)?;
        let merge_patch = HeaderValue::from_static("application/merge-patch+json");
        let mut request = Request::new(Method::PATCH, format!("/v1/documents/{document}"))
            .header(CONTENT_TYPE, merge_patch)
            .payload(Value::Object(self.patch).to_string());
        if let Some(tag) = self.if_match {
            let refused = |_| ToolError::invalid("`if_match` is not valid: give the `etag` of `edge_read_document`");
            request = request.header(IF_MATCH, HeaderValue::try_from(tag).map_err(refused)?);
        }
        DocumentState::read(&document, &session.change(request).await?)
    }
}

/// Parameters of `edge_list_conflicts`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListConflicts {
    /// The document's name.
    document: String,
    /// Only those after this id: the `next` of the call before.
    #[serde(default)]
    after: Option<String>,
    /// How many at most, up to 1000; 100 when it is left out.
    #[serde(default)]
    limit: Option<usize>,
}

/// Conflicts of a document.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ConflictList {
    conflicts: Vec<ConflictEntry>,
    /// What to give as `after` to go on; `null` at the end.
    next: Option<String>,
    /// Conflicts that were forgotten before anybody resolved them.
    forgotten: u64,
}

/// Two writes of one key that did not know of each other.
#[derive(Debug, Serialize, JsonSchema)]
struct ConflictEntry {
    id: String,
    key: String,
    /// `concurrent`, `siblings`, `not_owner` or `below_floor`.
    why: String,
    /// The write whose value does not show.
    loser: WriteEntry,
    /// The write whose value shows, where there is one.
    winner: Option<WriteEntry>,
}

/// One of two writes.
#[derive(Debug, Serialize, JsonSchema)]
struct WriteEntry {
    /// The value as JSON text, every number exact; left out where the write deleted the key, or its value is too large.
    #[serde(skip_serializing_if = "Option::is_none")]
    value_json: Option<String>,
    /// Who wrote.
    node: String,
    /// RFC 3339 in UTC, by the clock of who wrote.
    time: String,
}

impl From<Side> for WriteEntry {
    fn from(side: Side) -> Self {
        let value_json = side.value.and_then(|value| python_json::write(&value).ok());
        Self { value_json, node: side.node, time: side.time.to_string() }
    }
}

impl EdgeTool for ListConflicts {
    const NAME: &'static str = "edge_list_conflicts";
    const TITLE: &'static str = "Conflicts of a document";
    const ABOUT: &'static str = "Lists writes of a document that did not know of each other and that nobody has resolved: which value shows, \
        which one lost, and who wrote them.";
    const EFFECT: Effect = Effect::Reads;
    type Output = ConflictList;

    async fn run(self, session: &Session<'_>) -> Result<ConflictList, ToolError> {
        let document = DocumentName::new(&self.document)?;
        let limit = self.limit.unwrap_or(CONFLICTS_DEFAULT);
        if limit == 0 || limit > CONFLICTS_PAGE_MAX {
            return Err(ToolError::invalid(format!("`limit` is from 1 to {CONFLICTS_PAGE_MAX}, not {limit}")));
        }
        let after = self.after.map(|after| conflict_id(&after).map(|after| format!("&after={after}"))).transpose()?.unwrap_or_default();
        let found: Conflicts = session.read(format!("/v1/documents/{document}/conflicts?limit={limit}{after}")).await?;
        let entry = |conflict: crate::client::Conflict| ConflictEntry {
            id: conflict.id,
            key: conflict.key,
            why: conflict.why,
            loser: conflict.loser.into(),
            winner: conflict.winner.map(WriteEntry::from),
        };
        Ok(ConflictList { conflicts: found.conflicts.into_iter().map(entry).collect(), next: found.next, forgotten: found.forgotten })
    }
}

/// Ids of conflicts are made of letters, digits and `-_.`.
fn conflict_id(id: &str) -> Result<&str, ToolError> {
    if id.is_empty() || id.len() > CONFLICT_ID_BYTES_MAX || !id.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Err(ToolError::invalid("that is no id of a conflict: `edge_list_conflicts` tells them"));
    }
    Ok(id)
}

/// Longest id of a conflict, in bytes.
const CONFLICT_ID_BYTES_MAX: usize = 256;

/// What becomes of a conflict.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Choice {
    /// The key stays as it is.
    Keep,
    /// The key gets the value that lost.
    Take,
    /// The key is deleted.
    Delete,
    /// The key gets `value`.
    Value,
}

/// Parameters of `edge_resolve_conflict`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResolveConflict {
    /// The document's name.
    document: String,
    /// The conflict, as `edge_list_conflicts` names it.
    conflict_id: String,
    /// What becomes of it.
    choice: Choice,
    /// For `value`: what the key gets.
    #[serde(default)]
    value: Option<Value>,
}

/// A conflict that is no more.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Resolved {
    /// `resolved`.
    status: &'static str,
    document: String,
    conflict_id: String,
}

impl EdgeTool for ResolveConflict {
    const NAME: &'static str = "edge_resolve_conflict";
    const TITLE: &'static str = "Resolve a conflict";
    const ABOUT: &'static str = "Decides a conflict, here and at every replica: keep the value that shows, take the one that lost, delete the \
        key, or give it another value.";
    const EFFECT: Effect = Effect::Changes;
    type Output = Resolved;

    async fn run(self, session: &Session<'_>) -> Result<Resolved, ToolError> {
        let document = DocumentName::new(&self.document)?;
        let id = conflict_id(&self.conflict_id)?;
        let body = match (self.choice, self.value) {
            (Choice::Keep, None) => json!({ "keep": true }),
            (Choice::Take, None) => json!({ "take": true }),
            (Choice::Delete, None) => json!({ "delete": true }),
            (Choice::Value, value) => json!({ "value": value }),
            (_, Some(_)) => return Err(ToolError::invalid("`value` goes with the choice `value` only")),
        };
        let path = format!("/v1/documents/{document}/conflicts/{id}/resolve");
        session.change(Request::new(Method::POST, path).payload(body.to_string())).await?;
        Ok(Resolved { status: "resolved", document: document.to_string(), conflict_id: id.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_this_protocol_would_change_is_refused_and_not_told() {
        let document = DocumentName::new("cellar").expect("valid");
        let told = |text: &str| told(python_json::read(text).expect("valid"), &document).map(|value| value.to_string());
        for exact in ["18446744073709551615", "-9223372036854775808", "1.5", "[1,{\"a\":null}]"] {
            assert_eq!(told(exact).expect("exact"), exact);
        }
        for lossy in ["18446744073709551616", "[{\"a\":-9223372036854775809}]", "1E400"] {
            assert!(told(lossy).expect_err(lossy).message().contains("edgeward state get cellar"));
        }
    }
}
