//! `edgeward mcp`: the Model Context Protocol on standard input and output.

use crate::{
    client::Client,
    mcp::{self, Access},
};

const EXAMPLES: &str = "\
Examples:
  edgeward mcp
  edgeward mcp --read-only --server https://hub.example:7700 --token-file token

In the settings of an assistant that starts its servers itself:
  {\"mcpServers\": {\"edgeward\": {\"command\": \"edgeward\", \"args\": [\"mcp\"]}}}

A running `edgeward up`, `node` or `hub` serves the same at /mcp of its API, for reading unless it was started with `--mcp read-write`.";

/// Serve tools for an assistant by the Model Context Protocol, on standard input and output
///
/// The tools act on the node or hub at --server, with the rights of the token that is shown to it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Refuse the tools that change or run something
    #[arg(long)]
    read_only: bool,
}

/// Runs the command.
pub(crate) async fn run(args: &Args, client: Client) -> anyhow::Result<()> {
    let access = if args.read_only { Access::ReadOnly } else { Access::ReadWrite };
    mcp::serve_stdio(client, access).await
}
