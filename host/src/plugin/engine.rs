//! The engine that compiles and runs components, and the clock that interrupts them.

use std::time::Duration;

use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::sandbox::Limits;

/// How often running code is asked whether it may go on.
pub(super) const TICK: Duration = Duration::from_millis(10);

/// Core instances, memories and tables that one call may use: a component built by a current toolchain has three modules and one
/// memory; a composed one a few times that.
const PARTS_PER_CALL: u32 = 8;

/// An engine for `concurrency` calls at a time. Pools memory and stacks where the address space is large enough.
pub(super) fn start(concurrency: u32, limits: &Limits) -> wasmtime::Result<Engine> {
    let pooled = config(InstanceAllocationStrategy::Pooling(pool(concurrency, limits)));
    let engine = match Engine::new(&pooled) {
        Ok(engine) => engine,
        Err(error) => {
            // Small machines and containers refuse the reservation of address space; each call then maps its own.
            tracing::info!(%error, "no pool for component instances");
            Engine::new(&config(InstanceAllocationStrategy::OnDemand))?
        }
    };
    tick(&engine)?;
    Ok(engine)
}

fn config(allocation: InstanceAllocationStrategy) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // The contract is synchronous; without this each call is cheaper.
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(512 * 1024)
        .async_stack_size(1024 * 1024)
        // Stacks are used again by other profiles' calls.
        .async_stack_zeroing(true)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .allocation_strategy(allocation);
    config
}

fn pool(concurrency: u32, limits: &Limits) -> PoolingAllocationConfig {
    let parts = concurrency.saturating_mul(PARTS_PER_CALL);
    let mut pool = PoolingAllocationConfig::default();
    pool.total_component_instances(concurrency)
        .total_stacks(concurrency)
        .total_core_instances(parts)
        .total_memories(parts)
        .total_tables(parts)
        .max_core_instances_per_component(PARTS_PER_CALL)
        .max_memories_per_component(PARTS_PER_CALL)
        .max_tables_per_component(PARTS_PER_CALL)
        .max_memory_size(limits.memory)
        .table_elements(limits.table_elements);
    pool
}

/// Starts the thread that moves the engine's clock. It ends with the engine.
fn tick(engine: &Engine) -> wasmtime::Result<()> {
    let engine = engine.weak();
    std::thread::Builder::new().name("plugin-clock".to_owned()).spawn(move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(TICK);
        }
    })?;
    Ok(())
}
