//! The WebAssembly engine: one per process, because signal handlers and address space are too.
//!
//! Guests are compiled with explicit bounds checks and run in pooled memory, so that a fresh sandbox costs no
//! change of page protection. Every memory slot reserves 8 GiB of addresses: whatever a guest computes, even
//! speculatively, stays in its own slot (see `docs/adr/0003-explicit-bounds-checks.md`).

mod answer;
pub(crate) mod guest;
pub(crate) mod inspect;
pub(crate) mod keyvalue;
pub(crate) mod outbound;
pub(crate) mod program;
pub(crate) mod sandbox;
pub(crate) mod stdio;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::Path,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use edgeward_model::{
    Digest, EdgeError, EdgeFunction, ErrorKind,
    limits::{
        GUEST_STACK_BYTES, INSTANCES_PER_STORE_MAX, MEMORIES_PER_STORE_MAX, REUSE_IDLE_TIMEOUT, TABLE_ELEMENTS_MAX, TABLES_PER_STORE_MAX,
    },
};
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig,
    component::{Component, Linker},
};
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::{artifacts::ArtifactStore, ticket::within, wasm::sandbox::Sandbox};

/// How often a running guest looks up from its work.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without a guest after which the ticker sleeps.
const IDLE_TICKS: u32 = 1000;
/// Ticks for which a guest computes before it counts as long.
pub(crate) const SHORT_TICKS: u32 = 50;
/// Addresses that one memory slot reserves: 4 GiB of index and 4 GiB of offset.
const SLOT_BYTES: u64 = 8 << 30;
/// Slots to try for, most first; a machine with few address bits gets fewer.
const SLOTS: [u32; 4] = [1024, 256, 64, 16];
/// Memory that stays with a slot between two guests, so that the next one does not fault it in again.
const SLOT_RESIDENT_BYTES: usize = 1 << 20;
/// Unused slots that keep their memory.
const WARM_SLOTS: u32 = 32;

/// The engine, what guests may import, and the threads beside it.
pub(crate) struct Wasm {
    engine: Engine,
    linker: Linker<Sandbox>,
    /// Tells compiled code of this engine and configuration from any other.
    engine_id: u64,
    ticker: Ticker,
    compute: [OnceLock<tokio::runtime::Runtime>; 2],
    /// One permit for each sandbox that can be there at once.
    slots: Semaphore,
    /// The programs that keep instances for further invocations.
    reusing: Mutex<Vec<Weak<program::Program>>>,
    /// Whether a task looks after the instances that nobody uses.
    sweeping: AtomicBool,
}

/// A component that passed every check and can be instantiated.
#[derive(Clone)]
pub(crate) enum Compiled {
    /// Exports `wasi:http/incoming-handler`.
    Http(ProxyPre<Sandbox>),
    /// Exports `wasi:cli/run`.
    Command(wasmtime_wasi::p2::bindings::CommandPre<Sandbox>),
}

impl Wasm {
    /// The engine of this process, started at the first use.
    pub(crate) fn shared() -> Result<&'static Self, EdgeError> {
        static SHARED: OnceLock<Result<Wasm, String>> = OnceLock::new();
        SHARED
            .get_or_init(|| Self::start().map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|why| EdgeError::new(ErrorKind::Internal, format!("failed to start the WebAssembly engine: {why}")))
    }

    fn start() -> wasmtime::Result<Self> {
        let (engine, slots) = start_engine()?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        // Streams once more, without what only the other interfaces need: see `Sandbox::ctx`.
        linker.allow_shadowing(true);
        wasmtime_wasi_io::add_to_linker_async(&mut linker)?;
        linker.allow_shadowing(false);
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
        wasmtime_wasi_config::add_to_linker(&mut linker, |sandbox: &mut Sandbox| {
            wasmtime_wasi_config::WasiConfig::from(sandbox.config_variables())
        })?;
        keyvalue::add_to_linker(&mut linker)?;
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        let ticker = Ticker::start(engine.clone())?;
        Ok(Self {
            engine_id: hasher.finish(),
            engine,
            linker,
            ticker,
            compute: [OnceLock::new(), OnceLock::new()],
            slots: Semaphore::new(slots as usize),
            reusing: Mutex::default(),
            sweeping: AtomicBool::new(false),
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Ticks so far; they stand still while no guest runs.
    pub(crate) fn ticks(&self) -> u64 {
        self.ticker.ticks.load(Ordering::Relaxed)
    }

    /// Room for one sandbox. When there is none, instances that wait to be reused give way.
    pub(crate) async fn slot(&'static self, function: &EdgeFunction, deadline: Instant) -> Result<SemaphorePermit<'static>, EdgeError> {
        if let Ok(slot) = self.slots.try_acquire() {
            return Ok(slot);
        }
        self.drop_unused(Duration::ZERO);
        let slot = within(deadline, self.slots.acquire()).await.ok_or_else(|| guest::no_sandbox(function))?;
        Ok(slot.expect("the semaphore is never closed"))
    }

    pub(crate) fn keeps_instances(&self, program: &Arc<program::Program>) {
        let mut reusing = self.reusing.lock();
        reusing.retain(|program| program.strong_count() > 0);
        reusing.push(Arc::downgrade(program));
    }

    /// Drops instances that nobody used for this long; returns how many are left.
    fn drop_unused(&self, unused: Duration) -> usize {
        let programs: Vec<_> = self.reusing.lock().iter().filter_map(Weak::upgrade).collect();
        programs.iter().map(|program| program.drop_unused(unused)).sum()
    }

    /// Sees to it that instances which nobody uses do not keep their memory for ever.
    pub(crate) fn sweep_later(&'static self) {
        if self.sweeping.swap(true, Ordering::SeqCst) {
            return;
        }
        self.compute(Class::Long).spawn(async move {
            loop {
                tokio::time::sleep(REUSE_IDLE_TIMEOUT / 4).await;
                if self.drop_unused(REUSE_IDLE_TIMEOUT) == 0 {
                    self.sweeping.store(false, Ordering::SeqCst);
                    // One that came in between has seen `sweeping`, or is seen here.
                    if self.drop_unused(REUSE_IDLE_TIMEOUT) == 0 || self.sweeping.swap(true, Ordering::SeqCst) {
                        return;
                    }
                }
            }
        });
    }

    /// Keeps the ticker awake: called when a guest begins and at its every tick. When the ticker parks, the next tick of a
    /// guest that waits is overdue, so that the guest wakes the ticker as soon as it goes on.
    pub(crate) fn keep_ticking(&self) {
        self.ticker.keep_awake();
    }

    /// Threads for guests that compute: the operating system prefers others, and the shorter class to the longer.
    pub(crate) fn compute(&self, class: Class) -> &tokio::runtime::Handle {
        self.compute[class as usize]
            .get_or_init(|| {
                tokio::runtime::Builder::new_multi_thread()
                    .worker_threads(std::thread::available_parallelism().map_or(1, usize::from))
                    .thread_name(format!("edgeward-{}", class.name()))
                    .on_thread_start(move || lower_priority(class))
                    .enable_all()
                    .build()
                    .expect("a runtime starts when threads can be started, and this process has started some")
            })
            .handle()
    }

    /// Loads the compiled form of an artifact, compiling it when there is none. Blocks for as long as that takes.
    pub(crate) fn load(&self, store: &ArtifactStore, digest: &Digest) -> Result<Compiled, EdgeError> {
        if let Some(path) = store.compiled(digest, self.engine_id) {
            match self.load_compiled(&path) {
                Ok(component) => return self.link(digest, &component),
                Err(error) => tracing::warn!(%digest, error = format!("{error:#}"), "compiled code did not load and will be made again"),
            }
        }
        let bytes = inspect::componentise(digest, &store.get(digest)?)?;
        let component = self.compile(digest, &bytes)?;
        let compiled = self.link(digest, &component)?;
        match component.serialize() {
            Ok(code) => store.keep_compiled(digest, self.engine_id, &code),
            Err(error) => tracing::warn!(%digest, error = format!("{error:#}"), "compiled code could not be written out"),
        }
        Ok(compiled)
    }

    /// Compiles on threads of their own, which give way to running functions.
    fn compile(&self, digest: &Digest, bytes: &[u8]) -> Result<Component, EdgeError> {
        let threads = rayon::ThreadPoolBuilder::new()
            .thread_name(|_| "edgeward-compile".to_owned())
            .start_handler(|_| lower_priority(Class::Long))
            .build()
            .map_err(|error| EdgeError::new(ErrorKind::Internal, "failed to start the threads that compile").with_source(error))?;
        threads
            .install(|| Component::new(&self.engine, bytes))
            .map_err(|error| inspect::refused(digest, &format!("it does not compile: {error:#}")))
    }

    #[expect(unsafe_code, reason = "wasmtime asks that the file is its own output: the store checked that it is what we compiled")]
    fn load_compiled(&self, path: &Path) -> wasmtime::Result<Component> {
        // SAFETY: only `keep_compiled` writes into the private folder, and the checksum over the file was right.
        unsafe { Component::deserialize_file(&self.engine, path) }
    }

    fn link(&self, digest: &Digest, component: &Component) -> Result<Compiled, EdgeError> {
        let instance = self
            .linker
            .instantiate_pre(component)
            .map_err(|error| inspect::refused(digest, &format!("it imports what this node does not offer: {error:#}")))?;
        let exports: Vec<_> = component.component_type().exports(&self.engine).map(|(name, _)| name.to_owned()).collect();
        let exports_interface = |interface: &str| exports.iter().any(|name| name.starts_with(interface));
        let wrong = |error: wasmtime::Error| inspect::refused(digest, &format!("its exports do not fit: {error:#}"));
        if exports_interface("wasi:http/incoming-handler@0.2.") {
            Ok(Compiled::Http(ProxyPre::new(instance).map_err(wrong)?))
        } else if exports_interface("wasi:cli/run@0.2.") {
            Ok(Compiled::Command(wasmtime_wasi::p2::bindings::CommandPre::new(instance).map_err(wrong)?))
        } else {
            let found = if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") };
            Err(inspect::refused(
                digest,
                &format!("it exports {found}, but a function exports `wasi:http/incoming-handler@0.2.x` or `wasi:cli/run@0.2.x`"),
            ))
        }
    }
}

/// The engine, and how many sandboxes it has room for.
fn start_engine() -> wasmtime::Result<(Engine, u32)> {
    let mut result = Err(wasmtime::format_err!("no number of memory slots was tried"));
    for slots in SLOTS {
        result = Engine::new(&engine_config(slots)).map(|engine| (engine, slots));
        if result.is_ok() {
            break;
        }
    }
    result
}

fn engine_config(slots: u32) -> Config {
    let count = |limit: usize| u32::try_from(limit).expect("limits are small");
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(slots)
        .total_core_instances(slots * 8)
        .total_memories(slots)
        .total_tables(slots * 4)
        .total_stacks(slots)
        .max_core_instances_per_component(count(INSTANCES_PER_STORE_MAX))
        .max_memories_per_component(count(MEMORIES_PER_STORE_MAX))
        .max_tables_per_component(count(TABLES_PER_STORE_MAX))
        .max_memories_per_module(count(MEMORIES_PER_STORE_MAX))
        .max_tables_per_module(count(TABLES_PER_STORE_MAX))
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(4 << 30)
        .linear_memory_keep_resident(SLOT_RESIDENT_BYTES)
        .table_keep_resident(64 << 10)
        .max_unused_warm_slots(WARM_SLOTS)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // A 64-bit index could leave its slot under misspeculation, see above.
        .wasm_memory64(false)
        .wasm_gc(false)
        .wasm_function_references(false)
        .wasm_exceptions(false)
        .wasm_threads(false)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(GUEST_STACK_BYTES + (512 << 10))
        .signals_based_traps(false)
        .memory_init_cow(false)
        .memory_guard_size(0)
        .memory_reservation(SLOT_BYTES)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Guests that compute, by how long they have done so.
#[derive(Clone, Copy)]
pub(crate) enum Class {
    /// Some milliseconds.
    Short,
    /// Longer than [`SHORT_TICKS`].
    Long,
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Long => "long",
        }
    }
}

/// Raises the nice value of this thread. Where that is refused the thread stays as it is.
fn lower_priority(class: Class) {
    let lower = || {
        let step = match class {
            Class::Short => 5,
            Class::Long => 15,
        };
        rustix::process::setpriority_process(None, rustix::process::getpriority_process(None)? + step)
    };
    if let Err(error) = lower() {
        tracing::debug!(%error, "a compute thread keeps the usual priority");
    }
}

/// Advances the engine's epoch every [`TICK`] while guests run.
struct Ticker {
    /// Set by guests, cleared at every tick. Guests mostly read it, so that cores do not fight over it.
    busy: AtomicBool,
    ticks: AtomicU64,
    parked: AtomicBool,
    thread: OnceLock<std::thread::Thread>,
}

impl Ticker {
    fn start(engine: Engine) -> wasmtime::Result<Self> {
        std::thread::Builder::new().name("edgeward-ticker".to_owned()).spawn(move || tick(&engine))?;
        Ok(Self { busy: AtomicBool::new(false), ticks: AtomicU64::new(0), parked: AtomicBool::new(false), thread: OnceLock::new() })
    }

    fn keep_awake(&self) {
        if self.busy.load(Ordering::Relaxed) {
            return;
        }
        self.busy.store(true, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }
}

fn tick(engine: &Engine) {
    let mut idle_ticks = 0;
    loop {
        std::thread::sleep(TICK);
        engine.increment_epoch();
        let Ok(wasm) = Wasm::shared() else { return };
        let ticker = &wasm.ticker;
        ticker.ticks.fetch_add(1, Ordering::Relaxed);
        ticker.thread.get_or_init(std::thread::current);
        idle_ticks = if ticker.busy.swap(false, Ordering::SeqCst) { 0 } else { idle_ticks + 1 };
        if idle_ticks >= IDLE_TICKS {
            ticker.parked.store(true, Ordering::SeqCst);
            // A guest that came between the two loads has seen `parked` and unparks, or is seen here.
            while !ticker.busy.load(Ordering::SeqCst) {
                std::thread::park();
            }
            ticker.parked.store(false, Ordering::SeqCst);
            idle_ticks = 0;
        }
    }
}
