//! Cron expressions by example, against a search that looks at every second or minute, and around changes of the clock.

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().expect(text)
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).expect(name)
}

fn cron(text: &str) -> Cron {
    text.parse().expect(text)
}

/// The next times as local text with their offset.
fn due(text: &str, name: &str, after: &str, count: usize) -> Vec<String> {
    let (cron, zone) = (cron(text), zone(name));
    let mut now = at(after);
    let mut next = || {
        now = cron.next_after(now, &zone)?;
        Some(now.display_with_offset(zone.to_offset(now)).to_string())
    };
    (0..count).map_while(|_| next()).collect()
}

#[test]
fn an_expression_is_due_when_its_fields_say() {
    for (text, after, expected) in [
        ("*/15 * * * *", "2026-01-01T00:00:00Z", vec!["2026-01-01T00:15:00+00:00", "2026-01-01T00:30:00+00:00"]),
        ("30 3 * * MON-FRI", "2026-01-02T03:30:00Z", vec!["2026-01-05T03:30:00+00:00", "2026-01-06T03:30:00+00:00"]),
        ("*/20 * * * * *", "2026-01-01T00:00:41.5Z", vec!["2026-01-01T00:01:00+00:00", "2026-01-01T00:01:20+00:00"]),
        ("59 59 23 31 12 *", "2026-01-01T00:00:00Z", vec!["2026-12-31T23:59:59+00:00", "2027-12-31T23:59:59+00:00"]),
        ("0 12 L * *", "2028-01-31T12:00:00Z", vec!["2028-02-29T12:00:00+00:00", "2028-03-31T12:00:00+00:00"]),
        ("0 12 * * FRI#2,SUNL", "2026-01-01T00:00:00Z", vec!["2026-01-09T12:00:00+00:00", "2026-01-25T12:00:00+00:00"]),
        ("0 12 * * 6L", "2026-01-01T00:00:00Z", vec!["2026-01-31T12:00:00+00:00", "2026-02-28T12:00:00+00:00"]),
        ("0 0 29 2 *", "2096-03-01T00:00:00Z", vec!["2104-02-29T00:00:00+00:00"]),
        ("0 0 29 2 *", "9999-01-01T00:00:00Z", vec![]),
        // One of two fields of days is enough, but a field that begins with `*` takes nothing away.
        ("0 0 13 * FRI", "2026-02-01T00:00:00Z", vec!["2026-02-06T00:00:00+00:00", "2026-02-13T00:00:00+00:00"]),
        ("0 12 */2 * 0,6", "2026-01-03T12:00:00Z", vec!["2026-01-11T12:00:00+00:00", "2026-01-17T12:00:00+00:00"]),
        ("0 12 1-31/2 * 0,6", "2026-01-03T12:00:00Z", vec!["2026-01-04T12:00:00+00:00", "2026-01-05T12:00:00+00:00"]),
        ("@weekly", "2026-01-01T00:00:00Z", vec!["2026-01-04T00:00:00+00:00"]),
    ] {
        assert_eq!(due(text, "UTC", after, expected.len().max(1)), expected, "{text}");
    }
}

#[test]
fn a_time_that_the_clock_skips_counts_once_when_it_goes_on() {
    // In Berlin it is 03:00 after 01:59:59 on this day, in New York 03:00 after 01:59:59.
    for (name, eve, gap, next) in [
        ("Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"),
        ("America/New_York", "2026-03-07T12:00:00Z", "2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"),
    ] {
        assert_eq!(due("30 2 * * *", name, eve, 2), [gap, next]);
        assert_eq!(due("0 2 * * *", name, eve, 1), [gap], "the first time that is skipped is one of them");
        let several = due("0,15,30 2 * * *", name, eve, 2);
        assert_eq!(several[0], gap, "three times that are skipped count once");
        assert!(several[1].as_str() < next && several[1].contains("T02:00:00"), "{several:?}");
        assert_eq!(due("0 2,3 * * *", name, eve, 2)[0], gap);
        assert!(due("0 2,3 * * *", name, eve, 2)[1].as_str() > gap, "it comes once, though 02:00 and 03:00 fall together");
    }
    // A whole day that Samoa skipped, with all its hours.
    let days = due("0 8,20 * * *", "Pacific/Apia", "2011-12-29T12:00:00Z", 4);
    assert_eq!(days[..3], ["2011-12-29T08:00:00-10:00", "2011-12-29T20:00:00-10:00", "2011-12-31T00:00:00+14:00"]);
    assert_eq!(days[3], "2011-12-31T08:00:00+14:00");
}

#[test]
fn a_time_that_comes_twice_counts_the_first_time() {
    for (name, eve, first, next) in [
        ("Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"),
        ("America/New_York", "2026-10-31T12:00:00Z", "2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"),
    ] {
        let hour = if name == "Europe/Berlin" { 2 } else { 1 };
        assert_eq!(due(&format!("30 {hour} * * *"), name, eve, 2), [first, next]);
        let minutes = due(&format!("*/20 {hour} * * *"), name, eve, 4);
        assert!(minutes[..3].iter().all(|time| time[..10] == first[..10]) && minutes[3][..10] == next[..10], "{minutes:?}");
    }
    // Asked in the middle of the second time, it does not come again.
    assert_eq!(due("*/20 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", 1), ["2026-10-26T02:00:00+01:00"]);
}

#[test]
fn a_rhythm_goes_on_through_every_change_of_the_clock() {
    for (name, eve) in [
        ("Europe/Berlin", "2026-03-28T22:00:00Z"),
        ("Europe/Berlin", "2026-10-24T22:00:00Z"),
        ("America/New_York", "2026-03-08T03:00:00Z"),
        ("America/New_York", "2026-11-01T03:00:00Z"),
    ] {
        for (text, minutes) in [("*/15 * * * *", 15), ("30 * * * *", 60), ("@hourly", 60)] {
            let (cron, zone) = (cron(text), zone(name));
            let mut now = cron.next_after(at(eve), &zone).expect("due");
            for _ in 0..40 {
                let next = cron.next_after(now, &zone).expect("due");
                assert_eq!(next.duration_since(now).as_mins(), minutes, "{text} in {name} after {now}");
                now = next;
            }
        }
    }
}

#[test]
fn a_rhythm_goes_by_the_local_time_after_the_clock_was_put_back_by_half_an_hour() {
    // On Lord Howe it is 01:30 at the moment that would have been 02:00.
    let times = due("0 * * * *", "Australia/Lord_Howe", "2026-04-04T13:30:00Z", 3);
    assert_eq!(times, ["2026-04-05T01:00:00+11:00", "2026-04-05T02:00:00+10:30", "2026-04-05T03:00:00+10:30"]);
}

#[test]
fn what_is_never_due_is_refused_in_bounded_time() {
    let started = std::time::Instant::now();
    for text in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "* * * * 31 2 *", "0 0 30-31 FEB *"] {
        let error = text.parse::<Cron>().expect_err(text).to_string();
        assert!(error.contains("never due") || error.contains("7 fields"), "{text}: {error}");
    }
    // A day that is rare is not refused: 29 February on a Monday, which a field that begins with `*` asks for.
    assert_eq!(due("0 0 */28 2 MON#5", "UTC", "2027-01-01T00:00:00Z", 1), ["2044-02-29T00:00:00+00:00"]);
    assert!(started.elapsed() < std::time::Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn what_is_no_expression_is_refused_with_the_reason() {
    for (text, why) in [
        ("", "it has 0 fields"),
        ("* * * *", "it has 4 fields; write minute, hour"),
        ("* * * * * * *", "it has 7 fields"),
        ("@reboot", "there is no such word; write @hourly, @daily"),
        ("0 25 * * *", "cron `0 25 * * *`: `25` is no hour: write 0 to 23"),
        (&"1,".repeat(200), "at most 256 bytes"),
    ] {
        let error = text.parse::<Cron>().expect_err(text).to_string();
        assert!(error.contains(why), "{text}: {error}");
    }
    assert_eq!(cron(" 0  3 *\t* mon ").to_string(), "0 3 * * mon");
}

/// Whether a local time meets an expression, told the slow way: by the numbers that the text names.
fn meets(cron: &Cron, local: DateTime) -> bool {
    has(cron.seconds, local.second())
        && has(cron.minutes, local.minute())
        && has(cron.hours, local.hour())
        && has(cron.months, local.month())
        && cron.has_day(local.date())
}

/// All moments of a span that are due, found by looking at every minute of it.
fn by_looking(cron: &Cron, zone: &TimeZone, from: Timestamp, minutes: i64) -> Vec<Timestamp> {
    let is_rhythm = cron.hours == EVERY_HOUR;
    let mut seen = std::collections::BTreeSet::new();
    let mut found = Vec::new();
    let mut before = zone.to_datetime(from.checked_sub(6.hours()).expect("in range"));
    for minute in -6 * 60..=minutes {
        let now = from.checked_add(minute.minutes()).expect("in range");
        let local = zone.to_datetime(now);
        // What the clock passed since the minute before: more than this one where it skipped some.
        let mut passed = Vec::new();
        let mut skipped = before.checked_add(1.minute()).expect("in range");
        while skipped < local && !is_rhythm {
            passed.push(skipped);
            skipped = skipped.checked_add(1.minute()).expect("in range");
        }
        passed.push(local);
        let is_new = |local: &DateTime| is_rhythm || seen.insert(*local);
        let is_due = passed.into_iter().filter(is_new).any(|local| meets(cron, local));
        if is_due && minute > 0 {
            found.push(now);
        }
        before = local;
    }
    found
}

fn expressions() -> impl Strategy<Value = String> {
    let field = |low: u8, high: u8| {
        prop_oneof![
            3 => Just("*".to_owned()),
            2 => (low..=high).prop_map(|value| value.to_string()),
            1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            1 => (2_u8..=6).prop_map(|step| format!("*/{step}")),
            1 => (low..=high, low..=high).prop_map(|(a, b)| format!("{a},{b}")),
        ]
    };
    let week_day = prop_oneof![4 => field(0, 7), 1 => (0_u8..7, 1_u8..=5).prop_map(|(day, n)| format!("{day}#{n}")), 1 => (0_u8..7).prop_map(|day| format!("{day}L"))];
    let month_day = prop_oneof![4 => field(1, 31), 1 => Just("L".to_owned())];
    (field(0, 59), field(0, 23), month_day, field(1, 12), week_day)
        .prop_map(|(minute, hour, day, month, week_day)| format!("{minute} {hour} {day} {month} {week_day}"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_search_finds_what_looking_at_every_minute_finds(
        text in expressions(),
        name in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
        day in 0_i64..370,
        is_change in any::<bool>(),
    ) {
        let Ok(cron) = text.parse::<Cron>() else { return Ok(()) };
        let zone = zone(name);
        let start = at("2026-01-01T00:00:00Z").checked_add((day * 24).hours()).expect("in range");
        // Half of the spans lie around a change of the clock.
        let change = zone.following(start).next().filter(|_| is_change);
        // A zone without changes ahead has one at the end of its table, at no whole minute.
        let change = change.filter(|change| change.timestamp().as_second() % 60 == 0);
        let from = change.map_or(start, |change| change.timestamp().checked_sub(30.hours()).expect("in range"));
        let minutes = 60 * 60;
        let end = from.checked_add(minutes.minutes()).expect("in range");
        let mut found = Vec::new();
        let mut now = from;
        while let Some(next) = cron.next_after(now, &zone) {
            if next > end {
                break;
            }
            found.push(next);
            now = next;
        }
        let looked = by_looking(&cron, &zone, from, minutes);
        let differs = found.iter().zip(&looked).find(|(found, looked)| found != looked);
        prop_assert!(found == looked, "{} in {} from {}: {:?}, {} and {} of them", text, name, from, differs, found.len(), looked.len());
    }

    #[test]
    fn any_text_is_an_expression_or_an_error(text in "[0-9*/,#L@a-zA-Z -]{0,40}") {
        if let Ok(cron) = text.parse::<Cron>() {
            prop_assert_eq!(cron.to_string().parse::<Cron>().expect("its own text"), cron);
        }
    }
}
