//! What a failure of a call says: whether the function may have run, and whose fault it is.

use edgeward_model::ErrorKind;

use crate::error::BackboneError;

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The node's: it is away, it has not what it should have, or the function fails there. It counts in the node's breaker.
    Node,
    /// The node's, which answered nothing: the call left it when it was given the retry for that.
    Left,
    /// The node has as much to do as it may. Another may have room.
    Full,
    /// The call's: every node would answer the same. The node did well.
    Call,
    /// The call's, which was never sent: none could be. It says nothing of the node.
    Unsent,
    /// The caller's, who left less time than the function may take. The node is slower than that, and may be well.
    Caller,
    /// This member's, which is cut off or full itself. It says nothing of the node.
    Own,
}

/// A failure of one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallFailure {
    /// The kind that its caller sees.
    pub kind: ErrorKind,
    /// Whether the function may have run, or begun to.
    pub may_have_run: bool,
    /// Whose fault it is.
    pub fault: Fault,
}

impl CallFailure {
    /// Of an error of this kind that a node answered.
    pub fn answered(kind: ErrorKind) -> Self {
        let (may_have_run, fault) = match kind {
            // What it has not, or has not yet, another may have.
            ErrorKind::NotFound | ErrorKind::RefusedArtifact | ErrorKind::Unavailable => (false, Fault::Node),
            ErrorKind::Overloaded => (false, Fault::Full),
            ErrorKind::Timeout | ErrorKind::ExecutionFailed | ErrorKind::Internal => (true, Fault::Node),
            // Its limit of memory is the same everywhere.
            ErrorKind::MemoryLimit => (true, Fault::Call),
            ErrorKind::InvalidInput | ErrorKind::TooLarge | ErrorKind::Conflict | ErrorKind::Forbidden | ErrorKind::Unauthenticated => {
                (false, Fault::Call)
            }
        };
        Self { kind, may_have_run, fault }
    }

    /// Of a call whose node is there no more, so that nobody will hear of it.
    pub fn vanished() -> Self {
        Self { kind: ErrorKind::Unavailable, may_have_run: true, fault: Fault::Node }
    }

    /// Of a call that left its node, as that answered nothing. See [`super::Leave`].
    pub fn left() -> Self {
        Self { fault: Fault::Left, ..Self::vanished() }
    }

    /// Of a call that was not sent, as it cannot be.
    pub fn unsent(kind: ErrorKind) -> Self {
        Self { kind, may_have_run: false, fault: Fault::Unsent }
    }

    /// Of a call that was not sent, as this member has no way to the node.
    pub fn no_way(kind: ErrorKind) -> Self {
        Self { kind, may_have_run: false, fault: Fault::Own }
    }
}

impl From<&BackboneError> for CallFailure {
    fn from(error: &BackboneError) -> Self {
        let (may_have_run, fault) = match error {
            BackboneError::Answered(error) => return Self::answered(error.kind()),
            BackboneError::NoResponder(_) => (false, Fault::Node),
            BackboneError::Timeout(_) => (true, Fault::Node),
            BackboneError::Disconnected(_) | BackboneError::Broker { .. } => (true, Fault::Own),
            BackboneError::Overloaded(_) => (false, Fault::Own),
            BackboneError::TooLarge { .. } | BackboneError::Forbidden(_) | BackboneError::Invalid(_) => (false, Fault::Unsent),
        };
        Self { kind: error.kind(), may_have_run, fault }
    }
}

#[cfg(test)]
mod tests {
    use ErrorKind::{ExecutionFailed, Internal, NotFound, Overloaded, RefusedArtifact, Timeout, Unavailable};

    use edgeward_model::EdgeError;

    use super::*;

    #[test]
    fn what_surely_did_not_run_is_known_by_who_said_it() {
        let no_responder = BackboneError::NoResponder("x".to_owned());
        let cut_off = BackboneError::Disconnected("x".to_owned());
        assert_eq!(no_responder.kind(), cut_off.kind(), "the kind alone does not tell");
        let failure = |error: BackboneError| CallFailure::from(&error);
        assert_eq!(failure(no_responder), CallFailure { kind: ErrorKind::Unavailable, may_have_run: false, fault: Fault::Node });
        assert_eq!(failure(cut_off), CallFailure { kind: ErrorKind::Unavailable, may_have_run: true, fault: Fault::Own });
        assert_eq!(failure(BackboneError::Overloaded(3)).fault, Fault::Own);
        let answered = BackboneError::Answered(EdgeError::new(ErrorKind::Overloaded, "full"));
        assert_eq!(CallFailure::from(&answered), CallFailure::answered(ErrorKind::Overloaded));
        assert_eq!(CallFailure::from(&answered).fault, Fault::Full);
    }

    #[test]
    fn what_was_refused_on_the_way_out_says_nothing_of_the_node_and_the_same_answer_of_a_node_does() {
        let large = BackboneError::TooLarge { subject: "x".to_owned(), bytes: 2, bytes_max: 1 };
        for error in [large, BackboneError::Forbidden("x".to_owned()), BackboneError::Invalid("x".to_owned())] {
            assert_eq!(CallFailure::from(&error), CallFailure::unsent(error.kind()));
            assert_eq!(CallFailure::answered(error.kind()).fault, Fault::Call);
        }
    }

    #[test]
    fn only_what_a_node_can_help_counts_against_it() {
        let of = |fault: Fault| ErrorKind::ALL.into_iter().filter(|kind| CallFailure::answered(*kind).fault == fault).collect::<Vec<_>>();
        assert_eq!(of(Fault::Node), [NotFound, Timeout, ExecutionFailed, RefusedArtifact, Unavailable, Internal]);
        assert_eq!(of(Fault::Full), [Overloaded]);
        assert_eq!(of(Fault::Own), []);
    }
}
