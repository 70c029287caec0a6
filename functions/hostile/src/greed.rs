//! Behaviour that only the host can end or refuse: time, memory, handles, output without bound.

use std::hint::black_box;
use std::io::Write;

use wasi::cli::{stderr, stdout};
use wasi::clocks::monotonic_clock::subscribe_duration;
use wasi::http::types::{Fields, ResponseOutparam};

use crate::{query, reply};

const NANOSECONDS_PER_MS: u64 = 1_000_000;

/// Burns time inside WebAssembly, where only fuel or an epoch can interrupt it.
pub(crate) fn spin() -> ! {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Writes to every page it gets, so that the memory is resident and not merely reserved.
/// When the host refuses to grow, the allocator gives up and aborts.
pub(crate) fn take_all_memory() -> ! {
    let mut hoard = Vec::new();
    loop {
        hoard.push(vec![1_u8; 1024 * 1024]);
        black_box(&hoard);
    }
}

/// Goes on after an error: a guest that stops when stdout is full would not test the limit.
pub(crate) fn flood_stdout() -> ! {
    let line = [b'x'; 4096];
    loop {
        let _ = stdout::get_stdout().blocking_write_and_flush(&line);
    }
}

/// Lines for the log, 100 bytes each with their end.
pub(crate) fn log_lines(query: &str, out: ResponseOutparam) {
    let mut log = stdout::get_stdout();
    for n in 0..query::number(query, "count", 1) {
        let _ = writeln!(log, "{n:099}");
    }
    reply::text(out, 200, "logged\n");
}

/// Fills the host's resource table while the guest's own memory stays small.
pub(crate) fn leak_handles() -> ! {
    loop {
        std::mem::forget(Fields::new());
    }
}

/// The result goes into the answer and each call needs its caller's depth after it returns, or the
/// compiler would make a loop of it.
pub(crate) fn recurse(out: ResponseOutparam) {
    #[inline(never)]
    fn descend(depth: u64) -> u64 {
        if black_box(depth) == u64::MAX { 0 } else { descend(depth + 1).rotate_left(7) ^ depth }
    }
    reply::text(out, 200, &format!("{}\n", descend(0)));
}

/// 512 headers of 1 KiB: 8 times the 64 KiB that a host should carry. A host may also refuse
/// politely, and then the answer says where.
pub(crate) fn send_huge_headers(out: ResponseOutparam) {
    let headers = Fields::new();
    let value = [b'h'; 1024];
    for n in 0..512 {
        if let Err(error) = headers.append(&format!("x-huge-{n}"), &value) {
            return reply::text(out, 500, &format!("header {n} was refused: {error:?}\n"));
        }
    }
    reply::stream(out, 200, headers, None, |_| Ok(()));
}

/// Waits inside a host call, where an epoch does not reach.
pub(crate) fn sleep(query: &str, out: ResponseOutparam) {
    let ms = query::number(query, "ms", 60_000);
    subscribe_duration(ms.saturating_mul(NANOSECONDS_PER_MS)).block();
    reply::text(out, 200, &format!("slept {ms} ms\n"));
}

/// One byte every 100 ms until the caller is gone: each byte resets an idle timeout.
pub(crate) fn drip(out: ResponseOutparam) {
    reply::stream(out, 200, reply::fields("content-type", b"text/plain"), None, |stream| {
        loop {
            stream.write_all(b".")?;
            Write::flush(stream)?;
            subscribe_duration(100 * NANOSECONDS_PER_MS).block();
        }
    });
}

pub(crate) fn send_bytes(query: &str, out: ResponseOutparam) {
    let mut remaining = query::number(query, "bytes", 1024 * 1024);
    let headers = reply::fields("content-type", b"application/octet-stream");
    reply::stream(out, 200, headers, None, |stream| {
        let chunk = [b'x'; 64 * 1024];
        while remaining > 0 {
            let n = usize::try_from(remaining).map_or(chunk.len(), |n| n.min(chunk.len()));
            stream.write_all(&chunk[..n])?;
            remaining -= n as u64;
        }
        Ok(())
    });
}

/// The last words before a trap are what a developer looks for: the host must not lose them.
pub(crate) fn complain_and_trap() -> ! {
    let _ = stderr::get_stderr().blocking_write_and_flush(b"stderr says hi\n");
    core::arch::wasm32::unreachable()
}
