//! A lease: the right that one member has at a time, for as long as it renews it. What is done under it carries its term, so that
//! who lost it without knowing is told apart.

use std::time::Duration;

use edgeward_model::{
    NodeId,
    limits::{LEASE_TTL_MAX, LEASE_TTL_MIN},
};
use futures::future::BoxFuture;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use crate::{error::BackboneError, subject::Name};

/// Renewals in one time to live: two may be lost.
const RENEWALS_PER_TTL: u32 = 3;
/// Attempts to renew in the time of one renewal, while they fail.
const ATTEMPTS_PER_RENEWAL: u32 = 5;

/// A wish for a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Which lease.
    pub name: Name,
    /// Who wants it. A holder that claims its own lease again, as after a crash, takes it over from itself at once, with a new term.
    pub holder: NodeId,
    /// How long it is held without a renewal: [`LEASE_TTL_MIN`] to [`LEASE_TTL_MAX`].
    pub ttl: Duration,
    /// The greatest term that the claimer has ever seen; 0 for none. The new term is greater, even when the broker has lost its data.
    pub seen_term: u64,
}

impl Claim {
    pub(crate) fn check(&self) -> Result<(), BackboneError> {
        if (LEASE_TTL_MIN..=LEASE_TTL_MAX).contains(&self.ttl) {
            return Ok(());
        }
        Err(BackboneError::Invalid(format!("a lease lives for {LEASE_TTL_MIN:?} to {LEASE_TTL_MAX:?}, not {:?}", self.ttl)))
    }
}

/// What came of a claim.
#[derive(Debug)]
pub enum Claimed {
    /// The claimer has the lease.
    Held(Lease),
    /// Somebody else has it.
    Taken {
        /// Who.
        holder: NodeId,
        /// In which term.
        term: u64,
    },
}

/// A lease that is held. It renews itself; dropped, it is no longer renewed and lapses.
///
/// The holder counts its time from before it asked for the renewal, and the broker from when it was asked: as long as clocks run equally
/// fast, the holder stops before another can begin. A holder that was paused for longer may act late; its term tells.
#[derive(Debug)]
pub struct Lease {
    term: u64,
    /// Until when it is held; none once it is lost.
    until: watch::Receiver<Option<Instant>>,
    release: oneshot::Sender<()>,
    renewing: AbortOnDropHandle<()>,
}

/// What an implementation does for a lease that is held.
pub(crate) trait Keeper: Send + 'static {
    /// Makes it live for its whole time from now on; false when somebody else has it.
    fn renew(&mut self) -> BoxFuture<'_, Result<bool, BackboneError>>;

    /// Gives it back, when it is still held.
    fn release(&mut self) -> BoxFuture<'_, ()>;
}

impl Lease {
    /// The lease that was asked for at this moment and got.
    pub(crate) fn start(term: u64, asked_at: Instant, ttl: Duration, keeper: impl Keeper) -> Self {
        let (state, until) = watch::channel(Some(asked_at + ttl));
        let (release, released) = oneshot::channel();
        let renewing = tokio::spawn(renew(keeper, ttl, state, released));
        Self { term, until, release, renewing: AbortOnDropHandle::new(renewing) }
    }

    /// Its term, greater than that of every holder before.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Whether it is held now. False once means false for ever.
    pub fn is_held(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Returns when it is lost: by then at the latest the holder must stop acting.
    pub async fn lost(&self) {
        let mut until = self.until.clone();
        loop {
            let Some(end) = *until.borrow_and_update() else { return };
            tokio::select! {
                () = sleep_until(end) => if until.borrow().is_none_or(|until| until <= end) { return },
                changed = until.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Gives it back, so that another can take it at once.
    pub async fn release(self) {
        // It may have ended by itself, as the lease was lost.
        let _ = self.release.send(());
        let _ = self.renewing.await;
    }
}

async fn renew(mut keeper: impl Keeper, ttl: Duration, state: watch::Sender<Option<Instant>>, mut released: oneshot::Receiver<()>) {
    let pause = ttl / RENEWALS_PER_TTL;
    let mut until = state.borrow().expect("it begins as held");
    let mut next = Instant::now() + pause;
    loop {
        tokio::select! {
            given_back = &mut released => {
                state.send_replace(None);
                if given_back.is_ok() {
                    keeper.release().await;
                }
                return;
            }
            () = sleep_until(next.min(until)) => {}
        }
        let asked_at = Instant::now();
        let renewed = if asked_at < until { timeout_at(until, keeper.renew()).await.ok() } else { None };
        match renewed {
            // An answer that came too late: another may have begun.
            Some(Ok(true)) if Instant::now() < until => {
                until = asked_at + ttl;
                state.send_replace(Some(until));
                next = asked_at + pause;
            }
            Some(Err(_)) if Instant::now() < until => next = asked_at + pause / ATTEMPTS_PER_RENEWAL,
            _ => {
                state.send_replace(None);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

    use futures::FutureExt;
    use tokio::time::{advance, sleep};

    use super::*;

    const TTL: Duration = Duration::from_secs(3);

    /// Answers as `answers` says, one each: yes, no, a failure, or silence.
    struct Scripted {
        answers: &'static str,
        asked: Arc<AtomicU32>,
    }

    impl Keeper for Scripted {
        fn renew(&mut self) -> BoxFuture<'_, Result<bool, BackboneError>> {
            let index = self.asked.fetch_add(1, Ordering::Relaxed) as usize;
            match self.answers.as_bytes().get(index) {
                Some(b'y') => async { Ok(true) }.boxed(),
                Some(b'n') => async { Ok(false) }.boxed(),
                Some(b'f') => async { Err(BackboneError::Disconnected("a test".to_owned())) }.boxed(),
                _ => std::future::pending().boxed(),
            }
        }

        fn release(&mut self) -> BoxFuture<'_, ()> {
            async {}.boxed()
        }
    }

    fn lease(answers: &'static str) -> (Lease, Arc<AtomicU32>) {
        let asked = Arc::new(AtomicU32::new(0));
        (Lease::start(1, Instant::now(), TTL, Scripted { answers, asked: Arc::clone(&asked) }), asked)
    }

    #[tokio::test(start_paused = true)]
    async fn renewals_that_fail_are_repeated_and_cost_nothing_while_there_is_time() {
        let start = Instant::now();
        let (lease, asked) = lease("yffy");
        lease.lost().await;
        // Renewed at 1 s, failed at 2 and 2.2, renewed at 2.4, and silence from 3.4 s on.
        assert_eq!((start.elapsed(), asked.load(Ordering::Relaxed)), (Duration::from_millis(5_400), 5));
        assert!(!lease.is_held());
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_whom_the_broker_denies_it_knows_at_once() {
        let start = Instant::now();
        let (lease, _) = lease("yn");
        lease.lost().await;
        assert_eq!(start.elapsed(), Duration::from_secs(2));
        assert!(!lease.is_held());
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_that_was_paused_past_its_time_does_not_hold_it_when_it_wakes() {
        let (lease, asked) = lease("yyyyyyyyyy");
        sleep(Duration::from_millis(1_500)).await;
        assert!(lease.is_held());
        advance(Duration::from_secs(10)).await;
        assert!(!lease.is_held());
        lease.lost().await;
        assert_eq!(asked.load(Ordering::Relaxed), 1, "there is nothing to renew");
    }
}
