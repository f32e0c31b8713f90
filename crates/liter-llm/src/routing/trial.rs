//! Trials: a deployment that failed is tried with a copy beside a call, so that no caller waits for it.

use std::sync::Arc;
use std::time::Duration;

use super::course::as_sent;
use super::measured::is_fault;
use super::router::{Choice, Router};
use crate::core::call::Call;
use crate::core::error::{ErrorKind, LlmError};
use crate::core::request::LlmRequest;
use crate::core::state::keeps_state;

/// The most tokens that a trial asks for.
const TOKENS: u64 = 16;

/// The shortest and the longest time a trial may take.
const TIME: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// A trial may take so many times what 95 % of the answers took.
const USUAL: f64 = 4.0;

/// What an outcome says of the deployment: whether it is up; `None`: nothing.
fn verdict(outcome: Result<(), &LlmError>) -> Option<bool> {
    match outcome {
        Ok(()) => Some(true),
        Err(error) if error.detail().before_send || error.kind() == ErrorKind::Cancelled => None,
        // Refusing this very call is an answer too.
        Err(error) => Some(!is_fault(error)),
    }
}

/// A trial that is due for so long was not made because no call may be copied; then a call itself is the trial.
const OVERDUE: Duration = Duration::from_secs(30);

/// Puts a suspect first whose trial is overdue, if this call is one that may not be copied there: without a trial it
/// would never be asked again. At most one call in a minute.
fn with_the_call(router: &Router, choice: &mut Choice, copies: bool) {
    let Some(since) = router.clock.now().checked_sub(OVERDUE).filter(|_| !choice.degraded) else { return };
    let overdue = |position: &&usize| {
        let member = &router.members[**position];
        (!copies || member.keeps_state) && member.stats.claim_trial(since, OVERDUE * 2)
    };
    let Some(&position) = choice.suspects.iter().find(overdue) else { return };
    if let Some(place) = choice.open.iter().position(|open| *open == position) {
        choice.open[..=place].rotate_right(1);
        choice.notes.push(format!("`{}` is tried with this call", router.members[position].name));
    }
}

/// Sends a copy of the call to one suspect whose time has come, if there is one that can take this call, and if a
/// healthy deployment answers the call itself.
pub(super) fn beside(router: &Arc<Router>, choice: &mut Choice, request: &LlmRequest) {
    // One that is first in line is tried by the call itself: nobody healthy is left.
    if choice.suspects.is_empty() || choice.suspects.first() == choice.open.first() {
        return;
    }
    let copies = !keeps_state(request);
    with_the_call(router, choice, copies);
    if !copies {
        return;
    }
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    let now = router.clock.now();
    let due = |position: &&usize| {
        let member = &router.members[**position];
        !member.keeps_state && member.stats.is_worth_a_trial(now) && member.stats.claim_trial(now, TIME.1 * 2)
    };
    let Some(&position) = choice.suspects.iter().find(due) else { return };
    let usual = router.members[position].stats.p95(false);
    let limit = usual
        .and_then(|usual| Duration::try_from_secs_f64(USUAL * usual).ok())
        .map_or(TIME.1, |limit| limit.clamp(TIME.0, TIME.1));
    let request = as_sent(router, &choice.open, request).with(|body| {
        body.max_tokens = Some(body.max_tokens.map_or(TOKENS, |most| most.min(TOKENS)));
        // Some providers refuse a budget above the bound.
        body.reasoning_budget = None;
    });
    let router = Arc::clone(router);
    runtime.spawn(async move {
        let call = Call::until(Some(tokio::time::Instant::now() + limit));
        let answer = call.scope(router.bare[position].generate(request));
        let outcome = tokio::time::timeout(limit, answer).await.unwrap_or(Err(LlmError::Timeout));
        let stats = &router.members[position].stats;
        let now = router.clock.now();
        match verdict(outcome.as_ref().map(|_| ())) {
            Some(up) => stats.tried(now, up),
            None => stats.untried(now),
        }
    });
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;
    use crate::core::clock::Clock;
    use crate::core::json::RawJson;
    use crate::routing::bench_members::members;
    use crate::routing::options::RouterOptions;

    #[test]
    fn an_answer_of_any_kind_shows_that_a_deployment_is_up() {
        let error = |kind| LlmError::new(kind, "no");
        let of = |error: &LlmError| verdict(Err(error));
        assert_eq!(verdict(Ok(())), Some(true));
        assert_eq!(of(&error(ErrorKind::InvalidRequest)), Some(true));
        assert_eq!(of(&error(ErrorKind::RateLimited)), Some(true));
        assert_eq!(of(&LlmError::Timeout), Some(false));
        assert_eq!(of(&error(ErrorKind::Overloaded)), Some(false));
        assert_eq!(of(&error(ErrorKind::CircuitOpen).with(|detail| detail.before_send = true)), None);
    }

    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> Duration {
            Duration::from_secs(self.0.load(Relaxed))
        }
    }

    #[test]
    fn one_that_no_call_may_be_copied_to_is_tried_with_a_call() {
        let hand = Arc::new(Hand(AtomicU64::new(0)));
        let clock = Arc::clone(&hand) as Arc<dyn Clock>;
        let options = RouterOptions::default();
        let router = Arc::new(Router::new("router", members(2), options, clock).unwrap());
        let stored = LlmRequest::new().with(|body| {
            body.extra.insert("store".to_owned(), RawJson::from("true"));
        });
        let first_at = |second| {
            hand.0.store(second, Relaxed);
            let mut choice = router.choose(&stored, false);
            beside(&router, &mut choice, &stored);
            choice.open[0]
        };
        assert_eq!(first_at(100), 0);
        router.members[0].stats.failed(Duration::from_secs(100));
        assert_eq!([101, 105, 130].map(first_at), [1; 3], "others may be copied meanwhile");
        assert_eq!([131, 132, 190, 191].map(first_at), [0, 1, 1, 0], "one call in a minute");
        router.members[0].stats.answered(Duration::from_secs(192), Duration::from_secs(1), false);
        assert_eq!(first_at(193), 0);
    }
}
