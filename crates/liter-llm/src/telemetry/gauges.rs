//! What is read of a client at the moment metrics are read: how its deployments stand, and its budgets.

use crate::core::route::Circuit;

/// Tells how a client stands. Clients are held weakly: one that is gone has no state.
pub(crate) trait Observed: Send + Sync {
    /// How it stands now. It may read a file of budgets, which takes some milliseconds.
    fn gauges(&self) -> Gauges;
}

/// How a client stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gauges {
    pub deployments: Vec<DeploymentGauges>,
    pub budgets: Vec<BudgetGauges>,
    /// The canary's deployment, and whether it was rolled back.
    pub canary: Option<(String, bool)>,
    pub mirror: Option<MirrorCounts>,
}

/// How a deployment stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeploymentGauges {
    pub deployment: String,
    /// The worst of its circuits: calls with another key or model have one of their own.
    pub circuit: Circuit,
    pub in_flight: u32,
    pub waiting: usize,
}

/// How a budget stands, in US dollars.
#[derive(Debug, Clone, Default)]
pub(crate) struct BudgetGauges {
    /// Its calls and its window: `router/day`.
    pub budget: String,
    pub spent: f64,
    pub limit: f64,
}

/// What came of the copies of calls.
#[derive(Debug, Clone, Default)]
pub(crate) struct MirrorCounts {
    pub deployment: String,
    pub answered: u64,
    pub failed: u64,
    pub dropped: u64,
}

/// A circuit as a number: the worse, the higher.
pub(crate) const fn circuit_number(circuit: Circuit) -> i64 {
    match circuit {
        Circuit::Closed => 0,
        Circuit::HalfOpen => 1,
        Circuit::Open => 2,
    }
}
