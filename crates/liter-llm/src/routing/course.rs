//! One call's way through the deployments: who is next after a failure, and the explanation afterwards.

use std::sync::Arc;
use std::time::Duration;

use super::budget;
use super::canary::Watch;
use super::guard::Arm;
use super::router::{Choice, Router};
use crate::core::error::{ErrorKind, LlmError};
use crate::core::provider::LlmProvider;
use crate::core::request::LlmRequest;
use crate::core::route::{CanaryArm, Course, Route, RouteCandidate};
use crate::core::state::keeps_state;

/// What another deployment is left beyond its 95th percentile: that is known to a sixteenth, and one in twenty takes
/// longer.
const MARGIN: f64 = 1.25;

/// What another deployment is left at least: this share of the time, up to so many seconds. One that answers in a
/// millisecond still needs a connection, and a turn on a busy machine.
const LEAST: (f64, f64) = (0.1, 0.25);

/// Whether another deployment may do better. What speaks of the request would fail there too.
fn may_pass_elsewhere(error: &LlmError) -> bool {
    let detail = error.detail();
    // Not to be sent twice, anywhere.
    if error.is_unanswered() && detail.retryable == Some(false) {
        return false;
    }
    match error.kind() {
        ErrorKind::Timeout => detail.phase != Some(crate::core::error::FailurePhase::Total),
        ErrorKind::Authentication
        | ErrorKind::PermissionDenied
        | ErrorKind::NotFound
        | ErrorKind::RequestTooLarge
        | ErrorKind::ContextLength
        | ErrorKind::ContentFilter
        | ErrorKind::RateLimited
        | ErrorKind::QuotaExhausted
        | ErrorKind::Overloaded
        | ErrorKind::ProviderError
        | ErrorKind::Connection
        | ErrorKind::StreamInterrupted
        | ErrorKind::Decode
        | ErrorKind::CircuitOpen
        | ErrorKind::NoCandidate
        | ErrorKind::Unsupported => true,
        ErrorKind::BudgetExceeded => !budget::bars_all(error),
        _ => false,
    }
}

/// A call under way.
pub(super) struct Way {
    router: Arc<Router>,
    request: LlmRequest,
    /// The model the call named, where that is not sent.
    named: Option<String>,
    streamed: bool,
    choice: Choice,
    /// The place in `choice.open` whose turn it is.
    at: usize,
    /// Places that failed, with their failures.
    failed: Vec<(usize, LlmError)>,
    /// Watches the first place, where a canary is compared with the others.
    watch: Option<Watch>,
}

/// The request as it is sent to a deployment: a name that chose among these is not the provider's word for the model.
pub(super) fn as_sent(router: &Router, open: &[usize], request: &LlmRequest) -> LlmRequest {
    let named = router.members.len() > 1
        && request
            .model
            .as_ref()
            .is_some_and(|model| open.iter().any(|position| router.members[*position].answers_to(model)));
    match named {
        true => request.clone().with(|body| body.model = None),
        false => request.clone(),
    }
}

impl Way {
    pub(super) fn new(router: Arc<Router>, request: &LlmRequest, streamed: bool, choice: Choice) -> Self {
        let asked = &request.model;
        let request = as_sent(&router, &choice.open, request);
        let named = asked.clone().filter(|_| request.model.is_none());
        let watch = Watch::new(&router, streamed, &choice);
        Self { router, request, named, streamed, choice, at: 0, failed: Vec::new(), watch }
    }

    fn position(&self) -> usize {
        self.choice.open[self.at]
    }

    /// Whether this place in line may take over after `error`.
    fn suits(&self, place: usize, error: &LlmError) -> bool {
        if place == self.at || self.failed.iter().any(|(failed, _)| *failed == place) {
            return false;
        }
        let context = |place: usize| self.router.members[self.choice.open[place]].capabilities.context;
        match error.kind() {
            ErrorKind::ContextLength => match (context(self.at), context(place)) {
                (Some(short), Some(long)) => long > short,
                // How short it was is not known: what the prompt clearly fits into may do.
                (None, Some(long)) => long > self.choice.input_tokens.saturating_mul(2),
                _ => false,
            },
            ErrorKind::ContentFilter => self
                .request
                .route
                .as_ref()
                .and_then(|asked| asked.content_filter_fallback)
                .unwrap_or(self.router.options.content_filter_fallback),
            // How large a body may be is a provider's rule.
            ErrorKind::RequestTooLarge => {
                let provider = |place: usize| &self.router.members[self.choice.open[place]].provider;
                provider(self.at) != provider(place)
            }
            _ => true,
        }
    }

    /// The time in seconds that 95 % of its answers, or first chunks, stay under.
    fn usual(&self, place: usize) -> Option<f64> {
        let member = &self.router.members[self.choice.open[place]];
        member.stats.p95(self.streamed)
    }

    pub(super) fn explain(&self, most: usize) -> Route {
        let listed = |position: usize| {
            let member = &self.router.members[position];
            RouteCandidate {
                deployment: member.name.as_ref().to_owned(),
                ruled_out: None,
                failed: self.failed.iter().find(|(place, _)| self.choice.open[*place] == position).map(
                    |(_, error)| match error.detail().status_code {
                        Some(status) => format!("{} ({status})", error.kind()),
                        None => error.kind().to_string(),
                    },
                ),
                price: member.pricing.as_ref().and_then(|pricing| {
                    pricing.estimate(self.choice.input_tokens, self.choice.output_tokens)
                }),
                latency: member.stats.lately(self.streamed).latency,
                circuit: member.stands.standing().circuit,
            }
        };
        let named = self.named.as_deref().or(self.request.model.as_deref()).unwrap_or_default();
        let open = self.choice.open.iter().take(most).map(|position| listed(*position));
        let out = self.choice.out.iter().take(most).map(|(position, why)| RouteCandidate {
            ruled_out: Some(self.router.reason(*position, *why, &self.request, named)),
            ..listed(*position)
        });
        let candidates: Vec<_> = open.chain(out).collect();
        let unlisted = self.router.members.len() - candidates.len();
        let chosen = self.choice.open.get(self.at).map(|position| &self.router.members[*position].name);
        Route {
            policy: self.router.policy_name().to_owned(),
            chosen: chosen.map(|name| name.as_ref().to_owned()).unwrap_or_default(),
            candidates,
            unlisted,
            arm: self.choice.compared.map(|(arm, _)| match arm {
                Arm::Canary => CanaryArm::Canary,
                Arm::Incumbent => CanaryArm::Rest,
            }),
            notes: self.choice.notes.clone(),
        }
    }
}

impl Course for Way {
    fn current(&self) -> (&dyn LlmProvider, &LlmRequest) {
        match &self.watch {
            Some(watch) if self.at == 0 => (watch, &self.request),
            _ => (&*self.router.members[self.position()].door, &self.request),
        }
    }

    fn elsewhere(&mut self, error: &LlmError) -> bool {
        if let Some(watch) = self.watch.as_ref().filter(|_| self.at == 0) {
            watch.failed(error);
        }
        // What may have been made at one provider is not made again at another.
        let made = || {
            !error.was_never_sent() && error.detail().retryable == Some(false) && keeps_state(&self.request)
        };
        if self.choice.open.len() == 1 || !may_pass_elsewhere(error) || made() {
            return false;
        }
        let member = &self.router.members[self.position()];
        // Given up by the loop so that another one has time: the layer around the deployment could not tell. Before the
        // time it usually takes, that is no fault of it.
        let took = error.detail().attempts.last().map(|attempt| attempt.duration);
        let sooner = took.zip(self.usual(self.at)).is_some_and(|(took, usual)| took < usual);
        if matches!(error.kind(), ErrorKind::Timeout) && !sooner && !member.stats.is_suspect() {
            member.stats.failed(self.router.clock.now());
        }
        let next =
            (0..self.choice.open.len()).filter(|place| self.suits(*place, error)).min_by_key(|place| {
                let reserve = *place + self.choice.reserve >= self.choice.open.len();
                (reserve, self.router.sickness(self.choice.open[*place]), *place)
            });
        if let Some(next) = next {
            self.failed.push((self.at, error.clone()));
            self.at = next;
        }
        next.is_some()
    }

    fn exhausted(&mut self, last: LlmError) -> LlmError {
        if self.failed.is_empty() || !may_pass_elsewhere(&last) {
            return last;
        }
        self.failed.retain(|(place, _)| *place != self.at);
        self.failed.push((self.at, last));
        // The one that may be tried again soonest; of equals the better one.
        let hope = |error: &LlmError| match error.is_retryable() {
            true => error.retry_after().unwrap_or_default(),
            false => Duration::MAX,
        };
        let best = self.failed.iter().min_by_key(|(place, error)| (hope(error), *place)).cloned();
        match best {
            Some((place, error)) => {
                self.at = place;
                error
            }
            None => LlmError::Timeout,
        }
    }

    fn patience(&self, left: Option<Duration>) -> Option<Duration> {
        let left = left?.as_secs_f64();
        // What may not be sent again is waited for as long as there is time.
        if self.choice.open.len() == 1 || !self.router.members[self.position()].resends {
            return None;
        }
        // Nothing is gained by giving up for one that takes no calls or failed lately.
        let next = (0..self.choice.open.len()).find(|place| {
            self.suits(*place, &LlmError::Timeout) && self.router.sickness(self.choice.open[*place]) == 0
        })?;
        let (this, next) = (self.usual(self.at), self.usual(next));
        // Of one that was never called, as much is expected as of the other.
        let patience = left - (MARGIN * next.or(this)?).max((LEAST.0 * left).min(LEAST.1));
        let usual = this.or(next)?;
        // Without time for what it usually takes itself, giving up early would help nobody; of one that usually takes
        // longer than there is time, nothing is to be hoped by waiting either.
        (patience > MARGIN * usual || (usual > left && patience > 0.0))
            .then(|| Duration::from_secs_f64(patience))
    }

    fn route(&mut self) -> Option<Box<Route>> {
        (self.router.members.len() > 1).then(|| Box::new(self.explain(Route::LISTED)))
    }
}

/// The way of a call where one deployment takes every call: to that one.
pub(super) struct Alone {
    router: Arc<Router>,
    request: LlmRequest,
}

impl Alone {
    /// `router`: one that [is plain](Router::is_plain).
    pub(super) fn new(router: Arc<Router>, request: &LlmRequest) -> Self {
        Self { router, request: request.clone() }
    }
}

impl Course for Alone {
    fn current(&self) -> (&dyn LlmProvider, &LlmRequest) {
        (&*self.router.members[0].door, &self.request)
    }
}
