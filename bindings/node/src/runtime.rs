//! The process's Tokio runtime: made at the first call, shared by all threads of JavaScript's, never dropped.

use std::sync::OnceLock;

use liter_llm::{ErrorKind, LlmError};
use liter_llm_border::threads;
use tokio::runtime::Runtime;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// The runtime.
pub fn runtime() -> Result<&'static Runtime, LlmError> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let runtime = threads()
        .build()
        .map_err(|error| LlmError::new(ErrorKind::Config, format!("no threads for calls: {error}")))?;
    Ok(RUNTIME.get_or_init(|| runtime))
}
