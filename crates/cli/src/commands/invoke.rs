//! `edgeward invoke`: runs a function once. Standard output gets exactly the bytes of the result.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use edgeward::{FunctionId, limits::REQUEST_BYTES_MAX};
use http::{HeaderValue, Method, header::CONTENT_TYPE};

use crate::{
    client::{Client, Request},
    input::Input,
    target::OneNode,
};

/// Longest wait for the result to begin: the longest deadline of a function, and as long in its queue. The node ends it earlier.
const RESULT_TIMEOUT: Duration = Duration::from_hours(2);

const EXAMPLES: &str = "\
Examples:
  edgeward invoke hello --data 'Ada'
  edgeward invoke hello --node edge-01 --data 'Ada'    # on a node of a fleet, by its hub
  edgeward invoke stats --data @readings.csv --content-type text/csv
  cat photo.jpg | edgeward invoke resize --data - > small.jpg

The result goes to standard output as it is, errors to standard error. With --json the errors are JSON.";

/// Run a function and print its result
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The function
    id: FunctionId,
    /// The input: a text, `@FILE`, or `-` for standard input [default: empty]
    #[arg(long, short, value_name = "TEXT|@FILE|-", allow_hyphen_values = true, value_parser = Input::of_data)]
    data: Option<Input>,
    /// The type of the input [default: application/octet-stream]
    #[arg(long, value_name = "T")]
    content_type: Option<HeaderValue>,
    #[command(flatten)]
    target: OneNode,
}

/// Runs the command.
pub(crate) async fn run(args: Args, client: &Client) -> anyhow::Result<()> {
    let input = args.data.map(|input| input.read(REQUEST_BYTES_MAX)).transpose()?.unwrap_or_default();
    let mut request = Request::new(Method::POST, format!("/v1/functions/{}/invoke{}", args.id, args.target.query('?')))
        .payload(input)
        .answer_timeout(RESULT_TIMEOUT);
    if let Some(content_type) = args.content_type {
        request = request.header(CONTENT_TYPE, content_type);
    }
    let mut answer = client.send(request).await?;
    let mut stdout = io::stdout();
    while let Some(chunk) = answer.chunk().await? {
        stdout.write_all(&chunk)?;
    }
    stdout.flush()?;
    Ok(())
}
