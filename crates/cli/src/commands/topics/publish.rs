//! `edgeward topics publish`: one message, which is on the disk of the node or hub when the command ends.

use edgeward::{TopicName, limits::TOPIC_PAYLOAD_BYTES_MAX};
use http::{HeaderValue, Method, header::CONTENT_TYPE};

use crate::{
    client::{Client, Published, Request, escaped},
    input::Input,
    terminal,
};

const EXAMPLES: &str = "\
Examples:
  edgeward topics publish site/berlin/temp 21.5
  edgeward topics publish site/berlin/reading '{\"t\": 21.5}' --content-type application/json --key sensor-7
  edgeward topics publish site/berlin/photo @photo.jpg --content-type image/jpeg
  date | edgeward topics publish site/berlin/heartbeat -
  edgeward topics publish site/berlin/state open --retain    # who follows later gets it first
  edgeward topics publish site/berlin/state --retain         # no more

A body of the type application/cloudevents+json is published as the CloudEvent that it is.";

/// Publish a message to a topic
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The topic
    topic: TopicName,
    /// The payload: a text, `@FILE`, or `-` for standard input [default: empty]
    #[arg(value_name = "TEXT|@FILE|-", allow_negative_numbers = true, value_parser = Input::of_data)]
    payload: Option<Input>,
    /// The type of the payload
    #[arg(long, value_name = "T")]
    content_type: Option<HeaderValue>,
    /// Messages of one key come in their order; without one, those of one topic do
    #[arg(long)]
    key: Option<String>,
    /// Keep it as the message that who follows the topic later gets first; an empty one removes what is kept
    #[arg(long)]
    retain: bool,
    /// After how many seconds nobody gets it any more
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    expires: Option<u64>,
}

pub(super) async fn run(args: Args, client: &Client, json: bool) -> anyhow::Result<()> {
    let payload = args.payload.map(|input| input.read(TOPIC_PAYLOAD_BYTES_MAX * 2)).transpose()?.unwrap_or_default();
    let mut path = format!("/v1/topics/{}?retain={}", escaped(args.topic.as_str()), args.retain);
    if let Some(key) = &args.key {
        path.push_str(&format!("&key={}", escaped(key)));
    }
    if let Some(seconds) = args.expires {
        path.push_str(&format!("&expires_in_seconds={seconds}"));
    }
    let mut request = Request::new(Method::POST, path).payload(payload);
    if let Some(content_type) = args.content_type {
        request = request.header(CONTENT_TYPE, content_type);
    }
    let answer = client.send(request).await?.json().await?;
    if json {
        terminal::write_json(answer.bytes())?;
    } else {
        let Published { topic, position, importers } = answer.read()?;
        terminal::write(format!("published to {topic} at position {position}\n"))?;
        if importers == Some(0) {
            terminal::note(&format!(
                "no node that the hub has heard of lately imports `{topic}`, so it stays at the hub; `edgeward node --topics-import` has one do so"
            ));
        }
    }
    Ok(())
}
