//! The way of a node to its hub, with what is injected into it: messages that are lost or late, and no way at all.
//!
//! What is cut off altogether looks as a connection that is down, so that who sends fails at once and asks again when it is back. A message that is
//! late is so once for each exchange: an answer comes as fast as ever.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use tokio::{
    sync::watch,
    time::{sleep, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::{Injector, MessageFault, Peer};
use crate::{
    backbone::{Backbone, Connection},
    error::BackboneError,
    lease::{Claim, Claimed},
    message::Message,
    service::{Call, Handler, Service, Subscription},
    subject::{Name, Subject, Subjects},
};

/// Why there is no connection.
const CUT: &str = "an injected fault cuts it off";
/// Longest time until the end of a cut is noticed when nothing else says so.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A node's way to its hub, into which faults are injected.
pub struct FaultyLink {
    inner: Arc<dyn Backbone>,
    injector: Arc<Injector>,
    /// The service whose requests are no later for the way: faults delay them where they are run.
    calls: Name,
    connection: watch::Receiver<Connection>,
    _following: AbortOnDropHandle<()>,
}

impl FaultyLink {
    /// The way with these faults. Requests of the service `calls` are lost, but not late: whoever runs the call is late with it.
    pub fn to_hub(inner: Arc<dyn Backbone>, injector: Arc<Injector>, calls: Name) -> Self {
        let mut link = Follow { inner: inner.connection(), injector: Arc::clone(&injector), cuts: 0, was_cut: false };
        let (told, connection) = watch::channel(link.now());
        let following = AbortOnDropHandle::new(tokio::spawn(link.follow(told)));
        Self { inner, injector, calls, connection, _following: following }
    }

    fn check(&self) -> Result<(), BackboneError> {
        if self.injector.is_cut_off(Peer::Hub) { Err(BackboneError::Disconnected(CUT.to_owned())) } else { Ok(()) }
    }

    /// Waits until it is cut off.
    async fn cut(&self) {
        let mut changes = self.injector.changes();
        while !self.injector.is_cut_off(Peer::Hub) {
            // It lives as long as this.
            let _ = changes.changed().await;
        }
    }

    async fn ask(&self, to: &Subject, message: Message, timeout: Duration) -> Result<Message, BackboneError> {
        let deadline = tokio::time::Instant::now() + timeout;
        let lost = || BackboneError::Timeout(to.to_string());
        let never = async {
            tokio::time::sleep_until(deadline).await;
            Err(lost())
        };
        let left = match self.injector.on_message(Peer::Hub) {
            None => timeout,
            Some(MessageFault::Lost) => return never.await,
            Some(MessageFault::Late(delay)) if delay >= timeout => return never.await,
            Some(MessageFault::Late(delay)) => {
                sleep(delay).await;
                timeout.saturating_sub(delay)
            }
        };
        let answer = timeout_at(deadline, self.inner.request(to, message, left)).await.map_err(|_| lost())??;
        match self.injector.on_message(Peer::Hub) {
            Some(MessageFault::Lost) => never.await,
            _ => Ok(answer),
        }
    }
}

impl Backbone for FaultyLink {
    fn request<'a>(&'a self, to: &'a Subject, message: Message, timeout: Duration) -> BoxFuture<'a, Result<Message, BackboneError>> {
        async move {
            self.check()?;
            tokio::select! {
                answer = self.ask(to, message, timeout) => answer,
                () = self.cut() => Err(BackboneError::Disconnected(CUT.to_owned())),
            }
        }
        .boxed()
    }

    fn serve<'a>(&'a self, subjects: &'a Subjects, concurrency: usize, handler: Handler) -> BoxFuture<'a, Result<Service, BackboneError>> {
        let (injector, are_calls) = (Arc::clone(&self.injector), subjects.service == self.calls);
        let faulty: Handler = Arc::new(move |call: Call| {
            let (injector, handler) = (Arc::clone(&injector), Arc::clone(&handler));
            async move {
                match injector.on_message(Peer::Hub) {
                    None => {}
                    // It ends at the deadline of the call.
                    Some(MessageFault::Lost) => std::future::pending().await,
                    Some(MessageFault::Late(_)) if are_calls => {}
                    Some(MessageFault::Late(delay)) => sleep(delay).await,
                }
                let answer = handler(call).await;
                if injector.on_message(Peer::Hub) == Some(MessageFault::Lost) {
                    std::future::pending::<()>().await;
                }
                answer
            }
            .boxed()
        });
        async move { self.inner.serve(subjects, concurrency, faulty).await }.boxed()
    }

    fn publish<'a>(&'a self, to: &'a Subject, message: Message) -> BoxFuture<'a, Result<(), BackboneError>> {
        async move {
            self.check()?;
            match self.injector.on_message(Peer::Hub) {
                None => {}
                Some(MessageFault::Lost) => return Ok(()),
                Some(MessageFault::Late(delay)) => {
                    sleep(delay).await;
                    // It may have been cut off meanwhile.
                    self.check()?;
                }
            }
            self.inner.publish(to, message).await
        }
        .boxed()
    }

    fn subscribe<'a>(&'a self, subjects: &'a Subjects) -> BoxFuture<'a, Result<Subscription, BackboneError>> {
        let injector = Arc::clone(&self.injector);
        let fate = Box::new(move || match injector.on_message(Peer::Hub) {
            None => Some(Duration::ZERO),
            Some(MessageFault::Lost) => None,
            Some(MessageFault::Late(delay)) => Some(delay),
        });
        async move { Ok(self.inner.subscribe(subjects).await?.with_fate(fate)) }.boxed()
    }

    fn lease(&self, claim: Claim) -> BoxFuture<'_, Result<Claimed, BackboneError>> {
        async move {
            self.check()?;
            self.inner.lease(claim).await
        }
        .boxed()
    }

    fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }
}

/// Tells how the connection is, of which a cut counts as an end.
struct Follow {
    inner: watch::Receiver<Connection>,
    injector: Arc<Injector>,
    /// How often it came up again after a cut.
    cuts: u64,
    was_cut: bool,
}

impl Follow {
    fn now(&mut self) -> Connection {
        let mut connection = self.inner.borrow_and_update().clone();
        let is_cut = self.injector.is_cut_off(Peer::Hub);
        if std::mem::replace(&mut self.was_cut, is_cut) && !is_cut {
            self.cuts += 1;
        }
        connection.ups += self.cuts;
        if is_cut {
            (connection.is_up, connection.why_down) = (false, Some(CUT.to_owned()));
        }
        connection
    }

    async fn follow(mut self, told: watch::Sender<Connection>) {
        let mut changes = self.injector.changes();
        loop {
            changes.mark_unchanged();
            let now = self.now();
            told.send_if_modified(|known| {
                let is_news = *known != now;
                *known = now;
                is_news
            });
            let end = self.injector.next_end_in().filter(|_| self.was_cut).map(|end| end.min(LOOK_EVERY));
            tokio::select! {
                ended = self.inner.changed() => if ended.is_err() { return },
                ended = changes.changed() => if ended.is_err() { return },
                () = sleep(end.unwrap_or_default()), if end.is_some() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use edgeward_model::{
        NodeId, Target,
        chaos::{Fault, FaultKind, Side},
    };

    use super::*;
    use crate::{handler, local::LocalNetwork};

    const ECHO: Name = Name::new("echo");
    const CALLS: Name = Name::new("calls");

    fn node() -> NodeId {
        NodeId::new("edge-01").expect("valid")
    }

    fn partition(probability: f64) -> Fault {
        let between = Box::new([Side::Nodes(Target::all()), Side::Hub]);
        Fault { probability, ..Fault::new(FaultKind::Partition { between }, 10) }
    }

    async fn pair() -> (LocalNetwork, Arc<Injector>, FaultyLink, Service) {
        let network = LocalNetwork::new();
        let (hub, injector) = (network.member(NodeId::new("hub").expect("valid")), Arc::new(Injector::default()));
        let echo = handler(|call: Call| async move { Ok(call.message) });
        let service = hub.serve(&Subjects::to_hub(ECHO), 8, echo).await.expect("serves");
        let link = FaultyLink::to_hub(Arc::new(network.member(node())), Arc::clone(&injector), CALLS);
        (network, injector, link, service)
    }

    async fn asked(link: &FaultyLink) -> Result<Message, BackboneError> {
        link.request(&Subject::to_hub(node(), ECHO), Message::new("x"), Duration::from_secs(1)).await
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_cut_off_fails_at_once_and_is_back_by_itself() {
        let (_network, injector, link, _service) = pair().await;
        let mut connection = link.connection();
        assert!(connection.borrow_and_update().is_up && asked(&link).await.is_ok());
        let ups = connection.borrow().ups;
        let begun = tokio::time::Instant::now();
        injector.inject("1", partition(1.0)).expect("valid");
        assert!(matches!(asked(&link).await, Err(BackboneError::Disconnected(why)) if why == CUT));
        assert!(link.publish(&Subject::to_hub(node(), ECHO), Message::new("x")).await.is_err());
        connection.wait_for(|connection| !connection.is_up).await.expect("it is told");
        connection.wait_for(|connection| connection.is_up).await.expect("it ends by itself");
        assert_eq!((begun.elapsed().as_secs(), connection.borrow().ups), (10, ups + 1));
        assert!(asked(&link).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_under_way_when_it_is_cut_fails_and_what_is_lost_is_waited_for() {
        let (_network, injector, link, _service) = pair().await;
        injector.inject("late", Fault::new(FaultKind::Latency { delay_ms: 500, jitter_ms: 0 }, 10)).expect("valid");
        let begun = tokio::time::Instant::now();
        assert!(asked(&link).await.is_ok());
        assert_eq!(begun.elapsed().as_millis(), 500);
        let mut under_way = Box::pin(asked(&link));
        assert!(futures::poll!(&mut under_way).is_pending());
        injector.inject("cut", partition(1.0)).expect("valid");
        assert!(matches!(under_way.await, Err(BackboneError::Disconnected(_))));
        assert!(injector.remove("cut").is_some() && injector.remove("late").is_some());
        // As good as certain, and not a cut.
        injector.inject("lossy", partition(0.999_999_999)).expect("valid");
        let begun = tokio::time::Instant::now();
        assert!(matches!(asked(&link).await, Err(BackboneError::Timeout(_))));
        assert_eq!(begun.elapsed().as_secs(), 1);
        assert!(link.connection().borrow().is_up);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_to_who_is_cut_off_does_not_arrive() {
        let (network, injector, link, _service) = pair().await;
        let hub = network.member(NodeId::new("hub").expect("valid"));
        let to = Subject::to_node(node(), ECHO);
        let mut received = link.subscribe(&Subjects::from(&to)).await.expect("subscribes");
        let answering = handler(|call: Call| async move { Ok(call.message) });
        let _service = link.serve(&Subjects::from(&to), 1, answering).await.expect("serves");
        injector.inject("1", partition(1.0)).expect("valid");
        hub.publish(&to, Message::new("lost")).await.expect("sent");
        let asked = hub.request(&to, Message::new("x"), Duration::from_secs(1)).await;
        assert!(matches!(asked, Err(BackboneError::Timeout(_))), "{asked:?}");
        assert!(futures::poll!(Box::pin(received.next())).is_pending());
        injector.remove("1");
        hub.publish(&to, Message::new("there")).await.expect("sent");
        assert_eq!(received.next().await.expect("arrives").message, Message::new("there"));
        assert!(hub.request(&to, Message::new("x"), Duration::from_secs(1)).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_is_late_where_it_is_run_and_not_on_its_way_too() {
        let (network, injector, link, _service) = pair().await;
        injector.inject("late", Fault::new(FaultKind::Latency { delay_ms: 500, jitter_ms: 0 }, 10)).expect("valid");
        let hub = network.member(NodeId::new("hub").expect("valid"));
        for (service, late_ms) in [(ECHO, 500), (CALLS, 0)] {
            let to = Subject::to_node(node(), service);
            let answering = handler(|call: Call| async move { Ok(call.message) });
            let _service = link.serve(&Subjects::from(&to), 1, answering).await.expect("serves");
            let begun = tokio::time::Instant::now();
            assert!(hub.request(&to, Message::new("x"), Duration::from_secs(1)).await.is_ok());
            assert_eq!(begun.elapsed().as_millis(), late_ms, "{}", service.as_str());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn messages_are_late_by_the_delay_however_many_come_at_once() {
        let (network, injector, link, _service) = pair().await;
        injector.inject("late", Fault::new(FaultKind::Latency { delay_ms: 500, jitter_ms: 0 }, 10)).expect("valid");
        let (hub, to) = (network.member(NodeId::new("hub").expect("valid")), Subject::to_node(node(), ECHO));
        let mut received = link.subscribe(&Subjects::from(&to)).await.expect("subscribes");
        let begun = tokio::time::Instant::now();
        for number in 0..10 {
            hub.publish(&to, Message::new(number.to_string())).await.expect("sent");
        }
        for number in 0..10 {
            assert_eq!(received.next().await.expect("arrives").message, Message::new(number.to_string()));
        }
        assert_eq!(begun.elapsed().as_millis(), 500);
        let mut late = Box::pin(link.publish(&to, Message::new("cut off")));
        assert!(futures::poll!(&mut late).is_pending());
        injector.inject("cut", partition(1.0)).expect("valid");
        assert!(matches!(late.await, Err(BackboneError::Disconnected(_))));
    }
}
