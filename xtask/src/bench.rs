//! Benchmarks against other programs, each pair interleaved in one run.
//!
//! To be kept apart here: what is measured (one function for each row of the table, each with its target),
//! how a run is repeated (rounds, medians, spread), the peers (`wasmtime serve`, plain hyper, driven by `wrk`;
//! `cargo xtask setup --benches` sees that they run), and the writer of `benches/RESULTS.md`.
