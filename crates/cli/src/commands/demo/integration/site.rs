//! A site of the demonstration: a node with a broker, triggers and a schedule, and the sensors that speak to it.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use edgeward::{
    DocumentName, EdgeNode, FunctionId, Message, MqttOptions, Node, NodeId, NodeOptions, Precondition, Redelivery, Schedule, ScheduleId,
    Target, TopicFilter, TopicName, Trigger, TriggerId, TriggerView, Uplink, UplinkOptions,
    access::{NODE_TOKENS, Tokens},
    cluster::{LocalNetwork, membership::Timing},
    listener::Listener,
    serve_mqtt,
    telemetry::{self, TraceContext, trace::TRACEPARENT},
};
use jiff::Timestamp;
use rumqttc::{AsyncClient, Event, EventLoop, LastWill, Packet, QoS};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    super::{City, waiting::eventually},
    story::{HELLO, STATS},
};

/// Sensors of a site: the readings of its city are shared among them, hour by hour.
pub(super) const SENSORS: usize = 6;
/// Messages of a sensor that are not acknowledged yet.
const WINDOW: u16 = 64;
/// Longest wait of a sensor for anything.
const PATIENCE: Duration = Duration::from_secs(30);
/// The trigger and the schedule of each site.
const TRIGGER: &str = "readings";
const SCHEDULE: &str = "tick";

/// A gateway with a city's sensors.
pub(super) struct Site {
    pub(super) id: NodeId,
    pub(super) city: &'static City,
    node: Arc<Node>,
    uplink: Option<Uplink>,
    mqtt: SocketAddr,
    /// What runs beside the node, until `stop`.
    parts: JoinSet<()>,
    stop: CancellationToken,
}

/// One reading, as a sensor sends it.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    sensor: usize,
    json: String,
}

impl Site {
    /// Opens a node in a folder, ties it to its hub, and begins everything that it does by itself.
    pub(super) async fn begin(
        id: &str,
        city: &'static City,
        folder: &Path,
        network: &LocalNetwork,
        timing: Timing,
    ) -> anyhow::Result<Self> {
        let id = NodeId::new(id)?;
        let mut described = EdgeNode::new(id.as_str(), id.as_str())?;
        described.location = city.name.to_owned();
        described.labels.insert("site".to_owned(), id.to_string());
        let node = Node::open(NodeOptions::new(described, folder.join(id.as_str())))?;
        let options = UplinkOptions { timing, ..UplinkOptions::default() };
        let uplink = Uplink::start(Arc::clone(&node), Arc::new(network.member(id.clone())), options).await?;
        let tcp = TcpListener::bind("127.0.0.1:0").await.context("no free port on 127.0.0.1")?;
        let listener = Listener::new(tcp, None)?;
        let mqtt = listener.address();
        let tokens = Arc::new(Tokens::open(node.documents(), DocumentName::new(NODE_TOKENS)?)?);

        // Here nobody else can come to harm; a crash would be that of the demonstration.
        node.chaos().allow(None);

        let (mut parts, stop) = (JoinSet::new(), CancellationToken::new());
        let (of_triggers, of_mqtt, until) = (Arc::clone(&node), Arc::clone(&node), stop.clone());
        parts.spawn(async move { of_triggers.topics().run_triggers(until).await });
        let until = stop.clone();
        parts.spawn(async move { serve_mqtt(&of_mqtt, listener, MqttOptions { tokens }, until).await });
        parts.spawn(Arc::clone(&node).keep_scheduled(stop.clone()));

        let filter = TopicFilter::new(format!("sites/{id}/+/temperature"))?;
        let retry = Redelivery { attempts: 2, pause_min_ms: 10, pause_max_ms: 100 };
        let trigger = Trigger { retry, ..Trigger::new(TriggerId::new(TRIGGER)?, FunctionId::new(STATS)?, vec![filter]) };
        node.topics().put_trigger(trigger).await?;
        Ok(Self { id, city, node, uplink: Some(uplink), mqtt, parts, stop })
    }

    /// Whether it has its functions.
    pub(super) fn serves(&self) -> bool {
        [STATS, HELLO].iter().all(|function| self.node.runtime().find(function).is_ok())
    }

    /// Has a function run every second from now on.
    pub(super) async fn schedule(&self) -> anyhow::Result<()> {
        let schedule = Schedule::new(ScheduleId::new(SCHEDULE)?, FunctionId::new(HELLO)?, "every 1s".parse()?);
        self.node.schedules().put(Schedule { target: Target::all(), ..schedule }, Precondition::None).await?;
        Ok(())
    }

    /// How its trigger does.
    pub(super) async fn trigger(&self) -> anyhow::Result<TriggerView> {
        self.node.topics().triggers().await?.pop().context("its trigger is there")
    }

    /// Runs of its schedule that did what they should.
    pub(super) fn ticks(&self) -> anyhow::Result<u64> {
        Ok(self.node.schedules().get(SCHEDULE)?.totals.succeeded)
    }

    /// What a sensor sent that is no reading, and what the function said to it.
    pub(super) async fn dead_letter(&self) -> anyhow::Result<Option<(String, String)>> {
        let letters = self.node.topics().dead_letters(None, 0).await?;
        Ok(letters.first().map(|letter| (String::from_utf8_lossy(&letter.message.payload).into_owned(), letter.why.clone())))
    }

    /// What its process measures, as Prometheus and the receivers of OTLP get it.
    pub(super) async fn readings_of_all(&self) -> Vec<telemetry::Reading> {
        telemetry::node_readings(&self.node, None, Instant::now()).await
    }

    /// What the retained message of a topic says.
    pub(super) async fn retained(&self, topic: &str) -> anyhow::Result<Option<String>> {
        let found = self.node.topics().retained(&TopicFilter::new(topic)?, "").await?;
        Ok(found.first().map(|message| String::from_utf8_lossy(&message.payload).into_owned()))
    }

    /// The readings of its city, oldest first.
    pub(super) fn readings(&self) -> Vec<Reading> {
        let mut lines = self.city.csv.lines();
        let date_is_first = lines.next().is_some_and(|header| header.starts_with("date"));
        let parsed = lines.filter_map(|line| line.split_once(',')).enumerate();
        parsed
            .map(|(hour, (first, second))| {
                let (date, temp) = if date_is_first { (first, second) } else { (second, first) };
                // Of one city the seconds are said too.
                let json = json!({ "date": date.get(..16).unwrap_or(date), "temp": temp.parse::<f64>().ok() }).to_string();
                Reading { sensor: hour % SENSORS, json }
            })
            .collect()
    }

    /// Has the sensors publish these readings, each in its order, at least once. Returns when the node acknowledged all.
    pub(super) async fn publish(&self, readings: &[Reading]) -> anyhow::Result<()> {
        let mut sensors = JoinSet::new();
        for sensor in 0..SENSORS {
            let of_sensor: Vec<String> =
                readings.iter().filter(|reading| reading.sensor == sensor).map(|reading| reading.json.clone()).collect();
            let (topic, (client, mut events)) = (self.topic(sensor), self.connect(sensor));
            sensors.spawn(async move {
                let sending = async {
                    for json in &of_sensor {
                        client.publish(topic.as_str(), QoS::AtLeastOnce, false, json.as_str()).await?;
                    }
                    anyhow::Ok(())
                };
                let (sent, acknowledged) = tokio::join!(sending, acknowledged(&mut events, of_sensor.len()));
                sent.and(acknowledged)?;
                client.disconnect().await?;
                while events.poll().await.is_ok() {}
                anyhow::Ok(())
            });
        }
        while let Some(done) = sensors.join_next().await {
            done?.with_context(|| format!("a sensor of `{}` failed", self.id))?;
        }
        Ok(())
    }

    /// A sensor sends what is no reading.
    pub(super) async fn publish_nonsense(&self) -> anyhow::Result<()> {
        self.publish(&[Reading { sensor: 0, json: "ERR 7".to_owned() }]).await
    }

    /// One more reading than these, a year after the last one, as a part of a trace.
    pub(super) async fn publish_traced(&self, last: &Reading, trace: TraceContext) -> anyhow::Result<()> {
        let json = last.json.replacen("2010", "2011", 1);
        let mut message = Message::new(TopicName::new(self.topic(last.sensor))?, json, Timestamp::now());
        message.attributes.push((TRACEPARENT.as_str().to_owned(), trace.to_string()));
        self.node.topics().publish(message).await?;
        Ok(())
    }

    /// A sensor comes, says that it is there, and vanishes without a word.
    pub(super) async fn lose_sensor(&self) -> anyhow::Result<String> {
        let status = format!("sites/{}/sensor-0/status", self.id);
        let mut options = self.options("vanishes");
        options.set_last_will(LastWill::new(&status, "offline", QoS::AtLeastOnce, true));
        let (client, mut events) = AsyncClient::new(options, 1);
        client.publish(&status, QoS::AtLeastOnce, true, "online").await?;
        acknowledged(&mut events, 1).await?;
        drop((client, events));
        Ok(status)
    }

    fn topic(&self, sensor: usize) -> String {
        format!("sites/{}/sensor-{sensor}/temperature", self.id)
    }

    fn options(&self, client: &str) -> rumqttc::MqttOptions {
        let mut options = rumqttc::MqttOptions::new(format!("{}-{client}", self.id), self.mqtt.ip().to_string(), self.mqtt.port());
        options.set_inflight(WINDOW);
        options
    }

    fn connect(&self, sensor: usize) -> (AsyncClient, EventLoop) {
        AsyncClient::new(self.options(&format!("sensor-{sensor}")), usize::from(WINDOW))
    }

    /// Ends everything, and waits until nobody has its data folder.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while self.parts.join_next().await.is_some() {}
        drop(self.uplink.take());
        let node = self.node;
        eventually("the node has stopped", async || Ok(Arc::strong_count(&node) == 1)).await
    }
}

/// Waits until this many messages of a sensor are acknowledged.
async fn acknowledged(events: &mut EventLoop, mut missing: usize) -> anyhow::Result<()> {
    while missing > 0 {
        let event = timeout(PATIENCE, events.poll()).await.context("the broker acknowledges nothing any more")??;
        missing -= usize::from(matches!(event, Event::Incoming(Packet::PubAck(_))));
    }
    Ok(())
}
