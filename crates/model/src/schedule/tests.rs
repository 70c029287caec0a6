//! Schedules: their fields, due times within bounds, and jitter.

use proptest::prelude::*;

use super::*;

fn schedule(when: &str) -> Schedule {
    let function = FunctionId::new("report").expect("valid");
    Schedule::new(ScheduleId::new("nightly").expect("valid"), function, when.parse().expect(when))
}

fn at(text: &str) -> Timestamp {
    text.parse().expect(text)
}

fn node(id: &str) -> NodeId {
    NodeId::new(id).expect("valid")
}

#[test]
fn a_schedule_says_little_and_comes_back_from_its_json() {
    let json = r#"{"id":"nightly","function":"report","when":"0 3 * * *"}"#;
    let read: Schedule = serde_json::from_str(json).expect("defaults fill");
    assert_eq!(read, schedule("0 3 * * *"));
    assert!(read.target.to_string() == "one" && read.catch_up == CatchUp::Once && read.enabled && read.attempts == 1);
    let mut full = schedule("every 1m30s");
    full.zone = "Europe/Berlin".parse().expect("valid");
    full.target = "site=berlin".parse().expect("valid");
    full.payload = r#"{"a":1}"#.to_owned();
    full.catch_up = "all=7".parse().expect("valid");
    full.jitter_seconds = 5;
    full.timeout_seconds = Some(2.5);
    full.ends_at = Some(at("2030-01-01T00:00:00Z"));
    full.validate().expect("valid");
    assert_eq!(serde_json::from_str::<Schedule>(&serde_json::to_string(&full).expect("JSON")).expect("valid"), full);
    assert!(serde_json::from_str::<Schedule>(&json.replace("function", "funktion")).is_err());
}

#[test]
fn a_value_out_of_range_is_refused_and_named() {
    let refused = |change: &dyn Fn(&mut Schedule)| {
        let mut schedule = schedule("0 3 * * *");
        change(&mut schedule);
        schedule.validate().expect_err("out of range").to_string()
    };
    assert!(refused(&|s| s.jitter_seconds = 86_401).contains("jitter_seconds of schedule `nightly` is 86401"));
    assert!(refused(&|s| s.attempts = 0).contains("attempts"));
    assert!(refused(&|s| s.timeout_seconds = Some(f64::NAN)).contains("timeout_seconds"));
    assert!(refused(&|s| s.catch_up = CatchUp::All { runs_max: 101 }).contains("catch_up"));
    assert!(refused(&|s| s.payload = "x".repeat(64 * 1024 + 1)).contains("65537 bytes"));
    assert!(refused(&|s| s.payload = "{a".to_owned()).contains("is no JSON"));
    assert!(refused(&|s| s.content_type = "text\n".to_owned()).contains("control character"));
    assert!(
        refused(&|s| (s.starts_at, s.ends_at) = (Some(at("2026-01-02T00:00:00Z")), Some(at("2026-01-01T00:00:00Z"))))
            .contains("before it starts")
    );
    let one_hour = (Some(at("2026-01-01T04:00:00Z")), Some(at("2026-01-01T05:00:00Z")));
    assert!(refused(&|s| (s.starts_at, s.ends_at) = one_hour).contains("never due"));
    for text in ["", "never", "all=0", "all=101", "all="] {
        assert!(text.parse::<CatchUp>().is_err(), "{text}");
    }
}

#[test]
fn due_times_lie_within_start_and_end() {
    let mut schedule = schedule("every 1h");
    schedule.starts_at = Some(at("2026-01-01T00:30:00Z"));
    schedule.ends_at = Some(at("2026-01-01T02:30:00Z"));
    let next = |after: &str| schedule.next_after(at(after)).map(|next| next.to_string());
    assert_eq!(next("2020-01-01T00:00:00Z").as_deref(), Some("2026-01-01T00:30:00Z"), "the start counts, and is the anchor");
    assert_eq!(next("2026-01-01T00:30:00Z").as_deref(), Some("2026-01-01T01:30:00Z"));
    assert_eq!(next("2026-01-01T01:30:00Z"), None, "the end does not count");
}

#[test]
fn the_last_of_a_billion_due_times_is_found_at_once() {
    let started = std::time::Instant::now();
    let (from, until) = (at("1971-01-01T00:00:00Z"), at("2099-06-15T12:34:56.7Z"));
    for (when, expected) in [
        ("every 1s", "2099-06-15T12:34:56Z"),
        ("* * * * * *", "2099-06-15T12:34:56Z"),
        ("0 0 29 2 *", "2096-02-29T00:00:00Z"),
        ("* * * 1 1 *", "2099-01-01T23:59:59Z"),
        ("at 2026-12-24T18:00:00Z", "2026-12-24T18:00:00Z"),
    ] {
        assert_eq!(schedule(when).last_between(from, until), Some(at(expected)), "{when}");
    }
    assert_eq!(schedule("0 3 * * *").last_between(at("2026-01-01T03:00:00Z"), at("2026-01-02T02:59:59Z")), None);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

proptest! {
    #[test]
    fn the_last_due_time_is_the_one_that_counting_ends_at(
        when in prop::sample::select(vec!["every 7s", "every 1h", "*/5 * * * *", "0 3 * * MON", "7,8 3,4 * * * *", "0 0 31 * *", "at 2026-01-03T00:00:00Z"]),
        start in 0_i64..200_000,
        seconds in 0_i64..400_000,
    ) {
        let schedule = schedule(when);
        let from = at("2026-01-01T00:00:00Z").checked_add(SignedDuration::from_secs(start)).expect("in range");
        let until = from.checked_add(SignedDuration::from_secs(seconds)).expect("in range");
        let (mut last, mut next) = (None, from);
        while let Some(due) = schedule.next_after(next).filter(|due| *due <= until) {
            (last, next) = (Some(due), due);
        }
        prop_assert_eq!(schedule.last_between(from, until), last);
    }

    #[test]
    fn a_run_begins_within_its_jitter_and_before_the_next_is_due(
        when in prop::sample::select(vec!["every 7s", "*/5 * * * *", "0 3 * * MON", "at 2099-01-03T00:00:00Z"]),
        jitter in 0_u32..86_400,
        start in 0_i64..20_000_000,
    ) {
        let mut schedule = schedule(when);
        schedule.jitter_seconds = jitter;
        let from = at("2026-01-01T00:00:00Z").checked_add(SignedDuration::from_secs(start)).expect("in range");
        let due = schedule.next_after(from).expect("due");
        let begin = schedule.begin_of(due, &node("a"));
        prop_assert!(begin >= due && begin.duration_since(due) <= SignedDuration::from_secs(i64::from(jitter)));
        prop_assert!(schedule.next_after(due).is_none_or(|next| begin < next));
        prop_assert_eq!(begin, schedule.begin_of(due, &node("a")), "it is always the same");
    }
}

#[test]
fn nodes_and_days_spread_over_the_jitter() {
    let mut schedule = schedule("0 3 * * *");
    schedule.jitter_seconds = 1000;
    let mut due = at("2026-01-01T00:00:00Z");
    let mut seconds = Vec::new();
    for number in 0..1000 {
        due = schedule.next_after(due).expect("due");
        seconds.push(schedule.begin_of(due, &node(&format!("n{}", number % 3))).duration_since(due).as_secs());
    }
    for tenth in 0..10 {
        let count = seconds.iter().filter(|second| **second / 100 == tenth).count();
        assert!((50..150).contains(&count), "{count} begin in part {tenth}");
    }
    let one_day: std::collections::BTreeSet<_> = (0..10).map(|n| schedule.begin_of(due, &node(&format!("n{n}")))).collect();
    assert!(one_day.len() > 8);
}
