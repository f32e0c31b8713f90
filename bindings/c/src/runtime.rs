//! The process's Tokio runtime: made at the first call, made anew in a forked child, never dropped.

use std::sync::atomic::{AtomicPtr, Ordering};

use liter_llm::{ErrorKind, LlmError};
use liter_llm_border::threads;
use tokio::runtime::Runtime;

/// A runtime and the process that made it.
struct Owned {
    pid: u32,
    runtime: Runtime,
}

static CURRENT: AtomicPtr<Owned> = AtomicPtr::new(std::ptr::null_mut());

/// The runtime of this process.
///
/// After a fork the parent's threads do not exist in the child, so its runtime is left alone (dropping it would wait
/// for them) and a new one is made.
///
/// # Errors
/// The system gives no more threads.
pub fn runtime() -> Result<&'static Runtime, LlmError> {
    let pid = std::process::id();
    let current = CURRENT.load(Ordering::Acquire);
    // SAFETY: the pointer is null or comes from `Box::leak` below and is never freed.
    if let Some(owned) = unsafe { current.as_ref() }
        && owned.pid == pid
    {
        return Ok(&owned.runtime);
    }
    let runtime = threads().on_thread_start(leave_signals_to_the_host).build().map_err(|error| {
        LlmError::new(ErrorKind::Connection, format!("no threads for the engine: {error}"))
    })?;
    let made = Box::leak(Box::new(Owned { pid, runtime }));
    match CURRENT.compare_exchange(current, made, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Ok(&made.runtime),
        // SAFETY: another thread was first; its pointer is a leaked box as well.
        Err(other) => Ok(unsafe { other.as_ref() }.map_or(&made.runtime, |owned| &owned.runtime)),
    }
}

/// Has this thread take no signals but those of its own faults: the host's handlers run on the host's threads.
///
/// Also keeps `SIGPIPE` from ending a host that has not switched it off, when a provider closes its side while a
/// request is being written: the write then fails, and the engine tries again or says so.
#[cfg(unix)]
pub fn leave_signals_to_the_host() {
    // SAFETY: `set` is initialised by `sigfillset` before anything reads it; no pointer is kept.
    unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(set.as_mut_ptr());
        for fault in [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGABRT,
            libc::SIGPROF,
        ] {
            libc::sigdelset(set.as_mut_ptr(), fault);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
    }
}

#[cfg(not(unix))]
pub const fn leave_signals_to_the_host() {}
