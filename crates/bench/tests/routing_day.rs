//! The goals of routing, by six hours of synthetic traffic in compressed time with fixed seeds; and that they can be
//! missed: by a policy that does not go by latency, by one host alone, and without fallback.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::sync::Arc;

use liter_llm_bench::day::figures::{Figures, Hindsight, LATENCY};
use liter_llm_bench::day::run::{Chooser, run};
use liter_llm_bench::day::scenario::Scenario;
use liter_llm_bench::day::table::table;

const POLICIES: [&str; 6] = ["latency", "cost", "priority", "weighted", "least_busy", "round_robin"];

fn six_hours(seed: u64, streamed: bool) -> (Arc<Scenario>, Hindsight) {
    let scenario = Arc::new(Scenario::new(seed, 6.0, 60_000.0, streamed));
    let hindsight = Hindsight::of(&scenario);
    (scenario, hindsight)
}

fn day(scenario: &Arc<Scenario>, chooser: Chooser) -> Figures {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    Figures::of(scenario, &runtime.block_on(run(Arc::clone(scenario), chooser)).unwrap())
}

#[test]
fn every_policy_reaches_its_goals() {
    let (scenario, hindsight) = six_hours(1, false);
    let days = POLICIES.map(|policy| day(&scenario, Chooser::Policy(policy)));
    println!("{}", table(&days, &hindsight));
    let missed: Vec<_> = days
        .iter()
        .zip(POLICIES)
        .flat_map(|(figures, policy)| hindsight.missed(&scenario, figures, policy))
        .collect();
    assert!(missed.is_empty(), "{missed:#?}");
    // The bench tells a policy that does not go by latency or price from one that does.
    let round_robin = &days[5];
    for goal in ["latency", "cost"] {
        assert_eq!(hindsight.missed(&scenario, round_robin, goal).len(), 1, "round robin as {goal}");
    }
}

#[test]
fn streams_go_by_their_first_chunk() {
    let (scenario, hindsight) = six_hours(1, true);
    let figures = day(&scenario, Chooser::Policy("latency"));
    // First chunks vary by luck alone, between hosts that are close: hindsight, which knows the luck, is out of reach.
    let ratio = figures.times[1] / hindsight.expected.times[1];
    assert!(ratio < LATENCY, "p95 is {ratio:.3} times that of the best that could be known");
    assert_eq!(hindsight.missed(&scenario, &figures, ""), [""; 0]);
}

#[test]
fn without_another_host_the_goals_are_missed() {
    let (scenario, hindsight) = six_hours(1, false);
    for chooser in [Chooser::Single(0), Chooser::NoFallback("priority")] {
        let figures = day(&scenario, chooser);
        assert!(figures.success() < 0.999, "{}: {}", figures.title, figures.success());
        let missed = hindsight.missed(&scenario, &figures, "");
        assert!(missed[0].contains("success"), "{missed:?}");
        if chooser == Chooser::Single(0) {
            assert!(figures.most_delayed() > 3, "every call of an outage fails where there is no other host");
        }
    }
}

#[test]
fn a_scenario_is_the_same_every_time() {
    let (one, other) = (six_hours(3, false).0, six_hours(3, false).0);
    let told = |scenario: &Scenario| format!("{:?} {:?}", scenario.calls[14_000], scenario.events);
    assert_eq!(told(&one), told(&other));
    assert_ne!(told(&one), told(&six_hours(4, false).0));
}
