//! The threads calls run on.

use tokio::runtime::Builder;

/// A Tokio runtime as every binding makes it, once for a process: a binding adds what its language needs.
#[must_use]
pub fn threads() -> Builder {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(cores.clamp(1, 4))
        // Name resolution: made when needed. A few names that cannot be resolved must not keep the others waiting.
        .max_blocking_threads(32)
        .thread_name("liter-llm")
        .enable_all();
    builder
}
