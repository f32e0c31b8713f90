//! The rules of a router, as they stand in the configuration document.

use serde::Deserialize;

use super::budget::{BudgetOptions, one_or_more};
use super::canary::CanaryOptions;
use super::mirror::MirrorOptions;
use super::policy::POLICIES;
use crate::core::error::LlmError;
use crate::core::request::unknown_name;

/// The rules of a router beside its deployments.
///
/// ```
/// use liter_llm::RouterOptions;
///
/// let options = RouterOptions {
///     policy: "latency".to_owned(),
///     regions: vec!["eu".to_owned()],
///     forbid_tags: vec!["beta".to_owned()],
///     ..RouterOptions::default()
/// };
/// assert!(options.validate().is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouterOptions {
    /// How deployments are put in order: one of [`POLICIES`]; `priority`.
    pub policy: String,
    /// The regions calls may go to; empty: all.
    pub regions: Vec<String>,
    /// Tags a deployment must all have.
    pub require_tags: Vec<String>,
    /// Tags a deployment must not have.
    pub forbid_tags: Vec<String>,
    /// Whether a call refused by a content filter goes to another deployment; false.
    pub content_filter_fallback: bool,
    /// Seconds for the whole call: queueing, attempts, waits and fallbacks; 600.
    pub timeout: Option<f64>,
    /// Repeats at deployments already tried, all together; 3. Going to another deployment is no repeat.
    pub max_retries: Option<u32>,
    /// A deployment that gets a share of the calls, and is rolled back when it is worse than the others.
    pub canary: Option<CanaryOptions>,
    /// A deployment that gets copies of calls.
    pub mirror: Option<MirrorOptions>,
    /// How much calls may cost: one budget or a list; default: no limit.
    #[serde(deserialize_with = "one_or_more")]
    pub budget: Vec<BudgetOptions>,
}

impl Default for RouterOptions {
    fn default() -> Self {
        Self {
            policy: "priority".to_owned(),
            regions: Vec::new(),
            require_tags: Vec::new(),
            forbid_tags: Vec::new(),
            content_filter_fallback: false,
            timeout: None,
            max_retries: None,
            canary: None,
            mirror: None,
            budget: Vec::new(),
        }
    }
}

impl RouterOptions {
    /// Checks what can be checked without the deployments.
    ///
    /// # Errors
    /// `config` naming the option and the remedy.
    pub fn validate(&self) -> Result<(), LlmError> {
        if !POLICIES.contains(&self.policy.as_str()) {
            let reason = unknown_name(&self.policy, POLICIES, &format!("one of {}", POLICIES.join(", ")));
            return Err(LlmError::config("policy", format!("`policy`: `{}` {reason}", self.policy)));
        }
        if let Some(timeout) = self.timeout.filter(|timeout| !(*timeout > 0.0 && *timeout <= 1e9)) {
            let what = format!("`timeout`: {timeout} is not a positive number of seconds");
            return Err(LlmError::config("timeout", what));
        }
        if let Some(tag) = self.require_tags.iter().find(|tag| self.forbid_tags.contains(tag)) {
            return Err(LlmError::config(
                "forbid_tags",
                format!("`forbid_tags`: `{tag}` is required and forbidden; take it from one of the lists"),
            ));
        }
        self.canary.as_ref().map_or(Ok(()), CanaryOptions::validate)?;
        self.mirror.as_ref().map_or(Ok(()), MirrorOptions::validate)?;
        let several = self.budget.len() > 1;
        self.budget.iter().enumerate().try_for_each(|(position, budget)| {
            budget.validate().map_err(|error| match several {
                true => error.with(|detail| {
                    let which = format!("budget[{position}]");
                    detail.message = detail.message.replacen("budget", &which, 1);
                    detail.param = detail.param.take().map(|param| param.replacen("budget", &which, 1));
                }),
                false => error,
            })
        })
    }
}
