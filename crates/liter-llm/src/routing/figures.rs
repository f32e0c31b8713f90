//! What a router tells of itself: live statistics, and latency by deployment and time.

use std::time::Duration;

use serde::Serialize;

use super::custom::PolicyFailures;
use super::percentiles::pair;
use super::router::Router;
use super::stats::{COARSE, Figures, SLOT};
use crate::core::route::Circuit;

/// Live statistics of a router.
///
/// ```
/// use liter_llm::{ProviderConfig, ProviderRouter, RouterFigures};
///
/// let router = ProviderRouter::new([ProviderConfig::new("ollama").with_model("llama3")])?;
/// let RouterFigures { policy, deployments, .. } = router.figures();
/// assert_eq!((policy.as_str(), deployments.len()), ("priority", 1));
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouterFigures {
    /// The policy's name.
    pub policy: String,
    /// How often a policy of one's own was not heard.
    pub policy_failures: PolicyFailures,
    /// One entry for each deployment, in the order of the configuration.
    pub deployments: Vec<DeploymentFigures>,
}

/// Live statistics of a deployment.
///
/// ```
/// use liter_llm::{DeploymentFigures, ProviderConfig, ProviderRouter};
///
/// let router = ProviderRouter::new([ProviderConfig::new("ollama").with_model("llama3")])?;
/// let first: &DeploymentFigures = &router.figures().deployments[0];
/// assert_eq!((first.deployment.as_str(), first.share, first.figures.calls), ("ollama/llama3", 0.0, 0));
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeploymentFigures {
    /// Its name.
    pub deployment: String,
    /// The provider's name.
    pub provider: String,
    /// The model; empty where the provider chooses.
    pub model: String,
    /// The region.
    pub region: Option<String>,
    /// The state of its circuit.
    pub circuit: Circuit,
    /// For how many seconds it takes no call: an open circuit, or a cooldown after a `429`.
    pub closed_for: Option<f64>,
    /// Its share of all calls of the router so far, from 0 to 1.
    pub share: f64,
    /// Calls, failures and times.
    #[serde(flatten)]
    pub figures: Figures,
}

/// Latency by deployment and time.
///
/// ```
/// use std::time::Duration;
/// use liter_llm::{Heatmap, ProviderConfig, ProviderRouter};
///
/// let router = ProviderRouter::new([ProviderConfig::new("ollama").with_model("llama3")])?;
/// let Heatmap { bucket, began, rows } = router.heatmap(Duration::from_secs(30), 4);
/// assert_eq!((bucket, began.len(), rows[0].cells.len()), (30.0, 4, 4));
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Heatmap {
    /// The width of a bucket in seconds.
    pub bucket: f64,
    /// How many seconds ago each bucket began, oldest first; the last one is under way.
    pub began: Vec<f64>,
    /// One row for each deployment, in the order of the configuration.
    pub rows: Vec<HeatmapRow>,
}

/// One deployment's latency by time.
///
/// ```
/// use liter_llm::{HeatmapCell, HeatmapRow};
///
/// let worst = |row: &HeatmapRow| row.cells.iter().filter_map(|cell| cell.p95).fold(0.0, f64::max);
/// let cells = vec![HeatmapCell { p95: Some(1.5), ..HeatmapCell::default() }, HeatmapCell::default()];
/// assert_eq!(worst(&HeatmapRow { deployment: "a".to_owned(), cells }), 1.5);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeatmapRow {
    /// Its name.
    pub deployment: String,
    /// One cell for each bucket, oldest first.
    pub cells: Vec<HeatmapCell>,
}

/// One deployment's calls in one bucket.
///
/// ```
/// use liter_llm::HeatmapCell;
///
/// let cell = HeatmapCell { count: 10, failures: 1, p50: Some(0.4), p95: Some(1.1) };
/// assert!(cell.failures * 5 < cell.count);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct HeatmapCell {
    /// Calls that ended.
    pub count: u64,
    /// Of these, those that failed through the deployment's fault.
    pub failures: u64,
    /// The middle of the times in seconds: to the first chunk of streams, to the end of other answers; `None` without
    /// an answer.
    pub p50: Option<f64>,
    /// The time that 95 % stay under.
    pub p95: Option<f64>,
}

impl Router {
    /// Live statistics of each deployment.
    #[must_use]
    pub fn figures(&self) -> RouterFigures {
        let figures: Vec<_> = self.members.iter().map(|member| member.stats.figures()).collect();
        let total: u64 = figures.iter().map(|figures| figures.calls).sum();
        #[allow(clippy::cast_precision_loss, reason = "a share")]
        let share = |calls: u64| if total == 0 { 0.0 } else { calls as f64 / total as f64 };
        let deployments = self.members.iter().zip(figures).map(|(member, figures)| {
            let standing = member.stands.standing();
            DeploymentFigures {
                deployment: member.name.as_ref().to_owned(),
                provider: member.provider.clone(),
                model: member.model.clone(),
                region: member.region.clone(),
                circuit: standing.circuit,
                closed_for: standing.closed_for.map(|time| time.as_secs_f64()),
                share: share(figures.calls),
                figures,
            }
        });
        RouterFigures {
            policy: self.policy_name().to_owned(),
            policy_failures: self.own.as_ref().map(|own| own.failures()).unwrap_or_default(),
            deployments: deployments.collect(),
        }
    }

    /// Latency by deployment and time: the last `count` buckets of this width, rounded up to whole tens of seconds.
    /// Ten minutes with traffic are kept.
    #[must_use]
    pub fn heatmap(&self, bucket: Duration, count: usize) -> Heatmap {
        let slots = bucket.as_secs_f64().max(1.0) / SLOT as f64;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small positive number")]
        let slots = slots.ceil().min(60.0) as u64;
        let count = count.clamp(1, 60);
        let now = self.clock.now();
        let newest = now.as_secs() / SLOT / slots;
        let width = SLOT * slots;
        let began = (0..count as u64).rev().map(|age| {
            let behind = now.as_secs_f64() - (newest * width) as f64;
            behind + (age * width) as f64
        });
        let rows = self.members.iter().map(|member| {
            let mut cells = vec![(HeatmapCell::default(), [0_u32; COARSE]); count];
            member.stats.each_slot(|slot| {
                let age = usize::try_from(newest.saturating_sub(slot.number / slots)).unwrap_or(usize::MAX);
                if age < count {
                    let (cell, times) = &mut cells[count - 1 - age];
                    cell.count += u64::from(slot.calls);
                    cell.failures += u64::from(slot.failures);
                    times.iter_mut().zip(slot.times.iter()).for_each(|(sum, one)| *sum += u32::from(*one));
                }
            });
            let cells = cells.into_iter().map(|(mut cell, times)| {
                // A slot counts two neighbouring buckets as one.
                #[allow(clippy::cast_precision_loss, reason = "counts of ten minutes")]
                let fine = (0..COARSE * 2).map(|place| times[place / 2] as f32);
                let total = times.iter().map(|count| f64::from(*count) * 2.0).sum();
                if let Some(pair) = pair(fine, total) {
                    (cell.p50, cell.p95) = (Some(pair.p50), Some(pair.p95));
                }
                cell
            });
            HeatmapRow { deployment: member.name.as_ref().to_owned(), cells: cells.collect() }
        });
        Heatmap { bucket: width as f64, began: began.collect(), rows: rows.collect() }
    }
}
