//! How many calls of each function are answered at once, of all that may be: a function that is slow leaves room for the others.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use edgeward_model::{EdgeError, ErrorKind, FunctionId};
use parking_lot::Mutex;

/// The places of a service that calls functions.
#[derive(Debug)]
pub(crate) struct Shares {
    places: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Those of functions with any.
    of: HashMap<FunctionId, usize>,
}

/// A place that a call has. It is given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    function: FunctionId,
}

impl Shares {
    pub(crate) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { places, taken: Mutex::default() })
    }

    /// Takes a place for a call, while its function has fewer than are free: one slow function leaves half of all to the others, two leave a third.
    ///
    /// # Errors
    /// [`ErrorKind::Overloaded`] when it has its share; it was not run.
    pub(crate) fn enter(self: &Arc<Self>, function: &FunctionId) -> Result<Share, EdgeError> {
        let mut taken = self.taken.lock();
        let (free, own) = (self.places - taken.all, taken.of.get(function).copied().unwrap_or(0));
        if own >= free {
            let message =
                format!("{own} calls of function `{function}` from other members are under way, which is its share; try again later");
            return Err(EdgeError::new(ErrorKind::Overloaded, message));
        }
        taken.all += 1;
        *taken.of.entry(function.clone()).or_default() += 1;
        Ok(Share { shares: Arc::clone(self), function: function.clone() })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock();
        taken.all -= 1;
        if let Entry::Occupied(mut own) = taken.of.entry(self.function.clone()) {
            *own.get_mut() -= 1;
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(shares: &Arc<Shares>, function: &str) -> Vec<Share> {
        let function = FunctionId::new(function).expect("valid");
        std::iter::from_fn(|| shares.enter(&function).ok()).collect()
    }

    #[test]
    fn functions_that_take_all_they_get_leave_room_for_another() {
        let shares = Shares::new(12);
        let one = enter(&shares, "one");
        assert_eq!((one.len(), enter(&shares, "other").len()), (6, 3));
        let refused = shares.enter(&FunctionId::new("one").expect("valid")).expect_err("it has its share");
        assert_eq!(refused.kind(), ErrorKind::Overloaded);
        drop(one);
        assert_eq!(enter(&shares, "other").len(), 6, "all were given back");
        assert!(shares.taken.lock().of.is_empty());
    }
}
