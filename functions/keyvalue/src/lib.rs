//! A command that makes the calls of `wasi:keyvalue` that its input says, for the platform's tests.
//!
//! The first line names the draft, `draft` or `draft2`. Each further line is a call and its arguments, apart by spaces, each
//! percent-encoded; for each, one line tells the result or the error. A line here is part of those tests: add lines, do not
//! change what one does.

mod calls;
mod percent;

use std::io::{self, Write};

use wasi::exports::cli::run::Guest;

mod draft {
    wit_bindgen::generate!({ path: "../../crates/runtime/wit/keyvalue-0.2.0-draft.wit", generate_all });
}

mod draft2 {
    wit_bindgen::generate!({ path: "../../crates/runtime/wit/keyvalue-0.2.0-draft2.wit", generate_all });
}

struct Calls;

wasi::cli::command::export!(Calls);

impl Guest for Calls {
    fn run() -> Result<(), ()> {
        let input = io::read_to_string(wasi::cli::stdin::get_stdin()).map_err(drop)?;
        let (draft, lines) = input.split_once('\n').ok_or(())?;
        let told = match draft {
            "draft" => calls::draft::tell(lines),
            "draft2" => calls::draft2::tell(lines),
            _ => return Err(()),
        };
        let mut stdout = wasi::cli::stdout::get_stdout();
        stdout.write_all(told.as_bytes()).and_then(|()| Write::flush(&mut stdout)).map_err(drop)
    }
}
