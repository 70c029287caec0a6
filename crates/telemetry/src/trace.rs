//! Where in a trace something happens: W3C's Trace Context, as it goes from one process to the next in `traceparent`.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The header fields of a trace.
pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What tracing systems add to it.
pub static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// A `traceparent` of version 00, in bytes.
const TEXT_BYTES: usize = 55;
const SAMPLED: u8 = 1;

/// A trace, and a span in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Never 0.
    pub trace_id: u128,
    /// Never 0.
    pub span_id: u64,
    /// Whether whoever began the trace keeps it.
    pub is_sampled: bool,
}

impl TraceContext {
    /// The context of a `traceparent`; none when it is not a valid one. Of a later version what is known of it counts.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (version, rest) = (bytes.get(..2)?, bytes.get(TEXT_BYTES..)?);
        let dashes = [2, 35, 52].iter().all(|at| bytes[*at] == b'-');
        let is_form = if version == b"00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with(b"-") };
        if !dashes || !is_form || version == b"ff" {
            return None;
        }
        let (trace_id, span_id) = (hex(&bytes[3..35])?, u64::try_from(hex(&bytes[36..52])?).ok()?);
        let (_, flags) = (hex(version)?, u8::try_from(hex(&bytes[53..55])?).ok()?);
        (trace_id != 0 && span_id != 0).then_some(Self { trace_id, span_id, is_sampled: flags & SAMPLED != 0 })
    }

    /// That of a header field, where there is one that is valid.
    pub fn of_value(value: Option<&HeaderValue>) -> Option<Self> {
        Self::parse(value?.to_str().ok()?)
    }

    /// That of a request.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        Self::of_value(headers.get(&TRACEPARENT))
    }

    /// The header field of it.
    pub fn to_value(self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).expect("it is of digits and dashes")
    }
}

impl std::fmt::Display for TraceContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.is_sampled))
    }
}

/// A number of hexadecimal digits, of which W3C takes only the small ones.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_reads_and_writes_back() {
        let context = TraceContext::parse(TEXT).expect("valid");
        assert_eq!((context.to_string().as_str(), context.is_sampled), (TEXT, true));
        assert!(!TraceContext::parse(&TEXT.replace("-01", "-02")).expect("valid").is_sampled);
        assert_eq!(TraceContext::parse(&format!("cc{}-more", &TEXT[2..])), Some(context), "a later version has more");
    }

    #[test]
    fn what_is_no_traceparent_is_not_taken_for_one() {
        for bad in [
            "",
            "00",
            &TEXT[..54],
            &format!("{TEXT}-more"),
            &format!("cc{}more", &TEXT[2..]),
            &format!("ff{}", &TEXT[2..]),
            &TEXT.to_uppercase(),
            &TEXT.replace("4bf92f3577b34da6a3ce929d0e0e4736", "00000000000000000000000000000000"),
            &TEXT.replace("00f067aa0ba902b7", "0000000000000000"),
            &TEXT.replace('-', "_"),
            &format!("00-4bf92f3577b34da6a3ce929d0e0e473ö{}", &TEXT[36..]),
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }
}
