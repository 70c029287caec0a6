//! One module for each command. A command asks the node and shows the answer; the node decides.

pub(crate) mod backup;
pub(crate) mod build;
pub(crate) mod chaos;
pub(crate) mod completions;
pub(crate) mod demo;
pub(crate) mod deploy;
pub(crate) mod deployments;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod functions;
pub(crate) mod hub;
pub(crate) mod invoke;
pub(crate) mod join_token;
pub(crate) mod logs;
pub(crate) mod mcp;
pub(crate) mod metrics;
mod missing;
pub(crate) mod nats_config;
pub(crate) mod new;
pub(crate) mod node;
pub(crate) mod nodes;
pub(crate) mod restore;
pub(crate) mod rollouts;
pub(crate) mod routes;
pub(crate) mod schedules;
pub(crate) mod sign;
pub(crate) mod state;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod topics;
pub(crate) mod triggers;
pub(crate) mod trust;
pub(crate) mod undeploy;
pub(crate) mod up;

use clap::CommandFactory;

use crate::{
    cli::{Cli, Command},
    client::{Client, Trust},
    exit::Exit,
};

/// Runs the command that was given.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<Exit> {
    let Cli { server, token_file, ca, json, command } = cli;
    let client = Client::new(server, Trust { token_file, ca });
    match command {
        Command::Up(args) => up::run(args).await?,
        Command::Hub(args) => hub::run(args).await?,
        Command::Node(args) => node::run(args).await?,
        Command::JoinToken(args) => join_token::run(args, &client, json).await?,
        Command::NatsConfig(args) => nats_config::run(args, json)?,
        Command::Nodes(args) => nodes::run(args, &client, json).await?,
        Command::Deployments(args) => deployments::run(args, &client, json).await?,
        Command::Rollouts(args) => rollouts::run(args, &client, json).await?,
        Command::Chaos(args) => return chaos::run(args, &client, json).await,
        Command::Routes(args) => routes::run(&args, &client, json).await?,
        Command::Schedules(args) => schedules::run(args, &client, json).await?,
        Command::Events(args) => events::run(&args, &client, json).await?,
        Command::Demo(args) => demo::run(args, json).await?,
        Command::New(args) => new::run(args, json)?,
        Command::Build(args) => build::run(&args, json)?,
        Command::Deploy(args) => deploy::run(*args, &client, json).await?,
        Command::Undeploy(args) => undeploy::run(&args, &client, json).await?,
        Command::Functions(args) => functions::run(&args, &client, json).await?,
        Command::Invoke(args) => invoke::run(args, &client).await?,
        Command::Logs(args) => logs::run(args, &client, json).await?,
        Command::Metrics(args) => metrics::run(&args, &client, json).await?,
        Command::Mcp(args) => mcp::run(&args, client).await?,
        Command::State(args) => state::run(args, &client, json).await?,
        Command::Status(status::Args {}) => status::run(&client, json).await?,
        Command::Topics(args) => topics::run(args, &client, json).await?,
        Command::Triggers(args) => triggers::run(args, &client, json).await?,
        Command::Token(args) => token::run(args, &client, json).await?,
        Command::Sign(args) => sign::run(args, json)?,
        Command::Trust(args) => trust::run(args, &client, json).await?,
        Command::Backup(args) => backup::run(args, json).await?,
        Command::Restore(args) => restore::run(args, json).await?,
        Command::Doctor(doctor::Args {}) => return doctor::run(&client, json).await,
        Command::Completions(args) => completions::run(&args, &mut Cli::command())?,
    }
    Ok(Exit::Success)
}
