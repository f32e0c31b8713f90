//! A day of synthetic traffic through each routing policy, in compressed time. Prints tables in Markdown; ends with 1
//! when a goal is missed.
//!
//! `routing_day [--hours 24] [--calls 60000] [--seed 1] [--streams 1]`: `--calls` is for 24 hours.

use std::process::ExitCode;
use std::sync::Arc;

use liter_llm::LlmError;
use liter_llm_bench::day::figures::{CHOOSERS, Figures, Hindsight};
use liter_llm_bench::day::run::{Chooser, run};
use liter_llm_bench::day::scenario::Scenario;
use liter_llm_bench::day::table::table;

fn option(name: &str, default: f64) -> f64 {
    let mut arguments = std::env::args();
    arguments.find(|argument| argument == name);
    arguments.next().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn day(scenario: &Arc<Scenario>, chooser: Chooser) -> Result<Figures, LlmError> {
    let failed = |error: std::io::Error| LlmError::invalid("measurement", format!("no runtime: {error}"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .map_err(failed)?;
    let day = runtime.block_on(run(Arc::clone(scenario), chooser))?;
    Ok(Figures::of(scenario, &day))
}

fn main() -> ExitCode {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
    let seed = option("--seed", 1.0) as u64;
    let (hours, calls, streamed) =
        (option("--hours", 24.0), option("--calls", 60_000.0), option("--streams", 0.0) > 0.0);
    let scenario = Arc::new(Scenario::new(seed, hours, calls, streamed));
    let hindsight = Hindsight::of(&scenario);
    let mut days = Vec::new();
    let mut missed = Vec::new();
    for chooser in CHOOSERS {
        match day(&scenario, chooser) {
            Ok(figures) => {
                if let Chooser::Policy(policy) = chooser {
                    missed.extend(hindsight.missed(&scenario, &figures, policy));
                }
                days.push(figures);
            }
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(2);
            }
        }
    }
    println!("{}", table(&days, &hindsight));
    for goal in &missed {
        println!("missed: {goal}");
    }
    ExitCode::from(u8::from(!missed.is_empty()))
}
