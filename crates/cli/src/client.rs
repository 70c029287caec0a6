//! A client of the HTTP API of a node.
//!
//! Each request has a connection of its own, and every wait has a bound. An answer that is not a success is an
//! error that carries the problem as the node sent it. A token is shown over TLS only.

mod events;
mod metrics;
pub(crate) mod tls;
mod topics;
mod wire;

use std::{
    error::Error as StdError,
    fmt::{self, Write as _},
    path::PathBuf,
    pin::Pin,
    str::FromStr,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use edgeward::EdgeError;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT},
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};
use tokio_util::task::AbortOnDropHandle;

use crate::input::Input;
pub(crate) use events::{Events, events_in};
pub(crate) use metrics::{Series, series};
pub(crate) use topics::{DeadLetters, LetterRecord, Messages, Published, RetainedMessages, TopicMessage, Topics, TriggerRecord, Triggers};
pub(crate) use wire::{
    Change, Conflict, Conflicts, CreatedJoinToken, CreatedToken, DocumentState, DocumentSummary, Documents, Functions, History, HubStatus,
    LogLine, NodeRecord, Nodes, NodesChanged, Pending, Policies, Problem, Process, Record, Side, Status, Summary, TokenTopics, Tokens,
    TrustedKeys, Uploaded,
};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an answer that the node has at hand.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest answer that is kept whole: the records of a full node are below.
pub(crate) const ANSWER_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Part of an upload that is given to the connection at once.
const UPLOAD_CHUNK_BYTES: usize = 64 * 1024;

/// Holds the token to show.
const TOKEN_VARIABLE: &str = "EDGEWARD_TOKEN";
/// Largest file of a token, in bytes.
const TOKEN_FILE_BYTES_MAX: usize = 4 * 1024;

/// Where a node listens: `http://HOST[:PORT]` or `https://HOST[:PORT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerUrl {
    is_tls: bool,
    /// Host without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// Host and port as they were given, for the header `Host`.
    authority: String,
}

impl ServerUrl {
    /// Whether it is this machine.
    pub(crate) fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    }
}

impl FromStr for ServerUrl {
    type Err = EdgeError;

    fn from_str(text: &str) -> Result<Self, EdgeError> {
        let refused = |why: &str| EdgeError::invalid(format!("the server `{}` is not valid: {why}", text.escape_debug()));
        let uri: Uri = text.parse().map_err(|_| refused("it must be like `http://127.0.0.1:7700`"))?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refused("it must begin with `http://` or `https://`")),
        };
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(refused("it must end after the port"));
        }
        let authority = uri.authority().ok_or_else(|| refused("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(refused("a user name or password is not supported"));
        }
        Ok(Self {
            is_tls,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
        })
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}", if self.is_tls { "s" } else { "" }, self.authority)
    }
}

/// Why a request brought no success.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No connection came about.
    #[error("failed to reach the node at `{server}`")]
    Unreachable {
        server: ServerUrl,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A connection came about, and no trust.
    #[error("failed to trust the node at `{server}`")]
    Untrusted {
        server: ServerUrl,
        hint: &'static str,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// What this machine has to show or to trust is of no use.
    #[error(transparent)]
    Local(#[from] EdgeError),
    /// The connection stands, but nothing comes.
    #[error("the node at `{server}` did not answer within {} s", .waited.as_secs())]
    Silent { server: ServerUrl, waited: Duration },
    /// The connection ended inside a request or its answer.
    #[error("lost the connection to the node at `{server}`")]
    Broken {
        server: ServerUrl,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The node says no, and why.
    #[error("{}", .0.message())]
    Refused(Box<Problem>),
    /// The answer is not of the API.
    #[error("`{server}` does not answer like an Edgeward node: {what}")]
    Foreign { server: ServerUrl, what: String },
}

/// Text as a piece of a path, or of a query.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => escaped.push(char::from(byte)),
            _ => write!(escaped, "%{byte:02X}").expect("writing to a String cannot fail"),
        }
    }
    escaped
}

/// What a request carries, and who is told of its progress.
#[derive(Default)]
pub(crate) struct Payload {
    rest: Bytes,
    on_sent: Option<Box<dyn FnMut(u64) + Send>>,
}

impl Payload {
    /// Calls `on_sent` with the count of bytes of each part that goes out.
    pub(crate) fn with_progress(bytes: Bytes, on_sent: impl FnMut(u64) + Send + 'static) -> Self {
        Self { rest: bytes, on_sent: Some(Box::new(on_sent)) }
    }
}

impl<B: Into<Bytes>> From<B> for Payload {
    fn from(bytes: B) -> Self {
        Self { rest: bytes.into(), on_sent: None }
    }
}

impl http_body::Body for Payload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let chunk_bytes = self.rest.len().min(UPLOAD_CHUNK_BYTES);
        let chunk = self.rest.split_to(chunk_bytes);
        if let Some(on_sent) = &mut self.on_sent {
            on_sent(chunk_bytes as u64);
        }
        Poll::Ready(Some(Ok(http_body::Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.rest.len() as u64)
    }
}

/// One request: what it asks for and how long its answer may take to begin.
pub(crate) struct Request {
    method: Method,
    path: String,
    headers: HeaderMap,
    payload: Payload,
    answer_timeout: Duration,
}

impl Request {
    /// A request for `path`, which begins with `/` and is made of characters that are safe in a URL.
    pub(crate) fn new(method: Method, path: impl Into<String>) -> Self {
        Self { method, path: path.into(), headers: HeaderMap::new(), payload: Payload::default(), answer_timeout: ANSWER_TIMEOUT }
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: http::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Adds the condition that the record is of this generation; 0 means that there is none.
    pub(crate) fn if_generation(self, generation: u64) -> Self {
        if generation == 0 {
            return self.header(http::header::IF_NONE_MATCH, HeaderValue::from_static("*"));
        }
        let tag = format!("\"{generation}\"").parse().expect("digits in quotes are a valid header");
        self.header(http::header::IF_MATCH, tag)
    }

    /// Sets the body.
    pub(crate) fn payload(mut self, payload: impl Into<Payload>) -> Self {
        self.payload = payload.into();
        self
    }

    /// The same for who serves it in this process.
    pub(crate) fn into_http(self) -> http::Request<Payload> {
        let mut request = http::Request::new(self.payload);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.path.parse().expect("paths are made of ids, digests, escaped keys and fixed text");
        *request.headers_mut() = self.headers;
        request
    }

    /// Sets how long the answer may take to begin, once the connection stands.
    pub(crate) fn answer_timeout(mut self, answer_timeout: Duration) -> Self {
        self.answer_timeout = answer_timeout;
        self
    }
}

/// Whom to trust, and what to show them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// A file with the token; without it the environment has the token, if there is one.
    pub(crate) token_file: Option<PathBuf>,
    /// A file with the authorities to trust; without it those that this machine trusts.
    pub(crate) ca: Option<PathBuf>,
}

impl Trust {
    /// The header with the token.
    fn token(&self) -> Result<Option<HeaderValue>, EdgeError> {
        let (token, whence) = match &self.token_file {
            Some(path) => {
                let unusable = |error: anyhow::Error| EdgeError::invalid("failed to read the token").with_source(error);
                let bytes = Input::File(path.clone()).read(TOKEN_FILE_BYTES_MAX).map_err(unusable)?;
                (String::from_utf8_lossy(&bytes).into_owned(), path.display().to_string())
            }
            None => match std::env::var(TOKEN_VARIABLE) {
                Ok(token) => (token, TOKEN_VARIABLE.to_owned()),
                Err(_) => return Ok(None),
            },
        };
        // The error does not repeat what may be a secret.
        let refused = || EdgeError::invalid(format!("there is no token in `{whence}`: a token is one word that begins with `edgeward_`"));
        let token = token.trim();
        if token.is_empty() || token.contains(char::is_whitespace) {
            return Err(refused());
        }
        let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| refused())?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

/// A node at an address.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    server: ServerUrl,
    trust: Trust,
    /// Made when it is first needed: to read what a machine trusts takes a while.
    tls: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl Client {
    /// Makes no connection yet, and reads no file.
    pub(crate) fn new(server: ServerUrl, trust: Trust) -> Self {
        Self { server, trust, tls: Arc::default() }
    }

    /// The node's address.
    pub(crate) fn server(&self) -> &ServerUrl {
        &self.server
    }

    /// Asks for `path`.
    pub(crate) async fn get(&self, path: impl Into<String>) -> Result<Answer, Error> {
        self.send(Request::new(Method::GET, path)).await
    }

    /// Sends the request and waits until its answer begins, which is a success.
    pub(crate) async fn send(&self, request: Request) -> Result<Answer, Error> {
        let broken = |source: hyper::Error| Error::Broken { server: self.server.clone(), source: source.into() };
        let silent = |waited| Error::Silent { server: self.server.clone(), waited };

        let token = self.token()?;
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let driver = AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection ended");
            }
        }));

        let answer_timeout = request.answer_timeout;
        let mut sent = request.into_http();
        sent.headers_mut().insert(HOST, self.server.authority.parse().expect("an authority is a valid header"));
        if let Some(token) = token {
            sent.headers_mut().insert(AUTHORIZATION, token);
        }
        sent.headers_mut().insert(USER_AGENT, HeaderValue::from_static(concat!("edgeward/", env!("CARGO_PKG_VERSION"))));

        let response = timeout(answer_timeout, sender.send_request(sent)).await;
        let response = response.map_err(|_| silent(answer_timeout))?.map_err(broken)?;
        let (head, body) = response.into_parts();
        let answer = Answer { server: self.server.clone(), headers: head.headers, body, _driver: driver };
        if head.status.is_success() { Ok(answer) } else { Err(answer.into_error(head.status).await) }
    }

    /// The token to show, if any. Over plain HTTP others could read it; on this machine nobody asks for it there.
    fn token(&self) -> Result<Option<HeaderValue>, EdgeError> {
        if !self.server.is_tls && self.server.is_loopback() {
            return Ok(None);
        }
        let token = self.trust.token()?;
        if token.is_some() && !self.server.is_tls {
            let why = format!("the token is not sent to `{}`, as others could read it on its way; use `https://`", self.server);
            return Err(EdgeError::invalid(why));
        }
        Ok(token)
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, Error> {
        let server = || self.server.clone();
        let unreachable = |source| Error::Unreachable { server: server(), source };
        let late = || unreachable(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()).into());
        let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect((self.server.host.as_str(), self.server.port))).await;
        let stream = connected.map_err(|_| late())?.map_err(|error| unreachable(error.into()))?;
        // Small requests go out at once; without it they are only slower.
        let _ = stream.set_nodelay(true);
        if !self.server.is_tls {
            return Ok(Box::new(stream));
        }
        let name = ServerName::try_from(self.server.host.clone()).map_err(|error| unreachable(error.into()))?;
        let shaken = timeout(CONNECT_TIMEOUT, TlsConnector::from(self.tls()?).connect(name, stream)).await.map_err(|_| late())?;
        let untrusted = |error| Error::Untrusted { server: server(), hint: tls::hint(&error), source: error.into() };
        Ok(Box::new(shaken.map_err(untrusted)?))
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, EdgeError> {
        if let Some(config) = self.tls.get() {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(tls::config(self.trust.ca.as_deref())?);
        Ok(Arc::clone(self.tls.get_or_init(|| config)))
    }
}

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// The head of a success; its body follows.
#[derive(Debug)]
pub(crate) struct Answer {
    server: ServerUrl,
    headers: HeaderMap,
    body: Incoming,
    _driver: AbortOnDropHandle<()>,
}

impl Answer {
    /// A header, where it is there and is text.
    pub(crate) fn header(&self, name: http::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The next part of the body, however long it takes; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|source| Error::Broken { server: self.server.clone(), source: source.into() })?;
            if let Ok(chunk) = frame.into_data() {
                return Ok(Some(chunk));
            }
        }
        Ok(None)
    }

    /// The whole body, which is JSON.
    pub(crate) async fn json(mut self) -> Result<Json, Error> {
        let bytes = self.whole().await?;
        Ok(Json { server: self.server, bytes })
    }

    /// The head and the whole body.
    pub(crate) async fn into_whole(mut self) -> Result<(HeaderMap, Bytes), Error> {
        let bytes = self.whole().await?;
        Ok((self.headers, bytes))
    }

    /// The body as server-sent events.
    pub(crate) fn events(self) -> Events {
        Events::new(self)
    }

    async fn whole(&mut self) -> Result<Bytes, Error> {
        let mut whole = BytesMut::new();
        loop {
            let Ok(chunk) = timeout(ANSWER_TIMEOUT, self.chunk()).await else {
                return Err(Error::Silent { server: self.server.clone(), waited: ANSWER_TIMEOUT });
            };
            let Some(chunk) = chunk? else { return Ok(whole.freeze()) };
            if whole.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(self.foreign(format!("its answer is larger than {ANSWER_BYTES_MAX} bytes")));
            }
            whole.extend_from_slice(&chunk);
        }
    }

    async fn into_error(mut self, status: StatusCode) -> Error {
        let bytes = match self.whole().await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        let is_problem = self.header(CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/problem+json"));
        match Problem::read(status.as_u16(), bytes).filter(|_| is_problem) {
            Some(problem) => Error::Refused(Box::new(problem)),
            None => self.foreign(format!("status {status} without a problem document")),
        }
    }

    fn foreign(&self, what: String) -> Error {
        Error::Foreign { server: self.server.clone(), what }
    }
}

/// JSON as the node sent it.
#[derive(Debug)]
pub(crate) struct Json {
    server: ServerUrl,
    bytes: Bytes,
}

impl Json {
    /// The text.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it says.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.bytes).map_err(|error| Error::Foreign { server: self.server.clone(), what: error.to_string() })
    }
}

#[cfg(test)]
mod tests;
