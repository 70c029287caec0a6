//! `edgeward invoke`: runs a function once. Standard output gets exactly the bytes of the result.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use edgeward::{EdgeError, FunctionId, cluster::deadline, limits::REQUEST_BYTES_MAX};
use http::{HeaderName, HeaderValue, Method, header::CONTENT_TYPE};

use crate::{
    api::terms::IDEMPOTENT,
    client::{Client, Request},
    input::Input,
    target::OneNode,
};

/// Longest wait for the result to begin: the longest deadline of a function, and as long in its queue. The node ends it earlier.
const RESULT_TIMEOUT: Duration = Duration::from_hours(2);

/// Time beyond that of a call in which who was asked says that it is over.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  edgeward invoke hello --data 'Ada'
  edgeward invoke hello --node edge-01 --data 'Ada'    # on this node of a fleet, by its hub; without it on the one that takes it best
  edgeward invoke price --idempotent --timeout-seconds 0.5
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
    /// How long the call may take with all its attempts, in seconds; the function's own deadline holds as well
    #[arg(long, value_name = "S", allow_negative_numbers = true, value_parser = seconds)]
    timeout_seconds: Option<Duration>,
    /// This call may run twice with no harm: it is tried again on another node also when it may have run
    #[arg(long)]
    idempotent: bool,
    #[command(flatten)]
    target: OneNode,
}

/// Reads a time to wait.
fn seconds(text: &str) -> Result<Duration, EdgeError> {
    let time = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.filter(|time| time.as_millis() > 0).ok_or_else(|| EdgeError::invalid("it must be seconds, 0.001 or more, such as 1.5"))
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
    if let Some(time) = args.timeout_seconds {
        let left = HeaderValue::try_from(deadline::write(time)).expect("digits are a valid header");
        request = request.header(HeaderName::from_static(deadline::TIMEOUT_MS), left).answer_timeout(time + ANSWER_MARGIN);
    }
    if args.idempotent {
        request = request.header(HeaderName::from_static(IDEMPOTENT), HeaderValue::from_static("true"));
    }
    let mut answer = client.send(request).await?;
    let mut stdout = io::stdout();
    while let Some(chunk) = answer.chunk().await? {
        stdout.write_all(&chunk)?;
    }
    stdout.flush()?;
    Ok(())
}
