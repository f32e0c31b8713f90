//! The canary and the mirror of a router: what they hold back from the policy, and the places they give.

use std::time::Duration;

use super::budget::Budgets;
use super::canary::{Canary, CanaryReport};
use super::member::Member;
use super::mirror::{Mirror, MirrorReport};
use super::needs;
use super::options::RouterOptions;
use super::router::{Choice, Router, Why};
use crate::core::error::LlmError;
use crate::core::request::LlmRequest;

/// A router's canary and mirror, where it has them.
#[derive(Debug, Default)]
pub(super) struct Experiments {
    pub canary: Option<Canary>,
    pub mirror: Option<Mirror>,
}

impl Experiments {
    /// # Errors
    /// `config` when a deployment is not there.
    pub fn new(options: &RouterOptions, members: &[Member], now: Duration) -> Result<Self, LlmError> {
        let canary = options.canary.clone().map(|canary| Canary::new(canary, members, now)).transpose()?;
        let mirror = options.mirror.clone().map(|mirror| Mirror::new(mirror, members)).transpose()?;
        if let (Some(canary), Some(mirror)) = (&canary, &mirror)
            && canary.position != mirror.position
            && members.len() == 2
        {
            let what = "`mirror.to`: no deployment is left beside the canary and this one";
            return Err(LlmError::config("mirror.to", what));
        }
        Ok(Self { canary, mirror })
    }

    /// Checks that no budget degrades to a deployment that is held back: calls degrade to one among those that answer.
    ///
    /// # Errors
    /// `config` naming the deployment.
    pub fn check_degrading(&self, budgets: &Budgets, members: &[Member]) -> Result<(), LlmError> {
        let Some(position) = budgets.degrades_to().find(|position| self.holds(*position)) else {
            return Ok(());
        };
        let canary = self.canary.as_ref().is_some_and(|canary| canary.position == position);
        let what = match canary {
            true => "is the canary, which gets its share of the calls only",
            false => "is the mirror's deployment, which gets copies of calls",
        };
        let name = &members[position].name;
        let what = format!("`budget.degrade_to`: `{name}` {what}: name another deployment");
        Err(LlmError::config("budget.degrade_to", what))
    }

    /// Whether the policy does not get to see this deployment.
    pub fn holds(&self, position: usize) -> bool {
        self.canary.as_ref().is_some_and(|canary| canary.position == position)
            || self.mirror.as_ref().is_some_and(|mirror| mirror.position == position)
    }

    /// Whether this deployment gets no calls, because it is a canary that was worse than the others.
    pub fn is_rolled_back(&self, position: usize) -> bool {
        self.canary.as_ref().is_some_and(|canary| canary.position == position && canary.is_rolled_back())
    }

    /// Gives those that are held back their places.
    pub fn seat(&self, router: &Router, request: &LlmRequest, choice: &mut Choice) {
        if let Some(canary) = &self.canary {
            canary.seat(router, request, choice);
        }
        if let Some(mirror) = &self.mirror
            && choice.held.contains(&mirror.position)
            && self.canary.as_ref().is_none_or(|canary| canary.position != mirror.position)
        {
            choice.open.push(mirror.position);
            choice.reserve += 1;
        }
    }

    /// Goes on with what an earlier router's experiments know, where nothing of them has changed.
    pub fn take_over(&self, earlier: &Self, now: Duration) {
        if let (Some(canary), Some(earlier)) = (&self.canary, &earlier.canary) {
            canary.take_over(earlier, now);
        }
        if let (Some(mirror), Some(earlier)) = (&self.mirror, &earlier.mirror) {
            mirror.take_over(earlier);
        }
    }
}

impl Router {
    /// How the canary does; `None` without one.
    #[must_use]
    pub fn canary(&self) -> Option<CanaryReport> {
        self.experiments.canary.as_ref().map(|canary| canary.report(&self.members))
    }

    /// How the mirrored calls do; `None` without a mirror.
    #[must_use]
    pub fn mirror(&self) -> Option<MirrorReport> {
        self.experiments.mirror.as_ref().map(Mirror::report)
    }

    /// Whether a copy of this call must not go to that deployment, or cannot be answered there.
    pub(super) fn may_not_see(&self, position: usize, request: &LlmRequest, input: u64) -> bool {
        // The name of another model chose among those that answer; the copy goes where the mirror says.
        let why = self.why_not(position, request, needs::of(request), input);
        match why {
            Some(Why::Model) => self.lacks(position, needs::of(request), input).is_some(),
            other => other.is_some(),
        }
    }

    /// Gives the canary and the mirror's deployment their places.
    pub(super) fn seated(&self, mut choice: Choice, request: &LlmRequest) -> Choice {
        self.experiments.seat(self, request, &mut choice);
        choice
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::core::clock::MonotonicClock;
    use crate::routing::bench_members::members;
    use crate::routing::canary::CanaryState;
    use crate::routing::guard::{Arm, Outcome};

    fn router(percent: u32) -> Router {
        let text = format!(
            r#"{{"canary": {{"model": "d1", "percent": {percent}}}, "mirror": {{"to": "d2", "percent": 5}}}}"#
        );
        let options = serde_json::from_str(&text).unwrap();
        Router::new("router", members(3), options, Arc::new(MonotonicClock::default())).unwrap()
    }

    #[test]
    fn the_same_canary_goes_on_and_another_begins_anew() {
        let first = router(50);
        for call in 0..60 {
            let arm = if call % 2 == 0 { Arm::Canary } else { Arm::Incumbent };
            let failed = arm == Arm::Canary;
            let outcome = Outcome { arm, word: None, streamed: false, failed, seconds: None, cost: None };
            first.experiments.canary.as_ref().unwrap().note(&outcome, Duration::ZERO);
        }
        let before = first.canary().unwrap();
        assert_eq!(before.state, CanaryState::RolledBack);
        let after = |percent| {
            let next = router(percent);
            next.take_over(&first);
            next.canary().unwrap()
        };
        assert_eq!(after(50), before);
        let other = after(10);
        assert_eq!((other.state, other.arms.canary.calls), (CanaryState::Running, 0));
        // One that was rolled back gets nothing; the mirror's deployment is the last resort.
        let choice = |router: &Router| {
            let mut choice = router.choose(&LlmRequest::new(), false);
            router.experiments.seat(router, &LlmRequest::new(), &mut choice);
            (choice.open, choice.reserve)
        };
        assert_eq!(choice(&first), (vec![0, 2], 1));
        assert_eq!(choice(&router(0)), (vec![0, 1, 2], 2));
        assert_eq!(choice(&router(100)), (vec![1, 0, 2], 1));
    }
}
