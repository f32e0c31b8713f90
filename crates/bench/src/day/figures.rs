//! The figures of a day, the best choice in hindsight, and the goals.
//!
//! All figures are over the calls that at least one host would have answered, had it been sent there as it set out: no
//! router can help the others. A call that was not answered counts with the time until its error.
//!
//! **Extra delay**: a call sees it when it set out after an outage began, was sent to the host that is out, and came to
//! nothing there, however quickly it was answered elsewhere. Calls that were under way at that host when the outage
//! began are counted apart.

use std::collections::HashSet;

use super::run::{Chooser, Day};
use super::scenario::{HOSTS, Kind, Scenario};

/// The share of calls that must be answered while a host is up that can.
pub const SUCCESS: f64 = 0.999;

/// The policy `latency` may have so many times hindsight's 95th percentile.
pub const LATENCY: f64 = 1.15;

/// The policy `cost` may cost so many times what hindsight's choice costs.
pub const COST: f64 = 1.02;

/// So many calls may see extra delay in an outage.
pub const DELAYED: usize = 3;

/// What a choice in hindsight goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The time that the call did take there.
    Time,
    /// The time that was to be expected there: what the host is like at the moment, but not the luck of the call.
    Expectation,
    /// The price.
    Price,
}

/// What a day comes to.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Who chose.
    pub title: String,
    /// Calls that a host would have answered.
    pub calls: usize,
    /// Of these, those that were not answered.
    pub failed: usize,
    /// Seconds that half of the calls, 95 and 99 % of them stay under.
    pub times: [f64; 3],
    /// What the hosts charged, in US dollars.
    pub cost: f64,
    /// Answers by host.
    pub answered: [usize; HOSTS.len()],
    /// For each outage how many calls saw extra delay.
    pub delayed: Vec<(usize, usize)>,
    /// Calls that were under way where an outage began, most in one outage.
    pub under_way: usize,
    /// Copies sent to try hosts out.
    pub trials: u64,
}

/// The value that this share of `sorted` stays under.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a place in a list"
    )]
    let place = (share * sorted.len() as f64) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

fn times(mut all: Vec<f64>) -> [f64; 3] {
    all.sort_by(f64::total_cmp);
    [0.5, 0.95, 0.99].map(|share| percentile(&all, share))
}

impl Figures {
    /// Those of a day.
    #[must_use]
    pub fn of(scenario: &Scenario, day: &Day) -> Self {
        let can: Vec<_> =
            (0..scenario.calls.len()).map(|call| scenario.answers(call).next().is_some()).collect();
        let mut figures = Self { title: day.chooser.title(), trials: day.book.trials, ..Self::default() };
        let mut all = Vec::new();
        for (call, (took, answered)) in day.calls.iter().enumerate().filter(|(call, _)| can[*call]) {
            figures.calls += 1;
            figures.failed += usize::from(!answered);
            figures.cost += day.book.cost[call];
            all.push(*took);
            if let Some(host) = day.book.answered[call] {
                figures.answered[host] += 1;
            }
        }
        figures.times = times(all);
        for (event, told) in scenario.events.iter().enumerate().filter(|(_, told)| told.kind.is_outage()) {
            let lost: HashSet<_> = day
                .book
                .lost
                .iter()
                .filter(|(call, by)| *by == event && can[*call])
                .map(|(call, _)| *call)
                .collect();
            let after = lost.iter().filter(|call| scenario.calls[**call].at >= told.from).count();
            figures.delayed.push((event, after));
            figures.under_way = figures.under_way.max(lost.len() - after);
        }
        figures
    }

    /// Those of a choice in hindsight.
    #[must_use]
    pub fn hindsight(scenario: &Scenario, by: By) -> Self {
        let title = match by {
            By::Time => "hindsight, fastest",
            By::Expectation => "foresight, fastest",
            By::Price => "hindsight, cheapest",
        };
        let mut figures = Self { title: title.to_owned(), ..Self::default() };
        let mut all = Vec::new();
        for (call, told) in scenario.calls.iter().enumerate() {
            let merit = |(host, time, price): &(usize, f64, f64)| match by {
                By::Time => *time,
                By::Expectation => scenario.expected(call, *host, told.at, told.max_tokens),
                By::Price => *price,
            };
            let best = scenario.answers(call).min_by(|one, other| merit(one).total_cmp(&merit(other)));
            if let Some((host, time, price)) = best {
                figures.calls += 1;
                figures.cost += price;
                figures.answered[host] += 1;
                all.push(time);
            }
        }
        figures.times = times(all);
        figures
    }

    /// The share of calls that were answered.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "counts")]
    pub fn success(&self) -> f64 {
        1.0 - self.failed as f64 / self.calls.max(1) as f64
    }

    /// The most calls that saw extra delay in one outage.
    #[must_use]
    pub fn most_delayed(&self) -> usize {
        self.delayed.iter().map(|(_, count)| *count).max().unwrap_or_default()
    }
}

/// The best choices in hindsight.
#[derive(Debug)]
pub struct Hindsight {
    /// The fastest host for each call.
    pub fastest: Figures,
    /// The host that was to be expected to be the fastest, of those that answered: no policy can know more.
    pub expected: Figures,
    /// The cheapest host for each call.
    pub cheapest: Figures,
}

impl Hindsight {
    /// Of this scenario.
    #[must_use]
    pub fn of(scenario: &Scenario) -> Self {
        let by = |by| Figures::hindsight(scenario, by);
        Self { fastest: by(By::Time), expected: by(By::Expectation), cheapest: by(By::Price) }
    }

    /// The goals that these figures miss, each as a sentence. The goal for latency is that of the policy `latency`, and
    /// the one for cost that of `cost`; `as_policy` says which of them the figures are judged by.
    #[must_use]
    pub fn missed(&self, scenario: &Scenario, figures: &Figures, as_policy: &str) -> Vec<String> {
        let mut missed = Vec::new();
        let title = &figures.title;
        if figures.success() < SUCCESS {
            missed.push(format!("{title}: success {:.3} %", 100.0 * figures.success()));
        }
        let ratio = figures.times[1] / self.fastest.times[1];
        if as_policy == "latency" && ratio > LATENCY {
            missed.push(format!("{title}: p95 is {ratio:.3} times hindsight's"));
        }
        let ratio = figures.cost / self.cheapest.cost;
        if as_policy == "cost" && ratio > COST {
            missed.push(format!("{title}: cost is {ratio:.4} times hindsight's"));
        }
        for (event, count) in figures.delayed.iter().filter(|(_, count)| *count > DELAYED) {
            let told = scenario.events[*event];
            let kind = match told.kind {
                Kind::Refused => "refused",
                Kind::Errors => "errors",
                _ => "hang",
            };
            missed.push(format!(
                "{title}: {count} calls see extra delay as {} goes out at {:.2} h ({kind})",
                HOSTS[told.host].name,
                told.from / 3600.0
            ));
        }
        missed
    }
}

/// Those who choose in the table of a day.
pub const CHOOSERS: [Chooser; 7] = [
    Chooser::Policy("latency"),
    Chooser::Policy("cost"),
    Chooser::Policy("priority"),
    Chooser::Policy("weighted"),
    Chooser::Policy("least_busy"),
    Chooser::Policy("round_robin"),
    Chooser::Single(0),
];
