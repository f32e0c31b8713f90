//! The policy `latency`: the fastest first, with a bounded share of calls to find out what is not known.

use std::sync::atomic::{AtomicU64, Ordering};

use super::policy::{CallView, Policy};
use super::stats::{KNOWN, Lately, STALE};

/// One call in so many goes to a deployment that is not known yet: 5 %.
const COLD: u64 = 20;

/// One call in so many goes to a deployment whose figures are old or that was slower than usual: 3 %. Fewer than one
/// in twenty, so that what is slow does not reach the 95th percentile.
const AGAIN: u64 = 32;

/// By the mean of the times lately: to the first chunk for streams, to the whole answer otherwise.
///
/// A deployment is known after five answers. While none is known, calls spread over all; then those not yet known come
/// last, and one call in twenty is given to one of them. Figures fade: one call in 32 goes to a deployment that was not
/// heard of for half a minute, or that is in a spike. Such a deployment has one call at a time.
#[derive(Default)]
pub struct Latency(AtomicU64);

impl Policy for Latency {
    fn name(&self) -> &str {
        "latency"
    }

    fn order(&self, call: &CallView<'_>, open: &mut [usize]) {
        open.sort_by_cached_key(|position| {
            let stats = &call.members[*position].stats;
            match stats.lately(call.streamed) {
                Lately { latency: Some(latency), samples: KNOWN.., .. } => (false, latency.to_bits()),
                Lately { samples, .. } => (true, u64::from(samples) + u64::from(stats.in_flight())),
            }
        });
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        let (cold, again) = (turn % COLD == COLD - 1, turn % AGAIN == AGAIN - 1);
        if !cold && !again {
            return;
        }
        let known = open
            .iter()
            .take_while(|position| call.members[**position].stats.lately(call.streamed).samples >= KNOWN)
            .count();
        let idle = |position: usize| {
            let stats = &call.members[position].stats;
            stats.in_flight() == 0 && !stats.is_suspect()
        };
        let unknown = (known..open.len()).find(|place| cold && known > 0 && idle(open[*place]));
        let found = unknown.or_else(|| {
            (1..known)
                .filter(|place| again && idle(open[*place]))
                .map(|place| (call.members[open[place]].stats.lately(call.streamed), place))
                .filter(|(lately, _)| lately.spiking || call.now.saturating_sub(lately.at) > STALE)
                .min_by_key(|(lately, _)| lately.at)
                .map(|(_, place)| place)
        });
        if let Some(place) = found {
            open[..=place].rotate_right(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::routing::bench_members::{first, members};

    const STEP: Duration = Duration::from_millis(100);

    /// Sends calls one after the other, `step` apart; the deployments take these times. Gives the calls each got.
    fn run(
        policy: &Latency,
        members: &[crate::routing::member::Member],
        from: Duration,
        calls: u32,
        takes: &[f64],
    ) -> Vec<u32> {
        let mut got = vec![0; members.len()];
        for call in 0..calls {
            let now = from + STEP * call;
            let chosen = first(policy, members, now, None);
            members[chosen].stats.answered(now, Duration::from_secs_f64(takes[chosen]), false);
            got[chosen] += 1;
        }
        got
    }

    #[test]
    fn the_fastest_gets_the_calls_and_the_cold_a_bounded_share() {
        let members = members(3);
        let policy = Latency::default();
        let got = run(&policy, &members, Duration::ZERO, 1000, &[0.3, 0.1, 0.5]);
        assert!(got[1] > 940 && got[0] >= 5 && got[2] >= 5, "{got:?}");
        // A newcomer that is faster is found within five in a hundred calls.
        let members: Vec<_> = members.into_iter().chain(super::super::bench_members::members(1)).collect();
        let got = run(&policy, &members, STEP * 1000, 99, &[0.3, 0.1, 0.5, 0.05]);
        assert!((1..=5).contains(&got[3]), "{got:?}");
        let got = run(&policy, &members, STEP * 1099, 200, &[0.3, 0.1, 0.5, 0.05]);
        assert!(got[3] > 150, "{got:?}");
    }

    #[test]
    fn a_spike_moves_calls_away_and_they_come_back() {
        let members = members(2);
        let policy = Latency::default();
        let (usual, spike) = ([0.2, 0.5], [2.0, 0.5]);
        let got = run(&policy, &members, Duration::ZERO, 600, &usual);
        assert!(got[0] > 560, "{got:?}");
        let got = run(&policy, &members, STEP * 600, 300, &spike);
        assert!(got[0] <= 3 + 300 / 32 + 1, "three calls tell it, then 3 %: {got:?}");
        let got = run(&policy, &members, STEP * 900, 300, &usual);
        assert!(got[0] > 180, "{got:?}");
    }

    #[test]
    fn what_is_busy_is_not_explored() {
        let members = members(2);
        let policy = Latency::default();
        for _ in 0..6 {
            members[0].stats.answered(STEP, STEP, false);
        }
        members[1].stats.begun();
        let firsts = (0..200).map(|_| first(&policy, &members, STEP, None));
        assert_eq!(firsts.filter(|chosen| *chosen == 1).count(), 0);
        members[1].stats.ended();
        let firsts = (0..200).map(|_| first(&policy, &members, STEP, None));
        assert_eq!(firsts.filter(|chosen| *chosen == 1).count(), 10);
    }
}
