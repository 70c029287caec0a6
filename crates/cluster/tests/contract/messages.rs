//! `publish` and `subscribe`.

use edgeward_cluster::{Message, Subject, Subjects, Subscription};
use edgeward_model::limits::WAITING_MESSAGES_MAX;
use tokio::time::timeout;

use crate::site::{ECHO, NEWS, PATIENCE, Site, eventually, node};

fn numbered(index: usize) -> Message {
    Message::new(index.to_string())
}

async fn next(subscription: &mut Subscription) -> (Subject, String) {
    let received = timeout(PATIENCE, subscription.next()).await.expect("it comes in time").expect("the backbone is there");
    (received.subject, String::from_utf8(received.message.payload.to_vec()).expect("a text"))
}

pub(crate) async fn every_subscriber_gets_every_message_in_order(site: Site) {
    const COUNT: usize = 500;
    let (edge, one, other) = (site.member("edge").await, site.member("hub-1").await, site.member("hub-2").await);
    let mut subscriptions = [
        one.subscribe(&Subjects::to_hub(NEWS)).await.expect("subscribed"),
        other.subscribe(&Subjects::to_hub(NEWS)).await.expect("subscribed"),
    ];
    let subject = Subject::to_hub(node("edge"), NEWS);
    for index in 0..COUNT {
        edge.publish(&subject, numbered(index)).await.expect("sent");
    }
    for subscription in &mut subscriptions {
        for index in 0..COUNT {
            assert_eq!(next(subscription).await, (subject.clone(), index.to_string()));
        }
        assert_eq!(subscription.dropped(), 0);
    }
}

pub(crate) async fn a_subscription_receives_its_subjects_only_and_until_it_is_dropped(site: Site) {
    let (hub, edge) = (site.member("hub").await, site.member("edge").await);
    let mut mine = edge.subscribe(&Subjects::to_node(node("edge"), NEWS)).await.expect("subscribed");
    let dropped = edge.subscribe(&Subjects::to_node(node("edge"), NEWS)).await.expect("subscribed");
    drop(dropped);
    for subject in [
        Subject::to_node(node("edge.1"), NEWS),
        Subject::to_node(node("edg"), NEWS),
        Subject::to_node(node("edge"), ECHO),
        Subject::to_hub(node("edge"), NEWS),
        Subject::to_node(node("edge"), NEWS),
    ] {
        hub.publish(&subject, Message::new(subject.to_string())).await.expect("sent");
    }
    assert_eq!(next(&mut mine).await.1, "rpc.node.edge.news");
    hub.publish(&Subject::to_node(node("edge"), NEWS), Message::new("last")).await.expect("sent");
    assert_eq!(next(&mut mine).await.1, "last", "nothing was between");
}

pub(crate) async fn what_a_slow_subscriber_has_no_room_for_is_counted(site: Site) {
    const TOO_MANY: usize = 300;
    let (hub, edge) = (site.member("hub").await, site.member("edge").await);
    let mut slow = edge.subscribe(&Subjects::to_node(node("edge"), NEWS)).await.expect("subscribed");
    let subject = Subject::to_node(node("edge"), NEWS);
    for index in 0..WAITING_MESSAGES_MAX + TOO_MANY {
        hub.publish(&subject, numbered(index)).await.expect("sent");
    }
    eventually("the rest is dropped", async || slow.dropped() == TOO_MANY as u64).await;
    for index in 0..WAITING_MESSAGES_MAX {
        assert_eq!(next(&mut slow).await.1, index.to_string());
    }
    hub.publish(&subject, Message::new("there is room again")).await.expect("sent");
    assert_eq!(next(&mut slow).await.1, "there is room again");
}
