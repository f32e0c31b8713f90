//! Tests of the circuit breaker: when it opens, whom it lets pass, how it closes.
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
    // Told to come back at once: nothing cools.
    let limited = Limited(Some(Duration::ZERO));
    calls(&breaker, at(0), &[Failure, Failure, Success, Failure, Failure, limited, limited]);
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
    calls(&breaker, at(7), &[Outcome::Limited(Some(Duration::ZERO))]);
    assert!(breaker.look(at(7)).is_ok(), "told to come back now");
    calls(&breaker, at(7), &[Outcome::Limited(Some(at(86_400)))]);
    assert_eq!(breaker.look(at(7)), Err(Refusal::Cooling(LONGEST_COOLDOWN)));
}

/// Calls one after another, each as soon as it may pass; gives the pauses.
fn pauses(breaker: &Arc<Breaker>, now: &mut Duration, times: usize) -> Vec<u128> {
    let one = |_| {
        let pause = breaker.admit(*now).ok().unwrap().end(*now, Outcome::Limited(None)).unwrap();
        assert_eq!(breaker.look(*now), Err(Refusal::Cooling(pause)));
        *now += pause;
        pause.as_millis()
    };
    (0..times).map(one).collect()
}

#[test]
fn a_429_without_a_time_pauses_and_the_pause_doubles() {
    let options = CircuitOptions { failures: 100, ..CircuitOptions::default() };
    let breaker = Arc::new(Breaker::new(Some(options)));
    let mut now = at(100);
    assert_eq!(pauses(&breaker, &mut now, 7), [500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000]);
    calls(&breaker, now, &[Outcome::Failure]);
    assert_eq!(pauses(&breaker, &mut now, 1), [8_000], "only a success begins anew");
    calls(&breaker, now, &[Outcome::Success]);
    assert_eq!(pauses(&breaker, &mut now, 2), [500, 1_000]);
    // With a time it is the provider that says how long; the row of pauses stays where it is.
    calls(&breaker, now, &[Outcome::Limited(Some(at(1)))]);
    now += at(1);
    assert_eq!(pauses(&breaker, &mut now, 1), [2_000]);
}

#[test]
fn calls_on_their_way_together_pause_once() {
    let breaker = Arc::new(Breaker::new(Some(CircuitOptions { failures: 100, ..CircuitOptions::default() })));
    let together: Vec<_> = (0..20).map(|_| breaker.admit(at(0)).ok().unwrap()).collect();
    for permit in together {
        assert_eq!(permit.end(at(0), Outcome::Limited(None)), Some(FIRST_PAUSE));
    }
    assert_eq!(breaker.look(at(0)), Err(Refusal::Cooling(FIRST_PAUSE)));
    assert_eq!(pauses(&breaker, &mut at(1), 1), [1_000]);
}

#[test]
fn an_answered_probe_closes_it_and_its_end_counts_as_any_other() {
    let breaker = opened(1);
    let mut probe = breaker.admit(at(30)).ok().unwrap();
    probe.answer_begun();
    let state = breaker.snapshot(at(30));
    assert_eq!((state.circuit, state.failures_in_row, state.in_flight), (Circuit::Closed, 0, 1));
    calls(&breaker, at(31), &[Outcome::Failure; 2]);
    probe.end(at(32), Outcome::Failure);
    assert_eq!(breaker.snapshot(at(32)).open_for, Some(at(30)), "the third failure in a row");
    // Its end is history once the circuit has opened again.
    let mut probe = breaker.admit(at(62)).ok().unwrap();
    probe.answer_begun();
    calls(&breaker, at(62), &[Outcome::Failure; 3]);
    probe.end(at(63), Outcome::Success);
    assert_eq!(breaker.look(at(63)), Err(Refusal::Open(at(29))));
    assert_eq!(breaker.snapshot(at(63)).in_flight, 0);
}

#[test]
fn an_answered_probe_counts_once_in_its_round() {
    for (end, then) in [
        (Some(Outcome::Success), Circuit::HalfOpen),
        (None, Circuit::HalfOpen),
        (Some(Outcome::Failure), Circuit::Open),
    ] {
        let breaker = opened(2);
        let mut first = breaker.admit(at(30)).ok().unwrap();
        let second = breaker.admit(at(30)).ok().unwrap();
        first.answer_begun();
        first.answer_begun();
        assert!(breaker.admit(at(30)).is_err(), "a round has two");
        match end {
            Some(outcome) => {
                first.end(at(31), outcome);
            }
            None => drop(first),
        }
        assert_eq!(breaker.snapshot(at(31)).circuit, then);
        second.end(at(31), Outcome::Success);
        assert_eq!(breaker.snapshot(at(31)).circuit == Circuit::Closed, then == Circuit::HalfOpen);
    }
}

#[test]
fn switched_off_it_only_counts_calls() {
    let breaker = Arc::new(Breaker::new(None));
    calls(&breaker, at(0), &[Outcome::Limited(Some(at(60))); 20]);
    calls(&breaker, at(0), &[Outcome::Limited(None); 20]);
    let running = breaker.admit(at(0)).ok().unwrap();
    assert_eq!(breaker.snapshot(at(0)).in_flight, 1);
    drop(running);
    assert_eq!(breaker.snapshot(at(0)).in_flight, 0);
}
