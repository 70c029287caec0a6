//! Server-sent events, read from chunks that end anywhere: the part of the HTML standard that the API uses.

use std::{collections::VecDeque, mem, time::Duration};

use tokio::time::timeout;

use super::{Answer, Error};

/// Largest event, in bytes. The payload of a message is at most 512 KiB, its JSON at most six times that.
const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its payload; several `data` lines are joined by a line feed.
    pub(crate) data: String,
}

/// The events of an answer, in their order.
#[derive(Debug)]
pub(crate) struct Events {
    answer: Answer,
    parser: Parser,
    ready: VecDeque<Event>,
    silence_max: Option<Duration>,
}

impl Events {
    pub(super) fn new(answer: Answer) -> Self {
        Self { answer, parser: Parser::default(), ready: VecDeque::new(), silence_max: None }
    }

    /// Ends with an error when nothing comes for so long, not even what keeps the connection alive.
    pub(crate) fn ending_after(self, silence_max: Duration) -> Self {
        Self { silence_max: Some(silence_max), ..self }
    }

    /// The next event, however long it takes; `None` when the node ends the answer.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let chunk = match self.silence_max {
                None => self.answer.chunk().await,
                Some(waited) => timeout(waited, self.answer.chunk())
                    .await
                    .unwrap_or_else(|_| Err(Error::Silent { server: self.answer.server.clone(), waited })),
            };
            let Some(chunk) = chunk? else { return Ok(None) };
            self.ready.extend(self.parser.push(&chunk));
            if self.parser.held_bytes() > EVENT_BYTES_MAX {
                return Err(self.answer.foreign(format!("an event is larger than {EVENT_BYTES_MAX} bytes")));
            }
        }
    }
}

/// The payloads of the events of a body that is whole.
pub(crate) fn events_in(body: &[u8]) -> Vec<String> {
    Parser::default().push(body).into_iter().map(|event| event.data).collect()
}

#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    data: Option<String>,
    after_carriage_return: bool,
}

impl Parser {
    /// Takes the next chunk and gives the events that it completes.
    fn push(&mut self, chunk: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in chunk {
            let after_carriage_return = mem::replace(&mut self.after_carriage_return, byte == b'\r');
            match byte {
                b'\n' if after_carriage_return => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ => self.line.push(byte),
            }
        }
        events
    }

    /// Bytes of the event that is not complete yet.
    fn held_bytes(&self) -> usize {
        self.line.len() + self.data.as_ref().map_or(0, String::len)
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = mem::take(&mut self.line);
        if line.is_empty() {
            return self.data.take().map(|data| Event { data });
        }
        let line = String::from_utf8_lossy(&line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        if field == "data" {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str =
        ": kept alive\r\n\r\nid: 1\ndata: {\"text\":\"21 °C\"}\n\nevent: x\rdata:a\rdata:  b\r\rdata\r\n\r\nid: 2\n\ndata: unfinished";

    fn events(parts: &[&[u8]]) -> Vec<String> {
        let mut parser = Parser::default();
        parts.iter().flat_map(|part| parser.push(part)).map(|event| event.data).collect()
    }

    #[test]
    fn events_are_the_same_wherever_the_stream_is_split() {
        let whole = events(&[STREAM.as_bytes()]);
        assert_eq!(whole, [r#"{"text":"21 °C"}"#, "a\n b", ""]);
        for at in 0..STREAM.len() {
            let (head, tail) = STREAM.as_bytes().split_at(at);
            assert_eq!(events(&[head, tail]), whole, "split at {at}");
        }
        let bytes: Vec<&[u8]> = STREAM.as_bytes().chunks(1).collect();
        assert_eq!(events(&bytes), whole);
    }

    #[test]
    fn what_is_held_is_counted_and_given_back_with_the_event() {
        let mut parser = Parser::default();
        parser.push(b"data: abc\nda");
        assert_eq!(parser.held_bytes(), 5);
        parser.push(b"ta: d\n\n");
        assert_eq!(parser.held_bytes(), 0);
    }
}
