//! What a request and its answer cost over the NATS server at the address that is given, in nanoseconds: by the client library alone, and by the
//! backbone. `cargo xtask bench fleet` runs it.

use std::{
    env,
    time::{Duration, Instant},
};

use async_nats::RequestErrorKind;
use edgeward_cluster::{Backbone, Message, Name, NatsBackbone, NatsOptions, Subject, Subjects, handler};
use edgeward_model::{EdgeError, NodeId};
use futures::StreamExt as _;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const WARM_UP_CALLS: usize = 500;
const CALLS: usize = 4000;
const PAYLOAD_BYTES: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> Result<(), Failure> {
    // As `cargo test --benches` calls it there is none.
    let Some(url) = env::args().skip(1).find(|argument| argument.starts_with("nats://")) else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        println!("bare_request {}", bare(&url).await?);
        println!("backbone_request {}", backbone(&url).await?);
        Ok(())
    })
}

/// Two connections: one asks, one answers with what it got.
async fn bare(url: &str) -> Result<u128, Failure> {
    let (asking, answering) = (async_nats::connect(url).await?, async_nats::connect(url).await?);
    let mut requests = answering.subscribe("bench.echo").await?;
    answering.flush().await?;
    let answers = tokio::spawn(async move {
        while let Some(request) = requests.next().await {
            if let Some(reply) = request.reply {
                answering.publish(reply, request.payload).await?;
            }
        }
        Ok::<_, async_nats::PublishError>(())
    });
    let payload = bytes::Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    // The server learns of a subscription a moment later.
    let begun = Instant::now();
    while asking.request("bench.echo", payload.clone()).await.is_err_and(|error| error.kind() == RequestErrorKind::NoResponders) {
        assert!(begun.elapsed() < TIMEOUT, "nobody answers");
    }
    let mut times = Vec::with_capacity(CALLS);
    for call in 0..WARM_UP_CALLS + CALLS {
        let begun = Instant::now();
        let answer = asking.request("bench.echo", payload.clone()).await?;
        if call >= WARM_UP_CALLS {
            times.push(begun.elapsed().as_nanos());
        }
        assert_eq!(answer.payload.len(), PAYLOAD_BYTES);
    }
    answers.abort();
    Ok(median(times))
}

async fn backbone(url: &str) -> Result<u128, Failure> {
    let member = async |id: &str| -> Result<NatsBackbone, Failure> {
        let member = NatsBackbone::connect(NatsOptions::new(NodeId::new(id)?, vec![url.to_owned()])).await?;
        member.connection().wait_for(|connection| connection.is_up).await?;
        Ok(member)
    };
    let (asking, answering) = (member("hub").await?, member("edge-01").await?);
    let (node, echo) = (NodeId::new("edge-01")?, Name::new("echo"));
    let answer = handler(async |call: edgeward_cluster::Call| Ok::<_, EdgeError>(Message::new(call.message.payload)));
    let _service = answering.serve(&Subjects::to_node(node.clone(), echo), 16, answer).await?;
    let to = Subject::to_node(node, echo);
    let payload = bytes::Bytes::from(vec![b'x'; PAYLOAD_BYTES]);
    let mut times = Vec::with_capacity(CALLS);
    for call in 0..WARM_UP_CALLS + CALLS {
        let begun = Instant::now();
        let answer = asking.request(&to, Message::new(payload.clone()), TIMEOUT).await?;
        if call >= WARM_UP_CALLS {
            times.push(begun.elapsed().as_nanos());
        }
        assert_eq!(answer.payload.len(), PAYLOAD_BYTES);
    }
    Ok(median(times))
}

fn median(mut times: Vec<u128>) -> u128 {
    times.sort_unstable();
    times[times.len() / 2]
}
