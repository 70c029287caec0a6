//! The kinds of faults that a run may have, and how revisions do.

/// What goes wrong in a run, or is done by people at a bad time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Fault {
    Loss,
    Reordering,
    Offline,
    LongAway,
    Restart,
    Hold,
    HubCrash,
    OrdersHalfGiven,
    Takeover,
    ClockJump,
    Pause,
    Abort,
    Superseded,
    Moved,
    CannotStart,
    CannotStartOnFew,
    Errs,
    ErrsOnFew,
    ErrsLater,
    Slow,
    CrashLoops,
}

impl Fault {
    pub(super) const ALL: [Self; 21] = [
        Self::Loss,
        Self::Reordering,
        Self::Offline,
        Self::LongAway,
        Self::Restart,
        Self::Hold,
        Self::HubCrash,
        Self::OrdersHalfGiven,
        Self::Takeover,
        Self::ClockJump,
        Self::Pause,
        Self::Abort,
        Self::Superseded,
        Self::Moved,
        Self::CannotStart,
        Self::CannotStartOnFew,
        Self::Errs,
        Self::ErrsOnFew,
        Self::ErrsLater,
        Self::Slow,
        Self::CrashLoops,
    ];
}

/// How a revision does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Well: one of forty invocations fails.
    Good,
    /// Starts on no node.
    CannotStart,
    /// Starts not on nodes of this remainder by four.
    CannotStartOn(usize),
    /// Most invocations fail.
    Errs,
    /// Most fail on nodes of this remainder by four.
    ErrsOn(usize),
    /// Most fail from so many seconds after its start on.
    ErrsAfter(u64),
    /// Takes ten times as long.
    Slow,
    /// Ends its process after a second.
    CrashLoops,
}

/// How all revisions do, of which the first is 1.
#[derive(Default)]
pub(super) struct Kinds(Vec<Kind>);

impl Kinds {
    /// Adds a revision.
    pub(super) fn add(&mut self, kind: Kind) -> u64 {
        self.0.push(kind);
        self.newest()
    }

    pub(super) fn newest(&self) -> u64 {
        self.0.len() as u64
    }

    pub(super) fn of(&self, revision: u64) -> Kind {
        self.0[usize::try_from(revision).expect("few") - 1]
    }
}

impl Kind {
    pub(super) fn starts_on(self, node: usize) -> bool {
        match self {
            Self::CannotStart => false,
            Self::CannotStartOn(few) => node % 4 != few,
            _ => true,
        }
    }

    pub(super) fn errs_on(self, node: usize, served_seconds: u64) -> bool {
        match self {
            Self::Errs => true,
            Self::ErrsOn(few) => node % 4 == few,
            Self::ErrsAfter(seconds) => served_seconds >= seconds,
            _ => false,
        }
    }

    /// The fault that it is.
    pub(super) fn fault(self) -> Option<Fault> {
        match self {
            Self::Good => None,
            Self::CannotStart => Some(Fault::CannotStart),
            Self::CannotStartOn(_) => Some(Fault::CannotStartOnFew),
            Self::Errs => Some(Fault::Errs),
            Self::ErrsOn(_) => Some(Fault::ErrsOnFew),
            Self::ErrsAfter(_) => Some(Fault::ErrsLater),
            Self::Slow => Some(Fault::Slow),
            Self::CrashLoops => Some(Fault::CrashLoops),
        }
    }
}
