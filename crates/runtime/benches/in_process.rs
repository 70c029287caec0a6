//! What the runtime costs inside one process: nanoseconds, one `name value` a line, for `cargo xtask bench`.
//!
//! Arguments choose among `native`, `instantiate` and `metrics`; none means all. Values are medians of what one
//! run of this program saw; `cargo xtask bench` repeats the run.

use std::{
    convert::Infallible,
    error::Error,
    hint::black_box,
    time::{Duration, Instant},
};

use bytes::Bytes;
use edgeward_model::{EdgeFunction, EdgeNode, FunctionId, Handler, HandlerName, InvocationRecord, NodeId};
use edgeward_runtime::{EdgeMetrics, EdgeRuntime, NativeHandler};

const HELLO: &[u8] = include_bytes!("../../../functions/built/hello.wasm");
/// How often a batch is repeated; the median counts.
const BATCHES: usize = 21;
const CALLS_PER_BATCH: u32 = 20_000;
const INSTANCES: usize = 20_000;
const RECORDS_PER_BATCH: usize = 200_000;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Result<()> {
    // cargo passes `--bench`, which is no name of ours.
    let names: Vec<_> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|each| each == name);
    let tokio = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if wanted("native") {
        tokio.block_on(native())?;
    }
    if wanted("instantiate") {
        tokio.block_on(instantiate())?;
    }
    if wanted("metrics") {
        metrics()?;
    }
    Ok(())
}

/// An empty handler, called by itself and through `invoke`, by turns.
async fn native() -> Result<()> {
    let handler = async |payload: Bytes| Ok::<_, Infallible>(payload);
    let name = HandlerName::new("empty")?;
    let runtime = EdgeRuntime::new(EdgeNode::new("edge-01", "bench")?);
    runtime.register(name.clone(), NativeHandler::new(handler));
    runtime.deploy(EdgeFunction::new("empty", "empty", Handler::Native(name))?).await?;
    let (mut bare, mut invoked) = (Vec::new(), Vec::new());
    for _ in 0..BATCHES {
        let started = Instant::now();
        for _ in 0..CALLS_PER_BATCH {
            black_box(black_box(handler)(black_box(Bytes::new())).await?);
        }
        bare.push(started.elapsed() / CALLS_PER_BATCH);
        let started = Instant::now();
        for _ in 0..CALLS_PER_BATCH {
            black_box(runtime.invoke(black_box("empty"), Bytes::new()).await?);
        }
        invoked.push(started.elapsed() / CALLS_PER_BATCH);
    }
    tell("bare_call", &mut bare);
    tell("native_invoke", &mut invoked);
    Ok(())
}

/// A fresh sandbox of the Rust hello, made and dropped; and a whole invocation of it.
async fn instantiate() -> Result<()> {
    let runtime = EdgeRuntime::new(EdgeNode::new("edge-01", "bench")?);
    let digest = runtime.add_artifact(HELLO).await?;
    runtime.deploy(EdgeFunction::new("hello", "hello", Handler::Artifact(digest))?).await?;
    let (mut instantiated, mut dropped, mut invoked) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..INSTANCES {
        let started = Instant::now();
        let sandbox = runtime.bench_instantiate("hello").await?;
        let ready = Instant::now();
        drop(sandbox);
        dropped.push(ready.elapsed());
        instantiated.push(ready - started);
        let started = Instant::now();
        black_box(runtime.invoke("hello", Bytes::new()).await?);
        invoked.push(started.elapsed());
    }
    tell("instantiate", &mut instantiated);
    tell("drop", &mut dropped);
    tell("hello_invoke", &mut invoked);
    Ok(())
}

/// Records of several functions, built before the clock runs.
fn metrics() -> Result<()> {
    let mut records = Vec::new();
    for i in 0..64_u32 {
        let function = FunctionId::new(format!("function-{}", i % 8))?;
        records.push(InvocationRecord::new(function, NodeId::new("edge-01")?, 0.1 + f64::from(i) * 0.7, i % 16 != 0));
    }
    for (name, threads) in [("record_one_thread", 1), ("record_two_threads", 2)] {
        let metrics = EdgeMetrics::new();
        let mut each: Vec<_> = std::thread::scope(|scope| {
            let batch = || {
                let started = Instant::now();
                for record in records.iter().cycle().take(RECORDS_PER_BATCH) {
                    metrics.record(black_box(record));
                }
                started.elapsed()
            };
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(move || (0..BATCHES).map(|_| batch()).collect::<Vec<_>>())).collect();
            threads.into_iter().flat_map(|thread| thread.join().expect("recording does not panic")).collect()
        });
        println!("{name} {:.2}", median(&mut each).as_secs_f64() * 1e9 / RECORDS_PER_BATCH as f64);
    }
    Ok(())
}

fn tell(name: &str, times: &mut [Duration]) {
    println!("{name} {}", median(times).as_nanos());
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
