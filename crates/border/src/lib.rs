//! What all language bindings share: requests and answers as JSON bytes, errors as one payload, streams in batches.
//!
//! A binding adds what its language needs: memory, event loop, exceptions. `docs/wire.md` describes the JSON.

mod call;
mod cost;
mod feed;
mod metrics;
mod order;
mod question;
mod retry;
mod threads;

pub use call::{Answer, Outcome, answer, closed, payload};
pub use cost::catalog_cost;
pub use feed::{Feed, Waiter, pump};
pub use metrics::ProcessMetrics;
pub use order::{ForeignProvider, Order};
pub use question::{ForeignPolicy, Question};
pub use retry::{RetryFacts, retry_wait};
pub use threads::threads;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks. A poisoned lock only means that another thread panicked; the data behind it is still whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the Rust of the page on adding a language.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/new-binding.md")]
struct NewBinding;
