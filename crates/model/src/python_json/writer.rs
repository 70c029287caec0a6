//! Writes values as CPython's `json.dumps(…, sort_keys=True)` with its other defaults does.
//!
//! The caller has checked the depth. The shortest digits of a float come from `zmij`: Rust's own `{:e}` now and then
//! rounds a tie between two shortest forms the other way, where Python rounds to even.

use std::{
    fmt::{Result, Write},
    ops::Range,
};

use crate::value::{Object, Value};

/// Decimal exponents of the floats that are written without an exponent.
const FIXED_EXPONENTS: Range<i32> = -4..16;

pub(super) fn value(out: &mut impl Write, value: &Value) -> Result {
    match value {
        Value::Null => out.write_str("null"),
        Value::Bool(true) => out.write_str("true"),
        Value::Bool(false) => out.write_str("false"),
        Value::Integer(number) => write!(out, "{number}"),
        Value::Float(number) => float(out, *number),
        Value::String(text) => string(out, text),
        Value::Array(items) => array(out, items),
        Value::Object(values) => object(out, values),
    }
}

fn array(out: &mut impl Write, items: &[Value]) -> Result {
    out.write_char('[')?;
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.write_str(", ")?;
        }
        value(out, item)?;
    }
    out.write_char(']')
}

pub(super) fn object(out: &mut impl Write, object: &Object) -> Result {
    out.write_char('{')?;
    for (index, (name, item)) in object.0.iter().enumerate() {
        if index > 0 {
            out.write_str(", ")?;
        }
        string(out, name)?;
        out.write_str(": ")?;
        value(out, item)?;
    }
    out.write_char('}')
}

/// Escapes everything but printable ASCII, DEL included, in lower-case hexadecimal of UTF-16.
fn string(out: &mut impl Write, text: &str) -> Result {
    out.write_char('"')?;
    let mut plain_start = 0;
    for (at, c) in text.char_indices() {
        if matches!(c, ' '..='~') && !matches!(c, '"' | '\\') {
            continue;
        }
        out.write_str(&text[plain_start..at])?;
        plain_start = at + c.len_utf8();
        match c {
            '"' => out.write_str("\\\"")?,
            '\\' => out.write_str("\\\\")?,
            '\u{8}' => out.write_str("\\b")?,
            '\u{c}' => out.write_str("\\f")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(out, "\\u{unit:04x}")?;
                }
            }
        }
    }
    out.write_str(&text[plain_start..])?;
    out.write_char('"')
}

/// Python's `repr`: the shortest digits that read back, and of those the closest.
fn float(out: &mut impl Write, number: f64) -> Result {
    if number.is_nan() {
        return out.write_str("NaN");
    }
    if number.is_sign_negative() {
        out.write_char('-')?;
    }
    if number.is_infinite() {
        return out.write_str("Infinity");
    }
    let mut buffer = zmij::Buffer::new();
    let (digits, exponent) = digits_and_exponent(buffer.format_finite(number.abs()));
    if FIXED_EXPONENTS.contains(&exponent) {
        fixed(out, &digits, exponent)
    } else {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(out, "{first}{point}{rest}e{sign}{:02}", exponent.unsigned_abs())
    }
}

fn fixed(out: &mut impl Write, digits: &str, exponent: i32) -> Result {
    match usize::try_from(exponent) {
        Ok(exponent) if exponent + 1 < digits.len() => {
            let (whole, fraction) = digits.split_at(exponent + 1);
            write!(out, "{whole}.{fraction}")
        }
        Ok(exponent) => write!(out, "{digits:0<width$}.0", width = exponent + 1),
        Err(_) => write!(out, "0.{digits:0>width$}", width = digits.len() + exponent.unsigned_abs() as usize - 1),
    }
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
