//! `edgeward invoke`: runs a function once. Standard output gets exactly the bytes of the result.

use std::{
    io::{self, Read, Write as _},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use edgeward::{EdgeError, ErrorKind, FunctionId, limits::REQUEST_BYTES_MAX};
use http::{HeaderValue, Method, header::CONTENT_TYPE};

use crate::client::{Client, Request};

/// Longest wait for the result to begin: the longest deadline of a function, and as long in its queue. The node ends it earlier.
const RESULT_TIMEOUT: Duration = Duration::from_hours(2);

const EXAMPLES: &str = "\
Examples:
  edgeward invoke hello --data 'Ada'
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
    #[arg(long, short, value_name = "TEXT|@FILE|-", allow_hyphen_values = true)]
    data: Option<Input>,
    /// The type of the input [default: application/octet-stream]
    #[arg(long, value_name = "T")]
    content_type: Option<HeaderValue>,
}

/// Where the input comes from.
#[derive(Clone, Debug, PartialEq)]
enum Input {
    Text(String),
    File(PathBuf),
    Stdin,
}

impl FromStr for Input {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.strip_prefix('@') {
            Some(path) => Self::File(path.into()),
            None if text == "-" => Self::Stdin,
            None => Self::Text(text.to_owned()),
        })
    }
}

impl Input {
    fn read(self) -> anyhow::Result<Bytes> {
        match self {
            Self::Text(text) => Ok(text.into()),
            Self::File(path) => {
                let failed = || format!("failed to read the input `{}`", path.display());
                bounded(std::fs::File::open(&path).with_context(failed)?)?.with_context(failed)
            }
            Self::Stdin => bounded(io::stdin().lock())?.context("failed to read standard input"),
        }
    }
}

/// Everything of `source`, or the error that it is too large.
fn bounded(source: impl Read) -> Result<io::Result<Bytes>, EdgeError> {
    let mut bytes = Vec::new();
    let read = source.take(REQUEST_BYTES_MAX as u64 + 1).read_to_end(&mut bytes);
    if bytes.len() > REQUEST_BYTES_MAX {
        return Err(EdgeError::new(ErrorKind::TooLarge, format!("the input is larger than {REQUEST_BYTES_MAX} bytes")));
    }
    Ok(read.map(|_| bytes.into()))
}

/// Runs the command.
pub(crate) async fn run(args: Args, client: &Client) -> anyhow::Result<()> {
    let input = args.data.map(Input::read).transpose()?.unwrap_or_default();
    let mut request = Request::new(Method::POST, format!("/v1/functions/{}/invoke", args.id)).payload(input).answer_timeout(RESULT_TIMEOUT);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn input_is_a_text_a_file_or_standard_input() {
        let parse = |text: &str| text.parse::<Input>().expect("never refused");
        assert_eq!(parse("-"), Input::Stdin);
        assert_eq!(parse("-1"), Input::Text("-1".to_owned()));
        assert_eq!(parse("@a.csv"), Input::File("a.csv".into()));
        assert_eq!(parse(""), Input::Text(String::new()));
    }

    #[test]
    fn input_past_the_bound_is_refused_before_it_is_sent() {
        assert_eq!(bounded(io::repeat(0)).expect_err("endless").kind(), ErrorKind::TooLarge);
        assert_eq!(bounded(&b"abc"[..]).expect("small").expect("read"), "abc");
        let error = Input::File("/nonexistent".into()).read().expect_err("absent");
        assert!(error.to_string().contains("`/nonexistent`"));
    }
}
