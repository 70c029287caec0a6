//! The metrics of topics: their log, the triggers, and the clients of MQTT.

use edgeward_telemetry::{
    Instrument, Number, Reading,
    instruments::{self, MESSAGING_SYSTEM},
};

use super::read;
use crate::topics::{Topics, TriggerView};

pub(super) async fn readings(topics: &Topics) -> Vec<Reading> {
    let log = topics.state();
    let mut sent = Reading::new(&instruments::SENT_MESSAGES);
    sent.push([MESSAGING_SYSTEM, "publish"], log.published);
    let mut readings = vec![
        sent,
        Reading::of(&instruments::TOPICS_MESSAGES, log.head.saturating_sub(log.trimmed)),
        Reading::of(&instruments::TOPICS_BYTES, log.bytes),
        Reading::of(&instruments::TOPICS_TRIMMED, log.trimmed),
        Reading::of(&instruments::TOPICS_SUBSCRIBERS, log.subscribers),
    ];
    let views = read("the triggers", topics.triggers().await).unwrap_or_default();
    readings.extend(triggers(&views));
    readings.push(Reading::of(&instruments::TRIGGER_LEFT, topics.left_by_triggers()));
    let mut durations = Reading::new(&instruments::PROCESS_DURATION);
    for (id, distribution) in topics.attempts() {
        durations.push([MESSAGING_SYSTEM, "process", id.as_str()], Number::Distribution(distribution));
    }
    readings.push(durations);
    readings.extend(mqtt(topics));
    readings
}

fn triggers(views: &[TriggerView]) -> Vec<Reading> {
    let by_trigger = |instrument: &'static Instrument, number: fn(&TriggerView) -> u64| {
        let mut reading = Reading::new(instrument);
        for view in views {
            reading.push([view.trigger.id.as_str()], number(view));
        }
        reading
    };
    let mut consumed = Reading::new(&instruments::CONSUMED_MESSAGES);
    for view in views {
        consumed.push([MESSAGING_SYSTEM, "process", view.trigger.id.as_str()], view.delivered);
    }
    vec![
        consumed,
        by_trigger(&instruments::TRIGGER_LAG, |view| view.behind),
        by_trigger(&instruments::TRIGGER_WAITING, |view| view.waiting),
        by_trigger(&instruments::TRIGGER_RETRIES, |view| view.retried),
        by_trigger(&instruments::TRIGGER_DEAD, |view| view.dead),
        by_trigger(&instruments::TRIGGER_DEAD_DROPPED, |view| view.dead_dropped),
        by_trigger(&instruments::TRIGGER_LOST, |view| view.lost),
        by_trigger(&instruments::TRIGGER_DROPPED, |view| view.dropped),
        by_trigger(&instruments::TRIGGER_RUNS, |view| view.failure.is_none().into()),
    ]
}

/// Without a listener of MQTT nothing was done.
fn mqtt(topics: &Topics) -> [Reading; 5] {
    let state = topics.mqtt_state().unwrap_or_default();
    let mut received = Reading::new(&instruments::MQTT_RECEIVED);
    received.push(["taken"], state.received);
    received.push(["refused"], state.received_refused);
    [
        Reading::of(&instruments::MQTT_CLIENTS, state.clients),
        Reading::of(&instruments::MQTT_REFUSED, state.refused),
        received,
        Reading::of(&instruments::MQTT_SENT, state.sent),
        Reading::of(&instruments::MQTT_DROPPED, state.dropped),
    ]
}
