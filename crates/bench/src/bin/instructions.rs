//! Does the work of one scenario a given number of times; `benchmarks/instructions/run.py` counts its instructions.
//!
//! `instructions --list` names the scenarios, `instructions NAME COUNT` runs one. With `LITER_LLM_BENCH_DOUBLE=NAME`
//! in the environment that scenario's work is done twice each time: the check must notice.

use std::process::ExitCode;

use liter_llm_bench::scenarios::SCENARIOS;

fn run(name: &str, count: u32) -> Result<(), String> {
    let scenario = SCENARIOS
        .iter()
        .find(|scenario| scenario.name == name)
        .ok_or_else(|| format!("no scenario `{name}`; see --list"))?;
    let doubled = std::env::var("LITER_LLM_BENCH_DOUBLE").is_ok_and(|doubled| doubled == name);
    let mut work = (scenario.prepare)().map_err(|error| error.to_string())?;
    for _ in 0..count {
        for _ in 0..if doubled { 2 } else { 1 } {
            work().map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--list"] => {
            SCENARIOS.iter().for_each(|scenario| println!("{}", scenario.name));
            Ok(())
        }
        [name, count] => match count.parse() {
            Ok(count) => run(name, count),
            Err(error) => Err(format!("`{count}`: {error}")),
        },
        _ => Err("usage: instructions --list | NAME COUNT".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::from(2)
        }
    }
}
