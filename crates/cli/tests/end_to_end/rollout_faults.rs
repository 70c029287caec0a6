//! Rollouts whose hub, broker or nodes are killed, at each step that they come to: they end as their revision deserves, at no time has a node
//! more than two revisions, and no request to a node that lives fails.
//!
//! A step is what a rollout says of itself: its phase, its wave, how many nodes may have the revision, and whether it was approved.

use std::{
    collections::BTreeSet,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    fleet_support::Fleet,
    load::Load,
    support::{Node, PATIENCE, artifact, request, try_send, until},
};

const NODES: usize = 3;
/// Connections to each node.
const CONNECTIONS: usize = 4;
/// Longest time from a start to "ready again", on a machine with other work.
const READY: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What `moody` answers by itself when it errs.
const ERRS: &str = "errs\n";

/// How a revision gets there: one node at first, so that there are steps.
const ROLLING: &[&str] = &["--strategy", "rolling", "--batch", "1"];
const CANARY: &[&str] = &["--strategy", "canary", "--batch", "1", "--approve"];
const BLUE_GREEN: &[&str] = &["--strategy", "blue-green", "--approve"];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Hub,
    Broker,
    /// The one that takes a revision first.
    FirstNode,
    LastNode,
}

const VICTIMS: [Victim; 4] = [Victim::Hub, Victim::Broker, Victim::FirstNode, Victim::LastNode];

/// What a rollout says of itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    generation: u64,
    state: String,
    phase: String,
    wave: u64,
    allowed: u64,
    approval: String,
    to: u64,
    from: Option<u64>,
    reason: String,
}

impl Step {
    fn of(rollout: &Value) -> Self {
        let word = |name: &str| rollout[name].as_str().expect("a word").to_owned();
        let number = |name: &str| rollout[name].as_u64().expect("a number");
        Self {
            generation: number("generation"),
            state: word("state"),
            phase: word("phase"),
            wave: number("wave"),
            allowed: number("allowed"),
            approval: word("approval"),
            to: number("to"),
            from: rollout["from"].as_u64(),
            reason: word("reason"),
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.state.as_str(), "completed" | "rolled_back" | "failed")
    }

    fn name(&self) -> String {
        format!("{} {} {} {} {}", self.state, self.phase, self.wave, self.allowed, self.approval)
    }
}

/// A fleet under load on which a revision serves.
struct Trials {
    fleet: Fleet,
    nodes: Vec<Option<Node>>,
    loads: Vec<Option<Load>>,
    /// The revision that serves on all nodes.
    serves: u64,
    /// Its mood.
    mood: String,
    deployed: usize,
    /// Who was killed, and how long it took to be ready again.
    recoveries: Vec<(Victim, Duration)>,
    well: u64,
}

impl Trials {
    async fn start() -> Self {
        let fleet = Fleet::start().await;
        let mut nodes = Vec::new();
        for number in 1..=NODES {
            nodes.push(Some(fleet.join(&node_name(number - 1)).await));
        }
        let trials = Self {
            fleet,
            nodes,
            loads: (0..NODES).map(|_| None).collect(),
            serves: 1,
            mood: "well".to_owned(),
            deployed: 0,
            recoveries: Vec::new(),
            well: 0,
        };
        let first = ["deploy", &artifact("moody"), "--id", "moody", "--to", "all", "--env", "MOOD=well", "--bake", "0"];
        trials.fleet.hub().done(&first);
        trials.until_settled().await;
        trials
    }

    fn node(&self, number: usize) -> &Node {
        self.nodes[number].as_ref().expect("it runs")
    }

    /// Waits until every node serves the present revision and has nothing beside it.
    async fn until_settled(&self) {
        for number in 0..NODES {
            until(&format!("node {number} serves revision {} alone", self.serves), async || {
                self.revisions(number).await == [self.serves] && self.says(number).await.as_deref() == Some(&format!("{}\n", self.mood))
            })
            .await;
        }
    }

    async fn says(&self, number: usize) -> Option<String> {
        let answer = self.node(number).get_function("/fn/moody/").await;
        String::from_utf8(answer.body().to_vec()).ok()
    }

    /// The revisions that a node has, first the one that serves.
    async fn revisions(&self, number: usize) -> Vec<u64> {
        let functions = self.node(number).json("/v1/functions").await;
        let functions = functions["functions"].as_array().expect("a list").iter();
        let moody = functions.filter(|function| function["id"] == "moody");
        moody.flat_map(|moody| [&moody["revision"], &moody["warm_revision"]].map(Value::as_u64)).flatten().collect()
    }

    fn put_under_load(&mut self, number: usize) {
        let load = Load::that_allows(&[self.node(number).functions], "/fn/moody/", CONNECTIONS, ERRS);
        self.loads[number] = Some(load);
    }

    /// Ends the load of a node, of which nothing may have failed.
    async fn relieve(&mut self, number: usize, trial: &str) {
        if let Some(load) = self.loads[number].take() {
            let (well, failed, last) = load.stop().await;
            assert_eq!(failed, 0, "{trial}: of {} requests to node {number} {failed} failed: {last}", well + failed);
            self.well += well;
        }
    }

    /// Deploys another revision, which the command does not wait for.
    fn deploy(&self, mood: &str, options: &[&str]) -> Child {
        let (artifact, mood) = (artifact("moody"), format!("MOOD={mood}"));
        let all = [&["deploy", &artifact, "--id", "moody", "--to", "all", "--env", &mood, "--no-wait"], options].concat();
        self.fleet.hub().command(&all).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
    }

    async fn rollout(&self) -> Step {
        Step::of(&self.fleet.hub().json("/v1/rollouts/moody").await)
    }

    /// Kills who it is, starts it again, and notes how long that took.
    async fn strike(&mut self, victim: Victim, trial: &str) {
        let begun;
        match victim {
            Victim::Hub => {
                self.fleet.hub.take().expect("it runs").kill();
                begun = Instant::now();
                self.fleet.start_hub().await;
            }
            Victim::Broker => {
                let status = self.fleet.hub().json("/v1/status").await;
                let Some(pid) = status["broker_pid"].as_i64().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) else { return };
                kill_process(pid, Signal::KILL).expect("it runs");
                begun = Instant::now();
                let other = |status: &Value| status["broker_pid"].as_i64().is_some_and(|now| now != i64::from(pid.as_raw_nonzero().get()));
                until("another broker", async || {
                    let status = self.fleet.hub().json("/v1/status").await;
                    other(&status) && status["connected"] == true
                })
                .await;
            }
            Victim::FirstNode | Victim::LastNode => {
                let number = if victim == Victim::FirstNode { 0 } else { NODES - 1 };
                // Requests to who is killed may fail, and to nobody else.
                self.relieve(number, trial).await;
                self.nodes[number].take().expect("it runs").kill();
                begun = Instant::now();
                let node = self.fleet.launch(&node_name(number), None);
                until("the node is ready", async || {
                    let ready = request(Method::GET, "/readyz").body(http_body_util::Full::default()).expect("valid");
                    try_send(node.api, ready).await.is_some_and(|answer| answer.status() == 200)
                })
                .await;
                self.nodes[number] = Some(node);
                self.put_under_load(number);
            }
        }
        self.recoveries.push((victim, begun.elapsed()));
    }

    /// One rollout of a revision of this mood, in which `victim` is killed when the step of this number is first seen. Says whether there was one.
    async fn trial(&mut self, mood: &str, options: &[&str], victim: Victim, at: usize) -> bool {
        self.deployed += 1;
        let is_good = mood != "errs";
        let mood = if is_good { format!("{mood}-{}", self.deployed) } else { mood.to_owned() };
        // A revision that was found bad is the same revision the next time; what differs is what makes it another.
        let (name, memory) = (format!("moody {}", self.deployed), (64 + self.deployed % 64).to_string());
        let judged: &[&str] = if is_good { &["--max-slower", "100"] } else { &["--min-samples", "20"] };
        let options = [options, judged, &["--bake", "0.5", "--name", &name, "--memory-mb", &memory]].concat();
        for number in 0..NODES {
            self.put_under_load(number);
        }
        let before = self.rollout().await;
        let mut command = self.deploy(&mood, &options);
        let mut steps: Vec<Step> = Vec::new();
        let mut struck = false;
        let trial = format!("{mood} {options:?}, {victim:?} killed at step {at}");
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "{trial}: it does not end: {steps:#?}");
            let mut have = Vec::new();
            for number in 0..NODES {
                have.push(self.revisions(number).await);
            }
            let step = self.rollout().await;
            if step.generation == before.generation {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            self.check(&trial, steps.last(), &step, &have);
            let is_new = !steps.iter().any(|seen| seen.name() == step.name());
            if steps.last().is_none_or(|last| last.name() != step.name()) {
                steps.push(step.clone());
            }
            if is_new && !struck && steps.len() == at + 1 {
                struck = true;
                self.strike(victim, &trial).await;
                continue;
            }
            if step.approval == "awaited" && !step.is_over() {
                let _ = self.fleet.hub().ask(Method::POST, "/v1/rollouts/moody/approve", &[], "").await;
            }
            if step.is_over() {
                let expected = if is_good { "completed" } else { "rolled_back" };
                assert_eq!(step.state, expected, "{trial}: {steps:#?}");
                if is_good {
                    (self.serves, self.mood) = (step.to, mood);
                }
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        let _ = command.wait();
        self.until_settled().await;
        for number in 0..NODES {
            self.relieve(number, &trial).await;
        }
        println!("{victim:?} at {}: {}", at, steps.iter().map(Step::name).collect::<Vec<_>>().join(" → "));
        struck
    }

    /// Whether what a rollout says is legal after what it said before, and agrees with what the nodes have.
    fn check(&self, trial: &str, before: Option<&Step>, now: &Step, have: &[Vec<u64>]) {
        assert_eq!(now.from, Some(self.serves), "{trial}");
        let taken = have.iter().filter(|revisions| revisions.first() == Some(&now.to)).count() as u64;
        if let Some(before) = before {
            // A hub that has just started hears nobody: one that was killed before its first order begins anew.
            let begins_anew = now.state == "pending" && now.allowed == 0 && taken == 0;
            let went_on = begins_anew || (before.wave, before.allowed) <= (now.wave, now.allowed);
            assert!(before.generation == now.generation && went_on, "{trial}: from {before:?} to {now:?}");
            assert!(!before.is_over() || before.state == now.state, "{trial}: from {before:?} to {now:?}");
            assert!(before.phase != "restoring" || now.phase == "restoring", "{trial}: from {before:?} to {now:?}");
        }
        assert_ne!(now.state, "paused", "{trial}: {now:?}");
        let legal = BTreeSet::from([self.serves, now.to]);
        for (number, revisions) in have.iter().enumerate() {
            let live: BTreeSet<_> = revisions.iter().copied().collect();
            assert!(!live.is_empty() && live.is_subset(&legal), "{trial}: node {number} has {revisions:?} at {now:?}");
        }
        assert!(taken <= now.allowed || now.is_over(), "{trial}: {taken} nodes serve it, at {now:?}");
    }

    /// Kills each of them at each step of each of these rollouts.
    async fn sweep(&mut self, moods: &[&str], options: &[&str], victims: &[Victim]) {
        for mood in moods {
            for victim in victims {
                let mut at = 0;
                while self.trial(mood, options, *victim, at).await {
                    at += 1;
                }
                assert!(at >= 3, "{mood}, {victim:?}: only {at} steps were seen");
            }
        }
        self.tell();
    }

    fn tell(&self) {
        println!("{} trials, {} requests answered well", self.deployed, self.well);
        for victim in VICTIMS {
            let mut times: Vec<_> = self.recoveries.iter().filter(|(who, _)| *who == victim).map(|(_, time)| *time).collect();
            times.sort();
            let Some(most) = times.last() else { continue };
            println!("{victim:?} killed {} times, ready again: median {:?}, most {most:?}", times.len(), times[times.len() / 2]);
            assert!(*most <= READY, "{victim:?}: {times:?}");
        }
    }
}

fn node_name(number: usize) -> String {
    format!("edge-{:02}", number + 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollout_ends_well_although_its_hub_its_broker_and_a_node_are_killed() {
    let mut trials = Trials::start().await;
    for (mood, options, victim, at) in [
        ("glad", ROLLING, Victim::Hub, 1),
        ("calm", BLUE_GREEN, Victim::Hub, 0),
        ("merry", CANARY, Victim::FirstNode, 0),
        ("errs", ROLLING, Victim::Hub, 1),
        ("brisk", BLUE_GREEN, Victim::Broker, 1),
    ] {
        assert!(trials.trial(mood, options, victim, at).await, "{mood}: there was no step {at}");
    }
    trials.tell();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_kills_at_every_step_of_a_rolling_strategy() {
    Trials::start().await.sweep(&["glad", "errs"], ROLLING, &VICTIMS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_kills_at_every_step_of_a_canary() {
    Trials::start().await.sweep(&["glad", "errs"], CANARY, &VICTIMS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_kills_at_every_step_of_a_blue_green_deployment() {
    Trials::start().await.sweep(&["glad", "errs"], BLUE_GREEN, &VICTIMS).await;
}
