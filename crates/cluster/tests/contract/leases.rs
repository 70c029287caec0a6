//! `lease`.

use std::time::Duration;

use edgeward_cluster::{Claim, Claimed, Lease, Name};
use edgeward_model::ErrorKind;
use futures::future::join_all;
use tokio::time::{Instant, sleep, timeout};

use crate::site::{Member, PATIENCE, Site, node, up};

const NAME: Name = Name::new("hub");
const TTL: Duration = Duration::from_secs(3);

fn claim(holder: &str) -> Claim {
    Claim { name: NAME, holder: node(holder), ttl: TTL, seen_term: 0 }
}

async fn claimed(member: &Member, holder: &str) -> Claimed {
    member.lease(claim(holder)).await.expect("it can be asked for")
}

async fn held(member: &Member, holder: &str) -> Lease {
    match claimed(member, holder).await {
        Claimed::Held(lease) => lease,
        Claimed::Taken { holder, term } => panic!("`{holder}` has it in term {term}"),
    }
}

/// Claims until it is held.
async fn held_in_time(member: &Member, holder: &str) -> Lease {
    let start = Instant::now();
    loop {
        if let Claimed::Held(lease) = claimed(member, holder).await {
            return lease;
        }
        assert!(start.elapsed() < PATIENCE, "it lapses in time");
        sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn of_many_claimers_one_gets_the_lease(site: Site) {
    let hub = site.member("hub").await;
    let ids: Vec<String> = (0..12).map(|index| format!("hub-{index}")).collect();
    let claims = join_all(ids.iter().map(|id| hub.lease(claim(id)))).await;
    // Who met another claim each time knows nothing, and asks again.
    let held: Vec<_> = claims.iter().filter(|claimed| matches!(claimed, Ok(Claimed::Held(_)))).collect();
    assert_eq!(held.len(), 1);
}

pub(crate) async fn a_lease_that_is_given_back_is_taken_at_once_in_a_later_term(site: Site) {
    let (one, other) = (site.member("one").await, site.member("other").await);
    let mut last = 0;
    for _ in 0..3 {
        for (member, id, rival, rival_id) in [(&one, "one", &other, "other"), (&other, "other", &one, "one")] {
            let lease = held(member, id).await;
            assert!(lease.is_held() && lease.term() > last);
            last = lease.term();
            match claimed(rival, rival_id).await {
                Claimed::Taken { holder, term } => assert_eq!((holder, term), (node(id), last)),
                Claimed::Held(_) => panic!("two hold it"),
            }
            lease.release().await;
        }
    }
}

pub(crate) async fn a_lease_is_held_as_long_as_it_is_renewed(site: Site) {
    let (one, other) = (site.member("one").await, site.member("other").await);
    let lease = held(&one, "one").await;
    let start = Instant::now();
    while start.elapsed() < TTL * 5 / 2 {
        assert!(lease.is_held());
        assert!(matches!(claimed(&other, "other").await, Claimed::Taken { .. }));
        sleep(TTL / 10).await;
    }
    assert!(timeout(Duration::from_millis(1), lease.lost()).await.is_err());
}

pub(crate) async fn a_lease_that_is_not_renewed_lapses_each_time(site: Site) {
    let (one, other) = (site.member("one").await, site.member("other").await);
    let mut last = 0;
    // The second time its key is one that was there before.
    for (dead, heir) in [(("one", &one), ("other", &other)), (("other", &other), ("one", &one))] {
        let start = Instant::now();
        drop(held(dead.1, dead.0).await);
        let lease = held_in_time(heir.1, heir.0).await;
        assert!(start.elapsed() + Duration::from_millis(50) >= TTL, "it lapsed early: {:?}", start.elapsed());
        assert!(lease.term() > last);
        last = lease.term();
        lease.release().await;
    }
}

pub(crate) async fn a_holder_takes_its_own_lease_over_and_the_older_one_learns_it(site: Site) {
    let (one, again) = (site.member("one").await, site.member("again").await);
    let older = held(&one, "one").await;
    let newer = held(&again, "one").await;
    assert!(newer.term() > older.term());
    timeout(TTL, older.lost()).await.expect("it learns it by its next renewal");
    assert!(!older.is_held() && newer.is_held());
    older.release().await;
    assert!(matches!(claimed(&one, "two").await, Claimed::Taken { .. }), "who lost it cannot give it back");
}

pub(crate) async fn a_holder_that_is_cut_off_stops_before_another_begins(site: Site) {
    let (one, other) = (site.member("one").await, site.member("other").await);
    let older = held(&one, "one").await;
    site.cut_off("one").await;
    let newer = held_in_time(&other, "other").await;
    assert!(!older.is_held(), "two hold it");
    timeout(Duration::from_millis(100), older.lost()).await.expect("it is known");
    assert!(newer.term() > older.term());
    site.bring_back("one").await;
    up(&one, 2).await;
    match claimed(&one, "one").await {
        Claimed::Taken { holder, term } => assert_eq!((holder, term), (node("other"), newer.term())),
        Claimed::Held(_) => panic!("two hold it"),
    }
}

pub(crate) async fn a_holder_that_nobody_hears_stops_before_another_begins(site: Site) {
    let (one, other) = (site.member("one").await, site.member("other").await);
    let older = held(&one, "one").await;
    site.silence("one").await;
    let newer = held_in_time(&other, "other").await;
    assert!(!older.is_held() && newer.term() > older.term(), "two hold it");
}

pub(crate) async fn a_term_is_greater_than_every_term_that_was_seen(site: Site) {
    let hub = site.member("hub").await;
    let first = hub.lease(Claim { seen_term: 41, ..claim("one") }).await.expect("it can be asked for");
    let Claimed::Held(first) = first else { panic!("it is free") };
    assert!(first.term() > 41);
    let second = held(&hub, "one").await;
    assert!(second.term() > first.term());
}

pub(crate) async fn a_lease_lives_within_its_bounds(site: Site) {
    let hub = site.member("hub").await;
    for ttl in [Duration::from_millis(999), Duration::from_secs(3601)] {
        let refused = hub.lease(Claim { ttl, ..claim("one") }).await.expect_err("out of bounds");
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
    }
}
