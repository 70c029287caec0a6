//! `edgeward undeploy`: removes a function.

use edgeward::FunctionId;
use http::Method;

use crate::{
    client::{Client, NodesChanged, Request},
    target::Targets,
    terminal,
};

const EXAMPLES: &str = "\
Examples:
  edgeward undeploy hello
  edgeward undeploy hello --if-generation 3
  edgeward undeploy hello --all             # from every node of a fleet, by its hub";

/// Remove a function from the node
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The function
    id: FunctionId,
    /// Only remove this generation
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), conflicts_with_all = ["node", "all"])]
    if_generation: Option<u64>,
    #[command(flatten)]
    targets: Targets,
}

/// Runs the command.
pub(crate) async fn run(args: &Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let id = &args.id;
    let mut request = Request::new(Method::DELETE, format!("/v1/functions/{id}{}", args.targets.query()));
    if let Some(generation) = args.if_generation {
        request = request.if_generation(generation);
    }
    let answer = client.send(request).await?;
    if args.targets.is_fleet() {
        let answer = answer.json().await?;
        if json {
            terminal::write_json(answer.bytes())?;
        } else {
            let NodesChanged { nodes } = answer.read()?;
            terminal::write(format!("took {id} from {}\n", args.targets.whom(nodes)))?;
        }
    } else if json {
        terminal::write_json(serde_json::json!({ "id": id, "undeployed": true }).to_string().as_bytes())?;
    } else {
        terminal::write(format!("undeployed {id}\n"))?;
    }
    Ok(())
}
