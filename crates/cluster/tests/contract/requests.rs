//! `request` and `serve`.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use edgeward_cluster::{BackboneError, Message, Subject, Subjects, handler, message::TRACEPARENT};
use edgeward_model::{
    EdgeError, ErrorKind, Failure,
    limits::{MESSAGE_BYTES_MAX, SERVICE_CONCURRENCY_MAX, WAITING_MESSAGES_MAX},
};
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};

use crate::site::{ECHO, NEWS, PATIENCE, Site, eventually, node};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

pub(crate) async fn a_request_is_answered_and_both_ways_carry_header_fields(site: Site) {
    let (hub, edge) = (site.member("hub").await, site.member("edge.1").await);
    let answer = handler(async |call| {
        assert_eq!(call.subject, Subject::to_hub(node("edge.1"), ECHO));
        let left = call.deadline.duration_since(Instant::now());
        assert!((PATIENCE / 2..=PATIENCE).contains(&left), "{left:?}");
        let mut message = Message::new([b"echo ", &call.message.payload[..]].concat());
        message.headers.set("x-seen", call.message.headers.get(TRACEPARENT).expect("it was sent"))?;
        Ok(message)
    });
    let _service = hub.serve(&Subjects::to_hub(ECHO), 8, answer).await.expect("served");
    let mut message = Message::new("hello");
    message.headers.set(TRACEPARENT, TRACE).expect("valid");
    let answer = edge.request(&Subject::to_hub(node("edge.1"), ECHO), message, PATIENCE).await.expect("answered");
    assert_eq!((&answer.payload[..], answer.headers.get("x-seen")), (&b"echo hello"[..], Some(TRACE)));
    assert_eq!(answer.headers.iter().count(), 1, "what is the backbone's own stays with it");
}

pub(crate) async fn an_error_reaches_the_caller_with_its_kind_text_and_failure(site: Site) {
    let (hub, edge) = (site.member("hub").await, site.member("edge").await);
    let failure = Failure { status: Some(500), exit_code: Some(3), stderr_tail: "line\n".to_owned() };
    let sent = failure.clone();
    let refuse = handler(move |_| {
        let failure = sent.clone();
        async move { Err(EdgeError::new(ErrorKind::ExecutionFailed, "it went wrong: ü").with_failure(failure)) }
    });
    let _service = edge.serve(&Subjects::to_node(node("edge"), ECHO), 1, refuse).await.expect("served");
    let error = hub.request(&Subject::to_node(node("edge"), ECHO), Message::default(), PATIENCE).await.expect_err("refused");
    let BackboneError::Answered(error) = error else { panic!("{error:?}") };
    assert_eq!((error.kind(), error.to_string().as_str(), error.failure()), (ErrorKind::ExecutionFailed, "it went wrong: ü", &failure));
}

pub(crate) async fn a_request_that_nobody_serves_fails_at_once(site: Site) {
    let hub = site.member("hub").await;
    let start = Instant::now();
    let error = hub.request(&Subject::to_node(node("edge"), ECHO), Message::default(), PATIENCE).await.expect_err("nobody");
    assert!(matches!(error, BackboneError::NoResponder(_)), "{error:?}");
    assert!(start.elapsed() < PATIENCE / 2);
}

pub(crate) async fn a_request_past_its_deadline_fails_and_its_handler_is_dropped(site: Site) {
    struct Running(Arc<AtomicUsize>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let (hub, edge) = (site.member("hub").await, site.member("edge").await);
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dropped);
    let never = handler(move |_| {
        let running = Running(Arc::clone(&counter));
        async move {
            std::future::pending::<()>().await;
            drop(running);
            Ok(Message::default())
        }
    });
    let _service = edge.serve(&Subjects::to_node(node("edge"), ECHO), 1, never).await.expect("served");
    let start = Instant::now();
    let subject = Subject::to_node(node("edge"), ECHO);
    let error = hub.request(&subject, Message::default(), Duration::from_millis(300)).await.expect_err("too late");
    assert!(matches!(error, BackboneError::Timeout(_)), "{error:?}");
    assert!((Duration::from_millis(300)..Duration::from_secs(5)).contains(&start.elapsed()), "{:?}", start.elapsed());
    eventually("the handler is dropped", async || dropped.load(Ordering::Relaxed) == 1).await;
}

pub(crate) async fn a_handler_that_panics_answers_with_an_error(site: Site) {
    let (hub, edge) = (site.member("hub").await, site.member("edge").await);
    let panics = handler(async |call| if call.message.payload.is_empty() { panic!("a test") } else { Ok(call.message) });
    let _service = edge.serve(&Subjects::to_node(node("edge"), ECHO), 1, panics).await.expect("served");
    let subject = Subject::to_node(node("edge"), ECHO);
    let error = hub.request(&subject, Message::default(), PATIENCE).await.expect_err("it panicked");
    assert!(matches!(&error, BackboneError::Answered(_)) && error.kind() == ErrorKind::Internal, "{error:?}");
    hub.request(&subject, Message::new("x"), PATIENCE).await.expect("the service lives on");
}

pub(crate) async fn what_is_too_large_is_refused_in_both_directions(site: Site) {
    let (hub, edge) = (site.member("hub").await, site.member("edge").await);
    let grow = handler(async |call| {
        let more = usize::from(call.message.headers.get("grow").is_some());
        Ok(Message::new(vec![7; call.message.payload.len() + more]))
    });
    let _service = edge.serve(&Subjects::to_node(node("edge"), ECHO), 1, grow).await.expect("served");
    let subject = Subject::to_node(node("edge"), ECHO);
    let mut largest = Message::new(vec![7; MESSAGE_BYTES_MAX]);
    let answer = hub.request(&subject, largest.clone(), PATIENCE).await.expect("the largest there may be");
    assert_eq!(answer.payload.len(), MESSAGE_BYTES_MAX);
    largest.headers.set("grow", "1").expect("valid");
    let error = hub.request(&subject, largest, PATIENCE).await.expect_err("its answer is too large");
    assert!(matches!(&error, BackboneError::Answered(_)) && error.kind() == ErrorKind::TooLarge, "{error:?}");

    let large = Message::new(vec![7; MESSAGE_BYTES_MAX + 1]);
    let is_too_large = |error| matches!(error, BackboneError::TooLarge { bytes_max: MESSAGE_BYTES_MAX, .. });
    assert!(is_too_large(hub.request(&subject, large.clone(), PATIENCE).await.expect_err("too large")));
    assert!(is_too_large(hub.publish(&subject, large).await.expect_err("too large")));
}

pub(crate) async fn members_that_serve_the_same_share_its_requests(site: Site) {
    let (edge, one, other) = (site.member("edge").await, site.member("hub-1").await, site.member("hub-2").await);
    let seen = Arc::new(Mutex::new([HashSet::new(), HashSet::new()]));
    let note = |which: usize| {
        let seen = Arc::clone(&seen);
        handler(move |call| {
            let is_new = seen.lock()[which].insert(call.message.payload.clone());
            assert!(is_new, "it was handled twice");
            async { Ok(Message::default()) }
        })
    };
    let _services = [
        one.serve(&Subjects::to_hub(ECHO), 4, note(0)).await.expect("served"),
        other.serve(&Subjects::to_hub(ECHO), 4, note(1)).await.expect("served"),
    ];
    let subject = Subject::to_hub(node("edge"), ECHO);
    let requests = (0..200).map(|index: u32| edge.request(&subject, Message::new(index.to_be_bytes().to_vec()), PATIENCE));
    for answer in join_all(requests).await {
        answer.expect("answered");
    }
    let seen = seen.lock();
    assert!(seen[0].is_disjoint(&seen[1]) && seen[0].len() + seen[1].len() == 200);
    assert!(seen.iter().all(|seen| seen.len() > 20), "both have work: {} and {}", seen[0].len(), seen[1].len());
}

pub(crate) async fn a_service_answers_so_many_at_once_and_refuses_what_cannot_wait(site: Site) {
    const AT_ONCE: usize = 3;
    const TOO_MANY: usize = 50;
    let (hub, edge) = (site.member("hub").await, site.member("edge").await);
    let (running, most, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let wait = {
        let (running, most, gate) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&gate));
        handler(move |_| {
            let (running, most, gate) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&gate));
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                gate.acquire().await.expect("it is never closed").forget();
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(Message::default())
            }
        })
    };
    let service = edge.serve(&Subjects::to_node(node("edge"), ECHO), AT_ONCE, wait).await.expect("served");
    let subject = Subject::to_node(node("edge"), ECHO);
    let ask = || hub.request(&subject, Message::default(), 3 * PATIENCE);
    // First those that run, so that all the others find them running.
    let first = async { join_all((0..AT_ONCE).map(|_| ask())).await };
    let rest = async {
        eventually("the first ones run", async || running.load(Ordering::SeqCst) == AT_ONCE).await;
        join_all((0..WAITING_MESSAGES_MAX + TOO_MANY).map(|_| ask())).await
    };
    let open = async {
        eventually("what cannot wait is refused", async || service.refused() == TOO_MANY as u64).await;
        gate.add_permits(WAITING_MESSAGES_MAX + AT_ONCE);
    };
    let (first, rest, ()) = tokio::join!(first, rest, open);
    assert!(first.iter().all(Result::is_ok));
    let refused = rest.iter().filter_map(|answer| answer.as_ref().err()).map(|error| {
        assert!(matches!(error, BackboneError::Answered(_)) && error.kind() == ErrorKind::Overloaded, "{error:?}");
    });
    assert_eq!(refused.count(), TOO_MANY);
    assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
    for wrong in [0, SERVICE_CONCURRENCY_MAX + 1] {
        let served = edge.serve(&Subjects::to_hub(ECHO), wrong, handler(async |call| Ok(call.message))).await;
        assert_eq!(served.map(|_| ()).expect_err("out of bounds").kind(), ErrorKind::InvalidInput);
    }
}

pub(crate) async fn a_stopped_service_answers_what_it_took_and_then_nobody_serves(site: Site) {
    let (hub, edge) = (site.member("hub").await, site.member("edge").await);
    let begun = Arc::new(Semaphore::new(0));
    let seen = Arc::clone(&begun);
    let slow = handler(move |call| {
        seen.add_permits(1);
        async move {
            sleep(Duration::from_millis(300)).await;
            Ok(call.message)
        }
    });
    let service = edge.serve(&Subjects::to_node(node("edge"), ECHO), 1, slow).await.expect("served");
    let subject = Subject::to_node(node("edge"), ECHO);
    let stop = async {
        begun.acquire().await.expect("it is never closed").forget();
        service.stop().await;
    };
    let (answer, ()) = tokio::join!(hub.request(&subject, Message::new("x"), PATIENCE), stop);
    assert_eq!(answer.expect("it was taken").payload, "x");
    eventually("nobody serves", async || {
        matches!(hub.request(&subject, Message::default(), PATIENCE).await, Err(BackboneError::NoResponder(_)))
    })
    .await;
}

pub(crate) async fn a_request_reaches_the_node_that_it_names_and_no_other(site: Site) {
    let hub = site.member("hub").await;
    let (short, long) = (site.member("a").await, site.member("a.b").await);
    let say = |text: &'static str| handler(move |_| async move { Ok(Message::new(text)) });
    let _services = [
        short.serve(&Subjects::to_node(node("a"), ECHO), 1, say("a")).await.expect("served"),
        long.serve(&Subjects::to_node(node("a.b"), ECHO), 1, say("a.b")).await.expect("served"),
        hub.serve(&Subjects::to_hub(ECHO), 1, say("hub")).await.expect("served"),
    ];
    for id in ["a", "a.b", "a"] {
        let answer = hub.request(&Subject::to_node(node(id), ECHO), Message::default(), PATIENCE).await.expect("answered");
        assert_eq!(answer.payload, id);
    }
    let answer = long.request(&Subject::to_hub(node("a.b"), ECHO), Message::default(), PATIENCE).await.expect("answered");
    assert_eq!(answer.payload, "hub");
    for nobody in [Subject::to_node(node("b"), ECHO), Subject::to_node(node("a"), NEWS), Subject::to_node(node("hub"), ECHO)] {
        let error = hub.request(&nobody, Message::default(), PATIENCE).await.expect_err("nobody");
        assert!(matches!(error, BackboneError::NoResponder(_)), "{nobody}: {error:?}");
    }
}
