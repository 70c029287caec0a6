//! One connection as packets: what has come and is not a whole packet yet, and what is on its way out. Both have bounds.

use std::{future::pending, io, sync::Arc};

use bytes::{Buf, BufMut, BytesMut};
use edgeward_model::limits::{CLIENT_STALL_TIMEOUT, MQTT_PACKET_TIMEOUT, MQTT_SENDING_BYTES_MAX};
use rmqtt_codec::v5::Packet;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use super::{
    codec::{Codec, Fault},
    room::Room,
};

/// Up to this size a packet needs no turn, in bytes.
const SMALL_BYTES: usize = 16 * 1024;

/// A connection.
pub(super) struct Wire<S> {
    reader: ReadHalf<S>,
    writer: WriteHalf<S>,
    pub(super) codec: Codec,
    input: BytesMut,
    output: BytesMut,
    room: Room,
    is_flushed: bool,
    /// Whether the last read filled what there was.
    reads_much: bool,
    /// Since when a part of a packet has been here.
    partial_since: Option<Instant>,
    written_at: Instant,
    /// The turns of large packets, over all connections, and that of the one that comes.
    turns: Arc<Semaphore>,
    turn: Option<OwnedSemaphorePermit>,
    /// Bytes of the large packet that comes, or waits for its turn.
    large: Option<usize>,
}

impl<S: AsyncRead + AsyncWrite> Wire<S> {
    pub(super) fn new(stream: S, turns: Arc<Semaphore>, room: Room) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self {
            reader,
            writer,
            codec: Codec::new(),
            input: BytesMut::new(),
            output: BytesMut::new(),
            room,
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
            self.large = bytes.filter(|bytes| *bytes > SMALL_BYTES);
            return Ok(None);
        };
        self.partial_since = None;
        let packet = self.input.split_to(bytes);
        if self.large.is_some() {
            // Nothing of the next packet was read, and the room for this one goes with it.
            self.input = BytesMut::from(&self.input[..]);
        }
        (self.large, self.turn) = (None, None);
        Ok(Some(self.codec.decode(packet)?))
    }

    /// Sends a packet with what is sent next; returns false when it is too large for the client.
    pub(super) fn send(&mut self, packet: Packet) -> bool {
        if self.output.is_empty() {
            self.written_at = Instant::now();
        }
        let is_sent = self.codec.encode(packet, &mut self.output);
        // What is short, or longer than was thought, is sent all the same; without room nothing follows it.
        self.room.grow(self.output.len());
        is_sent
    }

    /// Whether there is room for more to send.
    pub(super) fn has_room(&self) -> bool {
        self.output.len() < MQTT_SENDING_BYTES_MAX && self.output.len() <= self.room.bytes()
    }

    /// Whether there is room for so many bytes more. When there is none, [`advance`](Self::advance) returns as soon as there is.
    pub(super) fn make_room(&mut self, bytes: usize) -> bool {
        // What it has and does not need would wait with it while others wait for that.
        self.room.shrink(self.output.len());
        self.room.grow_or_ask(self.output.len() + bytes)
    }

    /// Gives back the room for what is not sent after all.
    pub(super) fn give_up_room(&mut self) {
        self.room.give_up(self.output.len());
    }

    /// This much is written.
    fn written(&mut self, bytes: usize) {
        self.output.advance(bytes);
        self.written_at = Instant::now();
        // A burst leaves no memory behind. Where only half of it is left, that is copied, and the room for the rest goes to others.
        if self.output.is_empty() {
            self.output = BytesMut::new();
        } else if self.room.has_part() && self.output.len() <= self.room.bytes() / 2 {
            self.output = BytesMut::from(&self.output[..]);
        } else {
            return;
        }
        self.room.shrink(self.output.len());
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
        let waits = self.large.filter(|_| self.turn.is_none());
        // Not a byte more: what is read has its turn, or is small.
        let room = match self.large {
            Some(bytes) => bytes - self.input.len(),
            None if self.reads_much => SMALL_BYTES,
            None => 1024,
        };
        if may_read && waits.is_none() {
            self.input.reserve(room);
        }
        let mut input = (&mut self.input).limit(room);
        tokio::select! {
            written = write(&mut self.writer, &self.output), if has_output || !self.is_flushed => {
                self.written(written?);
                self.is_flushed = !has_output;
                Ok(true)
            }
            () = self.room.asked() => Ok(true),
            turn = take_turn(&self.turns, waits), if may_read && waits.is_some() => {
                self.turn = turn;
                Ok(true)
            }
            read = self.reader.read_buf(&mut input), if may_read && waits.is_none() => {
                let read = read?;
                self.reads_much = read == room;
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

async fn take_turn(turns: &Arc<Semaphore>, bytes: Option<usize>) -> Option<OwnedSemaphorePermit> {
    let bytes = u32::try_from(bytes.unwrap_or(0)).expect("a packet has a bound");
    Arc::clone(turns).acquire_many_owned(bytes).await.ok()
}

#[cfg(test)]
mod tests {
    use edgeward_model::limits::MQTT_PACKET_BYTES_MAX;
    use rmqtt_codec::{
        types::{Publish, QoS},
        v5,
    };
    use tokio_util::codec::Encoder;

    use super::*;

    fn publish(bytes: usize) -> Packet {
        let publish = Publish {
            dup: false,
            retain: false,
            qos: QoS::AtMostOnce,
            topic: "a".into(),
            packet_id: None,
            payload: vec![7; bytes].into(),
            properties: Some(v5::PublishProperties::default()),
        };
        Packet::Publish(Box::new(publish))
    }

    async fn next<S: AsyncRead + AsyncWrite>(wire: &mut Wire<S>) -> Packet {
        loop {
            if let Some(packet) = wire.next_packet().expect("valid") {
                return packet;
            }
            assert!(wire.advance(true).await.expect("read"), "not the end");
        }
    }

    #[tokio::test]
    async fn a_large_packet_has_its_turn_and_leaves_no_memory_behind() {
        let (mut ours, theirs) = tokio::io::duplex(4 * MQTT_PACKET_BYTES_MAX);
        let turns = Arc::new(Semaphore::new(MQTT_PACKET_BYTES_MAX));
        let mut wire = Wire::new(theirs, Arc::clone(&turns), Room::new(Arc::new(Semaphore::new(0))));
        let mut output = BytesMut::new();
        let mut codec = v5::Codec::default();
        let connect = v5::Connect { client_id: "c".into(), clean_start: true, ..Default::default() };
        for packet in [connect.into(), publish(300_000), publish(10), publish(300_000), publish(10)] {
            codec.encode(packet, &mut output).expect("valid");
        }
        ours.write_all(&output).await.expect("sent");
        assert!(matches!(next(&mut wire).await, Packet::Connect(_)));
        assert!(matches!(next(&mut wire).await, Packet::Publish(publish) if publish.payload.len() == 300_000));
        assert!(wire.input.capacity() <= SMALL_BYTES && turns.available_permits() == MQTT_PACKET_BYTES_MAX);
        assert!(matches!(next(&mut wire).await, Packet::Publish(publish) if publish.payload.len() == 10));
        let taken = Arc::clone(&turns).acquire_many_owned(u32::try_from(MQTT_PACKET_BYTES_MAX).expect("small")).await.expect("open");
        let waits = tokio::time::timeout(std::time::Duration::from_millis(50), next(&mut wire)).await;
        assert!(waits.is_err() && wire.input.len() <= 2 * SMALL_BYTES, "{} bytes have no turn", wire.input.len());
        drop(taken);
        assert!(matches!(next(&mut wire).await, Packet::Publish(publish) if publish.payload.len() == 300_000));
        assert!(matches!(next(&mut wire).await, Packet::Publish(publish) if publish.payload.len() == 10));
    }
}
