//! What NATS alone can show: a broker that dies, is set back, goes silent, or takes less.

use std::{sync::Arc, time::Duration};

use edgeward_cluster::{BackboneError, Claim, Claimed, Message, Name, NatsBackbone, NatsOptions, Subject, Subjects, handler};
use edgeward_model::limits::MESSAGE_BYTES_MAX;
use tokio::time::Instant;

use crate::{
    cable::Cable,
    server::Server,
    site::{ECHO, Member, PATIENCE, down, eventually, node, up},
};

async fn member(server: &Server, id: &str) -> Member {
    let options = NatsOptions::new(node(id), vec![format!("nats://127.0.0.1:{}", server.port())]);
    Arc::new(NatsBackbone::connect(options).await.expect("the options are valid"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_broker_was_killed_everything_goes_on_by_itself() {
    let mut server = Server::start("").await;
    let (hub, edge) = (member(&server, "hub").await, member(&server, "edge").await);
    up(&hub, 1).await;
    up(&edge, 1).await;
    let echo = handler(async |call| Ok(call.message));
    let _service = hub.serve(&Subjects::to_hub(ECHO), 8, echo).await.expect("served");
    let claim = Claim { name: Name::new("hub"), holder: node("hub"), ttl: Duration::from_secs(10), seen_term: 0 };
    let Claimed::Held(lease) = hub.lease(claim.clone()).await.expect("asked") else { panic!("it is free") };
    let subject = Subject::to_hub(node("edge"), ECHO);
    for round in 2..=4 {
        server.kill();
        down(&hub).await;
        down(&edge).await;
        server.start_again().await;
        let start = Instant::now();
        up(&hub, round).await;
        up(&edge, round).await;
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        edge.request(&subject, Message::default(), PATIENCE).await.expect("served again");
        assert!(lease.is_held(), "the broker was away for less than the lease lives");
        let other = Claim { holder: node("other"), ..claim.clone() };
        assert!(matches!(edge.lease(other).await.expect("asked"), Claimed::Taken { .. }), "the lease outlives the broker");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_lost_its_data_gives_later_terms_to_who_remembers() {
    let mut server = Server::start("").await;
    let hub = member(&server, "hub").await;
    up(&hub, 1).await;
    let mut claim = Claim { name: Name::new("hub"), holder: node("hub"), ttl: Duration::from_secs(2), seen_term: 0 };
    for _ in 0..5 {
        let Claimed::Held(lease) = hub.lease(claim.clone()).await.expect("asked") else { panic!("it is free") };
        claim.seen_term = lease.term();
    }
    let Claimed::Held(lease) = hub.lease(claim.clone()).await.expect("asked") else { panic!("it is free") };
    server.kill();
    server.delete_data();
    server.start_again().await;
    up(&hub, 2).await;
    tokio::time::timeout(PATIENCE, lease.lost()).await.expect("its key is gone");
    let last = lease.term();
    claim.seen_term = last;
    let Claimed::Held(lease) = hub.lease(claim).await.expect("asked") else { panic!("it is free") };
    assert!(lease.term() > last, "{} after {last}", lease.term());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_may_be_there_before_its_broker() {
    let mut server = Server::start("").await;
    server.kill();
    let (hub, edge) = (member(&server, "hub").await, member(&server, "edge").await);
    let echo = handler(async |call| Ok(call.message));
    let _service = hub.serve(&Subjects::to_hub(ECHO), 1, echo).await.expect("served");
    let subject = Subject::to_hub(node("edge"), ECHO);
    let asked = edge.request(&subject, Message::default(), PATIENCE).await.expect_err("there is no broker");
    assert!(matches!(asked, BackboneError::Disconnected(_)), "{asked:?}");
    eventually("it says why", async || hub.connection().borrow().why_down.as_ref().is_some_and(|why| why != "it has not connected yet"))
        .await;
    server.start_again().await;
    up(&hub, 1).await;
    up(&edge, 1).await;
    edge.request(&subject, Message::default(), PATIENCE).await.expect("served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_goes_silent_is_noticed_and_made_anew() {
    let server = Server::start("").await;
    let cable = Cable::to(server.port()).await;
    let edge: Member = Arc::new(NatsBackbone::connect(NatsOptions::new(node("edge"), vec![cable.url()])).await.expect("valid"));
    up(&edge, 1).await;
    cable.silence();
    let start = Instant::now();
    down(&edge).await;
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    cable.mend();
    up(&edge, 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_takes_less_says_so() {
    let server = Server::start("max_payload: 64KB").await;
    let (hub, edge) = (member(&server, "hub").await, member(&server, "edge").await);
    up(&hub, 1).await;
    up(&edge, 1).await;
    let grow = handler(async |_| Ok(Message::new(vec![7; MESSAGE_BYTES_MAX])));
    let _service = hub.serve(&Subjects::to_hub(ECHO), 1, grow).await.expect("served");
    let subject = Subject::to_hub(node("edge"), ECHO);
    let sent = edge.request(&subject, Message::new(vec![7; 70_000]), PATIENCE).await.expect_err("too large");
    assert!(matches!(sent, BackboneError::TooLarge { bytes: 70_000, bytes_max: 65_536, .. }), "{sent:?}");
    let answer = edge.request(&subject, Message::default(), PATIENCE).await.expect_err("its answer is too large");
    assert_eq!(answer.kind(), edgeward_model::ErrorKind::TooLarge, "{answer:?}");
    assert!(matches!(answer, BackboneError::Answered(_)));
}
