//! Listeners, and the one of functions, which serves each of them over HTTP/1.1 and HTTP/2 at `/fn/{id}/…`.
//!
//! An address that other machines can reach is listened on with TLS only. The function sees the path without its prefix, and the
//! prefix in `x-forwarded-prefix`. Connections, handshakes, heads, bodies and the patience with slow clients are bounded.

mod patience;
mod tls;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use edgeward_model::{
    EdgeError, ErrorKind,
    limits::{CONNECTIONS_MAX, HEADER_BYTES_MAX, REQUEST_BYTES_MAX},
};
use edgeward_runtime::{Deployed, EdgeRuntime, RequestBody, ResponseBody, body};
use http::{HeaderValue, Request, Response, Uri, Version, header, uri::PathAndQuery};
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    task::AbortHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::patience::{Clock, Guarded, Timed, Watched};
use crate::problem::Problem;

pub use self::tls::{Tls, TlsFiles};

/// Where functions are served.
pub const PREFIX: &str = "/fn/";
/// Carries the part of the path that the function does not see.
pub const PREFIX_HEADER: &str = "x-forwarded-prefix";
/// Pause after an error of `accept`, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whether only this machine can reach the address.
pub fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// Where connections come from.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    address: SocketAddr,
    tls: Option<Arc<Tls>>,
}

impl Listener {
    /// Takes connections of `tcp`: with TLS, or without it when only this machine can reach it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] when others can reach it and there is no TLS.
    pub fn new(tcp: TcpListener, tls: Option<Arc<Tls>>) -> Result<Self, EdgeError> {
        let address = tcp.local_addr().map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to listen").with_source(error))?;
        if tls.is_none() && !is_loopback(address) {
            return Err(EdgeError::invalid(format!("other machines can reach {address}, so it is listened on with TLS only")));
        }
        Ok(Self { tcp, address, tls })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The next connection, and where it is from.
    pub(crate) async fn next(&self) -> (TcpStream, SocketAddr) {
        loop {
            match self.tcp.accept().await {
                Ok((stream, peer)) => {
                    // An answer in small parts should not wait for the peer's acknowledgements.
                    let _ = stream.set_nodelay(true);
                    return (stream, peer);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// What it shows to prove who it is, when others can reach it.
    pub(crate) fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// How its URLs begin: `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// Who sent a request: an extension of each that came over TLS.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

/// Accepts connections until `stop`, then lets running requests end. `answer` serves one request.
pub async fn accept<F, R, B>(listener: Listener, stop: CancellationToken, answer: F)
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        // The clock of the connection bounds the wait for a head, without a timer for each request.
        .header_read_timeout(None)
        // At most 100 header fields, which is what hyper takes unless told, and fastest.
        .max_buf_size(HEADER_BYTES_MAX)
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).expect("64 KiB"))
        .max_concurrent_streams(128);
    let server = Arc::new(server);
    loop {
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot.expect("the semaphore is never closed"),
            () = stop.cancelled() => break,
        };
        let (stream, peer) = tokio::select! {
            accepted = listener.next() => accepted,
            () = stop.cancelled() => break,
        };
        let clock = Arc::new(Clock::new());
        let (drain, drained) = oneshot::channel();
        let connection =
            Connection { server: Arc::clone(&server), clock: Arc::clone(&clock), answer: answer.clone(), drain: drained, _slot: slot };
        let stream = Timed::new(stream, Arc::clone(&clock));
        let serving = match &listener.tls {
            None => connections.spawn(connection.serve(stream, None)),
            Some(tls) => connections.spawn(connection.serve_tls(stream, Arc::clone(tls), Peer(peer))),
        };
        tokio::spawn(watch_connection(serving.abort_handle(), clock, stop.clone(), drain));
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

struct Connection<F> {
    server: Arc<auto::Builder<TokioExecutor>>,
    clock: Arc<Clock>,
    answer: F,
    drain: oneshot::Receiver<()>,
    _slot: OwnedSemaphorePermit,
}

impl<F, R, B> Connection<F>
where
    F: Fn(Request<Incoming>) -> R + Send + 'static,
    R: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    async fn serve_tls(self, stream: Timed, tls: Arc<Tls>, peer: Peer) {
        match tls.handshake(stream).await {
            Ok(stream) => self.serve(stream, Some(peer)).await,
            Err(error) => tracing::debug!(peer = %peer.0, %error, "a TLS handshake failed"),
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, peer: Option<Peer>) {
        let Self { server, clock, answer, drain, _slot } = self;
        let service = service_fn(move |mut request| {
            let answering = clock.answering();
            // Room for extensions is an allocation, which a request without TLS is spared.
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            let answer = answer(request);
            async move { Ok::<_, Infallible>(answer.await.map(|body| Guarded { body, _answering: answering })) }
        });
        let connection = server.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            _ = drain => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "a connection ended with an error");
        }
    }
}

/// Ends a connection whose client leaves it waiting, and lets it end its last answer when the node stops. A task of
/// its own, so that the connection does not look at the clock and at `stop` for each request.
async fn watch_connection(serving: AbortHandle, clock: Arc<Clock>, stop: CancellationToken, mut drain: oneshot::Sender<()>) {
    let runs_out = clock.runs_out();
    tokio::pin!(runs_out);
    tokio::select! {
        () = drain.closed() => return,
        () = runs_out.as_mut() => return serving.abort(),
        () = stop.cancelled() => {}
    }
    if drain.send(()).is_ok() {
        runs_out.await;
        serving.abort();
    }
}

/// Serves the functions of a runtime until `stop`, then lets running requests end.
pub async fn serve_functions(runtime: Arc<EdgeRuntime>, listener: Listener, stop: CancellationToken) {
    accept(listener, stop, move |request| {
        let version = request.version();
        let prepared = prepare(&runtime, request);
        async move { answer_function(version, prepared).await }
    })
    .await;
}

async fn answer_function(version: Version, prepared: Result<Prepared, EdgeError>) -> Response<ResponseBody> {
    let result = match prepared {
        Ok(Prepared { function, request }) => function.serve(request).await,
        Err(error) => Err(error),
    };
    let response = result.unwrap_or_else(|error| Problem::public(&error).response(|json| ResponseBody::full(json.into())));
    // The connection of HTTP/1 is watched as a whole; streams of HTTP/2 stall one by one.
    if version == Version::HTTP_2 && !response.body().is_end_stream() {
        return response.map(|body| ResponseBody::stream(Watched::new(body)));
    }
    response
}

struct Prepared {
    function: Arc<Deployed>,
    request: Request<RequestBody>,
}

/// Finds the function, and makes the request what the function is to see.
fn prepare(runtime: &EdgeRuntime, mut request: Request<Incoming>) -> Result<Prepared, EdgeError> {
    let Split { id, rest } = split_path(request.uri())?;
    let function = runtime.find(id)?;
    if function.sees_requests() {
        if request.uri().authority().is_none() && !request.headers().contains_key(header::HOST) {
            return Err(EdgeError::invalid("the request names no host: it has no Host header"));
        }
        let prefix = HeaderValue::try_from(format!("{PREFIX}{id}")).map_err(|_| unknown())?;
        let path = if rest.starts_with('/') { PathAndQuery::try_from(rest) } else { PathAndQuery::try_from(format!("/{rest}")) };
        let mut parts = request.uri().clone().into_parts();
        parts.path_and_query = Some(path.map_err(|_| unknown())?);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| unknown())?;
        request.headers_mut().insert(PREFIX_HEADER, prefix);
    }
    Ok(Prepared { function, request: bounded(request)? })
}

struct Split<'a> {
    id: &'a str,
    rest: &'a str,
}

fn unknown() -> EdgeError {
    EdgeError::new(ErrorKind::NotFound, format!("nothing is served here; functions are at `{PREFIX}{{id}}/`"))
}

/// Takes `/fn/{id}` off the path and leaves the rest as it was written.
fn split_path(uri: &Uri) -> Result<Split<'_>, EdgeError> {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let rest = path.strip_prefix(PREFIX).ok_or_else(unknown)?;
    let (id, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    Ok(Split { id, rest })
}

/// Bounds the body: at once when its length is told, else as it comes.
fn bounded(request: Request<Incoming>) -> Result<Request<RequestBody>, EdgeError> {
    let too_large = || body::too_large("request", REQUEST_BYTES_MAX);
    let told = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if told.is_some_and(|bytes| bytes > REQUEST_BYTES_MAX as u64) {
        return Err(too_large());
    }
    let failed = move |error: Box<dyn std::error::Error + Send + Sync>| {
        if error.is::<http_body_util::LengthLimitError>() {
            too_large()
        } else {
            EdgeError::invalid("the request body broke off").with_source(error)
        }
    };
    Ok(request.map(|body| {
        if body.is_end_stream() {
            return body::empty();
        }
        Limited::new(body, REQUEST_BYTES_MAX).map_err(failed).boxed_unsync()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_split_after_the_id() {
        for (path, id, rest) in [
            ("/fn/a/b/c?d=%20", "a", "/b/c?d=%20"),
            ("/fn/a", "a", ""),
            ("/fn/a/", "a", "/"),
            ("/fn/a?x=1", "a", "?x=1"),
            ("/fn/a//b", "a", "//b"),
        ] {
            let uri = path.parse().expect("valid");
            let split = split_path(&uri).expect(path);
            assert_eq!((split.id, split.rest), (id, rest), "{path}");
        }
        assert!(split_path(&"/other".parse().expect("valid")).is_err());
    }

    #[tokio::test]
    async fn what_others_can_reach_is_not_listened_on_without_tls() {
        for (address, is_good) in [("127.0.0.1:0", true), ("127.9.9.9:0", true), ("0.0.0.0:0", false)] {
            let tcp = TcpListener::bind(address).await.expect("binds");
            assert_eq!(Listener::new(tcp, None).is_ok(), is_good, "{address}");
        }
        let is_loopback = |address: &str| is_loopback(address.parse().expect("valid"));
        assert!(is_loopback("[::1]:1") && is_loopback("[::ffff:127.0.0.1]:1"));
        assert!(!is_loopback("[::]:1") && !is_loopback("192.168.1.2:1") && !is_loopback("[::ffff:10.0.0.1]:1"));
    }
}
