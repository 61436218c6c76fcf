//! One call of a component: a fresh store, budgets for everything, and what became of it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use wasmtime::component::{Linker, ResourceTable, ResourceTableError};
use wasmtime::{Engine, ResourceLimiter, Store, Trap, UpdateDeadline};
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::p2::bindings::{cli, random};
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::contract::{Effect, Problem, ProblemKind, Retry};
use super::door::Door;
use super::engine;
use super::log::GuestLog;
use crate::egress::Egress;

/// What one call of a component may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Time in which the component's own code runs; waiting for the network is not counted.
    pub cpu: Duration,
    /// Time for an operation that only asks.
    pub wall: Duration,
    /// The most time for a change; its own deadline is usually shorter.
    pub change_wall: Duration,
    /// Time to wait for a place among the calls that run.
    pub wait: Duration,
    /// Bytes of all linear memories together.
    pub memory: usize,
    /// Elements of all tables together.
    pub table_elements: usize,
    /// Bytes (roughly) that one call of a host function may hand over.
    pub hostcall_bytes: usize,
    /// Resources that are open at the same time.
    pub handles: usize,
    /// Bytes (roughly) of one set of header fields.
    pub fields: usize,
    /// Random bytes asked for at once.
    pub random: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu: Duration::from_millis(200),
            wall: Duration::from_mins(1),
            change_wall: Duration::from_mins(5),
            wait: Duration::from_secs(5),
            memory: 32 * 1024 * 1024,
            table_elements: 20_000,
            hostcall_bytes: 4 * 1024 * 1024,
            handles: 256,
            fields: 16 * 1024,
            random: 64 * 1024,
        }
    }
}

/// How a call of a component failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// All places were taken for as long as the call could wait. Nothing ran.
    #[error("too many calls at the same time")]
    Busy,
    /// Its code ran too long.
    #[error("the component computed for more than {0:?}")]
    Cpu(Duration),
    /// It did not answer in time.
    #[error("the component did not answer within {0:?}")]
    Wall(Duration),
    /// It asked for too much memory.
    #[error("the component asked for more than {0} bytes of memory")]
    Memory(usize),
    /// It asked for too large tables.
    #[error("the component asked for more than {0} table elements")]
    Table(usize),
    /// It opened too many resources.
    #[error("the component opened more than {0} resources")]
    Handles(usize),
    /// It recursed too deeply.
    #[error("the component's stack overflowed")]
    Stack,
    /// It ended itself.
    #[error("the component ended itself with code {0}")]
    Exit(i32),
    /// Anything else that WebAssembly or the host forbids.
    #[error("the component was stopped: {0}")]
    Trap(String),
}

impl CallError {
    /// The failure in the contract's words. `may_have_acted`: the call was to change something and a request had left.
    pub fn problem(&self, may_have_acted: bool) -> Problem {
        let retry = match self {
            Self::Busy | Self::Wall(_) => Retry::AfterMs(1000),
            _ => Retry::Never,
        };
        Problem {
            kind: ProblemKind::Internal,
            effect: if may_have_acted { Effect::Unknown } else { Effect::None },
            retry,
            message: self.to_string(),
            public_message: None,
            field: None,
            provider_code: None,
            remote_id: None,
        }
    }

    fn of(error: &wasmtime::Error, limits: &Limits) -> Self {
        if let Some(limit) = error.downcast_ref::<Self>() {
            return limit.clone();
        }
        if let Some(I32Exit(code)) = error.downcast_ref() {
            return Self::Exit(*code);
        }
        if matches!(error.downcast_ref(), Some(ResourceTableError::Full)) {
            return Self::Handles(limits.handles);
        }
        match error.downcast_ref() {
            Some(Trap::StackOverflow) => Self::Stack,
            Some(trap) => Self::Trap(trap.to_string()),
            None => Self::Trap(error.root_cause().to_string()),
        }
    }
}

/// What a call takes along.
pub(super) struct Errand {
    /// The way to the network; without one every request is refused.
    pub(super) egress: Option<Egress>,
    /// How long it may take.
    pub(super) wall: Duration,
    /// Where the component's output goes.
    pub(super) log: GuestLog,
    /// Counts the requests that may have reached the other side.
    pub(super) sent: Arc<AtomicU32>,
}

/// A call's result under way, inside the store it runs in.
pub(super) type Running<'a, T> = Pin<Box<dyn Future<Output = wasmtime::Result<T>> + Send + 'a>>;

/// Where components run.
#[derive(Clone)]
pub(super) struct Sandbox {
    pub(super) engine: Engine,
    pub(super) linker: Arc<Linker<Guest>>,
    pub(super) limits: Arc<Limits>,
    places: Arc<Semaphore>,
}

impl Sandbox {
    pub(super) fn start(concurrency: u32, limits: Limits) -> wasmtime::Result<Self> {
        let engine = engine::start(concurrency, &limits)?;
        let linker = Arc::new(linker(&engine)?);
        Ok(Self { engine, linker, limits: Arc::new(limits), places: Arc::new(Semaphore::new(concurrency as usize)) })
    }

    /// Runs `work` in a fresh store that is dropped at the end, whatever happens.
    pub(super) async fn call<T>(
        &self,
        errand: Errand,
        work: impl for<'a> FnOnce(&'a mut Store<Guest>) -> Running<'a, T> + Send,
    ) -> Result<T, CallError> {
        let Ok(Ok(_place)) = tokio::time::timeout(self.limits.wait, self.places.acquire()).await else {
            return Err(CallError::Busy);
        };
        let wall = errand.wall;
        let meter = Arc::new(Meter::default());
        let mut store = self.store(errand, Arc::clone(&meter));
        let running = Metered { inner: work(&mut store), meter };
        match tokio::time::timeout(wall, running).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(CallError::of(&error, &self.limits)),
            Err(_) => Err(CallError::Wall(wall)),
        }
    }

    fn store(&self, errand: Errand, meter: Arc<Meter>) -> Store<Guest> {
        let limits = &self.limits;
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(limits.fields);
        // No arguments, no environment, no input; sockets and files are not even linked.
        let wasi = WasiCtx::builder().max_random_size(limits.random).stdout(errand.log.clone()).stderr(errand.log).build();
        let door = Door::new(errand.egress, errand.sent);
        let growth = Growth { memory: 0, memory_max: limits.memory, tables: 0, tables_max: limits.table_elements, last: 0 };
        let mut store = Store::new(&self.engine, Guest { wasi, http, table, door, growth });
        store.limiter(|guest| &mut guest.growth);
        store.set_hostcall_fuel(limits.hostcall_bytes);
        store.set_max_component_handles(limits.handles);
        store.set_epoch_deadline(1);
        let budget = limits.cpu;
        // Called only while the component's code runs, and it lets other tasks run each time.
        store.epoch_deadline_callback(move |_| {
            if meter.spent() > budget {
                return Err(CallError::Cpu(budget).into());
            }
            Ok(UpdateDeadline::Yield(1))
        });
        store
    }
}

/// What a component finds: streams, clocks, randomness, HTTP, and of wasi:cli what a standard library imports.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::<Guest>::new(engine);
    let l = &mut linker;
    wasmtime_wasi::p2::add_to_linker_proxy_interfaces_async(l)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(l)?;
    random::insecure_seed::add_to_linker::<Guest, WasiRandom>(l, |guest| guest.wasi.random())?;
    cli::environment::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::exit::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_input::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_output::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdin::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stdout::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    cli::terminal_stderr::add_to_linker::<Guest, WasiCli>(l, Guest::cli)?;
    Ok(linker)
}

/// The host's side of one instance.
pub(super) struct Guest {
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
    door: Door,
    growth: Growth,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.door, table: &mut self.table, ctx: &mut self.http }
    }
}

/// Counts all memories and all tables of an instance together; wasmtime's own limiter looks at each alone.
struct Growth {
    memory: usize,
    memory_max: usize,
    tables: usize,
    tables_max: usize,
    last: usize,
}

impl ResourceLimiter for Growth {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.last = desired.saturating_sub(current);
        let sum = self.memory.saturating_add(self.last);
        if sum > self.memory_max {
            return Err(CallError::Memory(self.memory_max).into());
        }
        self.memory = sum;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory = self.memory.saturating_sub(self.last);
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.last = desired.saturating_sub(current);
        let sum = self.tables.saturating_add(self.last);
        if sum > self.tables_max {
            return Err(CallError::Table(self.tables_max).into());
        }
        self.tables = sum;
        Ok(true)
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.tables = self.tables.saturating_sub(self.last);
        Ok(())
    }
}

/// Time in which a call was running rather than waiting. Counting ticks of the engine's clock instead would charge a whole tick for
/// each answer from the network.
#[derive(Default)]
struct Meter {
    spent_ns: AtomicU64,
    resumed: std::sync::Mutex<Option<Instant>>,
}

impl Meter {
    fn spent(&self) -> Duration {
        let now = self.resumed.lock().ok().and_then(|resumed| *resumed).map_or(Duration::ZERO, |at| at.elapsed());
        Duration::from_nanos(self.spent_ns.load(Ordering::Relaxed)) + now
    }

    fn resume(&self) {
        if let Ok(mut resumed) = self.resumed.lock() {
            *resumed = Some(Instant::now());
        }
    }

    fn pause(&self) {
        let spent = u64::try_from(self.spent().as_nanos()).unwrap_or(u64::MAX);
        self.spent_ns.store(spent, Ordering::Relaxed);
        if let Ok(mut resumed) = self.resumed.lock() {
            *resumed = None;
        }
    }
}

struct Metered<'a, T> {
    inner: Running<'a, T>,
    meter: Arc<Meter>,
}

impl<T> Future for Metered<'_, T> {
    type Output = wasmtime::Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.meter.resume();
        let result = self.inner.as_mut().poll(cx);
        self.meter.pause();
        result
    }
}
