//! The stream of a fleet's topics on a real nats-server: appended in a chain, followed, and kept.

use async_nats::jetstream::{self, stream::DiscardPolicy};
use edgeward_cluster::nats::{Appending, StreamBounds, StreamContent, TopicStream};
use edgeward_model::{ErrorKind, TopicName};
use futures::future::join_all;
use tokio::time::timeout;

use crate::site::{Member, PATIENCE, Site, eventually, node, up};

fn content(topic: &str, payload: &str) -> StreamContent {
    let topic = TopicName::new(topic).expect("valid");
    StreamContent { node: node("edge.1"), topic, head: r#"{"ü":"\u0001"}"#.to_owned(), payload: payload.to_owned().into() }
}

/// So many messages, with payloads that say the position from after this one on.
fn bundle(after: u64, count: u64) -> Vec<StreamContent> {
    (after + 1..=after + count).map(|n| content("a/b", &n.to_string())).collect()
}

/// Hands so many bundles of one message over at once, from after this position on.
async fn append(stream: &TopicStream, after: u64, count: u64) -> Vec<Appending> {
    let mut appending = Vec::new();
    for n in after..after + count {
        appending.push(stream.append(bundle(n, 1), n).await.expect("handed over"));
    }
    appending
}

async fn done(appending: Vec<Appending>) -> Vec<Result<u64, ErrorKind>> {
    let mut done = Vec::new();
    for one in appending {
        done.push(one.done().await.map_err(|error| error.kind()));
    }
    done
}

/// The payloads after this position, of so many messages.
async fn follow(stream: &TopicStream, after: u64, count: u64) -> Vec<String> {
    let mut following = stream.follow(after).await.expect("follows");
    assert_eq!(following.waiting(), count);
    let mut payloads = Vec::new();
    for n in 0..count {
        let message = timeout(PATIENCE, following.next()).await.expect("in time").expect("it comes");
        assert_eq!(message.position, after + n + 1);
        payloads.push(String::from_utf8(message.content.expect("it is ours").payload.to_vec()).expect("text"));
    }
    payloads
}

pub(crate) async fn works(stream: &TopicStream) {
    let begun = stream.open().await.expect("opens");
    assert_eq!(begun.last, 0);
    assert_eq!(done(append(stream, 0, 3).await).await, [Ok(1), Ok(2), Ok(3)]);
    let odd = content("/über.all/*/", "x");
    stream.append(vec![odd.clone()], 3).await.expect("handed over").done().await.expect("appended");
    let mut following = stream.follow(3).await.expect("follows");
    let message = timeout(PATIENCE, following.next()).await.expect("in time").expect("it comes");
    assert_eq!((message.position, message.content), (4, Some(odd)));
    assert_eq!(follow(stream, 1, 3).await, ["2", "3", "x"]);
    let now = stream.open().await.expect("opens");
    assert_eq!((now.epoch, now.last), (begun.epoch, 4));
}

async fn at_server() -> (Site, Member, TopicStream) {
    let site = Site::over_nats().await;
    let member = site.member("hub").await;
    let stream = site.topic_stream("hub").await.expect("it is over NATS");
    (site, member, stream)
}

async fn client(site: &Site) -> jetstream::Context {
    let Site::OverNats(site) = site else { unreachable!("it is over NATS") };
    let port = site.server.lock().await.port();
    jetstream::new(async_nats::connect(format!("127.0.0.1:{port}")).await.expect("connects"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_appended_is_followed_at_its_position() {
    let (_site, _member, stream) = at_server().await;
    works(&stream).await;
}

/// Payloads after this position, until this one; none of a message that does not count.
async fn seen(stream: &TopicStream, after: u64, until: u64) -> Vec<Option<String>> {
    let mut following = stream.follow(after).await.expect("follows");
    let mut seen = Vec::new();
    for position in after + 1..=until {
        let message = timeout(PATIENCE, following.next()).await.expect("in time").expect("it comes");
        assert_eq!(message.position, position);
        seen.push(message.content.map(|content| String::from_utf8(content.payload.to_vec()).expect("text")));
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_append_after_the_same_message_one_is_overtaken_with_all_of_its_bundle() {
    let (_site, _member, stream) = at_server().await;
    stream.open().await.expect("opens");
    let first = stream.append(bundle(0, 2), 0).await.expect("handed over");
    let second = stream.append(bundle(100, 4), 0).await.expect("handed over");
    assert_eq!(done(vec![first, second]).await, [Ok(2), Err(ErrorKind::Unavailable)]);
    // The second one's third message follows what the first one's never wrote, and its server took it.
    assert_eq!(stream.open().await.expect("opens").last, 4);
    let again = stream.append(bundle(100, 4), 4).await.expect("handed over");
    assert_eq!(again.done().await.map_err(|error| error.kind()), Ok(8));
    let some = |text: &str| Some(text.to_owned());
    let expected = [some("1"), some("2"), None, None, some("101"), some("102"), some("103"), some("104")];
    // From wherever one follows, whom the stream says to be there is.
    for after in [0, 1, 2, 4, 5, 7] {
        assert_eq!(seen(&stream, after, 8).await, expected[usize::try_from(after).expect("small")..], "after {after}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_one_message_is_not_taken_none_after_it_is() {
    let (site, _member, stream) = at_server().await;
    stream.open().await.expect("opens");
    let context = client(&site).await;
    let mut full = context.get_stream("edgeward_topics").await.expect("there").cached_info().config.clone();
    (full.discard, full.max_messages) = (DiscardPolicy::New, 5);
    context.update_stream(&full).await.expect("changed");
    let appended = done(append(&stream, 0, 9).await).await;
    assert_eq!(appended[..5], [Ok(1), Ok(2), Ok(3), Ok(4), Ok(5)]);
    assert!(appended[5..].iter().all(Result::is_err), "{appended:?}");
    full.max_messages = 50;
    context.update_stream(&full).await.expect("changed");
    assert_eq!(stream.open().await.expect("opens").last, 5);
    assert_eq!(done(append(&stream, 5, 2).await).await, [Ok(6), Ok(7)]);
    assert_eq!(follow(&stream, 0, 7).await, ["1", "2", "3", "4", "5", "6", "7"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_keeps_what_its_bounds_say_from_when_it_is_opened_with_some() {
    let (site, _member, stream) = at_server().await;
    stream.open().await.expect("opens");
    let context = client(&site).await;
    let kept = async || context.get_stream("edgeward_topics").await.expect("there").cached_info().clone();
    assert_eq!((kept().await.config.max_messages, kept().await.config.max_bytes), (1_000_000, 1 << 30));
    assert!(done(append(&stream, 0, 9).await).await.iter().all(Result::is_ok));
    let bounds = StreamBounds { messages_max: 4, ..StreamBounds::default() };
    assert_eq!(stream.clone().with_bounds(bounds).open().await.expect("opens").last, 9);
    let now = kept().await;
    assert_eq!((now.config.max_messages, now.config.max_bytes, now.state.messages, now.state.first_sequence), (4, 1 << 30, 4, 6));
    stream.open().await.expect("opens");
    assert_eq!(kept().await.config.max_messages, 4, "whoever says nothing changes nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_the_death_of_the_server() {
    let (site, member, stream) = at_server().await;
    let begun = stream.open().await.expect("opens");
    let Site::OverNats(servers) = &site else { unreachable!("it is over NATS") };
    let mut appending = append(&stream, 0, 300).await;
    let rest = appending.split_off(100);
    let mut acknowledged: Vec<_> = done(appending).await.into_iter().flatten().collect();
    servers.server.lock().await.kill();
    // Each waits for as long as an answer may take, and they do it together.
    acknowledged.extend(join_all(rest.into_iter().map(Appending::done)).await.into_iter().flatten());
    assert!((100..=300).contains(&acknowledged.len()), "{}", acknowledged.len());
    servers.server.lock().await.start_again().await;
    up(&member, 2).await;
    let mut found = None;
    eventually("it opens again", async || {
        found = stream.open().await.ok();
        found.is_some()
    })
    .await;
    let found = found.expect("it was opened");
    assert_eq!(found.epoch, begun.epoch);
    assert!(found.last >= *acknowledged.last().expect("some"), "{found:?}");
    let all = follow(&stream, 0, found.last).await;
    assert_eq!(all, (1..=found.last).map(|n| n.to_string()).collect::<Vec<_>>());
}
