//! What one guest instance owns on the host, and the limits that hold over it.

use std::{cell::Cell, sync::Arc};

use edgeward_model::limits::{
    HEADER_BYTES_MAX, HOSTCALL_FUEL_BYTES, INSTANCES_PER_STORE_MAX, MEMORIES_PER_STORE_MAX, RANDOM_BYTES_MAX, RESOURCES_MAX,
    TABLES_PER_STORE_MAX,
};
use edgeward_telemetry::TraceContext;
use wasmtime::{ResourceLimiterAsync, Store, UpdateDeadline};
use wasmtime_wasi::{ResourceTable, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView, cli::StdinStream};
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wasmtime_wasi_io::IoView;

use crate::{
    logs::{FunctionLog, LogStream},
    wasm::{
        Wasm,
        keyvalue::{Granted, Held, KeyValue},
        outbound::{AllowList, Outbound},
        stdio::Sink,
    },
};

/// Ticks after which a computing guest looks up first: it then moves to the threads of low priority.
pub(crate) const FOREGROUND_TICKS: u64 = 2;
/// Memory up to which a guest runs where its caller is. Filling this much takes a few milliseconds.
const FOREGROUND_BYTES_MAX: usize = 16 << 20;
/// A table element is a pointer on the host.
const TABLE_ELEMENT_BYTES: usize = 8;

thread_local! {
    /// Set by a guest on this thread that has computed for long.
    static COMPUTES_LONG: Cell<bool> = const { Cell::new(false) };
    /// The tick at which this thread last began to poll a guest.
    static POLLED_AT: Cell<u64> = const { Cell::new(0) };
}

/// Polls a guest here; says also whether it computed for long without a pause.
pub(crate) fn poll_in_foreground<T>(wasm: &Wasm, poll: impl FnOnce() -> T) -> (T, bool) {
    wasm.keep_ticking();
    POLLED_AT.set(wasm.ticks());
    poll_computing(poll)
}

/// Polls a guest on a thread for such guests; says also whether a tick ended the poll.
pub(crate) fn poll_computing<T>(poll: impl FnOnce() -> T) -> (T, bool) {
    COMPUTES_LONG.set(false);
    let result = poll();
    (result, COMPUTES_LONG.take())
}

/// What a guest does at a tick: it goes on when it waited until just now, else others get their turn.
fn at_tick() -> UpdateDeadline {
    let Ok(wasm) = Wasm::shared() else { return UpdateDeadline::Yield(1) };
    wasm.keep_ticking();
    if wasm.ticks() < POLLED_AT.get() + FOREGROUND_TICKS {
        return UpdateDeadline::Continue(1);
    }
    COMPUTES_LONG.set(true);
    UpdateDeadline::Yield(1)
}

/// What is the same for every sandbox of one function.
pub(crate) struct Settings {
    pub(crate) memory_bytes: usize,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) config: WasiConfigVariables,
    pub(crate) allow: Arc<AllowList>,
    pub(crate) documents: Granted,
    pub(crate) log: Arc<FunctionLog>,
}

/// The host side of one guest instance.
pub(crate) struct Sandbox {
    /// Made when the guest first asks for a clock, a stream of its own, its environment or random bytes.
    wasi: Option<WasiCtx>,
    stdin: Option<Box<dyn StdinStream>>,
    http: WasiHttpCtx,
    table: ResourceTable,
    outbound: Outbound,
    /// What the guest holds of its documents.
    held: Held,
    settings: Arc<Settings>,
    limiter: Limiter,
    /// The log, unless it was given; made with `wasi`.
    stdout: Option<Sink>,
    pub(crate) stderr: Sink,
    /// Where in its trace the invocation is, when it is kept.
    pub(crate) trace: Option<TraceContext>,
}

impl Sandbox {
    /// A store for one guest, with every limit on.
    pub(crate) fn store(
        wasm: &'static Wasm,
        settings: &Arc<Settings>,
        stdin: Option<Box<dyn StdinStream>>,
        stdout: Option<Sink>,
        stderr: Sink,
    ) -> Store<Self> {
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(HEADER_BYTES_MAX);
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        let sandbox = Self {
            wasi: None,
            stdin,
            http,
            table,
            outbound: Outbound(Arc::clone(&settings.allow)),
            held: Held::default(),
            settings: Arc::clone(settings),
            limiter: Limiter { bytes: 0, bytes_max: settings.memory_bytes, refused: false, large: false },
            stdout,
            stderr,
            trace: None,
        };
        let mut store = Store::new(wasm.engine(), sandbox);
        store.limiter_async(|sandbox| &mut sandbox.limiter);
        store.set_hostcall_fuel(HOSTCALL_FUEL_BYTES);
        store.set_epoch_deadline(FOREGROUND_TICKS);
        // It captures nothing, which makes it free to install.
        store.epoch_deadline_callback(|_| Ok(at_tick()));
        store
    }

    /// Prepares a reused instance for its next invocation.
    pub(crate) fn renew(&mut self) {
        self.limiter.refused = false;
        if let Some(stdout) = &self.stdout {
            stdout.renew();
        }
        self.stderr.renew();
    }

    /// Leaves the guest no more than this, where that is less than its function has.
    pub(crate) fn limit_memory(&mut self, bytes: Option<usize>) {
        self.limiter.bytes_max = bytes.map_or(self.limiter.bytes_max, |bytes| bytes.min(self.limiter.bytes_max));
    }

    /// Whether the guest was refused memory in this invocation.
    pub(crate) fn memory_refused(&self) -> bool {
        self.limiter.refused
    }

    pub(crate) fn config_variables(&self) -> &WasiConfigVariables {
        &self.settings.config
    }

    pub(crate) fn keyvalue(&mut self) -> KeyValue<'_> {
        KeyValue { granted: &self.settings.documents, held: &mut self.held, table: &mut self.table, trace: self.trace }
    }

    fn new_wasi(&mut self) -> WasiCtx {
        let stdout = self.stdout.get_or_insert_with(|| Sink::log(Arc::clone(&self.settings.log), LogStream::Stdout));
        let mut builder = WasiCtxBuilder::new();
        builder.envs(&self.settings.environment).stdout(stdout.clone()).stderr(self.stderr.clone()).max_random_size(RANDOM_BYTES_MAX);
        if let Some(stdin) = self.stdin.take() {
            builder.stdin(Stdin(stdin));
        }
        builder.build()
    }
}

impl WasiView for Sandbox {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        if self.wasi.is_none() {
            self.wasi = Some(self.new_wasi());
        }
        WasiCtxView { ctx: self.wasi.as_mut().expect("made just now"), table: &mut self.table }
    }
}

impl IoView for Sandbox {
    fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl WasiHttpView for Sandbox {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outbound, table: &mut self.table, ctx: &mut self.http }
    }
}

struct Stdin(Box<dyn StdinStream>);

impl wasmtime_wasi::cli::IsTerminal for Stdin {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for Stdin {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncRead + Send + Sync> {
        self.0.async_stream()
    }

    fn p2_stream(&self) -> Box<dyn wasmtime_wasi::p2::InputStream> {
        self.0.p2_stream()
    }
}

/// One budget over all linear memories and tables of a guest. A refusal is what the guest sees as a failed
/// `memory.grow`; it may go on without.
struct Limiter {
    bytes: usize,
    bytes_max: usize,
    refused: bool,
    large: bool,
}

impl Limiter {
    fn take(&mut self, bytes: usize) -> bool {
        let taken = self.bytes.checked_add(bytes).filter(|taken| *taken <= self.bytes_max);
        self.bytes = taken.unwrap_or(self.bytes);
        self.refused |= taken.is_none();
        taken.is_some()
    }

    /// Moves a guest that becomes large to the threads of low priority: one instruction may fill all its memory, and
    /// nothing can interrupt it.
    async fn mind_size(&mut self) {
        if self.bytes > FOREGROUND_BYTES_MAX && !self.large {
            self.large = true;
            COMPUTES_LONG.set(true);
            tokio::task::yield_now().await;
        }
    }
}

#[wasmtime_wasi::async_trait]
impl ResourceLimiterAsync for Limiter {
    async fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let grows = maximum.is_none_or(|maximum| desired <= maximum) && self.take(desired.saturating_sub(current));
        self.mind_size().await;
        Ok(grows)
    }

    async fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let bytes = desired.saturating_sub(current).saturating_mul(TABLE_ELEMENT_BYTES);
        Ok(maximum.is_none_or(|maximum| desired <= maximum) && self.take(bytes))
    }

    fn instances(&self) -> usize {
        INSTANCES_PER_STORE_MAX
    }

    fn tables(&self) -> usize {
        TABLES_PER_STORE_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_PER_STORE_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn memories_and_tables_draw_on_one_budget() {
        let mut limiter = Limiter { bytes: 0, bytes_max: 100_000, refused: false, large: false };
        assert!(limiter.memory_growing(0, 65_536, None).await.expect("answers"));
        assert!(limiter.table_growing(0, 1000, None).await.expect("answers"));
        assert!(!limiter.memory_growing(65_536, 131_072, None).await.expect("answers"));
        assert!(limiter.refused);
        assert!(limiter.table_growing(0, 3000, None).await.expect("what is left is still there"));
        assert!(!limiter.table_growing(0, usize::MAX, None).await.expect("answers"));
    }
}
