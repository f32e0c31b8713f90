//! The policy `least_busy`: the one with the fewest calls under way first.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::policy::{CallView, Policy};

/// By the calls that have not ended, those in line included; of equals one after the other.
#[derive(Debug, Default)]
pub struct LeastBusy(AtomicUsize);

impl Policy for LeastBusy {
    fn name(&self) -> &str {
        "least_busy"
    }

    fn order(&self, call: &CallView<'_>, open: &mut [usize]) {
        if open.is_empty() {
            return;
        }
        let turn = self.0.fetch_add(1, Ordering::Relaxed) % open.len();
        open.rotate_left(turn);
        open.sort_by_cached_key(|position| call.members[*position].stats.in_flight());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::routing::bench_members::{first, members};

    #[test]
    fn the_fewest_calls_win_and_equals_take_turns() {
        let members = members(3);
        let policy = LeastBusy::default();
        let begin = || {
            let chosen = first(&policy, &members, Duration::ZERO, None);
            members[chosen].stats.begun();
            chosen
        };
        let mut chosen: Vec<_> = (0..6).map(|_| begin()).collect();
        chosen.sort_unstable();
        assert_eq!(chosen, [0, 0, 1, 1, 2, 2]);
        members[1].stats.ended();
        assert_eq!((begin(), members[1].stats.in_flight()), (1, 2));
        let idle = super::super::bench_members::members(3);
        let turns: Vec<_> =
            (0..3).map(|_| first(&LeastBusy::default(), &idle, Duration::ZERO, None)).collect();
        assert_eq!(turns, [0, 0, 0], "each policy counts for itself");
        let turns: Vec<_> = (0..3).map(|_| first(&policy, &idle, Duration::ZERO, None)).collect();
        assert!(turns.contains(&0) && turns.contains(&1) && turns.contains(&2), "{turns:?}");
    }
}
