//! Where a call may go: what the attempts loop asks a router, what a caller may ask of it, and how it explains itself.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::error::LlmError;
use super::provider::LlmProvider;
use super::request::LlmRequest;
use super::response::Usage;

/// What a call asks of routing. Never sent to a provider.
///
/// ```
/// use liter_llm::{LlmRequest, RouteOptions};
///
/// let route = RouteOptions { regions: vec!["eu".to_owned()], ..RouteOptions::default() };
/// let request = LlmRequest::from("Hi").with(|body| body.route = Some(Box::new(route)));
/// assert!(request.route.is_some());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouteOptions {
    /// Regions the call may go to; empty: all that the router allows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<String>,
    /// Tags a deployment must all have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub require_tags: Vec<String>,
    /// Tags a deployment must not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forbid_tags: Vec<String>,
    /// Calls with the same word (a user, a session, a conversation) get the same share of weighted and canary traffic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<String>,
    /// Whose budget the call is charged to: a label of the caller's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether a call refused by a content filter may go to another deployment; default: as the router says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_filter_fallback: Option<bool>,
}

/// The state of a deployment's circuit.
///
/// ```
/// use liter_llm::{Circuit, ProviderConfig, ProviderRouter};
///
/// let router = ProviderRouter::new([ProviderConfig::new("ollama").with_model("llama3")])?;
/// assert_eq!(router.state()[0].circuit, Circuit::Closed);
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Circuit {
    /// Calls pass.
    #[default]
    Closed,
    /// No call passes.
    Open,
    /// Probes may pass.
    HalfOpen,
}

/// Whether a deployment would take a call now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Standing {
    /// Its circuit.
    pub circuit: Circuit,
    /// How long it takes no call: an open circuit, or cooling down after a `429`.
    pub closed_for: Option<Duration>,
    /// Calls sent that have not ended.
    pub in_flight: u32,
    /// Calls in line before it.
    pub waiting: usize,
}

/// Tells how a deployment stands.
pub trait Stands: Send + Sync {
    /// How it stands now, for calls with its own model and key.
    fn standing(&self) -> Standing;
}

/// What a deployment charges.
pub trait Pricing: Send + Sync {
    /// What a call of so many tokens would cost, in USD; `None` when the price is not known.
    fn estimate(&self, input_tokens: u64, output_tokens: u64) -> Option<f64>;

    /// What a call did cost, in USD; `None` when the price of a part is not known.
    fn cost(&self, usage: &Usage) -> Option<f64>;

    /// Whether these are prices of the operator's own, which hold whatever the catalogue says of an answer.
    fn is_own(&self) -> bool {
        false
    }
}

/// What a deployment can do. A bit of [`needs`](crate::routing::needs) each; what is not known counts as possible.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// The needs of which it is known whether they can be met.
    pub known: u32,
    /// The needs that can be met.
    pub can: u32,
    /// The most tokens of input and output together.
    pub context: Option<u64>,
    /// The most tokens of output.
    pub output: Option<u64>,
}

/// A deployment that was thought of for a call.
///
/// ```
/// use liter_llm::{Route, RouteCandidate};
///
/// let far = RouteCandidate {
///     deployment: "a".to_owned(),
///     ruled_out: Some("region us".to_owned()),
///     ..RouteCandidate::default()
/// };
/// let route = Route { candidates: vec![far], ..Route::default() };
/// assert!(route.candidates.iter().all(|candidate| candidate.ruled_out.is_some()));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RouteCandidate {
    /// Its name.
    pub deployment: String,
    /// Why it was ruled out; `None` for one that could be chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ruled_out: Option<String>,
    /// What came of it, for one that this call was sent to and that failed: the error's kind and HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
    /// The estimated price of the call in USD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub price: Option<f64>,
    /// The latency the policy went by, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<f64>,
    /// The state of its circuit.
    pub circuit: Circuit,
}

/// Whose call it is where a canary is compared with the other deployments.
///
/// ```
/// use liter_llm::CanaryArm;
/// assert_eq!(CanaryArm::Rest.as_str(), "rest");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CanaryArm {
    /// The canary's.
    Canary,
    /// The others'.
    Rest,
}

impl CanaryArm {
    /// The arm's name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Canary => "canary",
            Self::Rest => "rest",
        }
    }
}

/// Why a call went where it went.
///
/// ```
/// use liter_llm::{LlmResponse, Route};
///
/// fn who(answer: &LlmResponse) -> &str {
///     answer.route.as_ref().map_or(&answer.provider, |route| &route.chosen)
/// }
///
/// let route = Route { chosen: "prod-eu".to_owned(), ..Route::default() };
/// assert_eq!(who(&LlmResponse { route: Some(Box::new(route)), ..LlmResponse::default() }), "prod-eu");
/// assert_eq!(Route::LISTED, 8);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    /// The policy that put the candidates in order.
    pub policy: String,
    /// The deployment whose answer or error it is; empty when none was asked.
    pub chosen: String,
    /// Those that could be chosen, best first, then those ruled out; at most [`Route::LISTED`] of each kind.
    pub candidates: Vec<RouteCandidate>,
    /// How many candidates are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub unlisted: usize,
    /// Whose call it is where a canary is compared with the others; `None` without a canary, and for calls that only
    /// one side could have taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arm: Option<CanaryArm>,
    /// Remarks: a canary's arm, a degraded budget, a policy that failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(value: &usize) -> bool {
    *value == 0
}

impl Route {
    /// The most candidates of one kind that a call's route lists; `ProviderRouter::explain` lists all.
    pub const LISTED: usize = 8;
}

/// The deployments that may answer: a router.
pub trait Candidates: Send + Sync {
    /// The name, for errors.
    fn name(&self) -> &str;

    /// Where `request` may go. `streamed`: whether it is a stream.
    ///
    /// # Errors
    /// `no_candidate` and `budget_exceeded`; of an own policy none.
    fn course<'a>(&'a self, request: &'a LlmRequest, streamed: bool) -> Planned<'a>;

    /// The deployment that carries out operations other than generation.
    ///
    /// # Errors
    /// `no_candidate`.
    fn any(&self) -> Result<Arc<dyn LlmProvider>, LlmError>;
}

/// A course, or one that an own policy is still thinking about.
pub enum Planned<'a> {
    /// It is there.
    Now(Result<Box<dyn Course>, LlmError>),
    /// It will be.
    Later(BoxFuture<'a, Result<Box<dyn Course>, LlmError>>),
}

/// One call's way through the deployments. By default there is only the one.
pub trait Course: Send {
    /// The deployment whose turn it is, and the request as it is to be sent there.
    fn current(&self) -> (&dyn LlmProvider, &LlmRequest);

    /// Tells of a failure. True when it is another deployment's turn now, without a wait.
    fn elsewhere(&mut self, _error: &LlmError) -> bool {
        false
    }

    /// No other deployment is left. Says which failure decides whether and when to try again, and makes it that
    /// deployment's turn.
    fn exhausted(&mut self, last: LlmError) -> LlmError {
        last
    }

    /// How long the present attempt may take to begin its answer while another deployment could still answer in the
    /// time `left`; `None`: as long as there is.
    fn patience(&self, _left: Option<Duration>) -> Option<Duration> {
        None
    }

    /// The explanation for the answer; `None` where there was no choice.
    fn route(&mut self) -> Option<Box<Route>> {
        None
    }
}
