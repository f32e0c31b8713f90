//! A policy's day: the engine's client over the scenario's hosts, with one task a call, by Tokio's clock. On a runtime
//! whose clock is paused the day takes as long as its work.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use liter_llm::client::Own;
use liter_llm::{Client, Config, LlmError, LlmProvider, LlmRequest, RawJson, Tool};
use serde_json::json;
use tokio::time::Instant;

use super::host::{Book, Double, open, prompt};
use super::scenario::{HOSTS, Scenario, TIMEOUT};

/// Who decides where a call goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chooser {
    /// A router's policy.
    Policy(&'static str),
    /// A router's policy, which is not asked again when the one it names fails.
    NoFallback(&'static str),
    /// Always this host, at its position.
    Single(usize),
}

impl Chooser {
    /// Its name in tables.
    #[must_use]
    pub fn title(self) -> String {
        match self {
            Self::Policy(policy) => format!("`{policy}`"),
            Self::NoFallback(policy) => format!("`{policy}`, no fallback"),
            Self::Single(host) => format!("{} alone", HOSTS[host].name),
        }
    }
}

/// What came of the day.
#[derive(Debug)]
pub struct Day {
    /// Who chose.
    pub chooser: Chooser,
    /// For each call: seconds, and whether it was answered.
    pub calls: Vec<(f64, bool)>,
    /// What the hosts saw.
    pub book: Book,
}

fn client(chooser: Chooser, scenario: &Arc<Scenario>, book: &Arc<Mutex<Book>>) -> Result<Client, LlmError> {
    let begun = Instant::now();
    let (policy, chosen) = match chooser {
        Chooser::Policy(policy) | Chooser::NoFallback(policy) => (policy, 0..HOSTS.len()),
        Chooser::Single(host) => ("priority", host..host + 1),
    };
    let mut deployments = Vec::new();
    let mut providers: HashMap<usize, Arc<dyn LlmProvider>> = HashMap::new();
    for host in chosen {
        let told = HOSTS[host];
        providers.insert(
            deployments.len(),
            Arc::new(Double::new(Arc::clone(scenario), host, begun, Arc::clone(book))),
        );
        deployments.push(json!({
            "provider": "openai", "model": told.name, "name": told.name,
            "price": { "input": told.input, "output": told.output },
            "supports": { "tools": told.tools },
        }));
    }
    let document = json!({
        "deployments": deployments,
        "router": { "policy": policy, "timeout": TIMEOUT.as_secs_f64() },
    });
    let config = Config::from_json(document.to_string().as_bytes())?;
    Client::from_config_with(config, Own { providers, policy: None })
}

fn request(scenario: &Scenario, call: usize) -> LlmRequest {
    let told = scenario.calls[call];
    let request = LlmRequest::new()
        .with_prompt(prompt(scenario, call))
        .with(|body| body.max_tokens = Some(told.max_tokens));
    match told.tools {
        true => request.with_tool(Tool::function(
            "look_up",
            "Looks something up.",
            RawJson::from(r#"{"type":"object"}"#),
        )),
        false => request,
    }
}

async fn send(door: &dyn LlmProvider, request: LlmRequest, streamed: bool) -> Result<(), LlmError> {
    if !streamed {
        return door.generate(request).await.map(|_| ());
    }
    let mut stream = door.stream(request).await?;
    match stream.next().await {
        Some(first) => first.map(|_| ()),
        None => Ok(()),
    }
}

/// Runs the day.
///
/// # Errors
/// `config`: never, unless the scenario's hosts cannot be configured. `provider_error`: a call's task broke down.
pub async fn run(scenario: Arc<Scenario>, chooser: Chooser) -> Result<Day, LlmError> {
    let count = scenario.calls.len();
    let book =
        Arc::new(Mutex::new(Book { cost: vec![0.0; count], answered: vec![None; count], ..Book::default() }));
    let begun = Instant::now();
    let client = Arc::new(client(chooser, &scenario, &book)?);
    let mut tasks = Vec::with_capacity(count);
    for call in 0..count {
        tokio::time::sleep_until(begun + Duration::from_secs_f64(scenario.calls[call].at)).await;
        let (client, scenario) = (Arc::clone(&client), Arc::clone(&scenario));
        tasks.push(tokio::spawn(async move {
            let request = request(&scenario, call);
            let begun = Instant::now();
            let outcome = match chooser {
                Chooser::NoFallback(_) => match client.select(&request).await {
                    Ok(door) => send(&*door, request, scenario.streamed).await,
                    Err(error) => Err(error),
                },
                _ => send(&*client, request, scenario.streamed).await,
            };
            (begun.elapsed().as_secs_f64(), outcome.is_ok())
        }));
    }
    let mut calls = Vec::with_capacity(count);
    for task in tasks {
        let broken = |_| LlmError::new(liter_llm::ErrorKind::ProviderError, "a call's task broke down");
        calls.push(task.await.map_err(broken)?);
    }
    // Trials of the last calls end within their own limit; nothing is asked of them any more.
    let book = std::mem::take(&mut *open(&book));
    Ok(Day { chooser, calls, book })
}
