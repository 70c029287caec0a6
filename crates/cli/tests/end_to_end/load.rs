//! Requests to functions, over connections that stay, until somebody stops them.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinHandle, time::sleep};

/// Pause of a connection between two requests: what is measured is whether any fails, on a machine with other work.
const PAUSE: Duration = Duration::from_millis(5);

/// Load on some listeners.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    connections: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    well: AtomicU64,
    failed: AtomicU64,
    last: parking_lot::Mutex<String>,
}

impl Load {
    /// So many connections, spread over the listeners, that ask for this path.
    pub(crate) fn on(listeners: &[SocketAddr], path: &str, connections: usize) -> Self {
        Self::that_allows(listeners, path, connections, "")
    }

    /// The same, where a function may also answer an error of this text of its own, which counts as well: no answer is lost by that.
    pub(crate) fn that_allows(listeners: &[SocketAddr], path: &str, connections: usize, own_error: &'static str) -> Self {
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::<Counts>::default());
        let connections = (0..connections).map(|number| {
            let (listener, path) = (listeners[number % listeners.len()], path.to_owned());
            tokio::spawn(ask(listener, path, own_error, Arc::clone(&stop), Arc::clone(&counts)))
        });
        Self { connections: connections.collect(), stop, counts }
    }

    pub(crate) fn well(&self) -> u64 {
        self.counts.well.load(Ordering::Relaxed)
    }

    /// How many requests were answered well, and how many failed, with how the last of those did.
    pub(crate) async fn stop(self) -> (u64, u64, String) {
        self.stop.store(true, Ordering::Relaxed);
        for connection in self.connections {
            connection.await.expect("it does not panic");
        }
        let last = self.counts.last.lock().clone();
        (self.counts.well.load(Ordering::Relaxed), self.counts.failed.load(Ordering::Relaxed), last)
    }
}

async fn ask(listener: SocketAddr, path: String, own_error: &'static str, stop: Arc<AtomicBool>, counts: Arc<Counts>) {
    while !stop.load(Ordering::Relaxed) {
        if let Err(why) = ask_over_one(listener, &path, own_error, &stop, &counts).await {
            counts.failed.fetch_add(1, Ordering::Relaxed);
            *counts.last.lock() = why;
            sleep(PAUSE).await;
        }
    }
}

/// Asks over one connection until one fails.
async fn ask_over_one(listener: SocketAddr, path: &str, own_error: &str, stop: &AtomicBool, counts: &Counts) -> Result<(), String> {
    let stream = TcpStream::connect(listener).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    while !stop.load(Ordering::Relaxed) {
        let request = Request::get(path).header(header::HOST, "localhost").body(Full::default()).expect("valid");
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        if !status.is_success() && (own_error.is_empty() || body != own_error) {
            return Err(format!("{status} {}", String::from_utf8_lossy(&body)));
        }
        counts.well.fetch_add(1, Ordering::Relaxed);
        sleep(PAUSE).await;
    }
    drop(sender);
    let _ = connection.await;
    Ok(())
}
