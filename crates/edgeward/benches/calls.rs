//! What a call by the name of a function costs beside the function, when its node is in this process, in nanoseconds, as lines of a name and a number:
//! `cargo bench -p edgeward --bench calls -- run`.

use std::time::Instant;

use edgeward::{CallOptions, EdgeCluster, EdgeError, EdgeFunction, EdgeNode, FunctionId, Handler, HandlerName, NativeHandler, Terms};

const WARM_UP_CALLS: u32 = 20_000;
const CALLS: u32 = 300_000;

#[tokio::main]
async fn main() -> Result<(), EdgeError> {
    // As `cargo test --benches` calls it there is nothing to do.
    if !std::env::args().any(|argument| argument == "run") {
        return Ok(());
    }
    let cluster = EdgeCluster::new()?;
    let echo = HandlerName::new("echo")?;
    cluster.register_handler(echo.clone(), NativeHandler::new(async |payload| Ok::<_, std::io::Error>(payload)));
    let runtime = cluster.register_node(EdgeNode::new("here", "here")?)?;
    for index in 0..200 {
        cluster.deploy_to_all(EdgeFunction::new(format!("f-{index}"), "echo", Handler::Native(echo.clone()))?).await?;
    }
    let function = FunctionId::new("f-100")?;
    let mut spent = [f64::MAX; 2];
    // The least of some rounds: others use the machine too.
    for _ in 0..5 {
        for calls in [WARM_UP_CALLS, CALLS] {
            let begun = Instant::now();
            for _ in 0..calls {
                runtime.invoke_with(function.as_str(), "x", CallOptions::default()).await?;
            }
            let direct = begun.elapsed().as_secs_f64() * 1e9 / f64::from(calls);
            let begun = Instant::now();
            for _ in 0..calls {
                cluster.call(&function, "x", CallOptions::default(), Terms::default()).await?;
            }
            let routed = begun.elapsed().as_secs_f64() * 1e9 / f64::from(calls);
            if calls == CALLS {
                spent = [spent[0].min(direct), spent[1].min(routed)];
            }
        }
    }
    let [direct, routed] = spent;
    println!("direct {direct:.0}\nrouted {routed:.0}");
    Ok(())
}
