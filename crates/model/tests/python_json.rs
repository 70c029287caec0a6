//! JSON against CPython itself, in one batch for each test from a fixed seed, and properties that hold for any value.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use edgeward_model::{
    Integer, Object, SyncState, Value,
    limits::VALUE_DEPTH_MAX,
    python_json::{read, write},
};
use proptest::{
    collection::{btree_map, vec},
    prelude::*,
    sample::{Index, select},
    strategy::ValueTree,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

/// Writes of each text of the batch, which NUL separates, one line: what Python makes of it.
const PYTHON: &str = r#"
import hashlib, json, struct, sys

def refuse_lone_surrogates(pairs):
    json.dumps(pairs, ensure_ascii=False).encode()
    return dict(pairs)

def line(text):
    if text.startswith("bits "):
        return json.dumps(struct.unpack(">d", bytes.fromhex(text[5:])))[1:-1]
    try:
        # Inside an object, so that the hook sees a value that is none itself.
        json.loads('{"": ' + text + "\n}", object_pairs_hook=refuse_lone_surrogates)
        dumped = json.dumps(json.loads(text), sort_keys=True)
    except UnicodeEncodeError:
        return "lone surrogate"
    except ValueError:
        return "refused"
    return hashlib.md5(dumped.encode()).hexdigest() + " " + dumped

sys.stdin.reconfigure(encoding="utf-8", newline="")
for text in sys.stdin.read().split("\0"):
    print(line(text))
"#;

/// The line that CPython prints for each text. Isolated, so that no variable of the environment changes its limits.
fn ask_python(texts: &[String]) -> Vec<String> {
    let mut python = Command::new("python3")
        .args(["-I", "-c", PYTHON])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this test compares with CPython and needs `python3` in PATH");
    python.stdin.take().expect("piped").write_all(texts.join("\0").as_bytes()).expect("Python reads all before it writes");
    let output = python.wait_with_output().expect("Python ends");
    assert!(output.status.success(), "Python failed, see its standard error: {}", output.status);
    let lines: Vec<String> = String::from_utf8(output.stdout).expect("ASCII").lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), texts.len(), "Python answers each text with one line");
    lines
}

/// `count` samples, the same in each run.
fn samples<T: std::fmt::Debug>(strategy: &impl Strategy<Value = T>, count: usize) -> Vec<T> {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    (0..count).map(|_| strategy.new_tree(&mut runner).expect("no filter refuses").current()).collect()
}

fn float() -> impl Strategy<Value = f64> {
    let decimal = (any::<i32>(), -30..30_i32).prop_map(|(digits, exponent)| f64::from(digits) * 10_f64.powi(exponent));
    let short = (-9999..9999_i32, -12..22_i32).prop_map(|(digits, exponent)| format!("{digits}e{exponent}").parse().expect("a float"));
    let whole = any::<i64>().prop_map(|number| number as f64);
    let two_to = (-1074..1024_i32, -2..3_i64).prop_map(|(exponent, steps)| {
        let bits = 2_f64.powi(exponent).to_bits();
        f64::from_bits(bits.saturating_add_signed(steps))
    });
    prop_oneof![any::<u64>().prop_map(f64::from_bits), decimal, short, whole, two_to]
}

fn text() -> impl Strategy<Value = String> {
    let c = prop_oneof![
        4 => prop::char::range(' ', '~'),
        2 => prop::char::range('\0', '\u{ff}'),
        1 => select(vec!['"', '\\', '/', '\u{7f}', '\u{2028}', '\u{d7ff}', '\u{e000}', '\u{ffff}', '\u{10000}', '\u{10ffff}']),
        1 => any::<char>(),
    ];
    vec(c, 0..12).prop_map(String::from_iter)
}

fn value() -> impl Strategy<Value = Value> {
    let integer = "-?[0-9]{1,40}".prop_map(|digits| Value::Integer(digits.parse::<Integer>().expect("digits")));
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        integer,
        float().prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 48, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            btree_map(text(), inner, 0..6).prop_map(|values| Object(values).into()),
        ]
    })
}

/// Spells a value as JSON in one of many ways, with none of the code under test: any order of keys, any whitespace,
/// keys twice, any escapes, and other forms of the same number. `choose` makes the choices.
fn spell(value: &Value, choose: &mut impl FnMut(usize) -> usize) -> String {
    let space = [" ", "", "\n", "", "\t \r\n", "", ""][choose(7)];
    let spelled = match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) if number.is_nan() => "NaN".to_owned(),
        Value::Float(number) if number.is_infinite() && choose(2) == 0 => if *number > 0.0 { "1E400" } else { "-1E400" }.to_owned(),
        Value::Float(number) if number.is_infinite() => if *number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned(),
        Value::Float(number) => [format!("{number:e}"), format!("{number:E}"), format!("{number:?}")][choose(3)].clone(),
        Value::String(text) => spell_string(text, choose),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| spell(item, choose)).collect();
            format!("[{}{space}]", items.join(","))
        }
        Value::Object(object) => {
            let mut members: Vec<String> = Vec::new();
            for (name, value) in &object.0 {
                let member = format!("{space}{}{space}:{}", spell_string(name, choose), spell(value, choose));
                members.insert(choose(members.len() + 1), member);
            }
            if let Some((name, _)) = object.0.iter().next().filter(|_| choose(3) == 0) {
                members.insert(choose(members.len() + 1), format!("{}: [\"twice\"]", spell_string(name, choose)));
            }
            format!("{{{}{space}}}", members.join(","))
        }
    };
    format!("{space}{spelled}{space}")
}

fn spell_string(text: &str, choose: &mut impl FnMut(usize) -> usize) -> String {
    let mut spelled = String::from("\"");
    for c in text.chars() {
        match (c, choose(4)) {
            ('"' | '\\' | '/', 1) => spelled.extend(['\\', c]),
            ('\n', 1) => spelled.push_str("\\n"),
            ('\0'..='\x1f' | '"' | '\\', _) | (_, 0) => {
                let upper = choose(2) == 0;
                for unit in c.encode_utf16(&mut [0; 2]) {
                    spelled.push_str(&if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") });
                }
            }
            _ => spelled.push(c),
        }
    }
    spelled.push('"');
    spelled
}

fn spelled(values: impl Strategy<Value = Value>) -> impl Strategy<Value = String> {
    (values, vec(any::<Index>(), 64)).prop_map(|(value, choices)| {
        let mut choices = choices.into_iter().cycle();
        spell(&value, &mut |count| choices.next().expect("a cycle has no end").index(count))
    })
}

/// JSON with one to three characters removed, added or replaced: most of it is JSON no more.
fn damaged_json() -> impl Strategy<Value = String> {
    let pieces =
        ["\"", "\\", "\\u", "\\ud800", "\\udc00", ",", ":", "[", "]", "{", "}", "0", "-", ".", "e", "E+", "1", "t", "N", " ", "\u{a0}"];
    let edit = (any::<Index>(), 0..3_u8, select(pieces.to_vec()));
    (spelled(value()), vec(edit, 1..4)).prop_map(|(text, edits)| {
        let mut chars: Vec<char> = text.chars().collect();
        for (place, kind, piece) in edits {
            let at = place.index(chars.len() + 1);
            let removed = usize::from(kind != 1 && at < chars.len());
            chars.splice(at..at + removed, if kind == 0 { "" } else { piece }.chars());
        }
        String::from_iter(chars)
    })
}

/// Asserts that we take and refuse what Python does, and make the same text and checksum of it; returns Python's lines.
fn assert_as_python(texts: &[String]) -> Vec<String> {
    let lines = ask_python(texts);
    for (text, line) in texts.iter().zip(&lines) {
        match read(text) {
            Ok(value) => {
                let (md5, dumped) = line.split_once(' ').unwrap_or(("", line));
                assert_eq!(write(&value).expect("what was read is not too deep"), dumped, "{text:?}");
                if let Value::Object(object) = value {
                    assert_eq!(SyncState::from_data(object, 1).expect("not too deep").checksum, md5, "{text:?}");
                }
            }
            // We stop at the first fault, and a text may have a second one.
            Err(error) if error.to_string().contains("lone surrogate") && line != "refused" => {
                assert_eq!(line, "lone surrogate", "{text:?}: {error}");
            }
            Err(error) => assert_eq!(line, "refused", "{text:?}: {error}"),
        }
    }
    lines
}

#[test]
fn floats_are_written_and_read_as_by_python() {
    let edges = (-330..310_i32).flat_map(|exponent| {
        let power: f64 = format!("1e{exponent}").parse().expect("a float");
        [power, -power, power.next_up(), power.next_down(), power * 9.5, power * 1.25]
    });
    let ties = (0..53_i32).map(|exponent| 2_f64.powi(exponent) + 0.5).chain((50..70).map(|exponent| 2_f64.powi(exponent) + 4096.0));
    let floats: Vec<f64> = edges.chain(ties).chain([0.0, -0.0, f64::NAN, f64::MIN_POSITIVE]).chain(samples(&float(), 30_000)).collect();
    let texts: Vec<String> = floats.iter().map(|number| format!("bits {:016x}", number.to_bits())).collect();
    for (number, python) in floats.iter().zip(ask_python(&texts)) {
        assert_eq!(write(&Value::Float(*number)).expect("a float"), python, "{number:?}");
        assert_eq!(read(&python).expect("a float"), Value::Float(*number), "{python}");
    }
}

#[test]
fn documents_are_read_and_written_and_hashed_as_by_python() {
    let object = btree_map(text(), value(), 0..8).prop_map(|values| Value::from(Object(values)));
    let mut texts = samples(&spelled(object), 2000);
    texts.extend(samples(&spelled(value()), 2000));
    let lines = assert_as_python(&texts);
    assert!(lines.iter().all(|line| !line.starts_with("refused") && !line.starts_with("lone")), "Python takes every spelling");
}

#[test]
fn what_python_refuses_is_refused_and_what_it_takes_is_taken() {
    let mut texts = samples(&damaged_json(), 4000);
    let sevens = |digits: usize| "7".repeat(digits);
    texts.extend([
        sevens(4300),
        format!("-{}", sevens(4300)),
        sevens(4301),
        format!("-{}", sevens(4301)),
        format!("{}.5e-4400", sevens(5000)),
    ]);
    texts.extend(
        ["", " ", "\u{feff}1", "01", "-", "1.", ".1", "1e", "+1", "nan", "inf", "-NaN", "--Infinity", "[1,]", "{,}", "\u{b}1"]
            .map(str::to_owned),
    );
    // Every character bare in a string, after a backslash, and before a value; NUL is what separates the texts.
    texts.extend(('\u{1}'..='\u{ff}').flat_map(|c| [format!("\"{c}\""), format!("\"\\{c}\""), format!("{c}1")]));
    texts.push(format!("{}{}", "[".repeat(VALUE_DEPTH_MAX), "]".repeat(VALUE_DEPTH_MAX)));
    let lines = assert_as_python(&texts);
    let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    let (refused, lone) = (count("refused"), count("lone surrogate"));
    let taken = lines.len() - refused - lone;
    assert!(refused > 1000 && taken > 200 && lone > 5, "{refused} refused, {taken} taken, {lone} with a lone surrogate");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) })]

    #[test]
    fn what_is_written_reads_back_as_the_same_value(value in value()) {
        let text = write(&value).expect("shallow");
        prop_assert!(text.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{text}");
        prop_assert_eq!(&read(&text).expect("its own text"), &value);
    }

    #[test]
    fn serde_carries_what_is_finite_and_refuses_the_rest(value in value()) {
        match serde_json::to_string(&value) {
            Ok(json) => prop_assert_eq!(&serde_json::from_str::<Value>(&json).expect("its own JSON"), &value),
            Err(_) => prop_assert!(!value.is_finite()),
        }
    }

    #[test]
    fn no_text_panics(text in prop_oneof![damaged_json(), any::<String>(), "[-+.eE0-9NaIinfty\"\\\\u{}\\[\\],: ]{0,40}"]) {
        if let Ok(value) = read(&text) {
            let written = write(&value).expect("what was read is not too deep");
            prop_assert_eq!(read(&written).expect("its own text"), value);
        }
    }
}
