//! How a deployment does: times that fade, spikes against its own baseline, suspicion after a failure.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::length::Length;
use super::percentiles::{BUCKETS, Percentiles};
use super::silence::Silence;

/// The mean that orders deployments fades to half its weight in this time.
const RECENT: f64 = 30.0;

/// What the recent values are weighed against fades to half its weight in this time, and counts as so many values: a
/// deployment that is seldom called is not judged by its last call alone.
const STEADY: (f64, f64) = (300.0, 2.0);

/// The baseline a spike is told by fades to half its weight in this time.
const BASELINE: f64 = 600.0;

/// The weight of values that a baseline needs.
const BASELINE_WEIGHT: f64 = 8.0;

/// Slower than so many times the baseline counts towards a spike.
const SPIKE: f64 = 3.0;

/// Less than this above the baseline, in seconds, is noise, whatever the factor.
const NOISE: f64 = 0.01;

/// The weight of the last call in the share of slow calls: three in a row begin a spike, three others end it.
const LAST_CALL: f64 = 0.25;

/// Answers after which a deployment counts as known.
pub const KNOWN: u32 = 5;

/// Figures older than this are tried anew.
pub const STALE: Duration = Duration::from_secs(30);

/// The first wait before a suspect is tried; it doubles with each trial that fails.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The longest wait before a suspect is tried.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// A call given up by its caller after so many of the usual times of the deployment speaks against it.
const GIVEN_UP: f64 = 3.0;

/// The width of the heatmap's smallest bucket in seconds, and how many are kept.
pub(super) const SLOT: u64 = 10;
const SLOTS: usize = 60;

/// Buckets of time in a slot: half as fine as the percentiles, to stay small.
pub(super) const COARSE: usize = BUCKETS / 2;

/// A mean in which old values count less.
#[derive(Debug, Clone, Copy)]
struct Fading {
    half_life: f64,
    sum: f64,
    weight: f64,
    at: Duration,
}

impl Fading {
    const fn new(half_life: f64) -> Self {
        Self { half_life, sum: 0.0, weight: 0.0, at: Duration::ZERO }
    }

    fn add(&mut self, now: Duration, value: f64) {
        let age = now.saturating_sub(self.at).as_secs_f64();
        let lives = age / self.half_life;
        // In a moment's time nothing fades but by the tangent: exact to nine digits, and at once there.
        let kept = if lives < 1e-4 { 1.0 - lives * std::f64::consts::LN_2 } else { (-lives).exp2() };
        self.sum = self.sum * kept + value;
        self.weight = self.weight * kept + 1.0;
        self.at = self.at.max(now);
    }

    fn mean(&self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

/// The times of one kind: to the whole answer, or to a stream's first chunk.
#[derive(Debug)]
struct Series {
    recent: Fading,
    steady: Fading,
    baseline: Fading,
    percentiles: Percentiles,
    /// The last three values.
    last: [f64; 3],
    samples: u32,
    /// The share of slow calls among the last few.
    slow: f64,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            recent: Fading::new(RECENT),
            steady: Fading::new(STEADY.0),
            baseline: Fading::new(BASELINE),
            percentiles: Percentiles::default(),
            last: [0.0; 3],
            samples: 0,
            slow: 0.0,
        }
    }
}

impl Series {
    fn add(&mut self, now: Duration, seconds: f64) {
        self.last.rotate_left(1);
        self.last[2] = seconds;
        self.samples = self.samples.saturating_add(1);
        self.recent.add(now, seconds);
        self.steady.add(now, seconds);
        if let Some(usual) = self.baseline.mean().filter(|_| self.baseline.weight >= BASELINE_WEIGHT) {
            let before = self.spiking();
            let slow = f64::from(u8::from(seconds > (SPIKE * usual).max(usual + NOISE)));
            self.slow += LAST_CALL * (slow - self.slow);
            if before != self.spiking() {
                self.slow = f64::from(u8::from(!before));
                // What was before says nothing of what is now.
                for mean in [&mut self.recent, &mut self.steady] {
                    mean.weight = 3.0;
                    mean.sum = self.last.iter().sum();
                }
            }
        }
        self.baseline.add(now, seconds);
        self.percentiles.add(now, seconds);
    }

    fn mean(&self) -> Option<f64> {
        let steady = self.steady.mean()?;
        Some(STEADY.1.mul_add(steady, self.recent.sum) / (STEADY.1 + self.recent.weight))
    }

    fn spiking(&self) -> bool {
        self.slow > 0.5
    }
}

/// What is read of a series without a lock. A time is the bits of its seconds; not a number while it is not known.
#[derive(Debug)]
struct Shown {
    mean: AtomicU64,
    /// Whether the percentiles are those of all values; they are worked out when they are asked for.
    current: AtomicBool,
    p50: AtomicU64,
    p95: AtomicU64,
    samples: AtomicU32,
    spiking: AtomicBool,
    /// When the last value came, in nanoseconds.
    at: AtomicU64,
}

impl Default for Shown {
    fn default() -> Self {
        let unknown = || AtomicU64::new(f64::NAN.to_bits());
        Self {
            mean: unknown(),
            current: AtomicBool::new(true),
            p50: unknown(),
            p95: unknown(),
            samples: AtomicU32::new(0),
            spiking: AtomicBool::new(false),
            at: AtomicU64::new(0),
        }
    }
}

fn seconds(bits: &AtomicU64) -> Option<f64> {
    Some(f64::from_bits(bits.load(Relaxed))).filter(|seconds| !seconds.is_nan())
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Shown {
    fn show(&self, series: &Series) {
        self.mean.store(series.mean().unwrap_or(f64::NAN).to_bits(), Relaxed);
        self.current.store(false, Relaxed);
        self.samples.store(series.samples, Relaxed);
        self.spiking.store(series.spiking(), Relaxed);
        self.at.store(nanos(series.recent.at), Relaxed);
    }
}

/// What happened in [`SLOT`] seconds.
#[derive(Debug)]
pub(super) struct Slot {
    /// Which one, counted from the clock's beginning.
    pub number: u64,
    pub calls: u32,
    pub failures: u32,
    pub times: Box<[u16; COARSE]>,
}

#[derive(Debug, Default)]
struct State {
    whole: Series,
    streamed: Series,
    calls: u64,
    failures: u64,
    /// Failures since it is suspect; none: it is not.
    suspicions: u32,
    suspect_since: Duration,
    wait: Duration,
    slots: VecDeque<Slot>,
}

impl State {
    fn slot(&mut self, now: Duration) -> &mut Slot {
        let number = now.as_secs() / SLOT;
        // Outcomes noted by another thread may come a moment late; they go to the newest slot.
        if self.slots.back().is_none_or(|last| last.number < number) {
            if self.slots.len() == SLOTS {
                self.slots.pop_front();
            }
            self.slots.push_back(Slot { number, calls: 0, failures: 0, times: Box::new([0; COARSE]) });
        }
        let last = self.slots.len() - 1;
        &mut self.slots[last]
    }

    fn fault(&mut self, now: Duration) {
        self.calls += 1;
        self.failures += 1;
        let slot = self.slot(now);
        slot.calls = slot.calls.saturating_add(1);
        slot.failures = slot.failures.saturating_add(1);
    }
}

/// The statistics of one deployment. Times come from outside, so that they can be compressed.
///
/// A lock is taken for a hundred nanoseconds or so, once per call and when percentiles are asked for; what orders
/// deployments is read without one.
#[derive(Debug, Default)]
pub struct Stats {
    state: Mutex<State>,
    whole: Shown,
    streamed: Shown,
    in_flight: AtomicU32,
    pub(super) silence: Silence,
    pub(super) length: Length,
    /// Failures since it is suspect; 0: it is not.
    doubts: AtomicU32,
    /// Until when no trial is made, in nanoseconds.
    no_trial_until: AtomicU64,
}

/// What the statistics say at one moment. Times in seconds; `None` while nothing is known.
///
/// ```
/// use liter_llm::Figures;
///
/// let figures = Figures { calls: 40, failures: 2, latency_p95: Some(1.8), ..Figures::default() };
/// assert!(!figures.suspect && figures.failures * 10 < figures.calls);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Figures {
    /// Seconds to the whole answer, lately.
    pub latency: Option<f64>,
    /// The middle of the times to the whole answer.
    pub latency_p50: Option<f64>,
    /// The time that 95 % of whole answers stay under.
    pub latency_p95: Option<f64>,
    /// Seconds to a stream's first chunk, lately.
    pub first_chunk: Option<f64>,
    /// The middle of the times to the first chunk.
    pub first_chunk_p50: Option<f64>,
    /// The time that 95 % of first chunks stay under.
    pub first_chunk_p95: Option<f64>,
    /// Calls ended.
    pub calls: u64,
    /// Of these, those that failed through the deployment's fault.
    pub failures: u64,
    /// Calls that have not ended, those in line included.
    pub in_flight: u32,
    /// Whether it failed lately and has not answered since.
    pub suspect: bool,
    /// Whether it is slower than a factor of its own baseline now.
    pub spiking: bool,
}

/// What a policy orders by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lately {
    /// The mean time in seconds; `None` before the first answer.
    pub latency: Option<f64>,
    /// Answers timed so far.
    pub samples: u32,
    /// Whether it is slower than a factor of its own baseline.
    pub spiking: bool,
    /// When the last answer came.
    pub at: Duration,
}

impl Stats {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    const fn shown(&self, streamed: bool) -> &Shown {
        if streamed { &self.streamed } else { &self.whole }
    }

    /// A call sets out.
    pub fn begun(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    /// A call is over, in whatever way.
    pub fn ended(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    /// A call was answered after this time: to the end, or to the first chunk of a stream.
    pub fn answered(&self, now: Duration, took: Duration, streamed: bool) {
        let mut state = self.state();
        let state = &mut *state;
        let series = if streamed { &mut state.streamed } else { &mut state.whole };
        let took_seconds = took.as_secs_f64();
        series.add(now, took_seconds);
        self.shown(streamed).show(series);
        state.calls += 1;
        let slot = state.slot(now);
        slot.calls = slot.calls.saturating_add(1);
        let bucket = &mut slot.times[super::percentiles::bucket(took_seconds) / 2];
        *bucket = bucket.saturating_add(1);
        // Of an outage, the calls that set out before it speak only when a single one failed so far.
        if state.suspicions == 1 || now.saturating_sub(took) >= state.suspect_since {
            self.clear(state);
        }
    }

    fn clear(&self, state: &mut State) {
        if state.suspicions > 0 {
            state.suspicions = 0;
            self.doubts.store(0, Relaxed);
        }
        self.no_trial_until.store(0, Relaxed);
    }

    /// A call failed through the deployment's fault. Its time says nothing of the latency.
    pub fn failed(&self, now: Duration) {
        let mut state = self.state();
        state.fault(now);
        state.suspicions = state.suspicions.saturating_add(1);
        if state.suspicions == 1 {
            state.suspect_since = now;
            state.wait = FIRST_WAIT;
            self.no_trial_until.store(nanos(now + FIRST_WAIT), Relaxed);
        }
        self.doubts.store(state.suspicions, Relaxed);
    }

    /// A call was given up by its caller after this time. That speaks against the deployment when the call's own
    /// time was up (`time_up`) and the deployment usually needs less, or when it took far longer than usual.
    pub fn given_up(&self, now: Duration, took: Duration, streamed: bool, time_up: bool) {
        let usual = self.p95(streamed);
        let took_seconds = took.as_secs_f64();
        let late = time_up && usual.is_none_or(|usual| took_seconds > usual);
        let long = took > FIRST_WAIT && usual.is_some_and(|usual| took_seconds > GIVEN_UP * usual);
        if late || long {
            self.failed(now);
        }
    }

    /// Whether a trial may be made now; if so it is this caller's, and nobody else's until `lease` is over.
    pub fn claim_trial(&self, now: Duration, lease: Duration) -> bool {
        let until = self.no_trial_until.load(Relaxed);
        until <= nanos(now)
            && self
                .no_trial_until
                .compare_exchange(until, nanos(now + lease).max(until + 1), Relaxed, Relaxed)
                .is_ok()
    }

    /// How a trial ended: the deployment answered, or the next trial waits twice as long.
    pub fn tried(&self, now: Duration, answered: bool) {
        let mut state = self.state();
        if answered {
            // Calls that still wait were lost with the outage.
            self.silence.over();
            return self.clear(&mut state);
        }
        state.fault(now);
        if state.suspicions == 0 {
            state.suspect_since = now;
            state.wait = FIRST_WAIT;
        } else {
            state.wait = (state.wait * 2).min(LONGEST_WAIT);
        }
        state.suspicions = state.suspicions.saturating_add(1);
        self.doubts.store(state.suspicions, Relaxed);
        self.no_trial_until.store(nanos(now + state.wait), Relaxed);
    }

    /// A trial said nothing either way.
    pub fn untried(&self, now: Duration) {
        self.no_trial_until.store(nanos(now + FIRST_WAIT), Relaxed);
    }

    /// What a policy orders by.
    #[must_use]
    pub fn lately(&self, streamed: bool) -> Lately {
        let shown = self.shown(streamed);
        Lately {
            latency: seconds(&shown.mean),
            samples: shown.samples.load(Relaxed),
            spiking: shown.spiking.load(Relaxed),
            at: Duration::from_nanos(shown.at.load(Relaxed)),
        }
    }

    /// The time that 95 % of the answers (of the first chunks) stay under, in seconds.
    #[must_use]
    pub fn p95(&self, streamed: bool) -> Option<f64> {
        self.percentiles(streamed).1
    }

    /// The middle of the times and the one that 95 % stay under.
    pub(super) fn percentiles(&self, streamed: bool) -> (Option<f64>, Option<f64>) {
        let shown = self.shown(streamed);
        if !shown.current.load(Relaxed) {
            // Values come in under the same lock.
            let state = self.state();
            let series = if streamed { &state.streamed } else { &state.whole };
            if let Some(pair) = series.percentiles.pair() {
                shown.p50.store(pair.p50.to_bits(), Relaxed);
                shown.p95.store(pair.p95.to_bits(), Relaxed);
            }
            shown.current.store(true, Relaxed);
        }
        (seconds(&shown.p50), seconds(&shown.p95))
    }

    /// Calls that have not ended, those in line included.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Whether it failed lately and has not answered since.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.doubts() > 0
    }

    /// How often it has failed since it last answered, trials included.
    #[must_use]
    pub fn doubts(&self) -> u32 {
        self.doubts.load(Relaxed)
    }

    /// All figures.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let (calls, failures) = {
            let state = self.state();
            (state.calls, state.failures)
        };
        let ((latency_p50, latency_p95), (first_chunk_p50, first_chunk_p95)) =
            (self.percentiles(false), self.percentiles(true));
        Figures {
            latency: seconds(&self.whole.mean),
            latency_p50,
            latency_p95,
            first_chunk: seconds(&self.streamed.mean),
            first_chunk_p50,
            first_chunk_p95,
            calls,
            failures,
            in_flight: self.in_flight(),
            suspect: self.is_suspect(),
            spiking: self.whole.spiking.load(Relaxed) || self.streamed.spiking.load(Relaxed),
        }
    }

    /// Shows the slots that are kept, oldest first.
    pub(super) fn each_slot(&self, see: impl FnMut(&Slot)) {
        self.state().slots.iter().for_each(see);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    #[test]
    fn latencies_fade_and_failures_never_count_as_fast() {
        let stats = Stats::default();
        stats.answered(at(4.0), at(4.0), false);
        stats.failed(at(4.1));
        let figures = stats.figures();
        assert!(figures.latency == Some(4.0) && figures.suspect);
        assert!((figures.latency_p95.unwrap() / 4.0 - 1.0).abs() < 0.07);
        stats.answered(at(120.0), at(1.0), false);
        let figures = stats.figures();
        assert!(figures.latency.unwrap() < 2.0 && figures.first_chunk.is_none() && !figures.suspect);
        assert_eq!((figures.calls, figures.failures), (3, 1));
    }

    #[test]
    fn a_spike_begins_after_three_slow_calls_and_ends_after_three_others() {
        let stats = Stats::default();
        for call in 0..50 {
            stats.answered(at(f64::from(call)), at(0.2), true);
        }
        let spiking_after = |from: f64, took: f64| {
            (1..=3)
                .map(|call| {
                    stats.answered(at(from + f64::from(call)), at(took), true);
                    stats.lately(true).spiking
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(spiking_after(50.0, 0.5), [false; 3], "2.5 times the baseline is no spike");
        assert_eq!(spiking_after(60.0, 1.0), [false, false, true]);
        assert!((stats.lately(true).latency.unwrap() - 1.0).abs() < 1e-9, "the time before is forgotten");
        assert_eq!(spiking_after(70.0, 0.2), [true, true, false]);
        assert!((stats.lately(true).latency.unwrap() - 0.2).abs() < 1e-9);
        assert!(!stats.lately(false).spiking && stats.figures().first_chunk_p50.unwrap() < 0.22);
    }

    #[test]
    fn a_level_that_stays_becomes_the_baseline() {
        let stats = Stats::default();
        for call in 0..4000 {
            let took = if call < 100 { 0.2 } else { 1.0 };
            stats.answered(at(f64::from(call)), at(took), false);
        }
        assert!(!stats.lately(false).spiking);
    }

    #[test]
    fn trials_are_claimed_once_and_wait_longer_each_time() {
        let stats = Stats::default();
        let lease = at(10.0);
        stats.failed(at(5.0));
        stats.failed(at(5.5));
        assert!(!stats.claim_trial(at(5.9), lease) && stats.claim_trial(at(6.0), lease));
        assert!(!stats.claim_trial(at(6.0), lease), "one at a time");
        stats.tried(at(7.0), false);
        assert!(!stats.claim_trial(at(8.9), lease) && stats.claim_trial(at(9.0), lease));
        stats.tried(at(9.0), false);
        assert!(!stats.claim_trial(at(12.9), lease) && stats.claim_trial(at(13.0), lease));
        assert!(!stats.claim_trial(at(22.9), lease) && stats.claim_trial(at(23.0), lease), "a lost trial");
        stats.tried(at(24.0), true);
        assert!(!stats.is_suspect() && stats.claim_trial(at(24.0), lease));
    }

    #[test]
    fn answers_of_calls_from_before_an_outage_do_not_end_it() {
        let stats = Stats::default();
        stats.failed(at(10.0));
        stats.answered(at(10.1), at(5.0), false);
        assert!(!stats.is_suspect(), "a single failure among answers");
        stats.failed(at(10.2));
        stats.failed(at(10.3));
        stats.answered(at(10.4), at(5.0), false);
        assert!(stats.is_suspect());
        stats.answered(at(10.5), at(0.1), false);
        assert!(!stats.is_suspect());
    }

    #[test]
    fn a_call_given_up_speaks_against_it_when_it_was_late() {
        let stats = Stats::default();
        stats.given_up(at(1.0), at(1.0), false, false);
        assert_eq!((stats.is_suspect(), stats.figures().calls), (false, 0));
        stats.answered(at(2.0), at(0.5), false);
        stats.given_up(at(4.0), at(1.4), false, false);
        assert!(!stats.is_suspect());
        stats.given_up(at(4.0), at(2.0), false, false);
        assert!(stats.is_suspect());
        let fresh = Stats::default();
        fresh.given_up(at(1.0), at(1.0), true, true);
        assert!(fresh.is_suspect());
    }
}
