//! Whether a revision does as well as the one before it on the same nodes.

use edgeward_model::Gate;

use super::facts::Sample;

/// Failures that are no accident: with fewer a revision is found bad only when it never succeeded.
const FAILURES_MIN: u64 = 3;
/// Invocations, of each revision, without which no percentile is compared.
const P95_CALLS_MIN: u64 = 20;
/// A difference of the 95th percentiles that says nothing, in milliseconds: functions that take microseconds are disturbed by anything.
const P95_NOISE_MS: f64 = 5.0;

/// What a gate says.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It does as well.
    Good,
    /// There is too little to say that; so many invocations.
    TooFew(u64),
    /// It does not, and why.
    Bad(String),
}

/// Judges the invocations of a revision by those of the one before it, node by node. The shares of failed ones are compared over all nodes; the
/// 95th percentiles as the means of those of the nodes, weighted by the invocations of the new revision, over nodes that have enough of both.
pub fn judge(gate: &Gate, samples: impl IntoIterator<Item = (Sample, Sample)>) -> Verdict {
    let (mut calls, mut errors, mut calls_before, mut errors_before) = (0, 0, 0, 0);
    let (mut weight, mut p95, mut p95_before) = (0.0, 0.0, 0.0);
    for (now, before) in samples {
        calls += now.calls;
        errors += now.errors;
        calls_before += before.calls;
        errors_before += before.errors;
        if now.calls >= P95_CALLS_MIN && before.calls >= P95_CALLS_MIN {
            let calls = now.calls as f64;
            weight += calls;
            p95 += now.p95_ms * calls;
            p95_before += before.p95_ms * calls;
        }
    }
    let percent = |errors: u64, calls: u64| if calls == 0 { 0.0 } else { errors as f64 * 100.0 / calls as f64 };
    let (share, share_before) = (percent(errors, calls), percent(errors_before, calls_before));
    if share > share_before + gate.failure_percent() && (errors >= FAILURES_MIN || errors == calls) {
        return Verdict::Bad(format!(
            "{errors} of {calls} invocations failed, {share:.1} %; before it was {share_before:.1} %, and {} more are let pass",
            gate.failure_percent()
        ));
    }
    if weight > 0.0 {
        let (p95, p95_before) = (p95 / weight, p95_before / weight);
        if p95 > p95_before * gate.p95_factor() && p95 > p95_before + P95_NOISE_MS {
            return Verdict::Bad(format!(
                "the 95th percentile is {p95:.1} ms; before it was {p95_before:.1} ms, and {} times that is let pass",
                gate.p95_factor()
            ));
        }
    }
    if calls < gate.min_samples() { Verdict::TooFew(calls) } else { Verdict::Good }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(calls: u64, errors: u64, p95_ms: f64) -> Sample {
        Sample { calls, errors, p95_ms }
    }

    fn verdict(gate: &Gate, now: Sample, before: Sample) -> Verdict {
        judge(gate, [(now, before)])
    }

    #[test]
    fn failures_are_judged_by_their_share_before() {
        let gate = Gate::default();
        let is_bad = |now, before| matches!(verdict(&gate, now, before), Verdict::Bad(_));
        assert!(is_bad(sample(100, 6, 1.0), sample(100, 0, 1.0)));
        assert!(!is_bad(sample(100, 5, 1.0), sample(100, 0, 1.0)));
        assert!(!is_bad(sample(100, 50, 1.0), sample(100, 50, 1.0)), "it was as bad before");
        assert!(is_bad(sample(100, 10, 1.0), Sample::default()), "nothing was before");
    }

    #[test]
    fn few_failures_say_nothing_unless_all_failed() {
        let gate = Gate::default();
        let is_bad = |now| matches!(verdict(&gate, now, Sample::default()), Verdict::Bad(_));
        assert!(!is_bad(sample(10, 2, 1.0)) && is_bad(sample(10, 3, 1.0)) && is_bad(sample(1, 1, 1.0)) && !is_bad(Sample::default()));
    }

    #[test]
    fn a_slower_revision_is_found_by_its_percentile_where_there_is_enough_of_both() {
        let gate = Gate::default();
        let is_bad = |now, before| matches!(verdict(&gate, now, before), Verdict::Bad(_));
        assert!(is_bad(sample(20, 0, 50.0), sample(20, 0, 20.0)));
        assert!(!is_bad(sample(20, 0, 40.0), sample(20, 0, 20.0)));
        assert!(!is_bad(sample(19, 0, 500.0), sample(20, 0, 20.0)) && !is_bad(sample(20, 0, 500.0), sample(19, 0, 20.0)));
        assert!(!is_bad(sample(1000, 0, 1.0), sample(1000, 0, 0.1)), "less than a function is disturbed by");
    }

    #[test]
    fn without_the_wanted_invocations_nothing_is_good_but_bad_is_bad() {
        let gate = Gate { min_samples: Some(10), ..Gate::default() };
        assert_eq!(verdict(&gate, sample(9, 0, 1.0), Sample::default()), Verdict::TooFew(9));
        assert_eq!(verdict(&gate, sample(10, 0, 1.0), Sample::default()), Verdict::Good);
        assert!(matches!(verdict(&gate, sample(4, 4, 1.0), Sample::default()), Verdict::Bad(_)));
    }

    #[test]
    fn the_nodes_are_judged_together() {
        let gate = Gate::default();
        let bad = (sample(50, 5, 1.0), sample(50, 0, 1.0));
        let good = (sample(50, 0, 1.0), sample(50, 0, 1.0));
        assert!(matches!(judge(&gate, [bad]), Verdict::Bad(_)));
        assert_eq!(judge(&gate, [bad, good]), Verdict::Good, "5 of 100");
    }
}
