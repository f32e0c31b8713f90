//! A deployment as its router sees it.

use std::sync::Arc;

use crate::core::provider::LlmProvider;
use crate::core::route::{Capabilities, Pricing, Stands};

use super::needs;
use super::stats::Stats;

/// A deployment: what it is, what it can do and costs, how it stands, and the door to it.
pub struct Member {
    /// Its name; no other member has it.
    pub name: Arc<str>,
    /// The provider's name.
    pub provider: String,
    /// The model; empty where the provider chooses.
    pub model: String,
    /// The region.
    pub region: Option<String>,
    /// Words of the operator's: `fast`, `zero-retention`.
    pub tags: Vec<String>,
    /// The share of traffic under the policy `weighted`, beside the others' weights.
    pub weight: f64,
    /// The rank under the policy `priority`: lower first.
    pub priority: u32,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Whether its own options make every call keep state at the provider; such a call is not copied for a trial.
    pub keeps_state: bool,
    /// Whether a call that was sent and not answered may be sent again, here or elsewhere.
    pub resends: bool,
    /// Whether it notes in the running call what it sends, as the engine's own deployments do.
    pub notes_sending: bool,
    /// What it charges; `None` when nobody knows.
    pub pricing: Option<Arc<dyn Pricing>>,
    /// Whether it takes calls now.
    pub stands: Arc<dyn Stands>,
    /// How it has done so far.
    pub stats: Arc<Stats>,
    /// The deployment with its own layers.
    pub door: Arc<dyn LlmProvider>,
}

impl Member {
    /// Whether a call that names this model is meant for this deployment: its name, its model, or `provider/model`.
    #[must_use]
    pub fn answers_to(&self, model: &str) -> bool {
        let full = || {
            model
                .split_once('/')
                .is_some_and(|(provider, model)| provider == self.provider && model == self.model)
        };
        *self.name == *model || self.model == model || full()
    }

    /// Whether it may or may not meet all of these needs: its model is known, but not this about it.
    pub(super) const fn is_doubtful(&self, wanted: u32) -> bool {
        let known = self.capabilities.known;
        known != 0 && wanted & !known & !needs::FINE_TUNED != 0
    }
}
