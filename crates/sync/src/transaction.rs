//! What is written in one transaction: rows with their stamps and dots, and the documents that they change.

use std::{collections::HashMap, ops::Deref, sync::Arc};

use edgeward_model::{
    EdgeError, ErrorKind, NodeId, Value,
    limits::{DOCUMENT_KEYS_MAX, DOCUMENTS_MAX, HUB_DOCUMENTS_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX},
    python_json,
};
use rusqlite::{Connection, params};

use crate::{
    causality::{Base, Dot, Origin},
    clock::Stamp,
    error::{damaged, reading, writing},
    interest::{Interest, Pattern, is_system, subject},
    planted::{self, Bug},
    policy::{LOCAL_PREFIX, Policies, Policy},
    record,
    replica_state::{ReplicaState, Role},
    row::{Addition, Body, Membership, Register, Row, Slot, Subtotal},
    snapshot::{DocumentHead, Snapshot, from_sql, to_sql},
    view::{KeyRows, Kind, NewValue, Stored},
};

/// What a writer keeps of documents between transactions.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) heads: HashMap<Arc<str>, DocumentHead>,
    pub(crate) policies: Option<Arc<Policies>>,
}

/// One transaction of a [`Store`](crate::store::Store). It reads what it wrote.
pub(crate) struct Transaction<'a> {
    snapshot: Snapshot<'a>,
    node: &'a NodeId,
    pub(crate) state: &'a mut ReplicaState,
    known: &'a mut Known,
    /// Heads that this transaction changed.
    changed: HashMap<Arc<str>, DocumentHead>,
    policies: Option<Arc<Policies>>,
}

impl<'a> Deref for Transaction<'a> {
    type Target = Snapshot<'a>;
    fn deref(&self) -> &Snapshot<'a> {
        &self.snapshot
    }
}

/// The bytes that base64 makes of a value's.
const VALUE_TEXT_BYTES_MAX: usize = VALUE_BYTES_MAX / 3 * 4 + 64;

impl<'a> Transaction<'a> {
    pub(crate) fn new(sql: &'a Connection, node: &'a NodeId, state: &'a mut ReplicaState, known: &'a mut Known) -> Self {
        Self { snapshot: Snapshot::new(sql), node, state, known, changed: HashMap::new(), policies: None }
    }

    /// Keeps what it changed for the next transactions, as it stays.
    pub(crate) fn keep(self) {
        self.known.heads.extend(self.changed);
        if self.policies.is_some() {
            self.known.policies = self.policies;
        }
    }

    /// Whose store this is.
    pub(crate) fn node(&self) -> &NodeId {
        self.node
    }

    /// The document of this name, when there is one.
    pub(crate) fn document(&mut self, name: &str) -> Result<Option<DocumentHead>, EdgeError> {
        if let Some(head) = self.changed.get(name).or_else(|| self.known.heads.get(name)) {
            return Ok(Some(head.clone()));
        }
        let head = self.snapshot.head(name)?;
        if let Some(head) = &head {
            // It is as it was before this transaction.
            self.known.heads.insert(Arc::clone(&head.name), head.clone());
        }
        Ok(head)
    }

    /// The document of this name, which is made when there is none. At most [`DOCUMENTS_MAX`], or [`HUB_DOCUMENTS_MAX`] at a hub.
    pub(crate) fn document_or_new(&mut self, name: &str) -> Result<DocumentHead, EdgeError> {
        if let Some(head) = self.document(name)? {
            return Ok(head);
        }
        let most = if self.state.is_replica() { DOCUMENTS_MAX } else { HUB_DOCUMENTS_MAX };
        // None is ever removed, so the last id counts them.
        let last: i64 = self.prepare("SELECT coalesce(max(id), 0) FROM documents")?.query_row([], |row| row.get(0)).map_err(reading)?;
        if from_sql(last) >= most as u64 {
            return Err(EdgeError::new(ErrorKind::TooLarge, format!("this node has {most} documents, which is the most")));
        }
        // What the hub has of a document that nobody here wanted until now was never asked for.
        let is_covered = self.state.is_hub() || is_system(name) || name.starts_with(LOCAL_PREFIX) || self.state.link.covers(name);
        self.execute("INSERT INTO documents (name, confirmed, covered) VALUES (?1, 0, ?2)", params![name, is_covered])?;
        let head = DocumentHead { is_covered, ..DocumentHead::new(self.sql().last_insert_rowid(), name) };
        self.store_head(&head);
        Ok(head)
    }

    /// Notes that of what is wanted every row up to the base is here. Returns whether that is more than before.
    pub(crate) fn cover(&mut self, wanted: &Interest, declared: &[Pattern]) -> Result<bool, EdgeError> {
        let link = &mut self.state.link;
        let mut is_more = declared.iter().any(|pattern| !link.patterns.contains(pattern));
        link.patterns = declared.to_vec();
        self.state.must_store = true;
        for name in self.uncovered()?.into_iter().filter(|name| wanted.wants(name)) {
            self.execute("UPDATE documents SET covered = 1 WHERE name = ?1", [&*name])?;
            if let Some(head) = self.document(&name)? {
                self.store_head(&DocumentHead { is_covered: true, ..head });
            }
            is_more = true;
        }
        Ok(is_more)
    }

    /// What a write to this key has seen of the hub.
    fn base(&mut self, head: &DocumentHead, key: &str) -> Result<Base, EdgeError> {
        let subject = subject(&head.name, key);
        let is_covered = match subject {
            _ if self.state.is_hub() || is_system(subject) => true,
            own if *own == *head.name => head.is_covered,
            other => match self.document(other)? {
                Some(head) => head.is_covered,
                None => self.state.link.covers(other),
            },
        };
        let counts = is_covered || planted::has(Bug::BaseOfUncovered);
        Ok(if counts { self.state.base() } else { Base::new() })
    }

    /// Keeps what was changed of a head.
    pub(crate) fn store_head(&mut self, head: &DocumentHead) {
        self.changed.insert(Arc::clone(&head.name), head.clone());
    }

    pub(crate) fn execute(&self, statement: &str, values: impl rusqlite::Params) -> Result<usize, EdgeError> {
        self.sql().prepare_cached(statement).and_then(|mut statement| statement.execute(values)).map_err(writing)
    }

    /// The policies as they are now.
    pub(crate) fn policies(&mut self) -> Result<Arc<Policies>, EdgeError> {
        if let Some(policies) = self.policies.as_ref().or(self.known.policies.as_ref()) {
            return Ok(Arc::clone(policies));
        }
        let policies = match self.document(crate::policy::POLICIES)? {
            Some(head) => Policies::of(&self.data(&head)?),
            None => Policies::default(),
        };
        self.known.policies = Some(Arc::new(policies));
        self.policies()
    }

    /// Reads the policies anew, as they were changed.
    pub(crate) fn reload_policies(&mut self) -> Result<(), EdgeError> {
        if let Some(head) = self.document(crate::policy::POLICIES)? {
            self.policies = Some(Arc::new(Policies::of(&self.data(&head)?)));
        }
        Ok(())
    }

    /// Sets a key here and now, or deletes it, as its policy says. Returns whether that changed anything. The caller stores the
    /// head.
    pub(crate) fn set(&mut self, head: &mut DocumentHead, key: &str, value: Option<NewValue>, millis: u64) -> Result<bool, EdgeError> {
        check(key, value.as_ref())?;
        let policy = self.writable(head, key)?;
        let mut rows = self.snapshot.rows(head, key)?;
        let shown = rows.shown();
        let same = match (&shown, &value) {
            (None, None) => true,
            (Some(shown), Some(value)) => shown.value == value.text && raw_of(&rows) == value.raw.as_deref() && rows.siblings().len() < 2,
            _ => false,
        };
        if same {
            return Ok(false);
        }
        if shown.is_none() && head.keys >= DOCUMENT_KEYS_MAX as u64 {
            let message = format!("the document has {DOCUMENT_KEYS_MAX} keys, which is the most; delete one first");
            return Err(EdgeError::new(ErrorKind::TooLarge, message));
        }
        let is_counter = policy == Policy::Counter || shown.as_ref().is_some_and(|shown| shown.kind == Kind::Counter);
        let mut edit = KeyWrite { transaction: self, head, key, rows: &mut rows, policy: &policy, millis, term: None, wrote: false };
        match value {
            None => edit.delete()?,
            Some(value) if is_counter => edit.count_to(&value)?,
            Some(value) if policy == Policy::Set => edit.put_elements(&value)?,
            Some(value) if policy == Policy::KeepBoth => edit.put_sibling(&value)?,
            Some(value) => edit.put_value(value)?,
        }
        let wrote = edit.wrote;
        count_keys(head, shown.is_some(), rows.shown().is_some())?;
        Ok(wrote)
    }

    /// Adds to a key: to its count, or to its whole number. A key that is not there becomes a counter. Returns what it shows then.
    pub(crate) fn increment(&mut self, head: &mut DocumentHead, key: &str, by: i64, millis: u64) -> Result<i64, EdgeError> {
        check(key, None)?;
        let policy = self.writable(head, key)?;
        let mut rows = self.snapshot.rows(head, key)?;
        let shown = rows.shown();
        let number = match &shown {
            None => 0,
            Some(shown) => whole_number(key, &shown.value)?,
        };
        let sum = number.checked_add(by).ok_or_else(|| out_of_range(key))?;
        let counts = match policy {
            Policy::Counter => true,
            // What counts where no policy says otherwise: a key that is not there, or a count.
            Policy::LastWriterWins => shown.as_ref().is_none_or(|shown| shown.kind == Kind::Counter),
            _ => false,
        };
        if !counts {
            let value = NewValue { text: Arc::from(sum.to_string()), raw: None };
            self.set(head, key, Some(value), millis)?;
            return Ok(sum);
        }
        KeyWrite { transaction: self, head, key, rows: &mut rows, policy: &policy, millis, term: None, wrote: false }.count(by, number)?;
        count_keys(head, shown.is_some(), true)?;
        Ok(sum)
    }

    /// Makes a document one register of this value.
    pub(crate) fn set_whole(&mut self, head: &mut DocumentHead, object: &edgeward_model::Object, millis: u64) -> Result<bool, EdgeError> {
        let mut text = String::new();
        python_json::write_object(&mut text, object)?;
        let value = NewValue { text: Arc::from(text), raw: None };
        check("", Some(&value))?;
        self.writable(head, "")?;
        let before = self.snapshot.whole(head)?;
        if before.as_ref().and_then(|before| before.row.value()) == Some(&value.text) {
            return Ok(false);
        }
        let mut rows = KeyRows(before.into_iter().map(|stored| (Slot::Whole, stored)).collect());
        KeyWrite { transaction: self, head, key: "", rows: &mut rows, policy: &Policy::VersionWins, millis, term: None, wrote: false }
            .put_register(&Slot::Whole, Some(value))?;
        head.keys = object.0.len() as u64;
        Ok(true)
    }

    /// Writes a register whoever owns it, as the hub decided in this term.
    pub(crate) fn decide(
        &mut self,
        head: &mut DocumentHead,
        key: &str,
        rows: &mut KeyRows,
        value: Option<NewValue>,
        term: u64,
        millis: u64,
    ) -> Result<(), EdgeError> {
        let policy = Policy::LastWriterWins;
        KeyWrite { transaction: self, head, key, rows, policy: &policy, millis, term: Some(term), wrote: false }
            .put_register(&Slot::Register, value)
    }

    /// The policy of a key that may be written here.
    fn writable(&mut self, head: &DocumentHead, key: &str) -> Result<Policy, EdgeError> {
        let policy = self.policies()?.policy(&head.name, key);
        // A node that never had a hub is its own.
        let is_hub = self.state.is_hub() || (self.state.is_replica() && self.state.link.hub.is_none());
        if policy.allows(key, self.node, is_hub) {
            return Ok(policy);
        }
        let owner = match &policy {
            Policy::EdgeOwned(Some(node)) => format!("node `{node}` alone"),
            Policy::EdgeOwned(None) => format!("the node that its key names; node `{}` writes keys that begin with `{0}/`", self.node),
            _ => "the hub alone".to_owned(),
        };
        let message = format!("key `{}` of document `{}` is written by {owner}", shown(key), head.name);
        Err(EdgeError::new(ErrorKind::Forbidden, message))
    }

    /// Puts a row in its place, as it is. `seq` is its place in the feed.
    pub(crate) fn put_row(&mut self, head: &DocumentHead, key: &str, slot: &Slot, stored: &Stored) -> Result<(), EdgeError> {
        let (value, state) = record::encode(&stored.row);
        let insert = "INSERT OR REPLACE INTO rows (document, key, slot, seq, value, state) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        self.execute(insert, params![head.id, key, record::slot_bytes(slot), stored.seq.map(to_sql), value, state])?;
        Ok(())
    }

    /// Notes up to which position tombstones of a document are forgotten.
    pub(crate) fn put_floor(&mut self, head: &DocumentHead, floor: u64, millis: u64) -> Result<(), EdgeError> {
        let (base, stamp, counter) = (self.state.base(), self.state.tick(millis)?, self.state.next_counter()?);
        let dot = Dot { node: self.node.clone(), epoch: self.state.epoch, counter };
        let origin = Origin { dot, base, overwrote: None };
        let row = Row { origin, stamp, version: 0, term: 0, body: Body::Floor(floor), positions: Vec::new() };
        let seq = Some(self.state.next_seq()?);
        self.state.must_store = true;
        self.put_row(head, "", &Slot::Floor, &Stored { row, seq })
    }

    pub(crate) fn delete_row(&mut self, head: &DocumentHead, key: &str, slot: &Slot) -> Result<(), EdgeError> {
        let delete = "DELETE FROM rows WHERE document = ?1 AND key = ?2 AND slot = ?3";
        self.execute(delete, params![head.id, key, record::slot_bytes(slot)]).map(drop)
    }
}

/// A write to one key while its rows are at hand.
struct KeyWrite<'t, 'a, 'h> {
    transaction: &'t mut Transaction<'a>,
    head: &'h mut DocumentHead,
    key: &'h str,
    rows: &'h mut KeyRows,
    policy: &'h Policy,
    millis: u64,
    /// The term in which the hub decides.
    term: Option<u64>,
    /// Whether a row was written.
    wrote: bool,
}

impl KeyWrite<'_, '_, '_> {
    /// Writes a row of this replica: gives it a stamp and a dot, and says what was seen.
    fn put(&mut self, slot: &Slot, body: impl FnOnce(Stamp, u64) -> Body) -> Result<(), EdgeError> {
        if self.transaction.state.role() == Role::Standby && !self.head.name.starts_with(LOCAL_PREFIX) {
            let why = format!("this hub stands by and writes no documents, such as `{}`; write at the hub that it follows", self.head.name);
            return Err(EdgeError::new(ErrorKind::Unavailable, why));
        }
        let node = self.transaction.node.clone();
        let base = self.transaction.base(self.head, self.key)?;
        let state = &mut *self.transaction.state;
        let before = self.rows.get(slot);
        let millis = self.millis;
        let stamp = state.tick(millis)?;
        let counter = state.next_counter()?;
        let dot = Dot { node, epoch: state.epoch, counter };
        let origin = match before {
            // What was not acknowledged was seen by nobody: the new row stands for both.
            Some(before) if before.seq.is_some() && !state.is_hub() => {
                if planted::has(Bug::FalseConflictAfterCoalescedWrites) {
                    Origin { dot, base: Base::new(), overwrote: Some(before.row.origin.dot.clone()) }
                } else {
                    Origin { dot, base: before.row.origin.base.clone(), overwrote: before.row.origin.overwrote.clone() }
                }
            }
            before => Origin { dot, base, overwrote: before.map(|before| before.row.origin.dot.clone()) },
        };
        let term = before.map_or(0, |before| before.row.term).max(self.term.unwrap_or(0));
        let version = self.head.version.saturating_add(1);
        let row = Row { origin, stamp, version, term, body: body(stamp, counter), positions: Vec::new() };
        let row = match before {
            // A value that its policy does not prefer to the one that is there changes nothing.
            Some(before) if matches!(row.body, Body::Register(_)) => before.row.clone().join(row, self.policy),
            _ => row,
        };
        if row.origin.dot.counter != counter || row.origin.dot.epoch != state.epoch {
            return Ok(());
        }
        let seq = if self.head.name.starts_with(LOCAL_PREFIX) {
            state.must_store = true;
            if row.is_dead() {
                // Nobody else has to hear of it.
                self.transaction.delete_row(self.head, self.key, slot)?;
                self.rows.remove(slot);
                self.wrote = true;
                return Ok(());
            }
            None
        } else {
            Some(state.next_seq()?)
        };
        let stored = Stored { row, seq };
        self.transaction.put_row(self.head, self.key, slot, &stored)?;
        self.rows.put(slot, stored);
        self.wrote = true;
        Ok(())
    }

    fn put_register(&mut self, slot: &Slot, value: Option<NewValue>) -> Result<(), EdgeError> {
        let before = self.rows.get(slot).map(|stored| &stored.row);
        let root = match before {
            Some(before) if *self.policy == Policy::FirstWriterWins => {
                let (stamp, node) = before.root();
                Some((stamp, node.clone()))
            }
            _ => None,
        };
        let instance = match before {
            Some(before) if matches!(self.policy, Policy::Max | Policy::Min) => match &before.body {
                Body::Register(Register { value: Some(_), instance, .. }) => *instance,
                _ => Some(before.stamp),
            },
            _ => None,
        };
        let (value, raw) = value.map_or((None, None), |value| (Some(value.text), value.raw));
        self.put(slot, |_, _| Body::Register(Register { value, raw, root, instance }))
    }

    fn put_value(&mut self, value: NewValue) -> Result<(), EdgeError> {
        self.remove_members(|_| true)?;
        self.put_register(&Slot::Register, Some(value))
    }

    fn delete(&mut self) -> Result<(), EdgeError> {
        self.remove_members(|_| true)?;
        if self.rows.counts().next().is_some() || self.rows.register().is_some_and(|stored| !stored.row.is_dead()) {
            self.put_register(&Slot::Register, None)?;
        }
        Ok(())
    }

    /// A value that was there as a register goes, as rows of another kind take its place.
    fn end_register(&mut self) -> Result<(), EdgeError> {
        if self.rows.register().is_some_and(|stored| !stored.row.is_dead()) {
            self.put_register(&Slot::Register, None)?;
        }
        Ok(())
    }

    /// The increment that leads to a number.
    fn count_to(&mut self, value: &NewValue) -> Result<(), EdgeError> {
        let wanted = whole_number(self.key, &value.text)?;
        let number = match self.rows.shown() {
            None => 0,
            // A value of another kind was written before the policy was known; it makes place for the count.
            Some(shown) => whole_number(self.key, &shown.value).unwrap_or(0),
        };
        self.count(wanted.checked_sub(number).ok_or_else(|| out_of_range(self.key))?, number)
    }

    /// Counts on from what the key shows.
    fn count(&mut self, by: i64, number: i64) -> Result<(), EdgeError> {
        self.remove_members(|_| true)?;
        let was_register = self.rows.counts().next().is_none() && self.rows.register().is_some_and(|stored| !stored.row.is_dead());
        self.end_register()?;
        let by = if was_register { by.checked_add(number).ok_or_else(|| out_of_range(self.key))? } else { by };
        let instance = self.rows.counts().next().map_or_else(|| self.rows.tombstone(), |subtotal| subtotal.instance);
        let slot = Slot::Counter(self.transaction.node.clone(), self.transaction.state.epoch);
        let (sum, acknowledged) = match self.rows.get(&slot).map(|stored| &stored.row.body) {
            Some(Body::Counter(before)) if before.instance == instance => (before.sum, before.acknowledged),
            _ => (0, 0),
        };
        let sum = sum.checked_add(by).ok_or_else(|| out_of_range(self.key))?;
        self.put(&slot, |_, _| Body::Counter(Subtotal { instance, sum, acknowledged }))
    }

    /// Makes the elements of an array the elements of the set.
    fn put_elements(&mut self, value: &NewValue) -> Result<(), EdgeError> {
        let Ok(Value::Array(elements)) = python_json::read(&value.text) else {
            let message = format!("key `{}` is a set, so its value is an array of its elements", shown(self.key));
            return Err(EdgeError::invalid(message));
        };
        let wanted = elements.iter().map(python_json::write).collect::<Result<std::collections::BTreeSet<_>, _>>()?;
        self.end_register()?;
        self.remove_members(|element| !wanted.contains(element))?;
        let present: std::collections::BTreeSet<_> = self.rows.members().map(|(_, _, added)| added.value.to_string()).collect();
        wanted.difference(&present).try_for_each(|element| self.add(element, element))
    }

    /// Makes a value the only one of the key, as far as others were seen.
    fn put_sibling(&mut self, value: &NewValue) -> Result<(), EdgeError> {
        self.end_register()?;
        let own = Slot::Member(Arc::from(""), self.transaction.node.clone(), self.transaction.state.epoch);
        let others: Vec<_> = self.rows.members().map(|(slot, ..)| slot.clone()).filter(|slot| *slot != own).collect();
        others.into_iter().try_for_each(|slot| self.remove(&slot))?;
        self.add("", &value.text)
    }

    fn add(&mut self, element: &str, value: &str) -> Result<(), EdgeError> {
        let slot = Slot::Member(Arc::from(element), self.transaction.node.clone(), self.transaction.state.epoch);
        let removed = match self.rows.get(&slot).map(|stored| &stored.row.body) {
            Some(Body::Member(before)) => before.removed,
            _ => 0,
        };
        let value = Arc::from(value);
        self.put(&slot, |stamp, counter| Body::Member(Membership { added: Some(Addition { counter, stamp, value }), removed }))
    }

    /// Removes the additions that are seen, where their element is told to go.
    fn remove_members(&mut self, goes: impl Fn(&str) -> bool) -> Result<(), EdgeError> {
        let slots: Vec<_> = self.rows.members().filter(|(_, _, added)| goes(&added.value)).map(|(slot, ..)| slot.clone()).collect();
        slots.into_iter().try_for_each(|slot| self.remove(&slot))
    }

    fn remove(&mut self, slot: &Slot) -> Result<(), EdgeError> {
        let Some(Body::Member(before)) = self.rows.get(slot).map(|stored| stored.row.body.clone()) else { return Ok(()) };
        let mut removed = before.added.as_ref().map_or(before.removed, |added| added.counter);
        if planted::has(Bug::RemovalOfConcurrentAdditions) {
            removed = removed.saturating_add(1_000_000);
        }
        self.put(slot, |_, _| Body::Member(Membership { added: before.added, removed }.without_removed_value()))
    }
}

/// Counts a key that came or went.
pub(crate) fn count_keys(head: &mut DocumentHead, was_there: bool, is_there: bool) -> Result<(), EdgeError> {
    match (was_there, is_there) {
        (false, true) => head.keys = head.keys.saturating_add(1),
        (true, false) => head.keys = head.keys.checked_sub(1).ok_or_else(|| damaged("number of keys of the document"))?,
        _ => {}
    }
    Ok(())
}

fn raw_of(rows: &KeyRows) -> Option<&[u8]> {
    match rows.register().map(|stored| &stored.row.body) {
        Some(Body::Register(register)) => register.raw.as_deref(),
        _ => None,
    }
}

fn whole_number(key: &str, text: &str) -> Result<i64, EdgeError> {
    text.parse().map_err(|_| {
        let message = format!("key `{}` counts, so its value is a whole number of 64 bits; `{}` is none", shown(key), shown(text));
        EdgeError::invalid(message)
    })
}

fn out_of_range(key: &str) -> EdgeError {
    EdgeError::invalid(format!("the count of key `{}` would leave the range of 64 bits", shown(key)))
}

/// The begin of a text, for a message.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(64).collect();
    short.escape_debug().to_string()
}

fn check(key: &str, value: Option<&NewValue>) -> Result<(), EdgeError> {
    if key.len() > KEY_BYTES_MAX {
        let message = format!("the key `{}…` is {} bytes long, the most is {KEY_BYTES_MAX}", shown(key), key.len());
        return Err(EdgeError::invalid(message));
    }
    let Some(value) = value else { return Ok(()) };
    let is_bytes = value.text.starts_with("{\"$bytes\"");
    let (bytes, most) = match &value.raw {
        Some(raw) => (raw.len().max(value.text.len()), VALUE_BYTES_MAX),
        None => (value.text.len(), if is_bytes { VALUE_TEXT_BYTES_MAX } else { VALUE_BYTES_MAX }),
    };
    if bytes > most {
        let message = format!("the value of key `{}` is {bytes} bytes long as JSON, the most is {most}", shown(key));
        return Err(EdgeError::new(ErrorKind::TooLarge, message));
    }
    Ok(())
}
