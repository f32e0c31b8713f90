//! A policy of one's own: what it sees, and how its slowness and its mistakes are contained.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde::Serialize;

use super::policy::CallView;
use crate::core::error::LlmError;
use crate::core::request::LlmRequest;
use crate::core::route::Circuit;

/// How long a policy of one's own may think; after that the default order holds.
pub const PATIENCE: Duration = Duration::from_millis(5);

/// A call, as a policy of one's own sees it.
///
/// ```
/// use liter_llm::PolicyCall;
///
/// let is_large = |call: &PolicyCall| call.input_tokens + call.output_tokens > 10_000;
/// assert!(is_large(&PolicyCall { input_tokens: 20_000, ..PolicyCall::default() }));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PolicyCall {
    /// The request itself.
    #[serde(skip)]
    pub request: LlmRequest,
    /// The model the call names.
    pub model: Option<String>,
    /// Whether it is a stream.
    pub streamed: bool,
    /// The estimated tokens of the prompt.
    pub input_tokens: u64,
    /// The bound of the answer's tokens, or their estimate.
    pub output_tokens: u64,
    /// The word by which calls stick to a deployment.
    pub sticky: Option<String>,
    /// Whose budget the call is charged to.
    pub key: Option<String>,
    /// The tenant the call is made for.
    pub tenant: Option<String>,
}

/// A deployment that could take the call, as a policy of one's own sees it. Times in seconds, prices in USD.
///
/// ```
/// use liter_llm::PolicyCandidate;
///
/// let dear = PolicyCandidate { name: "a".to_owned(), price: Some(0.02), ..PolicyCandidate::default() };
/// let cheap = PolicyCandidate { name: "b".to_owned(), price: Some(0.01), ..PolicyCandidate::default() };
/// let mut candidates = [dear, cheap];
/// candidates.sort_by(|a, b| a.price.partial_cmp(&b.price).unwrap());
/// assert_eq!(candidates[0].name, "b");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PolicyCandidate {
    /// Its name.
    pub name: String,
    /// The provider's name.
    pub provider: String,
    /// The model; empty where the provider chooses.
    pub model: String,
    /// The region.
    pub region: Option<String>,
    /// The operator's words.
    pub tags: Vec<String>,
    /// The weight in the configuration.
    pub weight: f64,
    /// The rank in the configuration: lower first.
    pub priority: u32,
    /// The estimated price of this call; `None` when it is not known.
    pub price: Option<f64>,
    /// The middle of the times to a whole answer, lately; `None` while nothing is known.
    pub latency_p50: Option<f64>,
    /// The time that 95 % of whole answers stay under, lately.
    pub latency_p95: Option<f64>,
    /// The middle of the times to a stream's first chunk, lately.
    pub first_chunk_p50: Option<f64>,
    /// The time that 95 % of first chunks stay under, lately.
    pub first_chunk_p95: Option<f64>,
    /// Calls that have not ended, those in line included.
    pub in_flight: u32,
    /// The state of its circuit.
    pub circuit: Circuit,
    /// Whether it failed lately and has not answered since.
    pub suspect: bool,
    /// Calls ended.
    pub calls: u64,
    /// Of these, those that failed through the deployment's fault.
    pub failures: u64,
}

/// A policy of one's own. It runs as a task of its own; an error, a panic, an answer after [`PATIENCE`] or one that
/// names what is not there leaves the call in the default order, is counted, and is noted in the call's route.
///
/// ```
/// use liter_llm::routing::custom::{CustomPolicy, PolicyCall, PolicyCandidate};
/// use liter_llm::{LlmError, async_trait};
///
/// /// Small prompts go to what is tagged `small` first.
/// struct BySize;
///
/// #[async_trait]
/// impl CustomPolicy for BySize {
///     fn name(&self) -> &str {
///         "by_size"
///     }
///
///     async fn order(
///         &self,
///         call: &PolicyCall,
///         candidates: &[PolicyCandidate],
///     ) -> Result<Vec<String>, LlmError> {
///         let mut order: Vec<_> = candidates.iter().collect();
///         order.sort_by_key(|one| one.tags.iter().any(|tag| tag == "small") != (call.input_tokens < 500));
///         Ok(order.into_iter().map(|one| one.name.clone()).collect())
///     }
/// }
/// # fn main() {}
/// ```
#[async_trait]
pub trait CustomPolicy: Send + Sync {
    /// The name it has in a call's route.
    fn name(&self) -> &str;

    /// The names of the candidates, best first. Those not named come after them, in the default order.
    ///
    /// # Errors
    /// Any: the call then goes by the default order.
    async fn order(&self, call: &PolicyCall, candidates: &[PolicyCandidate])
    -> Result<Vec<String>, LlmError>;
}

/// How often a policy of one's own was not heard, and why.
///
/// ```
/// use liter_llm::{PolicyFailures, ProviderConfig, ProviderRouter};
///
/// let router = ProviderRouter::new([ProviderConfig::new("ollama").with_model("llama3")])?;
/// assert_eq!(router.figures().policy_failures, PolicyFailures::default());
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PolicyFailures {
    /// It took longer than [`PATIENCE`].
    pub late: u64,
    /// It failed or panicked.
    pub failed: u64,
    /// It named nobody, somebody twice, or somebody who is no candidate.
    pub nonsense: u64,
}

/// A policy of one's own with the count of its failures.
pub(super) struct Own {
    policy: Arc<dyn CustomPolicy>,
    late: AtomicU64,
    failed: AtomicU64,
    nonsense: AtomicU64,
}

impl Own {
    pub(super) fn new(policy: Arc<dyn CustomPolicy>) -> Self {
        Self { policy, late: AtomicU64::new(0), failed: AtomicU64::new(0), nonsense: AtomicU64::new(0) }
    }

    pub(super) fn name(&self) -> &str {
        self.policy.name()
    }

    pub(super) fn failures(&self) -> PolicyFailures {
        PolicyFailures {
            late: self.late.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            nonsense: self.nonsense.load(Ordering::Relaxed),
        }
    }

    /// The order the policy gives, as places in `candidates`, or why it is not heard.
    pub(super) async fn order(
        &self,
        call: PolicyCall,
        candidates: Vec<PolicyCandidate>,
    ) -> Result<Vec<usize>, String> {
        let name = self.name().to_owned();
        let policy = Arc::clone(&self.policy);
        let begun = Instant::now();
        // A task of its own: a policy that blocks or panics holds up no more than its thread.
        let mut task = tokio::spawn(async move {
            let order = policy.order(&call, &candidates).await;
            (order, candidates)
        });
        let outcome = tokio::time::timeout(PATIENCE, &mut task).await;
        let failed = |why: &dyn std::fmt::Display| {
            self.failed.fetch_add(1, Ordering::Relaxed);
            Err(format!("policy `{name}` failed, default order: {why}"))
        };
        let answer = match outcome {
            Ok(Ok((Ok(order), candidates))) => Some((order, candidates)),
            Ok(Ok((Err(error), _))) => return failed(&error.detail().message),
            Ok(Err(_)) => return failed(&"it panicked"),
            Err(_) => {
                task.abort();
                None
            }
        };
        // On a runtime of one thread a policy that blocks is noticed only when it is done.
        let Some((order, candidates)) = answer.filter(|_| begun.elapsed() <= PATIENCE * 2) else {
            self.late.fetch_add(1, Ordering::Relaxed);
            return Err(format!(
                "policy `{name}` took longer than {} ms: default order",
                PATIENCE.as_millis()
            ));
        };
        places(&order, &candidates).map_err(|what| {
            self.nonsense.fetch_add(1, Ordering::Relaxed);
            format!("policy `{name}` {what}: default order")
        })
    }
}

fn places(order: &[String], candidates: &[PolicyCandidate]) -> Result<Vec<usize>, String> {
    if order.is_empty() {
        return Err("named no candidate".to_owned());
    }
    let mut places = Vec::with_capacity(candidates.len());
    for name in order {
        let place = candidates.iter().position(|candidate| candidate.name == *name);
        let place = place.ok_or_else(|| format!("named `{name}`, which is no candidate"))?;
        if places.contains(&place) {
            return Err(format!("named `{name}` twice"));
        }
        places.push(place);
    }
    let rest: Vec<_> = (0..candidates.len()).filter(|place| !places.contains(place)).collect();
    places.extend(rest);
    Ok(places)
}

/// The call and the candidates at these positions, for a policy of one's own.
pub(super) fn views(call: &CallView<'_>, open: &[usize]) -> (PolicyCall, Vec<PolicyCandidate>) {
    let route = call.request.route.as_ref();
    let seen = PolicyCall {
        request: call.request.clone(),
        model: call.request.model.clone(),
        streamed: call.streamed,
        input_tokens: call.input_tokens,
        output_tokens: call.output_tokens,
        sticky: route.and_then(|route| route.sticky.clone()),
        key: route.and_then(|route| route.key.clone()),
        tenant: call.request.tenant.clone(),
    };
    let candidate = |position: &usize| {
        let member = &call.members[*position];
        let figures = member.stats.figures();
        PolicyCandidate {
            name: member.name.as_ref().to_owned(),
            provider: member.provider.clone(),
            model: member.model.clone(),
            region: member.region.clone(),
            tags: member.tags.clone(),
            weight: member.weight,
            priority: member.priority,
            price: member
                .pricing
                .as_ref()
                .and_then(|pricing| pricing.estimate(call.input_tokens, call.output_tokens)),
            latency_p50: figures.latency_p50,
            latency_p95: figures.latency_p95,
            first_chunk_p50: figures.first_chunk_p50,
            first_chunk_p95: figures.first_chunk_p95,
            in_flight: figures.in_flight,
            circuit: member.stands.standing().circuit,
            suspect: figures.suspect,
            calls: figures.calls,
            failures: figures.failures,
        }
    };
    (seen, open.iter().map(candidate).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use crate::core::error::ErrorKind;

    enum Does {
        Names(&'static [&'static str]),
        Fails,
        Panics,
        Sleeps,
        Blocks,
    }

    #[async_trait]
    impl CustomPolicy for Does {
        fn name(&self) -> &str {
            "mine"
        }

        async fn order(&self, _: &PolicyCall, _: &[PolicyCandidate]) -> Result<Vec<String>, LlmError> {
            match self {
                Self::Names(names) => Ok(names.iter().map(|&name| name.to_owned()).collect()),
                Self::Fails => Err(LlmError::new(ErrorKind::Config, "no idea")),
                Self::Panics => panic!("on purpose"),
                Self::Sleeps => std::future::pending().await,
                Self::Blocks => {
                    std::thread::sleep(Duration::from_millis(50));
                    Ok(vec!["b".to_owned()])
                }
            }
        }
    }

    async fn run(does: Does) -> (Result<Vec<usize>, String>, PolicyFailures) {
        let own = Own::new(Arc::new(does));
        let candidate = |name: &str| PolicyCandidate { name: name.to_owned(), ..PolicyCandidate::default() };
        let order =
            own.order(PolicyCall::default(), vec![candidate("a"), candidate("b"), candidate("c")]).await;
        (order, own.failures())
    }

    #[tokio::test]
    async fn a_policy_is_heard_and_the_unnamed_follow() {
        // A busy machine may take the five milliseconds itself.
        for _ in 0..20 {
            let (order, failures) = run(Does::Names(&["c"])).await;
            if failures.late == 0 {
                assert_eq!((order, failures), (Ok(vec![2, 0, 1]), PolicyFailures::default()));
                return;
            }
        }
        panic!("late twenty times");
    }

    #[tokio::test]
    async fn mistakes_are_contained_and_counted() {
        for names in [&["x"] as &'static [&'static str], &["a", "a"], &[]] {
            let (order, failures) = run(Does::Names(names)).await;
            assert!(order.unwrap_err().starts_with("policy `mine` named") && failures.nonsense == 1);
        }
        for does in [Does::Fails, Does::Panics] {
            let (order, failures) = run(does).await;
            assert!(order.unwrap_err().contains("failed") && failures.failed == 1);
        }
        for does in [Does::Sleeps, Does::Blocks] {
            let (order, failures) = run(does).await;
            assert!(order.unwrap_err().contains("longer than 5 ms") && failures.late == 1);
        }
    }
}
