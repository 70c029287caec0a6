//! One question over a connection of its own, for who has no connection yet or may not use it.

use std::{error::Error, io, time::Duration};

use async_nats::{Client, ConnectError, ConnectErrorKind, Request, RequestErrorKind, rustls};
use bytes::Bytes;
use edgeward_model::{
    EdgeError, ErrorKind,
    limits::{BROKER_CONNECT_TIMEOUT, SEND_TIMEOUT},
};
use tokio::time::timeout;

use crate::{
    message::{Headers, Message},
    nats::{
        Credentials,
        options::{self, Tls},
        wire,
    },
    subject::{Subject, node_token},
};

/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time of all of it.
const TIMEOUT: Duration = BROKER_CONNECT_TIMEOUT.saturating_mul(2).saturating_add(ANSWER_TIMEOUT);

/// Who asks, and where.
pub(super) struct Errand<'a> {
    pub(super) servers: &'a [String],
    pub(super) tls: &'a Tls,
    pub(super) credentials: Credentials,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// A broker refuses the credentials.
    Refused,
    /// Who answers at the address is not a server of the fleet, as far as its certificate says.
    Untrusted(EdgeError),
    /// No broker or no hub was reached, or did not answer.
    Unreached(EdgeError),
    /// The hub answered with an error.
    Answered(EdgeError),
}

impl Errand<'_> {
    /// Connects, asks, and goes.
    pub(super) async fn ask(self, question: &Subject, payload: Vec<u8>) -> Result<Message, Failed> {
        let asking = async {
            let client = self.connect(question).await?;
            ask(&client, question, payload.into()).await
        };
        timeout(TIMEOUT, asking).await.unwrap_or_else(|_elapsed| Err(unreached("no answer came in time")))
    }

    async fn connect(self, question: &Subject) -> Result<Client, Failed> {
        let servers = options::parse(self.servers).map_err(Failed::Unreached)?;
        let connecting = self
            .tls
            .apply(self.credentials.apply())
            .name(&question.node)
            .custom_inbox_prefix(format!("_INBOX_{}", node_token(&question.node)))
            .ignore_discovered_servers()
            .connection_timeout(BROKER_CONNECT_TIMEOUT)
            .request_timeout(Some(SEND_TIMEOUT))
            .reconnect_delay_callback(|_attempt| Duration::ZERO)
            .connect(servers);
        connecting.await.map_err(failed)
    }
}

fn failed(error: ConnectError) -> Failed {
    if error.kind() == ConnectErrorKind::AuthorizationViolation {
        return Failed::Refused;
    }
    let tls = error.source().and_then(|source| source.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>());
    let is_untrusted = matches!(tls, Some(rustls::Error::InvalidCertificate(_) | rustls::Error::General(_)));
    if is_untrusted {
        let message = "the NATS server does not show a certificate of the fleet that is valid for its address now";
        return Failed::Untrusted(EdgeError::new(ErrorKind::Forbidden, message).with_source(error));
    }
    Failed::Unreached(EdgeError::new(ErrorKind::Unavailable, "failed to connect to the NATS server").with_source(error))
}

async fn ask(client: &Client, question: &Subject, payload: Bytes) -> Result<Message, Failed> {
    let headers = wire::request_headers(&Headers::default(), ANSWER_TIMEOUT);
    let request = Request::new().headers(headers).payload(payload).timeout(Some(ANSWER_TIMEOUT));
    let answer = client.send_request(question.to_string(), request).await.map_err(|error| match error.kind() {
        RequestErrorKind::NoResponders => unreached("no hub is connected to the NATS server"),
        _ => Failed::Unreached(EdgeError::new(ErrorKind::Unavailable, "the hub did not answer").with_source(error)),
    })?;
    wire::read_answer(answer.headers.as_ref(), answer.payload).map_err(Failed::Answered)
}

fn unreached(why: &str) -> Failed {
    Failed::Unreached(EdgeError::new(ErrorKind::Unavailable, why))
}
