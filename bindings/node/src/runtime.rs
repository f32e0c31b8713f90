//! The process's Tokio runtime: made at the first call, shared by all threads of JavaScript's, never dropped.

use std::sync::OnceLock;

use liter_llm::{ErrorKind, LlmError};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// The runtime.
pub fn runtime() -> Result<&'static Runtime, LlmError> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = Builder::new_multi_thread()
        .worker_threads(cores.clamp(1, 4))
        // Name resolution: made when needed. A few names that cannot be resolved must not keep the others waiting.
        .max_blocking_threads(32)
        .thread_name("liter-llm")
        .enable_all()
        .build()
        .map_err(|error| LlmError::new(ErrorKind::Config, format!("no threads for calls: {error}")))?;
    Ok(RUNTIME.get_or_init(|| runtime))
}
