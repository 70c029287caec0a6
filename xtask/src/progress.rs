//! One line at the head of each step, with the time since the start.
//!
//! It goes to standard error, where cargo and nextest write too, so the order is kept in a log.

use std::time::{Duration, Instant};

pub(crate) struct Progress {
    started: Instant,
}

impl Progress {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Heads the step that begins now.
    pub(crate) fn step(&self, name: &str) {
        eprintln!("{}", header(self.started.elapsed(), name));
    }
}

fn header(elapsed: Duration, name: &str) -> String {
    let seconds = elapsed.as_secs();
    format!("== {:02}:{:02} {name}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_shows_minutes_and_seconds_before_the_name() {
        assert_eq!(header(Duration::from_millis(61_900), "clippy"), "== 01:01 clippy");
    }

    #[test]
    fn minutes_go_on_past_an_hour() {
        assert_eq!(header(Duration::from_hours(2), "tests"), "== 120:00 tests");
    }
}
