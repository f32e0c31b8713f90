//! One upstream request for identical calls that are in flight together.
//!
//! The first caller leads: it makes the request, on its own task. The others wait for its outcome. When the leader is
//! cancelled, or its outcome is nobody else's business, the next in line leads. Nothing is spawned, so a leader is
//! driven by its own caller on whatever runtime that caller has, and no caller needs another's runtime to be awake.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::cache_key::CacheKey;
#[cfg(feature = "model")]
use super::sync::Seeded;
use super::sync::{Mutex, MutexGuard, lock};

/// What is shared: the same question, asked as often. Who may not repeat it must not answer for who may.
pub type Name = (CacheKey, Option<u32>);

struct Flight<T> {
    /// One permit: the right to make the request. Closed when there is an outcome.
    turn: Semaphore,
    outcome: OnceLock<T>,
}

/// A flight that callers may join, and how many have a place in it.
struct Open<T> {
    flight: Arc<Flight<T>>,
    seats: usize,
}

/// The calls in flight.
pub struct Flights<T> {
    open: Mutex<HashMap<Name, Open<T>>>,
    #[cfg(feature = "model")]
    seeded: Option<Seeded>,
}

/// A caller's place in a flight; leaves it when dropped.
pub struct Seat<'a, T> {
    flights: &'a Flights<T>,
    key: Name,
    flight: Arc<Flight<T>>,
}

/// What a caller is to do.
pub enum Turn<'a, T> {
    /// Make the request; dropping the permit lets the next in line do it.
    Lead(Option<SemaphorePermit<'a>>),
    /// Another caller's outcome.
    Shared(T),
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self {
            open: Mutex::new(HashMap::new()),
            #[cfg(feature = "model")]
            seeded: None,
        }
    }
}

impl<T> Flights<T> {
    /// Flights with a mistake in them.
    #[cfg(feature = "model")]
    #[must_use]
    pub fn with_seeded(seeded: Seeded) -> Self {
        Self { seeded: Some(seeded), ..Self::default() }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Name, Open<T>>> {
        lock(&self.open)
    }

    /// Takes a place in the flight of this key.
    pub fn seat(&self, key: Name) -> Seat<'_, T> {
        let mut open = self.open();
        let known = open.entry(key).or_insert_with(|| Open {
            flight: Arc::new(Flight { turn: Semaphore::new(1), outcome: OnceLock::new() }),
            seats: 0,
        });
        known.seats += 1;
        Seat { flights: self, key, flight: Arc::clone(&known.flight) }
    }

    /// How many different calls are in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open().len()
    }

    /// Whether no call is in flight.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open().is_empty()
    }
}

impl<T: Clone> Seat<'_, T> {
    /// The right to make the request, when nobody has it.
    #[must_use]
    pub fn try_lead(&self) -> Option<SemaphorePermit<'_>> {
        self.flight.turn.try_acquire().ok()
    }

    /// Waits for an outcome or for the right to make the request.
    pub async fn turn(&self) -> Turn<'_, T> {
        match self.flight.turn.acquire().await {
            Ok(permit) => Turn::Lead(Some(permit)),
            // Closed only after the outcome was set.
            Err(_) => self.flight.outcome.get().cloned().map_or(Turn::Lead(None), Turn::Shared),
        }
    }

    /// Hands the outcome to everyone in the flight; later callers start a new one.
    pub fn land(&self, outcome: T) {
        if self.flight.outcome.set(outcome).is_ok() {
            let mut open = self.flights.open();
            if open.get(&self.key).is_some_and(|known| Arc::ptr_eq(&known.flight, &self.flight)) {
                open.remove(&self.key);
            }
            drop(open);
            self.flight.turn.close();
        }
    }
}

impl<T> Drop for Seat<'_, T> {
    fn drop(&mut self) {
        let mut open = self.flights.open();
        // A flight that has landed is no longer there, though a later one may be, under the same name.
        let Some(known) = open.get_mut(&self.key) else { return };
        if !Arc::ptr_eq(&known.flight, &self.flight) {
            return;
        }
        #[cfg(feature = "model")]
        if self.flights.seeded == Some(Seeded::SplitCheck) {
            let last = known.seats == 1;
            drop(open);
            let mut open = self.flights.open();
            match open.get_mut(&self.key) {
                Some(_) if last => drop(open.remove(&self.key)),
                Some(known) => known.seats -= 1,
                None => {}
            }
            return;
        }
        // Places are taken and left under this lock only: whoever finds one left is the last.
        known.seats -= 1;
        if known.seats == 0 {
            open.remove(&self.key);
        }
    }
}
