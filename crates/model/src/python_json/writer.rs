//! Writes values as CPython's `json.dumps(…, sort_keys=True)` with its other defaults does.
//!
//! The shortest digits of a float come from `zmij`: Rust's own `{:e}` now and then rounds a tie between two shortest forms the
//! other way, where Python rounds to even.

use std::{
    fmt::{self, Write as _},
    ops::Range,
};

use crate::{
    error::{EdgeError, ErrorKind},
    integer::Integer,
    limits::VALUE_DEPTH_MAX,
    python_json::one_level_less,
    value::{Object, Value},
};

/// Decimal exponents of the floats that are written without an exponent.
const FIXED_EXPONENTS: Range<i32> = -4..16;
/// The same as the numbers themselves.
const FIXED: Range<f64> = 1e-4..1e16;
/// Text that is gathered before it is handed on: what takes it may be slow with little pieces.
const PIECE_BYTES: usize = 16 * 1024;

/// Writes values that need not be [`Value`]s, as Python's `json.dumps(…, sort_keys=True)`: the rules of the format are here and nowhere
/// else. It counts how deep they nest; the rest of the grammar is its caller's: one value, and the names of an object sorted by their
/// code points, each once.
///
/// ```
/// use edgeward_model::{EdgeError, python_json::Writer};
///
/// let mut text = String::new();
/// let mut writer = Writer::new(&mut text);
/// writer.object([("b", 1.0), ("é", 1e16)], |writer, number| {
///     writer.float(number);
///     Ok::<_, EdgeError>(())
/// })?;
/// writer.finish()?;
/// assert_eq!(text, r#"{"b": 1.0, "\u00e9": 1e+16}"#);
/// # Ok::<(), EdgeError>(())
/// ```
pub struct Writer<'a> {
    piece: String,
    out: &'a mut dyn fmt::Write,
    /// Arrays and objects that may still be opened.
    levels: usize,
}

impl fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("levels", &self.levels).finish_non_exhaustive()
    }
}

impl<'a> Writer<'a> {
    /// Writes to `out`, in pieces of some thousand bytes. What is left goes there by [`Writer::finish`].
    pub fn new(out: &'a mut dyn fmt::Write) -> Self {
        Self { piece: String::new(), out, levels: VALUE_DEPTH_MAX }
    }

    /// Hands on the last piece.
    pub fn finish(mut self) -> Result<(), EdgeError> {
        self.hand_on()
    }

    fn hand_on(&mut self) -> Result<(), EdgeError> {
        let written = self.out.write_str(&self.piece);
        self.piece.clear();
        written.map_err(|error| EdgeError::new(ErrorKind::Internal, "a value as JSON failed to be written").with_source(error))
    }

    fn bounded(&mut self) -> Result<(), EdgeError> {
        if self.piece.len() >= PIECE_BYTES { self.hand_on() } else { Ok(()) }
    }

    fn formatted(&mut self, text: fmt::Arguments<'_>) {
        self.piece.write_fmt(text).expect("writing to a String cannot fail");
    }

    /// Writes `null`, Python's `None`.
    pub fn null(&mut self) {
        self.piece.push_str("null");
    }

    /// Writes `true` or `false`.
    pub fn bool(&mut self, value: bool) {
        self.piece.push_str(if value { "true" } else { "false" });
    }

    /// Writes a number without fraction and exponent.
    pub fn integer(&mut self, number: &Integer) {
        self.formatted(format_args!("{number}"));
    }

    /// Writes one that fits.
    pub fn small_integer(&mut self, number: i64) {
        self.formatted(format_args!("{number}"));
    }

    /// Writes any other number, as Python's `repr`: the shortest digits that read back, and of those the closest.
    pub fn float(&mut self, number: f64) {
        if number.is_nan() {
            return self.piece.push_str("NaN");
        }
        if number.is_sign_negative() {
            self.piece.push('-');
        }
        let number = number.abs();
        if number.is_infinite() {
            return self.piece.push_str("Infinity");
        }
        let mut buffer = zmij::Buffer::new();
        let text = buffer.format_finite(number);
        if FIXED.contains(&number) && text.contains('.') && !text.contains('e') {
            return self.piece.push_str(text);
        }
        let (digits, exponent) = digits_and_exponent(text);
        if FIXED_EXPONENTS.contains(&exponent) {
            self.fixed(&digits, exponent);
        } else {
            let (first, rest) = digits.split_at(1);
            let point = if rest.is_empty() { "" } else { "." };
            let sign = if exponent < 0 { '-' } else { '+' };
            self.formatted(format_args!("{first}{point}{rest}e{sign}{:02}", exponent.unsigned_abs()));
        }
    }

    fn fixed(&mut self, digits: &str, exponent: i32) {
        match usize::try_from(exponent) {
            Ok(exponent) if exponent + 1 < digits.len() => {
                let (whole, fraction) = digits.split_at(exponent + 1);
                self.formatted(format_args!("{whole}.{fraction}"));
            }
            Ok(exponent) => self.formatted(format_args!("{digits:0<width$}.0", width = exponent + 1)),
            Err(_) => self.formatted(format_args!("0.{digits:0>width$}", width = digits.len() + exponent.unsigned_abs() as usize - 1)),
        }
    }

    /// Writes text: everything but printable ASCII is escaped, DEL included, in lower-case hexadecimal of UTF-16.
    pub fn string(&mut self, text: &str) {
        self.piece.push('"');
        let mut rest = text;
        while let Some(at) = rest.bytes().position(is_escaped) {
            let (plain, special) = rest.split_at(at);
            self.piece.push_str(plain);
            let mut characters = special.chars();
            // The byte that was found begins a character, as all before it are ASCII.
            if let Some(c) = characters.next() {
                self.escape(c);
            }
            rest = characters.as_str();
        }
        self.piece.push_str(rest);
        self.piece.push('"');
    }

    fn escape(&mut self, c: char) {
        match c {
            '"' => self.piece.push_str("\\\""),
            '\\' => self.piece.push_str("\\\\"),
            '\u{8}' => self.piece.push_str("\\b"),
            '\u{c}' => self.piece.push_str("\\f"),
            '\n' => self.piece.push_str("\\n"),
            '\r' => self.piece.push_str("\\r"),
            '\t' => self.piece.push_str("\\t"),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    self.piece.push_str("\\u");
                    for shift in [12, 8, 4, 0] {
                        let digit = char::from_digit(u32::from(*unit >> shift & 0xf), 16).expect("four bits are a hexadecimal digit");
                        self.piece.push(digit);
                    }
                }
            }
        }
    }

    /// Writes an array; `write` writes each item.
    ///
    /// # Errors
    /// Those of `write`, and [`ErrorKind::InvalidInput`] when it nests deeper than [`VALUE_DEPTH_MAX`].
    pub fn array<T, E: From<EdgeError>>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open('[')?;
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.piece.push_str(", ");
            }
            write(self, item)?;
            self.bounded()?;
        }
        self.close(']');
        Ok(())
    }

    /// Writes an object; `write` writes the value of each member.
    ///
    /// # Errors
    /// As [`Writer::array`].
    pub fn object<K: AsRef<str>, T, E: From<EdgeError>>(
        &mut self,
        members: impl IntoIterator<Item = (K, T)>,
        mut write: impl FnMut(&mut Self, T) -> Result<(), E>,
    ) -> Result<(), E> {
        self.open('{')?;
        for (index, (name, item)) in members.into_iter().enumerate() {
            if index > 0 {
                self.piece.push_str(", ");
            }
            self.string(name.as_ref());
            self.piece.push_str(": ");
            write(self, item)?;
            self.bounded()?;
        }
        self.close('}');
        Ok(())
    }

    fn open(&mut self, bracket: char) -> Result<(), EdgeError> {
        self.levels = one_level_less(self.levels)?;
        self.piece.push(bracket);
        Ok(())
    }

    fn close(&mut self, bracket: char) {
        self.piece.push(bracket);
        self.levels += 1;
    }

    pub(super) fn value(&mut self, value: &Value) -> Result<(), EdgeError> {
        match value {
            Value::Null => self.null(),
            Value::Bool(value) => self.bool(*value),
            Value::Integer(number) => self.integer(number),
            Value::Float(number) => self.float(*number),
            Value::String(text) => self.string(text),
            Value::Array(items) => self.array(items, Self::value)?,
            Value::Object(members) => self.members(members)?,
        }
        Ok(())
    }

    pub(super) fn members(&mut self, object: &Object) -> Result<(), EdgeError> {
        self.object(&object.0, Self::value)
    }
}

/// Whether a byte of UTF-8 is, or begins, a character that is not written as it is.
fn is_escaped(byte: u8) -> bool {
    !matches!(byte, b' '..=b'~') || matches!(byte, b'"' | b'\\')
}

/// The significant digits of a positive decimal such as `0.0015` or `1.5e-3`, here `15`, and the exponent of the first, here -3.
fn digits_and_exponent(text: &str) -> (String, i32) {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().expect("zmij writes an exponent of at most three digits");
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let significant = all.trim_start_matches('0');
    if significant.is_empty() {
        return ("0".to_owned(), 0);
    }
    let leading_zeros = all.len() - significant.len();
    let places = |count: usize| i32::try_from(count).expect("zmij writes at most 24 characters");
    (significant.trim_end_matches('0').to_owned(), exponent + places(whole.len()) - 1 - places(leading_zeros))
}

#[cfg(test)]
mod tests {
    use crate::{
        python_json::write,
        value::{Object, Value},
    };

    fn written(value: impl Into<Value>) -> String {
        write(&value.into()).expect("shallow")
    }

    #[test]
    fn a_float_is_written_as_python_writes_it() {
        for (number, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (100.0, "100.0"),
            (-1234.5, "-1234.5"),
            (0.1 + 0.2, "0.30000000000000004"),
            (0.0001, "0.0001"),
            (0.000_123, "0.000123"),
            (0.000_01, "1e-05"),
            (0.000_015, "1.5e-05"),
            (9_007_199_254_740_993.0, "9007199254740992.0"),
            (999_999_999_999_999.9, "999999999999999.9"),
            (1e15, "1000000000000000.0"),
            (9_999_999_999_999_998.0, "9999999999999998.0"),
            (1e16, "1e+16"),
            (1.5e16, "1.5e+16"),
            (1e22, "1e+22"),
            (-1e100, "-1e+100"),
            (5e-324, "5e-324"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "Infinity"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(written(number), text);
        }
    }

    #[test]
    fn a_string_is_printable_ascii_with_escapes() {
        assert_eq!(written("a/b ~\"\\"), r#""a/b ~\"\\""#);
        assert_eq!(written("\u{8}\u{c}\n\r\t"), r#""\b\f\n\r\t""#);
        assert_eq!(written("\0\u{1f}\u{7f}\u{80}é\u{2028}\u{ffff}"), r#""\u0000\u001f\u007f\u0080\u00e9\u2028\uffff""#);
        assert_eq!(written("😀\u{10ffff}"), r#""\ud83d\ude00\udbff\udfff""#);
    }

    #[test]
    fn keys_are_in_the_order_of_their_code_points() {
        let object: Object = ["😀", "\u{ff5e}", "b", "a", "B", "", "aa"].into_iter().map(|name| (name, Value::Null)).collect();
        let order = r#"{"": null, "B": null, "a": null, "aa": null, "b": null, "\uff5e": null, "\ud83d\ude00": null}"#;
        assert_eq!(written(object), order);
    }

    #[test]
    fn arrays_and_objects_have_the_separators_of_python() {
        assert_eq!(written(vec![]), "[]");
        assert_eq!(written(Object::default()), "{}");
        let items = vec![Value::Null, true.into(), false.into(), vec![1_i64.into(), (-2_i64).into()].into()];
        assert_eq!(
            written(Object::from_iter([("b", Value::from(items)), ("a", u64::MAX.into())])),
            r#"{"a": 18446744073709551615, "b": [null, true, false, [1, -2]]}"#
        );
    }
}
