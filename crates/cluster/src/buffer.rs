//! What waits for its turn: bounded in number and bytes. What does not fit is given back.

use std::collections::VecDeque;

use edgeward_model::limits::{WAITING_BYTES_MAX, WAITING_MESSAGES_MAX};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Items in the order in which they came.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    items: VecDeque<(T, usize)>,
    bytes: usize,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self { items: VecDeque::new(), bytes: 0 }
    }
}

impl<T> Waiting<T> {
    /// Adds an item of this size, or gives it back when there is no room. One always fits when nothing waits.
    pub(crate) fn push(&mut self, item: T, bytes: usize) -> Result<(), T> {
        if self.items.len() >= WAITING_MESSAGES_MAX || (!self.items.is_empty() && self.bytes + bytes > WAITING_BYTES_MAX) {
            return Err(item);
        }
        self.bytes += bytes;
        self.items.push_back((item, bytes));
        Ok(())
    }

    pub(crate) fn pop(&mut self) -> Option<T> {
        let (item, bytes) = self.items.pop_front()?;
        self.bytes -= bytes;
        Some(item)
    }
}

/// What waits for one task that takes it.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    inner: Mutex<Inner<T>>,
    changed: Notify,
}

#[derive(Debug)]
struct Inner<T> {
    waiting: Waiting<T>,
    dropped: u64,
    is_closed: bool,
}

impl<T> Buffer<T> {
    pub(crate) fn new() -> Self {
        Self { inner: Mutex::new(Inner { waiting: Waiting::default(), dropped: 0, is_closed: false }), changed: Notify::new() }
    }

    /// Adds an item of this size, or gives it back and counts it as dropped.
    pub(crate) fn push(&self, item: T, bytes: usize) -> Result<(), T> {
        let mut inner = self.inner.lock();
        let pushed = if inner.is_closed { Err(item) } else { inner.waiting.push(item, bytes) };
        inner.dropped += u64::from(pushed.is_err());
        drop(inner);
        self.changed.notify_one();
        pushed
    }

    /// The next item; none once it is closed and empty. Dropping the future loses nothing.
    pub(crate) async fn next(&self) -> Option<T> {
        loop {
            {
                let mut inner = self.inner.lock();
                let next = inner.waiting.pop();
                if next.is_some() || inner.is_closed {
                    return next;
                }
            }
            self.changed.notified().await;
        }
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.inner.lock().dropped
    }

    /// Takes nothing more.
    pub(crate) fn close(&self) {
        self.inner.lock().is_closed = true;
        self.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn past_its_bounds_the_new_ones_are_given_back_and_counted() {
        let buffer = Buffer::new();
        for index in 0..WAITING_MESSAGES_MAX {
            buffer.push(index, 1).expect("there is room");
        }
        assert_eq!(buffer.push(7_777, 1), Err(7_777));
        assert_eq!((buffer.next().await, buffer.dropped()), (Some(0), 1));
        buffer.push(8_888, 1).expect("there is room again");

        let buffer = Buffer::new();
        buffer.push("large", WAITING_BYTES_MAX + 1).expect("one always fits");
        assert_eq!(buffer.push("small", 0), Err("small"));
        assert_eq!(buffer.next().await, Some("large"));
        buffer.push("small", WAITING_BYTES_MAX).expect("there is room again");
    }

    #[tokio::test]
    async fn a_closed_buffer_gives_what_it_has_and_ends() {
        let buffer = Buffer::new();
        buffer.push(1, 1).expect("there is room");
        buffer.close();
        assert_eq!(buffer.push(2, 1), Err(2));
        assert_eq!((buffer.next().await, buffer.next().await), (Some(1), None));
    }
}
