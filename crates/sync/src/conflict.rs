//! The conflict log: pairs of writes that did not know of each other, until someone resolves them.
//!
//! The hub lists them in the document [`CONFLICTS`], which reaches every replica as any document does. Values of `keep_both` that
//! stand side by side are conflicts too: they are seen in the key itself.

use std::{collections::BTreeMap, sync::Arc};

use edgeward_model::{EdgeError, ErrorKind, Object, Value, limits::VALUE_BYTES_MAX, python_json};
use jiff::Timestamp;

use crate::{
    clock::Stamp,
    merge::Merge,
    row::{Body, Row, Slot},
    snapshot::{DocumentHead, Snapshot},
    transaction::Transaction,
};

/// The document that holds the conflict log.
pub const CONFLICTS: &str = "edgeward.conflicts";

/// Why a write is in the conflict log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// Two writers changed a key without knowing of each other.
    Concurrent,
    /// The writer does not own the key.
    NotOwner,
    /// The writer was away for so long that it may have missed a deletion.
    BelowFloor,
    /// Both values of a `keep_both` key stand.
    Siblings,
}

const WHYS: [(Why, &str); 4] =
    [(Why::Concurrent, "concurrent"), (Why::NotOwner, "not_owner"), (Why::BelowFloor, "below_floor"), (Why::Siblings, "siblings")];

impl Why {
    /// The reason as one word.
    pub fn as_str(self) -> &'static str {
        WHYS.iter().find(|(why, _)| *why == self).map_or("", |(_, name)| name)
    }
}

/// One of the two writes of a conflict.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    /// What it wrote, or of a count what its writer had counted in this opening; none is a delete, or a value too large to be listed, see
    /// `omitted_bytes`.
    pub value: Option<Value>,
    /// The bytes of a value that is too large to be listed, as JSON.
    pub omitted_bytes: Option<u64>,
    /// Who wrote.
    pub node: String,
    /// The opening of its store in which it wrote, in hexadecimal.
    pub epoch: String,
    /// The write in this epoch.
    pub counter: u64,
    /// When: the bits of its stamp.
    pub stamp: Stamp,
}

impl Side {
    /// What it wrote, none for a delete.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] when the value was too large to be listed.
    pub(crate) fn into_value(self, key: &str) -> Result<Option<Value>, EdgeError> {
        let Some(bytes) = self.omitted_bytes else { return Ok(self.value) };
        let (node, shown) = (&self.node, key.chars().take(64).collect::<String>());
        let why = format!("the value of node `{node}` for key `{}` has {bytes} bytes, too many to be listed", shown.escape_debug());
        Err(EdgeError::new(ErrorKind::TooLarge, format!("{why}; write it anew instead")))
    }
}

/// A conflict that nobody has resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Names it within its document; the ids of one order by the moments at which what lost was written.
    pub id: String,
    /// The document.
    pub document: String,
    /// The key.
    pub key: String,
    /// Why it is listed.
    pub why: Why,
    /// The write whose value does not show.
    pub loser: Side,
    /// The write whose value showed when it was listed; none where there was none.
    pub winner: Option<Side>,
    /// When the hub listed it; of siblings, when the loser was written.
    pub listed_at: Timestamp,
}

/// A part of the conflicts of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConflictsPage {
    /// In the order of their ids.
    pub conflicts: Vec<Conflict>,
    /// After which id the next part begins; none when this is the last.
    pub next: Option<String>,
    /// How many of the document were forgotten before anybody resolved them: after 30 days, or when there were too many.
    pub forgotten: u64,
}

/// What becomes of a conflict.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolution {
    /// The key stays as it is.
    Keep,
    /// The key gets the value that lost; what was counted is added.
    Take,
    /// The key gets another value; none deletes it.
    Set(Option<Value>),
}

/// A pair of rows on its way into the log.
pub(crate) struct Listing {
    pub(crate) document: Arc<str>,
    pub(crate) key: String,
    pub(crate) loser: Row,
    pub(crate) winner: Option<Row>,
    pub(crate) why: Why,
}

impl Listing {
    /// Its key and value in the conflict document.
    pub(crate) fn entry(&self, now: Timestamp) -> Result<(String, Value), EdgeError> {
        let room = VALUE_BYTES_MAX / 2 - 4096;
        let members = [
            ("document", Value::from(self.document.to_string())),
            ("key", Value::from(self.key.clone())),
            ("why", Value::from(self.why.as_str().to_owned())),
            ("listed_at", Value::from(now.to_string())),
            ("loser", side(&self.loser, room)?),
            ("winner", self.winner.as_ref().map_or(Ok(Value::Null), |winner| side(winner, room))?),
        ];
        let dot = &self.loser.origin.dot;
        let id = id(&self.document, &self.key, dot.node.as_str(), dot.epoch.0, dot.counter, self.loser.stamp);
        Ok((format!("{}/{id}", self.document), Value::Object(Object::from_iter(members))))
    }
}

fn side(row: &Row, room: usize) -> Result<Value, EdgeError> {
    let dot = &row.origin.dot;
    let mut members = Object::from_iter([
        ("node", Value::from(dot.node.to_string())),
        ("epoch", Value::from(format!("{:016x}", dot.epoch.0))),
        ("counter", Value::from(dot.counter)),
        ("stamp", Value::from(row.stamp.bits())),
    ]);
    if let Body::Counter(subtotal) = &row.body {
        members.0.insert("count".to_owned(), subtotal.sum.into());
    }
    match row.value() {
        Some(text) if text.len() <= room => drop(members.0.insert("value".to_owned(), python_json::read(text)?)),
        Some(text) => drop(members.0.insert("value_bytes".to_owned(), Value::from(text.len() as u64))),
        None => {}
    }
    Ok(Value::Object(members))
}

/// A write loses once: whatever comes after what it lost to is no other conflict. Ids order by the moment at which it was made.
fn id(document: &str, key: &str, node: &str, epoch: u64, counter: u64, stamp: Stamp) -> String {
    let text = format!("{document}\n{key}\n{node}\n{epoch:016x}\n{counter}");
    format!("{:012x}{}", stamp.millis(), &blake3::hash(text.as_bytes()).to_hex()[..8])
}

/// The conflicts of a document after an id, in the order of their ids, at most `limit`, and whether there are more.
pub(crate) fn list(snapshot: &Snapshot<'_>, document: &str, after: &str, limit: usize) -> Result<(Vec<Conflict>, bool), EdgeError> {
    let log = snapshot.head(CONFLICTS)?;
    let prefix = format!("{document}/");
    let mut found = BTreeMap::new();
    if let Some(log) = &log {
        for key in snapshot.live_keys(log, &prefix)? {
            found.extend(key.strip_prefix(&prefix).filter(|id| *id > after).map(|id| (id.to_owned(), None)));
        }
    }
    if let Some(head) = snapshot.head(document)? {
        let siblings = siblings(snapshot, &head)?.into_iter().filter(|conflict| conflict.id.as_str() > after);
        found.extend(siblings.map(|conflict| (conflict.id.clone(), Some(conflict))));
    }
    let has_more = found.len() > limit;
    let mut conflicts = Vec::new();
    for (id, known) in found.into_iter().take(limit) {
        conflicts.extend(match (known, &log) {
            (None, Some(log)) => snapshot.value(log, &format!("{prefix}{id}"))?.and_then(|value| read(&id, &value)),
            (known, _) => known,
        });
    }
    Ok((conflicts, has_more))
}

/// The conflict of this id.
pub(crate) fn find(snapshot: &Snapshot<'_>, document: &str, id: &str) -> Result<Conflict, EdgeError> {
    if let Some(log) = snapshot.head(CONFLICTS)?
        && let Some(found) = snapshot.value(&log, &format!("{document}/{id}"))?.and_then(|value| read(id, &value))
    {
        return Ok(found);
    }
    let siblings = snapshot.head(document)?.map(|head| siblings(snapshot, &head)).transpose()?.unwrap_or_default();
    siblings.into_iter().find(|conflict| conflict.id == id).ok_or_else(|| not_found(document, id))
}

/// What the loser of a conflict had counted; none when it is no count.
pub(crate) fn counted(snapshot: &Snapshot<'_>, document: &str, id: &str) -> Result<Option<i64>, EdgeError> {
    let Some(log) = snapshot.head(CONFLICTS)? else { return Ok(None) };
    let Some(Value::Object(mut members)) = snapshot.value(&log, &format!("{document}/{id}"))? else { return Ok(None) };
    Ok(match members.0.remove("loser") {
        Some(Value::Object(loser)) => match loser.0.get("count") {
            Some(Value::Integer(count)) => count.as_i64(),
            _ => None,
        },
        _ => None,
    })
}

/// How many conflicts of a document were forgotten without being resolved.
pub(crate) fn forgotten(snapshot: &Snapshot<'_>, document: &str) -> Result<u64, EdgeError> {
    let Some(log) = snapshot.head(CONFLICTS)? else { return Ok(0) };
    Ok(match snapshot.value(&log, document)? {
        Some(Value::Integer(number)) => number.as_u64().unwrap_or(0),
        _ => 0,
    })
}

/// Takes conflicts of a document out of the log, and counts them under its name.
pub(crate) fn forget(
    transaction: &mut Transaction<'_>,
    merge: &mut Merge,
    document: &str,
    ids: &[String],
    millis: u64,
) -> Result<(), EdgeError> {
    let log: Arc<str> = Arc::from(CONFLICTS);
    for id in ids {
        merge.set(transaction, &log, &format!("{document}/{id}"), None, millis)?;
    }
    if !ids.is_empty() {
        let forgotten = forgotten(transaction, document)?.saturating_add(ids.len() as u64);
        merge.set(transaction, &log, document, Some(&Value::from(forgotten)), millis)?;
    }
    Ok(())
}

/// The conflicts that are values of one key side by side.
fn siblings(snapshot: &Snapshot<'_>, head: &DocumentHead) -> Result<Vec<Conflict>, EdgeError> {
    let mut conflicts = Vec::new();
    for key in snapshot.keys_with_siblings(head)? {
        let rows = snapshot.rows(head, &key)?;
        let siblings = rows.siblings();
        let sides = siblings.iter().filter_map(|(slot, added)| {
            let Slot::Member(_, node, epoch) = slot else { return None };
            let value = python_json::read(&added.value).ok();
            let id = id(&head.name, &key, node.as_str(), epoch.0, added.counter, added.stamp);
            let epoch = format!("{:016x}", epoch.0);
            Some((id, Side { value, omitted_bytes: None, node: node.to_string(), epoch, counter: added.counter, stamp: added.stamp }))
        });
        let mut sides = sides.collect::<Vec<_>>().into_iter();
        let winner = sides.next().map(|(_, winner)| winner);
        conflicts.extend(sides.map(|(id, loser)| {
            let millis = i64::try_from(loser.stamp.millis()).unwrap_or(0);
            Conflict {
                id,
                document: head.name.to_string(),
                key: key.clone(),
                why: Why::Siblings,
                loser,
                winner: winner.clone(),
                listed_at: Timestamp::from_millisecond(millis).unwrap_or_default(),
            }
        }));
    }
    Ok(conflicts)
}

/// A conflict as the log holds it; none when it is of a form that this release does not know.
pub(crate) fn read(id: &str, value: &Value) -> Option<Conflict> {
    let Value::Object(members) = value else { return None };
    let text = |members: &Object, name: &str| match members.0.get(name) {
        Some(Value::String(text)) => Some(text.clone()),
        _ => None,
    };
    let number = |members: &Object, name: &str| match members.0.get(name) {
        Some(Value::Integer(number)) => number.as_u64(),
        _ => None,
    };
    let side = |name: &str| {
        let Some(Value::Object(side)) = members.0.get(name) else { return None };
        Some(Side {
            value: side.0.get("value").or_else(|| side.0.get("count")).cloned(),
            omitted_bytes: number(side, "value_bytes"),
            node: text(side, "node")?,
            epoch: text(side, "epoch")?,
            counter: number(side, "counter")?,
            stamp: Stamp::from_bits(number(side, "stamp")?),
        })
    };
    let why = text(members, "why")?;
    Some(Conflict {
        id: id.to_owned(),
        document: text(members, "document")?,
        key: text(members, "key")?,
        why: WHYS.iter().find(|(_, name)| *name == why).map(|(why, _)| *why)?,
        loser: side("loser")?,
        winner: side("winner"),
        listed_at: text(members, "listed_at")?.parse().ok()?,
    })
}

/// Whether two rows say different things of one register.
pub(crate) fn differ(left: &Row, right: &Row) -> bool {
    match (&left.body, &right.body) {
        (Body::Register(left), Body::Register(right)) => left.value != right.value || left.raw != right.raw,
        _ => false,
    }
}

fn not_found(document: &str, id: &str) -> EdgeError {
    let shown: String = id.chars().take(64).collect();
    let why = format!("conflict not found: `{}` of document `{document}`; it may have been resolved elsewhere", shown.escape_debug());
    EdgeError::new(ErrorKind::NotFound, why)
}
