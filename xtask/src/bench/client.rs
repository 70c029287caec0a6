//! A small HTTP/1.1 client: one request, one connection, the whole answer. Enough for a server on this machine.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// Longest wait for a part of an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection that is there before the clock runs.
pub(crate) struct Connection(TcpStream);

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("failed to connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// Sends a request and reads its answer, which must be a 2xx. Returns the body, as it came over the wire.
    pub(crate) fn send(mut self, method: &str, path: &str, content_type: &str, body: &[u8]) -> Result<String> {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
        );
        let failed = || format!("failed to send `{method} {path}`");
        self.0.write_all(&[head.as_bytes(), body].concat()).with_context(failed)?;
        let mut answer = Vec::new();
        self.0.read_to_end(&mut answer).with_context(failed)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").with_context(failed)?;
        ensure!(is_success(head), "{}: {}\n{body}", failed(), head.lines().next().unwrap_or_default());
        Ok(body.to_owned())
    }
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Result<String> {
    Connection::open(address)?.send("GET", path, "text/plain", b"")
}

fn is_success(head: &str) -> bool {
    head.strip_prefix("HTTP/1.1 2").is_some_and(|rest| rest.as_bytes().first().is_some_and(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_hundreds_are_success() {
        assert!(is_success("HTTP/1.1 200 OK\r\nserver: x") && is_success("HTTP/1.1 204 No Content"));
        assert!(!is_success("HTTP/1.1 503 Service Unavailable") && !is_success("") && !is_success("HTTP/1.1 2"));
    }
}
