//! Values of a query string. Malformed escapes stay as they are: a test sends what it means.

/// The percent-decoded value of `name`, if the query has it.
pub(crate) fn value(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        (key == name).then(|| percent_decode(value))
    })
}

/// The value of `name` as a number, or `default` if it is missing or no number.
pub(crate) fn number(query: &str, name: &str, default: u64) -> u64 {
    value(query, name).and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn percent_decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escape = (byte == b'%').then(|| hex_byte(after)).flatten();
        decoded.push(escape.unwrap_or(byte));
        rest = if escape.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

fn hex_byte(digits: &[u8]) -> Option<u8> {
    let high = char::from(*digits.first()?).to_digit(16)?;
    let low = char::from(*digits.get(1)?).to_digit(16)?;
    u8::try_from(high * 16 + low).ok()
}
