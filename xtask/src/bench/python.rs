//! The Python package beside plain Python that does the same, as `benches/python.py` tells them: each round starts it anew.

use std::process::Command;

use anyhow::Result;

use crate::bench::Bench;
use crate::bench::in_process::take;
use crate::bench::row::{Row, Target, Unit};
use crate::wheel;

/// Part of the program, what it measures, how many times faster it should be, its names, and who the peer is.
const PARTS: [(&str, &str, f64, [&str; 2], &str); 4] = [
    (
        "invoke",
        "Python: `invoke` of a trivial handler, with its deadline",
        2.0,
        ["python_invoke", "concurrent_futures"],
        "concurrent.futures",
    ),
    ("record", "Python: an `InvocationRecord` made and recorded", 2.0, ["python_record", "dataclass_and_list"], "dataclass and list"),
    ("summary", "Python: `summary()` after 1,000,000 records", 1000.0, ["python_summary", "scan"], "scanning them"),
    ("from-data", "Python: `SyncState.from_data` of 100 KB", 1.5, ["python_from_data", "json_and_hashlib"], "json and hashlib"),
];

pub(crate) fn all(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let python = wheel::install(bench.project, bench.progress, "wheel")?;
    let program = bench.project.root().join("benches/python.py");
    let mut rows = Vec::new();
    for (part, what, times, [ours, peer], name) in PARTS {
        let values = bench.told_by(what, Command::new(&python).arg(&program).arg(part))?;
        let rate = |name| anyhow::Ok(take(&values, name, 1.0)?.into_iter().map(|nanoseconds| 1e9 / nanoseconds).collect::<Vec<_>>());
        let (ours, peer) = (rate(ours)?, rate(peer)?);
        rows.push(Row::ratio(what, Target::AtLeast(times), Unit::PerSecond, &ours, (name, &peer)));
    }
    Ok(rows)
}
