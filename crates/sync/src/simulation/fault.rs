//! The kinds of faults that a run may have.

/// What goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Fault {
    Loss,
    Duplication,
    Reordering,
    Partition,
    Restart,
    FailedCommit,
    ReplicaRestored,
    LiveClone,
    ClockJump,
    LongAway,
    HubRestart,
    HubRestored,
    TwoHubs,
    Takeover,
    PolicyChange,
}

impl Fault {
    pub(super) const ALL: [Self; 15] = [
        Self::Loss,
        Self::Duplication,
        Self::Reordering,
        Self::Partition,
        Self::Restart,
        Self::FailedCommit,
        Self::ReplicaRestored,
        Self::LiveClone,
        Self::ClockJump,
        Self::LongAway,
        Self::HubRestart,
        Self::HubRestored,
        Self::TwoHubs,
        Self::Takeover,
        Self::PolicyChange,
    ];
}
