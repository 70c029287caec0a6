//! One line of the table: two sides, how they compare pair by pair, and whether that is good enough.

/// A number in the middle of what was seen, and the least and the most.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of at least one value; with an even number of them the median is between the two in the middle.
    pub(crate) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let half = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) };
        Self { median, min: sorted[0], max: sorted[sorted.len() - 1] }
    }

    fn text(self, unit: Unit) -> String {
        format!("{} [{}–{}]", unit.text(self.median), unit.number(self.min), unit.number(self.max))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unit {
    RequestsPerSecond,
    WritesPerSecond,
    MessagesPerSecond,
    PerSecond,
    Bytes,
    Kilobytes,
    Nanoseconds,
    Microseconds,
    Milliseconds,
    Megabytes,
    Seconds,
    Cores,
    Nodes,
    Times,
    Percent,
}

impl Unit {
    fn number(self, value: f64) -> String {
        match self {
            Self::RequestsPerSecond | Self::WritesPerSecond | Self::MessagesPerSecond | Self::PerSecond | Self::Bytes | Self::Nodes => {
                format!("{value:.0}")
            }
            Self::Nanoseconds | Self::Microseconds | Self::Kilobytes | Self::Megabytes => format!("{value:.1}"),
            Self::Milliseconds | Self::Seconds | Self::Cores | Self::Times => format!("{value:.2}"),
            Self::Percent => format!("{value:.3}"),
        }
    }

    fn text(self, value: f64) -> String {
        let number = self.number(value);
        match self {
            Self::RequestsPerSecond => format!("{number} req/s"),
            Self::WritesPerSecond => format!("{number} writes/s"),
            Self::MessagesPerSecond => format!("{number} messages/s"),
            Self::PerSecond => format!("{number}/s"),
            Self::Bytes => format!("{number} B"),
            Self::Kilobytes => format!("{number} KB"),
            Self::Nanoseconds => format!("{number} ns"),
            Self::Microseconds => format!("{number} µs"),
            Self::Milliseconds => format!("{number} ms"),
            Self::Megabytes => format!("{number} MB"),
            Self::Seconds => format!("{number} s"),
            Self::Cores => format!("{number} cores"),
            Self::Nodes => format!("{number} nodes"),
            Self::Percent => format!("{number} %"),
            Self::Times => format!("{number} ×"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    /// Measured to be known.
    None,
}

/// How two sides are held against each other.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Comparison {
    /// Ours divided by the peer's.
    Ratio(Spread),
    /// Ours less the peer's, in the unit of both.
    Difference(Spread),
    /// There is no other side.
    None,
}

pub(crate) struct Row {
    what: String,
    target: Target,
    unit: Unit,
    ours: Spread,
    peer: Option<(&'static str, Spread)>,
    comparison: Comparison,
}

impl Row {
    /// One side, held against a fixed number.
    pub(crate) fn alone(what: impl Into<String>, target: Target, unit: Unit, ours: &[f64]) -> Self {
        Self { what: what.into(), target, unit, ours: Spread::of(ours), peer: None, comparison: Comparison::None }
    }

    /// Two sides of which the ratio counts; values at the same place are from the same round.
    pub(crate) fn ratio(what: impl Into<String>, target: Target, unit: Unit, ours: &[f64], (name, peer): (&'static str, &[f64])) -> Self {
        let ratios: Vec<_> = ours.iter().zip(peer).map(|(ours, peer)| ours / peer).collect();
        let comparison = Comparison::Ratio(Spread::of(&ratios));
        Self { what: what.into(), target, unit, ours: Spread::of(ours), peer: Some((name, Spread::of(peer))), comparison }
    }

    /// Two sides of which the difference counts.
    pub(crate) fn difference(
        what: impl Into<String>,
        target: Target,
        unit: Unit,
        ours: &[f64],
        (name, peer): (&'static str, &[f64]),
    ) -> Self {
        let differences: Vec<_> = ours.iter().zip(peer).map(|(ours, peer)| ours - peer).collect();
        let comparison = Comparison::Difference(Spread::of(&differences));
        Self { what: what.into(), target, unit, ours: Spread::of(ours), peer: Some((name, Spread::of(peer))), comparison }
    }

    /// The median that counts, and its unit.
    fn judged(&self) -> (f64, Unit) {
        match self.comparison {
            Comparison::Ratio(ratio) => (ratio.median, Unit::Times),
            Comparison::Difference(difference) => (difference.median, self.unit),
            Comparison::None => (self.ours.median, self.unit),
        }
    }

    fn met(&self) -> Option<bool> {
        let (value, _) = self.judged();
        match self.target {
            Target::AtLeast(least) => Some(value >= least),
            Target::AtMost(most) => Some(value <= most),
            Target::None => None,
        }
    }

    fn cells(&self) -> [String; 6] {
        let (_, unit) = self.judged();
        let target = match self.target {
            Target::AtLeast(least) => format!("≥ {}", unit.text(least)),
            Target::AtMost(most) => format!("≤ {}", unit.text(most)),
            Target::None => "none".to_owned(),
        };
        let peer = self.peer.as_ref().map_or_else(|| "–".to_owned(), |(name, peer)| format!("{name}: {}", peer.text(self.unit)));
        let comparison = match self.comparison {
            Comparison::Ratio(ratio) => ratio.text(Unit::Times),
            Comparison::Difference(difference) => format!("+{}", difference.text(self.unit)),
            Comparison::None => "–".to_owned(),
        };
        let met = match self.met() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "–",
        };
        [self.what.clone(), target, self.ours.text(self.unit), peer, comparison, met.to_owned()]
    }

    /// For the terminal.
    pub(crate) fn line(&self) -> String {
        self.cells().join(" · ")
    }

    /// For the table.
    pub(crate) fn markdown(&self) -> String {
        format!("| {} |", self.cells().join(" | "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_and_the_spread_is_what_was_seen() {
        assert_eq!(Spread::of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(Spread::of(&[4.0, 1.0]), Spread { median: 2.5, min: 1.0, max: 4.0 });
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        // The second round was slow for both: the ratio does not notice.
        let row = Row::ratio("x", Target::AtLeast(2.0), Unit::RequestsPerSecond, &[20.0, 10.0, 40.0], ("peer", &[10.0, 5.0, 10.0]));
        assert_eq!(row.judged(), (2.0, Unit::Times));
        assert_eq!(row.met(), Some(true));
        assert_eq!(row.markdown(), "| x | ≥ 2.00 × | 20 req/s [10–40] | peer: 10 req/s [5–10] | 2.00 × [2.00–4.00] | yes |");
    }

    #[test]
    fn a_difference_and_a_number_alone_are_judged_in_their_unit() {
        let over = Row::difference("x", Target::AtMost(1.0), Unit::Microseconds, &[3.0], ("bare", &[1.0]));
        assert_eq!(over.met(), Some(false));
        assert!(over.markdown().ends_with("| +2.0 µs [2.0–2.0] | **no** |"), "{}", over.markdown());
        assert_eq!(Row::alone("x", Target::AtMost(30.0), Unit::Megabytes, &[9.0]).met(), Some(true));
        assert_eq!(Row::alone("x", Target::None, Unit::Megabytes, &[9.0]).met(), None);
    }
}
