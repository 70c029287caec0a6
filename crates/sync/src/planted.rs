//! Bugs that the simulation plants, one at a time, to prove that it finds them. Outside its tests there are none.

/// A mistake in the protocol that the simulation must notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(test), expect(dead_code, reason = "only the simulation plants bugs"))]
pub(crate) enum Bug {
    SendBeforeDurable,
    CursorAdvancedAtSend,
    AcknowledgedBeforeCommit,
    EarlyTombstoneCollection,
    NoFloor,
    WallClock,
    WrongEchoFilter,
    LostConflict,
    FalseConflictAfterCoalescedWrites,
    UnorderedTieBreak,
    ConfirmByVersionAlone,
    RestoreNotNoticed,
    CloneNotFenced,
    QuarantineNeverHeals,
    CounterJoinedByMaximum,
    RemovalOfConcurrentAdditions,
    PolicyNotReplicated,
    DigestSkipsBucket,
    PartialFrameApplied,
    ArbitrationByTwoHubs,
    BaseOfUncovered,
    GrowthNotFetched,
    EpochTakenForWhole,
    DemotedKeepsToItself,
    WritersAheadOfRows,
    RuleNotAsked,
    PartTakenForWhole,
}

#[cfg(test)]
impl Bug {
    pub(crate) const ALL: [Self; 27] = [
        Self::SendBeforeDurable,
        Self::CursorAdvancedAtSend,
        Self::AcknowledgedBeforeCommit,
        Self::EarlyTombstoneCollection,
        Self::NoFloor,
        Self::WallClock,
        Self::WrongEchoFilter,
        Self::LostConflict,
        Self::FalseConflictAfterCoalescedWrites,
        Self::UnorderedTieBreak,
        Self::ConfirmByVersionAlone,
        Self::RestoreNotNoticed,
        Self::CloneNotFenced,
        Self::QuarantineNeverHeals,
        Self::CounterJoinedByMaximum,
        Self::RemovalOfConcurrentAdditions,
        Self::PolicyNotReplicated,
        Self::DigestSkipsBucket,
        Self::PartialFrameApplied,
        Self::ArbitrationByTwoHubs,
        Self::BaseOfUncovered,
        Self::GrowthNotFetched,
        Self::EpochTakenForWhole,
        Self::DemotedKeepsToItself,
        Self::WritersAheadOfRows,
        Self::RuleNotAsked,
        Self::PartTakenForWhole,
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
