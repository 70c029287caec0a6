//! Frames: what replicas and hubs say to each other, as bytes.
//!
//! A frame is a version byte, the number of the request, the message in postcard, and four bytes of BLAKE3 over all of it. Rows name
//! documents, writers and hub epochs by their place in tables, so that one changed key is small.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use edgeward_model::{DocumentName, EdgeError, ErrorKind, NodeId, limits::KEY_BYTES_MAX, python_json};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    causality::{Ancestors, Base, Dot, Epoch, Lineage, Origin, Position},
    clock::Stamp,
    interest::Pattern,
    row::{Addition, Body, Membership, Register, Row, Slot, Subtotal},
};

/// Versions of the protocol that this release speaks, the oldest and the newest.
pub(crate) const VERSIONS: [u8; 2] = [2, 2];
/// Largest frame, in bytes: one row of the largest value is below it.
pub const FRAME_BYTES_MAX: usize = 512 * 1024;
/// Rows are added to a frame up to here.
const ROWS_BYTES_MAX: usize = FRAME_BYTES_MAX - 16 * 1024;
/// What a row takes in a frame beside its texts, at most, as long as its lists are short.
const ROW_BYTES: usize = 128;
const CHECKSUM_BYTES: usize = 4;

/// What a replica asks.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Hello(Hello),
    Push(Push),
    Ask(Asker, Question),
}

/// Who asks: the hub is to know what it wants.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Asker {
    pub(crate) node: NodeId,
    /// The hub epoch that welcomed it, and the digest of the interest that it told then.
    pub(crate) hub: Epoch,
    pub(crate) interest: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// The rows after a position, but those of this epoch up to this counter, which the replica has.
    Pull {
        epoch: Epoch,
        counter: u64,
        since: Position,
        /// A standby is also told the writers that changed after this number.
        writers: Option<u64>,
    },
    /// The rows after a position, up to another, of the documents that these patterns mean: the replica did not want them before.
    Fetch { patterns: Vec<Pattern>, since: Position, until: Position },
    /// Which of these documents, by name, differ, and which others are there?
    Documents {
        from: String,
        /// The name before which these end; none is the end.
        until: Option<String>,
        digests: Vec<(Arc<str>, Digest)>,
    },
    /// Which buckets of this document differ?
    Buckets { document: String, digests: Vec<Digest> },
    /// Which rows of this bucket differ?
    Keys(Keys),
    /// Rows that the hub wanted.
    Give { rows: Rows },
}

/// What a hub answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Welcome(Welcome),
    Ack(Ack),
    Rows {
        rows: Rows,
        upto: Position,
        more: bool,
        /// With the last rows, to a standby.
        writers: Vec<Writer>,
    },
    Differ {
        documents: Vec<String>,
        /// The name before which the answer ends; none is the end of the request.
        until: Option<String>,
    },
    DifferentBuckets {
        mask: u64,
    },
    Different(Different),
    /// Rows that were given are joined, by this position.
    Taken {
        end: Position,
    },
    /// Something is not known here any more: say hello.
    HelloAgain,
    /// Another store wrote in this epoch.
    Forked,
    /// A stamp is too far ahead.
    Clock,
}

pub(crate) type Digest = [u8; 16];

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) node: NodeId,
    pub(crate) epoch: Epoch,
    /// The epochs before it, each with the last counter in it.
    pub(crate) ancestors: Vec<(Epoch, u64)>,
    /// Up to where the rows of which hub epoch are applied.
    pub(crate) applied: Option<(Epoch, Position)>,
    /// The oldest and the newest version of the protocol that the replica speaks.
    pub(crate) versions: [u8; 2],
    /// The documents that it wants.
    pub(crate) interest: Vec<Pattern>,
    /// What a later release says beside, by its number: what is not known is passed over.
    pub(crate) more: Vec<(u32, Vec<u8>)>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) node: NodeId,
    pub(crate) epoch: Epoch,
    /// The end of its feed.
    pub(crate) feed: Position,
    pub(crate) now_millis: u64,
    /// Stamps up to this millisecond are taken.
    pub(crate) stamp_millis_max: u64,
    /// The greatest stamp that was taken from it.
    pub(crate) taken: Stamp,
    /// Of each epoch of the replica, the current one first: the acknowledged counter and the chain of its frames.
    pub(crate) epochs: Vec<(Epoch, u64, u64)>,
    /// Whether the replica must compare all it has, and whether that is because this hub was set back.
    pub(crate) resync: bool,
    pub(crate) set_back: bool,
    /// The hub's epochs, to a standby.
    pub(crate) lineage: Option<Lineage>,
    /// The version of the protocol in which to go on.
    pub(crate) version: u8,
    /// What a later release says beside, by its number.
    pub(crate) more: Vec<(u32, Vec<u8>)>,
}

/// What a hub keeps of an epoch of a replica.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Writer {
    pub(crate) node: NodeId,
    pub(crate) epoch: Epoch,
    pub(crate) acknowledged: u64,
    pub(crate) chain: u64,
    /// The chain before the last frame, and its answer.
    pub(crate) before: u64,
    pub(crate) answer: Vec<u8>,
    /// The greatest stamp of its rows.
    pub(crate) taken: Stamp,
    pub(crate) ancestors: Ancestors,
    /// The milliseconds of its last hello.
    pub(crate) seen_at: u64,
    /// Orders the writers by their last change.
    pub(crate) number: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Push {
    /// What the frames of this epoch before it come to.
    pub(crate) chain: u64,
    pub(crate) after: u64,
    pub(crate) upto: u64,
    /// Rows of one writer's epoch, the first in their table.
    pub(crate) rows: Rows,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ack {
    /// The hub epoch of the positions: of an answer that is given again, an earlier one.
    pub(crate) hub: Epoch,
    pub(crate) upto: u64,
    /// The position of the first row; the others follow, except these.
    pub(crate) first: Position,
    pub(crate) fates: Vec<(u32, Fate)>,
}

/// What became of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Fate {
    /// It has this position.
    Placed(Position),
    /// Another row is there instead, at this position or before it.
    Superseded(Position),
    /// It is in the conflict log only.
    Lost,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Keys {
    pub(crate) document: String,
    pub(crate) bucket: u8,
    pub(crate) from: String,
    /// The key before which these rows end; none is the end.
    pub(crate) until: Option<String>,
    pub(crate) rows: Vec<Known>,
    /// Up to where the rows of a hub that was set back were applied.
    pub(crate) lost: Option<(Epoch, Position)>,
}

/// A row that a replica has.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Known {
    pub(crate) key: String,
    pub(crate) slot: Vec<u8>,
    pub(crate) digest: u64,
    /// Its positions, of which the hub looks up its own.
    pub(crate) positions: Vec<(Epoch, Position)>,
    /// Whether it is in the outbox: then it is not compared, only known to be there.
    pub(crate) is_unsent: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Different {
    /// What the hub has.
    pub(crate) rows: Rows,
    /// Which rows of the request the hub wants.
    pub(crate) wanted: Vec<u32>,
    /// Which were deleted and forgotten.
    pub(crate) gone: Vec<u32>,
    /// The key before which the answer ends; none is the end of the request.
    pub(crate) until: Option<String>,
}

/// Rows with their tables.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Rows {
    documents: Vec<String>,
    writers: Vec<(NodeId, Epoch)>,
    hubs: Vec<Epoch>,
    each: Vec<WireRow>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct WireRow {
    document: u32,
    key: String,
    slot: WireSlot,
    stamp: Stamp,
    dot: (u32, u64),
    base: Vec<(u32, Position)>,
    overwrote: Option<(u32, u64)>,
    version: u64,
    term: u64,
    positions: Vec<(u32, Position)>,
    body: WireBody,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum WireSlot {
    Register,
    Counter(u32),
    Member(Arc<str>, u32),
    Whole,
    Floor,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum WireBody {
    Value { value: WireValue, root: Option<(Stamp, NodeId)>, instance: Option<Stamp> },
    Counter { instance: Option<Stamp>, sum: i64 },
    Member { added: Option<(u64, Stamp, Arc<str>)>, removed: u64 },
    Floor(Position),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum WireValue {
    None,
    Json(Arc<str>),
    /// JSON as it was written.
    Raw(Arc<[u8]>),
}

/// A row on its way: where it belongs, and itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SentRow {
    pub(crate) document: Arc<str>,
    pub(crate) key: String,
    pub(crate) slot: Slot,
    pub(crate) row: Row,
}

/// Collects rows up to what a frame holds.
#[derive(Default)]
pub(crate) struct RowsWriter {
    rows: Rows,
    documents: HashMap<String, u32>,
    writers: HashMap<(NodeId, Epoch), u32>,
    hubs: HashMap<Epoch, u32>,
    bytes: usize,
}

fn index<T: Clone + Eq + Hash>(table: &mut Vec<T>, known: &mut HashMap<T, u32>, item: T) -> u32 {
    *known.entry(item).or_insert_with_key(|item| {
        table.push(item.clone());
        u32::try_from(table.len() - 1).expect("a frame has few rows")
    })
}

impl RowsWriter {
    /// Adds a row, unless the frame is full.
    pub(crate) fn add(&mut self, document: &str, key: &str, slot: &Slot, row: &Row) -> bool {
        let body = match &row.body {
            Body::Register(Register { value, raw, root, instance }) => {
                let value = match (value, raw) {
                    (_, Some(raw)) => WireValue::Raw(Arc::clone(raw)),
                    (Some(value), None) => WireValue::Json(Arc::clone(value)),
                    (None, None) => WireValue::None,
                };
                WireBody::Value { value, root: root.clone(), instance: *instance }
            }
            Body::Counter(subtotal) => WireBody::Counter { instance: subtotal.instance, sum: subtotal.sum },
            Body::Member(membership) => {
                let added = membership.added.as_ref().map(|added| (added.counter, added.stamp, Arc::clone(&added.value)));
                WireBody::Member { added, removed: membership.removed }
            }
            Body::Floor(position) => WireBody::Floor(*position),
        };
        let text = match &body {
            WireBody::Value { value: WireValue::Json(text), .. } | WireBody::Member { added: Some((.., text)), .. } => text.len(),
            WireBody::Value { value: WireValue::Raw(bytes), .. } => bytes.len(),
            _ => 0,
        };
        let element = if let Slot::Member(element, ..) = slot { element.len() } else { 0 };
        let bytes = key.len() + document.len() + text + element + ROW_BYTES;
        if self.bytes + bytes > ROWS_BYTES_MAX && !self.is_empty() {
            return false;
        }
        self.bytes += bytes;
        let Rows { documents, writers, hubs, each } = &mut self.rows;
        let mut writer = |node: &NodeId, epoch: Epoch| index(writers, &mut self.writers, (node.clone(), epoch));
        let mut dot = |dot: &Dot| (writer(&dot.node, dot.epoch), dot.counter);
        let (name, overwrote) = (dot(&row.origin.dot), row.origin.overwrote.as_ref().map(&mut dot));
        let slot = match slot {
            Slot::Register => WireSlot::Register,
            Slot::Counter(node, epoch) => WireSlot::Counter(writer(node, *epoch)),
            Slot::Member(element, node, epoch) => WireSlot::Member(Arc::clone(element), writer(node, *epoch)),
            Slot::Whole => WireSlot::Whole,
            Slot::Floor => WireSlot::Floor,
        };
        let mut places = |places: &[(Epoch, Position)]| -> Vec<_> {
            places.iter().map(|(epoch, position)| (index(hubs, &mut self.hubs, *epoch), *position)).collect()
        };
        each.push(WireRow {
            document: index(documents, &mut self.documents, document.to_owned()),
            key: key.to_owned(),
            slot,
            stamp: row.stamp,
            dot: name,
            base: places(row.origin.base.entries()),
            overwrote,
            version: row.version,
            term: row.term,
            positions: places(&row.positions),
            body,
        });
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.each.is_empty()
    }

    /// Whether most of a frame is left.
    pub(crate) fn leaves_room(&self) -> bool {
        self.bytes < FRAME_BYTES_MAX / 4
    }

    pub(crate) fn finish(self) -> Rows {
        self.rows
    }
}

impl Rows {
    /// The first writer in the table: who sent them.
    pub(crate) fn writer(&self) -> Result<(NodeId, Epoch), EdgeError> {
        self.writers.first().cloned().ok_or_else(damaged)
    }

    /// The rows, each checked: names are valid, values canonical JSON, places in the tables there.
    pub(crate) fn read(self) -> Result<Vec<SentRow>, EdgeError> {
        let Self { documents, writers, hubs, each } = self;
        let documents = documents
            .iter()
            .map(|name| DocumentName::new(name).map(|name| Arc::from(name.as_str())))
            .collect::<Result<Vec<Arc<str>>, _>>()?;
        let writer = |index: u32| writers.get(index as usize).ok_or_else(damaged);
        let dot = |(index, counter): (u32, u64)| writer(index).map(|(node, epoch)| Dot { node: node.clone(), epoch: *epoch, counter });
        let place = |(index, position): &(u32, Position)| hubs.get(*index as usize).map(|epoch| (*epoch, *position)).ok_or_else(damaged);
        let rows = each.into_iter().map(|wire| {
            let slot = match wire.slot {
                WireSlot::Register => Slot::Register,
                WireSlot::Counter(index) => writer(index).map(|(node, epoch)| Slot::Counter(node.clone(), *epoch))?,
                WireSlot::Member(element, index) => {
                    if !element.is_empty() {
                        canonical(&element)?;
                    }
                    writer(index).map(|(node, epoch)| Slot::Member(element, node.clone(), *epoch))?
                }
                WireSlot::Whole => Slot::Whole,
                WireSlot::Floor => Slot::Floor,
            };
            let fits = matches!(
                (&slot, &wire.body),
                (Slot::Register | Slot::Whole, WireBody::Value { .. })
                    | (Slot::Counter(..), WireBody::Counter { .. })
                    | (Slot::Member(..), WireBody::Member { .. })
                    | (Slot::Floor, WireBody::Floor(_))
            );
            let at_empty_key = matches!(slot, Slot::Whole | Slot::Floor);
            if !fits || wire.key.len() > KEY_BYTES_MAX || (at_empty_key && !wire.key.is_empty()) {
                return Err(damaged());
            }
            let mut base = Base::new();
            for entry in wire.base.iter().rev() {
                let (epoch, position) = place(entry)?;
                base.advance(epoch, position);
            }
            let body = match wire.body {
                WireBody::Value { value, root, instance } => {
                    let (value, raw) = match value {
                        WireValue::None => (None, None),
                        WireValue::Json(text) => (Some(canonical(&text)?), None),
                        WireValue::Raw(bytes) => {
                            let text = str::from_utf8(&bytes).map_err(|_| damaged())?;
                            (Some(Arc::from(python_json::write(&python_json::read(text)?)?)), Some(bytes))
                        }
                    };
                    Body::Register(Register { value, raw, root, instance })
                }
                WireBody::Counter { instance, sum } => Body::Counter(Subtotal { instance, sum, acknowledged: 0 }),
                WireBody::Member { added, removed } => {
                    let added = added.map(|(counter, stamp, value)| Addition { counter, stamp, value });
                    let membership = Membership { added, removed };
                    if let Some(added) = membership.live() {
                        canonical(&added.value)?;
                    }
                    Body::Member(membership.without_removed_value())
                }
                WireBody::Floor(position) => Body::Floor(position),
            };
            let row = Row {
                origin: Origin { dot: dot(wire.dot)?, base, overwrote: wire.overwrote.map(dot).transpose()? },
                stamp: wire.stamp,
                version: wire.version.min(1 << 62),
                term: wire.term,
                positions: wire.positions.iter().map(place).collect::<Result<_, _>>()?,
                body,
            };
            let document = documents.get(wire.document as usize).ok_or_else(damaged)?;
            Ok(SentRow { document: Arc::clone(document), key: wire.key, slot, row })
        });
        rows.collect()
    }
}

/// A text that is canonical JSON, as it is.
fn canonical(text: &Arc<str>) -> Result<Arc<str>, EdgeError> {
    let written = python_json::write(&python_json::read(text)?)?;
    if *written == **text { Ok(Arc::clone(text)) } else { Err(damaged()) }
}

fn damaged() -> EdgeError {
    EdgeError::new(ErrorKind::InvalidInput, "a frame of the sync protocol is damaged")
}

/// The bytes of a message; what they come to with the chain before is the chain after them.
pub(crate) fn message<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_allocvec(message).expect("a message has only numbers, texts and lists")
}

pub(crate) fn chain(before: u64, message: &[u8]) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&before.to_le_bytes());
    hasher.update(message);
    u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("eight bytes"))
}

/// The frame of a message.
pub(crate) fn frame(request: u32, message: &[u8]) -> Vec<u8> {
    let mut frame = postcard::to_extend(&request, vec![VERSIONS[0]]).expect("a number");
    frame.extend_from_slice(message);
    let checksum = blake3::hash(&frame);
    frame.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_BYTES]);
    frame
}

/// The number of the request and the bytes of the message in a frame.
pub(crate) fn open(frame: &[u8]) -> Result<(u32, &[u8]), EdgeError> {
    if frame.len() > FRAME_BYTES_MAX {
        let why = format!("a frame of the sync protocol is {} bytes long, the most is {FRAME_BYTES_MAX}", frame.len());
        return Err(EdgeError::new(ErrorKind::TooLarge, why));
    }
    let (content, checksum) = frame.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(damaged)?;
    if blake3::hash(content).as_bytes()[..CHECKSUM_BYTES] != checksum[..] {
        return Err(damaged());
    }
    match content.split_first() {
        Some((version, rest)) if (VERSIONS[0]..=VERSIONS[1]).contains(version) => postcard::take_from_bytes(rest).map_err(|_| damaged()),
        Some((version, _)) => Err(unknown_version([*version, *version])),
        None => Err(damaged()),
    }
}

/// The newest version that a peer speaks too.
pub(crate) fn agree(theirs: [u8; 2]) -> Result<u8, EdgeError> {
    let version = theirs[1].min(VERSIONS[1]);
    if version < theirs[0] || version < VERSIONS[0] { Err(unknown_version(theirs)) } else { Ok(version) }
}

fn unknown_version([oldest, newest]: [u8; 2]) -> EdgeError {
    let [own_oldest, own_newest] = VERSIONS;
    let why = format!(
        "the other side speaks versions {oldest} to {newest} of the sync protocol, and this release {own_oldest} to {own_newest}; upgrade the older one"
    );
    EdgeError::new(ErrorKind::InvalidInput, why)
}

/// The message of these bytes.
pub(crate) fn read<T: DeserializeOwned>(message: &[u8]) -> Result<T, EdgeError> {
    let (read, rest) = postcard::take_from_bytes(message).map_err(|_| damaged())?;
    if rest.is_empty() { Ok(read) } else { Err(damaged()) }
}
