//! Mirrored traffic: copies of calls to a deployment whose answers nobody waits for.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use super::assign::Assign;
use super::canary::{check_percent, dollars, named};
use super::course::as_sent;
use super::member::Member;
use super::router::{Choice, Router};
use crate::core::call::Call;
use crate::core::error::{ErrorKind, LlmError};
use crate::core::provider::LlmProvider;
use crate::core::request::LlmRequest;
use crate::core::state::keeps_state;

/// The most copies on their way at once; what would be more is dropped.
const MOST: u64 = 32;

/// The longest time for a copy.
const LONGEST: Duration = Duration::from_secs(120);

/// Mirrored traffic, as it stands in the configuration document.
///
/// ```
/// use liter_llm::{MirrorOptions, ProviderConfig, ProviderRouter, RouterOptions};
///
/// let mirror = MirrorOptions { to: "new".to_owned(), percent: 10.0 };
/// mirror.validate()?;
/// let options = RouterOptions { mirror: Some(mirror), ..RouterOptions::default() };
/// let deployments = ["old", "new"].map(|model| ProviderConfig::new("ollama").with_model(model));
/// let router = ProviderRouter::with_options(deployments, options)?;
/// assert_eq!(router.mirror().unwrap().sent, 0);
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorOptions {
    /// The deployment that gets the copies: its name, its model or `provider/model`.
    pub to: String,
    /// The share of the calls that are copied, 0 to 100.
    pub percent: f64,
}

impl MirrorOptions {
    /// Checks what can be checked without the deployments.
    ///
    /// # Errors
    /// `config` naming the option and the remedy.
    pub fn validate(&self) -> Result<(), LlmError> {
        check_percent("mirror.percent", self.percent)
    }
}

/// How the copies do.
///
/// ```
/// use liter_llm::MirrorReport;
///
/// let report = MirrorReport { sent: 100, errors: 3, ..MirrorReport::default() };
/// assert!(report.errors * 20 < report.sent);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct MirrorReport {
    /// The deployment, as the configuration names it.
    pub to: String,
    /// The share of the calls that are copied, 0 to 100.
    pub percent: f64,
    /// Copies sent.
    pub sent: u64,
    /// Copies not sent because too many were on their way.
    pub dropped: u64,
    /// Of those sent, the ones that failed in whatever way.
    pub errors: u64,
    /// Copies on their way.
    pub in_flight: u64,
    /// The mean seconds to a whole answer; `None` before the first.
    pub latency: Option<f64>,
    /// What the copies cost altogether in USD, as far as prices are known; `None` when none is.
    pub cost: Option<f64>,
}

#[derive(Debug, Clone, Default)]
struct Sums {
    answers: u64,
    seconds: f64,
    cost: Option<f64>,
}

/// Copies a share of the calls.
#[derive(Debug)]
pub(super) struct Mirror {
    pub position: usize,
    options: MirrorOptions,
    assign: Assign,
    tally: Arc<Tally>,
}

/// What is counted of the copies.
#[derive(Debug, Default)]
struct Tally {
    sent: AtomicU64,
    dropped: AtomicU64,
    errors: AtomicU64,
    in_flight: AtomicU64,
    sums: Mutex<Sums>,
}

/// A copy on its way.
struct Copy(Arc<Tally>);

impl Drop for Copy {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

impl Mirror {
    /// The mirror among these deployments.
    ///
    /// # Errors
    /// `config` when it is none of them, or the only one.
    pub fn new(options: MirrorOptions, members: &[Member]) -> Result<Self, LlmError> {
        let position = named("mirror.to", &options.to, members)?;
        if members.len() == 1 {
            let what = "`mirror.to`: it is the only deployment; calls are answered by another one";
            return Err(LlmError::config("mirror.to", what));
        }
        let assign = Assign::new(options.percent, &members[position].name);
        Ok(Self { position, options, assign, tally: Arc::default() })
    }

    /// Goes on with an earlier mirror's counts, if nothing of it has changed.
    pub fn take_over(&self, earlier: &Self) {
        if self.options != earlier.options {
            return;
        }
        let (new, old) = (&self.tally, &earlier.tally);
        for (new, old) in [(&new.sent, &old.sent), (&new.dropped, &old.dropped), (&new.errors, &old.errors)] {
            new.fetch_add(old.load(Relaxed), Relaxed);
        }
        let old = old.sums.lock().unwrap_or_else(PoisonError::into_inner).clone();
        *new.sums.lock().unwrap_or_else(PoisonError::into_inner) = old;
    }

    /// Sends a copy of the call in the background, if it is one of the share. `choice`: the call's own candidates.
    pub fn beside(&self, router: &Arc<Router>, choice: &Choice, request: &LlmRequest, streamed: bool) {
        let member = &router.members[self.position];
        let own = choice.open.first() == Some(&self.position);
        if own || !self.assign.takes(None) || member.keeps_state || keeps_state(request) {
            return;
        }
        if router.may_not_see(self.position, request, choice.input_tokens) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let room = |going: u64| (going < MOST).then_some(going + 1);
        if self.tally.in_flight.fetch_update(Relaxed, Relaxed, room).is_err() {
            self.tally.dropped.fetch_add(1, Relaxed);
            return;
        }
        self.tally.sent.fetch_add(1, Relaxed);
        let own = request.timeout.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let limit = own.map_or(LONGEST, |own| own.min(LONGEST));
        let request = as_sent(router, &choice.open, request);
        let copy = Copy(Arc::clone(&self.tally));
        let (door, clock) = (Arc::clone(&member.door), Arc::clone(&router.clock));
        runtime.spawn(async move {
            let begun = clock.now();
            let call = Call::until(Some(tokio::time::Instant::now() + limit));
            let answer = call.scope(to_its_end(&*door, request, streamed));
            let outcome = tokio::time::timeout(limit, answer).await.unwrap_or(Err(LlmError::Timeout));
            copy.0.ended(&outcome, clock.now().saturating_sub(begun).as_secs_f64());
        });
    }

    #[allow(clippy::cast_precision_loss, reason = "counts are small")]
    pub fn report(&self) -> MirrorReport {
        let tally = &self.tally;
        let sums = tally.sums.lock().unwrap_or_else(PoisonError::into_inner);
        MirrorReport {
            to: self.options.to.clone(),
            percent: self.options.percent,
            sent: tally.sent.load(Relaxed),
            dropped: tally.dropped.load(Relaxed),
            errors: tally.errors.load(Relaxed),
            in_flight: tally.in_flight.load(Relaxed),
            latency: (sums.answers > 0).then(|| sums.seconds / sums.answers as f64),
            cost: sums.cost,
        }
    }
}

impl Tally {
    fn ended(&self, outcome: &Result<Option<f64>, LlmError>, seconds: f64) {
        let Ok(cost) = outcome else {
            self.errors.fetch_add(1, Relaxed);
            return;
        };
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        sums.answers += 1;
        sums.seconds += seconds;
        if let Some(cost) = cost {
            sums.cost = Some(sums.cost.unwrap_or(0.0) + cost);
        }
    }
}

/// Has a call answered to its end; gives the cost.
async fn to_its_end(
    door: &dyn LlmProvider,
    request: LlmRequest,
    streamed: bool,
) -> Result<Option<f64>, LlmError> {
    if !streamed {
        return door.generate(request).await.map(|answer| dollars(answer.cost.as_deref()));
    }
    let mut stream = door.stream(request).await?;
    let (mut cost, mut any) = (None, false);
    while let Some(chunk) = stream.next().await {
        any = true;
        let told = chunk?.facts.and_then(|facts| dollars(facts.cost.as_deref()));
        cost = told.or(cost);
    }
    match any {
        true => Ok(cost),
        false => Err(LlmError::new(ErrorKind::Decode, "the stream ended without an answer")),
    }
}
