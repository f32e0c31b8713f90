//! The call that runs: until when it may, and what of it is on its way. Every layer and endpoint below the retry loop
//! can ask.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::response::Attempt;

tokio::task_local! {
    static CALL: Arc<Call>;
}

/// One call of the retry loop.
#[derive(Debug, Default)]
pub(crate) struct Call {
    deadline: Option<Instant>,
    /// What was sent and has not come back, for the case that time runs out meanwhile.
    under_way: Mutex<Vec<(Instant, String)>>,
}

impl Call {
    /// A call inside another one never has more time than that one.
    pub(crate) fn until(deadline: Option<Instant>) -> Arc<Self> {
        let outer = CALL.try_with(|call| call.deadline).ok().flatten();
        let deadline = deadline.into_iter().chain(outer).min();
        Arc::new(Self { deadline, under_way: Mutex::default() })
    }

    pub(crate) const fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// The time left; `None` without a deadline.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    pub(crate) async fn scope<F: Future>(self: Arc<Self>, future: F) -> F::Output {
        CALL.scope(self, future).await
    }

    fn sent(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, String)>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that was under way has come back.
    pub(crate) fn clear(&self) {
        self.sent().clear();
    }

    /// What is under way, as attempts that time ran out on.
    pub(crate) fn cut_off(&self) -> Vec<Attempt> {
        let cut = |(begun, deployment): (Instant, String)| Attempt {
            deployment,
            duration: begun.elapsed().as_secs_f64(),
            error: Some("timeout".to_owned()),
            reason: Some("the call's time was up".to_owned()),
            ..Attempt::default()
        };
        std::mem::take(&mut *self.sent()).into_iter().map(cut).collect()
    }
}

/// The time left to the running call, so that a wait that cannot fit need not be begun; `None` outside of a call and
/// for a call without a deadline.
#[must_use]
pub fn time_left() -> Option<Duration> {
    CALL.try_with(|call| call.left()).ok().flatten()
}

/// Notes that a request is on its way to `deployment`.
pub(crate) fn sending(deployment: &str) {
    // Without a call around it nobody will ask.
    let _ = CALL.try_with(|call| call.sent().push((Instant::now(), deployment.to_owned())));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_inside_a_call_has_no_more_time() {
        assert_eq!(time_left(), None);
        let at = |seconds| Some(Instant::now() + Duration::from_secs(seconds));
        Call::until(at(5))
            .scope(async {
                assert_eq!(time_left(), Some(Duration::from_secs(5)));
                let inner = Call::until(at(9));
                assert_eq!(inner.left(), Some(Duration::from_secs(5)));
                assert_eq!(Call::until(at(2)).left(), Some(Duration::from_secs(2)));
                assert_eq!(Call::until(None).left(), Some(Duration::from_secs(5)));
                sending("a");
                tokio::time::sleep(Duration::from_secs(3)).await;
                let cut = CALL.with(|call| call.cut_off());
                assert_eq!((cut[0].deployment.as_str(), cut[0].duration), ("a", 3.0));
            })
            .await;
    }
}
