//! One field of a cron expression: lists of values, names, ranges and steps, as a set of bits.

use crate::error::EdgeError;

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// What a field may hold. Value `n` is bit `n` of a set.
pub(super) struct Field {
    name: &'static str,
    low: u8,
    high: u8,
    /// The names of values, from `low` on.
    names: &'static [&'static str],
}

pub(super) const SECOND: Field = Field { name: "second", low: 0, high: 59, names: &[] };
pub(super) const MINUTE: Field = Field { name: "minute", low: 0, high: 59, names: &[] };
pub(super) const HOUR: Field = Field { name: "hour", low: 0, high: 23, names: &[] };
pub(super) const DAY: Field = Field { name: "day of month", low: 1, high: 31, names: &[] };
pub(super) const MONTH: Field = Field { name: "month", low: 1, high: 12, names: &MONTHS };
/// Sunday is 0 and 7 in text; in a set it is bit 0.
pub(super) const WEEKDAY: Field = Field { name: "day of week", low: 0, high: 7, names: &WEEKDAYS };
/// Which of its kind a weekday is in its month.
const ORDINAL: Field = Field { name: "number of a weekday", low: 1, high: 5, names: &[] };

/// Days of a month.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct MonthDays {
    pub(super) days: u64,
    /// Whether the last day of the month is one of them.
    pub(super) last: bool,
    /// Whether the field begins with `*`: then it takes nothing away from the other field of days.
    pub(super) is_starred: bool,
}

/// Days of a week.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WeekDays {
    pub(super) days: u64,
    /// Those of which only the first, second, … of a month counts.
    pub(super) numbered: [u64; 5],
    /// Those of which only the last of a month counts.
    pub(super) last: u64,
    /// As in [`MonthDays`].
    pub(super) is_starred: bool,
}

impl Field {
    /// The set of a whole field.
    pub(super) fn set(&self, text: &str) -> Result<u64, EdgeError> {
        text.split(',').try_fold(0, |set, item| Ok(set | self.item(item)?))
    }

    /// The set of a value, a range, or one of these with a step.
    fn item(&self, text: &str) -> Result<u64, EdgeError> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(self.step(step)?)),
            None => (text, None),
        };
        let (low, high) = match range.split_once('-') {
            None if range == "*" => (self.low, if self.high == 7 { 6 } else { self.high }),
            // As others read it: `5/15` is `5-59/15`.
            None if step.is_some() => (self.value(range)?, if self.high == 7 { 6 } else { self.high }),
            None => (self.value(range)?, self.value(range)?),
            Some((low, high)) => {
                let (low, high) = (self.value(low)?, self.value(high)?);
                // A week that ends with its Sunday.
                (low, if self.high == 7 && high == 0 && low > 0 { 7 } else { high })
            }
        };
        if low > high {
            let name = self.name;
            return Err(EdgeError::invalid(format!(
                "`{range}` of the {name} ends before it begins; write two ranges with a comma between them"
            )));
        }
        let set = (low..=high).step_by(usize::from(step.unwrap_or(1))).fold(0, |set, value| set | 1_u64 << value);
        Ok(if self.high == 7 { (set & 0x7f) | (set >> 7) } else { set })
    }

    fn step(&self, text: &str) -> Result<u8, EdgeError> {
        let most = self.high - self.low + 1;
        number(text).filter(|step| (1..=most).contains(step)).ok_or_else(|| {
            EdgeError::invalid(format!("the step `{}` of the {} is no number from 1 to {most}", text.escape_debug(), self.name))
        })
    }

    fn value(&self, text: &str) -> Result<u8, EdgeError> {
        let named = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let named = named.and_then(|index| u8::try_from(index).ok()).map(|index| self.low + index);
        named.or_else(|| number(text)).filter(|value| (self.low..=self.high).contains(value)).ok_or_else(|| self.refused(text))
    }

    fn refused(&self, text: &str) -> EdgeError {
        let Self { name, low, high, names } = self;
        let named = match (names.first(), names.last()) {
            (Some(first), Some(last)) => format!(", or {first} to {last}"),
            _ => String::new(),
        };
        EdgeError::invalid(format!("`{}` is no {name}: write {low} to {high}{named}, `*`, ranges, lists or steps", text.escape_debug()))
    }
}

impl MonthDays {
    /// Reads the field, which besides days may hold `L`, the last day of a month.
    pub(super) fn read(text: &str) -> Result<Self, EdgeError> {
        let mut read = Self { is_starred: text.starts_with('*'), ..Self::default() };
        for item in text.split(',') {
            if item.eq_ignore_ascii_case("L") {
                read.last = true;
            } else {
                read.days |= DAY.item(item)?;
            }
        }
        Ok(read)
    }
}

impl WeekDays {
    /// Reads the field, which besides days may hold `MON#1`, the first Monday of a month, and `FRIL` or `5L`, its last Friday.
    pub(super) fn read(text: &str) -> Result<Self, EdgeError> {
        let mut read = Self { is_starred: text.starts_with('*'), ..Self::default() };
        for item in text.split(',') {
            if let Some((day, ordinal)) = item.split_once('#') {
                read.numbered[usize::from(ORDINAL.value(ordinal)? - 1)] |= WEEKDAY.single(day)?;
            } else if let Some(day) = item.strip_suffix(['L', 'l'])
                && !day.is_empty()
            {
                read.last |= WEEKDAY.single(day)?;
            } else {
                read.days |= WEEKDAY.item(item)?;
            }
        }
        Ok(read)
    }
}

impl Field {
    /// The set of one value.
    fn single(&self, text: &str) -> Result<u64, EdgeError> {
        self.value(text)?;
        self.item(text)
    }
}

/// A number of one or two digits and nothing else.
fn number(text: &str) -> Option<u8> {
    let is_number = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(field: &Field, text: &str) -> Vec<u32> {
        let set = field.set(text).expect(text);
        (0..64).filter(|bit| set >> bit & 1 == 1).collect()
    }

    #[test]
    fn lists_ranges_steps_and_names_are_sets_of_values() {
        for (field, text, expected) in [
            (&MINUTE, "*/15", vec![0, 15, 30, 45]),
            (&MINUTE, "5/20", vec![5, 25, 45]),
            (&MINUTE, "1-10/3,58", vec![1, 4, 7, 10, 58]),
            (&HOUR, "07", vec![7]),
            (&MONTH, "jan-Mar,DEC", vec![1, 2, 3, 12]),
            (&WEEKDAY, "MON-FRI", vec![1, 2, 3, 4, 5]),
            (&WEEKDAY, "7", vec![0]),
            (&WEEKDAY, "0-7", vec![0, 1, 2, 3, 4, 5, 6]),
            (&WEEKDAY, "SAT-SUN", vec![0, 6]),
            (&WEEKDAY, "*/2", vec![0, 2, 4, 6]),
            (&DAY, "31", vec![31]),
        ] {
            assert_eq!(values(field, text), expected, "{} {text}", field.name);
        }
    }

    #[test]
    fn what_is_no_value_is_refused_with_what_would_be_one() {
        for (field, text, why) in [
            (&MINUTE, "60", "`60` is no minute: write 0 to 59"),
            (&MINUTE, "", "`` is no minute"),
            (&MINUTE, "1,,2", "`` is no minute"),
            (&MINUTE, "-5", "`` is no minute"),
            (&MINUTE, "+5", "`+5` is no minute"),
            (&MINUTE, "005", "`005` is no minute"),
            (&MINUTE, "*/0", "the step `0` of the minute is no number from 1 to 60"),
            (&MINUTE, "*/61", "from 1 to 60"),
            (&MINUTE, "*/", "the step `` of"),
            (&MINUTE, "1/2/3", "the step `2/3`"),
            (&MINUTE, "30-10", "ends before it begins"),
            (&DAY, "0", "`0` is no day of month: write 1 to 31"),
            (&DAY, "?", "`?` is no day of month"),
            (&DAY, "15W", "`15W` is no day of month"),
            (&MONTH, "MAI", "`MAI` is no month: write 1 to 12, or JAN to DEC"),
            (&WEEKDAY, "FRI-MON", "ends before it begins; write two ranges"),
            (&WEEKDAY, "8", "`8` is no day of week"),
        ] {
            let error = field.set(text).expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        for (text, why) in
            [("MON#6", "`6` is no number of a weekday"), ("MON-FRI#1", "`MON-FRI` is no day of week"), ("L", "no day of week")]
        {
            assert!(WeekDays::read(text).expect_err(text).to_string().contains(why), "{text}");
        }
    }
}
