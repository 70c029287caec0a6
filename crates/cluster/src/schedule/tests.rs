//! Schedules by example.

use edgeward_model::{
    FunctionId, ScheduleId,
    limits::{RUN_MESSAGE_BYTES_MAX, SCHEDULE_RUNS_KEPT_MAX},
};

use super::*;

fn at(text: &str) -> Timestamp {
    let text = if text.len() == 8 { format!("2026-06-01T{text}Z") } else { text.to_owned() };
    text.parse().expect("a time")
}

/// A node with one schedule, whose process starts at 00:00:00 on the first of June.
struct Node {
    schedule: Schedule,
    state: ScheduleState,
    id: NodeId,
}

impl Node {
    fn new(when: &str, catch_up: &str) -> Self {
        let (id, function) = (ScheduleId::new("s").expect("valid"), FunctionId::new("f").expect("valid"));
        let mut schedule = Schedule::new(id, function, when.parse().expect(when));
        schedule.catch_up = catch_up.parse().expect(catch_up);
        let mut node = Self { schedule, state: ScheduleState::default(), id: NodeId::new("n").expect("valid") };
        assert_eq!(node.look("00:00:00"), None, "a new schedule makes up for nothing");
        node
    }

    fn look(&mut self, now: &str) -> Option<Try> {
        self.state.look(&self.schedule, &self.id, at(now))
    }

    /// What starts now: its due time, and the number of its try.
    fn starts(&mut self, now: &str) -> Option<(String, u32)> {
        self.look(now).map(|start| (start.due_at.to_string()[11..19].to_owned(), start.attempt))
    }

    fn end(&mut self, result: Result<(), &str>, now: &str) {
        let running = self.state.running().expect("it runs").clone();
        self.state.end(&self.schedule, &self.id, &running, result, at(now));
    }

    /// Starts what is due now, which ends at once.
    fn runs(&mut self, now: &str) -> Option<String> {
        let start = self.starts(now)?;
        self.end(Ok(()), now);
        Some(start.0)
    }

    fn next_look(&self, now: &str) -> Option<String> {
        self.state.next_look(&self.schedule, &self.id, at(now)).map(|next| next.to_string())
    }

    /// Outcomes with the count of due times, newest first.
    fn outcomes(&self) -> Vec<(Outcome, u64)> {
        self.state.history().newest_first().map(|run| (run.outcome, run.count)).collect()
    }
}

#[test]
fn what_is_due_starts_once_and_says_when_the_next_does() {
    let mut node = Node::new("every 1h", "once");
    assert_eq!(node.next_look("00:00:00").as_deref(), Some("2026-06-01T01:00:00Z"));
    assert_eq!(node.starts("00:59:59"), None);
    assert_eq!(node.starts("01:00:00"), Some(("01:00:00".to_owned(), 1)));
    assert_eq!(node.next_look("01:00:00"), None, "it runs");
    assert_eq!(node.starts("01:00:01"), None);
    node.end(Ok(()), "01:00:02");
    let state = node.state.clone();
    assert_eq!((node.starts("01:00:03"), node.starts("01:59:59")), (None, None));
    assert_eq!(node.state, state, "a look at which nothing happens changes nothing");
    assert_eq!(node.next_look("01:00:03").as_deref(), Some("2026-06-01T02:00:00Z"));
    assert_eq!(node.outcomes(), [(Outcome::Succeeded, 1)]);
}

#[test]
fn what_becomes_due_during_a_run_is_skipped_and_told() {
    let mut node = Node::new("every 1m", "all=10");
    assert!(node.starts("00:01:00").is_some());
    node.end(Err("too slow"), "00:03:30");
    assert_eq!(node.starts("00:03:30"), None);
    assert_eq!(node.outcomes(), [(Outcome::Skipped, 2), (Outcome::Failed, 1)]);
    assert_eq!(node.runs("00:04:00").as_deref(), Some("00:04:00"));
    // A result that comes a second time, or of a run that is none, changes nothing.
    let (state, late) =
        (node.state.clone(), Try { due_at: at("00:01:00"), attempt: 1, started_at: at("00:01:00"), is_late: false, is_asked: false });
    node.state.end(&node.schedule, &node.id, &late, Ok(()), at("00:04:10"));
    assert_eq!(node.state, state);
}

#[test]
fn a_run_that_somebody_asks_for_is_none_of_the_due_ones_and_is_not_tried_again() {
    let mut node = Node::new("every 1h", "once");
    node.schedule.attempts = 3;
    assert!(node.state.start_asked(at("00:30:00")).is_some_and(|run| run.is_asked && run.due_at == at("00:30:00")));
    assert_eq!((node.state.start_asked(at("00:30:01")), node.starts("00:30:01")), (None, None), "one runs");
    node.end(Err("broken"), "00:30:02");
    assert_eq!(node.next_look("00:30:02").as_deref(), Some("2026-06-01T01:00:00Z"));
    assert_eq!(node.runs("01:00:00").as_deref(), Some("01:00:00"));
    assert_eq!(node.outcomes(), [(Outcome::Succeeded, 1), (Outcome::Failed, 1)]);
}

#[test]
fn that_a_schedule_was_switched_off_is_noticed_and_then_nothing_is_to_be_looked_at() {
    let mut node = Node::new("every 1h", "all");
    node.schedule.enabled = false;
    assert_eq!(node.next_look("00:10:00").as_deref(), Some("2026-06-01T00:10:00Z"));
    assert_eq!((node.starts("00:10:00"), node.next_look("00:10:00")), (None, None));
    node.schedule.enabled = true;
    assert_eq!((node.starts("05:10:00"), node.runs("06:00:00").as_deref()), (None, Some("06:00:00")));
    assert_eq!(node.outcomes(), [(Outcome::Succeeded, 1)]);
}

#[test]
fn after_a_time_away_each_policy_does_what_it_says() {
    for (catch_up, expected, missed) in [
        ("skip", vec![], 5),
        ("once", vec!["05:00:00"], 4),
        ("all=3", vec!["03:00:00", "04:00:00", "05:00:00"], 2),
        ("all", vec!["01:00:00", "02:00:00", "03:00:00", "04:00:00", "05:00:00"], 0),
    ] {
        let mut node = Node::new("every 1h", catch_up);
        let runs: Vec<_> = std::iter::from_fn(|| node.runs("05:30:00")).collect();
        assert_eq!(runs, expected, "{catch_up}");
        assert_eq!(node.state.history().totals().missed, missed, "{catch_up}");
        assert_eq!(node.runs("06:00:00").as_deref(), Some("06:00:00"));
    }
    let mut node = Node::new("every 1h", "skip");
    assert_eq!(node.runs("05:01:00").as_deref(), Some("05:00:00"), "a minute is no delay");
    let start = Node::new("every 1h", "once").look("05:30:00").expect("due");
    assert!(start.is_late, "who runs it can tell");
}

#[test]
fn a_crash_is_seen_as_an_interrupted_run_and_does_not_start_it_twice() {
    let mut node = Node::new("every 1h", "once");
    assert!(node.starts("01:00:00").is_some());
    let json = serde_json::to_string(&node.state).expect("plain data");
    node.state = serde_json::from_str(&json).expect("its own JSON");
    node.state.recover(&node.schedule, at("01:10:00"));
    assert_eq!(node.outcomes(), [(Outcome::Interrupted, 1)]);
    assert_eq!(node.starts("01:10:00"), None);
    assert_eq!(node.runs("02:00:00").as_deref(), Some("02:00:00"));
}

#[test]
fn a_try_that_fails_is_followed_by_another_after_a_pause_until_there_were_enough() {
    let mut node = Node::new("every 1h", "once");
    node.schedule.attempts = 3;
    assert!(node.starts("01:00:00").is_some());
    node.end(Err("no"), "01:00:01");
    assert_eq!((node.next_look("01:00:01").as_deref(), node.starts("01:00:05")), (Some("2026-06-01T01:00:06Z"), None));
    assert_eq!(node.starts("01:00:06"), Some(("01:00:00".to_owned(), 2)));
    node.state.recover(&node.schedule, at("01:00:20"));
    assert_eq!(node.starts("01:00:29"), None, "the pause has doubled");
    assert_eq!(node.starts("01:00:30"), Some(("01:00:00".to_owned(), 3)));
    node.end(Err("no"), "01:00:31");
    assert_eq!(node.next_look("01:00:31").as_deref(), Some("2026-06-01T02:00:00Z"), "there were three");
    assert_eq!(node.outcomes(), [(Outcome::Failed, 1), (Outcome::Interrupted, 1), (Outcome::Failed, 1)]);
    // A newer due time takes the place of another try.
    assert!(node.starts("02:00:00").is_some());
    node.end(Err("no"), "02:59:58");
    assert_eq!(node.starts("03:00:00"), Some(("03:00:00".to_owned(), 1)));
    node.end(Ok(()), "03:00:01");
    assert_eq!(node.starts("03:10:00"), None);
}

#[test]
fn a_clock_that_is_put_back_starts_nothing_twice() {
    let mut node = Node::new("every 1h", "all");
    assert_eq!((node.runs("01:00:00"), node.runs("02:00:00")), (Some("01:00:00".to_owned()), Some("02:00:00".to_owned())));
    for again in ["00:30:00", "01:00:00", "01:30:00", "02:00:00", "02:30:00"] {
        assert_eq!(node.runs(again), None, "{again}");
    }
    assert_eq!(node.runs("03:00:00").as_deref(), Some("03:00:00"));
}

#[test]
fn a_clock_that_jumps_far_ahead_starts_little_and_goes_on_where_it_was_when_it_is_put_right() {
    for catch_up in ["skip", "once", "all=5"] {
        let started = std::time::Instant::now();
        let mut node = Node::new("every 1s", catch_up);
        assert!(node.runs("00:00:01").is_some());
        let ahead = std::iter::from_fn(|| node.runs("2099-01-01T00:00:00Z")).count();
        assert!(ahead <= 5, "{catch_up}: {ahead} runs");
        assert!(node.runs("2099-01-01T00:00:01Z").is_some());
        // The clock is put right: the years between were never lived through.
        assert_eq!(node.runs("00:00:10"), (catch_up != "never").then(|| "00:00:10".to_owned()), "{catch_up}");
        assert_eq!(node.runs("00:00:11").as_deref(), Some("00:00:11"));
        assert_eq!(node.runs("2099-01-01T00:00:01Z"), None, "that was run already");
        assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
    }
}

#[test]
fn a_clock_that_jumps_during_a_run_does_not_make_years_pass_as_skipped() {
    let mut node = Node::new("every 1m", "skip");
    assert!(node.starts("00:01:00").is_some());
    node.end(Ok(()), "2099-01-01T00:00:30Z");
    assert!(node.state.history().totals().skipped <= 61, "no run lasts longer than an hour");
    assert!(node.runs("2099-01-01T00:00:30Z").is_some());
    assert_eq!(node.runs("02:00:00").as_deref(), Some("02:00:00"), "the clock was put right");
}

#[test]
fn what_is_switched_off_or_changed_is_not_made_up_for() {
    let mut node = Node::new("every 1h", "all");
    node.schedule.enabled = false;
    assert_eq!((node.runs("01:00:00"), node.next_look("01:00:00")), (None, None));
    node.schedule.enabled = true;
    assert_eq!(node.runs("03:30:00"), None, "what was due while it was off is not made up for");
    assert_eq!(node.runs("04:00:00").as_deref(), Some("04:00:00"));
    node.schedule.when = "every 10m".parse().expect("valid");
    assert_eq!(node.next_look("05:59:00").as_deref(), Some("2026-06-01T05:59:00Z"), "a change is looked at");
    assert_eq!(node.runs("05:59:00"), None, "what would have been due is not made up for");
    assert_eq!(node.runs("06:00:00").as_deref(), Some("06:00:00"));
}

#[test]
fn a_moment_that_passed_before_the_schedule_came_is_told_as_missed() {
    let node = Node::new("at 2026-05-31T00:00:00Z", "once");
    assert_eq!((node.outcomes(), node.next_look("00:00:00")), (vec![(Outcome::Missed, 1)], None));
    let mut node = Node::new("at 2026-06-01T12:00:00Z", "once");
    assert_eq!(node.runs("15:00:00").as_deref(), Some("12:00:00"), "the node had it, and was away");
    assert_eq!(node.next_look("15:00:00"), None);
}

#[test]
fn a_run_waits_for_its_part_of_the_jitter() {
    let mut node = Node::new("every 1h", "skip");
    node.schedule.jitter_seconds = 3000;
    let begin = node.schedule.begin_of(at("01:00:00"), &node.id);
    assert!(begin > at("01:05:00"), "the test wants a late one: {begin}");
    let just_before = just_before(begin).to_string();
    assert_eq!(node.starts("01:00:00"), None);
    assert_eq!(node.next_look("01:00:00"), Some(begin.to_string()));
    assert_eq!(node.starts(&just_before), None);
    assert_eq!(node.starts(&begin.to_string()), Some(("01:00:00".to_owned(), 1)), "it is no delay");
}

#[test]
fn the_history_is_bounded_and_what_follows_each_other_is_told_as_one() {
    let mut node = Node::new("every 1m", "skip");
    node.schedule.attempts = 2;
    let mut now = at("00:00:00");
    for number in 0..300 {
        now = now.checked_add(SignedDuration::from_secs(if number % 3 == 0 { 86_400 } else { 60 })).expect("in range");
        if let Some(start) = node.state.look(&node.schedule, &node.id, now) {
            node.state.end(&node.schedule, &node.id, &start, Err(&"ü".repeat(1000)), now);
        }
    }
    assert_eq!(node.state.history().newest_first().len(), SCHEDULE_RUNS_KEPT_MAX);
    assert!(node.state.history().newest_first().all(|run| run.message.len() <= RUN_MESSAGE_BYTES_MAX));
    let bytes = serde_json::to_string(&node.state).expect("plain data").len();
    assert!(bytes < 32 * 1024, "{bytes} bytes");
    let mut history = History::default();
    history.pass_over(Outcome::Missed, at("01:00:00"), 3, "away");
    history.pass_over(Outcome::Missed, at("02:00:00"), 4, "away");
    assert_eq!(history.newest_first().map(|run| (run.due_at, run.count)).collect::<Vec<_>>(), [(at("02:00:00"), 7)]);
}
