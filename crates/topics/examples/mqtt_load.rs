//! Measures any broker of MQTT 3.1.1: `mqtt_load ADDRESS PUBLISHERS MESSAGES QOS WINDOW BYTES [SUBSCRIBERS]`.
//!
//! Each publisher sends so many messages to a topic of its own, with at most `WINDOW` that are not acknowledged. With subscribers, each
//! gets all messages, and the time ends with the last that comes: when that was all, or none has come for a second.

use std::{
    error::Error,
    num::NonZeroU16,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use rmqtt_codec::{
    types::{Protocol, Publish, QoS},
    v3::{Codec, Connect, Packet},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tokio_util::codec::{Decoder, Encoder};

type Failed = Box<dyn Error + Send + Sync>;

struct Client {
    stream: TcpStream,
    codec: Codec,
    input: BytesMut,
    output: BytesMut,
}

impl Client {
    async fn connect(address: &str, id: String) -> Result<Self, Failed> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream, codec: Codec::default(), input: BytesMut::with_capacity(64 * 1024), output: BytesMut::new() };
        let connect = Connect { protocol: Protocol(4), clean_session: true, keep_alive: 0, client_id: id.into(), ..Connect::default() };
        client.send(connect.into())?;
        client.flush().await?;
        match client.next().await? {
            Packet::ConnectAck(_) => Ok(client),
            other => Err(format!("{other:?}").into()),
        }
    }

    fn send(&mut self, packet: Packet) -> Result<(), Failed> {
        self.codec.encode(packet, &mut self.output).map_err(|error| error.to_string().into())
    }

    async fn flush(&mut self) -> Result<(), Failed> {
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        Ok(())
    }

    fn try_next(&mut self) -> Result<Option<Packet>, Failed> {
        Ok(self.codec.decode(&mut self.input).map_err(|error| error.to_string())?.map(|(packet, _)| packet))
    }

    async fn next(&mut self) -> Result<Packet, Failed> {
        loop {
            if let Some(packet) = self.try_next()? {
                return Ok(packet);
            }
            self.flush().await?;
            self.input.reserve(64 * 1024);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err("the broker closed the connection".into());
            }
        }
    }
}

/// What a client has when it is done.
struct Ended {
    /// Messages that came to it.
    got: usize,
    /// When the last one came, or was taken.
    at: Instant,
}

#[derive(Clone)]
struct Load {
    address: String,
    publishers: usize,
    messages: usize,
    qos: QoS,
    window: usize,
    payload: Bytes,
}

async fn publish(load: Load, number: usize) -> Result<Ended, Failed> {
    let mut client = Client::connect(&load.address, format!("publisher-{number}")).await?;
    let (mut sent, mut done, mut packet) = (0, 0, 0_u16);
    while done < load.messages {
        while sent < load.messages && sent - done < load.window {
            packet = packet.checked_add(1).unwrap_or(1);
            let packet_id = NonZeroU16::new(packet).filter(|_| load.qos != QoS::AtMostOnce);
            let topic = format!("load/{number}").into();
            let publish =
                Publish { dup: false, retain: false, qos: load.qos, topic, packet_id, payload: load.payload.clone(), properties: None };
            client.send(publish.into())?;
            sent += 1;
        }
        if load.qos == QoS::AtMostOnce {
            client.flush().await?;
            done = sent;
        } else {
            client.next().await?;
            done += 1;
            while client.try_next()?.is_some() {
                done += 1;
            }
        }
    }
    // What was sent is read by the broker before this is answered.
    client.send(Packet::PingRequest)?;
    while client.next().await? != Packet::PingResponse {}
    Ok(Ended { got: 0, at: Instant::now() })
}

/// Ends when all messages have come, or none has for a second.
async fn follow(mut client: Client, count: usize) -> Result<Ended, Failed> {
    let mut ended = Ended { got: 0, at: Instant::now() };
    while ended.got < count {
        let patience = Duration::from_secs(if ended.got == 0 { 60 } else { 1 });
        let Ok(next) = timeout(patience, client.next()).await else { break };
        match next? {
            Packet::Publish(publish) => {
                if let Some(packet_id) = publish.packet_id {
                    client.send(Packet::PublishAck { packet_id })?;
                }
            }
            other => return Err(format!("{other:?}").into()),
        }
        ended = Ended { got: ended.got + 1, at: Instant::now() };
    }
    Ok(ended)
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, numbers @ ..] = &arguments[..] else {
        return Err("say ADDRESS PUBLISHERS MESSAGES QOS WINDOW BYTES [SUBSCRIBERS]".into());
    };
    let numbers = numbers.iter().map(|text| text.parse()).collect::<Result<Vec<usize>, _>>()?;
    let &[publishers, messages, qos, window, bytes, ref rest @ ..] = &numbers[..] else { return Err("there are too few numbers".into()) };
    let qos = QoS::try_from(u8::try_from(qos)?).map_err(|error| error.to_string())?;
    let load = Load { address: address.clone(), publishers, messages, qos, window, payload: vec![b'x'; bytes].into() };
    let mut tasks = JoinSet::new();
    for number in 0..rest.first().copied().unwrap_or(0) {
        let mut client = Client::connect(address, format!("subscriber-{number}")).await?;
        client.send(Packet::Subscribe { packet_id: NonZeroU16::MIN, topic_filters: vec![("load/#".into(), qos)] })?;
        client.next().await?;
        tasks.spawn(follow(client, publishers * messages));
    }
    let begun = Instant::now();
    for number in 0..load.publishers {
        tasks.spawn(publish(load.clone(), number));
    }
    let (mut got, mut end) = (0, begun);
    while let Some(done) = tasks.join_next().await {
        let ended = done??;
        (got, end) = (got + ended.got, end.max(ended.at));
    }
    let seconds = (end - begun).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate is for people")]
    let rate = (publishers * messages) as f64 / seconds;
    println!(
        "{publishers} publishers, {messages} messages each, QoS {}, window {window}, {bytes} bytes: {rate:.0} messages/s; {got} came",
        load.qos.value()
    );
    Ok(())
}
