//! A canary: a deployment that gets a share of the calls, and no more once its guard finds it worse than the others.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::Stream;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};

use super::assign::Assign;
use super::guard::{Arm, ArmReport, Evidence, Guard, GuardOptions, Outcome};
use super::measured::is_fault;
use super::member::Member;
use super::router::{CLOSED, Choice, Router};
use crate::core::call::time_left;
use crate::core::chunk::LlmChunk;
use crate::core::cost::Cost;
use crate::core::error::{ErrorKind, LlmError};
use crate::core::notices::NoticeKind;
use crate::core::provider::{ChunkStream, LlmProvider};
use crate::core::request::LlmRequest;
use crate::core::response::LlmResponse;
use crate::core::route::Circuit;
use crate::core::toggle::Toggle;

/// A canary, as it stands in the configuration document.
///
/// ```
/// use liter_llm::{CanaryOptions, CanaryState, ProviderConfig, ProviderRouter, RouterOptions};
///
/// let canary = CanaryOptions { model: "new".to_owned(), percent: 5.0, guard: None };
/// canary.validate()?;
/// let options = RouterOptions { canary: Some(canary), ..RouterOptions::default() };
/// let deployments = ["old", "new"].map(|model| ProviderConfig::new("ollama").with_model(model));
/// let router = ProviderRouter::with_options(deployments, options)?;
/// assert_eq!(router.canary().unwrap().state, CanaryState::Running);
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CanaryOptions {
    /// The deployment: its name, its model or `provider/model`.
    pub model: String,
    /// The share of the calls it gets, 0 to 100.
    pub percent: f64,
    /// When it is rolled back; on by default.
    #[serde(default)]
    pub guard: Option<Toggle<GuardOptions>>,
}

/// The part of a canary's calls and of the others' that is compared.
///
/// ```
/// use liter_llm::{ArmReport, Arms};
///
/// let arm = |calls, errors| ArmReport { calls, errors, ..ArmReport::default() };
/// let arms = Arms { canary: arm(50, 5), incumbent: arm(950, 1) };
/// assert!(arms.canary.errors * arms.incumbent.calls > arms.incumbent.errors * arms.canary.calls);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Arms {
    /// The canary.
    pub canary: ArmReport,
    /// The deployments it is compared with.
    pub incumbent: ArmReport,
}

/// Whether a canary gets calls.
///
/// ```
/// use liter_llm::{CanaryReport, CanaryState};
///
/// fn note(report: &CanaryReport) -> Option<&str> {
///     match report.state {
///         CanaryState::Running => None,
///         CanaryState::RolledBack => report.reason.as_deref(),
///     }
/// }
/// # let _ = note;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CanaryState {
    /// It gets its share.
    Running,
    /// It gets none, because it was worse than the others.
    RolledBack,
}

/// How a canary does.
///
/// ```
/// use liter_llm::{CanaryReport, ProviderRouter};
///
/// fn line(router: &ProviderRouter) -> Option<String> {
///     let CanaryReport { deployment, arms, .. } = router.canary()?;
///     Some(format!("{deployment}: {} of {} calls failed", arms.canary.errors, arms.canary.calls))
/// }
/// # let _ = line;
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CanaryReport {
    /// The deployment, as the configuration names it.
    pub model: String,
    /// The name of the deployment.
    pub deployment: String,
    /// Its share of the calls, 0 to 100.
    pub percent: f64,
    /// Whether it gets calls.
    pub state: CanaryState,
    /// Why it was rolled back.
    pub reason: Option<String>,
    /// What both arms have done.
    pub arms: Arms,
    /// What speaks against it in the window at hand.
    pub evidence: Vec<Evidence>,
}

/// A deployment that gets a share of the calls.
#[derive(Debug)]
pub(super) struct Canary {
    pub position: usize,
    options: CanaryOptions,
    assign: Assign,
    guard: Guard,
}

/// The position of the deployment that an option names.
///
/// # Errors
/// `config` when there is none or more than one.
pub(super) fn named(option: &str, name: &str, members: &[Member]) -> Result<usize, LlmError> {
    let list = |members: &mut dyn Iterator<Item = &Member>| {
        members.map(|member| format!("`{}`", member.name)).collect::<Vec<_>>().join(", ")
    };
    let exact = members.iter().position(|member| *member.name == *name);
    let meant: Vec<_> = (0..members.len()).filter(|at| members[*at].answers_to(name)).collect();
    let what = match (exact, meant.as_slice()) {
        (Some(position), _) => return Ok(position),
        (None, [position]) => return Ok(*position),
        (None, []) => {
            format!("no deployment is `{name}`; there are {}", list(&mut members.iter()))
        }
        (None, several) => {
            let several = list(&mut several.iter().map(|position| &members[*position]));
            format!("`{name}` may be each of {several}: give the name of one")
        }
    };
    Err(LlmError::config(option, format!("`{option}`: {what}")))
}

/// Checks a share of the calls.
///
/// # Errors
/// `config`.
pub(super) fn check_percent(option: &str, percent: f64) -> Result<(), LlmError> {
    match (0.0..=100.0).contains(&percent) {
        true => Ok(()),
        false => Err(LlmError::config(option, format!("`{option}`: {percent} is not from 0 to 100"))),
    }
}

impl CanaryOptions {
    /// Checks what can be checked without the deployments.
    ///
    /// # Errors
    /// `config` naming the option and the remedy.
    pub fn validate(&self) -> Result<(), LlmError> {
        check_percent("canary.percent", self.percent)?;
        match &self.guard {
            Some(Toggle::On(guard)) => guard.validate(),
            _ => Ok(()),
        }
    }
}

impl Canary {
    /// The canary among these deployments, from `now` on.
    ///
    /// # Errors
    /// `config` when it is none of them, or the only one.
    pub fn new(options: CanaryOptions, members: &[Member], now: Duration) -> Result<Self, LlmError> {
        let position = named("canary.model", &options.model, members)?;
        if members.len() == 1 {
            let what = "`canary.model`: it is the only deployment; a canary needs another one beside it";
            return Err(LlmError::config("canary.model", what));
        }
        let assign = Assign::new(options.percent, &members[position].name);
        let guard = match &options.guard {
            None => Some(GuardOptions::default()),
            Some(toggle) => toggle.options(),
        };
        let guard = Guard::new(assign.share(), guard, now);
        Ok(Self { position, options, assign, guard })
    }

    /// Whether it gets calls no more.
    pub fn is_rolled_back(&self) -> bool {
        self.guard.is_rolled_back()
    }

    /// Why it gets calls no more.
    pub fn reason(&self) -> String {
        self.guard.reason().unwrap_or_default()
    }

    /// Gives the canary its place among the candidates of a call: first for its share, else last.
    pub fn seat(&self, router: &Router, request: &LlmRequest, choice: &mut Choice) {
        if self.is_rolled_back() {
            choice.notes.push(format!("canary rolled back: {}", self.reason()));
            return;
        }
        if !choice.held.contains(&self.position) {
            return;
        }
        // Calls are compared when either arm could have taken them; what could not be otherwise says nothing.
        let well =
            !choice.degraded && choice.open.first().is_some_and(|first| router.sickness(*first) < CLOSED);
        let both = well && router.sickness(self.position) < CLOSED;
        let sticky = request.route.as_ref().and_then(|route| route.sticky.as_deref());
        let word = sticky.map(|word| self.assign.mark(word));
        let takes = self.assign.takes(word);
        if takes && well {
            match router.members[self.position].stands.standing().circuit {
                Circuit::Closed => self.guard.open_again(),
                Circuit::Open | Circuit::HalfOpen => self.guard.closed(router.clock.now()),
            }
        }
        if both {
            let arm = if takes { Arm::Canary } else { Arm::Incumbent };
            choice.compared = Some((arm, word));
        }
        if takes && both {
            choice.notes.push("canary".to_owned());
            choice.open.insert(0, self.position);
        } else {
            choice.open.push(self.position);
            choice.reserve += 1;
        }
    }

    /// Goes on with an earlier canary's comparison, if nothing of it has changed.
    pub fn take_over(&self, earlier: &Self, now: Duration) {
        if self.options == earlier.options {
            self.guard.take_over(&earlier.guard, now);
        }
    }

    /// Takes in how a compared call ended.
    pub fn note(&self, outcome: &Outcome, now: Duration) {
        self.guard.note(outcome, now);
    }

    pub fn report(&self, members: &[Member]) -> CanaryReport {
        let reason = self.guard.reason();
        let [canary, incumbent] = self.guard.arms();
        CanaryReport {
            model: self.options.model.clone(),
            deployment: members[self.position].name.as_ref().to_owned(),
            percent: self.options.percent,
            state: if reason.is_some() { CanaryState::RolledBack } else { CanaryState::Running },
            reason,
            arms: Arms { canary, incumbent },
            evidence: self.guard.evidence(),
        }
    }
}

/// The outcome of a compared call, told once: how its first attempt ended.
#[derive(Clone)]
struct Tell {
    router: Arc<Router>,
    arm: Arm,
    word: Option<u64>,
    streamed: bool,
    told: Arc<AtomicBool>,
}

impl Tell {
    fn outcome(&self, failed: bool, seconds: Option<f64>, cost: Option<f64>) {
        let Some(canary) = &self.router.experiments.canary else { return };
        if !self.told.swap(true, Ordering::AcqRel) {
            let (arm, word, streamed) = (self.arm, self.word, self.streamed);
            let outcome = Outcome { arm, word, streamed, failed, seconds, cost };
            let before = canary.is_rolled_back();
            canary.note(&outcome, self.router.clock.now());
            if !before
                && canary.is_rolled_back()
                && let Some(notices) = self.router.notices()
            {
                let name = &self.router.members[canary.position].name;
                notices.add(NoticeKind::CanaryRolledBack, name, name, || canary.reason());
            }
        }
    }

    /// A failure counts when it is the deployment's; what the caller did wrong, and what was never sent, says nothing.
    fn failed(&self, error: &LlmError) {
        let refused = error.kind() == ErrorKind::RateLimited && !error.detail().before_send;
        match is_fault(error) || refused {
            true => self.outcome(true, None, None),
            false => self.told.store(true, Ordering::Release),
        }
    }
}

/// The cost of an answer as a number.
pub(super) fn dollars(cost: Option<&Cost>) -> Option<f64> {
    cost.and_then(|cost| cost.total.to_f64())
}

/// The deployment of a compared call's first attempt.
pub(super) struct Watch {
    position: usize,
    tell: Tell,
}

impl Watch {
    pub fn new(router: &Arc<Router>, streamed: bool, choice: &Choice) -> Option<Self> {
        let (arm, word) = choice.compared?;
        let told = Arc::new(AtomicBool::new(false));
        let tell = Tell { router: Arc::clone(router), arm, word, streamed, told };
        Some(Self { position: *choice.open.first()?, tell })
    }

    /// Tells of an attempt that was given up because it took too long.
    pub fn failed(&self, error: &LlmError) {
        self.tell.failed(error);
    }

    fn door(&self) -> &dyn LlmProvider {
        &*self.tell.router.members[self.position].door
    }
}

/// A call that has not ended. When the time for the whole call is up, it failed.
struct Going(Tell);

impl Drop for Going {
    fn drop(&mut self) {
        if time_left().is_some_and(|left| left.is_zero()) {
            self.0.outcome(true, None, None);
        }
    }
}

#[async_trait]
impl LlmProvider for Watch {
    fn name(&self) -> &str {
        self.door().name()
    }

    async fn generate(&self, request: LlmRequest) -> Result<LlmResponse, LlmError> {
        let clock = Arc::clone(&self.tell.router.clock);
        let (begun, going) = (clock.now(), Going(self.tell.clone()));
        let outcome = self.door().generate(request).await;
        match &outcome {
            Ok(answer) => {
                let seconds = clock.now().saturating_sub(begun).as_secs_f64();
                going.0.outcome(false, Some(seconds), dollars(answer.cost.as_deref()));
            }
            Err(error) => going.0.failed(error),
        }
        outcome
    }

    async fn stream(&self, request: LlmRequest) -> Result<ChunkStream, LlmError> {
        let clock = Arc::clone(&self.tell.router.clock);
        let (begun, going) = (clock.now(), Going(self.tell.clone()));
        let inner = match self.door().stream(request).await {
            Ok(inner) => inner,
            Err(error) => {
                going.0.failed(&error);
                return Err(error);
            }
        };
        // The door has waited for the first chunk.
        let seconds = clock.now().saturating_sub(begun).as_secs_f64();
        Ok(Box::pin(Watched { inner, seconds, cost: None, tell: self.tell.clone() }))
    }
}

/// A compared stream. One that its reader leaves early has answered.
struct Watched {
    inner: ChunkStream,
    seconds: f64,
    cost: Option<f64>,
    tell: Tell,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.tell.outcome(false, Some(self.seconds), self.cost);
    }
}

impl Stream for Watched {
    type Item = Result<LlmChunk, LlmError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.inner.as_mut().poll_next(context);
        match &polled {
            Poll::Ready(Some(Ok(chunk))) => {
                let cost = chunk.facts.as_ref().and_then(|facts| dollars(facts.cost.as_deref()));
                self.cost = cost.or(self.cost);
            }
            Poll::Ready(Some(Err(error))) => self.tell.failed(error),
            Poll::Ready(None) => self.tell.outcome(false, Some(self.seconds), self.cost),
            Poll::Pending => {}
        }
        polled
    }
}
