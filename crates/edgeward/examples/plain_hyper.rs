//! The same answer as `native_handler`, by hyper alone: what the benchmarks hold the function listener against.
//! It has no router, no limits, no deadline and no metrics.

use std::{convert::Infallible, error::Error};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let listener = TcpListener::bind(&address).await?;
    println!("http://{}/", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let answer =
                service_fn(async |_request| Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello from the edge\n")))));
            // A client that breaks off is no concern of this program.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}
