//! What waits for its turn: bounded in number and bytes. One task takes; what does not fit is given back and counted.

use std::collections::VecDeque;

use edgeward_model::limits::{WAITING_BYTES_MAX, WAITING_MESSAGES_MAX};
use parking_lot::Mutex;
use tokio::sync::Notify;

#[derive(Debug)]
pub(crate) struct Buffer<T> {
    inner: Mutex<Inner<T>>,
    changed: Notify,
}

#[derive(Debug)]
struct Inner<T> {
    waiting: VecDeque<(T, usize)>,
    bytes: usize,
    dropped: u64,
    is_closed: bool,
}

impl<T> Buffer<T> {
    pub(crate) fn new() -> Self {
        Self { inner: Mutex::new(Inner { waiting: VecDeque::new(), bytes: 0, dropped: 0, is_closed: false }), changed: Notify::new() }
    }

    /// Adds an item of this size, or gives it back and counts it as dropped. One item always fits an empty buffer.
    pub(crate) fn push(&self, item: T, bytes: usize) -> Result<(), T> {
        let mut inner = self.inner.lock();
        let is_full = inner.waiting.len() >= WAITING_MESSAGES_MAX || (!inner.waiting.is_empty() && inner.bytes + bytes > WAITING_BYTES_MAX);
        if is_full || inner.is_closed {
            inner.dropped += 1;
            return Err(item);
        }
        inner.bytes += bytes;
        inner.waiting.push_back((item, bytes));
        drop(inner);
        self.changed.notify_one();
        Ok(())
    }

    /// The next item; none once it is closed and empty. Dropping the future loses nothing.
    pub(crate) async fn next(&self) -> Option<T> {
        loop {
            {
                let mut inner = self.inner.lock();
                if let Some((item, bytes)) = inner.waiting.pop_front() {
                    inner.bytes -= bytes;
                    return Some(item);
                }
                if inner.is_closed {
                    return None;
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
