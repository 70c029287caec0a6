//! Bugs that the simulations plant, one at a time, to prove that they find them. Outside their tests there are none.

/// A mistake in the decisions, or in what they are fed with, that a simulation must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "only simulations plant bugs"))]
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
    UnknownGrantTakenForNone,
    LastInvocationNotWaitedFor,
    OnlyFirstGrantNoted,
    OtherReignTrusted,
    LateReleaseBelieved,
    BreakerNeverOpens,
    ProbesNotCounted,
    ProbesNotBounded,
    OpenTimeNotDoubled,
    QuickFailureIsFast,
    LoadIgnored,
    TriedAskedAgain,
    TurnNotPassed,
    WeightIgnored,
    BulkheadIgnored,
    PlaceNotGivenBack,
    BudgetNotSpent,
    RunTwice,
    DeadlineForgotten,
    SilentNotLeft,
    RunsOverlap,
    LivedTwice,
    InterruptionForgotten,
    OverrunWaits,
    ChangeUnnoticed,
    LateNotSkipped,
    NothingMadeUpFor,
    OneRunTooMany,
    MissedUntold,
    JumpLivedThrough,
    JitterIgnored,
    TriedForEver,
    AllKept,
}

#[cfg(test)]
impl Bug {
    /// Those of rollouts.
    pub(crate) const OF_ROLLOUTS: [Self; 23] = [
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
    /// Those of grants.
    pub(crate) const OF_GRANTS: [Self; 5] = [
        Self::UnknownGrantTakenForNone,
        Self::LastInvocationNotWaitedFor,
        Self::OnlyFirstGrantNoted,
        Self::OtherReignTrusted,
        Self::LateReleaseBelieved,
    ];
    /// Those of routing.
    pub(crate) const OF_ROUTING: [Self; 15] = [
        Self::BreakerNeverOpens,
        Self::ProbesNotCounted,
        Self::ProbesNotBounded,
        Self::OpenTimeNotDoubled,
        Self::QuickFailureIsFast,
        Self::LoadIgnored,
        Self::TriedAskedAgain,
        Self::TurnNotPassed,
        Self::WeightIgnored,
        Self::BulkheadIgnored,
        Self::PlaceNotGivenBack,
        Self::BudgetNotSpent,
        Self::RunTwice,
        Self::DeadlineForgotten,
        Self::SilentNotLeft,
    ];
    /// Those of schedules.
    pub(crate) const OF_SCHEDULES: [Self; 13] = [
        Self::RunsOverlap,
        Self::LivedTwice,
        Self::InterruptionForgotten,
        Self::OverrunWaits,
        Self::ChangeUnnoticed,
        Self::LateNotSkipped,
        Self::NothingMadeUpFor,
        Self::OneRunTooMany,
        Self::MissedUntold,
        Self::JumpLivedThrough,
        Self::JitterIgnored,
        Self::TriedForEver,
        Self::AllKept,
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
