//! How a machine becomes a member, stays one, and stops being one: a real broker, and a hub with the least of records.

use std::{fs, path::Path, sync::Arc, time::Duration};

use async_nats::ConnectOptions;
use edgeward_cluster::{
    Credentials, NatsBackbone, NatsOptions, Tls,
    nats::{BrokerState, CredentialState, Enrolment, FleetFolder, NodeLink},
};
use edgeward_model::{
    ErrorKind,
    limits::{CREDENTIALS_TTL_MIN, JOIN_TIMEOUT},
};
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::{
    audit,
    broker::kill,
    fleet::{Fleet, boot, echo, join},
    site::{Member, PATIENCE, down, eventually, node, up},
};

const HOUR: Duration = Duration::from_hours(1);

/// One field of what a node keeps.
fn kept(folder: &Path, field: &str) -> String {
    let text = fs::read_to_string(folder.join("fleet.json")).expect("it is there");
    serde_json::from_str::<serde_json::Value>(&text).expect("JSON")[field].as_str().expect(field).to_owned()
}

pub(crate) async fn is_refused(link: &NodeLink) {
    let mut state = link.credentials();
    let refused = state.wait_for(|state| matches!(state, CredentialState::Refused { .. }));
    timeout(PATIENCE, refused).await.expect("it learns it in time").expect("it keeps on");
}

/// A client without our own care, and what it is refused.
async fn bare(fleet: &Fleet, seed: &str, jwt: String, inbox: &str) -> (async_nats::Client, mpsc::Receiver<String>) {
    let pair = Arc::new(nkeys::KeyPair::from_seed(seed).expect("valid"));
    let (events, received) = mpsc::channel(64);
    let options = ConnectOptions::with_jwt(jwt, move |nonce| {
        let pair = Arc::clone(&pair);
        async move { pair.sign(&nonce).map_err(async_nats::AuthError::new) }
    });
    let Tls::Ca(file) = fleet.broker().tls() else { panic!("it has a file") };
    let options = options.custom_inbox_prefix(inbox).require_tls(true).add_root_certificates(file).event_callback(move |event| {
        let _ = events.try_send(event.to_string());
        async {}
    });
    (options.connect(fleet.broker().local_url()).await.expect("it may connect"), received)
}

async fn refuses(events: &mut mpsc::Receiver<String>, what: &str) {
    let told = async {
        while let Some(event) = events.recv().await {
            if event.to_lowercase().contains("permissions violation") && event.contains(what) {
                return;
            }
        }
    };
    timeout(PATIENCE, told).await.unwrap_or_else(|_| panic!("`{what}` is not refused"));
}

/// Says that a node is refused, and why.
fn refusal(link: &NodeLink) -> Option<String> {
    match &*link.credentials().borrow() {
        CredentialState::Refused { why } => Some(why.clone()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_with_a_token_becomes_a_node_and_is_one_after_a_restart() {
    let fleet = Fleet::new(HOUR).await;
    let token = fleet.token().text().parse().expect("its own text");
    fleet.join(&token, "edge.1").await.expect("admitted");
    let folder = fleet.node_folder("edge.1");
    let first = kept(&folder, "seed");
    for _ in 0..2 {
        // The token is still in the command that starts it.
        fleet.join(&token, "edge.1").await.expect("it joined by it");
        let (edge, link) = boot(&folder).await;
        up(&edge, 1).await;
        echo(&edge, "edge.1").await.expect("answered");
        assert!(matches!(*link.credentials().borrow(), CredentialState::Valid { .. }));
    }
    assert_eq!(kept(&folder, "seed"), first);
    assert_eq!(join(&fleet.token(), "edge-2", &folder).await.expect_err("another's folder").kind(), ErrorKind::Conflict);
    fleet.join(&fleet.token(), "edge.1").await.expect("it joins anew by another token");
    assert_ne!(kept(&folder, "seed"), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_makes_one_member_also_when_its_hub_starts_again_in_between() {
    let fleet = Fleet::new(HOUR).await;
    let token = fleet.token();
    fleet.join(&token, "edge").await.expect("admitted");
    let fleet = fleet.restart(|_| ()).await;
    for id in ["edge", "thief"] {
        let elsewhere = tempfile::tempdir().expect("a temporary folder");
        let error = join(&token, id, elsewhere.path()).await.expect_err("it was used");
        assert!(error.kind() == ErrorKind::Forbidden && error.to_string().contains("was used"), "{error}");
    }
    audit::says(&["refused a node", "join", token.id().as_str(), "`thief` may not join: its join token was used"]).await;
    let bound = fleet.fleet().join_token(Vec::new(), Some(node("wanted")), Duration::from_mins(1), Timestamp::now()).expect("made");
    assert_eq!(fleet.join(&bound, "other").await.expect_err("another's").kind(), ErrorKind::Forbidden);
    fleet.join(&bound, "wanted").await.expect("admitted");
    assert_eq!(fleet.join(&fleet.token(), "unwanted").await.expect_err("the registry decides").kind(), ErrorKind::Conflict);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_has_ended_is_refused_here_and_by_the_broker() {
    let fleet = Fleet::new(HOUR).await;
    let start = Timestamp::now();
    let token = fleet.fleet().join_token(Vec::new(), None, Duration::from_secs(2), start).expect("made");
    eventually("it ends", async || Timestamp::now() >= token.ends_at() + SignedDuration::from_secs(1)).await;
    let error = fleet.join(&token, "edge").await.expect_err("it has ended");
    assert!(error.to_string().contains("ended at"), "{error}");
    // By a clock that is behind.
    let asked = Instant::now();
    let error =
        Enrolment::open_or_join(&fleet.node_folder("edge"), &node("edge"), Some(&token), "".into(), start).await.expect_err("it has ended");
    assert!(error.kind() == ErrorKind::Forbidden && error.to_string().contains("do not take"), "{error}");
    assert!(asked.elapsed() < JOIN_TIMEOUT / 3, "it need not wait");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_another_authority_is_told_nothing_by_who_joins_and_by_who_has() {
    let fleet = Fleet::new(HOUR).await;
    let (elsewhere, now) = (tempfile::tempdir().expect("a temporary folder"), Timestamp::now());
    let other = FleetFolder::open_or_create(elsewhere.path(), now).expect("made");
    let token = other.join_token(vec![fleet.broker().local_url()], None, Duration::from_mins(1), now).expect("made");
    let asked = Instant::now();
    let error = fleet.join(&token, "edge").await.expect_err("it is another's");
    assert!(error.kind() == ErrorKind::Forbidden && error.chain().contains("does not show the certificate"), "{}", error.chain());
    assert!(asked.elapsed() < JOIN_TIMEOUT / 3, "it need not wait");
    // By an address that the certificate does not have.
    let port = fleet.broker().address().port();
    let nobody = fleet.fleet().join_token(vec![format!("nats://127.0.0.2:{port}")], None, Duration::from_mins(1), now).expect("made");
    fleet.join(&nobody, "edge").await.expect_err("it is not listening there, or not the one");

    let folder = fleet.enrolled("edge").await;
    let stranger = Fleet::new(HOUR).await;
    let credentials = Credentials::new(&kept(&folder, "seed"), kept(&folder, "working")).expect("valid");
    let options = NatsOptions::new(node("edge"), vec![stranger.broker().local_url()]);
    let options = NatsOptions { tls: Tls::Ca(folder.join("fleet-ca.pem")), credentials: Some(credentials), ..options };
    let member: Member = Arc::new(NatsBackbone::connect(options).await.expect("valid"));
    eventually("it says why", async || member.connection().borrow().why_down.as_ref().is_some_and(|why| why != "it has not connected yet"))
        .await;
    assert_eq!(member.connection().borrow().ups, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_holds_a_token_to_join_or_to_renew_may_ask_that_and_nothing_else() {
    let fleet = Fleet::new(HOUR).await;
    let folder = fleet.enrolled("edge").await;
    let token = fleet.token();
    let json = data_encoding::BASE64URL_NOPAD.decode(&token.text().as_bytes()["edgeward-join-".len()..]).expect("base64");
    let text: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    let field = |name: &str| text[name].as_str().expect(name).to_owned();
    let id = token.id();
    let (joiner, mut joiner_events) = bare(&fleet, &field("seed"), field("token"), &format!("_INBOX_{id}")).await;
    let (renewer, mut renewer_events) = bare(&fleet, &kept(&folder, "seed"), kept(&folder, "renewal"), "_INBOX_edge").await;
    for (client, events, own, others) in [
        (&joiner, &mut joiner_events, format!("rpc.hub.{id}.join"), ["rpc.hub.join-another.join".to_owned(), format!("rpc.hub.{id}.echo")]),
        (
            &renewer,
            &mut renewer_events,
            "rpc.hub.edge.renew".to_owned(),
            ["rpc.hub.other.renew".to_owned(), "rpc.hub.edge.echo".to_owned()],
        ),
    ] {
        for subject in
            others.iter().map(String::as_str).chain(["rpc.node.edge.echo", "_INBOX_hub.x", "$JS.API.INFO", "$SYS.REQ.CLAIMS.UPDATE"])
        {
            client.publish(subject.to_owned(), "x".into()).await.expect("it is handed over");
            refuses(events, subject).await;
        }
        for subject in ["rpc.node.edge.>", "rpc.hub.>", "_INBOX_other.>", ">"] {
            let _subscription = client.subscribe(subject).await.expect("it is asked for");
            refuses(events, subject).await;
        }
        audit::says(&["the NATS server refused a member", "Subscription Violation", "_INBOX_other.>"]).await;
        // The hub answers what is its own, if only that the payload is none.
        client.request(own, "x".into()).await.expect("answered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alone_a_token_ends_while_its_member_works_and_the_work_goes_on() {
    let fleet = Fleet::new(CREDENTIALS_TTL_MIN).await;
    let folder = fleet.enrolled("edge").await;
    let first = kept(&folder, "working");
    let (edge, link) = boot(&folder).await;
    up(&edge, 1).await;
    let is_valid = || matches!(*link.credentials().borrow(), CredentialState::Valid { .. });
    let (start, mut asked, mut failed, mut lapsed) = (Instant::now(), 0, 0, 0);
    while start.elapsed() < 4 * CREDENTIALS_TTL_MIN {
        asked += 1;
        failed += usize::from(echo(&edge, "edge").await.is_err());
        lapsed += usize::from(!is_valid());
        sleep(Duration::from_millis(5)).await;
    }
    let ups = edge.connection().borrow().ups;
    eprintln!("{failed} of {asked} requests failed, {lapsed} times without credentials, {ups} connections");
    assert!((3..=10).contains(&ups), "{ups} connections");
    // A machine that stands still for a second lets credentials of three seconds end: that may
    // happen, and must pass.
    assert!(failed * 10 < asked && lapsed * 10 < asked, "{failed} of {asked} requests failed, {lapsed} times without credentials");
    eventually("its credentials are valid", async || is_valid()).await;
    assert_ne!(kept(&folder, "working"), first, "the new ones are kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_away_longer_than_its_token_lives_comes_back_by_itself() {
    let fleet = Fleet::new(CREDENTIALS_TTL_MIN).await;
    let folder = fleet.enrolled("edge").await;
    sleep(CREDENTIALS_TTL_MIN + Duration::from_secs(1)).await;
    // What it has kept opens no connection.
    let stale = Credentials::new(&kept(&folder, "seed"), kept(&folder, "working")).expect("valid");
    let stale: Member = Arc::new(
        NatsBackbone::connect(NatsOptions {
            tls: fleet.broker().tls(),
            credentials: Some(stale),
            ..NatsOptions::new(node("edge"), vec![fleet.broker().local_url()])
        })
        .await
        .expect("valid"),
    );
    eventually("it is refused", async || {
        stale.connection().borrow().why_down.as_ref().is_some_and(|why| why.contains("does not take the credentials"))
    })
    .await;
    drop(stale);
    let start = Instant::now();
    let (edge, _link) = boot(&folder).await;
    up(&edge, 1).await;
    eprintln!("back after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    echo(&edge, "edge").await.expect("answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_node_is_refused_with_both_tokens_and_keeps_what_it_has() {
    let fleet = Fleet::new(HOUR).await;
    let [gone, stays] = [fleet.enrolled("gone").await, fleet.enrolled("stays").await];
    let [(member, link), (other, _other_link)] = [boot(&gone).await, boot(&stays).await];
    up(&member, 1).await;
    up(&other, 1).await;
    let before = fs::read(gone.join("fleet.json")).expect("there");
    let start = Instant::now();
    fleet.remove("gone").await;
    down(&member).await;
    is_refused(&link).await;
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    audit::says(&["the NATS server refused a member", "authentication error"]).await;
    drop((member, link));
    let (again, link) = boot(&gone).await;
    is_refused(&link).await;
    assert_eq!((again.connection().borrow().ups, fs::read(gone.join("fleet.json")).expect("there")), (0, before));
    echo(&other, "stays").await.expect("the others stay");
    // It may come again, as another.
    drop((again, link));
    fleet.join(&fleet.token(), "gone").await.expect("admitted");
    let (member, _link) = boot(&gone).await;
    up(&member, 1).await;
    echo(&member, "gone").await.expect("answered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_does_not_know_a_key_any_more_says_so_although_the_broker_lets_it_in() {
    let fleet = Fleet::new(CREDENTIALS_TTL_MIN).await;
    let folder = fleet.enrolled("edge").await;
    let (edge, link) = boot(&folder).await;
    up(&edge, 1).await;
    fleet.records.lock().nodes.clear();
    is_refused(&link).await;
    let why = refusal(&link);
    assert!(why.as_ref().is_some_and(|why| why.contains("was removed")), "{why:?}");
    audit::says(&["refused a node", "asked_as=edge", "renew", "was removed from the fleet"]).await;
}

/// The folder of a node, copied to another machine.
fn copied(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a temporary folder");
    for file in fs::read_dir(folder).expect("there") {
        let file = file.expect("readable");
        fs::copy(file.path(), copy.path().join(file.file_name())).expect("copied");
    }
    copy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_node_and_a_copy_of_its_folder_the_one_that_is_up_longer_stays() {
    let fleet = Fleet::new(HOUR).await;
    let folder = fleet.enrolled("edge").await;
    let (edge, link) = boot(&folder).await;
    up(&edge, 1).await;
    let copy = copied(&folder);
    let (clone, clone_link) = boot(copy.path()).await;
    is_refused(&clone_link).await;
    let why = refusal(&clone_link);
    assert!(why.as_ref().is_some_and(|why| why.contains("folder was copied")), "{why:?}");
    audit::says(&["refused a node", "asked_as=edge", "presence", "folder was copied"]).await;
    down(&clone).await;
    echo(&edge, "edge").await.expect("it works on");
    assert!((refusal(&link), edge.connection().borrow().ups) == (None, 1), "it was not disturbed");
    // Its connection broke, and is made again: it is not the younger one by that.
    let fleet = fleet.restart(|_| ()).await;
    up(&edge, 2).await;
    eventually("it works on", async || echo(&edge, "edge").await.is_ok()).await;
    assert!(refusal(&link).is_none() && refusal(&clone_link).is_some());
    drop(fleet);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_again_at_once_is_not_its_own_copy() {
    let fleet = Fleet::new(HOUR).await;
    let folder = fleet.enrolled("edge").await;
    for _ in 0..3 {
        let (edge, link) = boot(&folder).await;
        up(&edge, 1).await;
        let end = Instant::now() + Duration::from_secs(3);
        eventually("it has asked whether it may stay", async || Instant::now() > end).await;
        assert_eq!(refusal(&link), None);
        echo(&edge, "edge").await.expect("answered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_starts_without_a_hub_and_without_a_broker() {
    let fleet = Fleet::new(HOUR).await;
    let folder = fleet.enrolled("edge").await;
    let away = tempfile::tempdir().expect("a temporary folder");
    fs::rename(&folder, away.path().join("edge")).expect("moved");
    let folder = away.path().join("edge");
    drop(fleet);
    let start = Instant::now();
    let (edge, link) = boot(&folder).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    eventually("it says why", async || edge.connection().borrow().why_down.as_ref().is_some_and(|why| why != "it has not connected yet"))
        .await;
    assert_eq!(refusal(&link), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_away_learns_whose_credentials_are_revoked_when_it_is_back() {
    let fleet = Fleet::new(HOUR).await;
    let folder = fleet.enrolled("edge").await;
    let (edge, link) = boot(&folder).await;
    up(&edge, 1).await;
    let key = fleet.records.lock().nodes[&node("edge")].clone();
    let BrokerState::Running { pid, .. } = *fleet.broker().state().borrow() else { panic!("it runs") };
    kill(pid);
    // Told or not: it knows it when it is back.
    let _ = fleet.hub.link.revoke([(key, Timestamp::now())].into()).await;
    is_refused(&link).await;
    assert!(!edge.connection().borrow().is_up);
}
