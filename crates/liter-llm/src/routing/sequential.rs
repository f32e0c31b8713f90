//! An exact test that may be looked at after every event: do more of the bad events fall to one side than its share?

/// Of the budget for false alarms, the part that is spent by [`EARLY`] events or so; the rest lasts for long windows.
const EARLY_PART: f64 = 0.85;

/// The scale of the early part, in events.
const EARLY: f64 = 100.0;

/// The scale of the late part, in events.
const LATE: f64 = 1000.0;

/// Probabilities below this are not followed; they count as spent.
const NOTHING: f64 = 1e-16;

/// The budget that may be spent by this number of events, of 1.
fn spendable(events: f64) -> f64 {
    let early = -(-(events / EARLY).powi(2)).exp_m1();
    EARLY_PART.mul_add(early, (1.0 - EARLY_PART) * events / (events + LATE))
}

/// A sequential test on coin tosses. Calls are assigned by chance, one side's with a known probability; if both sides
/// are alike, each bad event (a failed, slow or dear call) is that side's with the same probability, whatever the rate
/// of such events is and however it changes. Too many on that side speak against it.
///
/// The limit for "too many" is found event by event from the exact distribution of the counts that have not yet crossed
/// it (an alpha-spending function after Lan and DeMets, 1983, on the binomial process of Kulldorff et al., 2011), so
/// the probability of ever crossing it by chance is at most the budget.
#[derive(Debug, Clone)]
pub struct Sequential {
    share: f64,
    alpha: f64,
    /// The count that `alive[0]` stands for.
    low: u64,
    /// The probabilities of the counts that have not crossed.
    alive: Vec<f64>,
    spent: f64,
    events: u64,
    hits: u64,
}

impl Sequential {
    /// A test of the side that gets this share of the calls (between 0 and 1), with this budget for false alarms.
    #[must_use]
    pub fn new(share: f64, alpha: f64) -> Self {
        Self { share, alpha, low: 0, alive: vec![1.0], spent: 0.0, events: 0, hits: 0 }
    }

    /// A bad event happened; `hit`: on the tested side.
    #[allow(clippy::cast_precision_loss, reason = "counts are small")]
    pub fn event(&mut self, hit: bool) {
        self.events += 1;
        self.hits += u64::from(hit);
        let (stay, rise) = (1.0 - self.share, self.share);
        let mut below = 0.0;
        for chance in &mut self.alive {
            let here = *chance;
            *chance = here.mul_add(stay, below * rise);
            below = here;
        }
        self.alive.push(below * rise);
        let budget = self.alpha * spendable(self.events as f64);
        while let Some(top) = self.alive.last()
            && self.spent + top <= budget
        {
            self.spent += top;
            self.alive.pop();
        }
        let unlikely = self.alive.iter().take_while(|chance| **chance < NOTHING).count();
        if unlikely > 0 && unlikely < self.alive.len() {
            self.spent += self.alive.drain(..unlikely).sum::<f64>();
            self.low += unlikely as u64;
        }
    }

    /// Events so far.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// Of these, those on the tested side.
    #[must_use]
    pub const fn hits(&self) -> u64 {
        self.hits
    }

    /// How many of the events are expected on the tested side.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "counts are small")]
    pub fn expected(&self) -> f64 {
        self.events as f64 * self.share
    }

    /// The number of events on the tested side that are too many now.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.low + self.alive.len() as u64
    }

    /// Whether there are too many.
    #[must_use]
    pub fn is_crossed(&self) -> bool {
        self.hits >= self.limit()
    }

    /// The chance of at least so many in a single look at this number of events. For the report; the decision goes by
    /// [`limit`](Self::limit), which allows for all the looks.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "counts are small")]
    pub fn p_value(&self) -> f64 {
        let events = self.events as f64;
        let odds = (self.share / (1.0 - self.share)).ln();
        let mut log = events * (-self.share).ln_1p();
        let mut tail = 0.0;
        for count in 0..=self.events {
            if count >= self.hits {
                tail += log.exp();
            }
            let count = count as f64;
            log += ((events - count) / (count + 1.0)).ln() + odds;
        }
        tail.min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chance_of_a_single_look_is_the_binomial_one() {
        let mut test = Sequential::new(0.5, 0.05);
        for hit in [true, true, true, false, true] {
            test.event(hit);
        }
        assert!((test.p_value() - 6.0 / 32.0).abs() < 1e-12, "5 + 1 of 32 ways");
        assert!((test.expected() - 2.5).abs() < 1e-12);
        assert!(!test.is_crossed());
        assert!((Sequential::new(0.1, 0.05).p_value() - 1.0).abs() < 1e-12);
    }

    #[test]
    fn a_side_that_takes_every_failure_is_found_soon() {
        for (share, most) in [(0.5, 12), (0.1, 5), (0.01, 3)] {
            let mut test = Sequential::new(share, 0.036);
            while !test.is_crossed() {
                test.event(true);
            }
            assert!(test.events() <= most, "{} at {share}", test.events());
        }
    }

    /// The budget is kept exactly: the mass that has crossed, followed along all paths, not along samples.
    #[test]
    fn the_budget_is_never_exceeded() {
        for share in [0.01, 0.05, 0.3, 0.5, 0.9] {
            let (mut test, alpha) = (Sequential::new(share, 0.04), 0.04);
            // The same walk, with the limits taken from the test and nothing else.
            let mut paths = vec![1.0_f64];
            let mut crossed = 0.0;
            for _ in 0..3000_usize {
                test.event(false);
                paths.push(0.0);
                for count in (0..paths.len()).rev() {
                    let below = if count == 0 { 0.0 } else { paths[count - 1] };
                    paths[count] = paths[count].mul_add(1.0 - share, below * share);
                }
                let limit = usize::try_from(test.limit()).unwrap_or(usize::MAX);
                for chance in paths.iter_mut().skip(limit) {
                    crossed += std::mem::take(chance);
                }
            }
            assert!(crossed <= alpha, "{crossed} at {share}");
            assert!(crossed > 0.5 * alpha, "{crossed} at {share}: the budget is used");
        }
    }
}
