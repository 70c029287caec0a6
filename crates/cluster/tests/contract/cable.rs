//! The cable between one member and its broker: it can be cut, which both ends see, or go silent, which neither does.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    Cut,
    Silent,
}

pub(crate) struct Cable {
    port: u16,
    state: Arc<watch::Sender<State>>,
    _accepting: AbortOnDropHandle<()>,
}

impl Cable {
    pub(crate) async fn to(server_port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let state = Arc::new(watch::Sender::new(State::Whole));
        let accepting = tokio::spawn(accept(listener, server_port, Arc::clone(&state)));
        Self { port, state, _accepting: AbortOnDropHandle::new(accepting) }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Carries nothing, and breaks no connection.
    pub(crate) fn silence(&self) {
        self.state.send_replace(State::Silent);
    }

    pub(crate) fn mend(&self) {
        self.state.send_replace(State::Whole);
    }
}

async fn accept(listener: TcpListener, server_port: u16, state: Arc<watch::Sender<State>>) {
    loop {
        let Ok((member, _)) = listener.accept().await else { continue };
        if *state.borrow() != State::Whole {
            continue;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)).await else { continue };
        for end in [&member, &server] {
            end.set_nodelay(true).expect("it is a connection");
        }
        let mut ended = state.subscribe();
        let (from_member, to_member) = member.into_split();
        let (from_server, to_server) = server.into_split();
        let (up, down) = (carry(from_member, to_server, state.subscribe()), carry(from_server, to_member, state.subscribe()));
        tokio::spawn(async move {
            tokio::select! {
                () = up => {}
                () = down => {}
                // Both ends are dropped, which closes them.
                _ = ended.wait_for(|state| *state == State::Cut) => {}
            }
        });
    }
}

async fn carry(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if state.wait_for(|state| *state != State::Silent).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
