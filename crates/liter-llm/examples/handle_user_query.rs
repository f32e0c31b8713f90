//! A handler as a server has one: choose a provider for the user's query, ask it, give up after 8 seconds.
//!
//! `cargo run -p liter-llm --example handle_user_query -- "What is the CAP theorem?"` with `OPENAI_API_KEY` and
//! `ANTHROPIC_API_KEY` in the environment, or with a configuration document in the file that `LITER_LLM_JSON` names.
#![allow(clippy::print_stdout, reason = "an example")]

use std::time::Duration;

use liter_llm::{LlmError, LlmRequest, ProviderConfig, ProviderRouter, RouterOptions};

/// The longest a user waits.
const PATIENCE: Duration = Duration::from_secs(8);

async fn handle_user_query(router: &ProviderRouter, query: &str) -> Result<String, LlmError> {
    let provider = router.select(query).await?;
    let request = LlmRequest::new()
        .with_system("Answer in one short paragraph.")
        .with_prompt(query)
        .with_max_tokens(200)
        .with_temperature(0.2);
    let answer =
        tokio::time::timeout(PATIENCE, provider.generate(request)).await.map_err(|_| LlmError::Timeout)??;
    Ok(answer.text())
}

fn router() -> Result<ProviderRouter, LlmError> {
    if let Some(path) = std::env::var_os("LITER_LLM_JSON") {
        let document = std::fs::read(&path).map_err(|error| {
            LlmError::config("LITER_LLM_JSON", path.display().to_string()).with_source(error)
        })?;
        return ProviderRouter::from_json(&document);
    }
    ProviderRouter::with_options(
        [ProviderConfig::parse("openai/gpt-4o-mini")?, ProviderConfig::parse("anthropic/claude-sonnet-4-5")?],
        RouterOptions { policy: "latency".to_owned(), ..RouterOptions::default() },
    )
}

#[tokio::main]
async fn main() -> Result<(), LlmError> {
    let query = std::env::args().nth(1).unwrap_or_else(|| "What is the CAP theorem?".to_owned());
    println!("{}", handle_user_query(&router()?, &query).await?);
    Ok(())
}
