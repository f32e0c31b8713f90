//! How a router picks: the table of policies, and the two that need no figures.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::cost::Cost;
use super::latency::Latency;
use super::least_busy::LeastBusy;
use super::member::Member;
use super::weighted::Weighted;
use crate::core::request::LlmRequest;

/// A call, as a policy sees it.
pub struct CallView<'a> {
    /// The request.
    pub request: &'a LlmRequest,
    /// Whether it is a stream.
    pub streamed: bool,
    /// All deployments of the router.
    pub members: &'a [Member],
    /// The time now, by the router's clock.
    pub now: Duration,
    /// The estimated tokens of the prompt.
    pub input_tokens: u64,
    /// The estimated tokens of the answer.
    pub output_tokens: u64,
}

/// Puts deployments in order.
pub trait Policy: Send + Sync {
    /// The name it has in configuration.
    fn name(&self) -> &str;

    /// Puts `open`, positions in `call.members`, in order, best first. They come in the order of the configuration.
    fn order(&self, call: &CallView<'_>, open: &mut [usize]);
}

/// By priority, lower first; deployments of the same priority in the order of the configuration.
pub struct Priority;

impl Policy for Priority {
    fn name(&self) -> &str {
        "priority"
    }

    fn order(&self, call: &CallView<'_>, open: &mut [usize]) {
        open.sort_by_key(|position| call.members[*position].priority);
    }
}

/// One after another.
#[derive(Default)]
pub struct RoundRobin(AtomicUsize);

impl Policy for RoundRobin {
    fn name(&self) -> &str {
        "round_robin"
    }

    fn order(&self, _: &CallView<'_>, open: &mut [usize]) {
        if !open.is_empty() {
            let turn = self.0.fetch_add(1, Ordering::Relaxed) % open.len();
            open.rotate_left(turn);
        }
    }
}

/// The names of all policies.
pub const POLICIES: &[&str] = &["latency", "cost", "priority", "weighted", "least_busy", "round_robin"];

/// The policy of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<Box<dyn Policy>> {
    Some(match name {
        "priority" => Box::new(Priority),
        "round_robin" => Box::new(RoundRobin::default()),
        "latency" => Box::new(Latency::default()),
        "cost" => Box::new(Cost),
        "weighted" => Box::new(Weighted::default()),
        "least_busy" => Box::new(LeastBusy::default()),
        _ => return None,
    })
}
