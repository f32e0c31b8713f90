//! How far a call has come, told by whoever carries it out to a layer around it.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

tokio::task_local! {
    static BEGUN: Arc<OnceLock<Instant>>;
}

/// Carries out a call; `begun` is set when the first byte of its answer is there.
pub async fn watch<F: Future>(begun: Arc<OnceLock<Instant>>, call: F) -> F::Output {
    BEGUN.scope(begun, call).await
}

/// Tells that the first byte of the answer is there. Does nothing when nobody watches.
pub fn answer_begun() {
    // An error only says that nobody watches.
    let _ = BEGUN.try_with(|begun| begun.set(Instant::now()));
}
