use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;
use EdgeNodeStatus::{Degraded, Offline, Online, Syncing};

const HEARTBEAT: Duration = Duration::from_millis(1_500);

fn id(number: usize) -> NodeId {
    NodeId::new(format!("edge-{number}")).expect("valid")
}

fn at(elapsed: Duration) -> Moment {
    let wall = Timestamp::from_second(1_800_000_000).expect("a time") + SignedDuration::try_from(elapsed).expect("short");
    Moment { elapsed, wall }
}

/// One hub and its clock; looks are made when they are due.
struct Hub {
    members: Membership,
    elapsed: Duration,
    seen: Vec<Transition>,
}

impl Hub {
    fn new(timing: Timing) -> Self {
        Self { members: Membership::new(timing), elapsed: Duration::ZERO, seen: Vec::new() }
    }

    fn with_node() -> Self {
        let mut hub = Self::new(Timing::default());
        hub.register(Online);
        hub
    }

    fn register(&mut self, status: EdgeNodeStatus) {
        self.members.register(id(1), status, true, at(self.elapsed)).expect("there is room");
    }

    fn pass(&mut self, time: Duration) {
        let end = self.elapsed + time;
        let every = self.members.timing().look_every();
        while self.elapsed < end {
            self.elapsed = (self.elapsed + every).min(end);
            let seen = self.members.look(at(self.elapsed));
            self.seen.extend(seen);
        }
    }

    /// A node that reports this, every heartbeat.
    fn live(&mut self, time: Duration, change: impl Fn(&mut Report)) {
        let end = self.elapsed + time;
        while self.elapsed < end {
            let heartbeat = self.members.timing().heartbeat();
            self.pass(heartbeat);
            self.hear(&change);
        }
    }

    fn hear(&mut self, change: impl Fn(&mut Report)) {
        let now = at(self.elapsed);
        let mut report = Report::healthy(now.wall);
        change(&mut report);
        let seen = self.members.heartbeat(&id(1), &report, now);
        self.seen.extend(seen);
    }

    fn status(&self) -> EdgeNodeStatus {
        self.members.node(&id(1)).expect("it is never forgotten").status()
    }

    fn reasons(&self) -> Vec<Reason> {
        self.members.node(&id(1)).expect("it is never forgotten").reasons().to_vec()
    }

    /// What it became, each time since the last call.
    fn became(&mut self) -> Vec<EdgeNodeStatus> {
        self.seen.drain(..).map(|transition| transition.to).collect()
    }
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_node_that_reports_is_online_and_one_that_dies_is_offline_within_five_seconds() {
    let mut hub = Hub::with_node();
    hub.live(secs(60), |_| ());
    assert_eq!((hub.status(), hub.became()), (Online, vec![]));
    let died = hub.elapsed;
    hub.pass(secs(60));
    let [transition] = &hub.seen[..] else { panic!("one fault, one transition: {:?}", hub.seen) };
    assert_eq!((transition.from, transition.to), (Online, Offline));
    assert_eq!(transition.reasons, [Reason::Silent]);
    assert!(transition.at <= at(died + secs(5)).wall && transition.at >= at(died + HEARTBEAT * 3).wall, "{transition:?}");
    let standing = hub.members.node(&id(1)).expect("it is never forgotten");
    assert_eq!((standing.since(), standing.last_heartbeat()), (transition.at, Some(at(died).wall)));
    assert_eq!((standing.connectivity(), standing.health().is_some()), (Connectivity::Silent, true), "what it said is kept");
}

#[test]
fn silence_for_a_year_deletes_nothing() {
    let mut hub = Hub::with_node();
    hub.elapsed = secs(365 * 24 * 3600);
    hub.pass(secs(60));
    assert_eq!((hub.members.nodes().count(), hub.status()), (1, Offline));
}

#[test]
fn who_comes_back_catches_up_first() {
    let mut hub = Hub::with_node();
    hub.live(secs(10), |_| ());
    hub.pass(secs(100));
    hub.live(HEARTBEAT, |report| report.behind = 500);
    assert_eq!((hub.status(), hub.reasons()), (Syncing, vec![Reason::Behind(500)]));
    hub.live(secs(10), |report| report.behind = 17);
    assert_eq!(hub.members.node(&id(1)).map(Standing::behind), Some(17));
    hub.live(HEARTBEAT, |report| report.behind = 16);
    assert_eq!(hub.became(), [Offline, Syncing, Online]);
    // A few changes are always on their way, and a thousand are many.
    hub.live(secs(10), |report| report.behind = 1_000);
    assert_eq!(hub.became(), []);
    hub.live(secs(10), |report| report.behind = 1_001);
    assert_eq!(hub.became(), [Syncing]);
}

#[test]
fn what_a_node_says_of_itself_degrades_it_with_the_reason() {
    let mut hub = Hub::with_node();
    hub.live(secs(10), |report| report.is_overloaded = true);
    assert_eq!((hub.status(), hub.reasons()), (Degraded, vec![Reason::Overloaded]));
    hub.live(secs(10), |report| report.failing_functions = 2);
    assert_eq!((hub.status(), hub.reasons()), (Degraded, vec![Reason::FailingFunctions(2)]));
    assert_eq!(hub.members.node(&id(1)).map(Standing::connectivity), Some(Connectivity::Heard), "connectivity is another fact");
    hub.live(secs(10), |_| ());
    assert_eq!((hub.status(), hub.reasons()), (Online, vec![]));
}

#[test]
fn a_clock_that_is_a_minute_off_degrades_its_node_either_way() {
    for (millis, wrong) in [(60_000, false), (-60_000, false), (61_000, true), (-61_000, true)] {
        let mut hub = Hub::with_node();
        hub.live(secs(5), |report| report.sent_at += SignedDuration::from_millis(millis));
        let expected = if wrong { (Degraded, vec![Reason::Clock(millis)]) } else { (Online, vec![]) };
        assert_eq!((hub.status(), hub.reasons()), expected);
    }
    assert_eq!(Reason::Clock(-61_000).to_string(), "its clock is 61 s behind");
}

#[test]
fn heartbeats_that_come_late_again_and_again_degrade_a_node_until_they_do_not() {
    let mut hub = Hub::with_node();
    hub.live(secs(15), |_| ());
    hub.pass(secs(4));
    hub.hear(|_| ());
    assert_eq!(hub.became(), [], "one late heartbeat is none");
    hub.live(secs(6), |_| ());
    hub.pass(secs(4));
    hub.hear(|_| ());
    assert_eq!((hub.became(), hub.reasons()), (vec![Degraded], vec![Reason::Late]));
    hub.live(HEARTBEAT * 7, |_| ());
    assert_eq!(hub.became(), []);
    hub.live(HEARTBEAT, |_| ());
    assert_eq!(hub.became(), [Online]);
}

#[test]
fn a_node_that_comes_and_goes_is_held_offline_until_it_lasts() {
    let mut hub = Hub::with_node();
    for _ in 0..60 {
        hub.live(secs(8), |_| ());
        hub.pass(secs(8));
    }
    assert_eq!(hub.became(), [Offline, Online, Offline, Online, Offline], "after the third fall only what lasts is shown");
    hub.live(secs(8), |_| ());
    assert_eq!((hub.status(), hub.reasons()), (Offline, vec![Reason::Flapping(17)]));
    hub.live(secs(30), |_| ());
    assert_eq!((hub.became(), hub.reasons()), (vec![Online], vec![]));
    hub.live(secs(300), |_| ());
    hub.pass(secs(8));
    hub.live(HEARTBEAT, |_| ());
    assert_eq!(hub.became(), [Offline, Online], "what was long ago is forgotten");
}

#[test]
fn a_hub_that_was_paused_or_cut_off_itself_blames_nobody() {
    let mut hub = Hub::with_node();
    hub.live(secs(15), |_| ());
    hub.elapsed += secs(20);
    hub.pass(HEARTBEAT);
    hub.hear(|_| ());
    assert_eq!(hub.became(), [], "paused");
    hub.members.hears(false, at(hub.elapsed));
    hub.pass(secs(60));
    hub.members.hears(true, at(hub.elapsed));
    hub.pass(HEARTBEAT);
    hub.hear(|_| ());
    assert_eq!(hub.became(), [], "cut off");
    hub.pass(secs(5));
    assert_eq!(hub.became(), [Offline], "and then it looks again");
}

#[test]
fn silence_says_nothing_where_it_is_not_watched() {
    let mut members = Membership::new(Timing::default());
    members.register(id(1), Online, false, at(secs(0))).expect("there is room");
    for second in 0..100 {
        assert_eq!(members.look(at(secs(second))), []);
    }
    assert_eq!(members.heartbeat(&id(1), &Report::healthy(at(secs(100)).wall), at(secs(100))), None);
    assert_eq!(members.node(&id(1)).map(Standing::status), Some(Online));
}

#[test]
fn what_was_known_of_a_node_holds_until_it_reports_or_is_silent() {
    for status in [Online, Degraded, Syncing, Offline] {
        let mut hub = Hub::new(Timing::default());
        hub.register(status);
        hub.pass(secs(4));
        assert_eq!((hub.became(), hub.status()), (vec![], status));
        hub.hear(|_| ());
        assert_eq!(hub.status(), Online);
    }
    let mut hub = Hub::new(Timing::default());
    hub.register(Degraded);
    hub.pass(secs(5));
    assert_eq!(hub.became(), [Offline]);
    hub.register(Online);
    assert_eq!(hub.status(), Offline, "registered again, it keeps its standing");
}

#[test]
fn unknown_nodes_change_nothing_and_the_known_ones_are_bounded() {
    let mut members = Membership::new(Timing::default());
    let report = Report::healthy(at(secs(0)).wall);
    assert_eq!(members.heartbeat(&id(1), &report, at(secs(0))), None);
    assert!(members.node(&id(1)).is_none() && !members.deregister(&id(1)));
    for number in 0..NODES_MAX {
        members.register(id(number), Online, true, at(secs(0))).expect("there is room");
    }
    let error = members.register(id(NODES_MAX), Online, true, at(secs(0))).expect_err("full");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    members.register(id(0), Online, true, at(secs(0))).expect("it is there");
    assert!(members.deregister(&id(0)));
}

#[test]
fn the_knob_has_bounds() {
    use edgeward_model::limits::{HEARTBEAT_MAX, HEARTBEAT_MIN};
    assert!(Timing::new(HEARTBEAT_MIN).is_ok() && Timing::new(HEARTBEAT_MAX).is_ok());
    assert!(Timing::new(HEARTBEAT_MIN / 2).is_err() && Timing::new(HEARTBEAT_MAX * 2).is_err());
    let timing = Timing::default();
    assert!(timing.offline_after() + timing.look_every() < secs(5));
}

/// What happens to a node in a step, in quarters of a heartbeat.
#[derive(Clone, Debug)]
enum Step {
    Pass(u32),
    Hear { behind: u64, is_overloaded: bool, clock_off_secs: i64 },
    Pause(u32),
    Deaf(bool),
    Register,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..30_u32).prop_map(Step::Pass),
        6 => (prop_oneof![Just(0), 0..3_000_u64], any::<bool>(), -100..100_i64)
            .prop_map(|(behind, is_overloaded, clock_off_secs)| Step::Hear { behind, is_overloaded, clock_off_secs }),
        1 => (1..60_u32).prop_map(Step::Pause),
        1 => any::<bool>().prop_map(Step::Deaf),
        1 => Just(Step::Register),
    ]
}

/// The transitions of these steps, with times as parts of a heartbeat.
fn run(timing: Timing, steps: &[Step]) -> (Vec<Transition>, Hub) {
    let mut hub = Hub::new(timing);
    hub.register(Online);
    for step in steps {
        match step {
            Step::Pass(quarters) => hub.pass(timing.heartbeat() * *quarters / 4),
            Step::Hear { behind, is_overloaded, clock_off_secs } => hub.hear(|report| {
                (report.behind, report.is_overloaded) = (*behind, *is_overloaded);
                report.sent_at += SignedDuration::from_secs(*clock_off_secs);
            }),
            Step::Pause(quarters) => hub.elapsed += timing.heartbeat() * *quarters / 4,
            Step::Deaf(is_deaf) => hub.members.hears(!is_deaf, at(hub.elapsed)),
            Step::Register => hub.register(Online),
        }
    }
    (std::mem::take(&mut hub.seen), hub)
}

proptest! {
    #[test]
    fn random_pauses_of_a_second_make_nobody_offline(
        node_pauses in proptest::collection::vec(0..1_000_u64, 400),
        hub_pauses in proptest::collection::vec((any::<bool>(), 0..1_000_u64), 3_000),
        delays in proptest::collection::vec(0..200_u64, 400),
        is_hub_steady in any::<bool>(),
    ) {
        // A node beats every 1.5 s and is paused up to a second before each beat; every beat takes up to 200 ms.
        let mut due = Duration::ZERO;
        let mut arrivals = Vec::new();
        for (pause, delay) in node_pauses.iter().zip(&delays) {
            due += HEARTBEAT;
            let sent = due + Duration::from_millis(*pause);
            let arrival = sent + Duration::from_millis(*delay);
            arrivals.push(arrivals.last().map_or(arrival, |last: &Duration| arrival.max(*last)));
        }
        let mut hub = Hub::with_node();
        let mut arrivals = arrivals.into_iter().peekable();
        for (is_paused, pause) in hub_pauses {
            if arrivals.peek().is_none() {
                break;
            }
            // After a pause of the hub a look comes first, and then what has arrived meanwhile.
            hub.elapsed += hub.members.timing().look_every() + if is_paused && !is_hub_steady { Duration::from_millis(pause) } else { Duration::ZERO };
            let seen = hub.members.look(at(hub.elapsed));
            hub.seen.extend(seen);
            while arrivals.next_if(|arrival| *arrival <= hub.elapsed).is_some() {
                hub.hear(|_| ());
            }
        }
        let became = hub.became();
        prop_assert!(!became.contains(&Offline), "{:?}", became);
        prop_assert!(!is_hub_steady || became.is_empty(), "{:?}", became);
    }

    #[test]
    fn a_silent_death_shows_once_and_in_time_whatever_was_before(steps in proptest::collection::vec(step(), 0..60)) {
        let (_, mut hub) = run(Timing::default(), &steps);
        hub.members.hears(true, at(hub.elapsed));
        hub.hear(|_| ());
        let was_offline = hub.status() == Offline;
        hub.became();
        let died = hub.elapsed;
        hub.pass(secs(120));
        let became: Vec<_> = hub.seen.iter().map(|transition| (transition.to, transition.at <= at(died + secs(5)).wall)).collect();
        prop_assert_eq!(hub.status(), Offline);
        if was_offline {
            prop_assert_eq!(became, []);
        } else {
            // What it was held at may show as better before, but OFFLINE comes once.
            prop_assert_eq!(became.iter().filter(|(to, _)| *to == Offline).count(), 1);
            prop_assert!(became.iter().all(|(_, is_in_time)| *is_in_time));
        }
    }

    #[test]
    fn transitions_follow_each_other_and_say_why(steps in proptest::collection::vec(step(), 0..200)) {
        let (seen, hub) = run(Timing::default(), &steps);
        let mut before = Online;
        for transition in &seen {
            prop_assert_eq!(transition.from, before);
            prop_assert!(transition.to != before);
            prop_assert_eq!(transition.reasons.is_empty(), transition.to == Online);
            before = transition.to;
        }
        prop_assert!(seen.is_sorted_by_key(|transition| transition.at));
        prop_assert_eq!((hub.status(), hub.members.nodes().count()), (before, 1));
    }

    #[test]
    fn however_it_comes_and_goes_few_falls_show(times in proptest::collection::vec((1..20_u64, 5..20_u64), 40..80)) {
        let mut hub = Hub::with_node();
        for (there, gone) in times {
            hub.live(secs(there), |_| ());
            hub.pass(secs(gone));
        }
        let falls = hub.became().into_iter().filter(|to| *to == Offline).count();
        // It is never there for the half minute after which it would show again.
        prop_assert!(falls <= 3, "{falls}");
    }

    #[test]
    fn one_knob_scales_every_time(steps in proptest::collection::vec(step(), 0..80), scale in 2..20_u32) {
        let without_clocks: Vec<_> = steps.into_iter().map(|step| match step {
            Step::Hear { behind, is_overloaded, .. } => Step::Hear { behind, is_overloaded, clock_off_secs: 0 },
            other => other,
        }).collect();
        let short = |timing: Timing| {
            let start = at(Duration::ZERO).wall;
            let heartbeat = timing.heartbeat().as_micros();
            run(timing, &without_clocks).0.into_iter().map(move |transition| {
                (transition.to, transition.reasons, transition.at.duration_since(start).as_micros() * 1_000 / i128::try_from(heartbeat).expect("short"))
            }).collect::<Vec<_>>()
        };
        prop_assert_eq!(short(Timing::default()), short(Timing::new(HEARTBEAT * scale).expect("in bounds")));
    }
}
