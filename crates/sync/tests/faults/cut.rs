//! Cuts the power of a disk while a child works on it, and tells what the child said to be durable before.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use crate::{child, mount::Mount};

const DEADLINE: Duration = Duration::from_secs(30);

/// Ends the child with the test, also one that fails.
struct Running(Child, Option<Pid>);

impl Drop for Running {
    fn drop(&mut self) {
        // Under strace the process that works is another one, which goes on without it.
        if let Some(process) = self.1 {
            let _ = kill_process(process, Signal::KILL);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a child has told.
#[derive(Default)]
struct Told {
    process: Option<Pid>,
    acknowledged: Vec<String>,
}

/// Lets a child work, which tells its process as `process ID` and what is durable as `acknowledged WHAT`, and cuts the power after it told
/// so many of these. Gives those that it told before.
pub(crate) fn after(count: usize, disk: &Mount, mut child: Command) -> Vec<String> {
    let told = Mutex::new(Told::default());
    let mut running = Running(child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts"), None);
    let out = BufReader::new(running.0.stdout.take().expect("piped"));
    let before = thread::scope(|scope| {
        scope.spawn(|| {
            for line in out.lines().map_while(Result::ok) {
                match child::told(&line).and_then(|told| told.split_once(' ')) {
                    Some(("acknowledged", what)) => told.lock().acknowledged.push(what.to_owned()),
                    Some(("process", id)) => told.lock().process = Pid::from_raw(id.parse().expect("an id")),
                    _ => {}
                }
            }
        });
        let started = Instant::now();
        while told.lock().acknowledged.len() < count && started.elapsed() < DEADLINE {
            thread::sleep(Duration::from_micros(200));
        }
        let before = told.lock().acknowledged.clone();
        disk.cut_power();
        running.1 = told.lock().process;
        drop(running);
        before
    });
    assert!(before.len() >= count, "only {} of {count} within {DEADLINE:?}", before.len());
    before
}
