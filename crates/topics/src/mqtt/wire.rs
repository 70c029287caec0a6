//! One connection as packets: what has come and is not a whole packet yet, and what is on its way out. Both have bounds.

use std::{future::pending, io, sync::Arc};

use bytes::{Buf, BytesMut};
use edgeward_model::limits::{CLIENT_STALL_TIMEOUT, MQTT_PACKET_TIMEOUT, MQTT_SENDING_BYTES_MAX};
use rmqtt_codec::v5::Packet;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::codec::{Codec, Fault};

/// Up to this size a packet needs no turn, in bytes.
const SMALL_BYTES: usize = 16 * 1024;

/// A connection.
pub(super) struct Wire<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    pub(super) codec: Codec,
    input: BytesMut,
    output: BytesMut,
    is_flushed: bool,
    /// Whether the last read filled what there was.
    reads_much: bool,
    /// Since when a part of a packet has been here.
    partial_since: Option<Instant>,
    written_at: Instant,
    /// The turns of large packets, over all connections, and that of the one that comes.
    turns: Arc<Semaphore>,
    turn: Option<OwnedSemaphorePermit>,
    /// Bytes of the packet that waits for its turn.
    large: Option<u32>,
}

impl<S: AsyncRead + AsyncWrite> Wire<S> {
    pub(super) fn new(stream: S, turns: Arc<Semaphore>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader,
            writer,
            codec: Codec::new(),
            input: BytesMut::new(),
            output: BytesMut::new(),
            is_flushed: true,
            reads_much: false,
            partial_since: None,
            written_at: Instant::now(),
            turns,
            turn: None,
            large: None,
        }
    }

    /// The next packet, when it is here as a whole.
    pub(super) fn next_packet(&mut self) -> Result<Option<Packet>, Fault> {
        let bytes = self.codec.packet_bytes(&self.input)?;
        let Some(bytes) = bytes.filter(|bytes| *bytes <= self.input.len()) else {
            if !self.input.is_empty() {
                self.partial_since.get_or_insert_with(Instant::now);
            }
            let is_large = bytes.filter(|bytes| *bytes > SMALL_BYTES && self.turn.is_none());
            self.large = is_large.map(|bytes| u32::try_from(bytes).expect("a packet has a bound"));
            return Ok(None);
        };
        self.partial_since = None;
        let packet = self.input.split_to(bytes);
        let packet = self.codec.decode(packet)?;
        self.turn = None;
        Ok(Some(packet))
    }

    /// Sends a packet with what is sent next; returns false when it is too large for the client.
    pub(super) fn send(&mut self, packet: Packet) -> bool {
        if self.output.is_empty() {
            self.written_at = Instant::now();
        }
        self.codec.encode(packet, &mut self.output)
    }

    /// Whether there is room for more to send.
    pub(super) fn has_room(&self) -> bool {
        self.output.len() < MQTT_SENDING_BYTES_MAX
    }

    /// When it has been too long that the client sent the rest of a packet, or took anything.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let partial = self.partial_since.map(|at| at + MQTT_PACKET_TIMEOUT);
        let stalled = (!self.output.is_empty()).then(|| self.written_at + CLIENT_STALL_TIMEOUT);
        partial.into_iter().chain(stalled).min()
    }

    /// Writes, or reads when it may, a part. Returns false at the end of what the client sends. May be dropped and called again.
    pub(super) async fn advance(&mut self, may_read: bool) -> io::Result<bool> {
        let has_output = !self.output.is_empty();
        if may_read && self.large.is_none() {
            self.input.reserve(if self.reads_much { SMALL_BYTES } else { 1024 });
        }
        tokio::select! {
            biased;
            written = write(&mut self.writer, &self.output), if has_output || !self.is_flushed => {
                self.output.advance(written?);
                self.written_at = Instant::now();
                self.is_flushed = !has_output;
                if self.is_flushed && self.output.capacity() > SMALL_BYTES {
                    // A burst leaves no memory behind.
                    self.output = BytesMut::new();
                }
                Ok(true)
            }
            turn = take_turn(&self.turns, self.large), if may_read && self.large.is_some() => {
                self.turn = turn;
                self.large = None;
                Ok(true)
            }
            read = self.reader.read_buf(&mut self.input), if may_read && self.large.is_none() => {
                let read = read?;
                self.reads_much = self.input.len() == self.input.capacity();
                Ok(read > 0)
            }
            else => pending().await,
        }
    }

    /// Waits for the first packet.
    pub(super) async fn first_packet(&mut self) -> Result<Option<Packet>, Fault> {
        loop {
            if let Some(packet) = self.next_packet()? {
                return Ok(Some(packet));
            }
            if !matches!(self.advance(true).await, Ok(true)) {
                return Ok(None);
            }
        }
    }

    /// Sends what is left, and closes when the client has or when that takes too long.
    pub(super) async fn close(mut self) {
        let closing = async {
            while !self.output.is_empty() {
                let written = write(&mut self.writer, &self.output).await?;
                self.output.advance(written);
            }
            self.writer.shutdown().await?;
            // Would we close while it still sends, our last words could be lost on their way.
            self.input.clear();
            while self.reader.read_buf(&mut self.input).await? > 0 {
                self.input.clear();
            }
            io::Result::Ok(())
        };
        // Whether the client is there to take it is not known.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
    }
}

/// Longest time for the last words.
const CLOSE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// Writes a part of the bytes, or sees to it that all that was written before is sent.
async fn write(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<usize> {
    if bytes.is_empty() {
        return writer.flush().await.map(|()| 0);
    }
    match writer.write(bytes).await? {
        0 => Err(io::ErrorKind::WriteZero.into()),
        written => Ok(written),
    }
}

async fn take_turn(turns: &Arc<Semaphore>, bytes: Option<u32>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(turns).acquire_many_owned(bytes.unwrap_or(0)).await.ok()
}
