//! The locks of the layers' state: the standard library's, or the model checker's under the feature `model`.
//!
//! State that is shared between calls takes its lock from here, so that the models in `tests/models.rs` run the very
//! types that ship. Under the feature `model` they work only inside the checker.

#[cfg(not(feature = "model"))]
pub use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, Ordering},
};

#[cfg(feature = "model")]
pub use shuttle::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU32, Ordering},
};

/// Takes a lock. State is changed in one step under it, so that one whose holder panicked is still whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Mistakes that can be put into a state machine, to show that its model finds them. Never in a shipped build.
#[cfg(feature = "model")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seeded {
    /// Room is looked for under one lock and taken under the next.
    SplitCheck,
    /// The outcome of a call admitted before the circuit opened is taken for a probe's.
    LateOutcome,
    /// A cancelled probe keeps its slot.
    LostProbe,
    /// A cancelled waiter leaves the line without waking the one behind it.
    LostWake,
    /// What is given back is read under one lock and written under the next.
    LostRefund,
}
