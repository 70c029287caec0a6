//! The command line as a type. What a command takes and its help live with the command.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{
    client::ServerUrl,
    commands::{
        backup, build, chaos, completions, demo, deploy, deployments, doctor, events, functions, hub, invoke, join_token, logs, mcp,
        metrics, nats_config, new, node, nodes, restore, rollouts, routes, schedules, sign, state, status, token, topics, triggers, trust,
        undeploy, up,
    },
    exit,
};

/// Runs WebAssembly functions next to the data, on any machine.
#[derive(Debug, Parser)]
#[command(name = "edgeward", version, after_help = exit::HELP, max_term_width = 100)]
pub(crate) struct Cli {
    /// The node to talk to
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "URL",
        env = "EDGEWARD_SERVER",
        default_value = "http://127.0.0.1:7700"
    )]
    pub(crate) server: ServerUrl,
    /// File with the token to show the node; without it, `EDGEWARD_TOKEN` holds the token
    #[arg(long, global = true, help_heading = "Global options", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Certificate of the authority to trust, as PEM, instead of those that this machine trusts
    #[arg(long, global = true, help_heading = "Global options", value_name = "FILE", env = "EDGEWARD_CA")]
    pub(crate) ca: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Up(up::Args),
    Hub(hub::Args),
    Node(node::Args),
    JoinToken(join_token::Args),
    NatsConfig(nats_config::Args),
    Nodes(nodes::Args),
    Events(events::Args),
    Demo(demo::Args),
    New(new::Args),
    Build(build::Args),
    Deploy(Box<deploy::Args>),
    Deployments(deployments::Args),
    Rollouts(rollouts::Args),
    Chaos(chaos::Args),
    Routes(routes::Args),
    Schedules(schedules::Args),
    Undeploy(undeploy::Args),
    Functions(functions::Args),
    Invoke(invoke::Args),
    Logs(logs::Args),
    Metrics(metrics::Args),
    Mcp(mcp::Args),
    State(state::Args),
    Topics(topics::Args),
    Triggers(triggers::Args),
    Status(status::Args),
    Token(token::Args),
    Sign(sign::Args),
    Trust(trust::Args),
    Backup(backup::Args),
    Restore(restore::Args),
    Doctor(doctor::Args),
    Completions(completions::Args),
}

impl Command {
    /// What is traced unless the environment says otherwise: a daemon tells what it does, a client does not.
    pub(crate) fn log_level(&self) -> &'static str {
        match self {
            // What the client of NATS does is told by who uses it.
            Self::Up(_) | Self::Hub(_) | Self::Node(_) => "info,async_nats=off",
            // It shows what went wrong itself, as a part of its story.
            Self::Demo(_) => "error",
            Self::JoinToken(_)
            | Self::NatsConfig(_)
            | Self::Nodes(_)
            | Self::Events(_)
            | Self::New(_)
            | Self::Build(_)
            | Self::Deploy(_)
            | Self::Deployments(_)
            | Self::Rollouts(_)
            | Self::Chaos(_)
            | Self::Routes(_)
            | Self::Schedules(_)
            | Self::Undeploy(_)
            | Self::Functions(_)
            | Self::Invoke(_)
            | Self::Logs(_)
            | Self::Metrics(_)
            | Self::Mcp(_)
            | Self::State(_)
            | Self::Topics(_)
            | Self::Triggers(_)
            | Self::Status(_)
            | Self::Token(_)
            | Self::Sign(_)
            | Self::Trust(_)
            | Self::Backup(_)
            | Self::Restore(_)
            | Self::Doctor(_)
            | Self::Completions(_) => "warn",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_are_taken_after_the_command_too() {
        let cli = Cli::try_parse_from(["edgeward", "status", "--json", "--server", "http://[::1]:7"]).expect("valid");
        assert!(cli.json);
        assert_eq!(cli.server.to_string(), "http://[::1]:7");
    }

    #[test]
    fn an_id_that_is_not_safe_in_a_path_is_a_usage_error() {
        let error = Cli::try_parse_from(["edgeward", "undeploy", "a/b"]).expect_err("refused");
        assert_eq!((error.kind(), error.exit_code()), (ErrorKind::ValueValidation, 2));
    }

    #[test]
    fn every_command_has_a_description_and_an_example() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            assert!(command.get_after_help().is_some(), "{}", command.get_name());
            for action in command.get_subcommands() {
                assert!(action.get_about().is_some(), "{} {}", command.get_name(), action.get_name());
            }
        }
    }

    /// The command that a unit starts, with the variables that systemd sets in it as a new installation has them.
    fn command_of(unit: &str) -> Vec<String> {
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("it starts something");
        let words = line.split_whitespace().map(|word| word.replace("${STATE_DIRECTORY}", "/var/lib/edgeward"));
        // Options of the machine's own: none yet.
        words.filter(|word| !word.starts_with('$')).collect()
    }

    #[test]
    fn what_each_unit_starts_is_a_command_line() {
        for unit in [
            include_str!("../../../packaging/systemd/edgeward.service"),
            include_str!("../../../packaging/systemd/edgeward-node.service"),
            include_str!("../../../packaging/systemd/edgeward-hub.service"),
        ] {
            let command = command_of(unit);
            assert!(!command.iter().any(|word| word.contains('$')), "{command:?}");
            let cli = Cli::try_parse_from(&command).unwrap_or_else(|error| panic!("{command:?}: {error}"));
            assert!(cli.command.log_level().starts_with("info"), "it is a daemon");
        }
    }
}
