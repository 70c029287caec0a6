//! What an instrument showed at one moment.

use crate::instruments::{Instrument, Kind};
use edgeward_model::limits::METRIC_POINTS_MAX;

/// Stands for the attributes of what is not counted apart. No id has parentheses.
pub const OTHERS: &str = "(others)";

/// A number of one instrument.
#[derive(Clone, Debug, PartialEq)]
pub enum Number {
    /// A count, or a whole amount.
    Whole(u64),
    /// Any other amount.
    Real(f64),
    /// How many of which size.
    Distribution(Distribution),
}

/// Values by size.
#[derive(Clone, Debug, PartialEq)]
pub struct Distribution {
    /// Values.
    pub count: u64,
    /// What they add up to.
    pub sum: f64,
    /// Upper edges of the buckets, which belong to them; one more bucket has what is above.
    pub bounds: &'static [f64],
    /// Values in each bucket alone.
    pub counts: Vec<u64>,
}

/// A number, and what it is of.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// In the order of the attributes of the instrument.
    pub attributes: Vec<String>,
    /// The number.
    pub number: Number,
}

/// What one instrument showed. It has [`METRIC_POINTS_MAX`] points at most.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The instrument.
    pub instrument: &'static Instrument,
    /// Its numbers.
    pub points: Vec<Point>,
}

impl From<u64> for Number {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<u32> for Number {
    fn from(number: u32) -> Self {
        Self::Whole(number.into())
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self::Whole(number as u64)
    }
}

impl From<bool> for Number {
    fn from(is_so: bool) -> Self {
        Self::Whole(is_so.into())
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl Reading {
    /// An instrument that shows nothing.
    pub fn new(instrument: &'static Instrument) -> Self {
        Self { instrument, points: Vec::new() }
    }

    /// An instrument without attributes.
    pub fn of(instrument: &'static Instrument, number: impl Into<Number>) -> Self {
        let mut reading = Self::new(instrument);
        reading.push([], number);
        reading
    }

    /// Adds a number of these attributes. Past the bound, counts are added up under [`OTHERS`], and gauges, which have no sum, are left out.
    pub fn push<'a>(&mut self, attributes: impl IntoIterator<Item = &'a str>, number: impl Into<Number>) {
        let number = number.into();
        if self.points.len() + 1 < METRIC_POINTS_MAX {
            let attributes: Vec<_> = attributes.into_iter().map(str::to_owned).collect();
            debug_assert_eq!(attributes.len(), self.instrument.attributes.len(), "of {}", self.instrument.name);
            self.points.push(Point { attributes, number });
        } else if self.instrument.kind != Kind::Gauge {
            self.push_other(number);
        }
    }

    /// Adds a number of what is not counted apart.
    pub fn push_other(&mut self, number: impl Into<Number>) {
        let number = number.into();
        let is_others = |point: &&mut Point| point.attributes.iter().all(|value| value == OTHERS);
        match self.points.last_mut().filter(is_others) {
            Some(others) => others.number.add(number),
            None => self.points.push(Point { attributes: vec![OTHERS.to_owned(); self.instrument.attributes.len()], number }),
        }
    }
}

impl Number {
    fn add(&mut self, other: Self) {
        match (self, other) {
            (Self::Whole(sum), Self::Whole(number)) => *sum = sum.saturating_add(number),
            (Self::Real(sum), Self::Real(number)) => *sum += number,
            (Self::Distribution(sum), Self::Distribution(number)) => {
                sum.count += number.count;
                sum.sum += number.sum;
                sum.counts.iter_mut().zip(number.counts).for_each(|(mine, theirs)| *mine += theirs);
            }
            _ => debug_assert!(false, "numbers of one instrument are of one form"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruments::{INVOCATIONS, ROUTE_LATENCY};

    #[test]
    fn past_the_bound_counts_are_added_up_and_gauges_are_left_out() {
        let (mut counts, mut gauges) = (Reading::new(&INVOCATIONS), Reading::new(&ROUTE_LATENCY));
        for number in 0..METRIC_POINTS_MAX + 10 {
            counts.push([&*format!("f{number}"), "n"], 1_u64);
            gauges.push([&*format!("f{number}"), "n"], 1.0);
        }
        assert_eq!((counts.points.len(), gauges.points.len()), (METRIC_POINTS_MAX, METRIC_POINTS_MAX - 1));
        assert_eq!(counts.points.last(), Some(&Point { attributes: vec![OTHERS.to_owned(); 2], number: Number::Whole(11) }));
    }
}
