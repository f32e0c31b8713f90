//! The process's Tokio runtime: made at the first call, made anew in a forked child, never dropped.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::thread::ThreadId;

use liter_llm_border::threads;
use tokio::runtime::Runtime;

/// A runtime and the process that made it.
struct Owned {
    pid: u32,
    runtime: Runtime,
}

static CURRENT: AtomicPtr<Owned> = AtomicPtr::new(std::ptr::null_mut());
/// The thread that ends the interpreter, once it is on its way out.
static EXITING: OnceLock<ThreadId> = OnceLock::new();

/// The runtime of this process.
///
/// After a fork the parent's threads do not exist in the child, so its runtime is left alone (dropping it would wait
/// for them) and a new one is made.
pub fn runtime() -> std::io::Result<&'static Runtime> {
    let pid = std::process::id();
    let current = CURRENT.load(Ordering::Acquire);
    // SAFETY: the pointer is null or comes from `Box::leak` below and is never freed.
    if let Some(owned) = unsafe { current.as_ref() }
        && owned.pid == pid
    {
        return Ok(&owned.runtime);
    }
    let runtime = threads().build()?;
    let made = Box::leak(Box::new(Owned { pid, runtime }));
    match CURRENT.compare_exchange(current, made, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(&made.runtime),
        // SAFETY: another thread was first; its pointer is a leaked box as well.
        Err(other) => Ok(unsafe { other.as_ref() }.map_or(&made.runtime, |owned| &owned.runtime)),
    }
}

/// Says that the interpreter is on its way out.
pub fn begin_exit() {
    let _ = EXITING.set(std::thread::current().id());
}

/// True once the interpreter is on its way out, for every thread but the one that ends it: that one may call until the
/// last moment.
pub fn exiting() -> bool {
    EXITING.get().is_some_and(|ending| *ending != std::thread::current().id())
}

/// Holds a thread that must not return into a dying interpreter; the process's end ends it.
///
/// Before Python 3.14 a thread that asks for the interpreter's lock during finalisation is torn down by
/// `pthread_exit`, which must not unwind through Rust frames.
pub fn rest_if_exiting() {
    while exiting() {
        std::thread::park();
    }
}
