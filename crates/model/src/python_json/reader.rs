//! Reads values as CPython's `json.loads` does, with a strict grammar and a bounded depth.
//!
//! Recursion is as deep as the text nests, which ends at [`VALUE_DEPTH_MAX`]. No input panics.

use std::collections::BTreeMap;

use crate::{
    error::EdgeError,
    limits::{INTEGER_DIGITS_MAX, VALUE_DEPTH_MAX},
    value::{Object, Value},
};

pub(super) struct Reader<'a> {
    text: &'a str,
    /// Offset of the next byte; never inside a character when a method begins or ends.
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    pub(super) fn document(mut self) -> Result<Value, EdgeError> {
        let value = self.value(VALUE_DEPTH_MAX)?;
        self.skip_whitespace();
        if self.peek().is_some() { Err(self.unexpected("the end")) } else { Ok(value) }
    }

    /// Reads a value with the whitespace before it; `levels` is how many arrays and objects may still be opened.
    fn value(&mut self, levels: usize) -> Result<Value, EdgeError> {
        self.skip_whitespace();
        match self.peek() {
            Some(b'{') => self.object(levels),
            Some(b'[') => self.array(levels),
            Some(b'"') => self.string().map(Value::String),
            Some(b'0'..=b'9') => self.number(),
            next => match self.literal() {
                Some(value) => Ok(value),
                None if next == Some(b'-') => self.number(),
                None => Err(self.unexpected("a value")),
            },
        }
    }

    fn literal(&mut self) -> Option<Value> {
        let literals = [
            ("null", Value::Null),
            ("true", Value::Bool(true)),
            ("false", Value::Bool(false)),
            ("NaN", Value::Float(f64::NAN)),
            ("Infinity", Value::Float(f64::INFINITY)),
            ("-Infinity", Value::Float(f64::NEG_INFINITY)),
        ];
        literals.into_iter().find_map(|(word, value)| self.take(word).then_some(value))
    }

    fn array(&mut self, levels: usize) -> Result<Value, EdgeError> {
        let levels = self.open(levels)?;
        let mut items = Vec::new();
        self.skip_whitespace();
        if self.take("]") {
            return Ok(Value::Array(items));
        }
        loop {
            items.push(self.value(levels)?);
            self.skip_whitespace();
            if self.take("]") {
                return Ok(Value::Array(items));
            }
            self.expect(",", "`,` or `]`")?;
        }
    }

    fn object(&mut self, levels: usize) -> Result<Value, EdgeError> {
        let levels = self.open(levels)?;
        let mut values = BTreeMap::new();
        self.skip_whitespace();
        if self.take("}") {
            return Ok(Object(values).into());
        }
        loop {
            self.skip_whitespace();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("a key in double quotes"));
            }
            let name = self.string()?;
            self.skip_whitespace();
            self.expect(":", "`:`")?;
            let value = self.value(levels)?;
            values.insert(name, value);
            self.skip_whitespace();
            if self.take("}") {
                return Ok(Object(values).into());
            }
            self.expect(",", "`,` or `}`")?;
        }
    }

    /// Steps over the bracket, and returns the levels that are left inside.
    fn open(&mut self, levels: usize) -> Result<usize, EdgeError> {
        let levels =
            levels.checked_sub(1).ok_or_else(|| self.refused(&format!("arrays and objects nest deeper than {VALUE_DEPTH_MAX}")))?;
        self.at += 1;
        Ok(levels)
    }

    fn number(&mut self) -> Result<Value, EdgeError> {
        let start = self.at;
        self.take("-");
        if self.take("0") {
            if matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.refused("a number begins with a needless 0"));
            }
        } else {
            self.digits()?;
        }
        let whole_end = self.at;
        if self.take(".") {
            self.digits()?;
        }
        if self.take("e") || self.take("E") {
            let _ = self.take("+") || self.take("-");
            self.digits()?;
        }
        let number = self.text.get(start..self.at).unwrap_or_default();
        if self.at > whole_end {
            return Ok(Value::Float(number.parse().expect("a float of JSON is one of Rust, which takes any length and exponent")));
        }
        number.parse().map(Value::Integer).map_err(|_| {
            self.at = start;
            self.refused(&format!("an integer has more than {INTEGER_DIGITS_MAX} digits"))
        })
    }

    fn digits(&mut self) -> Result<(), EdgeError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.unexpected("a digit")) } else { Ok(()) }
    }

    fn string(&mut self) -> Result<String, EdgeError> {
        self.at += 1;
        let mut string = String::new();
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let Some(plain_end) = rest.find(|c| matches!(c, '"' | '\\' | '\0'..='\x1f')) else {
                self.at = self.text.len();
                return Err(self.unexpected("`\"`, which ends the string"));
            };
            let (plain, special) = rest.split_at(plain_end);
            string.push_str(plain);
            self.at += plain_end;
            match special.as_bytes() {
                [b'"', ..] => {
                    self.at += 1;
                    return Ok(string);
                }
                [b'\\', ..] => string.push(self.escape()?),
                _ => return Err(self.refused("a string holds a control character, which must be escaped")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, EdgeError> {
        let start = self.at;
        self.at += 1;
        let escapes = [("\"", '"'), ("\\", '\\'), ("/", '/'), ("b", '\u{8}'), ("f", '\u{c}'), ("n", '\n'), ("r", '\r'), ("t", '\t')];
        if let Some(c) = escapes.into_iter().find_map(|(letter, c)| self.take(letter).then_some(c)) {
            return Ok(c);
        }
        if !self.take("u") {
            return Err(self.unexpected("an escape that JSON knows"));
        }
        let first = self.utf16_unit()?;
        let is_first_of_two = matches!(first, 0xd800..=0xdbff) && self.take("\\u");
        let second = if is_first_of_two { Some(self.utf16_unit()?) } else { None };
        if let Some(Ok(c)) = char::decode_utf16([first].into_iter().chain(second)).next() {
            return Ok(c);
        }
        self.at = start;
        Err(self.refused(&format!("`\\u{first:04x}` is a lone surrogate, which is no character")))
    }

    fn utf16_unit(&mut self) -> Result<u16, EdgeError> {
        let digits = self.text.get(self.at..self.at + 4).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let unit = digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
        let unit = unit.ok_or_else(|| self.refused("`\\u` must be followed by four hexadecimal digits"))?;
        self.at += 4;
        Ok(unit)
    }

    fn skip_whitespace(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Steps over `word` where it comes next, and says whether it did.
    fn take(&mut self, word: &str) -> bool {
        let next = self.text.as_bytes().get(self.at..).is_some_and(|rest| rest.starts_with(word.as_bytes()));
        self.at += if next { word.len() } else { 0 };
        next
    }

    fn expect(&mut self, word: &str, what: &str) -> Result<(), EdgeError> {
        if self.take(word) { Ok(()) } else { Err(self.unexpected(what)) }
    }

    fn unexpected(&self, expected: &str) -> EdgeError {
        match self.text.get(self.at..).and_then(|rest| rest.chars().next()) {
            Some(c) => self.refused(&format!("expected {expected}, found `{}`", c.escape_debug())),
            None => self.refused(&format!("expected {expected}, but the text ends")),
        }
    }

    fn refused(&self, why: &str) -> EdgeError {
        EdgeError::invalid(format!("the JSON text is not valid at byte {}: {why}", self.at))
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        error::ErrorKind,
        limits::INTEGER_DIGITS_MAX,
        python_json::{read, write},
        value::Value,
    };

    fn rewritten(text: &str) -> String {
        write(&read(text).expect(text)).expect("shallow")
    }

    #[test]
    fn numbers_are_told_apart_as_python_does() {
        for (text, python) in [
            ("9007199254740993", "9007199254740993"),
            ("18446744073709551617", "18446744073709551617"),
            ("-123456789012345678901234567890", "-123456789012345678901234567890"),
            ("-0", "0"),
            ("-0.0", "-0.0"),
            ("1.0", "1.0"),
            ("1E2", "100.0"),
            ("1e-5", "1e-05"),
            ("10000000000000000.0", "1e+16"),
            ("1E400", "Infinity"),
            ("-1E400", "-Infinity"),
            ("1e-400", "0.0"),
            ("-1e-99999999999999999999", "-0.0"),
            ("1e99999999999999999999", "Infinity"),
            ("NaN", "NaN"),
            ("Infinity", "Infinity"),
            ("-Infinity", "-Infinity"),
        ] {
            assert_eq!(rewritten(text), python, "{text}");
        }
        let longest = "9".repeat(INTEGER_DIGITS_MAX);
        assert_eq!(rewritten(&format!("-{longest}")), format!("-{longest}"));
        assert!(read(&format!("{longest}9")).expect_err("too long").to_string().contains("byte 0: an integer has more than 4300"));
        assert_eq!(rewritten(&format!("{longest}9.0e-4300")), "10.0");
    }

    #[test]
    fn a_string_means_the_same_however_it_is_escaped() {
        assert_eq!(rewritten(r#""\u00e9\/\u000A\"\\ 😀\ud83d\uDE00\u007F""#), r#""\u00e9/\n\"\\ \ud83d\ude00\ud83d\ude00\u007f""#);
        assert_eq!(rewritten("\"\u{7f}\u{85}\u{2028}\""), r#""\u007f\u0085\u2028""#);
    }

    #[test]
    fn of_two_equal_keys_the_last_one_wins() {
        assert_eq!(rewritten(r#"{"b": 1, "a": 2, "\u0062": {"c": 3}}"#), r#"{"a": 2, "b": {"c": 3}}"#);
    }

    #[test]
    fn whitespace_may_stand_around_every_part() {
        assert_eq!(rewritten(" \t\r\n{ \"a\" :\n[ 1 , [ ] , { } ]\r} "), r#"{"a": [1, [], {}]}"#);
        assert_eq!(rewritten("[1,2]"), "[1, 2]");
    }

    #[test]
    fn a_lone_surrogate_is_refused_and_named() {
        for text in [r#""\ud800""#, r#""x\uD800\ud800""#, r#""\ud800A""#, r#""\udc00\ud800""#, r#"{"\udfff": 1}"#] {
            let error = read(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("is a lone surrogate"), "{text}: {error}");
        }
        assert!(read(r#""ab\ud800""#).expect_err("lone").to_string().contains("at byte 3: `\\ud800`"));
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        for (text, why) in [
            ("", "byte 0: expected a value, but the text ends"),
            ("\u{feff}1", "byte 0: expected a value, found `\\u{feff}`"),
            ("nul", "byte 0: expected a value, found `n`"),
            ("nan", "expected a value"),
            ("'a'", "expected a value, found `\\'`"),
            ("1 2", "byte 2: expected the end, found `2`"),
            ("truefalse", "byte 4: expected the end"),
            ("01", "needless 0"),
            ("-01", "needless 0"),
            ("-", "expected a digit, but the text ends"),
            ("-a", "expected a digit, found `a`"),
            ("+1", "expected a value"),
            (".5", "expected a value"),
            ("1.", "expected a digit"),
            ("1.e5", "expected a digit"),
            ("1e", "expected a digit"),
            ("1e+", "expected a digit"),
            ("0x10", "expected the end"),
            ("1_0", "expected the end"),
            ("[1,]", "byte 3: expected a value, found `]`"),
            ("[1 2]", "expected `,` or `]`"),
            ("[", "expected a value, but the text ends"),
            ("{\"a\":1,}", "byte 7: expected a key in double quotes, found `}`"),
            ("{a:1}", "expected a key"),
            ("{\"a\" 1}", "expected `:`"),
            ("{\"a\":1 \"b\":2}", "expected `,` or `}`"),
            ("\"é", "byte 3: expected `\"`"),
            ("\"\0\"", "byte 1: a string holds a control character"),
            ("\"\u{1f}\"", "byte 1: a string holds a control character"),
            ("\"a\nb\"", "byte 2: a string holds a control character"),
            (r#""\x41""#, "an escape that JSON knows, found `x`"),
            (r#""\u12é""#, "four hexadecimal digits"),
            (r#""\u+123""#, "four hexadecimal digits"),
            (r#""\ud83d\u12""#, "four hexadecimal digits"),
            (r#""\"#, "an escape that JSON knows, but the text ends"),
            ("/**/1", "expected a value"),
            ("1\0", "expected the end, found `\\0`"),
        ] {
            let error = read(text).expect_err(text);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(why), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_value_needs_no_array_or_object_around_it() {
        assert_eq!(read("null").expect("a value"), Value::Null);
        assert_eq!(read("false").expect("a value"), false.into());
    }
}
