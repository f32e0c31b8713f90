//! The state machines that calls share, run over many interleavings: the shipped types themselves, with the model
//! checker's locks under them. Each model is also run on a machine with a mistake in it, and must find it.
//!
//! `cargo test -p liter-llm --features model --test models`
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use futures_util::FutureExt as _;
use liter_llm::core::clock::Clock;
use liter_llm::resilience::breaker::{Breaker, Circuit, Outcome, Permit};
use liter_llm::resilience::cache_key::CacheKey;
use liter_llm::resilience::limit::{Limiter, Limits, Look, Place, Turn, Used};
use liter_llm::resilience::quota::{RetryQuota, TRANSIENT_COST};
use liter_llm::resilience::single_flight::Flights;
use liter_llm::resilience::sync::Seeded;
use liter_llm::routing::ledger::{Amount, Bill, Charge, Ledger, Line, Verdict, Window};
use liter_llm::{CircuitOptions, LlmRequest, Money};
use shuttle::sync::atomic::{AtomicU32, Ordering};
use shuttle::{future, thread};

const SCHEDULES: usize = 10_000;

/// No assertion fails in any schedule.
fn holds(model: impl Fn(Option<Seeded>) + Send + Sync + 'static) {
    shuttle::check_random(move || model(None), SCHEDULES);
}

/// With this mistake in it, some schedule fails.
fn finds(model: impl Fn(Option<Seeded>) + Send + Sync + 'static, seeded: Seeded) {
    let run = || shuttle::check_random(move || model(Some(seeded)), SCHEDULES);
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err(), "{seeded:?} was not found");
}

fn spawn_all<T: Send + 'static>(count: u32, work: impl Fn(u32) -> T + Send + Sync + 'static) -> Vec<T> {
    let work = Arc::new(work);
    let spawn = |index| {
        let work = Arc::clone(&work);
        thread::spawn(move || work(index))
    };
    let threads: Vec<_> = (0..count).map(spawn).collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// What went wrong in a thread, for the thread that waits for all: several that panicked at once would be more than the
/// checker can tell apart. Not one of the checker's own locks, so no schedule depends on it.
#[derive(Clone, Default)]
struct Broken(Arc<std::sync::Mutex<Option<String>>>);

impl Broken {
    fn unless(&self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            *self.0.lock().unwrap() = Some(what());
        }
    }

    fn check(&self) {
        let broken = self.0.lock().unwrap().take();
        assert!(broken.is_none(), "{}", broken.unwrap_or_default());
    }
}

const OPEN: Duration = Duration::from_secs(30);

/// An open breaker, and `late` permits of calls from before.
fn opened(probes: u32, late: usize, seeded: Option<Seeded>) -> (Arc<Breaker>, Vec<Permit>) {
    let options = CircuitOptions { failures: 2, open_time: OPEN.as_secs_f64(), probes };
    let breaker = match seeded {
        Some(seeded) => Breaker::with_seeded(options, seeded),
        None => Breaker::new(Some(options)),
    };
    let breaker = Arc::new(breaker);
    let admit = || breaker.admit(Duration::ZERO).ok().unwrap();
    let late = (0..late).map(|_| admit()).collect();
    for _ in 0..2 {
        admit().end(Duration::ZERO, Outcome::Failure);
    }
    assert_eq!(breaker.snapshot(Duration::ZERO).circuit, Circuit::Open);
    (breaker, late)
}

/// However calls race for it, a round has exactly as many probes as are set.
fn exact_probes(probes: u32) -> impl Fn(Option<Seeded>) {
    move |seeded| {
        let (breaker, _) = opened(probes, 0, seeded);
        let asked = Arc::clone(&breaker);
        let permits = spawn_all(probes + 3, move |_| asked.admit(OPEN).ok());
        assert_eq!(permits.iter().flatten().count(), probes as usize);
        assert!(permits.iter().flatten().all(Permit::is_probe));
        for permit in permits.into_iter().flatten() {
            permit.end(OPEN, Outcome::Success);
        }
        assert_eq!(breaker.snapshot(OPEN).circuit, Circuit::Closed);
    }
}

#[test]
fn breaker_admits_exactly_its_probes() {
    for probes in [1, 2, 3] {
        holds(exact_probes(probes));
    }
    finds(exact_probes(1), Seeded::SplitCheck);
    finds(exact_probes(2), Seeded::SplitCheck);
}

/// Late outcomes race with a probe that says nothing: nothing has shown the deployment to be well, so it is not closed;
/// and nothing has shown it to be ill, so a probe may pass.
fn late_outcomes(seeded: Option<Seeded>) {
    let (breaker, mut late) = opened(1, 2, seeded);
    let (success, failure) = (late.pop().unwrap(), late.pop().unwrap());
    let probing = Arc::clone(&breaker);
    let threads = [
        thread::spawn(move || {
            success.end(OPEN, Outcome::Success);
        }),
        thread::spawn(move || {
            failure.end(OPEN, Outcome::Failure);
        }),
        thread::spawn(move || drop(probing.admit(OPEN).ok())),
    ];
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(breaker.snapshot(OPEN).circuit, Circuit::HalfOpen);
    assert!(breaker.admit(OPEN).is_ok());
}

#[test]
fn breaker_ignores_late_outcomes() {
    holds(late_outcomes);
    finds(late_outcomes, Seeded::LateOutcome);
}

/// Probes that succeed, fail and are cancelled race: a failed one wins, cancelled ones leave no trace, and calls in
/// flight are counted right.
fn probe_ends(seeded: Option<Seeded>) {
    const PROBES: u32 = 2;
    let (breaker, _) = opened(PROBES, 0, seeded);
    let running = Arc::new(AtomicU32::new(0));
    let asked = Arc::clone(&breaker);
    let broken = Broken::default();
    let told = broken.clone();
    let ends = spawn_all(4, move |index| {
        let Ok(permit) = asked.admit(OPEN) else { return None };
        if permit.is_probe() {
            let beside = running.fetch_add(1, Ordering::SeqCst);
            told.unless(beside < PROBES, || "too many probes at once".to_owned());
            thread::yield_now();
            running.fetch_sub(1, Ordering::SeqCst);
        }
        let probe = permit.is_probe();
        match index {
            0 => {
                permit.end(OPEN, Outcome::Success);
            }
            1 => {
                permit.end(OPEN, Outcome::Failure);
            }
            _ => drop(permit),
        }
        probe.then_some(index)
    });
    broken.check();
    let state = breaker.snapshot(OPEN);
    assert_eq!(state.in_flight, 0);
    let ran = |index: u32| ends.contains(&Some(index));
    match (ran(0), ran(1)) {
        (_, true) => assert_eq!(state.circuit, Circuit::Open),
        (true, false) => assert_eq!(state.circuit, Circuit::Closed),
        (false, false) => {
            assert_ne!(state.circuit, Circuit::Closed);
            assert!(breaker.admit(OPEN).is_ok(), "a cancelled probe kept its slot");
        }
    }
}

#[test]
fn breaker_gives_slots_back() {
    holds(probe_ends);
    finds(probe_ends, Seeded::LostProbe);
}

/// A probe that streams has succeeded with the first piece of its answer and then breaks, beside one that is dropped:
/// whatever the order, the round is decided once, the break is a failure, and calls in flight are counted right.
fn streamed_probes(_: Option<Seeded>) {
    let (breaker, _) = opened(2, 0, None);
    let (mut streamed, dropped) = (breaker.admit(OPEN).ok().unwrap(), breaker.admit(OPEN).ok().unwrap());
    let threads = [
        thread::spawn(move || {
            streamed.answer_begun();
            streamed.end(OPEN, Outcome::Failure);
        }),
        thread::spawn(move || drop(dropped)),
    ];
    for thread in threads {
        thread.join().unwrap();
    }
    let state = breaker.snapshot(OPEN);
    assert_eq!(state.in_flight, 0);
    match state.circuit {
        // It broke while the other still ran: a round with a failure.
        Circuit::Open => {}
        // The round had closed it before.
        circuit => assert_eq!((circuit, state.failures_in_row), (Circuit::Closed, 1)),
    }
}

#[test]
fn breaker_counts_a_streamed_probe_once() {
    holds(streamed_probes);
}

/// Time that stands still.
struct Still;

impl Clock for Still {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

fn limiter(limits: Limits, seeded: Option<Seeded>) -> Arc<Limiter> {
    Arc::new(match seeded {
        Some(seeded) => Limiter::with_seeded(limits, Duration::ZERO, seeded),
        None => Limiter::new(limits, Duration::ZERO),
    })
}

fn turn(limiter: &Arc<Limiter>) -> Turn {
    Turn::new(Arc::clone(limiter), Arc::new(Still), 0)
}

/// Calls race for places, one of them gives up in line: never too many at once, and everyone else gets a turn (the
/// checker reports a deadlock else).
fn places(concurrency: u32) -> impl Fn(Option<Seeded>) {
    move |seeded| {
        let limiter = limiter(Limits { concurrency: Some(concurrency), ..Limits::default() }, seeded);
        let running = Arc::new(AtomicU32::new(0));
        let line = Arc::clone(&limiter);
        let broken = Broken::default();
        let told = broken.clone();
        spawn_all(concurrency + 3, move |index| {
            if index == 0 {
                let mut given_up = turn(&line);
                let place = (&mut given_up).now_or_never();
                thread::yield_now();
                drop((place, given_up));
                return;
            }
            let (_place, _) = future::block_on(turn(&line));
            let beside = running.fetch_add(1, Ordering::SeqCst);
            told.unless(beside < concurrency, || "too many at once".to_owned());
            thread::yield_now();
            running.fetch_sub(1, Ordering::SeqCst);
        });
        broken.check();
        assert_eq!((limiter.in_flight(), limiter.waiting()), (0, 0));
    }
}

#[test]
fn limiter_never_admits_too_many_and_forgets_no_one() {
    for concurrency in [1, 2] {
        holds(places(concurrency));
        finds(places(concurrency), Seeded::SplitCheck);
    }
    finds(places(1), Seeded::LostWake);
}

/// Calls that have joined a line one after another are served in that order, whenever they run.
fn order(seeded: Option<Seeded>) {
    let limiter = limiter(Limits { concurrency: Some(1), ..Limits::default() }, seeded);
    let (first, _) = turn(&limiter).now_or_never().unwrap();
    let served = Arc::new(shuttle::sync::Mutex::new(Vec::new()));
    let mut turns: Vec<Turn> = (0..3).map(|_| turn(&limiter)).collect();
    assert!(turns.iter_mut().all(|turn| turn.now_or_never().is_none()));
    let threads: Vec<_> = turns
        .into_iter()
        .enumerate()
        .map(|(index, turn)| {
            let served = Arc::clone(&served);
            thread::spawn(move || {
                let (_place, _) = future::block_on(turn);
                served.lock().unwrap().push(index);
            })
        })
        .collect();
    drop(first);
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(*served.lock().unwrap(), [0, 1, 2]);
}

#[test]
fn limiter_keeps_the_order_of_the_line() {
    holds(order);
}

/// Calls reserve and settle at once: what is left is what was used, to the token.
fn settlement(seeded: Option<Seeded>) {
    const RESERVED: u64 = 100;
    let limiter = limiter(Limits { tpm: Some(30_000), ..Limits::default() }, seeded);
    let full = limiter.tokens_left(Duration::ZERO).unwrap();
    let line = Arc::clone(&limiter);
    let used = [Used::Tokens(30), Used::Nothing, Used::AtLeast(40), Used::Tokens(170)];
    spawn_all(4, move |index| {
        let mut number = None;
        let look = line.look(Duration::ZERO, RESERVED, &mut number, Waker::noop());
        let Look::Go(mut place): Look = look else { panic!("1,000 may go at once") };
        thread::yield_now();
        Place::note(&mut place, used[index as usize]);
    });
    let left = limiter.tokens_left(Duration::ZERO).unwrap();
    assert!((full - left - 300.0).abs() < 1e-6, "{left} left of {full}");
}

#[test]
fn limiter_settles_to_the_token() {
    holds(settlement);
    finds(settlement, Seeded::LostRefund);
}

/// Callers of one question come and go; one may land the flight. When all have gone, nothing is left of it.
fn seats(seeded: Option<Seeded>) {
    let flights = Arc::new(seeded.map_or_else(Flights::<u32>::default, Flights::with_seeded));
    let name = (CacheKey::new(&[0; 32], &LlmRequest::new().with_prompt("Hi")).unwrap(), None);
    let shared = Arc::clone(&flights);
    spawn_all(3, move |index| {
        let seat = shared.seat(name);
        let lead = seat.try_lead();
        thread::yield_now();
        if lead.is_some() && index == 0 {
            seat.land(7);
        }
        drop(lead);
    });
    assert_eq!(flights.len(), 0);
}

#[test]
fn flights_are_forgotten_when_all_have_left() {
    holds(seats);
    finds(seats, Seeded::SplitCheck);
}

/// A quota with this many tokens left.
fn quota(left: u32, seeded: Option<Seeded>) -> Arc<RetryQuota> {
    let quota = seeded.map_or_else(RetryQuota::new, RetryQuota::with_seeded);
    assert!(quota.take(quota.tokens() - left));
    Arc::new(quota)
}

/// Calls race for tokens that do not suffice for all.
fn scarce_retries(seeded: Option<Seeded>) {
    let quota = quota(2 * TRANSIENT_COST + 5, seeded);
    let shared = Arc::clone(&quota);
    let taken = spawn_all(4, move |_| shared.take(TRANSIENT_COST));
    assert_eq!(taken.iter().filter(|taken| **taken).count(), 2);
    assert_eq!(quota.tokens(), 5);
}

/// Calls take and, having succeeded, give back at once; others succeed at the first try.
fn returned_retries(seeded: Option<Seeded>) {
    let quota = quota(100, seeded);
    let shared = Arc::clone(&quota);
    spawn_all(4, move |index| {
        let taken = if index % 2 == 0 { TRANSIENT_COST } else { 0 };
        assert!(shared.take(taken));
        thread::yield_now();
        shared.succeeded(taken);
    });
    assert_eq!(quota.tokens(), 102, "two first tries gave one each");
}

#[test]
fn quota_is_never_overdrawn_and_loses_nothing() {
    holds(scarce_retries);
    finds(scarce_retries, Seeded::SplitCheck);
    holds(returned_retries);
    finds(returned_retries, Seeded::LostRefund);
}

const WINDOW: Window = Window { start: 0, end: 60 };

fn ledger(seeded: Option<Seeded>) -> Arc<Ledger> {
    seeded.map_or_else(Ledger::in_memory, Ledger::with_seeded)
}

fn line(account: &str, limit: u64) -> Line {
    Line { account: account.into(), window: WINDOW, limit: Money::from_parts(limit), hard: true }
}

fn bill() -> Bill {
    Bill { deployment: "d".into(), key: None }
}

/// Calls race for a budget: what is spent and reserved is never above the limit by more than one call, and in the end
/// it is what they cost.
fn budget(seeded: Option<Seeded>) {
    const LIMIT: u64 = 100;
    const CEILING: u64 = 60;
    let ledger = ledger(seeded);
    let shared = Arc::clone(&ledger);
    let broken = Broken::default();
    let told = broken.clone();
    let costs = spawn_all(4, move |index| {
        let amount = Amount { ceiling: Money::from_parts(CEILING), expected: Money::from_parts(7) };
        let lines = [line("wide", 2 * LIMIT), line("narrow", LIMIT)];
        let Ok(mut ticket) = shared.try_reserve(&lines, amount, bill()).unwrap() else { return 0 };
        let level = shared.level("narrow", WINDOW);
        let held = level.spent.plus(level.reserved);
        told.unless(held.parts() <= LIMIT + CEILING, || format!("{held:?} of {LIMIT}"));
        thread::yield_now();
        let cost = u64::from(index) * 20;
        match index {
            0 => drop(ticket),
            1 => {
                ticket.send();
                drop(ticket);
                return 7;
            }
            _ => ticket.settle_soon(Charge::Cost(Money::from_parts(cost))),
        }
        cost
    });
    broken.check();
    for account in ["wide", "narrow"] {
        let level = ledger.level(account, WINDOW);
        assert_eq!(
            (level.spent.parts(), level.reserved, level.running),
            (costs.iter().sum(), Money::ZERO, 0)
        );
    }
    let spent = ledger.level("narrow", WINDOW).spent.parts();
    let amount = Amount { ceiling: Money::from_parts(CEILING), expected: Money::ZERO };
    let last = ledger.try_reserve(&[line("narrow", LIMIT)], amount, bill()).unwrap();
    assert_eq!(matches!(last, Err(Verdict::Full(_))), spent >= LIMIT);
}

#[test]
fn budgets_are_never_overdrawn_and_lose_nothing() {
    holds(budget);
    finds(budget, Seeded::SplitCheck);
    finds(budget, Seeded::LostRefund);
}
