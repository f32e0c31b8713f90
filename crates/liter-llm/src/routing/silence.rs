//! Whether a deployment has fallen silent: calls wait there, and no answer has come for longer than is likely.
//!
//! A hang gives no failure to go by, only the absence of answers. Each call that waits would still be unanswered after
//! its time with some likelihood, by the deployment's own percentiles; the product over the calls says how likely the
//! silence is. So one call alone tells it after the 95th percentile, and several tell it sooner.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::stats::{FIRST_WAIT, KNOWN, Stats};

/// A silence less likely than this counts as one.
const LIKELY: f64 = 0.05;

/// Of the calls sent since the last sign of life, so many are looked at.
const SINCE: usize = 4;

/// The calls that wait, and since when. Exact enough without a lock: what two threads note at once may be counted as
/// one, which makes a silence seem shorter or a call fewer.
#[derive(Debug, Default)]
pub(super) struct Silence {
    waiting: AtomicU32,
    /// Of these, those that were sent before the last sign of life.
    before: AtomicU32,
    /// When that came, in nanoseconds.
    heard: AtomicU64,
    /// How many were sent since, and when the first of them were.
    count: AtomicU32,
    since: [AtomicU64; SINCE],
    /// Calls of an earlier round do not count.
    round: AtomicU32,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn one_less(count: &AtomicU32) -> u32 {
    let before = count.fetch_update(Relaxed, Relaxed, |count| Some(count.saturating_sub(1)));
    before.unwrap_or_default().saturating_sub(1)
}

/// How likely a call is still unanswered after so many seconds: a half at the middle, one in twenty at the 95th
/// percentile, and a straight line of logarithms through these two.
fn unanswered(seconds: f64, p50: f64, p95: f64) -> f64 {
    if seconds <= p50 {
        return 1.0 - 0.5 * (seconds / p50).powi(4);
    }
    0.5 * 0.1_f64.powf((seconds - p50) / (p95 - p50).max(p50 / 16.0))
}

impl Silence {
    /// A call is sent. Gives its round.
    pub(super) fn sent(&self, now: Duration) -> u32 {
        self.waiting.fetch_add(1, Relaxed);
        let place = self.count.fetch_add(1, Relaxed) as usize;
        if let Some(since) = self.since.get(place) {
            since.store(nanos(now), Relaxed);
        }
        self.round.load(Relaxed)
    }

    /// A sign of life, from a call of this round.
    pub(super) fn heard(&self, now: Duration, round: u32) {
        let current = self.round.load(Relaxed) == round;
        let waiting = if current { one_less(&self.waiting) } else { self.waiting.load(Relaxed) };
        self.heard.store(nanos(now), Relaxed);
        self.before.store(waiting, Relaxed);
        self.count.store(0, Relaxed);
    }

    /// A call of this round is waited for no more.
    pub(super) fn gone(&self, round: u32) {
        if self.round.load(Relaxed) != round {
            return;
        }
        if one_less(&self.waiting) == 0 {
            self.count.store(0, Relaxed);
        }
        one_less(&self.before);
    }

    /// The silence is over: it answers, and the calls that still wait will not be answered.
    pub(super) fn over(&self) {
        self.round.fetch_add(1, Relaxed);
        self.waiting.store(0, Relaxed);
        self.before.store(0, Relaxed);
        self.count.store(0, Relaxed);
    }

    /// Whether any call waits.
    pub(super) fn is_waited_for(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    /// Whether it is unlikely that a deployment of these percentiles, in seconds, has given no answer until now.
    pub(super) fn is_unlikely(&self, now: Duration, p50: f64, p95: f64) -> bool {
        let now = nanos(now);
        let likely = |since: &AtomicU64| {
            let waited = Duration::from_nanos(now.saturating_sub(since.load(Relaxed)));
            unanswered(waited.as_secs_f64(), p50, p95)
        };
        let since = self.since.iter().take(self.count.load(Relaxed) as usize).map(likely).product::<f64>();
        let before = i32::try_from(self.before.load(Relaxed)).unwrap_or(i32::MAX);
        likely(&self.heard).powi(before) * since < LIKELY
    }
}

impl Stats {
    /// Whether calls have waited for so long without a sign of life that it probably answers none, by its own
    /// percentiles. `now` is asked only if calls wait.
    #[must_use]
    pub fn is_silent(&self, now: impl FnOnce() -> Duration) -> bool {
        if !self.silence.is_waited_for() {
            return false;
        }
        let pair = |streamed: bool| match self.percentiles(streamed) {
            (Some(p50), Some(p95)) if self.lately(streamed).samples >= KNOWN => Some((p50, p95)),
            _ => None,
        };
        // Of streams and whole answers the slower kind: which kind waits is not known.
        let slower = pair(false).into_iter().chain(pair(true)).max_by(|one, other| one.1.total_cmp(&other.1));
        slower.is_some_and(|(p50, p95)| self.silence.is_unlikely(now(), p50, p95))
    }

    /// Whether a suspect is worth a trial: one that only fell silent has a second in which its answers may come.
    pub(super) fn is_worth_a_trial(&self, now: Duration) -> bool {
        self.is_suspect() || !self.is_silent(|| now) || self.is_silent(|| now.saturating_sub(FIRST_WAIT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it is silent after so many seconds, for a deployment with a middle of 1 s and a p95 of 2 s.
    fn silent(silence: &Silence, at: f64) -> bool {
        silence.is_waited_for() && silence.is_unlikely(Duration::from_secs_f64(at), 1.0, 2.0)
    }

    fn second(at: f64) -> Duration {
        Duration::from_secs_f64(at)
    }

    #[test]
    fn one_call_tells_it_after_the_95th_percentile() {
        let silence = Silence::default();
        let round = silence.sent(second(10.0));
        assert!(!silent(&silence, 11.99) && silent(&silence, 12.01));
        silence.heard(second(12.5), round);
        assert!(!silent(&silence, 60.0), "nobody waits");
    }

    #[test]
    fn several_tell_it_sooner_and_any_answer_ends_it() {
        let silence = Silence::default();
        let rounds = [0.0, 0.2, 0.4].map(|at| silence.sent(second(at)));
        assert!(!silent(&silence, 1.2) && silent(&silence, 1.5));
        silence.heard(second(1.5), rounds[1]);
        assert!(!silent(&silence, 2.5), "the others wait since then");
        assert!(silent(&silence, 3.2));
        silence.gone(rounds[0]);
        silence.gone(rounds[2]);
        assert!(!silent(&silence, 9.0));
    }

    #[test]
    fn many_at_once_are_no_silence_before_the_middle() {
        let silence = Silence::default();
        for _ in 0..100 {
            silence.sent(second(5.0));
        }
        assert!(!silent(&silence, 5.5) && silent(&silence, 6.1));
    }

    #[test]
    fn calls_of_an_outage_that_is_over_do_not_count() {
        let silence = Silence::default();
        let lost = [0.0, 0.1].map(|at| silence.sent(second(at)));
        assert!(silent(&silence, 30.0));
        silence.over();
        assert!(!silent(&silence, 30.0));
        let round = silence.sent(second(30.0));
        for lost in lost {
            silence.gone(lost);
        }
        assert!(silent(&silence, 33.0));
        silence.heard(second(33.0), round);
        assert!(!silence.is_waited_for());
    }
}
