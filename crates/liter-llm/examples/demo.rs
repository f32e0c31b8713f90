//! One prompt, whole and streamed. Run with `OPENAI_API_KEY` set, or point `OPENAI_BASE_URL` at the simulator.
#![allow(clippy::print_stdout, reason = "an example")]

use std::io::Write;

use futures_util::StreamExt;
use liter_llm::{Client, Delta, LlmError, LlmProvider, LlmRequest, ProviderConfig};

#[tokio::main]
async fn main() -> Result<(), LlmError> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "openai/gpt-4o-mini".to_owned());
    let client = Client::new(ProviderConfig::parse(&name)?)?;
    let request =
        LlmRequest::new().with_prompt("Explain the CAP theorem in 3 sentences.").with_max_tokens(150);

    let answer = client.generate(request.clone()).await?;
    println!("{}\n{:?}\n", answer.text(), answer.usage);

    let mut chunks = client.stream(request).await?;
    while let Some(chunk) = chunks.next().await {
        if let Some(Delta::Text(text)) = chunk?.delta {
            print!("{text}");
            std::io::stdout().flush().ok();
        }
    }
    println!();
    Ok(())
}
