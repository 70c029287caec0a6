//! `cargo xtask bench`: measures the platform against other programs, by turns, in one run.
//!
//! Each row of the table compares two sides round after round (A B A B …); what counts is the median of the
//! comparisons pair by pair, because the machine's mood changes between rounds and not within one. A run of all
//! benchmarks replaces the measured part of `benches/RESULTS.md`; a run of some only shows them.

mod artifacts;
mod client;
mod fleet;
mod in_process;
mod load;
mod loss;
mod machine;
mod node;
mod python;
mod results;
mod rollout;
mod row;
mod server;
mod serving;
mod topics;

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::ValueEnum;

use crate::bench::{artifacts::Artifacts, machine::Machine, row::Row};
use crate::progress::Progress;
use crate::project::Project;

/// Measure against other programs and write benches/RESULTS.md
#[derive(clap::Args)]
pub(crate) struct Options {
    /// What to measure; nothing means everything, and only then is benches/RESULTS.md written
    #[arg(value_name = "NAME")]
    names: Vec<Name>,
    /// How often the two sides take turns
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each side is under load in a round
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Hello over HTTP, a fresh sandbox for each request
    Fresh,
    /// Hello over HTTP, sandboxes reused
    Reuse,
    /// A native handler through the function listener
    Listener,
    /// `invoke` of an empty native handler
    Native,
    /// A sandbox of the Rust hello
    Instantiate,
    /// `EdgeMetrics::record`
    Metrics,
    /// A deployment whose code is compiled, to its first response
    Deploy,
    /// Resident memory
    Resident,
    /// A function that computes
    Compute,
    /// Writing, sending and merging documents
    Documents,
    /// A call of a function on a far node
    FarCall,
    /// Resident memory of a node of a fleet
    Member,
    /// A hub with 500, 1,000 and 2,000 nodes
    Fleet,
    /// A revision to 500, 1,000 and 2,000 nodes
    Rollout,
    /// Messages over MQTT, beside mosquitto
    Mqtt,
    /// Messages that call a function
    Trigger,
    /// Calls of a fleet of which a node dies
    Loss,
    /// What the choice of a node costs
    Routing,
    /// The Python package beside plain Python
    Python,
}

/// What every benchmark is given.
struct Bench<'a> {
    project: &'a Project,
    artifacts: &'a Artifacts<'a>,
    progress: &'a Progress,
    rounds: u32,
    load: Duration,
}

impl Bench<'_> {
    /// Heads a round. The number makes a long run bearable.
    fn step(&self, what: &str, round: u32) {
        self.progress.step(&format!("{what}: round {} of {}", round + 1, self.rounds));
    }

    fn measure(&self, name: Name) -> Result<Vec<Row>> {
        match name {
            Name::Fresh => serving::fresh(self),
            Name::Reuse => serving::reuse(self),
            Name::Listener => serving::listener(self),
            Name::Compute => serving::compute(self),
            Name::Native => in_process::native(self),
            Name::Instantiate => in_process::instantiate(self),
            Name::Metrics => in_process::metrics(self),
            Name::Deploy => node::deploy(self),
            Name::Resident => node::resident(self),
            Name::Documents => in_process::documents(self),
            Name::FarCall => fleet::call(self),
            Name::Member => fleet::resident(self),
            Name::Fleet => fleet::scale(self),
            Name::Rollout => rollout::scale(self),
            Name::Mqtt => topics::mqtt(self),
            Name::Trigger => topics::trigger(self),
            Name::Loss => loss::of_one_in_three(self),
            Name::Routing => in_process::routing(self),
            Name::Python => python::all(self),
        }
    }
}

pub(crate) fn run(project: &Project, progress: &Progress, options: &Options) -> Result<()> {
    let artifacts = Artifacts::new(project)?;
    let machine = Machine::look(&artifacts)?;
    ensure!(machine.cores >= 2, "failed to find two processors: the load and the server would share one");
    let bench = Bench { project, artifacts: &artifacts, progress, rounds: options.rounds, load: Duration::from_secs(options.seconds) };
    let everything = options.names.is_empty();
    let names = if everything { Name::value_variants() } else { &options.names };
    let mut rows = Vec::new();
    for name in names {
        for row in bench.measure(*name)? {
            eprintln!("   {}", row.line());
            rows.push(row);
        }
    }
    let command = format!("cargo xtask bench --rounds {} --seconds {}", options.rounds, options.seconds);
    let measured = results::measured(&rows, &machine, &command);
    println!("{measured}");
    if everything {
        let path = project.results();
        results::write(&path, &measured)?;
        progress.step(&format!("written to {}", path.display()));
    }
    Ok(())
}
