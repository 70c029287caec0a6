//! The conflict log: pairs of writes that did not know of each other, until someone resolves them.
//!
//! The hub lists them in the document [`CONFLICTS`], which reaches every replica as any document does. Values of `keep_both` that
//! stand side by side are conflicts too: they are seen in the key itself.

use edgeward_model::{EdgeError, ErrorKind, Object, Value, limits::VALUE_BYTES_MAX, python_json};
use jiff::Timestamp;

use crate::{
    causality::Dot,
    clock::Stamp,
    row::{Body, Row, Slot},
    snapshot::{DocumentHead, Snapshot},
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
    /// What it wrote; none is a delete, or a value too large to be listed, see `omitted_bytes`.
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
    /// Names it within its document.
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

/// What becomes of a conflict.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolution {
    /// The key stays as it is.
    Keep,
    /// The key gets the value that lost.
    Take,
    /// The key gets another value; none deletes it.
    Set(Option<Value>),
}

/// A pair of rows on its way into the log.
pub(crate) struct Listing {
    pub(crate) document: std::sync::Arc<str>,
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
        let id = id(&self.document, &self.key, &self.loser.origin.dot);
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
    match row.value() {
        Some(text) if text.len() <= room => drop(members.0.insert("value".to_owned(), python_json::read(text)?)),
        Some(text) => drop(members.0.insert("value_bytes".to_owned(), Value::from(text.len() as u64))),
        None => {}
    }
    Ok(Value::Object(members))
}

/// A write loses once: whatever comes after what it lost to is no other conflict.
fn id(document: &str, key: &str, loser: &Dot) -> String {
    let text = format!("{document}\n{key}\n{loser:?}");
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

/// The conflicts of a document, by key.
pub(crate) fn list(snapshot: &Snapshot<'_>, document: &str) -> Result<Vec<Conflict>, EdgeError> {
    let mut conflicts = Vec::new();
    if let Some(log) = snapshot.head(CONFLICTS)? {
        let prefix = format!("{document}/");
        for key in snapshot.live_keys(&log, &prefix)? {
            if let (Some(id), Some(value)) = (key.strip_prefix(&prefix), snapshot.value(&log, &key)?) {
                conflicts.extend(read(id, &value));
            }
        }
    }
    if let Some(head) = snapshot.head(document)? {
        siblings(snapshot, &head, &mut conflicts)?;
    }
    conflicts.sort_by(|left, right| (&left.key, left.listed_at, &left.id).cmp(&(&right.key, right.listed_at, &right.id)));
    Ok(conflicts)
}

/// The conflicts that are values of one key side by side.
fn siblings(snapshot: &Snapshot<'_>, head: &DocumentHead, conflicts: &mut Vec<Conflict>) -> Result<(), EdgeError> {
    for key in snapshot.keys_with_siblings(head)? {
        let rows = snapshot.rows(head, &key)?;
        let siblings = rows.siblings();
        let sides = siblings.iter().filter_map(|(slot, added)| {
            let Slot::Member(_, node, epoch) = slot else { return None };
            let value = python_json::read(&added.value).ok();
            let epoch = format!("{:016x}", epoch.0);
            Some(Side { value, omitted_bytes: None, node: node.to_string(), epoch, counter: added.counter, stamp: added.stamp })
        });
        let mut sides = sides.collect::<Vec<_>>().into_iter();
        let winner = sides.next();
        conflicts.extend(sides.map(|loser| {
            let text = format!("{}\n{key}\n{}\n{}\n{}", head.name, loser.node, loser.epoch, loser.counter);
            let millis = i64::try_from(loser.stamp.millis()).unwrap_or(0);
            Conflict {
                id: blake3::hash(text.as_bytes()).to_hex()[..16].to_owned(),
                document: head.name.to_string(),
                key: key.clone(),
                why: Why::Siblings,
                loser,
                winner: winner.clone(),
                listed_at: Timestamp::from_millisecond(millis).unwrap_or_default(),
            }
        }));
    }
    Ok(())
}

/// A conflict as the log holds it; none when it is of a form that this release does not know.
fn read(id: &str, value: &Value) -> Option<Conflict> {
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
            value: side.0.get("value").cloned(),
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

/// There is no such conflict.
pub(crate) fn not_found(document: &str, id: &str) -> EdgeError {
    let shown: String = id.chars().take(64).collect();
    let why = format!("conflict not found: `{}` of document `{document}`; it may have been resolved elsewhere", shown.escape_debug());
    EdgeError::new(ErrorKind::NotFound, why)
}
