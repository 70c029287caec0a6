//! Bugs that the simulation of rollouts plants, one at a time, to prove that it finds them. Outside its tests there are none.

/// A mistake in the decisions, or in what they are fed with, that the simulation must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "only the simulation plants bugs"))]
pub(crate) enum Bug {
    BakeNotWaitedFor,
    BatchOneTooMany,
    GateOfFirstNode,
    HoldingOrdered,
    SilentTakenForDone,
    OnlyReachableTakenBack,
    NewestAfterRollback,
    WaveNotWaitedFor,
    WarmDroppedAtOnce,
    LateNotJudged,
    LateAllAtOnce,
    SupersededGiven,
    ApprovalSkipped,
    ServedBeforeCounted,
    LeftBeforeReplaced,
    NobodyNeedRunIt,
    RefusalForgotten,
    FormerOfLateForgotten,
    SameRevisionTakenBack,
    NothingInBetween,
    FormerCounted,
    ConfirmedAtOnce,
    FirstTakenAway,
}

#[cfg(test)]
impl Bug {
    pub(crate) const ALL: [Self; 23] = [
        Self::BakeNotWaitedFor,
        Self::BatchOneTooMany,
        Self::GateOfFirstNode,
        Self::HoldingOrdered,
        Self::SilentTakenForDone,
        Self::OnlyReachableTakenBack,
        Self::NewestAfterRollback,
        Self::WaveNotWaitedFor,
        Self::WarmDroppedAtOnce,
        Self::LateNotJudged,
        Self::LateAllAtOnce,
        Self::SupersededGiven,
        Self::ApprovalSkipped,
        Self::ServedBeforeCounted,
        Self::LeftBeforeReplaced,
        Self::NobodyNeedRunIt,
        Self::RefusalForgotten,
        Self::FormerOfLateForgotten,
        Self::SameRevisionTakenBack,
        Self::NothingInBetween,
        Self::FormerCounted,
        Self::ConfirmedAtOnce,
        Self::FirstTakenAway,
    ];
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is planted in this thread.
#[cfg(test)]
pub(crate) fn has(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is planted: never, outside the simulation.
#[cfg(not(test))]
pub(crate) const fn has(_bug: Bug) -> bool {
    false
}

/// Plants a bug in this thread, or removes it.
#[cfg(test)]
pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
