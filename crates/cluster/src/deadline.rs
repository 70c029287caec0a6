//! How much time a call has left, as it travels with it: a header field with whole milliseconds. A moment would need clocks that agree.

use std::time::Duration;

use edgeward_model::{EdgeError, limits::REQUEST_TIMEOUT_MAX};

/// The header field, over NATS and over HTTP.
pub const TIMEOUT_MS: &str = "edgeward-timeout-ms";
/// More digits say no more.
const DIGITS_MAX: usize = 12;

/// The value of the field. What is left of a millisecond is left out, so that nobody waits past the deadline of its caller.
pub fn write(left: Duration) -> String {
    left.as_millis().to_string()
}

/// Reads the value of the field; no more than [`REQUEST_TIMEOUT_MAX`]. Zero is a deadline that has passed.
///
/// # Errors
/// [`edgeward_model::ErrorKind::InvalidInput`] when it is no number of milliseconds.
pub fn read(text: &str) -> Result<Duration, EdgeError> {
    let is_number = (1..=DIGITS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let millis = if is_number { text.parse().ok() } else { None };
    millis.map(|millis| Duration::from_millis(millis).min(REQUEST_TIMEOUT_MAX)).ok_or_else(|| {
        let shown: String = text.chars().take(32).collect();
        EdgeError::invalid(format!("`{}` is no value of `{TIMEOUT_MS}`; it must be whole milliseconds, such as 1500", shown.escape_debug()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_without_the_part_of_a_millisecond() {
        for (left, text) in [(0, "0"), (999, "0"), (1_000, "1"), (1_999_999, "1999"), (30_000_000, "30000")] {
            let left = Duration::from_micros(left);
            assert_eq!(write(left), text);
            assert!(read(text).expect("its own") <= left);
        }
        assert_eq!(read("999999999999").expect("a number"), REQUEST_TIMEOUT_MAX);
    }

    #[test]
    fn what_is_no_number_of_milliseconds_is_refused() {
        for bad in ["", " 1", "-1", "+1", "1.5", "1s", "1e3", "٣", "9999999999999", "0x10"] {
            assert!(read(bad).expect_err(bad).to_string().contains("edgeward-timeout-ms"), "{bad:?}");
        }
    }
}
