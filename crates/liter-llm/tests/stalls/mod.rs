//! How late this machine is: measured beside a test, so that its stalls are told from faults of the code.
//!
//! A bound on time that was not kept while the machine stalled is measured again. The bound stays as it is, repeats are
//! few, and on a machine that keeps its time nothing is repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Between two looks at the clock.
const TICK: Duration = Duration::from_millis(5);
/// A look that came later than this is a stall.
const LATE: Duration = Duration::from_millis(10);
/// So often is a measurement taken at most.
const TRIES: usize = 5;

/// While it lives, a thread sleeps tick by tick and notes by how much it woke up too late.
struct Stalls {
    over: Arc<AtomicBool>,
    worst: Arc<AtomicU64>,
}

impl Stalls {
    fn watch() -> Self {
        let stalls = Self { over: Arc::default(), worst: Arc::default() };
        let (over, worst) = (Arc::clone(&stalls.over), Arc::clone(&stalls.worst));
        std::thread::spawn(move || {
            while !over.load(Relaxed) {
                let before = Instant::now();
                std::thread::sleep(TICK);
                let late = before.elapsed().saturating_sub(TICK).as_micros();
                worst.fetch_max(u64::try_from(late).unwrap_or(u64::MAX), Relaxed);
            }
        });
        stalls
    }

    fn worst(&self) -> Duration {
        Duration::from_micros(self.worst.load(Relaxed))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
    }
}

/// Measures, and again while the machine stalls; the measurement is told its number, and fails by itself for all but
/// its bound on time: of that it gives what was too late.
pub async fn on_time(mut measure: impl AsyncFnMut(usize) -> Result<(), String>) {
    for number in 0..TRIES {
        let stalls = Stalls::watch();
        let Err(late) = measure(number).await else { return };
        assert!(number + 1 < TRIES && stalls.worst() >= LATE, "too late: {late}");
    }
}
