//! The table of instruments: everything that is counted or measured, once, with its name, unit, meaning and attributes.
//!
//! Names and units are OpenTelemetry's: those of its semantic conventions where it has one (`faas.*`, `messaging.*`, `process.*`), else
//! `edgeward.*`. Both the text for Prometheus and OTLP are made of this, and `docs/metrics.md` lists it.

/// How the numbers of an instrument go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Up only, from 0 at the start of the process.
    Counter,
    /// Up only, over all starts.
    Total,
    /// Up and down, and they can be added up.
    UpDownCounter,
    /// Up and down, and their sum says nothing.
    Gauge,
    /// They are many, by size.
    Histogram,
}

/// What is counted or measured.
#[derive(Debug, PartialEq, Eq)]
pub struct Instrument {
    /// OpenTelemetry's name.
    pub name: &'static str,
    /// How its numbers go.
    pub kind: Kind,
    /// By the Unified Code for Units of Measure; in braces what is counted.
    pub unit: &'static str,
    /// The keys of its attributes.
    pub attributes: &'static [&'static str],
    /// What it means, for people.
    pub help: &'static str,
}

impl Instrument {
    /// The name that OpenTelemetry's rules make of it for Prometheus: with its unit, and `_total` where it only goes up.
    pub fn prometheus_name(&self) -> String {
        let mut name = self.name.replace('.', "_");
        name.push_str(match self.unit {
            "s" => "_seconds",
            "By" => "_bytes",
            _ => "",
        });
        if matches!(self.kind, Kind::Counter | Kind::Total) {
            name.push_str("_total");
        }
        name
    }
}

const FUNCTION: &str = "faas.name";
const NODE: &str = "edgeward.node.id";
const OUTCOME: &str = "edgeward.outcome";
const REASON: &str = "edgeward.reason";
const SYSTEM: &str = "messaging.system";
const OPERATION: &str = "messaging.operation.name";
const TRIGGER: &str = "messaging.consumer.group.name";
const SCHEDULE: &str = "edgeward.schedule.id";

/// The value of `messaging.system` for topics.
pub const MESSAGING_SYSTEM: &str = "edgeward";

macro_rules! instruments {
    ($($name:ident: $kind:ident $text:literal, $unit:literal, [$($attribute:expr),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub static $name: Instrument =
                Instrument { name: $text, kind: Kind::$kind, unit: $unit, attributes: &[$($attribute),*], help: $help };
        )*

        /// All of them.
        pub static ALL: &[&Instrument] = &[$(&$name),*];
    };
}

instruments! {
    // Functions.
    INVOCATIONS: Counter "faas.invocations", "{invocation}", [FUNCTION, NODE], "Invocations whose response has ended.";
    ERRORS: Counter "faas.errors", "{error}", [FUNCTION, NODE], "Invocations that failed.";
    COLDSTARTS: Counter "faas.coldstarts", "{coldstart}", [FUNCTION, NODE], "Invocations that needed a new sandbox.";
    TIMEOUTS: Counter "faas.timeouts", "{timeout}", [FUNCTION, NODE], "Invocations that ran past their deadline.";
    INVOKE_DURATION: Histogram "faas.invoke_duration", "s", [FUNCTION, NODE], "Duration of an invocation from its permit to the end of its response.";
    FUNCTION_ERRORS: Counter "edgeward.function.errors", "{error}", [FUNCTION, NODE, "error.type"], "Invocations that failed, by the kind of their error.";
    FUNCTIONS: UpDownCounter "edgeward.functions", "{function}", ["edgeward.function.state"], "Functions that should run here, by how far they are.";
    FUNCTION_RUNNING: UpDownCounter "edgeward.function.running", "{invocation}", [FUNCTION], "Invocations that run now.";
    FUNCTION_WAITING: UpDownCounter "edgeward.function.waiting", "{invocation}", [FUNCTION], "Invocations that wait for their turn.";
    FUNCTION_CONCURRENCY: UpDownCounter "edgeward.function.concurrency.limit", "{invocation}", [FUNCTION], "Invocations that may run at once.";
    // The process.
    NODE_READY: UpDownCounter "edgeward.node.ready", "{node}", [], "Whether every desired function has been looked at since the start.";
    MEMORY: UpDownCounter "process.memory.usage", "By", [], "Memory of the process that is in RAM.";
    UPTIME: Gauge "process.uptime", "s", [], "Time since the process started.";
    // Documents.
    DOCUMENTS: UpDownCounter "edgeward.documents", "{document}", [], "Documents that exist here.";
    COMMITS: Counter "edgeward.documents.commits", "{commit}", [], "Commits of documents that wrote something.";
    UNSENT: UpDownCounter "edgeward.sync.unsent", "{row}", [], "Rows that were written here and that no hub has acknowledged.";
    SYNC_CONNECTED: UpDownCounter "edgeward.sync.connected", "{connection}", [], "Whether the way to the hub is there.";
    SYNC_STATE: UpDownCounter "edgeward.sync.state", "{state}", ["edgeward.sync.state"], "1 for how the documents stand to the hub's now, 0 for the others.";
    SYNC_AGE: Gauge "edgeward.sync.age", "s", [], "Time since the hub last had all that is here and this node all that was there; none before the first time.";
    OUTBOX: UpDownCounter "edgeward.outbox.events", "{event}", [], "Events that wait for the hub.";
    OUTBOX_DROPPED: Total "edgeward.outbox.dropped", "{event}", [], "Events that gave way to others while the hub was away, over all starts.";
    // Topics.
    SENT_MESSAGES: Counter "messaging.client.sent.messages", "{message}", [SYSTEM, OPERATION], "Messages that were published durably to topics here. What was imported is not among them.";
    CONSUMED_MESSAGES: Counter "messaging.client.consumed.messages", "{message}", [SYSTEM, OPERATION, TRIGGER], "Messages that a trigger's function has handled.";
    PROCESS_DURATION: Histogram "messaging.process.duration", "s", [SYSTEM, OPERATION, TRIGGER], "Duration of one attempt of a trigger's function to handle a message.";
    TOPICS_MESSAGES: UpDownCounter "edgeward.topics.log.messages", "{message}", [], "Messages that the log of topics holds.";
    TOPICS_BYTES: UpDownCounter "edgeward.topics.log.size", "By", [], "Size of these messages.";
    TOPICS_TRIMMED: Total "edgeward.topics.log.trimmed", "{message}", [], "Messages that are gone from the log, as they were too many or too old, over all starts.";
    TOPICS_SUBSCRIBERS: UpDownCounter "edgeward.topics.subscribers", "{subscriber}", [], "Who listens to topics now.";
    TOPICS_FORWARDED: Counter "edgeward.topics.forwarded", "{message}", [], "Messages that the hub has taken.";
    TOPICS_IMPORTED: Counter "edgeward.topics.imported", "{message}", [], "Messages of others that came from the hub.";
    TOPICS_SHARING_LOST: Counter "edgeward.topics.sharing.lost", "{message}", [], "Messages, of whatever topic, that were gone before they could be forwarded or imported.";
    TRIGGER_LAG: UpDownCounter "edgeward.trigger.lag", "{message}", [TRIGGER], "Messages, of whatever topic, after the last one up to which a trigger has handled all.";
    TRIGGER_WAITING: UpDownCounter "edgeward.trigger.waiting", "{message}", [TRIGGER], "Messages that wait for the function of a trigger to be deployed here.";
    TRIGGER_RETRIES: Counter "edgeward.trigger.retries", "{attempt}", [TRIGGER], "Attempts to handle a message that failed and were followed by another.";
    TRIGGER_DEAD: Counter "edgeward.trigger.dead_letters", "{message}", [TRIGGER], "Messages that became dead letters.";
    TRIGGER_DEAD_DROPPED: Counter "edgeward.trigger.dead_letters.dropped", "{message}", [TRIGGER], "Dead letters that gave way to newer ones.";
    TRIGGER_LOST: Counter "edgeward.trigger.lost", "{message}", [TRIGGER], "Messages, of whatever topic, that were gone from the log before a trigger came to them.";
    TRIGGER_DROPPED: Counter "edgeward.trigger.dropped", "{message}", [TRIGGER], "Messages that were not durable, and came to a trigger while too many waited already.";
    TRIGGER_LEFT: Counter "edgeward.trigger.left", "{message}", [], "Messages that triggers had not handled when the hub took them from the node.";
    TRIGGER_RUNS: UpDownCounter "edgeward.trigger.running", "{trigger}", [TRIGGER], "Whether a trigger can go on.";
    MQTT_CLIENTS: UpDownCounter "edgeward.mqtt.clients", "{client}", [], "Clients of MQTT that are connected.";
    MQTT_REFUSED: Counter "edgeward.mqtt.connections.refused", "{connection}", [], "Connections of MQTT that were refused.";
    MQTT_RECEIVED: Counter "edgeward.mqtt.messages.received", "{message}", [OUTCOME], "Messages that clients of MQTT sent: `taken`, or `refused`.";
    MQTT_SENT: Counter "edgeward.mqtt.messages.sent", "{message}", [], "Messages that were sent to clients of MQTT, the same to several counted as often.";
    MQTT_DROPPED: Counter "edgeward.mqtt.messages.dropped", "{message}", [], "Messages that were not sent, as the client was too slow for what is not durable or does not take their size.";
    // Schedules.
    SCHEDULE_RUNS: Total "edgeward.schedule.runs", "{run}", [SCHEDULE, OUTCOME], "Due times of a schedule by what became of them, since it is here.";
    SCHEDULE_RUNNING: UpDownCounter "edgeward.schedule.running", "{run}", [SCHEDULE], "Runs of a schedule that go on.";
    SCHEDULE_WAITING: UpDownCounter "edgeward.schedule.waiting", "{run}", [SCHEDULE], "Due times of a schedule that are still to be made up for.";
    SCHEDULE_LATENESS: Gauge "edgeward.schedule.lateness", "s", [SCHEDULE], "How much later than due the last run of a schedule began.";
    SCHEDULE_NEXT: Gauge "edgeward.schedule.next_due", "s", [SCHEDULE], "Time until a schedule is due next.";
    // Routing.
    ROUTE_CALLS: Counter "edgeward.route.calls", "{call}", [FUNCTION], "Calls that were routed, each counted once however often it was tried.";
    ROUTE_RETRIES: Counter "edgeward.route.retries", "{attempt}", [FUNCTION], "Attempts beside the first.";
    ROUTE_REFUSED: Counter "edgeward.route.refused", "{attempt}", [FUNCTION, REASON], "Attempts that were not made: all places were taken (`full`), there was no node (`unavailable`), or the retry budget was spent (`budget`).";
    ROUTE_IN_FLIGHT: UpDownCounter "edgeward.route.in_flight", "{attempt}", [FUNCTION], "Attempts that are under way.";
    ROUTE_PICKS: Counter "edgeward.route.picks", "{attempt}", [FUNCTION, NODE], "Attempts for which a node was chosen.";
    ROUTE_ENDED: Counter "edgeward.route.attempts", "{attempt}", [FUNCTION, NODE, OUTCOME], "Attempts that ended: `succeeded`, `failed`, or `cancelled` as nobody waited any more.";
    ROUTE_LATENCY: Gauge "edgeward.route.latency", "s", [FUNCTION, NODE], "Mean of the last seconds, of attempts that did well.";
    BREAKER_STATE: Gauge "edgeward.route.breaker.state", "{state}", [FUNCTION, NODE], "The breaker of a function on a node: 0 closed, 1 half open, 2 open.";
    BREAKER_OPENINGS: Counter "edgeward.route.breaker.openings", "{opening}", [FUNCTION, NODE], "How often a breaker opened.";
    // The fleet, on a hub.
    HUB_ACTIVE: UpDownCounter "edgeward.hub.active", "{hub}", [], "Whether this hub is the active one.";
    FLEET_NODES: UpDownCounter "edgeward.fleet.nodes", "{node}", ["edgeward.node.status"], "Nodes of the fleet by their status.";
    NODE_STATUS: UpDownCounter "edgeward.node.status", "{node}", [NODE, "edgeward.node.status"], "1 for each node of the fleet, with the status that it has now.";
    HEARTBEAT_AGE: Gauge "edgeward.node.heartbeat.age", "s", [NODE], "Time since the hub last heard of a node; none of one that it has not heard since it started.";
    FLEET_ASSIGNMENTS: UpDownCounter "edgeward.fleet.assignments", "{function}", [], "Functions that are assigned, each counted once a node.";
    FLEET_EVENTS_DROPPED: Counter "edgeward.fleet.events.dropped", "{event}", [], "Events that came faster than they could be written.";
    FLEET_OUTBOX_DROPPED: UpDownCounter "edgeward.fleet.outbox.dropped", "{event}", [], "Events that nodes had dropped when they were last heard, as their outboxes were full.";
    ROLLOUTS: UpDownCounter "edgeward.rollouts", "{rollout}", ["edgeward.rollout.state"], "The present rollouts of all deployments by their state.";
    DEPLOYMENT_NODES: UpDownCounter "edgeward.deployment.nodes", "{node}", [FUNCTION, "edgeward.deployment.nodes.state"], "Nodes of a deployment: `wanted`, and of these `updated`, `ready`, `failed` and `pending`.";
    FLEET_SCHEDULES: UpDownCounter "edgeward.fleet.schedules", "{schedule}", [], "Schedules of the fleet.";
    FLEET_TRIGGERS: UpDownCounter "edgeward.fleet.triggers", "{trigger}", [], "Triggers of the fleet.";
    FLEET_TOPICS_SENT: Total "edgeward.fleet.topics.messages.sent", "{message}", [], "Messages that were published to topics of the fleet, over all starts.";
    FLEET_TOPICS_MESSAGES: UpDownCounter "edgeward.fleet.topics.messages", "{message}", [], "Messages that the fleet's topics hold.";
    FLEET_TOPICS_BYTES: UpDownCounter "edgeward.fleet.topics.size", "By", [], "Size of these messages.";
    CHAOS_FAULTS: UpDownCounter "edgeward.chaos.faults", "{fault}", [], "Faults that are injected on this node now.";
    // What leaves by OTLP.
    OTLP_SPANS: Counter "edgeward.otlp.spans", "{span}", [OUTCOME], "Spans by what became of them: `exported`, `rejected` by the receiver, or `dropped` here.";
    OTLP_WAITING: UpDownCounter "edgeward.otlp.spans.waiting", "{span}", [], "Spans that wait to be exported.";
    OTLP_REQUESTS: Counter "edgeward.otlp.requests", "{request}", ["edgeward.signal", OUTCOME], "Requests to the receiver of `traces` and `metrics`: `ok` or `failed`.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_instruments_have_one_name_also_for_prometheus() {
        let names: BTreeSet<_> = ALL.iter().map(|instrument| instrument.prometheus_name()).collect();
        assert_eq!(names.len(), ALL.len());
        let good = |name: &str| name.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        for instrument in ALL {
            assert!(good(instrument.name) && instrument.attributes.iter().all(|key| good(key)), "{}", instrument.name);
            assert_ne!(instrument.unit, "1", "{} would be called a ratio", instrument.name);
            assert!(instrument.help.ends_with('.') && !instrument.help.contains('\n'), "{}", instrument.name);
        }
    }
}
