//! Whether what must hold did: before the faults, while they lasted, and again after them.

use edgeward_model::chaos::{Demanded, Hypothesis};
use serde::{Deserialize, Serialize};

use super::{observation::Sum, trial::Trial};

/// All must be well in the last of the seconds of which something is known, in so many at most: what goes wrong at the end has not recovered, however long
/// it was well before.
const TAIL_SECONDS: usize = 5;

/// What became of a hypothesis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The hypothesis, for people.
    pub hypothesis: String,
    /// When it must hold.
    pub demanded: Demanded,
    /// What was seen before the faults, with its unit.
    pub before: String,
    /// While they lasted.
    pub during: String,
    /// From when on it held again to the end, after the last fault had ended, in seconds; none if it did not.
    pub recovered_after_seconds: Option<u64>,
    /// Whether it held; none when nothing is known of it.
    pub holds: Option<bool>,
    /// Why not, or why nothing is known; empty otherwise.
    pub why: String,
}

impl Trial {
    pub(super) fn judge(&self, hypothesis: &Hypothesis) -> Judged {
        let expectation = &hypothesis.expectation;
        let (begin, end) = self.faulty_seconds();
        let before_end = self.experiment.before().as_secs();
        let seen = self.by_second(expectation);
        let (faulty, after) = (seen.partition_point(|(second, _)| *second < begin), seen.partition_point(|(second, _)| *second < end));
        let before = Sum::all(seen.iter().take_while(|(second, _)| *second < before_end).map(|(_, sum)| sum));
        let mut during = Sum::all(seen[faulty..after].iter().map(|(_, sum)| sum));
        if let Some(carried) = expectation.function().and_then(|function| self.carried.get(function)) {
            during.merge(&Sum::of_calls(carried.clone()));
        }
        let (in_faults, recovered) = match expectation.function() {
            Some(_) => (during.holds(expectation), recovered_at(hypothesis, &seen[after..])),
            None => (within_tolerance(hypothesis, &seen[faulty..after]), recovered_at(hypothesis, &seen[after..])),
        };
        let always = hypothesis.demanded == Demanded::Always;
        let (holds, why) = match (in_faults, &recovered) {
            (Some(false), _) if always => (Some(false), format!("while the faults lasted it was {}", during.shown(expectation))),
            (_, Recovered::Not(last)) => (Some(false), format!("it had not recovered at the end: {}", last.shown(expectation))),
            (None, _) if always => (None, "nothing was seen of it while the faults lasted".to_owned()),
            (_, Recovered::Unknown) => (None, "nothing was seen of it after the faults".to_owned()),
            (_, Recovered::At(_)) => (Some(true), String::new()),
        };
        let recovered_after_seconds = match recovered {
            // By the end of that second.
            Recovered::At(second) => Some(second + 1 - end),
            Recovered::Not(_) | Recovered::Unknown => None,
        };
        Judged {
            hypothesis: expectation.to_string(),
            demanded: hypothesis.demanded,
            before: before.shown(expectation),
            during: during.shown(expectation),
            recovered_after_seconds,
            holds,
            why,
        }
    }
}

/// When a hypothesis held again.
enum Recovered {
    /// From this second to the end, all together.
    At(u64),
    /// Not even at the end, which was so.
    Not(Sum),
    /// Nothing was seen of it.
    Unknown,
}

/// From which second on all that was seen to the end, together, is as expected.
fn recovered_at(hypothesis: &Hypothesis, after: &[(u64, Sum)]) -> Recovered {
    let expectation = &hypothesis.expectation;
    let (mut sum, mut recovered, mut ends_well) = (Sum::default(), Recovered::Unknown, false);
    let known: Vec<_> = after.iter().rev().filter(|(_, sum)| sum.holds(expectation).is_some()).collect();
    let tail = known.len().min(TAIL_SECONDS);
    for (count, (second, seen)) in known.into_iter().enumerate() {
        sum.merge(seen);
        ends_well |= count < tail && sum.holds(expectation) == Some(true);
        // Of the few calls of the last seconds a single one that fails says nothing yet.
        ends_well |= count + 1 == tail && sum.clone().but_for_one_call().holds(expectation) == Some(true);
        if sum.holds(expectation) == Some(true) && ends_well {
            recovered = Recovered::At(*second);
        } else if count < TAIL_SECONDS && !matches!(recovered, Recovered::At(_)) {
            recovered = Recovered::Not(sum.clone());
        }
    }
    recovered
}

/// Whether it was never otherwise for longer than is tolerated without a break.
pub(super) fn within_tolerance(hypothesis: &Hypothesis, seen: &[(u64, Sum)]) -> Option<bool> {
    let tolerance = u64::from(hypothesis.tolerance_seconds);
    let (mut since, mut within) = (None, None);
    for (second, sum) in seen {
        match sum.holds(&hypothesis.expectation) {
            None => {}
            Some(true) => (since, within) = (None, within.or(Some(true))),
            Some(false) => {
                let is_short = tolerance > 0 && second - *since.get_or_insert(second) <= tolerance;
                within = Some(within.unwrap_or(true) && is_short);
            }
        }
    }
    within
}
