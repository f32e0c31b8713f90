//! Deployments for the tests of policies: they stand well and are never called.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::member::Member;
use super::policy::{CallView, Policy};
use super::router::member;
use crate::core::error::LlmError;
use crate::core::provider::LlmProvider;
use crate::core::request::LlmRequest;
use crate::core::response::LlmResponse;
use crate::core::route::{RouteOptions, Standing, Stands};

struct Idle;

impl Stands for Idle {
    fn standing(&self) -> Standing {
        Standing::default()
    }
}

#[async_trait]
impl LlmProvider for Idle {
    fn name(&self) -> &str {
        "idle"
    }

    async fn generate(&self, _: LlmRequest) -> Result<LlmResponse, LlmError> {
        Ok(LlmResponse::default())
    }
}

/// So many, named `d0`, `d1` and so on.
pub(super) fn members(count: usize) -> Vec<Member> {
    (0..count).map(|number| member(&format!("d{number}"), Arc::new(Idle), Arc::new(Idle))).collect()
}

fn ordered(policy: &dyn Policy, view: &CallView<'_>) -> Vec<usize> {
    let mut open: Vec<_> = (0..view.members.len()).collect();
    policy.order(view, &mut open);
    open
}

/// Whom a policy puts first.
pub(super) fn first(policy: &dyn Policy, members: &[Member], now: Duration, sticky: Option<&str>) -> usize {
    let asked = RouteOptions { sticky: sticky.map(str::to_owned), ..RouteOptions::default() };
    let request = LlmRequest::new().with(|body| body.route = Some(Box::new(asked)));
    let view =
        CallView { request: &request, streamed: false, members, now, input_tokens: 10, output_tokens: 10 };
    ordered(policy, &view)[0]
}

/// The whole order for a call of so many tokens in and out.
pub(super) fn order(policy: &dyn Policy, members: &[Member], tokens: (u64, u64)) -> Vec<usize> {
    let request = LlmRequest::new();
    let view = CallView {
        request: &request,
        streamed: false,
        members,
        now: Duration::ZERO,
        input_tokens: tokens.0,
        output_tokens: tokens.1,
    };
    ordered(policy, &view)
}
