//! Why deployments were ruled out, in words.

use super::budget::Budgets;
use super::needs;
use super::router::{Router, Why};
use crate::core::error::{ErrorKind, LlmError};
use crate::core::request::LlmRequest;

impl Router {
    /// The error for a call that nobody can take.
    pub(super) fn nobody(&self, request: &LlmRequest, out: &[(usize, Why)]) -> LlmError {
        let named = request.model.as_deref().unwrap_or_default();
        let reasons: Vec<_> =
            out.iter().map(|(position, why)| self.reason(*position, *why, request, named)).collect();
        let budget = out.iter().find_map(|(_, why)| match why {
            Why::Budget(budget) => Some(*budget),
            _ => None,
        });
        if let Some(budget) = budget {
            return self.budgets.used_up_error(budget, Budgets::key(request)).with(|detail| {
                detail.provider = Some(self.name.clone());
                if out.iter().any(|(_, why)| !matches!(why, Why::Budget(_))) {
                    detail.message = format!("{} ({})", detail.message, reasons.join("; "));
                }
            });
        }
        let message = format!("no deployment can take this call: {}", reasons.join("; "));
        LlmError::new(ErrorKind::NoCandidate, message).with(|detail| {
            detail.before_send = true;
            detail.provider = Some(self.name.clone());
        })
    }

    /// Why a member is ruled out, as a sentence with its name. `named`: the model that the call named.
    pub(super) fn reason(&self, position: usize, why: Why, request: &LlmRequest, named: &str) -> String {
        let member = &self.members[position];
        let name = &member.name;
        match why {
            Why::Region => match &member.region {
                Some(region) => format!("`{name}` is in region `{region}`"),
                None => format!("`{name}` has no region"),
            },
            Why::Tags => format!("the tags of `{name}` do not fit"),
            Why::Model => {
                format!("`{name}` is not `{named}`")
            }
            Why::Lacks(needs) => {
                format!("`{name}` has no {}", needs::names(needs).collect::<Vec<_>>().join(", "))
            }
            Why::Context(context) => format!("the prompt is longer than the {context} tokens of `{name}`"),
            Why::RolledBack => match &self.experiments.canary {
                Some(canary) => format!("`{name}` is a canary that was rolled back: {}", canary.reason()),
                None => format!("`{name}` was rolled back"),
            },
            Why::Budget(budget) => {
                format!("`{name}`: {} is used up", self.budgets.title(budget, Budgets::key(request)))
            }
        }
    }
}
