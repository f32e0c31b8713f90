//! The circuit breaker as a state machine: no I/O, no clock of its own, one lock.
//!
//! Closed: calls pass. After `failures` failures in a row, or as many `429`s in a row, it opens for `open_time`. Then it
//! is half-open: a round of exactly `probes` calls may try. When those that ran all succeeded it closes; the first that
//! fails opens it again. Beside the circuit stands the cooldown after a `429`: until the time the provider named, or for a
//! pause that doubles with each `429` that names none, no call passes.

use std::sync::Arc;
use std::time::Duration;

use super::options::CircuitOptions;
#[cfg(feature = "model")]
use super::sync::Seeded;
use super::sync::{Mutex, lock};
pub use crate::core::route::Circuit;

/// The longest time a `Retry-After` keeps calls away. A longer one is a daily quota or a mistake: one call an hour
/// finds out which.
pub const LONGEST_COOLDOWN: Duration = Duration::from_secs(3600);

/// How long the first `429` in a row that does not say until when keeps calls away; doubles with each.
pub const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// The longest such pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(8);

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

#[derive(Clone)]
enum Phase {
    Closed,
    Open { until: Duration },
    HalfOpen { running: u32, succeeded: u32 },
}

#[derive(Clone)]
struct State {
    phase: Phase,
    /// Counts the changes of phase that end a period: outcomes of calls from an earlier period are history.
    period: u64,
    failures: u32,
    limited: u32,
    /// Pauses in a row after `429`s that did not say until when.
    pauses: u32,
    cooling_until: Duration,
    in_flight: u32,
    /// The circuit has opened or closed, and nobody was told yet.
    changed: Option<Circuit>,
}

impl State {
    fn open(&mut self, until: Duration) {
        if matches!(self.phase, Phase::Closed) {
            self.changed = Some(Circuit::Open);
        }
        self.phase = Phase::Open { until };
        self.period += 1;
    }

    fn close(&mut self) {
        self.changed = Some(Circuit::Closed);
        self.phase = Phase::Closed;
        self.period += 1;
        self.begin_anew();
    }

    /// A success: all rows begin anew. What already cools goes on cooling.
    const fn begin_anew(&mut self) {
        (self.failures, self.limited, self.pauses) = (0, 0, 0);
    }

    fn probe_succeeded(&mut self) {
        if let Phase::HalfOpen { running, succeeded } = &mut self.phase {
            *running = running.saturating_sub(1);
            *succeeded += 1;
            if *running == 0 {
                self.close();
            }
        }
    }

    /// The pause after a `429` without a time, of a call that was sent after `seen` pauses. Calls that were on their
    /// way together were told the same thing once: only one of them doubles the pause.
    fn pause(&mut self, seen: u32) -> Duration {
        if seen >= self.pauses {
            self.pauses = self.pauses.saturating_add(1);
        }
        FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(self.pauses - 1)).min(LONGEST_PAUSE)
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

/// Who is told when a circuit opens or closes.
pub(crate) type Watch = Box<dyn Fn(Circuit) + Send + Sync>;

/// The breaker of one deployment, key and region.
pub struct Breaker {
    options: Option<CircuitOptions>,
    state: Mutex<State>,
    watch: Option<Arc<Watch>>,
    #[cfg(feature = "model")]
    seeded: Option<Seeded>,
}

/// The leave to make one call. Dropped without an outcome it counts for nothing, and a probe's slot is free again.
pub struct Permit {
    breaker: Arc<Breaker>,
    period: u64,
    /// The pauses in a row when it was given.
    pauses: u32,
    probe: bool,
    /// A probe that has already succeeded: it goes on as a call like any other.
    answered: bool,
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
                pauses: 0,
                cooling_until: Duration::ZERO,
                in_flight: 0,
                changed: None,
            }),
            watch: None,
            #[cfg(feature = "model")]
            seeded: None,
        }
    }

    /// This breaker under other options: the same one when they have not changed, else one that goes on from here. A
    /// circuit that was being probed may be probed again: those on their way report to this one.
    #[must_use]
    pub fn under(self: &Arc<Self>, options: Option<CircuitOptions>) -> Arc<Self> {
        if self.options == options {
            return Arc::clone(self);
        }
        let mut state = lock(&self.state).clone();
        state.in_flight = 0;
        if matches!(state.phase, Phase::HalfOpen { .. }) {
            state.open(Duration::ZERO);
        }
        let state = Mutex::new(state);
        #[cfg(feature = "model")]
        let seeded = self.seeded;
        Arc::new(Self {
            options,
            state,
            watch: self.watch.clone(),
            #[cfg(feature = "model")]
            seeded,
        })
    }

    /// This breaker, with somebody who is told when the circuit opens or closes.
    #[must_use]
    pub(crate) fn watched(self, watch: Watch) -> Self {
        Self { watch: Some(Arc::new(watch)), ..self }
    }

    /// Tells of a change, outside of the lock.
    fn tell(&self, changed: Option<Circuit>) {
        if let (Some(circuit), Some(watch)) = (changed, &self.watch) {
            watch(circuit);
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
        Permit {
            breaker: Arc::clone(self),
            period: state.period,
            pauses: state.pauses,
            probe,
            answered: false,
            ended: false,
        }
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

    /// Gives the pause after a `429` without a time.
    fn settle(
        &self,
        state: &mut State,
        permit: &Permit,
        now: Duration,
        outcome: Outcome,
    ) -> Option<Duration> {
        let options = self.options?;
        let mut pause = None;
        if let Outcome::Limited(asked) = outcome {
            // The provider's word is news, whenever the call was sent.
            let wait = asked.unwrap_or_else(|| *pause.insert(state.pause(permit.pauses)));
            state.cooling_until = state.cooling_until.max(now + wait.min(LONGEST_COOLDOWN));
        }
        let until = || now + Duration::try_from_secs_f64(options.open_time).unwrap_or(LONGEST_COOLDOWN);
        let present = permit.period == state.period || permit.closed_it(state);
        #[cfg(feature = "model")]
        let present = present || self.seeded == Some(Seeded::LateOutcome);
        if !present {
            return pause;
        }
        match outcome {
            Outcome::Success => state.begin_anew(),
            Outcome::Failure => state.failures = state.failures.saturating_add(1),
            Outcome::Limited(_) => state.limited = state.limited.saturating_add(1),
        }
        match (&state.phase, outcome) {
            (Phase::Closed, _) => {
                if state.failures >= options.failures || state.limited >= options.failures {
                    state.open(until());
                }
            }
            // Has been counted.
            (Phase::HalfOpen { .. }, Outcome::Success) if permit.answered => {}
            (Phase::HalfOpen { .. }, Outcome::Success) => state.probe_succeeded(),
            (Phase::HalfOpen { .. }, _) => state.open(until()),
            (Phase::Open { .. }, _) => {
                // Unreachable by a call of this period, unless a mistake was seeded: opening begins a new one.
                #[cfg(feature = "model")]
                if outcome == Outcome::Success {
                    state.close();
                }
            }
        }
        pause
    }

    /// A probe that ended without an outcome: its slot is free; the others' successes still count.
    fn give_back(&self, state: &mut State, permit: &Permit) {
        #[cfg(feature = "model")]
        if self.seeded == Some(Seeded::LostProbe) {
            return;
        }
        if permit.probe
            && !permit.answered
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
    /// Ends the call with its outcome. Gives the pause that a `429` without a time begins.
    pub fn end(mut self, now: Duration, outcome: Outcome) -> Option<Duration> {
        self.ended = true;
        let mut state = lock(&self.breaker.state);
        state.in_flight -= 1;
        let pause = self.breaker.settle(&mut state, &self, now, outcome);
        let changed = state.changed.take();
        drop(state);
        self.breaker.tell(changed);
        pause
    }

    /// The answer has begun. For a probe that is the success it was sent for: its slot is free, and it goes on as a
    /// call like any other, whose end still counts. For others it decides nothing.
    pub fn answer_begun(&mut self) {
        if !self.probe || self.answered {
            return;
        }
        self.answered = true;
        let mut state = lock(&self.breaker.state);
        if self.period == state.period {
            state.begin_anew();
            state.probe_succeeded();
        }
        let changed = state.changed.take();
        drop(state);
        self.breaker.tell(changed);
    }

    /// Whether the period that runs began when the round of this answered probe closed the circuit.
    const fn closed_it(&self, state: &State) -> bool {
        self.answered && self.period + 1 == state.period && matches!(state.phase, Phase::Closed)
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
            let changed = state.changed.take();
            drop(state);
            self.breaker.tell(changed);
        }
    }
}

#[cfg(all(test, not(feature = "model")))]
#[path = "breaker_tests.rs"]
mod tests;
