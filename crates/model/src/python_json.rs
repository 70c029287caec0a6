//! JSON text as CPython reads and writes it: `json.loads`, and `json.dumps(…, sort_keys=True)` byte for byte.
//!
//! The checksum of a state is taken over this text, so it must not differ in one byte. The reader takes what Python
//! takes, with `NaN`, `Infinity` and `-Infinity`: what is written must be readable, and Python peers write them. It
//! refuses two things that Python takes: a lone surrogate, which a Rust string cannot hold, and nesting deeper than
//! [`VALUE_DEPTH_MAX`]. Memory is linear in the text, but up to a hundred bytes for each of its bytes (many small
//! objects): who reads what others sent bounds its length first.

use std::fmt;

use crate::{
    error::EdgeError,
    limits::VALUE_DEPTH_MAX,
    value::{Object, Value},
};

mod exchange;
mod reader;
mod writer;

pub use self::writer::Writer;

/// Reads one value, as Python's `json.loads(text)`.
///
/// Integers are exact, of up to [`INTEGER_DIGITS_MAX`](crate::limits::INTEGER_DIGITS_MAX) digits as in Python; any
/// number with a fraction or an exponent is a float, and `1E400` is infinite. Of two equal keys the last one wins.
/// The error is [`InvalidInput`](crate::error::ErrorKind::InvalidInput) and names the byte at which reading ended.
pub fn read(text: &str) -> Result<Value, EdgeError> {
    reader::Reader::new(text).document()
}

/// Writes a value, as Python's `json.dumps(value, sort_keys=True)`: ASCII, keys by code point, `", "` and `": "`.
///
/// Fails when the value nests deeper than [`VALUE_DEPTH_MAX`].
pub fn write(value: &Value) -> Result<String, EdgeError> {
    check_depth(value, VALUE_DEPTH_MAX)?;
    let mut text = String::new();
    let mut writer = Writer::new(&mut text);
    writer.value(value)?;
    writer.finish()?;
    Ok(text)
}

/// Writes an object to `out` as [`write()`] does, so that its text need not be in memory.
///
/// Fails when the object nests deeper than [`VALUE_DEPTH_MAX`], before anything is written, or when `out` does.
pub fn write_object(out: &mut impl fmt::Write, object: &Object) -> Result<(), EdgeError> {
    check_object_depth(object, VALUE_DEPTH_MAX)?;
    let mut writer = Writer::new(out);
    writer.members(object)?;
    writer.finish()
}

/// `levels` is how many arrays and objects may still be opened; the walk is no deeper than that.
fn check_depth(value: &Value, levels: usize) -> Result<(), EdgeError> {
    match value {
        Value::Array(items) => {
            let levels = one_level_less(levels)?;
            items.iter().try_for_each(|item| check_depth(item, levels))
        }
        Value::Object(object) => check_object_depth(object, levels),
        Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::String(_) => Ok(()),
    }
}

fn check_object_depth(object: &Object, levels: usize) -> Result<(), EdgeError> {
    let levels = one_level_less(levels)?;
    object.0.values().try_for_each(|value| check_depth(value, levels))
}

fn one_level_less(levels: usize) -> Result<usize, EdgeError> {
    levels
        .checked_sub(1)
        .ok_or_else(|| EdgeError::invalid(format!("the value is not valid: its arrays and objects nest deeper than {VALUE_DEPTH_MAX}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> Value {
        (0..depth).fold(Value::Null, |inner, _| Value::from(vec![inner]))
    }

    #[test]
    fn a_value_that_nests_too_deep_is_not_written() {
        assert!(write(&nested(VALUE_DEPTH_MAX)).is_ok());
        assert!(write(&nested(VALUE_DEPTH_MAX + 1)).expect_err("deep").to_string().contains("deeper than 64"));
        assert!(write(&nested(5000)).is_err());
        let mut text = String::new();
        write_object(&mut text, &Object::from_iter([("a", nested(VALUE_DEPTH_MAX - 1))])).expect("64 levels");
        let written = text.len();
        assert!(write_object(&mut text, &Object::from_iter([("a", nested(VALUE_DEPTH_MAX))])).is_err());
        assert_eq!(text.len(), written);
    }

    #[test]
    fn a_text_that_nests_too_deep_is_not_read() {
        let text = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read(&text(VALUE_DEPTH_MAX)).is_ok());
        assert!(read(&text(VALUE_DEPTH_MAX + 1)).expect_err("deep").to_string().contains("deeper than 64"));
        assert!(read(&"[".repeat(1_000_000)).is_err());
        assert!(read(&r#"{"a":"#.repeat(1_000_000)).is_err());
    }
}
