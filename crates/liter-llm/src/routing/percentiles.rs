//! Percentiles of times, over log-linear buckets in which old values count less.

use std::time::Duration;

/// The shortest time told apart is 2^-14 s (61 us), the longest 2^10 s (17 min).
const LOWEST: u64 = (1023 - 14) << 3;

/// Eight buckets to an octave: a time is known to an eighth of itself, and a percentile to half of that.
pub(super) const BUCKETS: usize = 24 * 8;

/// Values fade to half their weight in this time.
const HALF_LIFE: f64 = 120.0;

/// A weight at which all are scaled down, far from the end of what a float holds.
const HEAVY: f64 = 1e9;

/// The bucket of a time in seconds: the exponent of the number and the first three bits behind its point.
pub(super) fn bucket(seconds: f64) -> usize {
    let place = (seconds.max(0.0).to_bits() >> 49).saturating_sub(LOWEST);
    usize::try_from(place).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The middle of a bucket in seconds.
pub(super) fn middle(bucket: usize) -> f64 {
    f64::from_bits(((LOWEST + bucket as u64) << 49) | (1 << 48))
}

/// The two percentiles that are told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pair {
    pub p50: f64,
    pub p95: f64,
}

/// The middle one and the one that 95 % stay under, of the weights of all buckets and their
/// sum; `None` without any weight.
pub(super) fn pair(weights: impl Iterator<Item = f32>, total: f64) -> Option<Pair> {
    if total <= 0.0 {
        return None;
    }
    let (mut sum, mut p50, mut last) = (0.0, None, 0);
    for (place, weight) in weights.enumerate().filter(|(_, weight)| *weight > 0.0) {
        sum += f64::from(weight);
        last = place;
        if p50.is_none() && sum >= total * 0.5 {
            p50 = Some(place);
        }
        if sum >= total * 0.95 {
            break;
        }
    }
    Some(Pair { p50: middle(p50.unwrap_or(last)), p95: middle(last) })
}

/// Times that fade.
#[derive(Debug)]
pub(super) struct Percentiles {
    /// New values weigh more instead of old ones less: nothing is touched but the bucket of the value.
    weights: [f32; BUCKETS],
    total: f64,
    /// When a value weighed one.
    since: Duration,
}

impl Default for Percentiles {
    fn default() -> Self {
        Self { weights: [0.0; BUCKETS], total: 0.0, since: Duration::ZERO }
    }
}

impl Percentiles {
    #[allow(clippy::cast_possible_truncation, reason = "weights stay far below a float's end")]
    pub(super) fn add(&mut self, now: Duration, seconds: f64) {
        let age = now.saturating_sub(self.since).as_secs_f64();
        let mut weight = (age / HALF_LIFE).exp2();
        if weight > HEAVY {
            let scale = (1.0 / weight) as f32;
            self.weights.iter_mut().for_each(|one| *one *= scale);
            self.total /= weight;
            self.since = now;
            weight = 1.0;
        }
        self.weights[bucket(seconds)] += weight as f32;
        self.total += weight;
    }

    pub(super) fn pair(&self) -> Option<Pair> {
        pair(self.weights.iter().copied(), self.total)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_time_lies_near_the_middle_of_its_bucket() {
        for time in [0.000_07, 0.001, 0.25, 0.3, 1.0, 7.7, 599.0] {
            let told = middle(bucket(time));
            assert!((told / time - 1.0).abs() <= 0.0626, "{time} is told as {told}");
        }
        assert_eq!((bucket(0.0), bucket(-1.0), bucket(1e9)), (0, 0, BUCKETS - 1));
    }

    #[test]
    fn percentiles_are_those_of_the_values_and_old_values_fade() {
        let mut times = Percentiles::default();
        assert_eq!(times.pair(), None);
        for value in 1..=1000 {
            times.add(Duration::ZERO, f64::from(value) / 1000.0);
        }
        let Pair { p50, p95 } = times.pair().unwrap();
        assert!((p50 - 0.5).abs() < 0.05 && (p95 - 0.95).abs() < 0.09, "{p50} {p95}");
        // Ten half-lives later a thousand old values weigh as much as one.
        let later = Duration::from_secs(1200);
        for _ in 0..100 {
            times.add(later, 4.0);
        }
        assert!(times.pair().unwrap().p50 > 3.7);
        // A day is more than a weight can grow.
        times.add(Duration::from_secs(100_000), 0.1);
        assert!(times.pair().unwrap().p95 < 0.11);
    }
}
