//! What holds when a member is cut off, and when it is back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use edgeward_cluster::{BackboneError, Claim, Message, Name, Subject, Subjects, handler};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use crate::site::{ECHO, NEWS, PATIENCE, Site, down, eventually, node, up};

fn is_cut_off<T>(result: &Result<T, BackboneError>) -> bool {
    matches!(result, Err(BackboneError::Disconnected(_)))
}

pub(crate) async fn who_is_cut_off_knows_it_and_fails_at_once(site: Site) {
    let (hub, edge) = (site.member("hub").await, site.member("edge").await);
    let echo = handler(async |call| Ok(call.message));
    let _service = edge.serve(&Subjects::to_node(node("edge"), ECHO), 1, echo).await.expect("served");
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let count = handler(move |call| {
        counter.fetch_add(1, Ordering::Relaxed);
        async { Ok(call.message) }
    });
    let _at_hub = hub.serve(&Subjects::to_hub(ECHO), 1, count).await.expect("served");
    let mut news = hub.subscribe(&Subjects::to_hub(NEWS)).await.expect("subscribed");
    site.cut_off("edge").await;
    down(&edge).await;
    let connection = edge.connection().borrow().clone();
    assert_eq!((connection.ups, connection.why_down.is_some_and(|why| !why.is_empty())), (1, true));

    let start = Instant::now();
    let (call, tell) = (Subject::to_hub(node("edge"), ECHO), Subject::to_hub(node("edge"), NEWS));
    let claim = Claim { name: Name::new("test"), holder: node("edge"), ttl: PATIENCE, seen_term: 0 };
    assert!(is_cut_off(&edge.request(&call, Message::default(), PATIENCE).await));
    assert!(is_cut_off(&edge.publish(&tell, Message::new("early")).await));
    assert!(is_cut_off(&edge.lease(claim).await));
    assert!(start.elapsed() < PATIENCE / 4);
    eventually("the others see nobody there", async || {
        let asked = hub.request(&Subject::to_node(node("edge"), ECHO), Message::default(), Duration::from_millis(200)).await;
        matches!(asked, Err(BackboneError::NoResponder(_)))
    })
    .await;

    // What failed is not sent when it is back.
    site.bring_back("edge").await;
    up(&edge, 2).await;
    edge.publish(&tell, Message::new("late")).await.expect("sent");
    let received = timeout(PATIENCE, news.next()).await.expect("it comes in time").expect("the backbone is there");
    assert_eq!((received.message.payload, seen.load(Ordering::Relaxed)), ("late".into(), 0));
}

pub(crate) async fn what_a_member_serves_and_subscribes_to_is_in_place_when_it_is_back(site: Site) {
    let (hub, edge) = (site.member("hub").await, site.member("edge").await);
    let echo = handler(async |call| Ok(call.message));
    let _service = edge.serve(&Subjects::to_node(node("edge"), ECHO), 1, echo).await.expect("served");
    let mut news = edge.subscribe(&Subjects::to_node(node("edge"), NEWS)).await.expect("subscribed");
    let (call, tell) = (Subject::to_node(node("edge"), ECHO), Subject::to_node(node("edge"), NEWS));
    for round in 1..=3_u64 {
        site.cut_off("edge").await;
        down(&edge).await;
        eventually("the others see nobody there", async || {
            matches!(hub.request(&call, Message::default(), Duration::from_millis(200)).await, Err(BackboneError::NoResponder(_)))
        })
        .await;
        hub.publish(&tell, Message::new("lost")).await.expect("sent");
        site.bring_back("edge").await;
        up(&edge, round + 1).await;
        // As soon as it says that it is up, without another try.
        hub.request(&call, Message::new("x"), PATIENCE).await.expect("served again");
        hub.publish(&tell, Message::new(round.to_string())).await.expect("sent");
        let received = timeout(PATIENCE, news.next()).await.expect("it comes in time").expect("the backbone is there");
        assert_eq!(received.message.payload, round.to_string());
    }
}

pub(crate) async fn a_request_that_waits_when_the_connection_breaks_fails_at_once(site: Site) {
    let (hub, edge) = (site.member("hub").await, site.member("edge").await);
    let begun = Arc::new(Semaphore::new(0));
    let seen = Arc::clone(&begun);
    let never = handler(move |_| {
        seen.add_permits(1);
        std::future::pending()
    });
    let _service = hub.serve(&Subjects::to_hub(ECHO), 1, never).await.expect("served");
    let subject = Subject::to_hub(node("edge"), ECHO);
    let cut = async {
        begun.acquire().await.expect("it is never closed").forget();
        site.cut_off("edge").await;
        Instant::now()
    };
    let (answer, cut_at) = tokio::join!(edge.request(&subject, Message::default(), 3 * PATIENCE), cut);
    assert!(is_cut_off(&answer));
    assert!(cut_at.elapsed() < PATIENCE / 2, "{:?}", cut_at.elapsed());
}

pub(crate) async fn what_was_begun_while_cut_off_counts_from_the_return(site: Site) {
    let (hub, edge) = (site.member("hub").await, site.member("edge").await);
    site.cut_off("edge").await;
    down(&edge).await;
    let start = Instant::now();
    let echo = handler(async |call| Ok(call.message));
    let _service = edge.serve(&Subjects::to_node(node("edge"), ECHO), 1, echo).await.expect("served");
    let mut news = edge.subscribe(&Subjects::to_node(node("edge"), NEWS)).await.expect("subscribed");
    assert!(start.elapsed() < PATIENCE / 4);
    site.bring_back("edge").await;
    up(&edge, 2).await;
    hub.request(&Subject::to_node(node("edge"), ECHO), Message::default(), PATIENCE).await.expect("served");
    hub.publish(&Subject::to_node(node("edge"), NEWS), Message::new("x")).await.expect("sent");
    assert_eq!(timeout(PATIENCE, news.next()).await.expect("it comes in time").map(|received| received.message.payload), Some("x".into()));
}
