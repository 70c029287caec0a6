//! A node as a library: native code, deployed as a function and served over HTTP until Ctrl-C or SIGTERM.
//!
//!     cargo run --release --package edgeward --example native_handler -- 127.0.0.1:8080
//!     curl http://127.0.0.1:8080/fn/hello/

use std::{convert::Infallible, error::Error, sync::Arc};

use edgeward::{EdgeFunction, EdgeNode, EdgeRuntime, Handler, HandlerName, NativeHandler, listener};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());

    let runtime = Arc::new(EdgeRuntime::new(EdgeNode::new("edge-01", "warehouse-sensor")?));
    let hello = HandlerName::new("hello")?;
    runtime.register(hello.clone(), NativeHandler::new(async |_payload| Ok::<_, Infallible>("hello from the edge\n".into())));
    runtime.deploy(EdgeFunction::new("hello", "hello", Handler::Native(hello))?).await?;

    let listener = listener::Listener::new(TcpListener::bind(&address).await?, None)?;
    println!("http://{}/fn/hello/", listener.address());
    let stop = CancellationToken::new();
    let serving = tokio::spawn(listener::serve_functions(runtime, listener, stop.clone()));

    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        pressed = tokio::signal::ctrl_c() => pressed?,
    }
    stop.cancel();
    Ok(serving.await?)
}
