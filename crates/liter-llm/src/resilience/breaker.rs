//! The circuit breaker as a state machine: no I/O, no clock of its own, one lock.
//!
//! Closed: calls pass. After `failures` failures in a row, or as many `429`s in a row, it opens for `open_time`. Then it
//! is half-open: a round of exactly `probes` calls may try. When those that ran all succeeded it closes; the first that
//! fails opens it again. Beside the circuit stands the cooldown: until a time the provider named, no call passes.

use std::sync::Arc;
use std::time::Duration;

use super::options::CircuitOptions;
#[cfg(feature = "model")]
use super::sync::Seeded;
use super::sync::{Mutex, lock};

/// The longest time a `Retry-After` keeps calls away. A longer one is a daily quota or a mistake: one call an hour
/// finds out which.
pub const LONGEST_COOLDOWN: Duration = Duration::from_secs(3600);

/// What a refused call is told to wait while all probes are on their way.
const PROBES_RUNNING: Duration = Duration::from_secs(1);

/// What came of a call. A call that says nothing of the deployment (a caller's mistake, a cancelled call) has no
/// outcome: its permit is dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Outcome {
    /// It was answered.
    Success,
    /// The deployment failed.
    Failure,
    /// The deployment asked for fewer calls (`429`), perhaps with a time to wait.
    Limited(Option<Duration>),
}

/// Why a call may not pass, and the time until one may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The circuit is open, or all probes are on their way.
    Open(Duration),
    /// The deployment cools down after a `429`.
    Cooling(Duration),
}

/// The state's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// Calls pass.
    Closed,
    /// No call passes.
    Open,
    /// Probes may pass.
    HalfOpen,
}

/// The state at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Snapshot {
    /// Closed, open or half-open.
    pub circuit: Circuit,
    /// Failures since the last success.
    pub failures_in_row: u32,
    /// `429`s since the last success.
    pub limited_in_row: u32,
    /// Time until a probe may pass, when open.
    pub open_for: Option<Duration>,
    /// Time until the cooldown ends.
    pub cooling_for: Option<Duration>,
    /// Calls that passed and have not ended.
    pub in_flight: u32,
}

enum Phase {
    Closed,
    Open { until: Duration },
    HalfOpen { running: u32, succeeded: u32 },
}

struct State {
    phase: Phase,
    /// Counts the changes of phase that end a period: outcomes of calls from an earlier period are history.
    period: u64,
    failures: u32,
    limited: u32,
    cooling_until: Duration,
    in_flight: u32,
}

impl State {
    fn open(&mut self, until: Duration) {
        self.phase = Phase::Open { until };
        self.period += 1;
    }

    fn close(&mut self) {
        self.phase = Phase::Closed;
        self.period += 1;
        (self.failures, self.limited) = (0, 0);
    }

    fn refusal(&self, now: Duration, probes: u32) -> Option<Refusal> {
        let cooling = self.cooling_until.saturating_sub(now);
        match self.phase {
            Phase::Open { until } if until > now => Some(Refusal::Open((until - now).max(cooling))),
            _ if !cooling.is_zero() => Some(Refusal::Cooling(cooling)),
            Phase::HalfOpen { running, succeeded } if running + succeeded >= probes => {
                Some(Refusal::Open(PROBES_RUNNING))
            }
            _ => None,
        }
    }

    /// Lets a call pass that nothing stands against; true for a probe.
    fn pass(&mut self) -> bool {
        self.in_flight += 1;
        match &mut self.phase {
            Phase::Closed => false,
            Phase::HalfOpen { running, .. } => {
                *running += 1;
                true
            }
            Phase::Open { .. } => {
                self.phase = Phase::HalfOpen { running: 1, succeeded: 0 };
                self.period += 1;
                true
            }
        }
    }
}

/// The breaker of one deployment, key and region.
pub struct Breaker {
    options: Option<CircuitOptions>,
    state: Mutex<State>,
    #[cfg(feature = "model")]
    seeded: Option<Seeded>,
}

/// The leave to make one call. Dropped without an outcome it counts for nothing, and a probe's slot is free again.
pub struct Permit {
    breaker: Arc<Breaker>,
    period: u64,
    probe: bool,
    ended: bool,
}

impl Breaker {
    /// A closed breaker. `None`: it counts the calls in flight, and never refuses one.
    #[must_use]
    pub fn new(options: Option<CircuitOptions>) -> Self {
        Self {
            options,
            state: Mutex::new(State {
                phase: Phase::Closed,
                period: 0,
                failures: 0,
                limited: 0,
                cooling_until: Duration::ZERO,
                in_flight: 0,
            }),
            #[cfg(feature = "model")]
            seeded: None,
        }
    }

    /// A breaker with a mistake in it.
    #[cfg(feature = "model")]
    #[must_use]
    pub fn with_seeded(options: CircuitOptions, seeded: Seeded) -> Self {
        Self { seeded: Some(seeded), ..Self::new(Some(options)) }
    }

    /// Whether a call would pass now. Nothing is taken.
    ///
    /// # Errors
    /// Why not, and for how long.
    pub fn look(&self, now: Duration) -> Result<(), Refusal> {
        let Some(options) = self.options else { return Ok(()) };
        lock(&self.state).refusal(now, options.probes).map_or(Ok(()), Err)
    }

    /// Lets a call pass, or says why not. After the open time the call is a probe.
    ///
    /// # Errors
    /// Why not, and for how long.
    pub fn admit(self: &Arc<Self>, now: Duration) -> Result<Permit, Refusal> {
        #[cfg(feature = "model")]
        if self.seeded == Some(Seeded::SplitCheck) {
            self.look(now)?;
            let mut state = lock(&self.state);
            return Ok(self.permit(&mut state));
        }
        let mut state = lock(&self.state);
        if let Some(options) = self.options
            && let Some(refusal) = state.refusal(now, options.probes)
        {
            return Err(refusal);
        }
        Ok(self.permit(&mut state))
    }

    fn permit(self: &Arc<Self>, state: &mut State) -> Permit {
        let probe = state.pass();
        Permit { breaker: Arc::clone(self), period: state.period, probe, ended: false }
    }

    /// The state now.
    #[must_use]
    pub fn snapshot(&self, now: Duration) -> Snapshot {
        let state = lock(&self.state);
        let (circuit, open_for) = match state.phase {
            Phase::Closed => (Circuit::Closed, None),
            Phase::Open { until } if until > now => (Circuit::Open, Some(until - now)),
            Phase::Open { .. } | Phase::HalfOpen { .. } => (Circuit::HalfOpen, None),
        };
        let cooling = state.cooling_until.saturating_sub(now);
        Snapshot {
            circuit,
            failures_in_row: state.failures,
            limited_in_row: state.limited,
            open_for,
            cooling_for: (!cooling.is_zero()).then_some(cooling),
            in_flight: state.in_flight,
        }
    }

    fn settle(&self, state: &mut State, permit: &Permit, now: Duration, outcome: Outcome) {
        let Some(options) = self.options else { return };
        if let Outcome::Limited(Some(wait)) = outcome {
            // The provider's word is news, whenever the call was sent.
            state.cooling_until = state.cooling_until.max(now + wait.min(LONGEST_COOLDOWN));
        }
        let until = now + Duration::try_from_secs_f64(options.open_time).unwrap_or(LONGEST_COOLDOWN);
        let present = permit.period == state.period;
        #[cfg(feature = "model")]
        let present = present || self.seeded == Some(Seeded::LateOutcome);
        if !present {
            return;
        }
        match outcome {
            Outcome::Success => (state.failures, state.limited) = (0, 0),
            Outcome::Failure => state.failures = state.failures.saturating_add(1),
            Outcome::Limited(_) => state.limited = state.limited.saturating_add(1),
        }
        match (&mut state.phase, outcome) {
            (Phase::Closed, _) => {
                if state.failures >= options.failures || state.limited >= options.failures {
                    state.open(until);
                }
            }
            (Phase::HalfOpen { running, succeeded }, Outcome::Success) => {
                *running = running.saturating_sub(1);
                *succeeded += 1;
                if *running == 0 {
                    state.close();
                }
            }
            (Phase::HalfOpen { .. }, _) => state.open(until),
            (Phase::Open { .. }, _) => {
                // Unreachable by a call of this period, unless a mistake was seeded: opening begins a new one.
                #[cfg(feature = "model")]
                if outcome == Outcome::Success {
                    state.close();
                }
            }
        }
    }

    /// A probe that ended without an outcome: its slot is free; the others' successes still count.
    fn give_back(&self, state: &mut State, permit: &Permit) {
        #[cfg(feature = "model")]
        if self.seeded == Some(Seeded::LostProbe) {
            return;
        }
        if permit.probe
            && permit.period == state.period
            && let Phase::HalfOpen { running, succeeded } = &mut state.phase
        {
            *running -= 1;
            if *running == 0 && *succeeded > 0 {
                state.close();
            }
        }
    }
}

impl Permit {
    /// Ends the call with its outcome.
    pub fn end(mut self, now: Duration, outcome: Outcome) {
        self.ended = true;
        let mut state = lock(&self.breaker.state);
        state.in_flight -= 1;
        self.breaker.settle(&mut state, &self, now, outcome);
    }

    /// Whether this call tries out a deployment whose circuit was open.
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        self.probe
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.ended {
            let mut state = lock(&self.breaker.state);
            state.in_flight -= 1;
            self.breaker.give_back(&mut state, self);
        }
    }
}

#[cfg(all(test, not(feature = "model")))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn breaker(probes: u32) -> Arc<Breaker> {
        Arc::new(Breaker::new(Some(CircuitOptions { failures: 3, open_time: 30.0, probes })))
    }

    fn calls(breaker: &Arc<Breaker>, now: Duration, outcomes: &[Outcome]) {
        for outcome in outcomes {
            breaker.admit(now).ok().unwrap().end(now, *outcome);
        }
    }

    fn opened(probes: u32) -> Arc<Breaker> {
        let breaker = breaker(probes);
        calls(&breaker, at(0), &[Outcome::Failure; 3]);
        assert_eq!(breaker.snapshot(at(0)).circuit, Circuit::Open);
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it() {
        use Outcome::{Failure, Limited, Success};
        let breaker = breaker(1);
        calls(&breaker, at(0), &[Failure, Failure, Success, Failure, Failure, Limited(None), Limited(None)]);
        assert_eq!(breaker.snapshot(at(0)).circuit, Circuit::Closed);
        calls(&breaker, at(1), &[Limited(None)]);
        assert_eq!(breaker.snapshot(at(1)).open_for, Some(at(30)));
        assert_eq!(breaker.look(at(11)), Err(Refusal::Open(at(20))));
        assert_eq!(breaker.snapshot(at(31)).circuit, Circuit::HalfOpen);
    }

    #[test]
    fn a_round_has_exactly_its_probes_and_closes_when_all_succeeded() {
        let breaker = opened(3);
        let mut probes: Vec<_> = (0..10).filter_map(|_| breaker.admit(at(30)).ok()).collect();
        assert!(probes.len() == 3 && probes.iter().all(Permit::is_probe));
        probes.pop().unwrap().end(at(31), Outcome::Success);
        assert!(breaker.admit(at(31)).is_err(), "a success makes no room for a fourth");
        drop(probes.pop());
        probes.push(breaker.admit(at(31)).ok().unwrap());
        assert!(breaker.admit(at(31)).is_err());
        for probe in probes {
            assert_eq!(breaker.snapshot(at(31)).circuit, Circuit::HalfOpen);
            probe.end(at(32), Outcome::Success);
        }
        assert_eq!(breaker.snapshot(at(32)).circuit, Circuit::Closed);
    }

    #[test]
    fn one_failed_probe_opens_it_again() {
        for outcome in [Outcome::Failure, Outcome::Limited(None)] {
            let breaker = opened(2);
            let (first, second) = (breaker.admit(at(30)).ok().unwrap(), breaker.admit(at(30)).ok().unwrap());
            first.end(at(31), outcome);
            second.end(at(32), Outcome::Success);
            assert_eq!(breaker.look(at(32)), Err(Refusal::Open(at(29))));
        }
    }

    #[test]
    fn dropped_probes_decide_nothing() {
        let breaker = opened(1);
        for _ in 0..5 {
            drop(breaker.admit(at(30)).ok().unwrap());
            assert_eq!(breaker.snapshot(at(30)).circuit, Circuit::HalfOpen);
        }
        breaker.admit(at(30)).ok().unwrap().end(at(30), Outcome::Success);
        assert_eq!(breaker.snapshot(at(30)).circuit, Circuit::Closed);
    }

    #[test]
    fn late_outcomes_neither_close_nor_prolong() {
        let breaker = breaker(1);
        let late: Vec<_> = (0..6).map(|_| breaker.admit(at(0)).ok().unwrap()).collect();
        calls(&breaker, at(0), &[Outcome::Failure; 3]);
        let mut late = late.into_iter();
        late.next().unwrap().end(at(1), Outcome::Success);
        late.next().unwrap().end(at(20), Outcome::Failure);
        assert_eq!(breaker.look(at(20)), Err(Refusal::Open(at(10))));
        let probe = breaker.admit(at(30)).ok().unwrap();
        late.next().unwrap().end(at(31), Outcome::Success);
        assert_eq!(breaker.snapshot(at(31)).circuit, Circuit::HalfOpen);
        assert!(breaker.admit(at(31)).is_err());
        late.next().unwrap().end(at(31), Outcome::Failure);
        probe.end(at(32), Outcome::Success);
        assert_eq!(breaker.snapshot(at(32)).circuit, Circuit::Closed);
        late.next().unwrap().end(at(33), Outcome::Failure);
        assert_eq!(breaker.snapshot(at(33)).failures_in_row, 0);
    }

    #[test]
    fn a_429_with_a_time_keeps_calls_away_until_then() {
        let breaker = breaker(1);
        let running = breaker.admit(at(0)).ok().unwrap();
        calls(&breaker, at(0), &[Outcome::Limited(Some(at(7)))]);
        assert_eq!(breaker.look(at(3)), Err(Refusal::Cooling(at(4))));
        running.end(at(3), Outcome::Success);
        assert_eq!(breaker.look(at(3)), Err(Refusal::Cooling(at(4))), "a success does not end it");
        assert_eq!(breaker.snapshot(at(3)).cooling_for, Some(at(4)));
        assert!(breaker.look(at(7)).is_ok());
        calls(&breaker, at(7), &[Outcome::Limited(None)]);
        assert!(breaker.look(at(7)).is_ok(), "without a time nothing cools");
        calls(&breaker, at(7), &[Outcome::Limited(Some(at(86_400)))]);
        assert_eq!(breaker.look(at(7)), Err(Refusal::Cooling(LONGEST_COOLDOWN)));
    }

    #[test]
    fn switched_off_it_only_counts_calls() {
        let breaker = Arc::new(Breaker::new(None));
        calls(&breaker, at(0), &[Outcome::Limited(Some(at(60))); 20]);
        let running = breaker.admit(at(0)).ok().unwrap();
        assert_eq!(breaker.snapshot(at(0)).in_flight, 1);
        drop(running);
        assert_eq!(breaker.snapshot(at(0)).in_flight, 0);
    }
}
