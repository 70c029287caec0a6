//! `edgeward schedules`: what runs by itself, and when.

mod shown;

use edgeward::{
    CatchUp, EdgeError, FunctionId, NodeId, Schedule, ScheduleId, Target, When, Zone,
    cluster::schedule::{Run, Totals, Try},
    limits::SCHEDULE_PAYLOAD_BYTES_MAX,
};
use http::{HeaderValue, Method, header::CONTENT_TYPE};
use jiff::Timestamp;
use serde::Deserialize;

use super::missing;
use crate::{
    client::{Client, Json, Request},
    exit::Hinted,
    input::Input,
    target::OneNode,
    terminal::{self, Palette},
};

const EXAMPLES: &str = "\
Examples:
  edgeward schedules put beat hello --every 30s
  edgeward schedules put nightly report --cron '30 2 * * MON-FRI' --zone Europe/Berlin --attempts 3
  edgeward schedules put party hello --at 2026-12-24T18:00:00Z --data '{\"guests\": 7}'
  edgeward schedules put tidy sweep --cron '@hourly' --jitter 300 --catch-up skip
  edgeward schedules put count stats --every 5m --to site=berlin    # on nodes of a fleet, by its hub
  edgeward schedules
  edgeward schedules run nightly                                    # now, beside its times
  edgeward schedules history nightly
  edgeward schedules remove nightly

A node runs its schedules whether it has a network or not. The function gets a CloudEvent: a POST with the data as its body.
Putting an id again replaces the schedule. What is not given takes its default, not its last value.";

/// List what runs by itself, put, show, run or remove one
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the schedules
    List,
    /// Have a function run by itself, or replace such a schedule
    #[command(after_help = EXAMPLES)]
    Put(Box<Put>),
    /// Show everything about one schedule
    Show {
        /// The schedule
        id: ScheduleId,
    },
    /// Start a run now, beside the due times
    Run {
        /// The schedule
        id: ScheduleId,
        #[command(flatten)]
        target: OneNode,
    },
    /// Show what ran of a schedule and what did not, newest first
    History {
        /// The schedule
        id: ScheduleId,
        #[command(flatten)]
        target: OneNode,
    },
    /// Remove a schedule and its history
    Remove {
        /// The schedule
        id: ScheduleId,
        /// Only remove this generation
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        if_generation: Option<u64>,
    },
}

#[derive(Debug, clap::Args)]
struct Put {
    /// Names the schedule
    id: ScheduleId,
    /// What runs
    function: FunctionId,
    #[command(flatten)]
    when: Times,
    /// Whose local time --cron means, such as `Europe/Berlin` [default: UTC]
    #[arg(long, value_name = "ZONE", conflicts_with_all = ["every", "at"])]
    zone: Option<Zone>,
    /// What the function gets: a text, `@FILE`, or `-` for standard input [default: nothing]
    #[arg(long, short, value_name = "TEXT|@FILE|-", allow_hyphen_values = true, value_parser = Input::of_data)]
    data: Option<Input>,
    /// The type of the data [default: application/json]
    #[arg(long, value_name = "T")]
    content_type: Option<String>,
    /// What becomes of times at which the node could not: `skip`, `once` for all together, or `all=5` for up to 5 [default: once]
    #[arg(long, value_name = "POLICY")]
    catch_up: Option<CatchUp>,
    /// By how much a run may begin later, in seconds, so that not all begin at once [default: 0]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    jitter: Option<u32>,
    /// Tries of a time that fails or is interrupted [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    attempts: Option<u32>,
    /// Deadline of one try; fractions are allowed [default: the function's]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    timeout_seconds: Option<f64>,
    /// Before this nothing is due, such as `2026-01-01T00:00:00Z`; intervals are counted from it
    #[arg(long, value_name = "TIME")]
    starts_at: Option<Timestamp>,
    /// From this on nothing is due
    #[arg(long, value_name = "TIME")]
    ends_at: Option<Timestamp>,
    /// Keep it, and let it not run until it is put again without this
    #[arg(long)]
    disabled: bool,
    /// Which nodes of a fleet run it: `all`, `node=ID`, `site=berlin`, `count=2`, or `one` for any one of them; a hub is asked [default: one]
    #[arg(long, value_name = "TARGET")]
    to: Option<Target>,
    /// Only replace this generation; 0 only creates
    #[arg(long, value_name = "N")]
    if_generation: Option<u64>,
}

/// When it is due: one of these.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Times {
    /// Over and over, such as `30s` or `1h30m`
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    every: Option<String>,
    /// By a cron expression: minute, hour, day of month, month, day of week, as `30 2 * * MON-FRI` or `@daily`
    #[arg(long, value_name = "EXPRESSION", allow_hyphen_values = true)]
    cron: Option<String>,
    /// Once, such as `2026-12-24T18:00:00Z`
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    at: Option<String>,
}

impl Times {
    fn when(&self) -> Result<When, EdgeError> {
        match (&self.every, &self.at, &self.cron) {
            (Some(every), ..) => format!("every {every}").parse(),
            (_, Some(at), _) => format!("at {at}").parse(),
            (.., Some(cron)) => cron.parse().map(When::Cron),
            (None, None, None) => Err(EdgeError::invalid("say when: by --every, --cron or --at")),
        }
    }
}

impl Put {
    /// The schedule that is meant, checked.
    fn schedule(self) -> anyhow::Result<Schedule> {
        let when = self.when.when()?;
        let new = Schedule::new(self.id, self.function, when);
        let payload = match self.data {
            Some(data) => String::from_utf8(data.read(SCHEDULE_PAYLOAD_BYTES_MAX)?.into()).map_err(|error| {
                let error = EdgeError::invalid("the data of a schedule is no text").with_source(error);
                Hinted::new(error, "a function reads what is not text from a document, or fetches it")
            })?,
            None => String::new(),
        };
        let schedule = Schedule {
            zone: self.zone.unwrap_or_default(),
            target: self.to.unwrap_or(new.target),
            payload,
            content_type: self.content_type.unwrap_or(new.content_type),
            catch_up: self.catch_up.unwrap_or_default(),
            jitter_seconds: self.jitter.unwrap_or(new.jitter_seconds),
            attempts: self.attempts.unwrap_or(new.attempts),
            timeout_seconds: self.timeout_seconds,
            enabled: !self.disabled,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            ..new
        };
        schedule.validate()?;
        Ok(schedule)
    }
}

#[derive(Debug, Deserialize)]
struct Schedules {
    schedules: Vec<ScheduleRecord>,
}

/// A schedule, as the API answers: on a hub with its nodes, on a node with how it stands.
#[derive(Debug, Deserialize)]
struct ScheduleRecord {
    id: ScheduleId,
    function: FunctionId,
    when: When,
    #[serde(default)]
    zone: Zone,
    #[serde(default = "Target::all")]
    target: Target,
    #[serde(default)]
    payload: String,
    #[serde(default)]
    content_type: String,
    #[serde(default)]
    catch_up: CatchUp,
    #[serde(default)]
    jitter_seconds: u32,
    #[serde(default)]
    attempts: u32,
    #[serde(default)]
    timeout_seconds: Option<f64>,
    enabled: bool,
    #[serde(default)]
    starts_at: Option<Timestamp>,
    #[serde(default)]
    ends_at: Option<Timestamp>,
    generation: u64,
    #[serde(default)]
    next_due_at: Option<Timestamp>,
    /// Of a hub.
    #[serde(default)]
    nodes: Option<Vec<NodeId>>,
    /// Of a node, and what follows too.
    #[serde(default)]
    source: Option<edgeward::Source>,
    #[serde(default)]
    running: Option<Try>,
    #[serde(default)]
    waiting: u64,
    #[serde(default)]
    last: Option<Run>,
    #[serde(default)]
    totals: Totals,
}

/// Runs the command.
pub(crate) async fn run(args: Args, client: &Client, json: bool) -> anyhow::Result<()> {
    match args.action.unwrap_or(Action::List) {
        Action::List => {
            let answer = client.get("/v1/schedules").await?.json().await?;
            let show = |answer: &Json| Ok(shown::table(&answer.read::<Schedules>()?.schedules, Timestamp::now(), Palette::stdout()));
            written(&answer, json, show)
        }
        Action::Put(put) => {
            let if_generation = put.if_generation;
            let schedule = put.schedule()?;
            let answer = client.send(request(&schedule, if_generation)?).await?.json().await?;
            if json {
                terminal::write_json(answer.bytes())?;
                return Ok(());
            }
            let record: ScheduleRecord = answer.read()?;
            terminal::write(shown::put(&record, Palette::stdout()))?;
            if let Some(note) = missing::told(client, record.function.as_str(), record.nodes.is_some()).await {
                terminal::write(note)?;
            }
            Ok(())
        }
        Action::Show { id } => {
            let answer = client.get(format!("/v1/schedules/{id}")).await?.json().await?;
            written(&answer, json, |answer| Ok(shown::fields(&answer.read()?, Palette::stdout())))
        }
        Action::Run { id, target } => {
            let request = Request::new(Method::POST, format!("/v1/schedules/{id}/run{}", target.query('?')));
            let answer = client.send(request).await?.json().await?;
            written(&answer, json, |answer| {
                let run: Try = answer.read()?;
                let node = target.node.as_ref().map_or_else(String::new, |node| format!(" --node {node}"));
                let started_at = run.started_at;
                Ok(format!("{id} runs since {started_at:.0}; `edgeward schedules history {id}{node}` shows how it ends\n"))
            })
        }
        Action::History { id, target } => {
            let answer = client.get(format!("/v1/schedules/{id}/history{}", target.query('?'))).await?.json().await?;
            written(&answer, json, |answer| Ok(shown::history(&answer.read()?, Palette::stdout())))
        }
        Action::Remove { id, if_generation } => {
            let mut request = Request::new(Method::DELETE, format!("/v1/schedules/{id}"));
            if let Some(generation) = if_generation {
                request = request.if_generation(generation);
            }
            client.send(request).await?;
            if json {
                terminal::write_json(serde_json::json!({ "id": id, "removed": true }).to_string().as_bytes())?;
            } else {
                terminal::write(format!("removed schedule {id}; nodes that are away stop it when they return\n"))?;
            }
            Ok(())
        }
    }
}

/// What has the API make this the schedule of its id.
fn request(schedule: &Schedule, if_generation: Option<u64>) -> anyhow::Result<Request> {
    let request = Request::new(Method::PUT, format!("/v1/schedules/{}", schedule.id))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .payload(serde_json::to_vec(schedule)?);
    Ok(match if_generation {
        Some(generation) => request.if_generation(generation),
        None => request,
    })
}

/// Puts the schedules of a project; tells of each.
pub(super) async fn put_all(schedules: &[Schedule], client: &Client, json: bool) -> anyhow::Result<()> {
    for schedule in schedules {
        let answer = client.send(request(schedule, None)?).await?.json().await?;
        if !json {
            terminal::write(shown::put(&answer.read()?, Palette::stdout()))?;
        }
    }
    Ok(())
}

fn written(answer: &Json, json: bool, show: impl FnOnce(&Json) -> anyhow::Result<String>) -> anyhow::Result<()> {
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        terminal::write(show(answer)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        put: Put,
    }

    fn parse(words: &[&str]) -> Result<Put, clap::Error> {
        Line::try_parse_from(["line", "s", "f"].iter().chain(words)).map(|line| line.put)
    }

    #[test]
    fn a_schedule_is_said_by_an_interval_a_time_or_an_expression() {
        let when = |words: &[&str]| parse(words).expect("valid").schedule().expect("valid").when.to_string();
        assert_eq!(when(&["--every", "90s"]), "every 1m30s");
        assert_eq!(when(&["--at", "2996-12-24T18:00:00Z"]), "at 2996-12-24T18:00:00Z");
        assert_eq!(when(&["--cron", "*/5 2 * * MON"]), "*/5 2 * * MON");
        for bad in [&[][..], &["--every", "1s", "--at", "2996-12-24T18:00:00Z"], &["--every", "1s", "--zone", "UTC"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let berlin = parse(&["--cron", "@daily", "--zone", "Europe/Berlin"]).expect("valid").schedule().expect("valid");
        assert_eq!((berlin.zone.name(), berlin.attempts, berlin.enabled), ("Europe/Berlin", 1, true));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_option() {
        for (words, told) in [
            (&["--every", "1s", "--jitter", "-1"][..], "--jitter"),
            (&["--every", "1s", "--attempts", "-1"], "--attempts"),
            (&["--every", "1s", "--catch-up", "both"], "`both`"),
            (&["--cron", "@daily", "--zone", "Mars/Base"], "Mars/Base"),
        ] {
            let error = parse(words).expect_err(told).to_string();
            assert!(error.contains(told), "{error}");
        }
        for (words, told) in [
            (&["--every", "-1s"][..], "is no interval"),
            (&["--cron", "0 0 30 2 *"], "never"),
            (&["--cron", "every 1s"], "minute"),
            (&["--at", "noon"], "is no moment"),
            (&["--every", "1s", "--timeout-seconds", "-1"], "timeout_seconds"),
            (&["--every", "1s", "--attempts", "0"], "attempts"),
            (&["--every", "1s", "--data", "{"], "no JSON"),
        ] {
            let error = parse(words).expect(told).schedule().expect_err(told).to_string();
            assert!(error.contains(told), "{told}: {error}");
        }
    }
}
