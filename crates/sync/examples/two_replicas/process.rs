//! Processes of this program: whoever started one gives orders to its standard input, and each is answered with a line. It ends when
//! that is closed, so none outlives who started it.

use std::{
    env,
    io::{self, BufRead, BufReader, Lines, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::Failure;

/// Answers each line of standard input with a line, until it is closed.
pub(crate) fn obey(mut answer: impl FnMut(&str) -> Result<String, Failure>) -> Result<(), Failure> {
    for order in io::stdin().lines() {
        println!("{}", answer(&order?)?);
    }
    Ok(())
}

/// A process of this program that takes orders. It ends with its handle.
pub(crate) struct Process {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts this program with these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Result<Self, Failure> {
        let mut child = Command::new(env::current_exe()?).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (orders, answers) = (child.stdin.take().expect("it is piped"), child.stdout.take().expect("it is piped"));
        Ok(Self { child, orders, answers: BufReader::new(answers).lines() })
    }

    /// Gives an order and takes the line that answers it.
    pub(crate) fn order(&mut self, order: &str) -> Result<String, Failure> {
        writeln!(self.orders, "{order}")?;
        self.answer()
    }

    /// Gives orders of which only success matters.
    pub(crate) fn obeys(&mut self, orders: &[&str]) -> Result<(), Failure> {
        orders.iter().try_for_each(|order| self.order(order).map(drop))
    }

    /// Takes the next line.
    pub(crate) fn answer(&mut self) -> Result<String, Failure> {
        Ok(self.answers.next().ok_or("a process ended before it answered")??)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that ended by itself cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
