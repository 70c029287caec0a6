//! The broker that a hub starts and supervises: it is there whatever happens to it, and never after its hub.

use std::{
    env,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use edgeward_cluster::{
    Claim, Claimed, Name,
    nats::{Broker, BrokerState, FleetFolder, Revoked},
};
use edgeward_model::{EdgeError, ErrorKind};
use jiff::Timestamp;
use tokio::time::{Instant, timeout};

use crate::{
    fleet::{Fleet, boot, broker_options, echo},
    site::{PATIENCE, down, eventually, node, up},
};

/// Longest time in which a broker that was killed is back.
const BACK: Duration = Duration::from_secs(2);
/// Tells the test that starts a broker and waits to be killed where to do that.
const FOLDER: &str = "EDGEWARD_TEST_BROKER_FOLDER";

fn running(broker: &Broker) -> Option<u32> {
    match *broker.state().borrow() {
        BrokerState::Running { pid, .. } => Some(pid),
        _ => None,
    }
}

pub(crate) fn kill(pid: u32) {
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().expect("kill is there");
    assert!(killed.success());
}

fn is_alive(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // One that nobody has waited for yet has ended all the same.
    state.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

async fn start(folder: &Path, port: u16) -> Result<Broker, EdgeError> {
    let fleet = FleetFolder::open_or_create(folder, Timestamp::now()).expect("readable");
    Broker::start(broker_options(folder, port), Arc::clone(fleet.keys()), Revoked::new()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_is_back_on_its_port_with_its_data_and_everybody_goes_on() {
    let fleet = Fleet::new(Duration::from_hours(1)).await;
    let folder = fleet.enrolled("edge").await;
    let (edge, _link) = boot(&folder).await;
    up(&edge, 1).await;
    let mut last_term = 0;
    for round in 2..=6_u64 {
        let claim = Claim { name: Name::new("kept"), holder: node("hub"), ttl: Duration::from_mins(1), seen_term: 0 };
        let Claimed::Held(lease) = fleet.hub.member.lease(claim).await.expect("claimed") else { panic!("it is nobody else's") };
        // The term is in JetStream only.
        assert_eq!(lease.term(), last_term + 1);
        last_term = lease.term();
        let pid = running(fleet.broker()).expect("it runs");
        kill(pid);
        let start = Instant::now();
        down(&edge).await;
        let mut state = fleet.broker().state();
        let is_back = state.wait_for(|state| matches!(state, BrokerState::Running { pid: now, .. } if *now != pid));
        timeout(BACK, is_back).await.expect("it is back in time").expect("it is supervised");
        eprintln!("back after {:?}", start.elapsed());
        up(&edge, round).await;
        up(&fleet.hub.member, round).await;
        echo(&edge, "edge").await.expect("answered");
    }
    let pid = running(fleet.broker()).expect("it runs");
    fleet.hub.link.stop().await;
    assert!(!is_alive(pid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_whose_folder_was_deleted_serves_again_and_refuses_who_was_removed() {
    let fleet = Fleet::new(Duration::from_hours(1)).await;
    let [stays, goes] = [fleet.enrolled("stays").await, fleet.enrolled("goes").await];
    fleet.remove("goes").await;
    let port = fleet.broker().address().port();
    let fleet = fleet.restart(|folder| std::fs::remove_dir_all(folder.join("broker")).expect("it was there")).await;
    assert_eq!(fleet.broker().address().port(), port);
    let ((member, _link), (_gone, refused)) = (boot(&stays).await, boot(&goes).await);
    up(&member, 1).await;
    eventually("the hub is back", async || echo(&member, "stays").await.is_ok()).await;
    crate::enrolment::is_refused(&refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_has_one_broker_which_ends_when_it_is_dropped() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let broker = start(folder.path(), 0).await.expect("it starts");
    let (pid, port) = (running(&broker).expect("it runs"), broker.address().port());
    assert!(is_alive(pid));
    assert_eq!(start(folder.path(), 0).await.expect_err("there is one").kind(), ErrorKind::Conflict);
    drop(broker);
    eventually("it ends", async || !is_alive(pid)).await;
    let again = start(folder.path(), port).await.expect("it starts");
    assert_eq!(again.address().port(), port);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_cannot_listen_says_why() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = taken.local_addr().expect("it is bound").port();
    let error = start(folder.path(), port).await.expect_err("the port is taken");
    assert!(error.kind() == ErrorKind::Unavailable && error.chain().contains("address already in use"), "{}", error.chain());
    drop(taken);
    start(folder.path(), port).await.expect("it is free").stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_does_not_outlive_a_hub_that_is_killed_and_the_next_one_has_its_port() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut hub = Command::new(env::current_exe().expect("this test"));
    hub.args(["--exact", "broker::child_that_is_a_hub_and_waits_to_be_killed", "--nocapture"]).env(FOLDER, folder.path());
    let mut hub = hub.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let lines = BufReader::new(hub.stdout.take().expect("it is piped")).lines();
    let started = lines.map_while(Result::ok).find_map(|line| {
        let (pid, port) = line.split_once("broker ")?.1.split_once(' ')?;
        Some((pid.parse().ok()?, port.parse().ok()?))
    });
    let (pid, port): (u32, u16) = started.expect("it says which broker it started");
    assert!(is_alive(pid));
    kill(hub.id());
    hub.wait().expect("it is ours");
    let broker = start(folder.path(), port).await.expect("the port is free");
    assert!(!is_alive(pid));
    assert_eq!(broker.address().port(), port);
    broker.stop().await;
}

/// What another test starts as a process of its own; by itself there is nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_is_a_hub_and_waits_to_be_killed() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let broker = start(Path::new(&folder), 0).await.expect("it starts");
    println!("broker {} {}", running(&broker).expect("it runs"), broker.address().port());
    tokio::time::sleep(6 * PATIENCE).await;
}
