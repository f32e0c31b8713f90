//! The guard of a canary: counts failed, slow and dear calls on both arms and tells when the canary is worse.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize};

use super::sequential::Sequential;
use crate::core::error::LlmError;

/// The factor for latency and cost where none is given.
const FACTOR: f64 = 2.0;

/// What of `alpha` each test gets, beside the others that are on. A factor is a margin already, so latency and cost need
/// little.
const PARTS: [f64; 3] = [8.0, 1.0, 1.0];

/// What of `alpha` the first window gets.
const FIRST_WINDOW: f64 = 0.9;

/// A window does not end before so many calls.
const LEAST_CALLS: u64 = 2000;

/// A window ends with so many events in one test, to bound the work for each.
const MOST_EVENTS: u64 = 20_000;

/// So many failures of one word count in a window, so that one odd user decides nothing.
const FAILURES_OF_A_WORD: u8 = 3;

/// The most words that are kept apart in a window.
const MOST_WORDS: usize = 1 << 16;

/// A call is slow, or dear, when it is above this share of the incumbents' calls.
const QUANTILE: f64 = 0.75;

/// Incumbents' values before it is known what slow or dear is.
const FIRST_VALUES: usize = 16;

/// How far the mark of slow or dear follows one value, on the logarithmic scale.
const STEP: f64 = 0.1;

/// How much worse is too much: a factor, or no test.
///
/// ```
/// use liter_llm::{Factor, GuardOptions};
///
/// let options = GuardOptions { latency: Factor(Some(1.5)), cost: Factor(None), ..GuardOptions::default() };
/// assert!(options.validate().is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Factor(pub Option<f64>);

impl<'de> Deserialize<'de> for Factor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        #[allow(clippy::cast_precision_loss, reason = "large factors are refused later")]
        impl Visitor<'_> for Read {
            type Value = Factor;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a factor, true or false")
            }

            fn visit_bool<E>(self, on: bool) -> Result<Factor, E> {
                Ok(Factor(on.then_some(FACTOR)))
            }

            fn visit_f64<E>(self, factor: f64) -> Result<Factor, E> {
                Ok(Factor(Some(factor)))
            }

            fn visit_u64<E>(self, factor: u64) -> Result<Factor, E> {
                Ok(Factor(Some(factor as f64)))
            }

            fn visit_i64<E>(self, factor: i64) -> Result<Factor, E> {
                Ok(Factor(Some(factor as f64)))
            }
        }

        deserializer.deserialize_any(Read)
    }
}

/// When a canary is rolled back.
///
/// ```
/// use liter_llm::{CanaryOptions, GuardOptions, Toggle};
///
/// let guard = GuardOptions { min_calls: 50, ..GuardOptions::default() };
/// guard.validate()?;
/// let canary = CanaryOptions { model: "new".to_owned(), percent: 5.0, guard: Some(Toggle::On(guard)) };
/// assert!(canary.validate().is_ok());
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GuardOptions {
    /// Whether failures are compared; true.
    pub error_rate: bool,
    /// So many times slower than the incumbents is too slow; 2.
    pub latency: Factor,
    /// So many times as dear as the incumbents is too dear; 2.
    pub cost: Factor,
    /// Seconds a comparison lasts before the next begins; 3600. It lasts longer with fewer than 2,000 calls.
    pub window: f64,
    /// Calls of each arm before anything is decided; 10.
    pub min_calls: u64,
    /// The chance that a canary as good as the incumbents is ever rolled back is at most this; 0.05.
    pub alpha: f64,
}

impl Default for GuardOptions {
    fn default() -> Self {
        Self {
            error_rate: true,
            latency: Factor(Some(FACTOR)),
            cost: Factor(Some(FACTOR)),
            window: 3600.0,
            min_calls: 10,
            alpha: 0.05,
        }
    }
}

impl GuardOptions {
    /// Checks the values.
    ///
    /// # Errors
    /// `config` naming the option and the remedy.
    pub fn validate(&self) -> Result<(), LlmError> {
        let bad = |option: &str, value: f64, wanted: &str| {
            let option = format!("canary.guard.{option}");
            let what = format!("`{option}`: {value} is not {wanted}");
            Err(LlmError::config(option, what))
        };
        for (option, factor) in [("latency", self.latency), ("cost", self.cost)] {
            if let Some(factor) = factor.0.filter(|factor| !(*factor >= 1.0 && *factor <= 1000.0)) {
                return bad(option, factor, "a factor from 1 to 1000; false switches it off");
            }
        }
        if !(self.window > 0.0 && self.window <= 1e9) {
            return bad("window", self.window, "a positive number of seconds");
        }
        if !(self.alpha > 0.0 && self.alpha <= 0.5) {
            return bad("alpha", self.alpha, "a probability above 0 up to 0.5");
        }
        if self.min_calls == 0 {
            return bad("min_calls", 0.0, "a number of calls from 1 up");
        }
        Ok(())
    }
}

/// Whose call it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// The canary's.
    Canary,
    /// That of a deployment it is compared with.
    Incumbent,
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Whose call it was.
    pub arm: Arm,
    /// A number for the call's sticky word.
    pub word: Option<u64>,
    /// Whether it was a stream.
    pub streamed: bool,
    /// Whether it failed through the deployment's fault.
    pub failed: bool,
    /// Seconds to the answer, or to a stream's first chunk; `None` for a failure.
    pub seconds: Option<f64>,
    /// What it cost in USD, where known.
    pub cost: Option<f64>,
}

/// What an arm has done since the canary began.
///
/// ```
/// use liter_llm::ArmReport;
///
/// let arm = ArmReport { calls: 200, errors: 4, latency: Some(0.9), cost: None };
/// assert_eq!(arm.errors * 100 / arm.calls, 2);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ArmReport {
    /// Calls compared.
    pub calls: u64,
    /// Of these, those that failed through the deployment's fault.
    pub errors: u64,
    /// The mean seconds to an answer, or to a stream's first chunk; `None` before the first.
    pub latency: Option<f64>,
    /// The mean cost of a call in USD; `None` while no price is known.
    pub cost: Option<f64>,
}

/// What speaks against the canary in the window at hand, in one respect.
///
/// ```
/// use liter_llm::Evidence;
///
/// let evidence = Evidence {
///     measure: "error_rate",
///     events: 9,
///     canary: 7,
///     expected: 0.5,
///     limit: 8,
///     p_value: 0.001,
/// };
/// assert!(evidence.canary < evidence.limit, "it is not rolled back yet");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evidence {
    /// `error_rate`, `latency` or `cost`.
    pub measure: &'static str,
    /// Failed, slow or dear calls.
    pub events: u64,
    /// Of these, the canary's.
    pub canary: u64,
    /// How many of them are expected to be the canary's when it is as good as the others.
    pub expected: f64,
    /// With so many of the canary's it is rolled back.
    pub limit: u64,
    /// The chance of at least so many in a single look.
    pub p_value: f64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    count: u64,
    sum: f64,
}

impl Sum {
    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.count += 1;
            self.sum += value;
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "counts are small")]
    fn mean(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / self.count as f64)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Total {
    calls: u64,
    errors: u64,
    latency: Sum,
    cost: Sum,
}

impl Total {
    fn report(&self) -> ArmReport {
        let (latency, cost) = (self.latency.mean(), self.cost.mean());
        ArmReport { calls: self.calls, errors: self.errors, latency, cost }
    }
}

/// What most of the incumbents' calls stay under, followed call by call (Robbins and Monro, 1951). What a call is held
/// against comes from earlier calls only, so how well it is known does not bear on false alarms.
#[derive(Debug, Clone, Default)]
struct Mark {
    first: Vec<f64>,
    log: Option<f64>,
}

impl Mark {
    /// Whether this value is above the mark when divided by `factor`; `None` while there is no mark.
    fn is_above(&self, value: f64, factor: f64) -> Option<bool> {
        self.log.map(|mark| (value.max(1e-12) / factor).ln() > mark + 1e-9)
    }

    fn learn(&mut self, value: f64) {
        let log = value.max(1e-12).ln();
        if let Some(mark) = &mut self.log {
            *mark += STEP * (f64::from(u8::from(log > *mark + 1e-9)) - (1.0 - QUANTILE));
            return;
        }
        self.first.push(log);
        if self.first.len() == FIRST_VALUES {
            self.first.sort_by(f64::total_cmp);
            self.log = self.first.get(FIRST_VALUES * 3 / 4 - 1).copied();
            self.first = Vec::new();
        }
    }
}

/// What is counted afresh in each window.
#[derive(Debug, Clone)]
struct Window {
    number: u32,
    begun: Duration,
    calls: [u64; 2],
    tests: [Option<Sequential>; 3],
    /// The failures of each word seen.
    words: HashMap<u64, u8>,
}

impl Window {
    /// The windows' budgets add up to `alpha`, however many there are.
    fn new(number: u32, begun: Duration, share: f64, options: &GuardOptions) -> Self {
        let later = f64::from(number);
        let part = match number {
            1 => FIRST_WINDOW,
            _ => (1.0 - FIRST_WINDOW) / (later * (later - 1.0)),
        };
        let on = [options.error_rate, options.latency.0.is_some(), options.cost.0.is_some()];
        let all: f64 = PARTS.iter().zip(on).filter(|(_, on)| *on).map(|(part, _)| part).sum();
        let test = |measure: usize| {
            on[measure].then(|| Sequential::new(share, options.alpha * part * PARTS[measure] / all))
        };
        let tests = [test(0), test(1), test(2)];
        Self { number, begun, calls: [0; 2], tests, words: HashMap::new() }
    }

    fn is_over(&self, now: Duration, options: &GuardOptions) -> bool {
        let full = self.tests.iter().flatten().any(|test| test.events() >= MOST_EVENTS);
        let lasted = now.saturating_sub(self.begun).as_secs_f64() >= options.window;
        full || (lasted && self.calls.iter().sum::<u64>() >= LEAST_CALLS)
    }

    /// Whether a failure with this word counts, and whether times and costs do: those of a word once in a window,
    /// because a user's calls are alike.
    fn counts(&mut self, word: Option<u64>, failed: bool) -> (bool, bool) {
        let Some(word) = word else { return (true, true) };
        let known = self.words.get(&word).copied();
        let failures = known.unwrap_or(0);
        if known.is_some() || self.words.len() < MOST_WORDS {
            self.words.insert(word, failures.saturating_add(u8::from(failed)));
        }
        (failures < FAILURES_OF_A_WORD, known.is_none())
    }
}

#[derive(Debug, Clone)]
struct State {
    totals: [Total; 2],
    /// Marks of the times of whole answers, of those to first chunks, and of costs.
    marks: [Mark; 3],
    window: Window,
    /// Since when the canary has taken no call; `None` while it does.
    closed_since: Option<Duration>,
    reason: Option<String>,
}

/// A canary whose circuit keeps calls away for so long, while the incumbents answer, has failed: two of its probes have.
const LONGEST_CLOSED: Duration = Duration::from_secs(60);

const MEASURES: [&str; 3] = ["error_rate", "latency", "cost"];

/// Compares a canary with the incumbents.
#[derive(Debug)]
pub struct Guard {
    options: GuardOptions,
    share: f64,
    rolled_back: AtomicBool,
    /// Whether `State::closed_since` is set.
    closed: AtomicBool,
    state: Mutex<State>,
}

impl Guard {
    /// A guard of a canary that gets this share of the calls, from `now` on. Without a share or with all of it nothing
    /// can be compared; calls are counted only.
    #[must_use]
    pub fn new(share: f64, options: Option<GuardOptions>, now: Duration) -> Self {
        let off = GuardOptions {
            error_rate: false,
            latency: Factor(None),
            cost: Factor(None),
            ..GuardOptions::default()
        };
        let options = options.filter(|_| share > 0.0 && share < 1.0).unwrap_or(off);
        let window = Window::new(1, now, share, &options);
        let state = State {
            totals: [Total::default(); 2],
            marks: Default::default(),
            window,
            closed_since: None,
            reason: None,
        };
        Self {
            options,
            share,
            rolled_back: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with what another guard of the same canary knows. Its window goes on from `now`.
    pub fn take_over(&self, earlier: &Self, now: Duration) {
        let mut state = earlier.state().clone();
        state.window.begun = now;
        state.closed_since = None;
        self.rolled_back.store(state.reason.is_some(), Ordering::Release);
        *self.state() = state;
    }

    /// The canary's circuit keeps away a call that was to go there, and the incumbents are well. Its failures cannot be
    /// counted then; that it does not come back says enough.
    pub fn closed(&self, now: Duration) {
        if !self.options.error_rate {
            return;
        }
        let mut state = self.state();
        let since = *state.closed_since.get_or_insert(now);
        self.closed.store(true, Ordering::Release);
        let silent = now.saturating_sub(since);
        if state.reason.is_none() && silent >= LONGEST_CLOSED {
            let text = format!(
                "error_rate: its circuit opened, and for {:.0} s it has answered nothing while the incumbents did",
                silent.as_secs_f64()
            );
            state.reason = Some(text);
            self.rolled_back.store(true, Ordering::Release);
        }
    }

    /// The canary's circuit is closed: one of its probes was answered.
    pub fn open_again(&self) {
        if self.closed.swap(false, Ordering::AcqRel) {
            self.state().closed_since = None;
        }
    }

    /// Takes in how a call ended.
    pub fn note(&self, outcome: &Outcome, now: Duration) {
        let mut state = self.state();
        let state = &mut *state;
        let hit = outcome.arm == Arm::Canary;
        let total = &mut state.totals[usize::from(!hit)];
        total.calls += 1;
        total.errors += u64::from(outcome.failed);
        total.latency.add(outcome.seconds);
        total.cost.add(outcome.cost);
        if state.reason.is_some() || state.window.tests.iter().all(Option::is_none) {
            return;
        }
        if state.window.is_over(now, &self.options) {
            let number = state.window.number.saturating_add(1);
            state.window = Window::new(number, now, self.share, &self.options);
        }
        let window = &mut state.window;
        window.calls[usize::from(!hit)] += 1;
        let (failure_counts, values_count) = window.counts(outcome.word, outcome.failed);
        let [failures, slow, dear] = &mut window.tests;
        if let Some(test) = failures.as_mut().filter(|_| outcome.failed && failure_counts) {
            test.event(hit);
        }
        let of_value = [
            (slow, outcome.seconds, self.options.latency, usize::from(outcome.streamed)),
            (dear, outcome.cost, self.options.cost, 2),
        ];
        for (test, value, factor, mark) in of_value {
            let (Some(test), Some(value), true) = (test, value, values_count) else { continue };
            let factor = if hit { factor.0.unwrap_or(1.0) } else { 1.0 };
            let mark = &mut state.marks[mark];
            if mark.is_above(value, factor) == Some(true) {
                test.event(hit);
            }
            if !hit {
                mark.learn(value);
            }
        }
        let enough = window.calls.iter().all(|calls| *calls >= self.options.min_calls);
        let crossed = |test: &Option<Sequential>| test.as_ref().is_some_and(Sequential::is_crossed);
        if enough && let Some(measure) = window.tests.iter().position(crossed) {
            state.reason = Some(self.explain(state, measure));
            self.rolled_back.store(true, Ordering::Release);
        }
    }

    fn explain(&self, state: &State, measure: usize) -> String {
        let Some(test) = &state.window.tests[measure] else { return String::new() };
        let [canary, incumbent] = state.totals.map(|total| total.report());
        #[allow(clippy::cast_precision_loss, reason = "counts are small")]
        let rate = |arm: &ArmReport| format!("{:.1} %", 100.0 * arm.errors as f64 / arm.calls.max(1) as f64);
        let known = |value: Option<f64>, unit: &str| {
            value.map_or_else(|| "nothing".to_owned(), |value| format!("{value:.3e} {unit}"))
        };
        let (events, did, ours, theirs) = match measure {
            0 => ("failures", "failed in", rate(&canary), rate(&incumbent)),
            1 => {
                let seconds = |arm: &ArmReport| arm.latency.map_or_else(String::new, |s| format!("{s:.3} s"));
                ("slow calls", "took on average", seconds(&canary), seconds(&incumbent))
            }
            _ => {
                let usd = |arm: &ArmReport| known(arm.cost, "USD");
                ("dear calls", "cost on average", usd(&canary), usd(&incumbent))
            }
        };
        let margin = match (measure, self.options.latency.0, self.options.cost.0) {
            (1, Some(factor), _) | (2, _, Some(factor)) if factor > 1.0 => {
                format!(", the canary's allowed to be {factor} times the others'")
            }
            _ => String::new(),
        };
        format!(
            "{}: {} of {} {events} were the canary's, expected {:.1}, limit {}, p = {:.1e}{margin}; its calls {did} \
             {ours}, those of the incumbents {theirs}",
            MEASURES[measure],
            test.hits(),
            test.events(),
            test.expected(),
            test.limit(),
            test.p_value(),
        )
    }

    /// Whether the canary was found to be worse.
    #[must_use]
    pub fn is_rolled_back(&self) -> bool {
        self.rolled_back.load(Ordering::Acquire)
    }

    /// Why, if so.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        self.state().reason.clone()
    }

    /// What the canary and the incumbents have done.
    #[must_use]
    pub fn arms(&self) -> [ArmReport; 2] {
        self.state().totals.map(|total| total.report())
    }

    /// What speaks against the canary in the window at hand; a respect that is not compared is left out.
    #[must_use]
    pub fn evidence(&self) -> Vec<Evidence> {
        let state = self.state();
        let tests = MEASURES.into_iter().zip(&state.window.tests);
        tests
            .filter_map(|(measure, test)| {
                let test = test.as_ref()?;
                Some(Evidence {
                    measure,
                    events: test.events(),
                    canary: test.hits(),
                    expected: test.expected(),
                    limit: test.limit(),
                    p_value: test.p_value(),
                })
            })
            .collect()
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
