//! MQTT on a node: connections over TCP or TLS for the broker on its log, and who may do what, by the node's tokens.
//!
//! What happens to a client is published, durably, to the topic [`CLIENTS`]`ID`, so that a function can be triggered by a sensor that went away.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use edgeward_model::{
    EdgeError, ErrorKind, LineLimit, TopicName,
    limits::{MQTT_CONNECTIONS_MAX, MQTT_EXPIRY_LOOK_EVERY, MQTT_NEWS_WAITING_MAX, MQTT_TOKENS_LOOK_EVERY},
};
use edgeward_topics::{
    Message, TopicLog,
    mqtt::{Broker, ClientEvent, ClientEventKind, Identity, Login},
};
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use tokio::{
    net::TcpStream,
    sync::{Semaphore, mpsc},
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::{Role, Tokens, TopicRights},
    listener::{Listener, Tls, is_loopback},
    node::Node,
};

/// How the topics begin to which it is published what happens to clients of MQTT. The rest is the id of the client, where `/`, `+`, `#`
/// and `%` are percent-encoded.
pub const CLIENTS: &str = "$edgeward/clients/";
/// Who a client is that shows no password and is on this machine.
const LOCAL: &str = "local";

/// What a node serves MQTT with.
#[derive(Clone, Debug)]
pub struct MqttOptions {
    /// The tokens of the node: a client's password is the secret of one, and its user name may be anything. Without a password only a
    /// client on this machine is let in, which may do everything, as over HTTP.
    pub tokens: Arc<Tokens>,
}

/// Serves MQTT 3.1.1 and 5 until `stop`, then ends the connections; the sessions stay.
///
/// What a client may do is said by its token's [`TopicRights`].
pub async fn serve_mqtt(node: &Node, listener: Listener, options: MqttOptions, stop: CancellationToken) {
    let log = Arc::clone(node.topics().log());
    let is_local = is_loopback(listener.address());
    let tokens = options.tokens;
    let refusals = Arc::new(Refusals::default());
    let authenticate = move |login: Login| -> futures::future::BoxFuture<'static, _> {
        Box::pin(std::future::ready(identify(&tokens, is_local, &login, Timestamp::now())))
    };
    let (news, told) = mpsc::channel(MQTT_NEWS_WAITING_MAX);
    let of_clients = Arc::clone(&refusals);
    let on_event = move |event: ClientEvent| {
        if let ClientEventKind::Refused { why } = &event.kind {
            // Nobody is told of strangers but the log.
            return of_clients.tell(&event.client_id, &event.peer, why);
        }
        // A connection does not wait for the news of it.
        if let Err(error) = news.try_send((event, Timestamp::now())) {
            tracing::warn!(%error, "what happened to a client of MQTT is not published");
        }
    };
    let broker = Arc::new(Broker::new(Arc::clone(&log), Box::new(authenticate), on_event));
    *node.topics().broker.lock() = Arc::downgrade(&broker);
    let telling = tokio::spawn(tell(Arc::clone(&log), told));
    serve(&broker, &log, listener, &refusals, stop).await;
    // It was the last who has news.
    drop(broker);
    if let Err(error) = telling.await {
        tracing::error!(%error, "the news of clients of MQTT ended with a defect");
    }
}

/// Accepts connections until `stop`, and waits for their end.
async fn serve(broker: &Arc<Broker>, log: &TopicLog, listener: Listener, refusals: &Arc<Refusals>, stop: CancellationToken) {
    // As many wills may wait as clients may be connected, and a will has its slot until it is published.
    let slots = Arc::new(Semaphore::new(2 * MQTT_CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    let accepting = async {
        loop {
            let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
            let (stream, peer) = listener.next().await;
            let (broker, tls) = (Arc::clone(broker), listener.tls().cloned());
            let (stop, refusals) = (stop.clone(), Arc::clone(refusals));
            connections.spawn(async move {
                serve_stream(broker, (stream, peer), tls, &refusals, stop).await;
                drop(slot);
            });
        }
    };
    // Nobody who connects waits for these.
    let checking = async {
        let mut look = interval(MQTT_TOKENS_LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            broker.check_again().await;
        }
    };
    let expiring = async {
        let mut look = interval(MQTT_EXPIRY_LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            if let Err(error) = broker.remove_expired(log.clock()).await {
                tracing::warn!(error = error.chain(), "sessions of MQTT that have expired could not be removed");
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = checking => {}
        () = expiring => {}
        () = stop.cancelled() => {}
    }
    drop(listener);
    broker.stop();
    connections.close();
    connections.wait().await;
}

async fn serve_stream(
    broker: Arc<Broker>,
    (stream, peer): (TcpStream, SocketAddr),
    tls: Option<Arc<Tls>>,
    refusals: &Refusals,
    stop: CancellationToken,
) {
    let Some(tls) = tls else { return broker.serve(stream, peer.to_string()).await };
    let shaken = tokio::select! {
        shaken = tls.handshake_of(stream) => shaken,
        () = stop.cancelled() => return,
    };
    match shaken {
        Ok(stream) => broker.serve(stream, peer.to_string()).await,
        Err(error) => refusals.tell("", &peer.to_string(), &format!("the TLS handshake failed: {error}")),
    }
}

/// The lines of the audit log about clients that were refused: strangers can cause them, so they are bounded, and their number is told instead.
#[derive(Debug, Default)]
struct Refusals(Mutex<LineLimit>);

impl Refusals {
    fn tell(&self, client_id: &str, peer: &str, why: &str) {
        let Some(dropped) = self.0.lock().admit(Instant::now()) else { return };
        if dropped > 0 {
            tracing::warn!(target: "audit", dropped, "more clients of MQTT were refused than this log tells");
        }
        tracing::warn!(target: "audit", client = client_id, peer, why, "refused a client of MQTT");
    }
}

/// Who a client is. One on this machine that shows no password may do everything.
fn identify(tokens: &Tokens, is_local: bool, login: &Login, now: Timestamp) -> Result<Identity, EdgeError> {
    let Some(password) = &login.password else {
        if is_local {
            return Ok(identity(LOCAL.to_owned(), Role::Admin.topic_rights()));
        }
        return Err(EdgeError::new(ErrorKind::Unauthenticated, "the client shows no password; it is to be a token of this node"));
    };
    let secret = std::str::from_utf8(password).map_err(|_| EdgeError::new(ErrorKind::Unauthenticated, "the password is no token"))?;
    let token = tokens.check(secret, now)?.token;
    Ok(identity(format!("token:{}", token.name), token.topic_rights()))
}

fn identity(user: String, rights: TopicRights) -> Identity {
    let TopicRights { publish, subscribe } = rights;
    Identity { user, publish, subscribe }
}

/// Publishes what happens to clients, in its order.
async fn tell(log: Arc<TopicLog>, mut told: mpsc::Receiver<(ClientEvent, Timestamp)>) {
    while let Some((event, at)) = told.recv().await {
        let written = match message_of(&event, at) {
            Ok(message) => log.publish(message).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            tracing::warn!(client = event.client_id, error = error.chain(), "what happened to a client of MQTT is not published");
        }
    }
}

fn message_of(event: &ClientEvent, at: Timestamp) -> Result<Message, EdgeError> {
    let ClientEvent { client_id, user, peer, kind } = event;
    let mut news = json!({ "client": client_id, "user": user, "peer": peer });
    match kind {
        ClientEventKind::Refused { why } => {
            news["state"] = "refused".into();
            news["why"] = why.as_str().into();
        }
        ClientEventKind::Connected => {
            tracing::info!(target: "audit", client = client_id, user, peer, "a client of MQTT is connected");
            news["state"] = "connected".into();
        }
        ClientEventKind::Disconnected { is_graceful, why } => {
            tracing::info!(target: "audit", client = client_id, user, peer, is_graceful, why, "a client of MQTT is not connected any more");
            news["state"] = "disconnected".into();
            news["is_graceful"] = (*is_graceful).into();
            news["why"] = why.as_str().into();
        }
    }
    let level = client_id.chars().map(|c| match c {
        '/' | '+' | '#' | '%' => format!("%{:02X}", u32::from(c)),
        c => c.to_string(),
    });
    let topic = TopicName::new(format!("{CLIENTS}{}", level.collect::<String>()))?;
    let message = Message::new(topic, news.to_string(), at);
    Ok(Message { content_type: Some("application/json".to_owned()), ..message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_news_of_a_client_have_a_topic_of_its_own_whatever_its_id() {
        let kind = ClientEventKind::Disconnected { is_graceful: false, why: "it vanished".to_owned() };
        let event = |client_id: &str| ClientEvent {
            client_id: client_id.to_owned(),
            user: "u".to_owned(),
            peer: "p".to_owned(),
            kind: kind.clone(),
        };
        for (id, topic) in [("sensor-1", "$edgeward/clients/sensor-1"), ("a/+/#%", "$edgeward/clients/a%2F%2B%2F%23%25")] {
            let message = message_of(&event(id), Timestamp::UNIX_EPOCH).expect("a message");
            assert_eq!(message.topic.as_str(), topic);
            let json: serde_json::Value = serde_json::from_slice(&message.payload).expect("JSON");
            assert_eq!((&json["client"], &json["state"], &json["is_graceful"]), (&id.into(), &"disconnected".into(), &false.into()));
        }
    }
}
