//! What of metrics is read when they are read: the clients they belong to, and how these stand.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Telemetry;
use super::gauges::{DeploymentGauges, Gauges, MirrorCounts, circuit_number};
use super::labels::Names;
use super::names::{label, metric};
use super::series::Set;

/// A client's telemetry, and how many of its records were dropped: a count that outlives the client.
struct Client {
    telemetry: Weak<Telemetry>,
    dropped: Arc<AtomicU64>,
}

/// The clients whose metrics these are.
#[derive(Default)]
pub(super) struct Attached {
    clients: Mutex<Vec<Client>>,
    /// Records dropped by clients that are gone.
    gone: AtomicU64,
}

impl Attached {
    fn clients(&self) -> MutexGuard<'_, Vec<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was not there yet.
    pub fn add(&self, telemetry: &Arc<Telemetry>) -> bool {
        let mut clients = self.clients();
        let known = clients.iter().any(|client| client.telemetry.as_ptr() == Arc::as_ptr(telemetry));
        if !known {
            let dropped = telemetry.drops();
            clients.push(Client { telemetry: Arc::downgrade(telemetry), dropped });
        }
        !known
    }

    /// Whether it was there.
    pub fn remove(&self, telemetry: &Arc<Telemetry>) -> bool {
        let mut clients = self.clients();
        let Some(at) = clients.iter().position(|client| client.telemetry.as_ptr() == Arc::as_ptr(telemetry))
        else {
            return false;
        };
        self.gone.fetch_add(clients.remove(at).dropped.load(Ordering::Relaxed), Ordering::Relaxed);
        true
    }

    /// Forgets all; gives those that are left.
    pub fn clear(&self) -> Vec<Arc<Telemetry>> {
        let clients: Vec<Client> = self.clients().drain(..).collect();
        for client in &clients {
            self.gone.fetch_add(client.dropped.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        clients.iter().filter_map(|client| client.telemetry.upgrade()).collect()
    }

    /// The clients that are there, and how many records were dropped. Those that are gone are forgotten.
    fn present(&self) -> (Vec<Arc<Telemetry>>, u64) {
        let mut clients = self.clients();
        let mut present = Vec::with_capacity(clients.len());
        let mut dropped = 0;
        clients.retain(|client| {
            let count = client.dropped.load(Ordering::Relaxed);
            match client.telemetry.upgrade() {
                Some(telemetry) => {
                    present.push(telemetry);
                    dropped += count;
                    true
                }
                None => {
                    self.gone.fetch_add(count, Ordering::Relaxed);
                    false
                }
            }
        });
        (present, dropped + self.gone.load(Ordering::Relaxed))
    }
}

/// The gauges of all clients together.
#[derive(Default)]
struct Together {
    deployments: BTreeMap<String, DeploymentGauges>,
    /// Spent and limit, by budget.
    budgets: BTreeMap<Arc<str>, (f64, f64)>,
    canaries: BTreeMap<String, bool>,
    mirrors: BTreeMap<String, MirrorCounts>,
}

impl Together {
    fn add(&mut self, gauges: Gauges, budgets: &Names) {
        for one in gauges.deployments {
            let all = self.deployments.entry(one.deployment.clone()).or_default();
            if circuit_number(one.circuit) > circuit_number(all.circuit) {
                all.circuit = one.circuit;
            }
            all.in_flight += one.in_flight;
            all.waiting += one.waiting;
        }
        for budget in gauges.budgets {
            // Of callers' budgets there may be any number; of those without a name of their own, and of the same
            // budget in several clients, the one that is used up furthest is shown.
            let (spent, limit) = self.budgets.entry(budgets.label(&budget.budget)).or_insert((0.0, 0.0));
            if *limit == 0.0 || budget.spent / budget.limit > *spent / *limit {
                (*spent, *limit) = (budget.spent, budget.limit);
            }
        }
        if let Some((deployment, rolled_back)) = gauges.canary {
            *self.canaries.entry(deployment).or_default() |= rolled_back;
        }
        if let Some(mirror) = gauges.mirror {
            let all = self.mirrors.entry(mirror.deployment.clone()).or_default();
            all.answered += mirror.answered;
            all.failed += mirror.failed;
            all.dropped += mirror.dropped;
        }
    }
}

/// Reads the clients when the metrics are read.
pub(super) struct AtScrape {
    attached: Arc<Attached>,
    budgets: Names,
}

impl AtScrape {
    pub fn new(attached: Arc<Attached>) -> Self {
        Self { attached, budgets: Names::default() }
    }
}

impl fmt::Debug for AtScrape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AtScrape").finish_non_exhaustive()
    }
}

/// Writes one family, unless it is empty.
fn write<M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    values: impl IntoIterator<Item = (Set, M)>,
) -> fmt::Result {
    let mut values = values.into_iter().peekable();
    let Some((_, first)) = values.peek() else { return Ok(()) };
    let mut family = encoder.encode_descriptor(name, help, None, first.metric_type())?;
    for (labels, value) in values {
        value.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

impl Collector for AtScrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (present, dropped) = self.attached.present();
        let mut all = Together::default();
        for gauges in present.iter().filter_map(|telemetry| telemetry.gauges()) {
            all.add(gauges, &self.budgets);
        }
        let of = |name: &str| Set::new(&[(label::DEPLOYMENT, name)]);
        let deployments = || all.deployments.iter();
        write(
            &mut encoder,
            (metric::CIRCUIT_STATE, "The circuit: 0 closed, 1 half open, 2 open."),
            deployments().map(|(name, one)| (of(name), ConstGauge::new(circuit_number(one.circuit)))),
        )?;
        write(
            &mut encoder,
            (metric::QUEUE_DEPTH, "Calls in line before a deployment's limits."),
            deployments().map(|(name, one)| (of(name), ConstGauge::new(one.waiting as u64))),
        )?;
        write(
            &mut encoder,
            (metric::IN_FLIGHT, "Calls that were sent and have not ended."),
            deployments().map(|(name, one)| (of(name), ConstGauge::new(u64::from(one.in_flight)))),
        )?;
        let budgets = |which: fn(&(f64, f64)) -> f64| {
            all.budgets
                .iter()
                .map(move |(name, both)| (Set::new(&[(label::BUDGET, name)]), ConstGauge::new(which(both))))
        };
        write(
            &mut encoder,
            (metric::BUDGET_SPENT, "What is spent of a budget, in US dollars."),
            budgets(|both| both.0),
        )?;
        write(
            &mut encoder,
            (metric::BUDGET_LIMIT, "A budget's limit, in US dollars."),
            budgets(|both| both.1),
        )?;
        write(
            &mut encoder,
            (metric::CANARY_ROLLED_BACK, "Whether a canary was rolled back: 0 or 1."),
            all.canaries.iter().map(|(name, back)| (of(name), ConstGauge::new(u64::from(*back)))),
        )?;
        let copies = all.mirrors.iter().flat_map(|(name, mirror)| {
            let counts =
                [("answered", mirror.answered), ("failed", mirror.failed), ("dropped", mirror.dropped)];
            counts.map(|(outcome, count)| (of(name).and(label::OUTCOME, outcome), ConstCounter::new(count)))
        });
        write(&mut encoder, (metric::MIRROR_CALLS, "Copies of calls, by what came of them."), copies)?;
        let dropped = ConstCounter::new(dropped);
        let about = "Records that found their queue full.";
        let kind = dropped.metric_type();
        dropped.encode(encoder.encode_descriptor(metric::RECORDS_DROPPED, about, None, kind)?)
    }
}
