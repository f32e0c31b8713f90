//! One question to one provider or several, whole and streamed, and who answered. A provider that fails is passed by.
//!
//! `cargo run -p liter-llm --example demo -- openai/gpt-4o-mini anthropic/claude-sonnet-4-5` with the providers' keys in
//! the environment (`OPENAI_API_KEY`, ...). `OPENAI_BASE_URL` and the like point it at the simulator.
#![allow(clippy::print_stdout, reason = "an example")]

use std::io::Write;

use futures_util::StreamExt;
use liter_llm::{Delta, Folder, LlmError, LlmProvider, LlmRequest, ProviderConfig, ProviderRouter};

#[tokio::main]
async fn main() -> Result<(), LlmError> {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    if names.is_empty() {
        names.push("openai/gpt-4o-mini".to_owned());
    }
    let deployments =
        names.iter().map(|name| ProviderConfig::parse(name)).collect::<Result<Vec<_>, LlmError>>()?;
    let router = ProviderRouter::new(deployments)?;
    let request =
        LlmRequest::new().with_prompt("Explain the CAP theorem in 3 sentences.").with_max_tokens(150);

    let answer = router.generate(request.clone()).await?;
    println!("{}\n", answer.text());
    for attempt in &answer.attempts {
        println!("asked: {} ({})", attempt.deployment, attempt.error.as_deref().unwrap_or("answered"));
    }
    if let Some(usage) = &answer.usage {
        println!("tokens: {} in, {} out\n", usage.input_tokens, usage.output_tokens);
    }

    let mut chunks = router.stream(request).await?;
    let mut folder = Folder::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        if let Some(Delta::Text(text)) = &chunk.delta {
            print!("{text}");
            std::io::stdout().flush().ok();
        }
        folder.take(chunk);
    }
    let answer = folder.finish();
    println!("\n\nstreamed by {}: {:?}", answer.provider, answer.finish_reason);
    Ok(())
}
