//! Costs inside one process, as `crates/runtime/benches/in_process.rs` and `crates/sync/benches/documents.rs` tell them: each round
//! starts it anew.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::bench::Bench;
use crate::bench::row::{Row, Target, Unit};
use crate::process::output;

/// Nanoseconds by name, one value for each round.
pub(super) type Values = HashMap<String, Vec<f64>>;

impl Bench<'_> {
    fn in_process(&self, what: &str, program: &Path, part: &str) -> Result<Values> {
        self.told_by(what, Command::new(program).arg(part))
    }

    /// What a program prints, started anew for each round.
    pub(super) fn told_by(&self, what: &str, command: &mut Command) -> Result<Values> {
        let mut values = Values::new();
        for round in 0..self.rounds {
            self.step(what, round);
            let text = output(command)?;
            for (name, value) in read(&text) {
                values.entry(name.to_owned()).or_default().push(value);
            }
        }
        Ok(values)
    }
}

fn read(text: &str) -> impl Iterator<Item = (&str, f64)> {
    text.lines().filter_map(|line| {
        let (name, value) = line.split_once(' ')?;
        Some((name, value.parse().ok()?))
    })
}

/// The values under this name, in a unit of so many nanoseconds.
pub(super) fn take(values: &Values, name: &str, nanoseconds: f64) -> Result<Vec<f64>> {
    let values = values.get(name).with_context(|| format!("failed to find `{name}` in what the bench printed"))?;
    Ok(values.iter().map(|value| value / nanoseconds).collect())
}

pub(crate) fn native(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let what = "`invoke` of an empty native handler, over the bare call";
    let values = bench.in_process(what, bench.artifacts.in_process()?, "native")?;
    let (invoke, bare) = (take(&values, "native_invoke", 1.0)?, take(&values, "bare_call", 1.0)?);
    Ok(vec![Row::difference(what, Target::AtMost(2000.0), Unit::Nanoseconds, &invoke, ("bare call", &bare))])
}

pub(crate) fn instantiate(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let what = "instantiate, Rust hello, WASI and limits on, p50";
    let values = bench.in_process(what, bench.artifacts.in_process()?, "instantiate")?;
    let alone = |what: &str, target, name| anyhow::Ok(Row::alone(what, target, Unit::Microseconds, &take(&values, name, 1e3)?));
    Ok(vec![
        alone(what, Target::AtMost(15.0), "instantiate")?,
        alone("drop of that sandbox, p50", Target::None, "drop")?,
        alone("whole `invoke` of the Rust hello, p50", Target::None, "hello_invoke")?,
    ])
}

pub(crate) fn metrics(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let values = bench.in_process("`EdgeMetrics::record`", bench.artifacts.in_process()?, "metrics")?;
    let alone = |what: &str, most, name| anyhow::Ok(Row::alone(what, Target::AtMost(most), Unit::Nanoseconds, &take(&values, name, 1.0)?));
    Ok(vec![
        alone("`EdgeMetrics::record`, one thread", 50.0, "record_one_thread")?,
        alone("`EdgeMetrics::record`, two threads", 100.0, "record_two_threads")?,
    ])
}

pub(crate) fn routing(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let what = "a call by the name of a function that is in this process, over the call of its node";
    let values = bench.in_process(what, bench.artifacts.calls()?, "run")?;
    let (routed, direct) = (take(&values, "routed", 1e3)?, take(&values, "direct", 1e3)?);
    Ok(vec![Row::difference(what, Target::AtMost(5.0), Unit::Microseconds, &routed, ("the call of its node", &direct))])
}

pub(crate) fn documents(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let part = |what: &str, part: &str| bench.in_process(what, bench.artifacts.documents()?, part);
    let mut rows = Vec::new();
    for (who, target, each, ours, peer, name) in [
        ("one thread", 0.9, "writes", "write_one", "bare_one", "bare rusqlite, the same row"),
        ("64 writers", 0.5, "writers", "write_many", "bare_many", "bare rusqlite, 64 rows a transaction"),
    ] {
        let what = format!("durable writes of one key, {who}");
        let values = part(&what, each)?;
        let rate = |name| anyhow::Ok(take(&values, name, 1.0)?.into_iter().map(|nanoseconds| 1e9 / nanoseconds).collect::<Vec<_>>());
        let (ours, peer) = (rate(ours)?, rate(peer)?);
        rows.push(Row::ratio(what, Target::AtLeast(target), Unit::WritesPerSecond, &ours, (name, &peer)));
    }
    let what = "one changed key of 10,000: frame and acknowledgement";
    let values = part(what, "sizes")?;
    rows.push(Row::alone(what, Target::AtMost(150.0), Unit::Bytes, &take(&values, "changed_key_bytes", 1.0)?));
    let overwritten = "100 keys after 100,000 overwrites";
    let sizes = [("logical", 16.0, "overwritten_logical_bytes"), ("on disk", 128.0, "overwritten_disk_bytes")];
    for (size, most, name) in sizes {
        let kilobytes = take(&values, name, 1024.0)?;
        rows.push(Row::alone(format!("{overwritten}, {size}"), Target::AtMost(most), Unit::Kilobytes, &kilobytes));
    }
    let what = "two replicas in memory, 5,000 edits each while apart: exchange and merge";
    let values = part(what, "merge")?;
    let (ours, peer) = (take(&values, "merge", 1e6)?, take(&values, "merge_yrs", 1e6)?);
    rows.push(Row::ratio(what, Target::AtMost(0.65), Unit::Milliseconds, &ours, ("yrs", &peer)));
    let what = "opening a store of 600,000 entries, to its first answer";
    rows.push(Row::alone(what, Target::AtMost(10.0), Unit::Milliseconds, &take(&part(what, "reopen")?, "reopen", 1e6)?));
    let what = "reconnect after 100,000 offline writes, to converged and durable";
    rows.push(Row::alone(what, Target::AtMost(3000.0), Unit::Milliseconds, &take(&part(what, "reconnect")?, "reconnect", 1e6)?));
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_name_and_a_number_are_values_and_others_are_not() {
        assert_eq!(read("a 1.5\nnothing here\n\nb 2\n").collect::<Vec<_>>(), [("a", 1.5), ("b", 2.0)]);
    }
}
