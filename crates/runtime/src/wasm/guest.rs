//! One running guest: a future that is polled where its caller is, so that a short call costs no hand-over, and
//! that moves to threads of low priority once it has computed for long. Dropping it ends the guest.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use edgeward_model::{EdgeError, EdgeFunction, ErrorKind, Failure};
use tokio::task::JoinHandle;
use wasmtime::{PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;

use crate::{
    logs::{FunctionLog, LogStream},
    wasm::{
        Class, SHORT_TICKS, Wasm,
        sandbox::{Sandbox, poll_computing, poll_in_foreground},
    },
};

type Run<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A guest that runs. It can be polled to its end; dropping it stops the guest at its next tick or host call.
pub(crate) struct Guest<T> {
    state: State<T>,
    wasm: &'static Wasm,
}

enum State<T> {
    Here(Run<T>),
    /// Its task gives the guest back when it has computed for long.
    Short(JoinHandle<Result<T, Run<T>>>),
    Long(JoinHandle<T>),
}

impl<T: Send + 'static> Guest<T> {
    pub(crate) fn new(wasm: &'static Wasm, run: impl Future<Output = T> + Send + 'static) -> Self {
        Self { state: State::Here(Box::pin(run)), wasm }
    }
}

impl<T: Send + 'static> Future for Guest<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Here(run) => {
                    match poll_in_foreground(this.wasm, || run.as_mut().poll(cx)) {
                        (Poll::Ready(output), _) => return Poll::Ready(output),
                        (Poll::Pending, false) => return Poll::Pending,
                        (Poll::Pending, true) => {}
                    }
                    let run = std::mem::replace(run, Box::pin(std::future::pending()));
                    this.state = State::Short(this.wasm.compute(Class::Short).spawn(for_a_while(run)));
                }
                State::Short(task) => match ready(task, cx) {
                    Poll::Ready(Ok(output)) => return Poll::Ready(output),
                    Poll::Ready(Err(run)) => this.state = State::Long(this.wasm.compute(Class::Long).spawn(run)),
                    Poll::Pending => return Poll::Pending,
                },
                State::Long(task) => return ready(task, cx),
            }
        }
    }
}

fn ready<T>(task: &mut JoinHandle<T>, cx: &mut Context<'_>) -> Poll<T> {
    // Only dropping the guest aborts its task, and then nobody polls it.
    Pin::new(task).poll(cx).map(|output| output.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())))
}

/// Runs a guest until it ends, or gives it back after it has computed for [`SHORT_TICKS`].
async fn for_a_while<T>(run: Run<T>) -> Result<T, Run<T>> {
    let (mut run, mut ticks) = (Some(run), 0);
    std::future::poll_fn(|cx| {
        let guest = run.as_mut().expect("not polled after its end");
        let (output, ticked) = poll_computing(|| guest.as_mut().poll(cx));
        ticks += u32::from(ticked);
        match output {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending if ticks < SHORT_TICKS => Poll::Pending,
            Poll::Pending => Poll::Ready(Err(run.take().expect("polled just now"))),
        }
    })
    .await
}

impl<T> Drop for Guest<T> {
    fn drop(&mut self) {
        match &self.state {
            State::Here(_) => {}
            State::Short(task) => task.abort(),
            State::Long(task) => task.abort(),
        }
    }
}

/// Turns the end of a guest into the error that its caller sees, and keeps the full story in its log.
pub(crate) fn failed(function: &EdgeFunction, sandbox: Option<&Sandbox>, log: &FunctionLog, error: &wasmtime::Error) -> EdgeError {
    let id = &function.id;
    if error.is::<PoolConcurrencyLimitError>() {
        return no_sandbox(function);
    }
    let failure = Failure {
        exit_code: error.downcast_ref::<I32Exit>().map(|exit| u8::try_from(exit.0).unwrap_or(1)),
        stderr_tail: sandbox.map(|sandbox| sandbox.stderr.tail()).unwrap_or_default(),
        status: None,
    };
    let (kind, message) = if sandbox.is_some_and(Sandbox::memory_refused) || is_memory_limit(error) {
        (ErrorKind::MemoryLimit, format!("function `{id}` failed after it was refused memory beyond its {} MiB", function.memory_mb))
    } else if let Some(code) = failure.exit_code {
        (ErrorKind::ExecutionFailed, format!("function `{id}` exited with code {code}"))
    } else {
        (ErrorKind::ExecutionFailed, format!("function `{id}` failed: {}", why(error)))
    };
    if let Some(stack) = error.downcast_ref::<WasmBacktrace>() {
        // For the function's developer and not for its callers.
        log.push(LogStream::Runtime, &format!("where it failed:\n{stack}"));
    }
    EdgeError::new(kind, message).with_failure(failure).with_source(GuestFault(causes(error)))
}

/// The error of an invocation for which the node has no room.
pub(crate) fn no_sandbox(function: &EdgeFunction) -> EdgeError {
    let message = format!("the node is overloaded: no sandbox is free for function `{}`; try again later", function.id);
    EdgeError::new(ErrorKind::Overloaded, message)
}

/// The causes of an error, outermost first, without the guest's stack.
fn causes(error: &wasmtime::Error) -> String {
    let causes = error.chain().map(ToString::to_string);
    causes.filter(|cause| !cause.starts_with("error while executing at wasm backtrace")).collect::<Vec<_>>().join(": ")
}

/// A component whose memories start larger than the limit fails to instantiate, with this in its story.
fn is_memory_limit(error: &wasmtime::Error) -> bool {
    let story = format!("{error:#}");
    story.contains("exceeds memory limits") || story.contains("exceeds table limits")
}

fn why(error: &wasmtime::Error) -> String {
    match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => "it ran out of stack, most likely by deep recursion".to_owned(),
        Some(trap) => format!("{trap}"),
        None => error.root_cause().to_string(),
    }
}

/// What the engine said, with its causes.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct GuestFault(String);
