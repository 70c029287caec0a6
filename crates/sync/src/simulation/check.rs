//! What must hold while a world runs, and when it has come to rest.

use std::collections::{BTreeMap, BTreeSet};

use edgeward_model::{Value, python_json};

use super::{
    fault::Fault,
    history::{Act, Write},
    world::{DOCUMENT, WHOLE, World, conflicts, document, documents, may_see, place},
};
use crate::{
    conflict::{CONFLICTS, Conflict, Side, Why},
    digest,
    interest::{Interest, Scope},
    policy::POLICIES,
    replica::outbox::outbox_dots,
};

/// What must hold at every moment.
pub(super) fn always(world: &World) -> Result<(), String> {
    if let Some(why) = &world.violation {
        return Err(why.clone());
    }
    if !world.step.is_multiple_of(8) {
        return Ok(());
    }
    for (index, replica) in world.replicas.iter().enumerate() {
        let (pending, unsent) = replica
            .store
            .write(|transaction| {
                let Some(head) = transaction.document(DOCUMENT)? else { return Ok((0, false)) };
                let mut unsent = false;
                transaction.each_row(&head, "", |_, _, stored| {
                    unsent = stored.seq.is_some();
                    Ok(!unsent)
                })?;
                Ok((head.pending, unsent))
            })
            .map_err(|error| error.chain())?;
        if unsent && pending == 0 {
            return Err(format!("replica {index} has rows that the hub has not acknowledged, and no pending change"));
        }
    }
    Ok(())
}

/// Everybody shows the same of what it wants, and has nothing else.
pub(super) fn same_views(world: &World) -> Result<(), String> {
    let hub = &world.hubs.last().expect("there is one").store;
    let data = |store: &_, name: &str| document(store, name).view().expect("reads").map(|state| state.data).unwrap_or_default();
    for (index, replica) in world.replicas.iter().enumerate() {
        let held = documents(&replica.store);
        for name in &held {
            if !may_see(&replica.node, name) {
                return Err(format!("replica {index} has `{name}`, which it may not see"));
            }
            let is_own = replica.wrote().contains(name.as_str());
            if !is_own && !replica.ever_declared.iter().any(|pattern| pattern.matches(name)) {
                return Err(format!("replica {index} has `{name}`, which it never wanted"));
            }
        }
        let wants = |name: &str| {
            may_see(&replica.node, name)
                && (held.iter().any(|held| held == name) || replica.declared.iter().any(|pattern| pattern.matches(name)))
        };
        let names = documents(hub).into_iter().filter(|name| wants(name)).chain([POLICIES, CONFLICTS].map(str::to_owned));
        for name in names {
            let is_seen = |key: &String| !matches!(name.as_str(), POLICIES | CONFLICTS) || wants(key.split('/').next().unwrap_or_default());
            let (mut found, mut expected) = (data(&replica.store, &name), data(hub, &name));
            found.0.retain(|key, _| is_seen(key));
            expected.0.retain(|key, _| is_seen(key));
            if found != expected {
                let other = |left: &edgeward_model::Object, right: &edgeward_model::Object| {
                    left.0
                        .iter()
                        .filter(|(key, value)| right.0.get(*key) != Some(value))
                        .map(|(key, value)| format!("{key}={value:?}"))
                        .collect::<Vec<_>>()
                };
                return Err(format!(
                    "replica {index} shows `{name}` otherwise: {:?}, the hub {:?}",
                    other(&found, &expected),
                    other(&expected, &found)
                ));
            }
        }
    }
    Ok(())
}

/// What must hold when everybody has heard of everything.
pub(super) fn at_rest(world: &World) -> Result<(), String> {
    same_views(world)?;
    let hub = &world.hubs.last().expect("there is one").store;
    for (index, replica) in world.replicas.iter().enumerate() {
        let unsent = replica.store.write(|transaction| outbox_dots(transaction)).expect("reads");
        if !unsent.is_empty() {
            return Err(format!("replica {index} has still to send {unsent:?}"));
        }
        let held = documents(&replica.store);
        let held = held.iter().map(|name| name.parse().expect("a name"));
        let interest = Interest::new(replica.declared.iter().cloned().chain(held)).expect("few");
        let scope = Scope { interest: &interest, may_see: &|name| may_see(&replica.node, name), node: None };
        let digests = |store: &std::sync::Arc<crate::store::Store>, is_hub| {
            let digests = store.read(|snapshot| digest::of_documents(snapshot, scope, scope.documents(snapshot)?, is_hub).collect());
            let digests: Vec<_> = digests.expect("reads");
            digests
        };
        if digests(&replica.store, false) != digests(hub, true) {
            let all = |store: &std::sync::Arc<crate::store::Store>| {
                let mut rows = BTreeSet::new();
                let read = store.read(|snapshot| {
                    for (id, name) in scope.documents(snapshot)? {
                        snapshot.each_row_of(
                            id,
                            "",
                            |key| scope.sees(&name, key),
                            |key, slot, stored| {
                                let row = crate::row::Row { positions: Vec::new(), ..stored.row };
                                rows.insert(format!("{name} {key} {slot:?} {row:?}"));
                                Ok(true)
                            },
                        )?;
                    }
                    Ok(())
                });
                read.expect("reads");
                rows
            };
            let (here, there) = (all(&replica.store), all(hub));
            let (more, less): (Vec<_>, Vec<_>) = (here.difference(&there).collect(), there.difference(&here).collect());
            return Err(format!("replica {index} has another digest: {more:?}, the hub {less:?}"));
        }
    }
    let conflicts: Vec<Conflict> = conflicts(hub).into_iter().chain(world.listed.iter().cloned()).collect();
    no_false_conflict(world, &conflicts)?;
    let may_be_below = [Fault::Takeover, Fault::LongAway, Fault::ReplicaRestored, Fault::HubRestored, Fault::TwoHubs, Fault::LiveClone];
    // Who writes to a document that it did not want before may not know of a deletion.
    let is_known = |conflict: &&Conflict| matches!(conflict.document.as_str(), DOCUMENT | WHOLE);
    if let Some(early) = conflicts.iter().filter(is_known).find(|conflict| conflict.why == Why::BelowFloor)
        && !may_be_below.iter().any(|fault| world.faults.contains_key(fault))
    {
        return Err(format!("a tombstone was forgotten before every replica had it: {early:?}"));
    }
    let views: BTreeMap<String, _> = documents(hub)
        .into_iter()
        .map(|name| {
            let view = document(hub, &name).view().expect("reads").map(|state| state.data).unwrap_or_default();
            (name, view)
        })
        .collect();
    let keys: BTreeSet<_> = world.writes.iter().map(|write| write.key.as_str()).collect();
    for key in keys {
        let (name, member) = place(key);
        let shown = views.get(name).and_then(|view| view.0.get(if key == "whole" { key } else { member }));
        match member {
            "count" => counted(world, key, shown, &conflicts)?,
            "set" => elements(world, shown)?,
            "max" => greatest(world, shown, &conflicts)?,
            // Under a policy that came later a value may have lost to one that it overwrote.
            "k0" if name == DOCUMENT && world.policies_changed => {}
            _ => values(world, key, shown, &conflicts)?,
        }
    }
    Ok(())
}

fn ids(world: &World, side: &Side) -> Vec<usize> {
    let found = world
        .taken
        .iter()
        .filter(|(dot, _)| dot.node.as_str() == side.node && format!("{:016x}", dot.epoch.0) == side.epoch && dot.counter == side.counter);
    found.flat_map(|(_, ids)| ids.iter().copied()).collect()
}

/// A conflict is listed of writes that did not know of each other.
fn no_false_conflict(world: &World, conflicts: &[Conflict]) -> Result<(), String> {
    for conflict in conflicts.iter().filter(|conflict| conflict.why == Why::Concurrent) {
        let Some(winner) = &conflict.winner else { continue };
        // What a store and its copy knew of each other is known as far as their dots tell them apart.
        let has_twin = |side: &Side| world.replicas.iter().any(|replica| replica.has_twin && replica.node.as_str() == side.node);
        if has_twin(&conflict.loser) || has_twin(winner) {
            continue;
        }
        let (losers, winners) = (ids(world, &conflict.loser), ids(world, winner));
        // A copy of a store may have given one dot to two writes.
        let ([loser], [winner]) = (&losers[..], &winners[..]) else { continue };
        if [loser, winner]
            .into_iter()
            .any(|id| world.writes[*id].is_shared || world.writes[*id].was_set_back || world.writes[*id].is_decision)
        {
            continue;
        }
        // Within a pull it may be listed against what that had overwritten which it overwrote.
        let knew = |later: usize, earlier: usize| world.writes[later].past.has(earlier) && !world.writes[later].is_within_pull;
        if knew(*loser, *winner) || knew(*winner, *loser) {
            return Err(format!("a false conflict is listed: {loser} {:?} and {winner} {:?}", world.writes[*loser], world.writes[*winner]));
        }
    }
    Ok(())
}

fn text(value: Option<&Value>) -> Option<String> {
    value.map(|value| match value {
        Value::String(text) => text.clone(),
        other => python_json::write(other).expect("a value"),
    })
}

/// Each value shows, was overwritten by someone who had seen it, or is in the conflict log.
fn values(world: &World, key: &str, shown: Option<&Value>, conflicts: &[Conflict]) -> Result<(), String> {
    let shown = text(shown);
    let here = |conflict: &&Conflict| (conflict.document.as_str(), conflict.key.as_str()) == place(key);
    let mut listed: BTreeSet<usize> = BTreeSet::new();
    for conflict in conflicts.iter().filter(here) {
        listed.extend(ids(world, &conflict.loser));
        // Of values side by side each is listed by what it says.
        let value = text(match &conflict.loser.value {
            Some(Value::Object(members)) => members.0.get(key),
            value => value.as_ref(),
        });
        listed.extend((0..world.writes.len()).filter(|id| value.is_some() && world.writes[*id].act == Act::Value(value.clone())));
    }
    let of_key: Vec<_> = (0..world.writes.len()).filter(|id| world.writes[*id].key == key).collect();
    let is_overwritten = |id: usize| of_key.iter().any(|later| world.writes[*later].past.has(id));
    let below_floor = || conflicts.iter().filter(here).any(|conflict| conflict.why == Why::BelowFloor);
    for id in &of_key {
        let write = &world.writes[*id];
        let Act::Value(value) = &write.act else { continue };
        // A deletion that was forgotten is not told apart from what came after it.
        let is_partial = !matches!(place(key).0, DOCUMENT | WHOLE);
        let was_forgotten = value.is_none() && (world.hub_was_set_back || below_floor() || is_partial);
        let is_same_delete = value.is_none() && of_key.iter().any(|other| other != id && world.writes[*other].act == Act::Value(None));
        if write.is_exempt || *value == shown || is_overwritten(*id) || listed.contains(id) || is_same_delete || was_forgotten {
            continue;
        }
        return Err(format!("write {id} {write:?} is lost: `{key}` shows {shown:?}"));
    }
    let later_than = |visible: usize| {
        // What was on its way when its store was copied comes from both copies, and from one of them after it was overwritten. Then
        // what it met is listed, which may be another write of the same value, or it came below the floor of a forgotten deletion.
        let is_as_listed = |write: &Write| {
            let has_other = || listed.iter().any(|other| world.writes[*other].key == key && world.writes[*other].act == write.act);
            world.writes[visible].is_shared && (has_other() || (write.act == Act::Value(None) && below_floor()))
        };
        of_key.iter().find(|later| {
            let write = &world.writes[**later];
            write.past.has(visible)
                && !write.is_exempt
                && !listed.contains(later)
                && !is_as_listed(write)
                && !is_overwritten(**later)
                && write.act != Act::Value(shown.clone())
        })
    };
    let visible: Vec<_> = of_key.iter().filter(|id| shown.is_some() && world.writes[**id].act == Act::Value(shown.clone())).collect();
    if let Some(first) = visible.first() {
        // A hub that decided wrote a value anew, and who overwrote the first may not have seen that.
        if let Some(later) = later_than(**first)
            && visible.iter().all(|id| later_than(**id).is_some())
        {
            return Err(format!("write {first} shows, and {later} {:?} had overwritten it", world.writes[*later]));
        }
        if key == "hub" && !world.hub_was_set_back && !world.writes[**first].at_hub {
            let beaten = of_key.iter().find(|id| {
                let write = &world.writes[**id];
                // A deletion may be forgotten before the other comes.
                write.at_hub
                    && write.act != Act::Value(None)
                    && !is_overwritten(**id)
                    && !world.writes[**first].past.has(**id)
                    && write.act != Act::Value(shown.clone())
            });
            if let Some(beaten) = beaten {
                return Err(format!("write {first} shows, and the hub's {beaten} should have won"));
            }
        }
    }
    Ok(())
}

/// What was counted anywhere adds up, with what came below the floor and is in the conflict log only.
fn counted(world: &World, key: &str, shown: Option<&Value>, conflicts: &[Conflict]) -> Result<(), String> {
    let counts = world.writes.iter().filter(|write| write.key == key);
    if counts.clone().any(|write| write.is_exempt || write.is_shared) || world.hub_was_restored() {
        return Ok(());
    }
    let sum: i64 = counts.map(|write| if let Act::Add(by) = write.act { by } else { 0 }).sum();
    let number = |value: Option<&Value>| text(value).map_or(0, |text| text.parse::<i64>().expect("a number"));
    let below_floor = conflicts.iter().filter(|conflict| (conflict.document.as_str(), conflict.key.as_str()) == place(key));
    // Of one opening the last holds what those before it held.
    let mut listed = BTreeMap::new();
    for loser in below_floor.map(|conflict| &conflict.loser) {
        let last = listed.entry((&loser.node, &loser.epoch)).or_insert((0, 0));
        *last = (*last).max((loser.counter, number(loser.value.as_ref())));
    }
    let (shown, listed) = (number(shown), listed.into_values().map(|(_, by)| by).sum::<i64>());
    if shown + listed == sum { Ok(()) } else { Err(format!("{sum} were counted in `{key}`, {shown} show and {listed} are listed")) }
}

/// An element is there as long as an addition of it was not removed by someone who had seen it.
fn elements(world: &World, shown: Option<&Value>) -> Result<(), String> {
    let shown: BTreeSet<String> = match shown {
        Some(Value::Array(elements)) => elements.iter().filter_map(|element| text(Some(element))).collect(),
        _ => BTreeSet::new(),
    };
    if world.writes.iter().any(|write| write.key == "set" && write.is_shared) {
        return Ok(());
    }
    for element in ["e0", "e1", "e2"] {
        let of = |is_there: bool| {
            world.writes.iter().enumerate().filter(move |(_, write)| write.act == Act::Element { element: element.to_owned(), is_there })
        };
        let removed =
            |id: usize, also_exempt: bool| of(false).any(|(_, removal)| removal.past.has(id) && (also_exempt || !removal.is_exempt));
        if let Some((id, _)) = of(true).find(|(id, add)| !add.is_exempt && !removed(*id, true))
            && !shown.contains(element)
        {
            return Err(format!("element {element} of write {id} is lost"));
        }
        if of(true).all(|(id, _)| removed(id, false)) && shown.contains(element) {
            return Err(format!("element {element} was removed and is there"));
        }
    }
    Ok(())
}

fn greatest(world: &World, shown: Option<&Value>, conflicts: &[Conflict]) -> Result<(), String> {
    let number = |text: &str| text.parse::<u64>().expect("a number");
    // What overwrote something and came below the floor is in the conflict log only, however great it is.
    let overwrote =
        |id: &usize| world.writes.iter().enumerate().any(|(other, write)| write.key == "max" && world.writes[*id].past.has(other));
    let below_floor: BTreeSet<_> = conflicts
        .iter()
        .filter(|conflict| conflict.document == DOCUMENT && conflict.key == "max" && conflict.why == Why::BelowFloor)
        .flat_map(|conflict| ids(world, &conflict.loser))
        .filter(overwrote)
        .collect();
    // With it are those that it replaced before they were sent.
    let is_below = |id: usize| below_floor.iter().any(|below| *below == id || world.writes[*below].past.has(id));
    let writes = world.writes.iter().enumerate().filter(|(id, write)| write.key == "max" && !write.is_exempt && !is_below(*id));
    let values = writes.filter_map(|(_, write)| match &write.act {
        Act::Value(Some(text)) => Some(number(text)),
        _ => None,
    });
    let most = values.max();
    let shown = text(shown).map(|text| number(&text));
    if shown >= most { Ok(()) } else { Err(format!("{most:?} was the greatest, and {shown:?} shows")) }
}
