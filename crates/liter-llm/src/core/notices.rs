//! Notices: the few events of an engine that its operator should hear of, in a ring of bounded length. Nobody is waited
//! for, and nothing that repeats floods a log.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::time::Instant;

/// The most notices that wait to be read; the oldest go first.
const MOST: usize = 256;
/// How long a notice of the same kind and subject is left out, and counted, after one was taken.
const QUIET: Duration = Duration::from_secs(10);
/// The most subjects whose last notice is remembered.
const SUBJECTS: usize = 1_024;

/// What happened.
///
/// ```
/// use liter_llm::NoticeKind;
///
/// for kind in NoticeKind::ALL {
///     println!("{}{}", kind.as_str(), if kind.is_warning() { ": look" } else { "" });
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NoticeKind {
    /// A deployment failed so often that it gets no calls for a while.
    CircuitOpened,
    /// It answers again.
    CircuitClosed,
    /// A canary was worse than the other deployments and gets no more calls.
    CanaryRolledBack,
    /// A call was refused because a budget is used up or held.
    BudgetReached,
    /// A budget has come so far that calls go to another deployment.
    BudgetDegraded,
    /// A client goes on under another configuration.
    Reloaded,
    /// A configuration that cannot work was refused; the client goes on as it was.
    ReloadFailed,
}

impl NoticeKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::CircuitOpened,
        Self::CircuitClosed,
        Self::CanaryRolledBack,
        Self::BudgetReached,
        Self::BudgetDegraded,
        Self::Reloaded,
        Self::ReloadFailed,
    ];

    /// The kind's name, as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CircuitOpened => "circuit_opened",
            Self::CircuitClosed => "circuit_closed",
            Self::CanaryRolledBack => "canary_rolled_back",
            Self::BudgetReached => "budget_reached",
            Self::BudgetDegraded => "budget_degraded",
            Self::Reloaded => "reloaded",
            Self::ReloadFailed => "reload_failed",
        }
    }

    /// Whether somebody should look: the others are good news.
    #[must_use]
    pub const fn is_warning(self) -> bool {
        !matches!(self, Self::CircuitClosed | Self::Reloaded)
    }
}

/// Something that happened. No key, no prompt, no provider's words.
///
/// ```
/// use liter_llm::Notice;
///
/// fn told(notice: &Notice) -> String {
///     format!("{} {} {}: {}", notice.at, notice.level, notice.kind.as_str(), notice.deployment)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Notice {
    /// What.
    pub kind: NoticeKind,
    /// `warning` or `info`.
    pub level: &'static str,
    /// When, in seconds since 1970-01-01 UTC.
    pub at: f64,
    /// The deployment; empty where it is about none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub deployment: String,
    /// More of it, in the engine's words: which budget, why a canary was rolled back, which option.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// How many of the same kind and subject were left out before this one.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[derive(Default)]
struct Ring {
    waiting: VecDeque<Notice>,
    /// By kind and subject: when the last one was taken, and how many were left out since.
    last: HashMap<(NoticeKind, String), (Instant, u64)>,
}

/// The notices of one client.
///
/// ```
/// use liter_llm::{Client, ProviderConfig};
/// # fn main() -> Result<(), liter_llm::LlmError> {
/// let client = Client::new(ProviderConfig::new("ollama").with_model("llama3"))?;
/// let notices = client.telemetry().notices();
/// if notices.any() {
///     for notice in notices.take() {
///         println!("{}: {}", notice.kind.as_str(), notice.detail);
///     }
/// }
/// assert_eq!(notices.lost(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct Notices {
    /// Whether any wait.
    any: AtomicBool,
    /// Notices that were pushed out unread.
    lost: AtomicU64,
    ring: Mutex<Ring>,
    /// Who hears of each at once.
    hearer: Option<fn(&Notice)>,
}

impl std::fmt::Debug for Notices {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Notices").field("any", &self.any()).finish_non_exhaustive()
    }
}

impl Notices {
    /// None yet. `hearer` is told of each at once.
    #[must_use]
    pub(crate) fn new(hearer: Option<fn(&Notice)>) -> Self {
        Self { hearer, ..Self::default() }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a notice, unless there was one of this kind and subject a moment ago: then it is counted. `subject` is the
    /// deployment, or what else the notice is about.
    pub(crate) fn add(
        &self,
        kind: NoticeKind,
        subject: &str,
        deployment: &str,
        detail: impl FnOnce() -> String,
    ) {
        let now = Instant::now();
        let mut ring = self.ring();
        if ring.last.len() >= SUBJECTS {
            ring.last.retain(|_, (then, _)| now.duration_since(*then) < QUIET);
        }
        let full = ring.last.len() >= SUBJECTS;
        let left_out = match ring.last.get_mut(&(kind, subject.to_owned())) {
            Some((then, left_out)) if now.duration_since(*then) < QUIET => {
                *left_out += 1;
                return;
            }
            Some((then, left_out)) => {
                *then = now;
                std::mem::take(left_out)
            }
            None if full => return,
            None => {
                ring.last.insert((kind, subject.to_owned()), (now, 0));
                0
            }
        };
        let notice = Notice {
            kind,
            level: if kind.is_warning() { "warning" } else { "info" },
            at: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64()),
            deployment: deployment.to_owned(),
            detail: detail(),
            left_out,
        };
        if ring.waiting.len() >= MOST {
            ring.waiting.pop_front();
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        ring.waiting.push_back(notice.clone());
        drop(ring);
        self.any.store(true, Ordering::Release);
        if let Some(hearer) = self.hearer {
            hearer(&notice);
        }
    }

    /// Whether any wait: an atomic load, for who looks after every call.
    #[must_use]
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Takes those that wait, oldest first.
    #[must_use]
    pub fn take(&self) -> Vec<Notice> {
        self.any.store(false, Ordering::Release);
        self.ring().waiting.drain(..).collect()
    }

    /// How many were pushed out before anybody read them.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_repeats_is_counted_and_told_later() {
        let notices = Notices::default();
        let opened = |name: &str| notices.add(NoticeKind::CircuitOpened, name, name, String::new);
        assert!(!notices.any() && notices.take().is_empty());
        for _ in 0..5 {
            opened("a");
        }
        opened("b");
        assert!(notices.any());
        let taken = notices.take();
        let shown: Vec<_> = taken.iter().map(|notice| (&*notice.deployment, notice.left_out)).collect();
        assert_eq!(shown, [("a", 0), ("b", 0)]);
        tokio::time::advance(QUIET).await;
        opened("a");
        assert_eq!(notices.take().first().map(|notice| notice.left_out), Some(4));
        assert!(!notices.any());
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_an_end_to_them() {
        let notices = Notices::default();
        for number in 0..10 * SUBJECTS {
            let subject = number.to_string();
            notices.add(NoticeKind::BudgetReached, &subject, "", || subject.clone());
        }
        let taken = notices.take();
        assert_eq!(taken.len(), MOST);
        assert_eq!(notices.lost(), (SUBJECTS - MOST) as u64);
        for kind in NoticeKind::ALL {
            assert_eq!(serde_json::json!(kind), kind.as_str());
        }
    }
}
