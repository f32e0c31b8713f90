//! The examples, run as programs against the simulator: what they print, and how they fail.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use liter_llm_sim::{SimConfig, Simulator};
use serde_json::{Value, json};

/// An example as `cargo test` builds it before all tests. With `--test examples` alone it does not:
/// `cargo build -p liter-llm --examples` does.
fn example(name: &str) -> Command {
    let tests = std::env::current_exe().unwrap();
    let built: PathBuf = tests.parent().unwrap().parent().unwrap().join("examples").join(name);
    let built = built.with_extension(std::env::consts::EXE_EXTENSION);
    assert!(built.is_file(), "build the examples first: cargo build -p liter-llm --examples");
    let mut command = Command::new(built);
    command.env_clear().env("NO_PROXY", "*");
    command
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn simulator() -> Simulator {
    Simulator::start(SimConfig::default()).unwrap()
}

fn answering(sim: &Simulator, rule: Value) {
    sim.add_rule(serde_json::from_value(rule).unwrap()).unwrap();
}

/// The demo with both providers' addresses and keys in the environment, as a user would give them.
fn demo(sim: &Simulator) -> Command {
    let mut command = example("demo");
    command
        .args(["openai/gpt-4o-mini", "anthropic/claude-sonnet-4-5"])
        .env("OPENAI_API_KEY", "sk-simulator")
        .env("OPENAI_BASE_URL", sim.base_url("openai").unwrap())
        .env("ANTHROPIC_API_KEY", "sk-simulator")
        .env("ANTHROPIC_BASE_URL", sim.base_url("anthropic").unwrap());
    command
}

#[test]
fn the_demo_answers_whole_and_streamed() {
    let sim = simulator();
    let output = demo(&sim).output().unwrap();
    let text = text(&output);
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("asked: openai/gpt-4o-mini (answered)"), "{text}");
    assert!(text.contains("streamed by openai: Stop"), "{text}");
    let [whole, streamed] = [0, 1].map(|nth| sim.requests()[nth].body.clone());
    assert_eq!(
        (whole["max_completion_tokens"].as_u64(), streamed["stream"].as_bool()),
        (Some(150), Some(true))
    );
    // The streamed answer is printed as it comes: the same words as the whole one.
    let first = text.split("\n\nasked:").next().unwrap();
    assert!(first.len() > 10 && text.matches(first).count() == 2, "{text}");
}

#[test]
fn the_demo_passes_a_failing_provider_by() {
    let sim = simulator();
    answering(&sim, json!({"match": {"model": "gpt-4o-mini"}, "fault": {"status": 500}}));
    let output = demo(&sim).output().unwrap();
    let text = text(&output);
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("asked: openai/gpt-4o-mini (provider_error)"), "{text}");
    assert!(text.contains("asked: anthropic/claude-sonnet-4-5 (answered)"), "{text}");
    assert!(text.contains("streamed by anthropic: Stop"), "{text}");
}

#[test]
fn the_demo_names_the_key_that_is_missing() {
    let output = example("demo").output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("OPENAI_API_KEY"), "{output:?}");
}

/// The handler's program with a document that describes the simulator.
fn handler(sim: &Simulator, name: &str) -> Output {
    let document = json!({
        "deployments": [{
            "provider": "openai", "model": "gpt-4o-mini", "api_key": "k", "base_url": sim.base_url("openai"),
        }],
    });
    let path = std::env::temp_dir().join(format!("liter-llm-{}-{name}.json", std::process::id()));
    std::fs::write(&path, document.to_string()).unwrap();
    let output = example("handle_user_query")
        .arg("[echo] What is a quorum?")
        .env("LITER_LLM_JSON", &path)
        .output()
        .unwrap();
    std::fs::remove_file(path).unwrap();
    output
}

#[test]
fn the_handler_answers_a_query() {
    let sim = simulator();
    let output = handler(&sim, "answers");
    assert!(output.status.success(), "{output:?}");
    assert!(text(&output).contains("What is a quorum?"), "{output:?}");
    let body = &sim.requests()[0].body;
    assert_eq!(
        (body["max_completion_tokens"].as_u64(), body["temperature"].as_f64()),
        (Some(200), Some(0.2))
    );
}

#[test]
fn the_handler_gives_up_after_eight_seconds() {
    let sim = simulator();
    answering(&sim, json!({"fault": {"delay_ms": 30_000}}));
    let begun = Instant::now();
    let output = handler(&sim, "gives-up");
    let took = begun.elapsed();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).to_lowercase().contains("timeout"), "{output:?}");
    assert!((Duration::from_secs(8)..Duration::from_secs(11)).contains(&took), "{took:?}");
}
