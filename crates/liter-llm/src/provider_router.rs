//! The router as Rust programs use it: several deployments behind one door.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::client::{Client, Own};
use crate::config::{Config, ProviderConfig};
use crate::core::error::LlmError;
use crate::core::json::RawJson;
use crate::core::provider::{ChunkStream, LlmProvider, Operation};
use crate::core::request::LlmRequest;
use crate::core::response::LlmResponse;
use crate::core::route::Route;
use crate::resilience::breakers::DeploymentState;
use crate::routing::budget::Spend;
use crate::routing::canary::CanaryReport;
use crate::routing::custom::CustomPolicy;
use crate::routing::figures::{Heatmap, RouterFigures};
use crate::routing::mirror::MirrorReport;
use crate::routing::options::RouterOptions;

/// A deployment for a [`ProviderRouter`]: a configuration, or a provider of your own and what the router is to know of
/// it (name, region, tags, weight, priority, limits, price). Of such a configuration, what says how to call a host is
/// ignored.
///
/// ```
/// use std::sync::Arc;
/// use liter_llm::{LlmError, LlmProvider, LlmRequest, LlmResponse, ProviderConfig, RouterDeployment, async_trait};
///
/// struct Own;
///
/// #[async_trait]
/// impl LlmProvider for Own {
///     fn name(&self) -> &str {
///         "own"
///     }
///
///     async fn generate(&self, _request: LlmRequest) -> Result<LlmResponse, LlmError> {
///         Ok(LlmResponse::default())
///     }
/// }
///
/// let provider: Arc<dyn LlmProvider> = Arc::new(Own);
/// let plain = RouterDeployment::from(Arc::clone(&provider));
/// let mut config = ProviderConfig { priority: Some(1), ..ProviderConfig::new("own") };
/// config.region = Some("eu".to_owned());
/// let described = RouterDeployment::from((config, provider));
/// let hosted: RouterDeployment = ProviderConfig::parse("openai/gpt-4o-mini")?.into();
/// assert!(plain.provider.is_some() && described.provider.is_some() && hosted.provider.is_none());
/// # Ok::<(), LlmError>(())
/// ```
#[derive(Clone)]
pub struct RouterDeployment {
    /// What the router is to know of it and, without a provider of your own, how to call it.
    pub config: ProviderConfig,
    /// The provider of your own.
    pub provider: Option<Arc<dyn LlmProvider>>,
}

impl From<ProviderConfig> for RouterDeployment {
    fn from(config: ProviderConfig) -> Self {
        Self { config, provider: None }
    }
}

impl From<Arc<dyn LlmProvider>> for RouterDeployment {
    fn from(provider: Arc<dyn LlmProvider>) -> Self {
        (ProviderConfig::new(provider.name()), provider).into()
    }
}

impl From<(ProviderConfig, Arc<dyn LlmProvider>)> for RouterDeployment {
    fn from((config, provider): (ProviderConfig, Arc<dyn LlmProvider>)) -> Self {
        Self { config, provider: Some(provider) }
    }
}

/// Several deployments behind one door: each call goes to one that can take it, by rules and a policy, and elsewhere
/// when that fails. It is an [`LlmProvider`], so that a router may stand in another one's list.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use liter_llm::{
///     LlmError, LlmProvider, LlmRequest, LlmResponse, Message, ProviderRouter, RouterOptions, async_trait,
/// };
///
/// struct Fixed(&'static str);
///
/// #[async_trait]
/// impl LlmProvider for Fixed {
///     fn name(&self) -> &str {
///         self.0
///     }
///
///     async fn generate(&self, _request: LlmRequest) -> Result<LlmResponse, LlmError> {
///         Ok(LlmResponse { message: Message::assistant(self.0), ..LlmResponse::default() })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), LlmError> {
/// let own = |name| Arc::new(Fixed(name)) as Arc<dyn LlmProvider>;
/// let router = ProviderRouter::with_options([own("first"), own("second")], RouterOptions::default())?;
///
/// // The router chooses, and tries another deployment when one fails.
/// let answer = router.generate(LlmRequest::from("Say something.")).await?;
/// assert_eq!(answer.text(), "first");
/// assert_eq!(answer.route.unwrap().chosen, "first");
///
/// // Or choose once and call that one yourself; `only` names it.
/// let provider = router.select("Say something.").await?;
/// assert_eq!(provider.name(), "first");
/// assert_eq!(router.only("second")?.generate("Again.".into()).await?.text(), "second");
///
/// // Why, and how it goes.
/// let route = router.explain("Say something.", false).await;
/// assert_eq!((route.policy.as_str(), route.candidates.len()), ("priority", 2));
/// assert_eq!(router.figures().deployments[0].figures.calls, 1);
/// assert_eq!(router.heatmap(Duration::from_secs(60), 3).rows[0].cells.len(), 3);
/// assert!(router.spend()?.budgets.is_empty());
/// assert_eq!(router.state().len(), 2);
/// assert!(router.canary().is_none() && router.mirror().is_none());
/// # Ok(())
/// # }
/// ```
pub struct ProviderRouter {
    client: Client,
}

impl ProviderRouter {
    /// A router over these deployments with the default rules: the policy `priority`, which keeps their order. Opens no
    /// connection.
    ///
    /// ```
    /// use liter_llm::{LlmProvider, ProviderConfig, ProviderRouter};
    ///
    /// let router = ProviderRouter::new([
    ///     ProviderConfig::parse("openai/gpt-4o-mini")?.with_api_key("sk-..."),
    ///     ProviderConfig::parse("anthropic/claude-sonnet-4-5")?.with_api_key("sk-ant-..."),
    /// ])?;
    /// assert_eq!(router.name(), "router");
    /// # Ok::<(), liter_llm::LlmError>(())
    /// ```
    ///
    /// # Errors
    /// `config` and `authentication` (no key) naming the deployment, the option and the remedy.
    pub fn new<D: Into<RouterDeployment>>(
        deployments: impl IntoIterator<Item = D>,
    ) -> Result<Self, LlmError> {
        Self::with_options(deployments, RouterOptions::default())
    }

    /// A router over these deployments with rules.
    ///
    /// ```
    /// use liter_llm::{ProviderConfig, ProviderRouter, RouterOptions};
    ///
    /// let mut config = ProviderConfig::parse("openai/gpt-4o-mini")?.with_api_key("sk-...");
    /// config.region = Some("us".to_owned());
    /// let options = RouterOptions { regions: vec!["us".to_owned()], ..RouterOptions::default() };
    /// assert!(ProviderRouter::with_options([config], options).is_ok());
    /// # Ok::<(), liter_llm::LlmError>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_options<D: Into<RouterDeployment>>(
        deployments: impl IntoIterator<Item = D>,
        options: RouterOptions,
    ) -> Result<Self, LlmError> {
        Self::made(deployments, options, None)
    }

    /// A router whose deployments a policy of your own puts in order. The policy in `options` holds when that one fails,
    /// or takes longer than five milliseconds.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use liter_llm::{
    ///     CustomPolicy, LlmError, PolicyCall, PolicyCandidate, ProviderConfig, ProviderRouter, RouterOptions,
    ///     async_trait,
    /// };
    ///
    /// struct LastFirst;
    ///
    /// #[async_trait]
    /// impl CustomPolicy for LastFirst {
    ///     fn name(&self) -> &str {
    ///         "last_first"
    ///     }
    ///
    ///     async fn order(
    ///         &self,
    ///         _call: &PolicyCall,
    ///         candidates: &[PolicyCandidate],
    ///     ) -> Result<Vec<String>, LlmError> {
    ///         Ok(candidates.iter().rev().map(|candidate| candidate.name.clone()).collect())
    ///     }
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), LlmError> {
    /// let deployment = |model: &str| ProviderConfig::new("openai").with_model(model).with_api_key("sk-...");
    /// let router = ProviderRouter::with_policy(
    ///     [deployment("gpt-4o"), deployment("gpt-4o-mini")],
    ///     RouterOptions::default(),
    ///     Arc::new(LastFirst),
    /// )?;
    /// assert_eq!(router.explain("Hello", false).await.candidates[0].deployment, "openai/gpt-4o-mini");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_policy<D: Into<RouterDeployment>>(
        deployments: impl IntoIterator<Item = D>,
        options: RouterOptions,
        policy: Arc<dyn CustomPolicy>,
    ) -> Result<Self, LlmError> {
        Self::made(deployments, options, Some(policy))
    }

    fn made<D: Into<RouterDeployment>>(
        deployments: impl IntoIterator<Item = D>,
        options: RouterOptions,
        policy: Option<Arc<dyn CustomPolicy>>,
    ) -> Result<Self, LlmError> {
        let mut config = Config { router: Some(options), ..Config::default() };
        let mut providers = HashMap::new();
        for (position, deployment) in deployments.into_iter().enumerate() {
            let RouterDeployment { config: one, provider } = deployment.into();
            config.deployments.push(one);
            providers.extend(provider.map(|provider| (position, provider)));
        }
        Self::from_config_with(config, Own { providers, policy })
    }

    /// A router from a configuration document. One deployment is a router too: of that one.
    ///
    /// ```
    /// use liter_llm::{Config, ProviderRouter};
    ///
    /// let config = Config::from_json(br#"{"deployments": [
    ///     {"provider": "openai", "model": "gpt-4o-mini", "api_key": "sk-..."}
    /// ]}"#)?;
    /// assert!(ProviderRouter::from_config(config).is_ok());
    /// # Ok::<(), liter_llm::LlmError>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_config(config: Config) -> Result<Self, LlmError> {
        Client::from_config(config).map(Self::from)
    }

    /// A router from a configuration document and what no document can hold.
    ///
    /// ```
    /// use liter_llm::{Config, Own, ProviderConfig, ProviderRouter};
    ///
    /// let deployments = vec![ProviderConfig::parse("openai/gpt-4o-mini")?.with_api_key("sk-...")];
    /// let config = Config { deployments, ..Config::default() };
    /// assert!(ProviderRouter::from_config_with(config, Own::default()).is_ok());
    /// # Ok::<(), liter_llm::LlmError>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_config_with(config: Config, own: Own) -> Result<Self, LlmError> {
        Client::from_config_with(config, own).map(Self::from)
    }

    /// A router from the JSON of a configuration document.
    ///
    /// ```
    /// use liter_llm::ProviderRouter;
    ///
    /// let error = ProviderRouter::from_json(br#"{"deployments": [{"provider": "openia", "api_key": "k"}]}"#)
    ///     .err()
    ///     .unwrap();
    /// assert!(error.to_string().contains("did you mean `openai`?"));
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn from_json(json: &[u8]) -> Result<Self, LlmError> {
        Client::from_json(json).map(Self::from)
    }

    /// A router under another configuration that goes on where this one stands: statistics, circuits, limits, what was
    /// spent, cached answers. Nothing of this one changes.
    ///
    /// ```
    /// use liter_llm::{Config, ProviderRouter};
    ///
    /// let config = |weight: u32| {
    ///     let text = format!(r#"{{"deployments": [{{"provider": "ollama", "model": "m", "weight": {weight}}}]}}"#);
    ///     Config::from_json(text.as_bytes())
    /// };
    /// let router = ProviderRouter::from_config(config(1)?)?;
    /// let router = router.reloaded(config(2)?)?;
    /// # drop(router);
    /// # Ok::<(), liter_llm::LlmError>(())
    /// ```
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn reloaded(&self, config: Config) -> Result<Self, LlmError> {
        self.client.reloaded(config).map(Self::from)
    }

    /// The deployment a request would go to now, by itself: with the engine's retries, without the others. Nothing is
    /// sent. A text is a prompt.
    ///
    /// # Errors
    /// `no_candidate`, naming what ruled out which deployment; `budget_exceeded`.
    pub async fn select(
        &self,
        query: impl Into<LlmRequest> + Send,
    ) -> Result<Arc<dyn LlmProvider>, LlmError> {
        self.client.select(&query.into()).await
    }

    /// The deployment of this name by itself: with the engine's retries, without the others.
    ///
    /// # Errors
    /// `config` when there is none of this name.
    pub fn only(&self, name: &str) -> Result<Arc<dyn LlmProvider>, LlmError> {
        self.client.only(name)
    }

    /// Where a request would go and why, with every deployment listed. Nothing is sent.
    pub async fn explain(&self, query: impl Into<LlmRequest> + Send, streamed: bool) -> Route {
        self.client.explain(&query.into(), streamed).await
    }

    /// Live statistics of each deployment.
    #[must_use]
    pub fn figures(&self) -> RouterFigures {
        self.client.router().figures()
    }

    /// Latency by deployment and time: the last `count` buckets of this width, rounded up to whole tens of seconds. Ten
    /// minutes with traffic are kept.
    #[must_use]
    pub fn heatmap(&self, bucket: Duration, count: usize) -> Heatmap {
        self.client.router().heatmap(bucket, count)
    }

    /// What calls have cost, by budget, deployment and caller.
    ///
    /// # Errors
    /// `budget_exceeded`: the file that budgets are kept in cannot be read.
    pub fn spend(&self) -> Result<Spend, LlmError> {
        self.client.router().spend()
    }

    /// How the canary does; `None` without one.
    #[must_use]
    pub fn canary(&self) -> Option<CanaryReport> {
        self.client.router().canary()
    }

    /// How the mirrored calls do; `None` without a mirror.
    #[must_use]
    pub fn mirror(&self) -> Option<MirrorReport> {
        self.client.router().mirror()
    }

    /// How the deployments are doing: circuit, cooldown, calls in flight and in line.
    #[must_use]
    pub fn state(&self) -> Vec<DeploymentState> {
        self.client.state()
    }

    /// The client below, for what a router shares with every client.
    ///
    /// ```
    /// use liter_llm::{ProviderConfig, ProviderRouter};
    ///
    /// let router = ProviderRouter::new([ProviderConfig::new("ollama").with_model("llama3")])?;
    /// router.client().clear_cache();
    /// # Ok::<(), liter_llm::LlmError>(())
    /// ```
    #[must_use]
    pub const fn client(&self) -> &Client {
        &self.client
    }
}

impl From<Client> for ProviderRouter {
    fn from(client: Client) -> Self {
        Self { client }
    }
}

#[async_trait]
impl LlmProvider for ProviderRouter {
    fn name(&self) -> &str {
        self.client.name()
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        self.client.generate(request).await
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        self.client.stream(request).await
    }

    async fn operate(&self, operation: Operation) -> Result<RawJson, LlmError> {
        self.client.operate(operation).await
    }
}
