//! The value of a document: what JSON can say, with every number exact.
//!
//! It is not `serde_json::Value`, for which 2^64 + 1 is a float and so another number. Its feature
//! `arbitrary_precision` would keep it, but Cargo turns a feature on for the whole build: the number type of every
//! dependency would change, formats that do not describe themselves could no longer read one, and `1` and `1.0`
//! would be told apart by their text only. This type is a few lines, and its order of keys is the checksum's.

use std::collections::BTreeMap;

use crate::integer::Integer;

/// One value of a document.
///
/// Two values are equal when they are the same JSON text to Python: `1`, `1.0` and `true` differ, so do `0.0` and
/// `-0.0`, and one NaN equals another. A value may nest [`VALUE_DEPTH_MAX`](crate::limits::VALUE_DEPTH_MAX) deep;
/// one that was built deeper is refused where it is written.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// JSON's `null`, Python's `None`.
    #[default]
    Null,
    /// JSON's `true` and `false`.
    Bool(bool),
    /// A number without fraction and exponent, of any size.
    Integer(Integer),
    /// Any other number, IEEE 754 binary64. It may be infinite or NaN, as in Python.
    Float(f64),
    /// Text. It holds no lone surrogate, which Python would allow.
    String(String),
    /// Python's `list`.
    Array(Vec<Value>),
    /// Python's `dict` with keys of text.
    Object(Object),
}

/// Values by name; Python's `dict` with keys of text. Ordered by the keys' code points, as Python sorts them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object(pub BTreeMap<String, Value>);

impl Value {
    /// Whether no number in it is infinite or NaN: whether strict JSON can say it.
    pub fn is_finite(&self) -> bool {
        match self {
            Self::Float(number) => number.is_finite(),
            Self::Array(items) => items.iter().all(Self::is_finite),
            Self::Object(object) => object.is_finite(),
            Self::Null | Self::Bool(_) | Self::Integer(_) | Self::String(_) => true,
        }
    }
}

impl Object {
    /// Whether no number in it is infinite or NaN: whether strict JSON can say it.
    pub fn is_finite(&self) -> bool {
        self.0.values().all(Value::is_finite)
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()),
            (Self::String(a), Self::String(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::Object(a), Self::Object(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

macro_rules! from {
    ($($source:ty => $variant:ident),* $(,)?) => {
        $(impl From<$source> for Value {
            fn from(value: $source) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

from!(bool => Bool, i64 => Integer, u64 => Integer, Integer => Integer, f64 => Float, &str => String, String => String,
    Vec<Value> => Array, Object => Object);

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Object {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_equal_when_their_text_is() {
        let (one, nan, zero) = (Value::from(1_i64), Value::Float(f64::NAN), Value::Float(0.0));
        assert!(one != Value::from(1.0) && one != Value::from(true) && one != Value::from("1"));
        assert_eq!(nan, Value::Float(-f64::NAN));
        assert_ne!(zero, Value::Float(-0.0));
        assert_eq!(Value::from(vec![nan.clone()]), Value::from(vec![nan]));
    }

    #[test]
    fn a_number_that_is_not_finite_is_found_at_any_depth() {
        let nested = |number: f64| Object::from_iter([("a", Value::from(vec![Object::from_iter([("b", number)]).into()]))]);
        assert!(nested(1.5).is_finite());
        assert!(!nested(f64::NEG_INFINITY).is_finite());
        assert!(!Value::from(nested(f64::NAN)).is_finite());
    }
}
