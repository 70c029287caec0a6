//! Cron expressions, and when they are due in a time zone.
//!
//! A local time that the clock skips counts at the moment it goes on; one that comes twice counts the first time. Where the hour is
//! not restricted, what is meant is a rhythm, which goes on through both: each moment whose local time fits counts. Every search ends: it
//! looks at the days of one cycle of the calendar at most, and an expression that no day of it meets is refused when it is read.

use std::{fmt, str::FromStr};

use jiff::{
    Timestamp, ToSpan,
    civil::{Date, DateTime, Time, date},
    tz::{AmbiguousOffset, TimeZone},
};

use crate::{
    error::EdgeError,
    limits::WHEN_BYTES_MAX,
    schedule::field::{HOUR, MINUTE, MONTH, MonthDays, SECOND, WeekDays},
};

/// Days after which the calendar repeats, weekdays included.
const CYCLE_DAYS: u32 = 146_097;
/// The set of every hour.
const EVERY_HOUR: u64 = (1 << 24) - 1;
/// Short words for expressions.
const WORDS: [(&str, &str); 6] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// A cron expression: minute, hour, day of month, month and day of week, with the second before them if there are six fields. It is due at
/// least once in the cycle of the calendar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    text: String,
    seconds: u64,
    minutes: u64,
    hours: u64,
    month_days: MonthDays,
    months: u64,
    week_days: WeekDays,
}

impl Cron {
    /// The first moment after another that it is due; none after the year 9999.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        if self.hours == EVERY_HOUR { self.next_of_rhythm(after, zone) } else { self.next_of_day(after, zone) }
    }

    /// The next moment at which the local time fits.
    fn next_of_rhythm(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut changes = zone.following(after);
        let mut offset = zone.to_offset(after);
        let mut from = next_second(offset.to_datetime(after))?;
        let mut local = self.next_local(from)?;
        loop {
            let due = offset.to_timestamp(local).ok()?;
            match changes.next() {
                Some(change) if due >= change.timestamp() => {
                    offset = change.offset();
                    let there = offset.to_datetime(change.timestamp());
                    // What was found first from there on is still the first: what is rare is looked for once, and not at each change.
                    if !(from..=local).contains(&there) {
                        from = there;
                        local = self.next_local(from)?;
                    }
                }
                _ => return Some(due),
            }
        }
    }

    /// The next moment at which a local time that fits comes for the first time, or would have come had the clock not skipped it.
    fn next_of_day(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut from = next_second(zone.to_datetime(after))?;
        loop {
            let local = self.next_local(from)?;
            let due = moment(local, zone)?;
            if due > after {
                return Some(due);
            }
            from = next_second(local)?;
        }
    }

    /// The first local time that fits, from this one on.
    fn next_local(&self, from: DateTime) -> Option<DateTime> {
        let mut day = from.date();
        for _ in 0..=CYCLE_DAYS {
            if !has(self.months, day.month()) {
                day = day.last_of_month().tomorrow().ok()?;
                continue;
            }
            if self.has_day(day) {
                let earliest = if day == from.date() { from.time() } else { Time::midnight() };
                if let Some(time) = self.time_from(earliest) {
                    return Some(day.to_datetime(time));
                }
            }
            day = day.tomorrow().ok()?;
        }
        None
    }

    /// Whether a day meets both fields of days. Where both say something, one of them is enough, as in every cron.
    fn has_day(&self, day: Date) -> bool {
        let is_last_week = day.day() + 7 > day.days_in_month();
        let weekday = day.weekday().to_sunday_zero_offset();
        let number = usize::try_from((day.day() - 1) / 7).expect("a day is at least 1");
        let Self { month_days, week_days, .. } = self;
        let of_month = has(month_days.days, day.day()) || (month_days.last && day.day() == day.days_in_month());
        let of_week = has(week_days.days | week_days.numbered[number], weekday) || (is_last_week && has(week_days.last, weekday));
        if month_days.is_starred || week_days.is_starred { of_month && of_week } else { of_month || of_week }
    }

    /// The first time of a day that fits, from this one on.
    fn time_from(&self, from: Time) -> Option<Time> {
        let (mut hour, mut minute, mut second) = (from.hour(), from.minute(), from.second());
        loop {
            let next = first(self.hours, hour)?;
            if next != hour {
                (hour, minute, second) = (next, 0, 0);
            }
            let Some(next) = first(self.minutes, minute) else {
                (hour, minute, second) = (hour + 1, 0, 0);
                continue;
            };
            if next != minute {
                (minute, second) = (next, 0);
            }
            if let Some(second) = first(self.seconds, second) {
                return Some(Time::constant(hour, minute, second, 0));
            }
            (minute, second) = (minute + 1, 0);
        }
    }

    fn is_ever_due(&self) -> bool {
        self.next_local(date(2000, 1, 1).to_datetime(Time::midnight())).is_some()
    }
}

/// When a local time comes: the first of two times, or the moment at which the clock goes on when it skips it.
fn moment(local: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(local).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(local).ok(),
        AmbiguousOffset::Gap { before, .. } => {
            let past = before.to_timestamp(local).ok()?.checked_add(1.nanosecond()).ok()?;
            zone.preceding(past).next().map(|change| change.timestamp())
        }
    }
}

/// The first whole second after a local time.
fn next_second(local: DateTime) -> Option<DateTime> {
    let whole = local.with().subsec_nanosecond(0).build().ok()?;
    whole.checked_add(1.second()).ok()
}

fn has(set: u64, value: i8) -> bool {
    set >> value & 1 == 1
}

/// The least value of a set from this one on.
fn first(set: u64, from: i8) -> Option<i8> {
    let rest = set >> from;
    (rest != 0).then(|| from + i8::try_from(rest.trailing_zeros()).expect("a set has 64 bits"))
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Cron {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        if text.len() > WHEN_BYTES_MAX {
            return Err(EdgeError::invalid(format!("a cron expression has at most {WHEN_BYTES_MAX} bytes, not {}", text.len())));
        }
        let refused = |why: &str| EdgeError::invalid(format!("cron `{}`: {why}", text.escape_debug()));
        let meaning = match text.strip_prefix('@') {
            None => text,
            Some(_) => WORDS.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning).ok_or_else(|| {
                let words: Vec<_> = WORDS.iter().map(|(word, _)| *word).collect();
                refused(&format!("there is no such word; write {}, or fields", words.join(", ")))
            })?,
        };
        let fields: Vec<_> = meaning.split_ascii_whitespace().collect();
        let (second, rest) = match fields.as_slice() {
            [second, rest @ ..] if rest.len() == 5 => (*second, rest),
            rest => ("0", rest),
        };
        let &[minute, hour, month_day, month, week_day] = rest else {
            let count = fields.len();
            return Err(refused(&format!(
                "it has {count} fields; write minute, hour, day of month, month and day of week, and the second before them if you want"
            )));
        };
        let read = || -> Result<Self, EdgeError> {
            Ok(Self {
                text: text.split_ascii_whitespace().collect::<Vec<_>>().join(" "),
                seconds: SECOND.set(second)?,
                minutes: MINUTE.set(minute)?,
                hours: HOUR.set(hour)?,
                month_days: MonthDays::read(month_day)?,
                months: MONTH.set(month)?,
                week_days: WeekDays::read(week_day)?,
            })
        };
        let cron = read().map_err(|error| refused(&error.to_string()))?;
        if !cron.is_ever_due() {
            return Err(refused("it is never due: no day of any year meets its day, month and day of week"));
        }
        Ok(cron)
    }
}

#[cfg(test)]
mod tests;
