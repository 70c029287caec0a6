//! Whether a revision does as well as the one before it on the same nodes.

use edgeward_model::Gate;

use super::facts::Sample;

/// Failures without which no revision is found bad.
const FAILURES_MIN: u64 = 3;
/// How far the number of failures must be from what is let pass, in standard deviations: nearer it may be chance, and a revision is judged
/// over and over.
const DEVIATIONS: f64 = 3.0;
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
    /// All of so many invocations failed, which are too few to find it bad, and no reason to find it good.
    Doubtful(u64),
    /// It does not, and why.
    Bad(String),
}

/// Judges the invocations of a revision by those of the one before it, node by node. The shares of failed ones are compared over all nodes:
/// of `n` invocations `n p` failures are let pass, where `p` is the share that failed before and what may be added, and three times
/// `√(n p (1 - p))` more, as that may be chance. The 95th percentiles are compared as the means of those of the nodes, weighted by the invocations of the new revision, over nodes that have enough of both.
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
    let let_pass = ((share_before + gate.failure_percent()) / 100.0).min(1.0);
    let chance = DEVIATIONS * (calls as f64 * let_pass * (1.0 - let_pass)).sqrt();
    let is_worse = errors as f64 > calls as f64 * let_pass;
    if errors >= FAILURES_MIN && errors as f64 > calls as f64 * let_pass + chance {
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
    if is_worse && errors == calls {
        Verdict::Doubtful(calls)
    } else if calls < gate.min_samples() {
        Verdict::TooFew(calls)
    } else {
        Verdict::Good
    }
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
        assert!(is_bad(sample(100, 12, 1.0), sample(100, 0, 1.0)));
        assert!(!is_bad(sample(100, 11, 1.0), sample(100, 0, 1.0)), "5 are let pass, and 6.5 more may be chance");
        assert!(is_bad(sample(10_000, 566, 1.0), sample(100, 0, 1.0)), "of many less is chance");
        assert!(!is_bad(sample(10_000, 565, 1.0), sample(100, 0, 1.0)));
        assert!(!is_bad(sample(100, 50, 1.0), sample(100, 50, 1.0)), "it was as bad before");
        assert!(is_bad(sample(100, 12, 1.0), Sample::default()), "nothing was before");
        let strict = Gate { failure_percent: Some(0.0), ..Gate::default() };
        assert!(matches!(verdict(&strict, sample(10_000, 3, 1.0), sample(9, 0, 1.0)), Verdict::Bad(_)));
    }

    #[test]
    fn few_failures_say_nothing_and_when_nothing_succeeded_it_is_open() {
        let gate = Gate::default();
        let of = |calls, errors| verdict(&gate, sample(calls, errors, 1.0), Sample::default());
        assert_eq!((of(0, 0), of(1, 1), of(2, 2), of(2, 1)), (Verdict::Good, Verdict::Doubtful(1), Verdict::Doubtful(2), Verdict::Good));
        assert!(matches!(of(3, 3), Verdict::Bad(_)) && matches!(of(10, 3), Verdict::Bad(_)));
        assert_eq!(verdict(&gate, sample(2, 2, 1.0), sample(5, 5, 1.0)), Verdict::Good, "as before");
    }

    #[test]
    fn what_failed_often_before_is_not_found_bad_by_chance() {
        let (gate, before) = (Gate::default(), sample(1000, 200, 1.0));
        for calls in 1..200 {
            assert!(!matches!(verdict(&gate, sample(calls, calls.div_ceil(5).max(2).min(calls), 1.0), before), Verdict::Bad(_)), "{calls}");
        }
        assert!(matches!(verdict(&gate, sample(30, 20, 1.0), before), Verdict::Bad(_)));
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
        let bad = (sample(50, 10, 1.0), sample(50, 0, 1.0));
        let good = (sample(50, 0, 1.0), sample(50, 0, 1.0));
        assert!(matches!(judge(&gate, [bad]), Verdict::Bad(_)));
        assert_eq!(judge(&gate, [bad, good]), Verdict::Good, "10 of 100");
    }
}
