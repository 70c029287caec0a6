//! Outgoing HTTP of guests: denied unless the function lists the host, and then only to the address that was
//! checked.
//!
//! A pattern is `scheme://host[:port]` as in Spin's `allowed_outbound_hosts`: the scheme is `http`, `https` or
//! `*`; the host is a name, `*.name` for the names below it, an IP address, an address block such as
//! `10.0.0.0/8`, or `*`; the port is a number, a range `8000..8100` (its end excluded), or `*`, and without one
//! that of the scheme. A name that resolves to a private, loopback or link-local address is refused unless an
//! address pattern lists that address (`localhost` lists the loopback addresses).

use std::{
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    ops::Range,
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use edgeward_model::{
    EdgeError,
    limits::{
        OUTGOING_BETWEEN_BYTES_TIMEOUT, OUTGOING_CALLS_MAX, OUTGOING_CONNECT_TIMEOUT, OUTGOING_FIRST_BYTE_TIMEOUT, OUTGOING_LOOKUPS_MAX,
    },
};
use http::{HeaderName, Request, Response, Uri, uri::Scheme};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, timeout, timeout_at},
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, pki_types::ServerName},
};
use wasmtime_wasi_http::{DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpHooks};

/// Bytes that a guest may write to a body in one call.
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// The hosts that a function may call, and the turns of its calls.
#[derive(Debug)]
pub(crate) struct AllowList {
    patterns: Vec<Pattern>,
    turns: Arc<Semaphore>,
}

#[derive(Debug)]
struct Pattern {
    scheme: Option<Scheme>,
    host: Host,
    port: Ports,
}

#[derive(Debug, PartialEq, Eq)]
enum Host {
    Any,
    Name(String),
    Below(String),
    Block(IpAddr, u8),
}

#[derive(Debug)]
enum Ports {
    Any,
    Default,
    Range(Range<u32>),
}

impl AllowList {
    /// Reads the patterns of a function.
    pub(crate) fn parse(patterns: &[String]) -> Result<Self, EdgeError> {
        let patterns = patterns.iter().map(|pattern| Pattern::parse(pattern)).collect::<Result<_, _>>()?;
        Ok(Self { patterns, turns: Arc::new(Semaphore::new(OUTGOING_CALLS_MAX)) })
    }

    fn allows_name(&self, scheme: &Scheme, host: &str, port: u16) -> bool {
        let address = parse_ip(host);
        self.patterns.iter().any(|pattern| {
            pattern.fits(scheme, port)
                && match (&pattern.host, address) {
                    (Host::Any, _) => true,
                    (Host::Name(name), _) => name.eq_ignore_ascii_case(host),
                    (Host::Below(suffix), None) => host.len() > suffix.len() && host.to_ascii_lowercase().ends_with(suffix.as_str()),
                    (Host::Block(block, bits), Some(address)) => in_block(address, *block, *bits),
                    (Host::Below(_), Some(_)) | (Host::Block(..), None) => false,
                }
        })
    }

    /// Whether a connection to this address is in order, once its name is.
    fn allows_address(&self, scheme: &Scheme, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        !is_internal(ip)
            || self.patterns.iter().filter(|pattern| pattern.fits(scheme, address.port())).any(|pattern| match &pattern.host {
                Host::Block(block, bits) => in_block(ip, *block, *bits),
                Host::Name(name) => name == "localhost" && ip.is_loopback(),
                Host::Any | Host::Below(_) => false,
            })
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, EdgeError> {
        let refused = |why: &str| {
            EdgeError::invalid(format!(
                "the allowed host `{}` is not valid: {why}; write `https://example.com`, `http://*.local:8080` or `*://10.0.0.0/8:*`",
                text.escape_debug()
            ))
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| refused("it has no `scheme://`"))?;
        let scheme = match scheme {
            "*" => None,
            "http" => Some(Scheme::HTTP),
            "https" => Some(Scheme::HTTPS),
            _ => return Err(refused("the scheme is not `http`, `https` or `*`")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let port = match port {
            None => Ports::Default,
            Some("*") => Ports::Any,
            Some(port) => {
                let number = |text: &str| text.parse::<u16>().map(u32::from).map_err(|_| refused("the port is not a number below 65536"));
                let range = match port.split_once("..") {
                    Some((low, high)) => number(low)?..number(high)?,
                    None => number(port)?..number(port)? + 1,
                };
                if range.is_empty() {
                    return Err(refused("the range of ports is empty; its end is not part of it"));
                }
                Ports::Range(range)
            }
        };
        let host = parse_host(host).ok_or_else(|| refused("the host is not a name, `*.name`, an address, an address block or `*`"))?;
        Ok(Self { scheme, host, port })
    }

    fn fits(&self, scheme: &Scheme, port: u16) -> bool {
        self.scheme.as_ref().is_none_or(|mine| mine == scheme)
            && match &self.port {
                Ports::Any => true,
                Ports::Default => port == default_port(scheme),
                Ports::Range(range) => range.contains(&u32::from(port)),
            }
    }
}

fn parse_host(host: &str) -> Option<Host> {
    if host == "*" {
        return Some(Host::Any);
    }
    if let Some((address, bits)) = host.split_once('/') {
        let (address, bits) = (parse_ip(address)?, bits.parse::<u8>().ok()?);
        return (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(Host::Block(address, bits));
    }
    if let Some(address) = parse_ip(host) {
        return Some(Host::Block(address, if address.is_ipv4() { 32 } else { 128 }));
    }
    let (name, below) = host.strip_prefix("*.").map_or((host, false), |name| (name, true));
    let valid = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let name = name.to_ascii_lowercase();
    valid.then(|| if below { Host::Below(format!(".{name}")) } else { Host::Name(name) })
}

fn parse_ip(text: &str) -> Option<IpAddr> {
    text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text).parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

fn default_port(scheme: &Scheme) -> u16 {
    if *scheme == Scheme::HTTPS { 443 } else { 80 }
}

fn in_block(address: IpAddr, block: IpAddr, bits: u8) -> bool {
    let shared = |left: u128, right: u128, width: u32| (left ^ right).checked_shr(width - u32::from(bits)).unwrap_or(0) == 0;
    match (address, block) {
        (IpAddr::V4(address), IpAddr::V4(block)) => shared(u128::from(address.to_bits()), u128::from(block.to_bits()), 32),
        (IpAddr::V6(address), IpAddr::V6(block)) => shared(address.to_bits(), block.to_bits(), 128),
        _ => false,
    }
}

/// Addresses that are not on the public internet: by RFC 6890 and its successors.
fn is_internal(address: IpAddr) -> bool {
    const BLOCKS: [(&str, u8); 24] = [
        ("0.0.0.0", 8),
        ("10.0.0.0", 8),
        ("100.64.0.0", 10),
        ("127.0.0.0", 8),
        ("169.254.0.0", 16),
        ("172.16.0.0", 12),
        ("192.0.0.0", 24),
        ("192.0.2.0", 24),
        ("192.168.0.0", 16),
        ("198.18.0.0", 15),
        ("198.51.100.0", 24),
        ("203.0.113.0", 24),
        ("224.0.0.0", 4),
        ("240.0.0.0", 4),
        ("::", 127),
        ("64:ff9b::", 96),
        ("64:ff9b:1::", 48),
        ("100::", 64),
        ("2001:db8::", 32),
        ("2002::", 16),
        ("fc00::", 7),
        ("fe80::", 10),
        ("fec0::", 10),
        ("ff00::", 8),
    ];
    static PARSED: LazyLock<Vec<(IpAddr, u8)>> =
        LazyLock::new(|| BLOCKS.iter().map(|(block, bits)| (block.parse().expect("written above"), *bits)).collect());
    PARSED.iter().any(|(block, bits)| in_block(address, *block, *bits))
}

/// Judges and sends the outgoing requests of one guest.
pub(crate) struct Outbound(pub(crate) Arc<AllowList>);

type Sent = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>), Error>;

impl WasiHttpHooks for Outbound {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        DEFAULT_FORBIDDEN_HEADERS.contains(name)
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        static FILTER: LazyLock<ForbiddenHeaderFilter> = LazyLock::new(|| Arc::new(|name| DEFAULT_FORBIDDEN_HEADERS.contains(name)));
        Arc::clone(&FILTER)
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        Box::new(send(Arc::clone(&self.0), request, Waits::new(options.unwrap_or_default())))
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK_BYTES_MAX
    }
}

/// How long each step may take: what the guest asked for, within our bounds. The deadline of the invocation ends
/// them all with the guest.
struct Waits {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Waits {
    fn new(options: RequestOptions) -> Self {
        let within = |asked: Option<Duration>, bound: Duration| asked.map_or(bound, |asked| asked.min(bound));
        Self {
            connect: within(options.connect_timeout, OUTGOING_CONNECT_TIMEOUT),
            first_byte: within(options.first_byte_timeout, OUTGOING_FIRST_BYTE_TIMEOUT),
            between_bytes: within(options.between_bytes_timeout, OUTGOING_BETWEEN_BYTES_TIMEOUT),
        }
    }
}

trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

async fn send(allow: Arc<AllowList>, mut request: Request<WasiBody>, waits: Waits) -> Sent {
    let connect_by = Instant::now() + waits.connect;
    let turn = timeout_at(connect_by, Arc::clone(&allow.turns).acquire_owned()).await.map_err(|_| Error::ConnectionLimitReached)?;
    let turn = turn.expect("the semaphore is never closed");
    let connection = timeout_at(connect_by, connect(&allow, request.uri())).await.map_err(|_| Error::ConnectionTimeout)??;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
    // The connection is driven beside the request, and on after it for the response body.
    let mut connection = AbortOnDrop(tokio::spawn(connection));
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    let response = timeout(waits.first_byte, sender.send_request(request)).await.map_err(|_| Error::ConnectionReadTimeout)??;
    let response = response.map(|body| Paced::new(body, waits.between_bytes, turn).boxed_unsync());
    let io = async move {
        match (&mut connection.0).await {
            Ok(result) => result.map_err(Error::from),
            Err(_cancelled) => Err(Error::ConnectionTerminated),
        }
    };
    Ok((response, Box::new(io)))
}

async fn connect(allow: &AllowList, uri: &Uri) -> Result<Box<dyn Connection>, Error> {
    let scheme = uri.scheme().cloned().unwrap_or(Scheme::HTTPS);
    let host = uri.host().ok_or(Error::HttpRequestUriInvalid)?;
    let port = uri.port_u16().unwrap_or_else(|| default_port(&scheme));
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(Error::HttpRequestUriInvalid);
    }
    if !allow.allows_name(&scheme, host, port) {
        return Err(Error::HttpRequestDenied);
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let resolved = look_up(bare.to_owned(), port).await?;
    let allowed: Vec<SocketAddr> = resolved.iter().copied().filter(|address| allow.allows_address(&scheme, *address)).collect();
    if allowed.is_empty() {
        return Err(if resolved.is_empty() { Error::DestinationNotFound } else { Error::DestinationIpProhibited });
    }
    let stream = TcpStream::connect(allowed.as_slice()).await.map_err(Error::Connect)?;
    if scheme != Scheme::HTTPS {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(bare.to_owned()).map_err(|_| Error::HttpRequestUriInvalid)?;
    Ok(Box::new(tls()?.connect(name, stream).await.map_err(Error::Tls)?))
}

/// The addresses of a name. Nothing can interrupt a lookup that blocks, so it keeps its turn until it ends.
async fn look_up(host: String, port: u16) -> Result<Vec<SocketAddr>, Error> {
    static TURNS: Semaphore = Semaphore::const_new(OUTGOING_LOOKUPS_MAX);
    if let Some(address) = parse_ip(&host) {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let turn = TURNS.acquire().await.expect("the semaphore is never closed");
    let lookup = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        (host.as_str(), port).to_socket_addrs().map(Iterator::collect)
    });
    let failed = |why: String| Error::DnsError { rcode: Some(why), info_code: None };
    lookup.await.map_err(|error| failed(error.to_string()))?.map_err(|error| failed(error.to_string()))
}

fn tls() -> Result<TlsConnector, Error> {
    static CONFIG: LazyLock<Result<Arc<ClientConfig>, String>> = LazyLock::new(|| {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
    });
    CONFIG.as_ref().map(|config| TlsConnector::from(Arc::clone(config))).map_err(|why| Error::InternalError(Some(why.clone())))
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A response body that fails when its sender pauses for too long. The call has its turn until the body is dropped.
struct Paced {
    body: hyper::body::Incoming,
    pause_max: Duration,
    pause: Pin<Box<Sleep>>,
    _turn: OwnedSemaphorePermit,
}

impl Paced {
    fn new(body: hyper::body::Incoming, pause_max: Duration, turn: OwnedSemaphorePermit) -> Self {
        Self { body, pause_max, pause: Box::pin(tokio::time::sleep(pause_max)), _turn: turn }
    }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                let next = Instant::now() + self.pause_max;
                self.pause.as_mut().reset(next);
                Poll::Ready(frame.map(|frame| frame.map_err(Error::from)))
            }
            Poll::Pending => self.pause.as_mut().poll(cx).map(|()| Some(Err(Error::ConnectionReadTimeout))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(patterns: &[&str]) -> AllowList {
        AllowList::parse(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("valid")
    }

    #[test]
    fn a_name_is_allowed_by_scheme_host_and_port() {
        let allow = list(&["https://example.com", "http://*.shop.test:8000..8010", "*://10.1.2.3:*"]);
        for (scheme, host, port, expected) in [
            (Scheme::HTTPS, "example.com", 443, true),
            (Scheme::HTTPS, "EXAMPLE.com", 443, true),
            (Scheme::HTTPS, "example.com", 444, false),
            (Scheme::HTTP, "example.com", 443, false),
            (Scheme::HTTPS, "sub.example.com", 443, false),
            (Scheme::HTTPS, "evilexample.com", 443, false),
            (Scheme::HTTP, "a.b.shop.test", 8009, true),
            (Scheme::HTTP, "a.shop.test", 8010, false),
            (Scheme::HTTP, "shop.test", 8000, false),
            (Scheme::HTTP, "evilshop.test", 8000, false),
            (Scheme::HTTP, "10.1.2.3", 9, true),
            (Scheme::HTTP, "10.1.2.4", 9, false),
        ] {
            assert_eq!(allow.allows_name(&scheme, host, port), expected, "{scheme}://{host}:{port}");
        }
        assert!(!list(&[]).allows_name(&Scheme::HTTPS, "example.com", 443));
    }

    #[test]
    fn an_internal_address_needs_a_pattern_of_its_own() {
        let any = list(&["*://*:*"]);
        for address in [
            "127.0.0.1:80",
            "10.0.0.1:80",
            "169.254.169.254:80",
            "[::1]:80",
            "[fe80::1]:80",
            "[::ffff:127.0.0.1]:80",
            "[fd00::1]:80",
            "0.0.0.0:80",
        ] {
            let address = address.parse().expect("address");
            assert!(!any.allows_address(&Scheme::HTTP, address), "{address}");
        }
        for address in ["93.184.216.34:80", "[2606:2800:220:1::1]:80"] {
            assert!(any.allows_address(&Scheme::HTTP, address.parse().expect("address")), "{address}");
        }
        let block = list(&["http://10.0.0.0/8:*"]);
        assert!(block.allows_address(&Scheme::HTTP, "10.200.0.1:80".parse().expect("address")));
        assert!(!block.allows_address(&Scheme::HTTP, "127.0.0.1:80".parse().expect("address")));
        assert!(list(&["http://localhost:*"]).allows_address(&Scheme::HTTP, "[::1]:80".parse().expect("address")));
    }

    #[test]
    fn a_pattern_that_is_none_is_refused_with_an_example() {
        for bad in [
            "example.com",
            "ftp://example.com",
            "http://",
            "http://a b",
            "http://example.com:x",
            "http://10.0.0.0/33",
            "http://*example.com",
        ] {
            let error = AllowList::parse(&[bad.to_owned()]).expect_err(bad);
            assert!(error.to_string().contains("https://example.com"), "{error}");
        }
    }
}
