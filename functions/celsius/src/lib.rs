//! A filter for CSV: Fahrenheit on stdin, Celsius on stdout, line by line.
//!
//! The exit status is the promise: 0 says that stdout holds every line. On a bad line the lines
//! before it may already be out; 1 and a message on stderr say so.

use std::fmt::Write as _;
use std::io::{self, Read, Write};

use readings::{BadLine, Columns, Parser, Reading};
use wasi::cli::{stderr, stdin, stdout};
use wasi::exports::cli::run::Guest;

struct Celsius;

// Standard streams come from `wasi` and not from `std`, which reaches them only on the `wasi` targets.
wasi::cli::command::export!(Celsius);

impl Guest for Celsius {
    fn run() -> Result<(), ()> {
        convert(stdin::get_stdin(), stdout::get_stdout()).map_err(|failure| {
            // With stderr closed as well, the exit status is all that can be said.
            let _ = writeln!(stderr::get_stderr(), "celsius: {failure}");
        })
    }
}

#[derive(Debug)]
enum Failure {
    Csv(BadLine),
    Io(io::Error),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Csv(error) => error.fmt(f),
            Failure::Io(error) => error.fmt(f),
        }
    }
}

fn convert(mut input: impl Read, mut output: impl Write) -> Result<(), Failure> {
    let mut parser = Parser::default();
    let mut chunk = [0; 16 * 1024];
    let mut csv = Csv::default();
    loop {
        let n = input.read(&mut chunk).map_err(Failure::Io)?;
        if n == 0 {
            break;
        }
        let parsed = parser.push(&chunk[..n], |columns, reading| csv.push(columns, reading));
        // One write per chunk, since each is a call to the host. The lines before a bad one go out too.
        output.write_all(csv.take().as_bytes()).map_err(Failure::Io)?;
        parsed.map_err(Failure::Csv)?;
    }
    let columns = parser.finish(|columns, reading| csv.push(columns, reading)).map_err(Failure::Csv)?;
    // A file may hold a header and nothing else.
    csv.begin(columns);
    output.write_all(csv.take().as_bytes()).map_err(Failure::Io)?;
    output.flush().map_err(Failure::Io)
}

/// The text to write next; the header goes first and once.
#[derive(Default)]
struct Csv {
    text: String,
    begun: bool,
}

impl Csv {
    fn begin(&mut self, columns: Columns) {
        if !self.begun {
            self.begun = true;
            self.text.push_str(columns.header());
            self.text.push('\n');
        }
    }

    fn push(&mut self, columns: Columns, reading: Reading<'_>) {
        self.begin(columns);
        let celsius = (reading.temp - 32.0) / 1.8;
        // Adding zero turns the -0.0 that rounding can leave into 0.0.
        let celsius = (celsius * 10.0).round() / 10.0 + 0.0;
        let date = reading.date;
        let text = &mut self.text;
        let _ = match columns {
            Columns::DateTemp => writeln!(text, "{date},{celsius:.1}"),
            Columns::TempDate => writeln!(text, "{celsius:.1},{date}"),
        };
    }

    fn take(&mut self) -> String {
        std::mem::take(&mut self.text)
    }
}
