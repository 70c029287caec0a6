//! How values go through serde, and to and from `serde_json::Value`. No way through here changes a number.
//!
//! In JSON a value is JSON, carried as [`RawValue`]: serde itself knows no integer beyond 128 bits, and would hand over
//! 2^64 + 1 as a float. In a format that is not for people (`is_human_readable` is false) it is one string that holds its
//! JSON text, so the format need not describe itself. Two consequences: of the formats for people only JSON works,
//! and serde cannot buffer a value, so a type that holds one must not be `flatten`, `untagged` or internally tagged.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::{Map, Number, value::RawValue};

use crate::{
    error::EdgeError,
    limits::VALUE_DEPTH_MAX,
    python_json::{check_depth, read, write, write_object},
    value::{Object, Value},
};

const NOT_FINITE: &str = "the value is not valid: it holds a number that is infinite or NaN, which JSON cannot say";

/// Fails when the value nests too deep, or, in JSON, holds a number that is infinite or NaN.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_text(write(self), self.is_finite(), serializer)
    }
}

/// Fails when the object nests too deep, or, in JSON, holds a number that is infinite or NaN.
impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::new();
        serialize_text(write_object(&mut text, self).map(|()| text), self.is_finite(), serializer)
    }
}

fn serialize_text<S: Serializer>(text: Result<String, EdgeError>, is_finite: bool, serializer: S) -> Result<S::Ok, S::Error> {
    let text = text.map_err(ser::Error::custom)?;
    if !serializer.is_human_readable() {
        return serializer.serialize_str(&text);
    }
    if !is_finite {
        return Err(ser::Error::custom(NOT_FINITE));
    }
    RawValue::from_string(text).map_err(ser::Error::custom)?.serialize(serializer)
}

/// Reads as [`read`] does; from JSON it refuses numbers that JSON could not say back: infinite ones, such as `1E400`.
impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return read(&String::deserialize(deserializer)?).map_err(de::Error::custom);
        }
        let value = read(Box::<RawValue>::deserialize(deserializer)?.get()).map_err(de::Error::custom)?;
        if value.is_finite() { Ok(value) } else { Err(de::Error::custom(NOT_FINITE)) }
    }
}

/// Reads a [`Value`], and refuses one that is no object.
impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Object(object) => Ok(object),
            _ => Err(de::Error::custom("the value is not valid: it must be a JSON object")),
        }
    }
}

/// Keeps every number that `serde_json` holds; an integer beyond 64 bits became a float when `serde_json` read it.
/// Fails when the value nests too deep.
impl TryFrom<serde_json::Value> for Value {
    type Error = EdgeError;

    fn try_from(value: serde_json::Value) -> Result<Self, EdgeError> {
        read(&value.to_string())
    }
}

/// Fails when the value nests too deep, or holds a number that `serde_json` cannot: one that is infinite or NaN, or
/// an integer beyond 64 bits.
impl TryFrom<Value> for serde_json::Value {
    type Error = EdgeError;

    fn try_from(value: Value) -> Result<Self, EdgeError> {
        check_depth(&value, VALUE_DEPTH_MAX)?;
        convert(value)
    }
}

/// The caller has checked the depth.
fn convert(value: Value) -> Result<serde_json::Value, EdgeError> {
    Ok(match value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => value.into(),
        Value::Integer(number) => {
            let number = number.as_i64().map(Number::from).or_else(|| number.as_u64().map(Number::from));
            number.ok_or_else(|| EdgeError::invalid("the value is not valid: it holds an integer beyond 64 bits"))?.into()
        }
        Value::Float(number) => Number::from_f64(number).ok_or_else(|| EdgeError::invalid(NOT_FINITE))?.into(),
        Value::String(text) => text.into(),
        Value::Array(items) => items.into_iter().map(convert).collect::<Result<Vec<_>, _>>()?.into(),
        Value::Object(object) => {
            let values = object.0.into_iter().map(|(name, value)| Ok((name, convert(value)?)));
            values.collect::<Result<Map<_, _>, EdgeError>>()?.into()
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EXACT: &str = r#"{"a": 18446744073709551617, "b": [1.0, -0.0, 1e+16, 9007199254740993, null, true], "c": "\u00e9"}"#;

    fn deep(depth: usize) -> Value {
        (0..depth).fold(Value::Null, |inner, _| Value::from(vec![inner]))
    }

    #[test]
    fn json_carries_every_number_exactly() {
        let value: Value = serde_json::from_str(EXACT).expect("JSON");
        assert_eq!(serde_json::to_string(&value).expect("finite"), EXACT);
        let object: Object = serde_json::from_reader(EXACT.as_bytes()).expect("JSON");
        assert_eq!(Value::from(object), value);
    }

    #[test]
    fn json_neither_takes_nor_gives_a_number_that_is_not_finite() {
        for text in ["1E400", "[-1e999]"] {
            assert!(serde_json::from_str::<Value>(text).expect_err(text).to_string().contains("infinite or NaN"), "{text}");
        }
        assert!(serde_json::from_str::<Value>("NaN").is_err());
        for number in [f64::NAN, f64::INFINITY] {
            assert!(serde_json::to_string(&Value::Float(number)).expect_err("not finite").to_string().contains("infinite or NaN"));
            assert!(serde_json::to_string(&Object::from_iter([("a", number)])).is_err());
        }
    }

    #[test]
    fn json_that_is_too_deep_no_object_or_no_text_is_refused_with_the_reason() {
        let text = format!("{}{}", "[".repeat(65), "]".repeat(65));
        assert!(serde_json::from_str::<Value>(&text).expect_err("deep").to_string().contains("deeper than 64"));
        assert!(serde_json::to_string(&deep(65)).expect_err("deep").to_string().contains("deeper than 64"));
        assert!(serde_json::from_str::<Object>("[1]").expect_err("no object").to_string().contains("must be a JSON object"));
        assert!(serde_json::from_str::<Value>(r#""\udc00""#).expect_err("lone").to_string().contains("lone surrogate"));
    }

    #[test]
    fn a_binary_format_carries_every_value_python_can_say() {
        let text = r#"{"a": 18446744073709551617, "b": [NaN, -Infinity, 1.0]}"#;
        let value = read(text).expect("Python's JSON");
        let bytes = postcard::to_allocvec(&value).expect("a string");
        assert_eq!(postcard::from_bytes::<Value>(&bytes).expect("a string"), value);
        assert_eq!(Value::from(postcard::from_bytes::<Object>(&bytes).expect("a string")), value);
        assert!(postcard::from_bytes::<Object>(&postcard::to_allocvec("{").expect("a string")).is_err());
    }

    #[test]
    fn a_value_that_serde_would_buffer_is_refused_and_not_changed() {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Buffered {
            #[expect(dead_code, reason = "it is never made")]
            Value(Value),
        }
        assert!(serde_json::from_str::<Buffered>("18446744073709551617").is_err());
    }

    #[test]
    fn what_serde_json_holds_comes_over_unchanged_and_back() {
        let theirs = json!({"a": [null, true, -1, u64::MAX, 1.0, -0.0, 1e300, 1e16, 5e-324], "b": {"": "é\u{7f}"}});
        let ours = Value::try_from(theirs.clone()).expect("shallow");
        assert_eq!(
            write(&ours).expect("shallow"),
            r#"{"a": [null, true, -1, 18446744073709551615, 1.0, -0.0, 1e+300, 1e+16, 5e-324], "b": {"": "\u00e9\u007f"}}"#
        );
        assert_eq!(serde_json::Value::try_from(ours).expect("their numbers"), theirs);
    }

    #[test]
    fn what_serde_json_cannot_hold_is_refused() {
        let refused = |value: Value| serde_json::Value::try_from(value).expect_err("not theirs").to_string();
        assert!(refused(vec![read("18446744073709551616").expect("an integer")].into()).contains("beyond 64 bits"));
        assert!(refused(read("-9223372036854775809").expect("an integer")).contains("beyond 64 bits"));
        assert!(refused(Object::from_iter([("a", f64::NAN)]).into()).contains("infinite or NaN"));
        assert!(refused(deep(65)).contains("deeper than 64"));
    }
}
