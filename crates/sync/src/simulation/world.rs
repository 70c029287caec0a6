//! The world of one seed: nodes, their wires, their clocks, and the record of who had seen what.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, atomic::Ordering},
};

use edgeward_model::{DocumentName, NodeId, Value};
use jiff::Timestamp;
use rusqlite::Connection;

use super::{
    check,
    fault::Fault,
    history::{Act, Seen, Write},
    random::Random,
};
use crate::{
    causality::{Dot, Epoch, Position, told},
    conflict::Conflict,
    document::{Document, Documents, Precondition},
    hub::Hub,
    interest::Pattern,
    planted::{self, Bug},
    policy::Policy,
    replica::{ReplicaSession, SessionState},
    replica_state::Role,
    row::Slot,
    store::Store,
    wire::{self, Fate, Question, Request, Response, SentRow},
};

/// The document of most keys.
pub(super) const DOCUMENT: &str = "d";
/// The document that is one register.
pub(super) const WHOLE: &str = "whole";
/// Documents that some replicas want.
pub(super) const WANTED: [&str; 3] = ["x0", "x1", "x2"];
/// How the name of a document begins that one node alone may see; its id follows.
pub(super) const PRIVATE: &str = "only.";
/// The hub, and the standby of a run that has one.
const HUBS: [&str; 2] = ["hub", "hub-2"];
/// Steps of a run before everything is healed.
const STEPS: usize = 260;
const DAY: u64 = 24 * 3_600_000;
/// Rounds in which everything must have come to rest.
const ROUNDS_MAX: usize = 400;

/// A replica with all that a restart keeps.
pub(super) struct Replica {
    pub(super) node: NodeId,
    pub(super) store: Arc<Store>,
    pub(super) session: ReplicaSession,
    /// What its writes saw.
    past: Seen,
    /// What it has seen when the comparison that goes on has ended.
    comparing: Option<Seen>,
    /// Its own writes by dot.
    own: HashMap<Dot, usize>,
    /// How far its clock is off.
    skew: i64,
    is_connected: bool,
    /// Which hub it talks to.
    hub: usize,
    backups: Vec<ReplicaBackup>,
    /// The documents that it wrote to.
    wrote: BTreeSet<String>,
    /// The patterns that it declares, and those that it ever did.
    pub(super) declared: BTreeSet<Pattern>,
    pub(super) ever_declared: BTreeSet<Pattern>,
    /// Whether a copy of it goes on in its epoch. Opened again before it was met, it cannot be told from it.
    pub(super) has_twin: bool,
    /// Whether it follows to become the hub.
    is_standby: bool,
}

struct ReplicaBackup {
    copy: Connection,
    past: Seen,
    own: HashMap<Dot, usize>,
}

pub(super) struct HubNode {
    node: NodeId,
    pub(super) store: Arc<Store>,
    pub(super) hub: Hub,
    pub(super) past: Seen,
    term: Option<u64>,
    backups: Vec<(Connection, Seen)>,
}

struct Message {
    replica: usize,
    to_hub: bool,
    hub: usize,
    bytes: Vec<u8>,
    /// What its reader has seen then.
    past: Seen,
}

pub(super) struct World {
    random: Random,
    now: u64,
    pub(super) replicas: Vec<Replica>,
    pub(super) hubs: Vec<HubNode>,
    wires: Vec<Message>,
    pub(super) writes: Vec<Write>,
    /// The writes that hubs have seen, by dot.
    pub(super) taken: HashMap<Dot, Vec<usize>>,
    pub(super) faults: BTreeMap<Fault, u64>,
    enabled: BTreeSet<Fault>,
    /// What happened, when it is wanted.
    pub(super) trace: Vec<String>,
    pub(super) is_traced: bool,
    pub(super) step: usize,
    /// Whether policies were changed while replicas wrote: then what a key is differs for a while.
    pub(super) policies_changed: bool,
    pub(super) hub_was_set_back: bool,
    /// What both of two hubs had when the second began.
    shared: Seen,
    /// The conflicts that were listed before they may have aged out.
    pub(super) listed: Vec<Conflict>,
    /// What was seen not to hold while a message was handled.
    pub(super) violation: Option<String>,
}

/// The prefixes of keys with their policies.
const POLICIES: [(&str, Policy); 8] = [
    ("first", Policy::FirstWriterWins),
    ("max", Policy::Max),
    ("count", Policy::Counter),
    ("set", Policy::Set),
    ("both", Policy::KeepBoth),
    ("hub", Policy::HubWins),
    ("edge", Policy::EdgeWins),
    ("own", Policy::EdgeOwned(None)),
];

fn name(text: &str) -> NodeId {
    NodeId::new(text).expect("valid")
}

fn document_name(text: &str) -> DocumentName {
    DocumentName::new(text).expect("valid")
}

/// The document of the key of a write, and its key there.
pub(super) fn place(key: &str) -> (&str, &str) {
    if key == "whole" { (WHOLE, "") } else { key.split_once(':').unwrap_or((DOCUMENT, key)) }
}

/// Which node may see which document.
pub(super) fn may_see(node: &NodeId, document: &str) -> bool {
    HUBS.contains(&node.as_str()) || document.strip_prefix(PRIVATE).is_none_or(|owner| owner == node.as_str())
}

fn pattern(text: &str) -> Pattern {
    text.parse().expect("valid")
}

pub(super) fn document(store: &Arc<Store>, name: &str) -> Document {
    Documents::new(Arc::clone(store)).document(document_name(name))
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        told::begin(seed.wrapping_mul(31).wrapping_add(7));
        let mut random = Random::new(seed);
        let mut enabled: BTreeSet<Fault> = BTreeSet::new();
        while enabled.len() < 4 {
            enabled.insert(Fault::ALL[random.below(Fault::ALL.len())]);
        }
        if enabled.contains(&Fault::LiveClone) {
            // A hub that forgot what it took cannot tell a copy from the store that it was made of.
            enabled.retain(|fault| !matches!(fault, Fault::HubRestored | Fault::TwoHubs | Fault::Takeover));
        }
        if enabled.contains(&Fault::Takeover) {
            enabled.remove(&Fault::TwoHubs);
        }
        let has_standby = enabled.contains(&Fault::Takeover);
        let now = 1_700_000_000_000;
        let hub_store = open(Connection::open_in_memory().expect("opens"), &name(HUBS[0]), Role::Hub);
        let replicas = 2 + random.below(6);
        let mut world = Self {
            random,
            now,
            replicas: Vec::new(),
            hubs: vec![HubNode::new(name(HUBS[0]), hub_store, Seen::default(), Some(1))],
            wires: Vec::new(),
            writes: Vec::new(),
            taken: HashMap::new(),
            faults: BTreeMap::new(),
            enabled,
            trace: Vec::new(),
            is_traced: false,
            step: 0,
            policies_changed: false,
            hub_was_set_back: false,
            shared: Seen::default(),
            listed: Vec::new(),
            violation: None,
        };
        let hub = Documents::new(Arc::clone(&world.hubs[0].store));
        let policies = |document: &str, prefix: &str, policy: &Policy| {
            hub.document(document_name(document)).set_policy_at(time(now), prefix, Some(policy)).expect("set");
        };
        for (prefix, policy) in &POLICIES {
            policies(DOCUMENT, prefix, policy);
        }
        policies(WHOLE, "", &Policy::VersionWins);
        for number in 0..replicas {
            let node = name(&format!("n{number}"));
            let store = open(Connection::open_in_memory().expect("opens"), &node, Role::Replica);
            let mut replica = Replica::new(node, store);
            let wanted = [("x0", 30), ("x1", 30), ("x2", 30), ("x*", 10), ("only.*", 30)];
            let wanted = wanted.into_iter().filter(|(_, percent)| world.random.percent(*percent)).map(|(text, _)| pattern(text));
            replica.declare(wanted.chain([DOCUMENT, WHOLE].map(pattern)).collect());
            world.replicas.push(replica);
        }
        if has_standby {
            let store = open(Connection::open_in_memory().expect("opens"), &name(HUBS[1]), Role::Standby);
            world.replicas.push(Replica::standby(name(HUBS[1]), store));
        }
        // Policies reach everybody before the first write, but where their late arrival is the fault.
        let enabled = std::mem::take(&mut world.enabled);
        world.settle().expect("nothing is wrong yet");
        world.enabled = enabled;
        world
    }

    /// Whether an old copy of a hub's store took its place.
    pub(super) fn hub_was_restored(&self) -> bool {
        [Fault::HubRestored, Fault::TwoHubs].iter().any(|fault| self.faults.contains_key(fault))
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.is_traced {
            self.trace.push(text());
        }
    }

    fn fault(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
        self.note(|| format!("{fault:?}"));
    }

    fn has(&self, fault: Fault) -> bool {
        self.enabled.contains(&fault)
    }

    pub(super) fn run(&mut self) -> Result<(), String> {
        for step in 0..STEPS {
            self.step = step;
            // Often two write in one millisecond.
            self.now += if self.random.percent(50) { 0 } else { self.random.next() % 3000 };
            match self.random.below(100) {
                0..35 => self.edit()?,
                35..60 => self.send(),
                60..88 => self.deliver()?,
                88..91 => self.poke(),
                91..94 => self.back_up(),
                94 => self.collect(),
                _ => self.break_something(),
            }
            check::always(self).map_err(|why| format!("after step {step}: {why}"))?;
        }
        self.heal()?;
        self.settle()?;
        check::at_rest(self)
    }

    fn pick(&mut self) -> usize {
        self.random.below(self.replicas.len())
    }

    /// What a replica writes next, and where.
    fn choose(&mut self, index: usize) -> (String, Act) {
        let id = self.writes.len();
        if self.random.percent(20) {
            let document = match self.random.below(7) {
                0 => format!("{PRIVATE}{}", self.replicas[index].node),
                n => WANTED[n % 3].to_owned(),
            };
            if self.random.percent(25) {
                return (format!("{document}:count"), Act::Add(i64::try_from(self.random.below(9)).expect("small") - 3));
            }
            let value = if self.random.percent(25) { None } else { Some(format!("w{id}")) };
            return (format!("{document}:k{}", self.random.below(2)), Act::Value(value));
        }
        let key = match self.random.below(20) {
            0..8 => format!("k{}", self.random.below(3)),
            8 => "first".to_owned(),
            9 => "max".to_owned(),
            10 | 11 => "count".to_owned(),
            12 | 13 => "set".to_owned(),
            14 | 15 => "both".to_owned(),
            16 => "hub".to_owned(),
            17 => "edge".to_owned(),
            18 => format!("own/{}", self.replicas[index].node),
            _ => "whole".to_owned(),
        };
        let act = match key.as_str() {
            "count" => Act::Add(i64::try_from(self.random.below(9)).expect("small") - 3),
            "set" => Act::Element { element: format!("e{}", self.random.below(3)), is_there: self.random.percent(65) },
            "max" => Act::Value(Some(format!("{}", 1000 * self.random.below(50) + id))),
            "whole" | "both" => Act::Value(Some(format!("w{id}"))),
            _ if self.random.percent(20) => Act::Value(None),
            _ => Act::Value(Some(format!("w{id}"))),
        };
        (key, act)
    }

    /// A write at a replica or at the hub.
    fn edit(&mut self) -> Result<(), String> {
        let at_hub = self.random.percent(12);
        let index = self.pick();
        if self.replicas[index].is_standby && !at_hub {
            return Ok(());
        }
        let (key, act) = self.choose(index);
        let (store, millis) = if at_hub {
            (Arc::clone(&self.current_hub().store), self.now)
        } else {
            (Arc::clone(&self.replicas[index].store), self.now.saturating_add_signed(self.replicas[index].skew))
        };
        let id = self.writes.len();
        let (document_of, place) = place(&key);
        let (document_of, place) = (document_of.to_owned(), place.to_owned());
        let before = rows_seen(&store, &document_of, &place);
        let is_within_pull = store.is_within_pull();
        let fails = !at_hub && self.has(Fault::FailedCommit) && self.random.percent(8);
        if fails {
            self.fault(Fault::FailedCommit);
            store.fails.store(true, Ordering::Relaxed);
        }
        let (edited_key, edited_act) = (if key == "whole" { key.clone() } else { place.clone() }, act.clone());
        let edited = document(&store, &document_of).edit_at(time(millis), Precondition::None, move |draft| match edited_act {
            Act::Value(Some(text)) if edited_key == "max" => draft.set(&edited_key, &Value::from(text.parse::<i64>().expect("a number"))),
            Act::Value(Some(text)) => draft.set(&edited_key, &Value::from(text)),
            Act::Value(None) => draft.remove(&edited_key),
            Act::Add(by) => draft.increment(&edited_key, by).map(drop),
            Act::Element { element, is_there } => {
                let mut elements = match draft.get(&edited_key)? {
                    Some(Value::Array(elements)) => elements,
                    _ => Vec::new(),
                };
                let element = Value::from(element);
                elements.retain(|known| *known != element);
                if is_there {
                    elements.push(element);
                }
                draft.set(&edited_key, &Value::Array(elements))
            }
        });
        store.fails.store(false, Ordering::Relaxed);
        let Ok(edited) = edited else {
            if fails || key.starts_with("own/") {
                return Ok(());
            }
            return Err(format!("an edit of {key} failed: {}", edited.expect_err("failed").chain()));
        };
        if !at_hub {
            self.replicas[index].wrote.insert(document_of.clone());
        }
        if !edited.changed || fails {
            return Ok(());
        }
        let after: Vec<_> = rows_seen(&store, &document_of, &place)
            .into_iter()
            .filter(|row| before.iter().all(|(dot, ..)| *dot != row.0))
            .map(|(dot, ..)| dot)
            .collect();
        // Of a document that not everybody has, what was seen is what was there.
        let is_members = matches!(key.as_str(), "set" | "both") || !matches!(document_of.as_str(), DOCUMENT | WHOLE);
        // What replaces a row that is not sent yet stands for both: it has seen no more than that one.
        let replaces_unsent = !at_hub && before.iter().any(|(_, is_seen, is_unsent)| *is_seen && *is_unsent);
        let mut past = match &self.replicas[index] {
            _ if is_members || replaces_unsent => Seen::default(),
            _ if at_hub => self.current_hub().past.clone(),
            replica => replica.past.clone(),
        };
        // What it wrote over it had seen, with what that had seen.
        for (dot, ..) in before.iter().filter(|(_, is_seen, _)| *is_seen) {
            if let Some(before) = self.write_of(if at_hub { None } else { Some(index) }, dot) {
                past.add_all(&self.writes[before].past.clone());
                past.add(before);
            }
        }
        let who = if at_hub { "hub".to_owned() } else { format!("{}#{index}", self.replicas[index].node) };
        self.note(|| format!("{who} writes {id}: {key} {act:?} as {after:?}"));
        self.writes.push(Write {
            key,
            act,
            past,
            is_exempt: false,
            is_taken: at_hub,
            at_hub,
            is_shared: false,
            was_set_back: false,
            is_within_pull,
            is_decision: false,
        });
        if at_hub {
            self.current_hub_mut().past.add(id);
        } else {
            self.replicas[index].past.add(id);
        }
        for dot in after {
            if at_hub {
                self.taken.entry(dot).or_default().push(id);
            } else {
                self.replicas[index].own.insert(dot, id);
            }
        }
        Ok(())
    }

    /// The write of a dot, as a replica or the hub knows it.
    fn write_of(&self, replica: Option<usize>, dot: &Dot) -> Option<usize> {
        let own = replica.and_then(|index| self.replicas[index].own.get(dot).copied());
        own.or_else(|| self.taken.get(dot).and_then(|ids| ids.last().copied()))
    }

    fn current_hub(&self) -> &HubNode {
        self.hubs.last().expect("there is one")
    }

    fn current_hub_mut(&mut self) -> &mut HubNode {
        self.hubs.last_mut().expect("there is one")
    }

    /// A replica says what it has to say.
    fn send(&mut self) {
        let index = self.pick();
        self.send_from(index);
    }

    fn send_from(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        if !replica.is_connected {
            return;
        }
        match replica.session.next_frame() {
            Ok(Some(bytes)) => {
                // A hello ends a comparison before its end.
                if matches!(wire::read(wire::open(&bytes).expect("own").1), Ok(Request::Hello(_))) {
                    replica.comparing = None;
                }
                let message = Message { replica: index, to_hub: true, hub: replica.hub, bytes, past: Seen::default() };
                self.wires.push(message);
            }
            Ok(None) => {}
            Err(error) => panic!("a session cannot go on: {}", error.chain()),
        }
        self.note_compared(index);
    }

    /// A comparison that has ended has seen what the hub had when it began.
    fn note_compared(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        if !replica.session.is_comparing()
            && let Some(seen) = replica.comparing.take()
        {
            replica.past.add_all(&seen);
        }
    }

    /// Something arrives, or does not.
    fn deliver(&mut self) -> Result<(), String> {
        if self.wires.is_empty() {
            return Ok(());
        }
        let at = if self.has(Fault::Reordering) && self.random.percent(30) {
            let at = self.random.below(self.wires.len());
            if at > 0 {
                self.fault(Fault::Reordering);
            }
            at
        } else {
            0
        };
        if self.has(Fault::Loss) && self.random.percent(15) {
            self.fault(Fault::Loss);
            self.wires.remove(at);
            return Ok(());
        }
        let message = if self.has(Fault::Duplication) && self.random.percent(15) {
            self.fault(Fault::Duplication);
            let Message { replica, to_hub, hub, bytes, past } = &self.wires[at];
            Message { replica: *replica, to_hub: *to_hub, hub: *hub, bytes: bytes.clone(), past: past.clone() }
        } else {
            self.wires.remove(at)
        };
        self.arrive(message)
    }

    fn arrive(&mut self, message: Message) -> Result<(), String> {
        if !self.replicas[message.replica].is_connected {
            return Ok(());
        }
        if message.to_hub { self.ask(message) } else { self.hear(message) }
    }

    /// A request arrives at a hub.
    fn ask(&mut self, message: Message) -> Result<(), String> {
        let Message { replica, hub, bytes, .. } = message;
        let is_told = self.has(Fault::FailedCommit) && self.random.percent(5);
        if is_told {
            self.fault(Fault::FailedCommit);
            self.hubs[hub].store.fails.store(true, Ordering::Relaxed);
        }
        let answer = self.hubs[hub].hub.answer(&bytes, self.now);
        let failed = !self.hubs[hub].store.fails.swap(false, Ordering::Relaxed) && is_told;
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) if failed => {
                self.note(|| format!("the hub fails: {error}"));
                return Ok(());
            }
            Err(error) => return Err(format!("the hub refuses a frame: {}", error.chain())),
        };
        let request: Request = wire::read(wire::open(&bytes).expect("checked").1).expect("checked");
        let response: Response = wire::read(wire::open(&answer).expect("own").1).expect("own");
        self.note(|| format!("hub {hub} to {replica}: {request:?} -> {response:?}"));
        match (&request, &response) {
            (Request::Push(push), Response::Ack(ack)) => {
                let sent = push.rows.clone().read().expect("checked");
                let epoch = push.rows.writer().expect("checked").1;
                let mut placed = Vec::new();
                for (index, sent) in sent.iter().enumerate() {
                    let fate = ack.fates.iter().find(|(at, _)| *at as usize == index).map(|(_, fate)| *fate);
                    let Some(id) = self.replicas[replica].own.get(&sent.row.origin.dot).copied() else { continue };
                    self.writes[id].is_taken = true;
                    let ids = self.taken.entry(sent.row.origin.dot.clone()).or_default();
                    if !ids.contains(&id) {
                        ids.push(id);
                    }
                    if !matches!(fate, Some(Fate::Superseded(_) | Fate::Lost)) {
                        placed.push(id);
                    }
                }
                // Earlier writes of the epoch are in the later ones.
                for (dot, id) in &self.replicas[replica].own {
                    if dot.epoch == epoch && dot.counter <= ack.upto {
                        self.writes[*id].is_taken = true;
                    }
                }
                self.hub_takes(hub, &placed);
                self.note_decisions(hub, &self.ids_of(replica, &sent));
            }
            (Request::Ask(_, Question::Give { rows }), Response::Taken { .. }) => {
                let sent = rows.clone().read().expect("checked");
                let store = Arc::clone(&self.hubs[hub].store);
                let placed: Vec<_> = sent
                    .iter()
                    .filter(|sent| {
                        let found = store.read(|snapshot| match snapshot.head(&sent.document)? {
                            Some(head) => snapshot.row(&head, &sent.key, &sent.slot),
                            None => Ok(None),
                        });
                        found.expect("reads").is_some_and(|stored| stored.row.origin.dot == sent.row.origin.dot)
                    })
                    .filter_map(|sent| self.write_of(Some(replica), &sent.row.origin.dot))
                    .collect();
                self.hub_takes(hub, &placed);
                self.note_decisions(hub, &self.ids_of(replica, &sent));
            }
            _ => {}
        }
        // What is fetched tells of some documents only.
        let is_part = matches!(request, Request::Ask(_, Question::Fetch { .. }));
        let past = if is_part { Seen::default() } else { self.hubs[hub].past.clone() };
        self.wires.push(Message { replica, to_hub: false, hub, bytes: answer, past });
        Ok(())
    }

    fn hub_takes(&mut self, hub: usize, ids: &[usize]) {
        for id in ids {
            // A hub sees of a write what it wrote over, not what its writer did to other keys.
            let write = &self.writes[*id];
            let past: Vec<_> = (0..self.writes.len()).filter(|seen| write.past.has(*seen) && self.writes[*seen].key == write.key).collect();
            for seen in past {
                self.hubs[hub].past.add(seen);
            }
            self.hubs[hub].past.add(*id);
        }
    }

    fn ids_of(&self, replica: usize, sent: &[SentRow]) -> Vec<usize> {
        sent.iter().filter_map(|sent| self.write_of(Some(replica), &sent.row.origin.dot)).collect()
    }

    /// What the hub wrote anew, as it decided, is a write that has seen both sides.
    fn note_decisions(&mut self, hub: usize, sent: &[usize]) {
        for key in ["hub", "edge"] {
            if sent.iter().all(|id| self.writes[*id].key != key) {
                continue;
            }
            let store = &self.hubs[hub].store;
            let found = store.read(|snapshot| match snapshot.head(DOCUMENT)? {
                Some(head) => Ok(snapshot.rows(&head, key)?.register().map(|stored| stored.row.clone())),
                None => Ok(None),
            });
            let Some(row) = found.expect("reads") else { continue };
            if row.origin.dot.node != self.hubs[hub].node || self.taken.contains_key(&row.origin.dot) {
                continue;
            }
            if self.hubs[hub].term.is_none() {
                self.violation = Some(format!("a hub without the lease decided about `{key}`"));
            }
            let mut past = self.hubs[hub].past.clone();
            for id in sent.iter().filter(|id| self.writes[**id].key == key) {
                past.add_all(&self.writes[*id].past);
                past.add(*id);
            }
            let id = self.writes.len();
            let value = row.value().and_then(|text| match edgeward_model::python_json::read(text) {
                Ok(Value::String(text)) => Some(text),
                _ => None,
            });
            self.writes.push(Write {
                key: key.to_owned(),
                act: Act::Value(value),
                past,
                is_exempt: false,
                is_taken: true,
                at_hub: false,
                is_shared: false,
                was_set_back: false,
                is_within_pull: false,
                is_decision: true,
            });
            self.taken.insert(row.origin.dot, vec![id]);
            self.hubs[hub].past.add(id);
        }
    }

    /// An answer arrives at a replica.
    fn hear(&mut self, message: Message) -> Result<(), String> {
        let Message { replica: index, bytes, past, hub, .. } = message;
        let now = self.now.saturating_add_signed(self.replicas[index].skew);
        let response: Response = wire::read(wire::open(&bytes).expect("own").1).expect("own");
        let replica = &mut self.replicas[index];
        if replica.hub != hub {
            return Ok(());
        }
        let was_waiting = replica.session.is_waiting();
        let (epoch, dots) = (epoch_of(&replica.store), outbox_dots(&replica.store));
        let is_told = self.has(Fault::FailedCommit) && self.random.percent(5);
        if is_told {
            self.fault(Fault::FailedCommit);
            self.replicas[index].store.fails.store(true, Ordering::Relaxed);
        }
        let replica = &mut self.replicas[index];
        let heard = replica.session.receive(&bytes, now);
        let failed = !replica.store.fails.swap(false, Ordering::Relaxed) && is_told;
        if let Err(error) = heard {
            if !failed {
                return Err(format!("a replica refuses an answer: {}", error.chain()));
            }
            replica.session.reconnect();
            replica.comparing = None;
            return Ok(());
        }
        let was_heard = was_waiting && !replica.session.is_waiting();
        if was_heard {
            match response {
                Response::Rows { upto, more, .. } if !more && applied(&replica.store) >= upto => replica.past.add_all(&past),
                Response::Welcome(_) if replica.session.is_comparing() => replica.comparing = Some(past),
                Response::Welcome(_) | Response::HelloAgain | Response::Forked | Response::Clock => replica.comparing = None,
                _ => {}
            }
        }
        // In another epoch the same writes have other dots.
        let fresh = epoch_of(&replica.store);
        if fresh != epoch {
            let moved: Vec<_> = outbox_dots(&replica.store).into_iter().filter(|dot| dot.epoch == fresh).collect();
            let old: Vec<_> = dots.into_iter().filter(|dot| dot.epoch == epoch).collect();
            if moved.len() == old.len() {
                for (old, new) in old.iter().zip(moved) {
                    if let Some(id) = replica.own.remove(old) {
                        replica.own.insert(new, id);
                    }
                }
            }
        }
        self.note_compared(index);
        Ok(())
    }

    fn poke(&mut self) {
        let index = self.pick();
        if self.random.percent(15) {
            self.reconnect(index);
        } else if self.random.percent(10) {
            // What it has seen is what the hub had at its last welcome, which it has pulled since.
            self.replicas[index].session.compare();
        } else if self.random.percent(25) && !self.replicas[index].is_standby {
            // It wants another document than before, or no longer one.
            let pattern = pattern(["x0", "x1", "x2", "x*", "only.*"][self.random.below(5)]);
            let mut declared = self.replicas[index].declared.clone();
            if !declared.remove(&pattern) {
                declared.insert(pattern);
            }
            self.note(|| format!("{index} declares {declared:?}"));
            self.replicas[index].declare(declared);
        } else {
            self.replicas[index].session.poke();
        }
    }

    fn reconnect(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        replica.session.reconnect();
        replica.comparing = None;
    }

    fn back_up(&mut self) {
        if self.random.percent(30) {
            let hub = self.current_hub_mut();
            let backup = (hub.store.copy(), hub.past.clone());
            hub.backups.push(backup);
            return;
        }
        let index = self.pick();
        let replica = &mut self.replicas[index];
        let backup = ReplicaBackup { copy: replica.store.copy(), past: replica.past.clone(), own: replica.own.clone() };
        replica.backups.push(backup);
    }

    fn collect(&mut self) {
        let listed = conflicts(&self.current_hub().store);
        self.listed.extend(listed);
        let now = self.now;
        self.current_hub().hub.collect(now).expect("collects");
        self.note(|| "the hub collects".to_owned());
    }

    fn break_something(&mut self) {
        let enabled: Vec<_> = self.enabled.iter().copied().collect();
        let fault = enabled[self.random.below(enabled.len())];
        let index = self.pick();
        match fault {
            Fault::Loss | Fault::Duplication | Fault::Reordering | Fault::FailedCommit => {}
            Fault::Partition => {
                self.fault(fault);
                let replica = &mut self.replicas[index];
                replica.is_connected = !replica.is_connected;
                self.reconnect(index);
            }
            Fault::Restart | Fault::ReplicaRestored if self.replicas[index].has_twin => {}
            Fault::ReplicaRestored if self.replicas[index].is_standby => {}
            Fault::Restart => {
                self.fault(fault);
                self.restart(index);
            }
            Fault::ReplicaRestored => self.restore_replica(index),
            Fault::LiveClone => self.clone_live(index),
            Fault::ClockJump => {
                self.fault(fault);
                let jumps = [0, 30_000, 59_000, 90_000, -90_000, 3_600_000, -3_600_000, 10 * 365 * 86_400_000, -10 * 365 * 86_400_000];
                self.replicas[index].skew = jumps[self.random.below(jumps.len())];
            }
            Fault::LongAway => {
                self.fault(fault);
                let replica = &mut self.replicas[index];
                replica.is_connected = false;
                self.reconnect(index);
                self.now += 31 * DAY;
                self.collect();
            }
            Fault::HubRestart => {
                self.fault(fault);
                self.restart_hub(None);
            }
            Fault::HubRestored => self.restore_hub(),
            Fault::TwoHubs => self.fail_over(),
            Fault::Takeover => self.take_over(),
            Fault::PolicyChange => {
                self.fault(fault);
                self.policies_changed = true;
                let policies = [None, Some(Policy::LastWriterWins), Some(Policy::FirstWriterWins), Some(Policy::Max)];
                let policy = policies[self.random.below(policies.len())].clone();
                let now = time(self.now);
                document(&self.current_hub().store, DOCUMENT).set_policy_at(now, "k0", policy.as_ref()).expect("set");
            }
        }
    }

    fn restart(&mut self, index: usize) {
        let replica = &mut self.replicas[index];
        let connection = take_connection(&mut replica.session, &mut replica.store);
        replica.begin(connection);
    }

    fn restore_replica(&mut self, index: usize) {
        let Some(at) = self.replicas[index].backups.len().checked_sub(1) else { return };
        self.fault(Fault::ReplicaRestored);
        let chosen = self.random.below(at + 1);
        let replica = &mut self.replicas[index];
        let ReplicaBackup { copy, past, own } = replica.backups.remove(chosen);
        replica.backups.truncate(chosen);
        let lost: Vec<_> = replica.own.iter().filter(|(dot, _)| !own.contains_key(*dot)).map(|(_, id)| *id).collect();
        (replica.past, replica.own) = (past, own);
        drop(take_connection(&mut replica.session, &mut replica.store));
        replica.begin(copy);
        for id in lost {
            // The hub has it, or nobody; a hub that was set back may have lost what it had listed.
            if !self.writes[id].is_taken || self.hub_was_set_back {
                self.writes[id].is_exempt = true;
            }
        }
        if self.hub_was_set_back {
            // It may have been the last that had what the hub lost.
            let since = self.current_hub().past.clone();
            self.exempt_what_only_the_hub_has(&since, true);
        }
        self.note(|| format!("{index} is set back"));
    }

    /// A copy of a running replica goes on in the same epoch.
    fn clone_live(&mut self, index: usize) {
        if self.replicas.len() >= 9 {
            return;
        }
        self.fault(Fault::LiveClone);
        let replica = &mut self.replicas[index];
        replica.has_twin = true;
        let epoch = epoch_of(&replica.store);
        let store = Store::on(replica.store.copy(), replica.node.clone(), epoch, Role::Replica).expect("opens");
        let mut clone = Replica::new(replica.node.clone(), Arc::new(store));
        (clone.past, clone.own, clone.skew, clone.hub) = (replica.past.clone(), replica.own.clone(), replica.skew, replica.hub);
        clone.has_twin = true;
        clone.wrote = replica.wrote.clone();
        clone.ever_declared = replica.ever_declared.clone();
        clone.declare(replica.declared.clone());
        for dot in outbox_dots(&clone.store) {
            if let Some(id) = clone.own.get(&dot) {
                self.writes[*id].is_shared = true;
            }
        }
        self.replicas.push(clone);
    }

    /// The hub opens its store again, or a copy of it from before.
    fn restart_hub(&mut self, backup: Option<(Connection, Seen)>) {
        let at = self.hubs.len() - 1;
        let HubNode { node, store, hub, past, term, backups } = self.hubs.remove(at);
        drop(hub);
        let connection = Arc::into_inner(store).expect("nobody else has it").into_connection();
        let (connection, past) = backup.unwrap_or((connection, past));
        let store = open(connection, &node, Role::Hub);
        let mut hub = HubNode::new(node, store, past, term);
        hub.backups = backups;
        self.hubs.push(hub);
    }

    fn restore_hub(&mut self) {
        if self.current_hub().backups.is_empty() {
            return;
        }
        self.fault(Fault::HubRestored);
        self.hub_was_set_back = true;
        let count = self.current_hub().backups.len();
        let chosen = self.random.below(count);
        let backup = self.current_hub_mut().backups.remove(chosen);
        self.current_hub_mut().backups.truncate(chosen);
        self.exempt_what_only_the_hub_has(&backup.1, true);
        self.restart_hub(Some(backup));
    }

    /// What the hub took since then may be in its store only.
    fn exempt_what_only_the_hub_has(&mut self, since: &Seen, is_gone: bool) {
        let mut kept = BTreeSet::new();
        for (index, replica) in self.replicas.iter().enumerate() {
            // What waits for an answer that is on its way leaves its store with that.
            let is_answered = self.wires.iter().any(|message| message.replica == index && !message.to_hub);
            for dot in all_dots(&replica.store, !is_answered) {
                kept.extend(replica.own.get(&dot).copied());
                kept.extend(self.taken.get(&dot).into_iter().flatten().copied());
            }
        }
        let had = self.current_hub().past.clone();
        for (id, write) in self.writes.iter_mut().enumerate() {
            write.was_set_back |= had.has(id) && !since.has(id);
            if is_gone && write.is_taken && !since.has(id) && !kept.contains(&id) {
                write.is_exempt = true;
            }
        }
    }

    /// Another hub takes over from a copy, while the old one goes on for a while.
    fn fail_over(&mut self) {
        if self.hubs.len() > 1 || self.current_hub().backups.is_empty() {
            return;
        }
        self.fault(Fault::TwoHubs);
        self.hub_was_set_back = true;
        let (copy, past) = self.current_hub_mut().backups.pop().expect("there is one");
        self.exempt_what_only_the_hub_has(&past.clone(), true);
        self.shared = past.clone();
        let old = self.current_hub_mut();
        let term = old.term.unwrap_or(1);
        // The lease is gone; it may still be asked.
        old.term = None;
        old.hub.set_term(None);
        let node = old.node.clone();
        let store = open(copy, &node, Role::Hub);
        self.hubs.push(HubNode::new(node, store, past, Some(term + 1)));
        let at = self.hubs.len() - 1;
        for index in 0..self.replicas.len() {
            if self.random.percent(50) {
                self.replicas[index].hub = at;
                self.reconnect(index);
            }
        }
    }

    /// The standby takes over. The hub that was is dead and comes back with its disk, or with an empty one, or goes on for a while without
    /// the lease.
    fn take_over(&mut self) {
        let Some(index) = self.replicas.iter().position(|replica| replica.is_standby) else { return };
        let follows = |transaction: &mut crate::transaction::Transaction<'_>| Ok(transaction.state.link.lineage.current().is_some());
        if self.hubs.len() > 1 || !self.replicas[index].store.write(follows).expect("reads") {
            return;
        }
        self.fault(Fault::Takeover);
        self.hub_was_set_back = true;
        let kind = self.random.below(3);
        let Replica { node, store, session, past, .. } = self.replicas.remove(index);
        drop(session);
        // Numbers of replicas have changed, and who spoke to the hub speaks anew.
        self.wires.clear();
        (0..self.replicas.len()).for_each(|index| self.reconnect(index));
        self.exempt_what_only_the_hub_has(&past, kind == 0);
        store.promote().expect("it follows");
        let mut old = self.hubs.pop().expect("there is one");
        let term = old.term.unwrap_or(1) + 1;
        self.note(|| format!("{node} takes over, the old hub's fate is {kind}"));
        let new = HubNode::new(node, store, past, Some(term));
        match kind {
            0 => {
                let store = open(Connection::open_in_memory().expect("opens"), &old.node, Role::Standby);
                self.replicas.push(Replica::standby(old.node, store));
                self.hubs.push(new);
            }
            1 => {
                self.hubs.push(new);
                self.come_back(old);
            }
            _ => {
                old.term = None;
                old.hub.set_term(None);
                self.hubs.extend([old, new]);
                for index in 0..self.replicas.len() {
                    if self.random.percent(50) {
                        self.replicas[index].hub = 1;
                    }
                }
            }
        }
    }

    /// A hub that was comes back as the standby of another, opened anew or not.
    fn come_back(&mut self, old: HubNode) {
        let HubNode { node, store, hub, past, .. } = old;
        drop(hub);
        let store = if self.random.percent(50) {
            open(Arc::into_inner(store).expect("nobody else has it").into_connection(), &node, Role::Standby)
        } else {
            store.demote().expect("it was a hub");
            store
        };
        let mut replica = Replica::standby(node, store);
        (replica.past, replica.is_connected) = (past, self.random.percent(70));
        self.replicas.push(replica);
    }

    /// Everything works again.
    fn heal(&mut self) -> Result<(), String> {
        self.enabled.clear();
        self.wires.clear();
        self.note(|| "everything works again".to_owned());
        if self.hubs.len() > 1 && self.faults.contains_key(&Fault::Takeover) {
            let (new, old) = (self.current_hub().past.clone(), self.hubs.remove(0));
            for (id, write) in self.writes.iter_mut().enumerate() {
                write.was_set_back |= old.past.has(id) && !new.has(id);
            }
            self.come_back(old);
        }
        // What only an old hub has is lost with it.
        if self.hubs.len() > 1 {
            let new = self.current_hub().past.clone();
            let current = self.hubs.pop().expect("there are two");
            self.exempt_what_only_the_hub_has(&new, true);
            let (old, shared) = (self.current_hub().past.clone(), std::mem::take(&mut self.shared));
            for (id, write) in self.writes.iter_mut().enumerate() {
                write.was_set_back |= old.has(id) && !shared.has(id);
            }
            self.hubs = vec![current];
        }
        for index in 0..self.replicas.len() {
            let replica = &mut self.replicas[index];
            (replica.is_connected, replica.skew, replica.hub) = (true, 0, 0);
            self.reconnect(index);
        }
        self.settle()?;
        if !self.policies_changed && !self.hub_was_set_back {
            // No comparison is needed for that.
            check::same_views(self)?;
        }
        // Once more with a comparison, as there is one every ten minutes.
        for _ in 0..2 {
            self.replicas.iter_mut().for_each(|replica| replica.session.compare());
            self.settle()?;
        }
        Ok(())
    }

    /// Everybody speaks until nobody has anything to say.
    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..3 {
            self.replicas.iter_mut().for_each(|replica| replica.session.poke());
            let mut rounds = 0;
            loop {
                rounds += 1;
                if rounds > ROUNDS_MAX {
                    return Err("replicas do not come to rest".to_owned());
                }
                (0..self.replicas.len()).for_each(|index| self.send_from(index));
                if self.wires.is_empty() {
                    break;
                }
                for message in std::mem::take(&mut self.wires) {
                    self.now += 1;
                    self.arrive(message)?;
                }
            }
        }
        match self.replicas.iter().position(|replica| replica.session.state() != SessionState::Synced) {
            Some(index) => Err(format!("replica {index} comes to rest as {:?}", self.replicas[index].session.state())),
            None => Ok(()),
        }
    }
}

impl Replica {
    fn new(node: NodeId, store: Arc<Store>) -> Self {
        let session = ReplicaSession::new(Arc::clone(&store));
        Self {
            node,
            store,
            session,
            past: Seen::default(),
            comparing: None,
            own: HashMap::new(),
            skew: 0,
            is_connected: true,
            hub: 0,
            backups: Vec::new(),
            wrote: BTreeSet::new(),
            declared: BTreeSet::new(),
            ever_declared: BTreeSet::new(),
            has_twin: false,
            is_standby: false,
        }
    }

    fn standby(node: NodeId, store: Arc<Store>) -> Self {
        let mut standby = Self { is_standby: true, ..Self::new(node, store) };
        standby.declare(BTreeSet::from([Pattern::all()]));
        standby
    }

    /// The documents that it wrote to.
    pub(super) fn wrote(&self) -> &BTreeSet<String> {
        &self.wrote
    }

    fn declare(&mut self, declared: BTreeSet<Pattern>) {
        self.ever_declared.extend(declared.iter().cloned());
        self.session.declare(declared.iter().cloned()).expect("few");
        self.declared = declared;
    }

    fn begin(&mut self, connection: Connection) {
        self.store = open(connection, &self.node, if self.is_standby { Role::Standby } else { Role::Replica });
        self.session = ReplicaSession::new(Arc::clone(&self.store));
        self.declare(self.declared.clone());
        self.comparing = None;
    }
}

impl HubNode {
    fn new(node: NodeId, store: Arc<Store>, past: Seen, term: Option<u64>) -> Self {
        let hub = Hub::with_access(Arc::clone(&store), may_see).expect("opens");
        hub.set_standbys(HUBS.map(name));
        hub.set_term(term);
        Self { node, store, hub, past, term, backups: Vec::new() }
    }
}

/// The rows of a key by their dots: whether each is what a writer sees, and whether it is in the outbox.
fn rows_seen(store: &Arc<Store>, document: &str, key: &str) -> Vec<(Dot, bool, bool)> {
    let found = store.read(|snapshot| {
        let Some(head) = snapshot.head(document)? else { return Ok(Vec::new()) };
        if document == WHOLE {
            let whole = snapshot.row(&head, "", &Slot::Whole)?;
            return Ok(whole.into_iter().map(|stored| (stored.row.origin.dot, true, stored.seq.is_some())).collect());
        }
        let rows = snapshot.rows(&head, key)?;
        let named = rows.0.iter().map(|(slot, stored)| (stored.row.origin.dot.clone(), *slot == Slot::Register, stored.seq.is_some()));
        // Of a member the addition is what is seen, whoever changed its row since.
        let live = rows.members().filter_map(|(slot, stored, added)| match slot {
            Slot::Member(_, node, epoch) => {
                Some((Dot { node: node.clone(), epoch: *epoch, counter: added.counter }, true, stored.seq.is_some()))
            }
            _ => None,
        });
        Ok(named.chain(live).collect())
    });
    found.expect("reads")
}

/// Ends a session and its store, of which the database stays.
fn take_connection(session: &mut ReplicaSession, store: &mut Arc<Store>) -> Connection {
    let empty = Arc::new(Store::in_memory(store.node().clone(), Epoch(0)).expect("opens"));
    *session = ReplicaSession::new(Arc::clone(&empty));
    Arc::into_inner(std::mem::replace(store, empty)).expect("nobody else has it").into_connection()
}

fn open(connection: Connection, node: &NodeId, role: Role) -> Arc<Store> {
    let mut epoch = Epoch::draw().expect("told");
    if planted::has(Bug::RestoreNotNoticed) {
        // A planted bug: a store that is opened again goes on in its last epoch.
        let last = connection.query_row("SELECT epoch FROM epochs ORDER BY opening DESC LIMIT 1", [], |row| row.get::<_, i64>(0));
        epoch = last.map_or(epoch, |last| Epoch(last.cast_unsigned()));
    }
    Arc::new(Store::on(connection, node.clone(), epoch, role).expect("opens"))
}

pub(super) fn time(millis: u64) -> Timestamp {
    Timestamp::from_millisecond(i64::try_from(millis).expect("a time")).expect("a time")
}

fn epoch_of(store: &Arc<Store>) -> Epoch {
    store.write(|transaction| Ok(transaction.state.epoch)).expect("writes")
}

/// Up to where it has applied the rows of its hub.
fn applied(store: &Arc<Store>) -> Position {
    store.write(|transaction| Ok(transaction.state.link.base.entries().first().map_or(0, |(_, position)| *position))).expect("writes")
}

pub(super) fn conflicts(store: &Arc<Store>) -> Vec<Conflict> {
    documents(store).iter().flat_map(|name| document(store, name).conflicts().expect("reads")).collect()
}

/// The names of what a store holds, but for the documents of the system.
pub(super) fn documents(store: &Arc<Store>) -> Vec<String> {
    let names = store.read(|snapshot| snapshot.names_after(0)).expect("reads");
    names.into_iter().map(|(_, name)| name.to_string()).filter(|name| !crate::interest::is_system(name)).collect()
}

/// The dots of the outbox, in the order in which they were written.
fn outbox_dots(store: &Arc<Store>) -> Vec<Dot> {
    store.write(|transaction| crate::replica::outbox::outbox_dots(transaction)).expect("reads")
}

/// The dots of all rows of a store, also of those that lost if they are wanted.
fn all_dots(store: &Arc<Store>, with_shadows: bool) -> Vec<Dot> {
    let mut dots = if with_shadows { outbox_dots(store) } else { Vec::new() };
    let rows = store.read(|snapshot| {
        for (id, _) in snapshot.names_after(0)? {
            snapshot.each_row_of(
                id,
                "",
                |_| true,
                |_, _, stored| {
                    dots.push(stored.row.origin.dot);
                    Ok(true)
                },
            )?;
        }
        Ok(())
    });
    rows.expect("reads");
    dots
}
