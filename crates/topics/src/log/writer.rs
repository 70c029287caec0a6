//! The one thread that writes to the log: it commits for everybody who waits at once, then shows what is new, and then acknowledges.
//!
//! After a commit that failed nothing of it is acknowledged, and the database is opened anew: what the connection has in memory is not
//! known to be what is on disk.

use std::{
    collections::VecDeque,
    io,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use edgeward_durable::failed;
use edgeward_model::EdgeError;
use jiff::Timestamp;
use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    LogOptions, Shared, clock,
    store::{connect, run},
    transaction::{Counts, Transaction},
};
use crate::error::writing;

/// Writes that are committed together.
const BATCH_MAX: usize = 2048;
/// Longest time for which a write waits for others to come with it.
const GATHER_MAX: Duration = Duration::from_millis(1);
/// How often the age of messages is looked at.
const LOOK_AT_AGE_EVERY: Duration = Duration::from_secs(10);

/// A write on its way.
pub(super) trait Job: Send {
    /// Does the write. An error leaves no trace, unless it is one of the database, which the transaction knows.
    fn run(&mut self, transaction: &mut Transaction<'_>);
    /// Answers whoever waits: with the result, or why the transaction failed.
    fn settle(self: Box<Self>, committed: Result<(), &EdgeError>);
}

/// A write that answers.
pub(super) struct Write<T, F> {
    work: Option<F>,
    result: Option<Result<T, EdgeError>>,
    reply: oneshot::Sender<Result<T, EdgeError>>,
    /// Its place among those that wait.
    _room: [OwnedSemaphorePermit; 2],
}

impl<T, F> Write<T, F> {
    pub(super) fn new(work: F, reply: oneshot::Sender<Result<T, EdgeError>>, room: [OwnedSemaphorePermit; 2]) -> Self {
        Self { work: Some(work), result: None, reply, _room: room }
    }
}

impl<T: Send, F: FnOnce(&mut Transaction<'_>) -> Result<T, EdgeError> + Send> Job for Write<T, F> {
    fn run(&mut self, transaction: &mut Transaction<'_>) {
        let work = self.work.take().expect("a write runs once");
        self.result = Some(work(transaction));
    }

    fn settle(self: Box<Self>, committed: Result<(), &EdgeError>) {
        let result = match committed {
            Ok(()) => self.result.expect("a write that was committed has run"),
            Err(error) => Err(EdgeError::new(error.kind(), error.chain())),
        };
        // Nobody may wait for it any more.
        let _ = self.reply.send(result);
    }
}

/// The writes that wait for a commit. Who adds one has room for it.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    work: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Box<dyn Job>>,
    /// The writer is woken when there are so many.
    wanted: usize,
    is_closed: bool,
}

impl Queue {
    /// Adds a write, unless the log is closed.
    pub(super) fn push(&self, job: Box<dyn Job>) -> bool {
        let mut waiting = self.waiting.lock();
        if !waiting.is_closed {
            waiting.jobs.push_back(job);
            if waiting.jobs.len() >= waiting.wanted {
                self.work.notify_one();
            }
        }
        !waiting.is_closed
    }

    /// Lets nothing more in. What is there is still written.
    pub(super) fn close(&self) {
        self.waiting.lock().is_closed = true;
        self.work.notify_one();
    }

    /// The next writes; none at once when there are none for a while, and None at the end. `before` is how many there were the time before,
    /// and how long their commit took: who waited for it comes again at about the same time, and waiting a part of that for most of them
    /// saves a commit.
    fn take(&self, (before, took): (usize, Duration)) -> Option<Vec<Box<dyn Job>>> {
        let mut waiting = self.waiting.lock();
        if waiting.jobs.is_empty() && !waiting.is_closed {
            waiting.wanted = 1;
            self.work.wait_for(&mut waiting, LOOK_AT_AGE_EVERY);
        }
        let wanted = before - before / 4;
        if (1..wanted).contains(&waiting.jobs.len()) && !waiting.is_closed {
            waiting.wanted = wanted;
            self.work.wait_for(&mut waiting, (took / 4).min(GATHER_MAX));
        }
        if waiting.jobs.is_empty() && waiting.is_closed {
            return None;
        }
        let size = waiting.jobs.len().min(BATCH_MAX);
        Some(waiting.jobs.drain(..size).collect())
    }
}

/// What the thread works with.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) folder: PathBuf,
    pub(super) options: LogOptions,
    /// None after a commit that failed.
    pub(super) open: Option<(Connection, Counts)>,
    pub(super) looked_at_age: Option<Instant>,
    /// The log's own clock as it is on disk.
    pub(super) saved_clock: Duration,
}

impl Writer {
    /// Writes until the log is closed.
    pub(super) fn run(mut self) {
        // Should a write panic, nobody waits for ever.
        let _closes = Closes(Arc::clone(&self.shared));
        let shared = Arc::clone(&self.shared);
        let mut before = (0, Duration::ZERO);
        while let Some(mut batch) = shared.queue.take(before) {
            let begun = Instant::now();
            let result = self.commit(&mut batch);
            before = (batch.len(), begun.elapsed());
            if let Err(error) = &result {
                // Closing the connection takes back what it did.
                self.open = None;
                tracing::error!(error = %error.chain(), writes = batch.len(), "writes to the log of topics failed");
            }
            for job in batch {
                job.settle(result.as_ref().map(|&()| ()));
            }
        }
    }

    fn commit(&mut self, batch: &mut [Box<dyn Job>]) -> Result<(), EdgeError> {
        let clock = self.shared.clock.now();
        let oldest = self.oldest(clock);
        let saves_clock = clock.saturating_sub(self.saved_clock) >= clock::SAVE_EVERY;
        if batch.is_empty() && oldest.is_none() && !saves_clock {
            return Ok(());
        }
        let (connection, counts) = match &mut self.open {
            Some((connection, counts)) => (&*connection, counts),
            none => {
                let connection = connect(&self.folder)?;
                let counts = Counts::load(&connection).map_err(writing)?;
                let (connection, counts) = none.insert((connection, counts));
                (&*connection, counts)
            }
        };
        run(connection, "BEGIN IMMEDIATE").map_err(writing)?;
        if self.shared.refuses_writes.load(Ordering::Relaxed) {
            return Err(failed("write to the log of topics", true).with_source(io::Error::other("an injected fault says so")));
        }
        let mut transaction = Transaction::new(connection, counts, Timestamp::now(), clock);
        for job in batch {
            job.run(&mut transaction);
            if let Some(error) = transaction.broken.take() {
                return Err(error);
            }
        }
        transaction.trim(&self.options, oldest)?;
        if saves_clock {
            transaction.execute("UPDATE log SET clock = ?1", [clock::to_column(clock)])?;
        }
        let appended = transaction.appended;
        #[cfg(test)]
        self.shared.fail_when_told()?;
        run(connection, "COMMIT").map_err(writing)?;
        if saves_clock {
            self.saved_clock = clock;
        }
        self.shared.show(&appended, counts);
        Ok(())
    }

    /// Messages before this moment of the log's own clock are too old, when it is time to look.
    fn oldest(&mut self, clock: Duration) -> Option<Duration> {
        if self.looked_at_age.is_some_and(|at| at.elapsed() < LOOK_AT_AGE_EVERY) {
            return None;
        }
        self.looked_at_age = Some(Instant::now());
        clock.checked_sub(self.options.age_max)
    }
}

struct Closes(Arc<Shared>);

impl Drop for Closes {
    fn drop(&mut self) {
        self.0.queue.close();
        self.0.queue.waiting.lock().jobs.clear();
        self.0.end();
    }
}
