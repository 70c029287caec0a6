//! The example functions over a year of real readings. What they should find is computed here, in whole tenths of a
//! degree or by the published method, and never with their code.

use std::collections::BTreeMap;

use bytes::Bytes;
use edgeward_model::ErrorKind;
use serde_json::Value;

use crate::support::{deploy, file, from_source, guest, request, runtime};

const FILES: [&str; 2] = ["data/seattle-temps.csv", "data/sf-temps.csv"];

/// A file of readings.
struct Readings {
    csv: Bytes,
    header: String,
    rows: Vec<Row>,
}

struct Row {
    /// `2010/01/31 23:00`, seconds optional.
    date: String,
    /// In tenths of a degree Fahrenheit.
    tenths: i32,
}

impl Row {
    /// `2010/01/31`.
    fn day(&self) -> &str {
        &self.date[..10]
    }

    fn fahrenheit(&self) -> f64 {
        f64::from(self.tenths) / 10.0
    }
}

fn readings(name: &str) -> Readings {
    let csv = file(name);
    let text = std::str::from_utf8(&csv).expect("text");
    let mut lines = text.lines();
    let header = lines.next().expect("a header").to_owned();
    let rows: Vec<_> = lines
        .map(|line| {
            let (left, right) = line.split_once(',').expect("two columns");
            let (date, temp) = if header == "date,temp" { (left, right) } else { (right, left) };
            let (whole, tenth) = temp.split_once('.').expect("one decimal");
            Row { date: date.to_owned(), tenths: format!("{whole}{tenth}").parse().expect("a number") }
        })
        .collect();
    assert!(rows.len() > 8700, "{} hours are not a year", rows.len());
    Readings { csv, header, rows }
}

/// The same file in °C. A ninth is never half of a tenth, so there is one way to round.
fn in_celsius(readings: &Readings) -> String {
    let mut csv = format!("{}\n", readings.header);
    for row in &readings.rows {
        let ninths = (row.tenths - 320) * 5;
        let tenths = (ninths * 2 + ninths.signum() * 9) / 18;
        let temp = format!("{}{}.{}", if tenths < 0 { "-" } else { "" }, tenths.abs() / 10, tenths.abs() % 10);
        let date = &row.date;
        csv += &if readings.header == "date,temp" { format!("{date},{temp}\n") } else { format!("{temp},{date}\n") };
    }
    csv
}

fn by_day(readings: &Readings) -> BTreeMap<&str, Vec<i32>> {
    let mut days = BTreeMap::<_, Vec<_>>::new();
    for row in &readings.rows {
        days.entry(row.day()).or_default().push(row.tenths);
    }
    days
}

fn assert_near(found: &Value, expected: f64, within: f64, what: &str) {
    let found = found.as_f64().unwrap_or_else(|| panic!("{what}: {found}"));
    assert!((found - expected).abs() <= within + 1e-9, "{what}: {found}, expected {expected}");
}

fn assert_daily_stats(readings: &Readings, answer: &[u8]) {
    let found: Vec<Value> = serde_json::from_slice(answer).expect("json");
    let days = by_day(readings);
    assert_eq!(found.len(), days.len());
    for (found, (day, tenths)) in found.iter().zip(days) {
        assert_eq!(found["day"], day.replace('/', "-"));
        assert_eq!(found["n"], tenths.len());
        assert_near(&found["min"], f64::from(*tenths.iter().min().expect("some")) / 10.0, 0.0, day);
        assert_near(&found["max"], f64::from(*tenths.iter().max().expect("some")) / 10.0, 0.0, day);
        let mean = f64::from(tenths.iter().sum::<i32>()) / 10.0 / tenths.len() as f64;
        assert_near(&found["mean"], mean, 0.005, day);
    }
}

/// Heating degree days: how far the middle of a day's range stays below 65 °F, summed by month.
fn assert_degree_days(readings: &Readings, answer: &[u8]) {
    let mut months = BTreeMap::<String, (usize, i32)>::new();
    for (day, tenths) in by_day(readings) {
        let month = months.entry(day[..7].replace('/', "-")).or_default();
        let twentieths = 1300 - tenths.iter().min().expect("some") - tenths.iter().max().expect("some");
        *month = (month.0 + 1, month.1 + twentieths.max(0));
    }
    let found: Vec<Value> = serde_json::from_slice(answer).expect("json");
    assert_eq!((found.len(), months.len()), (12, 12));
    for (found, (month, (days, twentieths))) in found.iter().zip(months) {
        assert_eq!((&found["month"], &found["days"]), (&month.as_str().into(), &days.into()));
        assert_near(&found["hdd"], f64::from(twentieths) / 20.0, 0.05, &month);
    }
}

/// What the seasonal naive forecast with drift says of each reading, from the eighth day on: its date, the
/// expected value, and the error in standard deviations.
fn forecast(readings: &Readings) -> Vec<(&Row, f64, f64)> {
    const WEIGHT: f64 = 1.0 / 168.0;
    let (mut yesterday, mut drift, mut variance) = (BTreeMap::<&str, f64>::new(), 0.0, 0.0_f64);
    let mut judged = Vec::new();
    for (seen, row) in readings.rows.iter().enumerate() {
        let hour = &row.date[11..13];
        let Some(last) = yesterday.get(hour) else {
            yesterday.insert(hour, row.fahrenheit());
            continue;
        };
        let expected = last + drift;
        let sigma = variance.sqrt().max(0.041);
        let mut error = row.fahrenheit() - expected;
        // A day to fill the hours, then a week to learn from.
        if seen >= 24 + 168 {
            judged.push((row, expected, error / sigma));
            error = error.clamp(-3.0 * sigma, 3.0 * sigma);
        }
        yesterday.insert(hour, expected + error);
        drift += WEIGHT * error;
        variance = (1.0 - WEIGHT) * (variance + WEIGHT * error * error);
    }
    judged
}

fn assert_anomalies(readings: &Readings, output: &[u8]) {
    let expected: Vec<_> = forecast(readings).into_iter().filter(|(_, _, sigma)| sigma.abs() > 3.0).collect();
    let found: Vec<Value> =
        std::str::from_utf8(output).expect("text").lines().map(|line| serde_json::from_str(line).expect("json")).collect();
    assert_eq!(found.len(), expected.len());
    // As many as the description of the function promises.
    assert_eq!(found.len(), if readings.header == "date,temp" { 57 } else { 32 });
    for (found, (row, expected, sigma)) in found.iter().zip(expected) {
        assert_eq!(found["date"], row.date.as_str());
        assert_near(&found["temp"], row.fahrenheit(), 0.0, &row.date);
        assert_near(&found["expected"], expected, 0.005, &row.date);
        assert_near(&found["sigma"], sigma, 0.05, &row.date);
    }
}

async fn answer(artifact: Bytes, payload: Bytes) -> Bytes {
    let runtime = runtime();
    deploy(&runtime, "f", artifact, |_| ()).await;
    runtime.invoke("f", payload).await.expect("answers")
}

#[tokio::test]
async fn celsius_converts_every_reading_of_a_year() {
    for name in FILES {
        let readings = readings(name);
        assert_eq!(answer(guest("celsius"), readings.csv.clone()).await, in_celsius(&readings), "{name}");
    }
}

#[tokio::test]
async fn daily_stats_gives_every_day_of_a_year() {
    for name in FILES {
        let readings = readings(name);
        assert_daily_stats(&readings, &answer(guest("daily-stats"), readings.csv.clone()).await);
    }
}

#[tokio::test]
async fn anomaly_finds_what_the_published_method_finds() {
    for name in FILES {
        let readings = readings(name);
        assert_anomalies(&readings, &answer(guest("anomaly"), readings.csv.clone()).await);
    }
}

#[tokio::test]
async fn an_example_names_the_line_that_is_wrong() {
    let csv = "date,temp\n2010/01/01 00:00,39.4\n2010/01/01 01:00,warm\n";
    let runtime = runtime();
    deploy(&runtime, "daily-stats", guest("daily-stats"), |_| ()).await;
    let error = runtime.invoke("daily-stats", csv).await.expect_err("fails");
    assert_eq!((error.kind(), error.failure().status), (ErrorKind::ExecutionFailed, Some(400)));
    assert!(error.to_string().contains("line 3: `warm` is no temperature"), "{error}");
    // The same answer is no failure of a function that is served as it is.
    assert_eq!(runtime.serve("daily-stats", request("/", csv)).await.expect("answers").status(), 400);
    for command in ["celsius", "anomaly"] {
        deploy(&runtime, command, guest(command), |_| ()).await;
        let error = runtime.invoke(command, csv).await.expect_err("fails");
        assert_eq!((error.kind(), error.failure().exit_code), (ErrorKind::ExecutionFailed, Some(1)), "{command}");
        assert!(error.failure().stderr_tail.starts_with(&format!("{command}: line 3: ")), "{error:?}");
    }
}

#[tokio::test]
async fn from_source_a_guest_in_c_finds_the_anomalies() {
    for name in FILES {
        let readings = readings(name);
        assert_anomalies(&readings, &answer(from_source("anomaly"), readings.csv.clone()).await);
    }
}

#[tokio::test]
async fn from_source_a_command_in_c_gives_its_input_back() {
    let runtime = runtime();
    let csv = file(FILES[0]);
    deploy(&runtime, "f", from_source("hostile-c"), |f| f.environment = [("MODE", "echo")].into_iter().collect()).await;
    assert_eq!(runtime.invoke("f", csv.clone()).await.expect("answers"), csv);
}

#[tokio::test]
async fn from_source_a_guest_in_python_sums_degree_days() {
    let runtime = runtime();
    deploy(&runtime, "f", from_source("degree-days-py"), |_| ()).await;
    for name in FILES {
        let readings = readings(name);
        assert_degree_days(&readings, &runtime.invoke("f", readings.csv.clone()).await.expect("answers"));
    }
    let error = runtime.invoke("f", "date,temp\n2010/01/01 00:00,warm\n").await.expect_err("fails");
    assert!(error.failure().status == Some(400) && error.to_string().contains("line 2: `warm` is no temperature"), "{error}");
}

#[tokio::test]
async fn long_from_source_a_guest_in_javascript_converts_every_reading() {
    let runtime = runtime();
    deploy(&runtime, "f", from_source("celsius-js"), |_| ()).await;
    for name in FILES {
        let readings = readings(name);
        let found = runtime.invoke("f", readings.csv.clone()).await.expect("answers");
        let expected = in_celsius(&readings);
        // It ends its last line only if the last line of the input had an end.
        let expected = if readings.csv.ends_with(b"\n") { &*expected } else { expected.trim_end() };
        assert_eq!(found, expected, "{name}");
    }
}
