//! How a client stands, as its metrics read it: deployments, budgets, canary, mirror.

use std::sync::{Arc, Weak};

use crate::deployment::Health;
use crate::routing::canary::CanaryState;
use crate::routing::router::Router;
use crate::telemetry::Telemetry;
use crate::telemetry::gauges::{
    BudgetGauges, DeploymentGauges, Gauges, MirrorCounts, Observed, circuit_number,
};

/// What of a client its telemetry looks at. It goes with the client.
pub(crate) struct Standings {
    health: Vec<Arc<Health>>,
    router: Arc<Router>,
}

impl Standings {
    /// Those of a client with this telemetry.
    pub fn of(health: &[Arc<Health>], router: &Arc<Router>, telemetry: &Telemetry) -> Arc<Self> {
        let standings = Arc::new(Self { health: health.to_vec(), router: Arc::clone(router) });
        let weak: Weak<Self> = Arc::downgrade(&standings);
        telemetry.belongs_to(weak);
        standings
    }

    fn deployments(&self) -> Vec<DeploymentGauges> {
        let one = |health: &Arc<Health>| {
            let mut all =
                DeploymentGauges { deployment: health.identity.name.clone(), ..DeploymentGauges::default() };
            for state in health.state() {
                if circuit_number(state.circuit) > circuit_number(all.circuit) {
                    all.circuit = state.circuit;
                }
                all.in_flight += state.in_flight;
                // The line is one for all keys.
                all.waiting = state.waiting;
            }
            all
        };
        self.health.iter().map(one).collect()
    }

    fn budgets(&self) -> Vec<BudgetGauges> {
        // A file that cannot be read refuses calls, which shows; here it is left out.
        let spend = self.router.spend().unwrap_or_default();
        let one = |budget: crate::routing::budget::BudgetSpend| BudgetGauges {
            budget: format!("{}/{}", budget.scope, budget.per.as_str()),
            spent: budget.spent.usd(),
            limit: budget.limit.usd(),
        };
        spend.budgets.into_iter().map(one).collect()
    }
}

impl Observed for Standings {
    fn gauges(&self) -> Gauges {
        Gauges {
            deployments: self.deployments(),
            budgets: if self.router.has_budgets() { self.budgets() } else { Vec::new() },
            canary: self
                .router
                .canary()
                .map(|canary| (canary.deployment, canary.state == CanaryState::RolledBack)),
            mirror: self.router.mirror().map(|mirror| MirrorCounts {
                deployment: mirror.to,
                answered: mirror.sent.saturating_sub(mirror.errors).saturating_sub(mirror.in_flight),
                failed: mirror.errors,
                dropped: mirror.dropped,
            }),
        }
    }
}
