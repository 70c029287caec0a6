//! `edgeward demo` by the real binary. What it shows is computed anew here from the readings.

use std::{collections::BTreeMap, fs, path::Path, process::Stdio};

use serde_json::{Value, json};

use crate::support::{KillOnDrop, Node, data_dir, edgeward, until};

/// Readings of a city in their order: date and hour, °F.
fn readings(city: &str) -> (String, Vec<(String, f64)>) {
    let csv = fs::read_to_string(format!("{}/../../functions/data/{city}-temps.csv", env!("CARGO_MANIFEST_DIR"))).expect("there");
    let reading = |line: &str| {
        let (left, right) = line.split_once(',').expect("two columns");
        let (date, temp) = if left.contains('/') { (left, right) } else { (right, left) };
        (date.to_owned(), temp.parse().expect("a number"))
    };
    let readings = csv.lines().skip(1).map(reading).collect();
    (csv, readings)
}

/// °C in tenths.
#[expect(clippy::cast_possible_truncation, reason = "temperatures in tenths of a degree are small")]
fn celsius_tenths(fahrenheit: f64) -> i64 {
    ((fahrenheit - 32.0) * 10.0 / 1.8).round() as i64
}

fn shown(tenths: i64) -> String {
    format!("{}{}.{}", if tenths < 0 { "-" } else { "" }, tenths.abs() / 10, tenths.abs() % 10)
}

/// Readings farther than three standard deviations from the forecast: the same hour yesterday and a drift, both
/// learnt with a weight of a week.
fn anomalies(readings: &[(String, f64)]) -> usize {
    const WEEK_HOURS: u32 = 7 * 24;
    let weight = 1.0 / f64::from(WEEK_HOURS);
    let mut yesterday = BTreeMap::new();
    let (mut drift, mut variance, mut learnt, mut found) = (0.0, 0.0_f64, 0, 0);
    for (date, temp) in readings {
        let hour = &date[11..13];
        let Some(level) = yesterday.get_mut(hour) else {
            yesterday.insert(hour, *temp);
            continue;
        };
        let expected = *level + drift;
        let mut error = temp - expected;
        let bound = 3.0 * variance.sqrt().max(0.041);
        if learnt < WEEK_HOURS {
            learnt += 1;
        } else {
            found += usize::from(error.abs() > bound);
            error = error.clamp(-bound, bound);
        }
        *level = expected + error;
        drift += weight * error;
        variance = (1.0 - weight) * (variance + weight * error * error);
    }
    found
}

fn demo(temp: &Path, arguments: &[&str]) -> std::process::Command {
    fs::create_dir(temp).expect("made");
    let mut command = edgeward(&["demo"]);
    command.args(arguments);
    command.env("TMPDIR", temp);
    command
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).expect("there").next().is_none()
}

#[test]
fn the_demo_shows_what_is_in_the_readings_and_removes_what_it_wrote() {
    let (_folder, temp) = data_dir();
    let output = demo(&temp, &[]).output().expect("starts");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for (city, name) in [("sf", "San Francisco"), ("seattle", "Seattle")] {
        let (_, readings) = readings(city);
        let day = |(date, fahrenheit): &(String, f64)| (celsius_tenths(*fahrenheit), date[..10].replace('/', "-"));
        let coldest = readings.iter().map(day).min_by_key(|(tenths, _)| *tenths).expect("not empty");
        let hottest = readings.iter().map(day).max_by_key(|(tenths, _)| *tenths).expect("not empty");
        let extremes = format!(
            "{name:<14} 365 days · coldest {} °C on {} · hottest {} °C on {}\n",
            shown(coldest.0),
            coldest.1,
            shown(hottest.0),
            hottest.1
        );
        let odd = format!("{name:<14} {} of {} readings; farthest:", anomalies(&readings), readings.len());
        for line in [extremes, odd] {
            assert!(text.contains(&line), "{line} in {text}");
        }
    }
    assert!(text.contains("1460 sandboxes"), "two functions, two cities, 365 days: {text}");
    for stopped in ["loop for ever    timeout", "wait for ever    timeout", "take all memory  memory limit"] {
        assert!(text.contains(stopped), "{stopped} in {text}");
    }
    let neighbours = text.matches("counted 365 days").count();
    assert_eq!(neighbours, 3, "{text}");
    for row in ["celsius 730 100.0 %", "daily-stats 733 100.0 %", "anomaly 2 100.0 %", "hostile 3 0.0 %"] {
        let rows = text.lines().map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" "));
        assert_eq!(rows.filter(|found| found == row).count(), 1, "{row} in {text}");
    }
    assert!(is_empty(&temp), "it left something");
}

#[tokio::test]
async fn a_demo_that_is_interrupted_removes_what_it_wrote() {
    let (_folder, temp) = data_dir();
    let child = demo(&temp, &[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts");
    let pid = rustix::process::Pid::from_child(&child);
    let mut child = KillOnDrop(Some(child));
    until("it writes", async || !is_empty(&temp)).await;
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it runs");
    let status = crate::support::ended(child.0.as_mut().expect("there")).await;
    assert_eq!(status.code(), Some(1));
    assert!(is_empty(&temp), "it left something");
}

/// Each part comes after the one before.
fn shows_in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let (_, after) = rest.split_once(part).unwrap_or_else(|| panic!("no {part} in its place in {text}"));
        rest = after;
    }
}

#[test]
fn replicas_that_were_apart_are_shown_side_by_side_until_they_are_the_same() {
    let (_folder, temp) = data_dir();
    let output = demo(&temp, &["documents"]).output().expect("starts");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let shown = [
        "key         north   south\nboxes       3       4\ndoor-north  \"open\"  -\ndoor-south  -       \"shut\"\nsetpoint    4       6\n",
        "key         north   south   hub\nboxes       7       7       7\ndoor-north  \"open\"  \"open\"  \"open\"\n\
         door-south  \"shut\"  \"shut\"  \"shut\"\nsetpoint    6       6       6\n",
        "3 + 4 = 7\n",
        "key       why         shows  by     kept  by\nsetpoint  concurrent  6      south  4     north\n",
        "door-south  \"shut\"  \"shut\"  \"shut\"\nsetpoint    4       4       4\n  conflicts that are left: 0\n",
    ];
    shows_in_order(&text, &shown);
    assert!(is_empty(&temp), "it left something");
}

#[test]
fn programs_read_the_outcome_of_the_documents_as_one_object() {
    let (_folder, temp) = data_dir();
    let output = demo(&temp, &["documents", "--json"]).output().expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let outcome: Value = serde_json::from_slice(&output.stdout).expect("one object");
    let view = |setpoint: i64| json!({ "boxes": 7, "door-north": "open", "door-south": "shut", "setpoint": setpoint });
    let expected = json!({
        "document": "cellar",
        "apart": {
            "north": { "boxes": 3, "door-north": "open", "setpoint": 4 },
            "south": { "boxes": 4, "door-south": "shut", "setpoint": 6 },
        },
        "together": { "north": view(6), "south": view(6), "hub": view(6) },
        "counter": { "key": "boxes", "north": 3, "south": 4, "sum": 7 },
        "conflict": {
            "key": "setpoint",
            "why": "concurrent",
            "winner": { "node": "south", "value": 6 },
            "loser": { "node": "north", "value": 4 },
        },
        "resolved": { "north": view(4), "south": view(4), "hub": view(4) },
        "conflicts_left": 0,
    });
    assert_eq!(outcome, expected);
    assert!(is_empty(&temp), "it left something");
}

#[test]
fn a_fleet_with_a_node_that_was_away_is_shown_until_all_have_the_same() {
    let (_folder, temp) = data_dir();
    let output = demo(&temp, &["fleet"]).output().expect("starts");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let shown = [
        "Away `seattle` loses its network, then its power, and goes on by itself",
        ": no heartbeat",
        " errors 0 ",
        "the hub deploys revisions 2 and 3; 2 of 3 nodes have the last",
        "Back ",
        "what happened there is told: the node started, release ",
        "Timeline ",
        "sf-dock ",
        "█ online ▒ syncing ▓ degraded · offline",
        "Result ",
        "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec",
    ];
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    shows_in_order(&text, &shown);
    assert!(is_empty(&temp), "it left something");
}

#[test]
fn a_node_that_was_away_lost_nothing_and_took_only_the_newest() {
    let (_folder, temp) = data_dir();
    let output = demo(&temp, &["fleet", "--json"]).output().expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let outcome: Value = serde_json::from_slice(&output.stdout).expect("one object");
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number in {outcome}"));

    // The hub has the days of the readings themselves, whoever wrote them and when.
    let mut days: BTreeMap<(&str, String), Vec<f64>> = BTreeMap::new();
    for city in ["sf", "seattle"] {
        for (date, temp) in readings(city).1 {
            days.entry((city, date[..10].replace('/', "-"))).or_default().push(temp);
        }
    }
    for (node, city, share) in [("sf-depot", "sf", 183), ("sf-dock", "sf", 182), ("seattle", "seattle", 365)] {
        let at_hub = outcome["hub"][node].as_array().expect("its days");
        assert_eq!(at_hub.len(), share, "{node}");
        for day in at_hub {
            let date = day["day"].as_str().expect("a date").to_owned();
            let temps = days.remove(&(city, date)).unwrap_or_else(|| panic!("{node} has a day twice or of another: {day}"));
            let (low, high) = temps.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), t| (low.min(*t), high.max(*t)));
            assert_eq!((number(&day["n"]), &day["min"], &day["max"]), (temps.len() as u64, &low.into(), &high.into()), "{day}");
        }
    }
    assert!(days.is_empty(), "{days:?}");

    for node in outcome["nodes"].as_array().expect("nodes") {
        let revisions = node["revisions"].as_object().expect("by name");
        let expected: &[&str] =
            if node["id"] == "seattle" { &["revision 1", "revision 3"] } else { &["revision 1", "revision 2", "revision 3"] };
        assert_eq!(revisions.keys().collect::<Vec<_>>(), expected, "{node}");
        assert_eq!((&node["errors"], &node["status"]), (&0.into(), &"online".into()), "{node}");
        assert_eq!(node["calls"], node["days"]);
    }
    let (away, back) = (&outcome["away"], &outcome["back"]);
    assert_eq!((&away["node"], &away["errors"], &away["nodes_with_newest"]), (&"seattle".into(), &0.into(), &2.into()), "{away}");
    assert!(number(&away["written"]) > 100 && number(&away["at_hub"]) <= 1, "{away}");
    // Its last heartbeat was up to one before it was cut off, or two when the machine is busy.
    assert!(number(&away["offline_after_ms"]) >= number(&outcome["heartbeat_ms"]), "{away}");
    let times = ["newest_serves_ms", "writes_at_hub_ms", "events_at_hub_ms", "online_ms"].map(|name| number(&back[name]));
    assert_eq!(times.iter().max(), Some(&number(&back["converged_ms"])), "{back}");
    assert!(back["events"].as_array().is_some_and(|events| events.len() == 1), "{back}");
    let of_seattle = outcome["timeline"].as_array().expect("changes").iter().filter(|change| change["node"] == "seattle");
    let statuses: Vec<_> = of_seattle.filter_map(|change| change["status"].as_str()).collect();
    assert!(statuses.first() == Some(&"offline") && statuses.last() == Some(&"online"), "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == "offline").count(), 2, "it joined, and was away once: {statuses:?}");
    assert!(is_empty(&temp), "it left something");
}

#[test]
fn sensors_of_two_sites_are_counted_and_the_hub_has_both_though_one_was_away() {
    let (_folder, temp) = data_dir();
    let output = demo(&temp, &["integration", "--json"]).output().expect("starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let outcome: Value = serde_json::from_slice(&output.stdout).expect("one object");
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number in {outcome}"));
    for (node, at) in [("sf", 0), ("seattle", 1)] {
        let readings = readings(node).1;
        let site = &outcome["sites"][at];
        let sent = readings.len() as u64;
        assert_eq!((&site["node"], number(&site["acknowledged"])), (&node.into(), sent), "{site}");
        // What comes again after an interruption is handled again, and is not counted twice.
        assert!(number(&site["handled"]) >= sent, "{site}");
        assert_eq!((&site["dead_letter"][0], &site["lost_sensor"]), (&"ERR 7".into(), &"offline".into()), "{site}");
        assert!(site["dead_letter"][1].as_str().is_some_and(|why| why.contains("the body is no reading")), "{site}");
        assert!(number(&site["ticks"]) > 0, "{site}");

        let mut days: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for (date, temp) in &readings {
            days.entry(date[..10].replace('/', "-")).or_default().push(*temp);
        }
        let at_hub = &outcome["hub"][node];
        assert_eq!(number(&at_hub["readings"]), sent);
        for day in at_hub["days"].as_array().expect("its days") {
            let temps = days.remove(day["day"].as_str().expect("a date")).unwrap_or_else(|| panic!("{node} has a day twice: {day}"));
            let (low, high) = temps.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), t| (low.min(*t), high.max(*t)));
            assert_eq!((number(&day["n"]), &day["min"], &day["max"]), (temps.len() as u64, &low.into(), &high.into()), "{day}");
            let mean = temps.iter().sum::<f64>() / temps.len() as f64;
            assert!((day["mean"].as_f64().expect("a mean") - mean).abs() < 1e-9, "{day}");
        }
        assert!(days.is_empty(), "{days:?}");
    }
    for calls in outcome["calls"].as_array().expect("two parts") {
        assert!(number(&calls["total"]) > 100, "{calls}");
        assert_eq!(number(&calls["failed"]), 0, "{calls}");
    }
    assert_eq!(outcome["experiment"]["verdict"], "held", "{}", outcome["experiment"]["reason"]);
    assert_eq!(outcome["experiment"]["faults"][0]["nodes"], json!(["sf"]));
    let measured = |name: &str, of: &[&str]| {
        let all = outcome["telemetry"].as_array().expect("readings");
        let found = all.iter().find(|reading| reading["name"] == name && reading["attributes"] == json!(of));
        found.unwrap_or_else(|| panic!("no {name} of {of:?} in {all:?}"))["value"].as_f64().expect("a number")
    };
    let count = |name: &str, of: &[&str]| format!("{:.0}", measured(name, of)).parse::<u64>().expect("whole");
    assert!(count("faas.invocations", &["hello", "sf"]) > 100 && measured("faas.invoke_duration", &["site-stats", "sf"]) > 0.0);
    assert_eq!(count("edgeward.trigger.dead_letters", &["readings"]), 1);
    let first = &outcome["sites"][0];
    assert_eq!(count("messaging.client.consumed.messages", &["edgeward", "process", "readings"]), number(&first["handled"]));
    assert!(count("edgeward.schedule.runs", &["tick", "succeeded"]) >= number(&first["ticks"]));
    for (trace, expected) in [
        (0, &["publish sites/sf/", "  process sites/sf/", "    invoke site-stats"][..]),
        (1, &["call hello", "  attempt hello", "    invoke hello"]),
    ] {
        let spans = outcome["traces"][trace]["spans"].as_array().expect("spans");
        let indented = |span: &Value| {
            format!("{:1$}{2}", "", usize::try_from(2 * number(&span["depth"])).expect("small"), span["name"].as_str().expect("a name"))
        };
        let tree: Vec<_> = spans.iter().map(indented).collect();
        assert!(expected.iter().zip(&tree).all(|(expected, line)| line.starts_with(expected)), "{tree:#?}");
        let has_document = tree.iter().any(|line| line.starts_with("      ") && line.contains("site.sf"));
        assert_eq!(has_document, trace == 0, "{tree:#?}");
    }
    let away = &outcome["away"];
    assert_eq!((&away["node"], &away["breaker"]), (&"seattle".into(), &"open".into()), "{away}");
    // What was on its way when the network went may have come.
    assert!(number(&away["at_hub"]) < 100, "{away}");
    assert!(number(&away["acknowledged"]) > 3000 && number(&away["ticks"]) > 0, "{away}");
    assert!(is_empty(&temp), "it left something");
}

#[test]
fn a_part_of_the_demo_tells_what_it_is_and_one_that_is_none_is_refused() {
    let help = edgeward(&["demo", "documents", "--help"]).output().expect("starts");
    let text = String::from_utf8(help.stdout).expect("text");
    assert!(help.status.success() && text.contains("edgeward demo documents --json"), "{text}");
    assert_eq!(edgeward(&["demo", "weather"]).output().expect("starts").status.code(), Some(2));
}

#[tokio::test]
async fn a_day_through_the_example_functions_is_that_day() {
    let (_folder, data) = data_dir();
    let node = Node::start(&data).await;
    let (csv, readings) = readings("seattle");
    let day: Vec<_> = readings.iter().filter(|(date, _)| date.starts_with("2010/07/28")).collect();
    let input = data.with_extension("csv");
    let rows: String =
        csv.lines().filter(|line| line.starts_with("date") || line.starts_with("2010/07/28")).map(|line| format!("{line}\n")).collect();
    fs::write(&input, rows).expect("written");
    for id in ["celsius", "daily-stats", "anomaly"] {
        node.deploy(id, id, &[]);
    }

    let converted = node.done(&["invoke", "celsius", "--data", &format!("@{}", input.display())]);
    let expected: String = day.iter().map(|(date, temp)| format!("{date},{}\n", shown(celsius_tenths(*temp)))).collect();
    assert_eq!(String::from_utf8(converted.clone()).expect("text"), format!("date,temp\n{expected}"));

    fs::write(&input, converted).expect("written");
    let stats = node.done(&["invoke", "daily-stats", "--data", &format!("@{}", input.display())]);
    let stats: Value = serde_json::from_slice(&stats).expect("json");
    let tenths: Vec<_> = day.iter().map(|(_, temp)| celsius_tenths(*temp)).collect();
    let number = |value: &Value| value.as_f64().expect("a number");
    assert_eq!((&stats[0]["day"], &stats[0]["n"], stats.as_array().map(Vec::len)), (&"2010-07-28".into(), &24.into(), Some(1)));
    for (field, expected) in [("min", tenths.iter().min()), ("max", tenths.iter().max())] {
        assert!((number(&stats[0][field]) * 10.0 - *expected.expect("24 hours") as f64).abs() < 1e-9, "{field}: {stats}");
    }
    let mean = tenths.iter().sum::<i64>() as f64 / 240.0;
    assert!((number(&stats[0]["mean"]) - mean).abs() <= 0.005_001, "{mean}: {stats}");

    let odd =
        node.done(&["invoke", "anomaly", "--data", &format!("@{}/../../functions/data/seattle-temps.csv", env!("CARGO_MANIFEST_DIR"))]);
    assert_eq!(String::from_utf8(odd).expect("text").lines().count(), anomalies(&readings));
}
