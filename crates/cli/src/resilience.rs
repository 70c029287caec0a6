//! The options that say how calls of a function find a node. What is not given is as the project says, and else has its default.

use edgeward::{Balance, EdgeError, Locality, Resilience};

// No doc comment: it would become the description of each command that takes the options.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Calls by the function's name")]
pub(crate) struct ResilienceArgs {
    /// How a node is chosen: `power_of_two` (the default), `round_robin`, `random`, `weighted` (by the label `weight`) or `least_connections`
    #[arg(long, value_name = "POLICY")]
    balance: Option<Balance>,
    /// Whether near nodes come first: nearest, or any [default: nearest]
    #[arg(long, value_name = "WHICH")]
    locality: Option<Locality>,
    /// How long a call may take with all its attempts, in seconds [default: as long as one invocation]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    deadline_seconds: Option<f64>,
    /// It may run twice with no harm: then also a call is tried again that may have run
    #[arg(long)]
    idempotent: bool,
    /// Attempts of one call, the first included [default: 3]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    attempts: Option<u32>,
    /// How long one attempt of an idempotent call may take, in seconds [default: all that is left]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    attempt_seconds: Option<f64>,
    /// Retries of all calls together, in percent of the calls [default: 20]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    retry_budget: Option<f64>,
    /// Share of the calls of a node that must fail for it to be passed by, in percent [default: 50]
    #[arg(long, value_name = "PERCENT", allow_negative_numbers = true)]
    breaker_failures: Option<f64>,
    /// For how long it is passed by at first, in seconds [default: 5]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    breaker_open: Option<f64>,
    /// Calls under way to one node [default: 384]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    calls_per_node: Option<u32>,
    /// Calls under way to all nodes [default: 4096]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    calls_max: Option<u32>,
}

impl ResilienceArgs {
    /// What is given, on top of what a project says.
    pub(crate) fn over(self, project: Resilience) -> Result<Resilience, EdgeError> {
        let mut resilience = project;
        resilience.balance = self.balance.unwrap_or(resilience.balance);
        resilience.locality = self.locality.unwrap_or(resilience.locality);
        resilience.idempotent |= self.idempotent;
        resilience.deadline_seconds = self.deadline_seconds.or(resilience.deadline_seconds);
        let retry = &mut resilience.retry;
        retry.attempts = self.attempts.or(retry.attempts);
        retry.attempt_seconds = self.attempt_seconds.or(retry.attempt_seconds);
        retry.budget_percent = self.retry_budget.or(retry.budget_percent);
        let breaker = &mut resilience.breaker;
        breaker.failure_percent = self.breaker_failures.or(breaker.failure_percent);
        if let Some(seconds) = self.breaker_open {
            breaker.open_seconds = Some(seconds);
            // One that is longer at first than at most is no contradiction here: only one of the two can be said.
            let most = breaker.open_max().as_secs_f64();
            if seconds > most {
                breaker.open_seconds_max = Some(seconds);
            }
        }
        let bulkhead = &mut resilience.bulkhead;
        bulkhead.calls_per_node_max = self.calls_per_node.or(bulkhead.calls_per_node_max);
        bulkhead.calls_max = self.calls_max.or(bulkhead.calls_max);
        resilience.validate()?;
        Ok(resilience)
    }
}

/// What is said of the calls of a function, for people; empty where all has its default.
pub(crate) fn shown(resilience: &Resilience) -> String {
    let value = serde_json::to_value(resilience).expect("text and numbers");
    let mut said = Vec::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        match value {
            serde_json::Value::Object(inner) => said.extend(inner.iter().map(|(key, value)| format!("{name}.{key} {value}"))),
            serde_json::Value::String(text) => said.push(format!("{name} {text}")),
            serde_json::Value::Bool(true) => said.push(name.clone()),
            other => said.push(format!("{name} {other}")),
        }
    }
    said.join(", ")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        resilience: ResilienceArgs,
    }

    fn parse(words: &[&str]) -> Result<ResilienceArgs, clap::Error> {
        Line::try_parse_from(["line"].iter().chain(words)).map(|line| line.resilience)
    }

    #[test]
    fn what_is_given_wins_over_the_project_and_what_is_not_stays() {
        let project: Resilience =
            serde_json::from_str(r#"{"balance": "random", "retry": {"attempts": 2, "budget_percent": 5}, "bulkhead": {"calls_max": 9}}"#)
                .expect("valid");
        assert_eq!(parse(&[]).expect("valid").over(project.clone()).expect("valid"), project);
        let words = ["--balance", "round_robin", "--idempotent", "--attempts", "4", "--breaker-open", "60", "--calls-per-node", "7"];
        let read = parse(&words).expect("valid").over(project).expect("valid");
        assert_eq!(
            shown(&read),
            "balance round_robin, breaker.open_seconds 60.0, breaker.open_seconds_max 60.0, bulkhead.calls_max 9, \
             bulkhead.calls_per_node_max 7, idempotent, retry.attempts 4, retry.budget_percent 5.0"
        );
        assert_eq!(shown(&Resilience::default()), "");
    }

    #[test]
    fn what_is_wrong_is_told_by_its_name() {
        let error = parse(&["--balance", "fastest"]).expect_err("unknown").to_string();
        assert!(error.contains("`fastest` is no balance"), "{error}");
        assert!(parse(&["--attempts", "-1"]).expect_err("negative").to_string().contains("--attempts"));
        let past = |words: &[&str]| parse(words).expect("well formed").over(Resilience::default()).expect_err("past its bound").to_string();
        assert!(past(&["--attempts", "11"]).contains("attempts of the resilience is 11"));
        assert!(past(&["--deadline-seconds", "-2"]).contains("deadline_seconds of the resilience is -2"));
        assert!(past(&["--retry-budget", "101"]).contains("budget_percent"));
    }
}
