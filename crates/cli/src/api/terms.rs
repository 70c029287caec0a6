//! What a call over HTTP says of itself by its header fields: how much time it has, and whether it may run twice.

use axum::http::HeaderMap;
use edgeward::{EdgeError, ErrorKind, Output, Terms, cluster::deadline};
use tokio::time::timeout;

/// The header field of a call that may run twice with no harm.
pub(crate) const IDEMPOTENT: &str = "edgeward-idempotent";

/// Reads the header fields.
///
/// # Errors
/// [`ErrorKind::InvalidInput`] when one of them is not valid.
pub(super) fn read(headers: &HeaderMap) -> Result<Terms, EdgeError> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or("not text"));
    let left = text(deadline::TIMEOUT_MS).map(deadline::read).transpose()?;
    let is_idempotent = match text(IDEMPOTENT) {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            let shown: String = other.chars().take(32).flat_map(char::escape_debug).collect();
            return Err(EdgeError::invalid(format!("`{shown}` is no value of `{IDEMPOTENT}`; it must be true or false")));
        }
    };
    Ok(Terms { left, is_idempotent })
}

/// Waits for a call of a function on one node for as long as its caller leaves.
pub(super) async fn within(
    terms: Terms,
    function: &str,
    call: impl Future<Output = Result<Output, EdgeError>>,
) -> Result<Output, EdgeError> {
    match terms.left {
        Some(left) => timeout(left, call).await.unwrap_or_else(|_elapsed| {
            let shown = function.escape_debug();
            Err(EdgeError::new(ErrorKind::Timeout, format!("function `{shown}` did not answer within {left:?}; the call may have run")))
        }),
        None => call.await,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn of(pairs: &[(&'static str, &'static str)]) -> Result<Terms, EdgeError> {
        read(&pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect())
    }

    #[test]
    fn the_terms_of_a_call_are_read_and_what_is_none_is_refused() {
        assert_eq!(of(&[]).expect("nothing need be said"), Terms::default());
        let said = of(&[("edgeward-timeout-ms", "1500"), ("edgeward-idempotent", "true")]).expect("valid");
        assert_eq!(said, Terms { left: Some(Duration::from_millis(1500)), is_idempotent: true });
        assert!(!of(&[("edgeward-idempotent", "false")]).expect("valid").is_idempotent);
        for (name, value) in
            [("edgeward-timeout-ms", "-1"), ("edgeward-timeout-ms", "1s"), ("edgeward-idempotent", "yes"), ("edgeward-idempotent", "")]
        {
            let error = of(&[(name, value)]).expect_err(value);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
