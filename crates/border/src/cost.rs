//! What a usage costs by the catalogue, asked in JSON.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use liter_llm::catalog::{Catalog, PriceFacts};
use liter_llm::{Cost, ErrorKind, LlmError, Usage};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    provider: String,
    model: String,
    usage: Usage,
    /// Seconds since 1970; absent: now.
    at: Option<f64>,
    mode: Option<String>,
    service_tier: Option<String>,
}

fn refused(what: impl Into<String>) -> LlmError {
    LlmError::new(ErrorKind::InvalidRequest, what.into()).with(|detail| detail.before_send = true)
}

/// What a usage costs; `None` when the model or a price is not known. The question is
/// `{"provider", "model", "usage", "at", "mode", "service_tier"}`, `at` in seconds since 1970 (default: now).
///
/// # Errors
/// The question is none.
pub fn catalog_cost(catalog: &Catalog, question: &[u8]) -> Result<Option<Cost>, LlmError> {
    let question: Question = serde_json::from_slice(question).map_err(|error| refused(error.to_string()))?;
    let at = match question.at {
        Some(seconds) => Duration::try_from_secs_f64(seconds)
            .ok()
            .and_then(|since| UNIX_EPOCH.checked_add(since))
            .ok_or_else(|| refused("`at` is no time after 1970"))?,
        None => SystemTime::now(),
    };
    let mut facts = PriceFacts::at(at).with_service_tier(question.service_tier.as_deref());
    if let Some(mode) = &question.mode {
        facts.mode = Some(mode);
    }
    let info = catalog.get(&question.provider, &question.model);
    Ok(info.and_then(|info| info.cost(&question.usage, &facts)))
}
