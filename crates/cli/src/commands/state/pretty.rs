//! Values as people read them: JSON on lines or on one line, with text as it is and every number exact.

use edgeward::{Value, python_json};

const INDENT: &str = "  ";

/// The value over as many lines as it takes, ended.
pub(super) fn lines(value: &Value) -> String {
    let mut text = String::new();
    write(&mut text, value, Some(0));
    text.push('\n');
    text
}

/// The value on one line, of which at most `chars_max` characters are shown.
pub(super) fn line(value: &Value, chars_max: usize) -> String {
    let mut text = String::new();
    write(&mut text, value, None);
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// `level` is how far lines are indented, or none for one line.
fn write(text: &mut String, value: &Value, level: Option<usize>) {
    let inner = level.map(|level| level + 1);
    match value {
        Value::Array(items) if !items.is_empty() => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                separate(text, index, inner);
                write(text, item, inner);
            }
            end_line(text, level);
            text.push(']');
        }
        Value::Object(object) if !object.0.is_empty() => {
            text.push('{');
            for (index, (key, value)) in object.0.iter().enumerate() {
                separate(text, index, inner);
                write_text(text, key);
                text.push_str(": ");
                write(text, value, inner);
            }
            end_line(text, level);
            text.push('}');
        }
        Value::String(string) => write_text(text, string),
        // It has no members, so it is not deep.
        _ => text.push_str(&python_json::write(value).expect("a value without members is not deep")),
    }
}

fn separate(text: &mut String, index: usize, level: Option<usize>) {
    if index > 0 {
        text.push_str(if level.is_some() { "," } else { ", " });
    }
    end_line(text, level);
}

fn end_line(text: &mut String, level: Option<usize>) {
    if let Some(level) = level {
        text.push('\n');
        text.push_str(&INDENT.repeat(level));
    }
}

/// As JSON, with every control character escaped, so that it cannot steer the terminal.
fn write_text(text: &mut String, string: &str) {
    for c in serde_json::Value::from(string).to_string().chars() {
        if c.is_control() { text.push_str(&format!("\\u{:04x}", u32::from(c))) } else { text.push(c) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        python_json::read(text).expect("JSON")
    }

    #[test]
    fn a_value_is_shown_over_lines_that_read_back_as_the_same() {
        let value = value(r#"{"b": [1, {}, [], {"x": null}], "a": 18446744073709551617, "ü\n": "é\u009b\u001b[2J\"", "c": 1E2}"#);
        let shown = lines(&value);
        assert_eq!(
            shown,
            "{\n  \"a\": 18446744073709551617,\n  \"b\": [\n    1,\n    {},\n    [],\n    {\n      \"x\": null\n    }\n  ],\n  \
             \"c\": 100.0,\n  \"ü\\n\": \"é\\u009b\\u001b[2J\\\"\"\n}\n"
        );
        assert_eq!(python_json::read(&shown).expect("JSON"), value);
    }

    #[test]
    fn a_value_is_shown_on_one_line_and_cut_at_a_character() {
        let value = value(r#"{"a": ["é", 1.0]}"#);
        assert_eq!(line(&value, 100), r#"{"a": ["é", 1.0]}"#);
        assert_eq!(line(&value, 9), r#"{"a": ["é…"#);
    }
}
