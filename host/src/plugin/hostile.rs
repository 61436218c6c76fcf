//! Components that attack the host. Each is stopped by the limit meant for it, and a neighbour's call succeeds meanwhile.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use wasmtime::component::Component;

use super::log::{GuestLog, OUTPUT_MAX};
use super::sandbox::{CallError, Errand, Limits, Sandbox};
use crate::redaction::Secrets;

const HONEST: &str = r#"(component
    (core module $m (func (export "run")))
    (core instance $i (instantiate $m))
    (func (export "run") (canon lift (core func $i "run"))))"#;

/// A component whose `run` is the core function `run` of a module.
fn module(text: &str) -> String {
    HONEST.replace(r#"(func (export "run"))"#, text)
}

fn sandbox(limits: Limits) -> Sandbox {
    Sandbox::start(4, limits).unwrap()
}

async fn run_with(sandbox: &Sandbox, text: &str, log: GuestLog) -> Result<(), CallError> {
    let component = Component::new(&sandbox.engine, wat::parse_str(text).unwrap()).unwrap();
    let pre = sandbox.linker.instantiate_pre(&component).unwrap();
    let errand = Errand { egress: None, wall: sandbox.limits.wall, log, sent: Arc::new(AtomicU32::new(0)) };
    let call = sandbox.call(errand, |store| {
        Box::pin(async move {
            let instance = pre.instantiate_async(&mut *store).await?;
            let run = instance.get_typed_func::<(), ()>(&mut *store, "run")?;
            run.call_async(store, ()).await
        })
    });
    call.await
}

async fn run(sandbox: &Sandbox, text: &str) -> Result<(), CallError> {
    run_with(sandbox, text, GuestLog::default()).await
}

/// Runs an attack, and an honest component beside it.
async fn attack(text: &str) -> CallError {
    let sandbox = sandbox(Limits { wall: Duration::from_secs(5), ..Limits::default() });
    let started = Instant::now();
    let (attacked, neighbour) = tokio::join!(run(&sandbox, text), run(&sandbox, HONEST));
    assert_eq!(neighbour, Ok(()));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(run(&sandbox, HONEST).await, Ok(()), "the sandbox is as good as before");
    attacked.unwrap_err()
}

#[tokio::test]
async fn endless_loops_end() {
    let limit = CallError::Cpu(Limits::default().cpu);
    assert_eq!(attack(&module(r#"(func (export "run") (loop br 0))"#)).await, limit);
    let at_start = r#"(func (export "run")) (func $forever (loop br 0)) (start $forever)"#;
    assert_eq!(attack(&module(at_start)).await, limit);
}

#[tokio::test]
async fn waiting_is_not_computing_and_ends_too() {
    let limits = Limits { wall: Duration::from_millis(700), cpu: Duration::from_millis(50), ..Limits::default() };
    let started = Instant::now();
    // Thirty naps of ten milliseconds: thirty ticks of the engine's clock, hardly any work.
    let naps = sleeper(
        "(local $n i32) (loop $l (call $nap (i64.const 10000000)) (local.set $n (i32.add (local.get $n) (i32.const 1)))
        (br_if $l (i32.lt_u (local.get $n) (i32.const 30))))",
    );
    assert_eq!(run(&sandbox(limits.clone()), &naps).await, Ok(()));
    assert!(started.elapsed() >= Duration::from_millis(300));
    let long = sleeper("(call $nap (i64.const 60000000000))");
    assert_eq!(run(&sandbox(limits.clone()), &long).await, Err(CallError::Wall(limits.wall)));
}

#[tokio::test]
async fn memory_is_counted_over_all_memories() {
    let limits = Limits::default();
    let one = r#"(memory 1) (func (export "run") (loop (drop (memory.grow (i32.const 16))) br 0))"#;
    assert_eq!(attack(&module(one)).await, CallError::Memory(limits.memory));
    // Three memories, each well within the limit.
    let grow = r#"(module (memory 1) (func (export "grow") (drop (memory.grow (i32.const 190)))))"#
        .replace("(module", "(core module $m");
    let three = format!(
        r#"(component {grow}
            (core instance $a (instantiate $m)) (core instance $b (instantiate $m)) (core instance $c (instantiate $m))
            (core module $all (import "a" "grow" (func $a)) (import "b" "grow" (func $b)) (import "c" "grow" (func $c))
                (func (export "run") CALLS))
            (core instance $i (instantiate $all (with "a" (instance $a)) (with "b" (instance $b)) (with "c" (instance $c))))
            (func (export "run") (canon lift (core func $i "run"))))"#
    );
    assert_eq!(run(&sandbox(limits.clone()), &three.replace("CALLS", "call $a call $b")).await, Ok(()));
    assert_eq!(attack(&three.replace("CALLS", "call $a call $b call $c")).await, CallError::Memory(limits.memory));
}

#[tokio::test]
async fn tables_are_counted() {
    let text = r#"(table 1 funcref) (func (export "run") (loop (drop (table.grow (ref.null func) (i32.const 5000))) br 0))"#;
    assert_eq!(attack(&module(text)).await, CallError::Table(Limits::default().table_elements));
}

#[tokio::test]
async fn handles_are_counted() {
    let flood = clock(r#"(func (export "run") (loop (drop (call $subscribe (i64.const 1))) br 0))"#);
    assert_eq!(attack(&flood).await, CallError::Handles(Limits::default().handles));
    // Resources of its own, which never reach the host's table.
    let own = r#"(component
        (type $t (resource (rep i32)))
        (core func $new (canon resource.new $t))
        (core module $m (import "w" "new" (func $new (param i32) (result i32)))
            (func (export "run") (loop (drop (call $new (i32.const 1))) br 0)))
        (core instance $i (instantiate $m (with "w" (instance (export "new" (func $new))))))
        (func (export "run") (canon lift (core func $i "run"))))"#;
    let error = attack(own).await;
    assert!(matches!(&error, CallError::Trap(why) if why.contains("handle limit")), "{error:?}");
}

#[tokio::test]
async fn traps_exits_and_recursion_are_told_apart() {
    assert_eq!(
        attack(&module(r#"(func (export "run") unreachable)"#)).await,
        CallError::Trap("wasm trap: wasm `unreachable` instruction executed".to_owned())
    );
    assert_eq!(attack(&module(r#"(func $f (export "run") (call $f) (call $f))"#)).await, CallError::Stack);
    let exit = r#"(component
        (import "wasi:cli/exit@0.2.6" (instance $exit (export "exit" (func (param "status" (result))))))
        (core func $exit (canon lower (func $exit "exit")))
        (core module $m (import "w" "exit" (func $exit (param i32))) (func (export "run") (call $exit (i32.const 1))))
        (core instance $i (instantiate $m (with "w" (instance (export "exit" (func $exit))))))
        (func (export "run") (canon lift (core func $i "run"))))"#;
    assert_eq!(attack(exit).await, CallError::Exit(1));
}

#[tokio::test]
async fn randomness_is_given_in_small_portions() {
    let text = r#"(component
        (import "wasi:random/random@0.2.6" (instance $random
            (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))
        (core module $libc (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
        (core instance $libc (instantiate $libc))
        (core func $get (canon lower (func $random "get-random-bytes")
            (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
        (core module $m (import "w" "get" (func $get (param i64 i32)))
            (func (export "run") (call $get (i64.const LENGTH) (i32.const 0))))
        (core instance $i (instantiate $m (with "w" (instance (export "get" (func $get))))))
        (func (export "run") (canon lift (core func $i "run"))))"#;
    assert_eq!(run(&sandbox(Limits::default()), &text.replace("LENGTH", "4096")).await, Ok(()));
    let error = attack(&text.replace("LENGTH", "0x80000000")).await;
    assert!(matches!(&error, CallError::Trap(why) if why.contains("65536")), "{error:?}");
}

#[tokio::test]
async fn a_log_flood_is_cut_and_a_huge_argument_is_refused() {
    let sandbox = sandbox(Limits { wall: Duration::from_secs(5), ..Limits::default() });
    let log = GuestLog::default();
    let flood = writer("(loop (call $write (local.get 0) (i32.const 0) (i32.const 4096) (i32.const 8)) br 0)");
    let error = run_with(&sandbox, &flood, log.clone()).await.unwrap_err();
    assert!(matches!(error, CallError::Cpu(_) | CallError::Wall(_)), "{error:?}");
    let text = log.text(&Secrets::new([])).unwrap();
    assert!(text.len() < OUTPUT_MAX + 100 && text.ends_with("more bytes]"), "{}", text.len());

    let huge = attack(&writer("(call $write (local.get 0) (i32.const 0) (i32.const 0x1000000) (i32.const 8))")).await;
    assert!(matches!(&huge, CallError::Trap(why) if why.contains("fuel")), "{huge:?}");
}

#[tokio::test]
async fn calls_beyond_the_places_wait_and_are_then_refused() {
    let sandbox = Sandbox::start(1, Limits { wait: Duration::from_millis(100), ..Limits::default() }).unwrap();
    let nap = sleeper("(call $nap (i64.const 1000000000))");
    let (first, second) = tokio::join!(run(&sandbox, &nap), run(&sandbox, HONEST));
    assert_eq!((first, second), (Ok(()), Err(CallError::Busy)));
    assert_eq!(run(&sandbox, HONEST).await, Ok(()));
}

/// A component with `$subscribe`, which opens one resource each time.
fn clock(text: &str) -> String {
    format!(
        r#"(component
        (import "wasi:io/poll@0.2.6" (instance $poll
            (export "pollable" (type $p (sub resource)))
            (export "[method]pollable.block" (func (param "self" (borrow $p))))))
        (alias export $poll "pollable" (type $pollable))
        (import "wasi:clocks/monotonic-clock@0.2.6" (instance $clock
            (alias outer 1 $pollable (type $outer))
            (export "pollable" (type $p (eq $outer)))
            (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
        (core func $subscribe (canon lower (func $clock "subscribe-duration")))
        (core func $block (canon lower (func $poll "[method]pollable.block")))
        (core func $drop (canon resource.drop $pollable))
        (core module $m
            (import "w" "subscribe" (func $subscribe (param i64) (result i32)))
            (import "w" "block" (func $block (param i32)))
            (import "w" "drop" (func $drop (param i32)))
            (func $nap (param i64) (local $p i32)
                (local.set $p (call $subscribe (local.get 0)))
                (call $block (local.get $p))
                (call $drop (local.get $p)))
            {text})
        (core instance $i (instantiate $m (with "w" (instance
            (export "subscribe" (func $subscribe)) (export "block" (func $block)) (export "drop" (func $drop))))))
        (func (export "run") (canon lift (core func $i "run"))))"#
    )
}

fn sleeper(body: &str) -> String {
    clock(&format!(r#"(func (export "run") {body})"#))
}

/// A component that has its standard error in local 0 and `$write` for it.
fn writer(body: &str) -> String {
    format!(
        r#"(component
        (import "wasi:io/error@0.2.6" (instance $error (export "error" (type (sub resource)))))
        (alias export $error "error" (type $error-type))
        (import "wasi:io/streams@0.2.6" (instance $streams
            (alias outer 1 $error-type (type $outer))
            (export "error" (type $e (eq $outer)))
            (export "output-stream" (type $out (sub resource)))
            (type $failed (variant (case "last-operation-failed" (own $e)) (case "closed")))
            (export "stream-error" (type $failure (eq $failed)))
            (export "[method]output-stream.blocking-write-and-flush"
                (func (param "self" (borrow $out)) (param "contents" (list u8)) (result (result (error $failure)))))))
        (alias export $streams "output-stream" (type $stream))
        (import "wasi:cli/stderr@0.2.6" (instance $stderr
            (alias outer 1 $stream (type $outer))
            (export "output-stream" (type $out (eq $outer)))
            (export "get-stderr" (func (result (own $out))))))
        (core module $libc (memory (export "memory") 300))
        (core instance $libc (instantiate $libc))
        (core func $write (canon lower (func $streams "[method]output-stream.blocking-write-and-flush")
            (memory (core memory $libc "memory"))))
        (core func $get (canon lower (func $stderr "get-stderr")))
        (core module $m
            (import "w" "write" (func $write (param i32 i32 i32 i32)))
            (import "w" "get" (func $get (result i32)))
            (func $go (param i32) {body})
            (func (export "run") (call $go (call $get))))
        (core instance $i (instantiate $m (with "w" (instance (export "write" (func $write)) (export "get" (func $get))))))
        (func (export "run") (canon lift (core func $i "run"))))"#
    )
}
