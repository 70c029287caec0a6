//! Who may run a function that one node at a time may run: its hub grants it a lease, for a time, and again while it asks. Pure.
//!
//! A node counts its time from before it asked, and begins nothing after it; its hub counts from the answer, and adds the time that the last
//! invocation may take. So another node begins only when the former has surely ended, as long as clocks run equally fast, within a twentieth.
//! What a hub has granted it notes before it answers. What it does not know, as after another hub has led the fleet, it waits out.

use std::{collections::BTreeMap, time::Duration};

use edgeward_model::{FunctionId, NodeId, limits::FUNCTION_LEASE_TTL};
use serde::{Deserialize, Serialize};

use crate::planted::{self, Bug};

/// How much faster than others a clock may run: one part of so many.
const DRIFT: u32 = 20;

/// Who was granted a function, as its hub notes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The node; none when nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
    /// How long an invocation may take that began at the end.
    pub timeout: Duration,
}

/// Under whom something was noted: a hub, and the term in which it led. Terms grow, and no two hubs lead in one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reign {
    /// The hub.
    pub hub: NodeId,
    /// The term.
    pub term: u64,
}

/// What a hub finds noted when it begins to lead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// Under whom; none when nobody ever led.
    pub reign: Option<Reign>,
    /// The grants.
    pub grants: BTreeMap<FunctionId, Grant>,
}

/// What a node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granting {
    /// It may run the function, for [`FUNCTION_LEASE_TTL`] from before it asked.
    Granted,
    /// It may not.
    Waiting {
        /// Who may, if that is known.
        holder: Option<NodeId>,
        /// How long at most until that one has ended, unless it asks again.
        wait: Duration,
    },
}

/// The grants of a hub, for as long as it leads.
#[derive(Clone, Debug)]
pub struct Grants {
    /// When it began, after which what nobody noted is waited out; none when nobody can have granted anything before.
    began_at: Option<Duration>,
    held: BTreeMap<FunctionId, Held>,
}

#[derive(Clone, Debug)]
struct Held {
    grant: Grant,
    /// The question that it was granted to last; none since this hub began.
    question: Option<u64>,
    /// When the last invocation under it has surely ended.
    until: Duration,
}

impl Grants {
    /// Those of a hub that begins to lead, and what it is to note before it grants anything.
    ///
    /// What it noted itself just before it trusts. Where another has led since, that one may have granted what is not known here.
    pub fn begin(noted: Noted, reign: Reign, now: Duration) -> (Self, Noted) {
        let Noted { reign: before, mut grants } = noted;
        let is_first = before.is_none() && reign.term <= 1;
        let is_own = before.is_some_and(|before| before.hub == reign.hub && before.term + 1 >= reign.term);
        if !is_own && !planted::has(Bug::OtherReignTrusted) {
            for grant in grants.values_mut() {
                grant.node = None;
            }
        }
        let held = grants
            .iter()
            .map(|(function, grant)| (function.clone(), Held { grant: grant.clone(), question: None, until: end(now, grant.timeout) }));
        let this = Self { began_at: (!is_first).then_some(now), held: held.collect() };
        (this, Noted { reign: Some(reign), grants })
    }

    /// Grants a function to a node that asks for it and is to have it, when no other can still run it. `keep` is to note durably what is new,
    /// before anything is granted. Of the questions of one node a later one has a greater number.
    pub fn ask<E>(
        &mut self,
        function: &FunctionId,
        (node, question): (&NodeId, u64),
        timeout: Duration,
        now: Duration,
        keep: impl FnOnce(&Grant) -> Result<(), E>,
    ) -> Result<Granting, E> {
        let known = self.held.get(function);
        let own = known.filter(|held| held.grant.node.as_ref() == Some(node));
        if own.is_none() {
            let (holder, until) = match (known, self.began_at) {
                (Some(held), _) => (held.grant.node.clone(), held.until),
                (None, Some(began_at)) if !planted::has(Bug::UnknownGrantTakenForNone) => (None, end(began_at, timeout)),
                (None, _) => (None, Duration::ZERO),
            };
            if now < until {
                return Ok(Granting::Waiting { holder, wait: until.saturating_sub(now) });
            }
        }
        // An invocation of a former revision may still take longer.
        let longest = own.map_or(timeout, |held| held.grant.timeout.max(timeout));
        let grant = Grant { node: Some(node.clone()), timeout: longest };
        let is_noted = own.is_some_and(|held| held.grant == grant) || (known.is_some() && planted::has(Bug::OnlyFirstGrantNoted));
        if !is_noted {
            keep(&grant)?;
        }
        self.held.insert(function.clone(), Held { grant, question: Some(question), until: end(now, longest) });
        Ok(Granting::Granted)
    }

    /// Forgets functions that are not deployed so any more, once nothing of them can run.
    pub fn retain(&mut self, now: Duration, keep: impl Fn(&FunctionId) -> bool) -> Vec<FunctionId> {
        let gone: Vec<_> = self.held.iter().filter(|(id, held)| held.until <= now && !keep(id)).map(|(id, _)| id.clone()).collect();
        self.held.retain(|id, _| !gone.contains(id));
        gone
    }

    /// Takes back what a node says that it has ended: its invocations, and all that this question and those before gave it. When it was granted to
    /// another question since, or nobody knows to which as the hub has begun anew, this comes too late and says nothing. Who it was granted to stays noted.
    pub fn release(&mut self, function: &FunctionId, (node, question): (&NodeId, u64), now: Duration) {
        let is_last = |held: &&mut Held| held.grant.node.as_ref() == Some(node) && held.question.is_some_and(|last| last <= question);
        if let Some(held) = self.held.get_mut(function).filter(|held| is_last(held) || planted::has(Bug::LateReleaseBelieved)) {
            held.until = now;
        }
    }

    /// Who may run a function now.
    pub fn holder(&self, function: &FunctionId, now: Duration) -> Option<&NodeId> {
        self.held.get(function).filter(|held| now < held.until)?.grant.node.as_ref()
    }
}

/// When the last invocation has surely ended that began under what was granted now.
fn end(now: Duration, timeout: Duration) -> Duration {
    let timeout = if planted::has(Bug::LastInvocationNotWaitedFor) { Duration::ZERO } else { timeout };
    let time = FUNCTION_LEASE_TTL + timeout;
    now + time + time / DRIFT
}

#[cfg(test)]
mod tests;
