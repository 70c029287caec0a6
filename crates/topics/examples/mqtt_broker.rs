//! A broker of MQTT on a log of topics: `cargo run -p edgeward-topics --example mqtt_broker -- FOLDER [ADDRESS]`.
//!
//! Anybody may do anything, except a client whose name is `guest`: it may subscribe to `public/#` and publish to `public/guest/#`.
//! Another name needs the password `secret`.

use std::{path::PathBuf, sync::Arc};

use edgeward_model::{EdgeError, ErrorKind};
use edgeward_topics::{
    LogOptions, TopicFilter, TopicLog,
    mqtt::{Broker, Identity, Login},
};
use tokio::net::TcpListener;

fn identify(login: &Login) -> Result<Identity, EdgeError> {
    let filters = |texts: &[&str]| texts.iter().map(TopicFilter::new).collect::<Result<Vec<_>, _>>();
    match (login.username.as_deref(), login.password.as_deref()) {
        (None, _) => Ok(Identity { user: String::new(), publish: filters(&["#"])?, subscribe: filters(&["#"])? }),
        (Some("guest"), _) => {
            Ok(Identity { user: "guest".to_owned(), publish: filters(&["public/guest/#"])?, subscribe: filters(&["public/#"])? })
        }
        (Some(name), Some(b"secret")) => Ok(Identity { user: name.to_owned(), publish: filters(&["#"])?, subscribe: filters(&["#"])? }),
        (Some(_), _) => Err(EdgeError::new(ErrorKind::Unauthenticated, "the password is wrong")),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("say in which folder the log is to be")?);
    let listener = TcpListener::bind(arguments.next().as_deref().unwrap_or("127.0.0.1:1883")).await?;
    let log = Arc::new(TopicLog::open(&folder, LogOptions::default())?);
    let authenticate = |login: Login| -> futures::future::BoxFuture<'static, _> { Box::pin(async move { identify(&login) }) };
    let broker = Broker::new(Arc::clone(&log), Box::new(authenticate), |event| println!("{event:?}"));
    println!("listens at {}", listener.local_addr()?);
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, peer) = accepted?;
                stream.set_nodelay(true)?;
                connections.spawn(broker.serve(stream, peer.to_string()));
            }
            Some(_) = connections.join_next() => {}
            stopped = tokio::signal::ctrl_c() => {
                stopped?;
                broker.stop();
                while connections.join_next().await.is_some() {}
                println!("{:?} {:?}", broker.state(), log.state());
                return Ok(());
            }
        }
    }
}
