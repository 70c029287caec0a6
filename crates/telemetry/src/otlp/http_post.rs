//! One request to the receiver: a connection of its own, one bound of time over all, and what its answer means.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use edgeward_model::limits::OTLP_ANSWER_BYTES_MAX;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
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

use super::{
    options::{OtlpOptions, OtlpUrl},
    protobuf::{Field, Fields},
};

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was taken, but for so many spans or points.
    Taken { rejected: u64 },
    /// The receiver will never take it.
    Refused,
    /// It may take it later.
    Away { retry_after: Option<Duration> },
}

/// Sends one signal.
pub(super) struct Sender<'a> {
    url: &'a OtlpUrl,
    headers: &'a HeaderMap,
    tls: Option<&'a Arc<ClientConfig>>,
    timeout: Duration,
    signal: &'static str,
    /// Whether the last one failed, which is told once.
    is_failing: bool,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Answer {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Bytes,
}

impl<'a> Sender<'a> {
    pub(super) fn new(options: &'a OtlpOptions, url: &'a OtlpUrl, signal: &'static str) -> Self {
        Self { url, headers: &options.headers, tls: options.tls.as_ref(), timeout: options.timeout, signal, is_failing: false }
    }

    pub(super) async fn send(&mut self, body: Bytes) -> Outcome {
        let answered = timeout(self.timeout, self.post(body)).await;
        let answered = answered.unwrap_or_else(|_| Err(format!("no answer within {:?}", self.timeout).into()));
        let (outcome, why) = match answered {
            Ok(Answer { status, body, .. }) if status.is_success() => {
                let (rejected, why) = partial_success(&body);
                (Outcome::Taken { rejected }, (rejected > 0).then(|| format!("it rejected {rejected} of them: {why}")))
            }
            Ok(Answer { status, retry_after, .. }) if is_temporary(status) => {
                (Outcome::Away { retry_after }, Some(format!("it answered {status}")))
            }
            Ok(Answer { status, .. }) => (Outcome::Refused, Some(format!("it answered {status}"))),
            Err(error) => (Outcome::Away { retry_after: None }, Some(chain(&*error))),
        };
        self.tell(why);
        outcome
    }

    fn tell(&mut self, why: Option<String>) {
        let (signal, url) = (self.signal, self.url);
        match why {
            Some(why) if !std::mem::replace(&mut self.is_failing, true) => {
                tracing::warn!(signal, %url, why, "the receiver of OTLP does not take telemetry; it is told once that it does again");
            }
            Some(why) => tracing::debug!(signal, %url, why, "the receiver of OTLP does not take telemetry"),
            None if std::mem::take(&mut self.is_failing) => tracing::info!(signal, %url, "the receiver of OTLP takes telemetry again"),
            None => {}
        }
    }

    async fn post(&self, body: Bytes) -> Result<Answer, Failure> {
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // It ends with this call.
        let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
        let mut request = Request::post(&self.url.path)
            .header(header::HOST, &self.url.authority)
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::USER_AGENT, concat!("edgeward/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))?;
        request.headers_mut().extend(self.headers.clone());
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, OTLP_ANSWER_BYTES_MAX).collect().await?.to_bytes();
        Ok(Answer { status: head.status, retry_after: retry_after(head.headers.get(header::RETRY_AFTER)), body })
    }

    async fn connect(&self) -> Result<Box<dyn Stream>, Failure> {
        let stream = TcpStream::connect((self.url.host.as_str(), self.url.port)).await?;
        // Without it requests are only slower.
        let _ = stream.set_nodelay(true);
        if !self.url.is_tls {
            return Ok(Box::new(stream));
        }
        let tls = self.tls.ok_or("whom to trust is not said")?;
        let name = ServerName::try_from(self.url.host.clone())?;
        Ok(Box::new(TlsConnector::from(Arc::clone(tls)).connect(name, stream).await?))
    }
}

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Those that OTLP says may be tried again.
fn is_temporary(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 502 | 503 | 504)
}

/// In seconds; a date is as good as none.
fn retry_after(value: Option<&HeaderValue>) -> Option<Duration> {
    value?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// How many an `Export…ServiceResponse` says were rejected, and why.
fn partial_success(body: &[u8]) -> (u64, String) {
    let (mut rejected, mut why) = (0, String::new());
    for (field, value) in Fields(body) {
        let (1, Field::Bytes(partial)) = (field, value) else { continue };
        for part in Fields(partial) {
            match part {
                (1, Field::Number(count)) => rejected = count,
                (2, Field::Bytes(text)) => why = String::from_utf8_lossy(text).into_owned(),
                _ => {}
            }
        }
    }
    (rejected, why)
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_success_says_how_many_and_why() {
        assert_eq!(partial_success(b""), (0, String::new()));
        assert_eq!(partial_success(b"\x0a\x06\x08\x03\x12\x02no"), (3, "no".to_owned()));
        assert_eq!(partial_success(b"\x0a\x7f\x08"), (0, String::new()), "damaged");
    }
}
