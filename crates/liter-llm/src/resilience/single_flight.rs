//! One upstream request for identical calls that are in flight together.
//!
//! The first caller leads: it makes the request, on its own task. The others wait for its outcome. When the leader is
//! cancelled, or its outcome is nobody else's business, the next in line leads. Nothing is spawned, so a leader is
//! driven by its own caller on whatever runtime that caller has, and no caller needs another's runtime to be awake.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::cache_key::CacheKey;

/// What is shared: the same question, asked as often. Who may not repeat it must not answer for who may.
pub(crate) type Name = (CacheKey, Option<u32>);

struct Flight<T> {
    /// One permit: the right to make the request. Closed when there is an outcome.
    turn: Semaphore,
    outcome: OnceLock<T>,
}

/// The calls in flight.
pub(crate) struct Flights<T> {
    open: Mutex<HashMap<Name, Arc<Flight<T>>>>,
}

/// A caller's place in a flight; leaves it when dropped.
pub(crate) struct Seat<'a, T> {
    flights: &'a Flights<T>,
    key: Name,
    flight: Arc<Flight<T>>,
}

/// What a caller is to do.
pub(crate) enum Turn<'a, T> {
    /// Make the request; dropping the permit lets the next in line do it.
    Lead(Option<SemaphorePermit<'a>>),
    /// Another caller's outcome.
    Shared(T),
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self { open: Mutex::new(HashMap::new()) }
    }
}

impl<T: Clone> Flights<T> {
    fn open(&self) -> MutexGuard<'_, HashMap<Name, Arc<Flight<T>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place in the flight of this key.
    pub(crate) fn seat(&self, key: Name) -> Seat<'_, T> {
        let mut open = self.open();
        let flight = open
            .entry(key)
            .or_insert_with(|| Arc::new(Flight { turn: Semaphore::new(1), outcome: OnceLock::new() }));
        Seat { flights: self, key, flight: Arc::clone(flight) }
    }

    /// How many different calls are in flight.
    pub(crate) fn len(&self) -> usize {
        self.open().len()
    }
}

impl<T: Clone> Seat<'_, T> {
    /// The right to make the request, when nobody has it.
    pub(crate) fn try_lead(&self) -> Option<SemaphorePermit<'_>> {
        self.flight.turn.try_acquire().ok()
    }

    /// Waits for an outcome or for the right to make the request.
    pub(crate) async fn turn(&self) -> Turn<'_, T> {
        match self.flight.turn.acquire().await {
            Ok(permit) => Turn::Lead(Some(permit)),
            // Closed only after the outcome was set.
            Err(_) => self.flight.outcome.get().cloned().map_or(Turn::Lead(None), Turn::Shared),
        }
    }

    /// Hands the outcome to everyone in the flight; later callers start a new one.
    pub(crate) fn land(&self, outcome: T) {
        if self.flight.outcome.set(outcome).is_ok() {
            self.leave();
            self.flight.turn.close();
        }
    }

    fn leave(&self) {
        let mut open = self.flights.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(&self.key).is_some_and(|known| Arc::ptr_eq(known, &self.flight)) {
            open.remove(&self.key);
        }
    }
}

impl<T> Drop for Seat<'_, T> {
    fn drop(&mut self) {
        let mut open = self.flights.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Places are taken under the same lock, so a count of two (the map's and this one) is the last of them.
        if Arc::strong_count(&self.flight) == 2
            && open.get(&self.key).is_some_and(|known| Arc::ptr_eq(known, &self.flight))
        {
            open.remove(&self.key);
        }
    }
}
