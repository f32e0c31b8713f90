//! Row 2: waits are drawn evenly (full jitter) from the operating system's entropy, however many draw at once.

use std::sync::{Arc, Barrier};

use liter_llm::resilience::retry::{Decision, RetryOptions};
use liter_llm::{ErrorKind, LlmError};

const DELAYS: usize = 10_000;
const THREADS: usize = 64;

/// The p-value of the Kolmogorov-Smirnov test against the even distribution on 0..1.
fn p_value(mut sample: Vec<f64>) -> f64 {
    sample.sort_by(f64::total_cmp);
    let n = sample.len() as f64;
    let distance = sample
        .iter()
        .enumerate()
        .map(|(index, x)| (x - index as f64 / n).max((index + 1) as f64 / n - x))
        .fold(0.0, f64::max);
    let lambda = (n.sqrt() + 0.12 + 0.11 / n.sqrt()) * distance;
    let term = |k: i32| {
        let sign = if k % 2 == 1 { 1.0 } else { -1.0 };
        sign * (-2.0 * f64::from(k * k) * lambda * lambda).exp()
    };
    (2.0 * (1..=100).map(term).sum::<f64>()).clamp(0.0, 1.0)
}

/// Shares of the bound, drawn by all threads in the same instant.
fn draw() -> Vec<f64> {
    let start = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|index| {
            let start = Arc::clone(&start);
            std::thread::spawn(move || {
                let error = LlmError::new(ErrorKind::Overloaded, "no");
                let options = RetryOptions::default();
                let count = DELAYS / THREADS + usize::from(index < DELAYS % THREADS);
                start.wait();
                (0..count)
                    .map(|_| match options.next(2, &error, None) {
                        Decision::Wait(wait) => wait.as_secs_f64() / 2.0,
                        Decision::GiveUp(why) => panic!("{why:?}"),
                    })
                    .collect::<Vec<f64>>()
            })
        })
        .collect();
    threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn row_02_waits_are_evenly_drawn() {
    // A true sample fails once in a hundred draws; three in a row happen once in a million.
    let tries: Vec<f64> = (0..3).map(|_| p_value(draw())).collect();
    assert!(tries.iter().any(|p| *p > 0.01), "{tries:?}");
    let sample = draw();
    assert_eq!(sample.len(), DELAYS);
    assert!(sample.iter().all(|share| (0.0..=1.0).contains(share)));
    // The test can tell: waits that crowd at the beginning, and waits that two threads share.
    assert!(p_value(sample.iter().map(|share| share.powf(1.2)).collect()) < 0.01);
    let mut distinct: Vec<u64> = sample.iter().map(|share| share.to_bits()).collect();
    distinct.sort_unstable();
    distinct.dedup();
    assert!(distinct.len() > DELAYS * 99 / 100, "{} of {DELAYS} differ", distinct.len());
}
