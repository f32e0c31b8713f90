//! Which breaker a call belongs to: one for each deployment, key and region, in a registry a client owns.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;

use super::breaker::{Breaker, Circuit, Snapshot, Watch};
use super::options::CircuitOptions;
use super::sync::{Mutex, lock};
use crate::core::clock::{Clock, MonotonicClock};
use crate::core::notices::{NoticeKind, Notices};

/// Above this many, breakers with nothing to remember are forgotten.
const MOST: usize = 1024;

/// A key's mark: tells keys apart and cannot be turned back into one. It is drawn with a secret of this registry, so it
/// means nothing outside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyMark(u64);

/// What shares a breaker. What one key, model or region suffers is no other's business.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The deployment's name.
    pub deployment: String,
    /// The model, when a call names another than the deployment's.
    pub model: Option<String>,
    /// The key.
    pub key: KeyMark,
    /// The region.
    pub region: Option<String>,
}

/// How a deployment is doing, as one key and region see it. Times in seconds.
///
/// ```
/// use liter_llm::{Circuit, DeploymentState, ProviderConfig, ProviderRouter};
///
/// let router = ProviderRouter::new([ProviderConfig::new("ollama").with_model("llama3")])?;
/// let rests = |state: &DeploymentState| state.circuit != Circuit::Closed || state.cooling_for.is_some();
/// assert!(!router.state().iter().any(rests));
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeploymentState {
    /// The deployment's name.
    pub deployment: String,
    /// The model, when calls named another than the deployment's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// A mark of the key, for telling keys apart; other in each client.
    pub key: String,
    /// The region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Closed, open or half-open.
    pub circuit: Circuit,
    /// Failures since the last success.
    pub failures_in_row: u32,
    /// `429`s since the last success.
    pub limited_in_row: u32,
    /// Seconds until a probe may pass, when open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_for: Option<f64>,
    /// Seconds until the cooldown ends, when cooling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooling_for: Option<f64>,
    /// Calls sent that have not ended.
    pub in_flight: u32,
    /// Calls in line before the deployment, whatever their key.
    pub waiting: usize,
}

impl DeploymentState {
    fn new(scope: &Scope, snapshot: Snapshot) -> Self {
        let seconds = |time: Duration| time.as_secs_f64();
        Self {
            deployment: scope.deployment.clone(),
            model: scope.model.clone(),
            key: format!("{:016x}", scope.key.0),
            region: scope.region.clone(),
            circuit: snapshot.circuit,
            failures_in_row: snapshot.failures_in_row,
            limited_in_row: snapshot.limited_in_row,
            open_for: snapshot.open_for.map(seconds),
            cooling_for: snapshot.cooling_for.map(seconds),
            in_flight: snapshot.in_flight,
            waiting: 0,
        }
    }
}

/// The breakers of a client.
pub struct Breakers {
    options: Option<CircuitOptions>,
    clock: Arc<dyn Clock>,
    secret: RandomState,
    known: Mutex<HashMap<Scope, Arc<Breaker>>>,
    /// Where it is told that a circuit opened or closed, once there is such a place.
    notices: Arc<OnceLock<Arc<Notices>>>,
}

impl Breakers {
    /// No breakers yet; each made is closed. `None`: they never refuse a call.
    #[must_use]
    pub fn new(options: Option<CircuitOptions>) -> Self {
        Self::with_clock(options, Arc::new(MonotonicClock::default()))
    }

    /// As [`new`](Self::new), by another clock.
    #[must_use]
    pub fn with_clock(options: Option<CircuitOptions>, clock: Arc<dyn Clock>) -> Self {
        Self {
            options,
            clock,
            secret: RandomState::new(),
            known: Mutex::new(HashMap::new()),
            notices: Arc::default(),
        }
    }

    /// From now on notices go here; the first word holds.
    pub(crate) fn notify(&self, notices: &Arc<Notices>) {
        let _ = self.notices.set(Arc::clone(notices));
    }

    fn watch(&self, scope: &Scope) -> Watch {
        let (notices, scope) = (Arc::clone(&self.notices), scope.clone());
        Box::new(move |circuit| {
            let Some(notices) = notices.get() else { return };
            let kind = match circuit {
                Circuit::Closed => NoticeKind::CircuitClosed,
                _ => NoticeKind::CircuitOpened,
            };
            notices.add(kind, &scope.deployment, &scope.deployment, || {
                let region = scope.region.as_ref().map(|region| format!("in {region}"));
                region.unwrap_or_default()
            });
        })
    }

    /// These breakers under other options, with what they know; not those of the key `retired`.
    #[must_use]
    pub fn renewed(&self, options: Option<CircuitOptions>, retired: Option<KeyMark>) -> Self {
        let known = lock(&self.known)
            .iter()
            .filter(|(scope, _)| Some(scope.key) != retired)
            .map(|(scope, breaker)| (scope.clone(), breaker.under(options)))
            .collect();
        Self {
            options,
            clock: Arc::clone(&self.clock),
            secret: self.secret.clone(),
            known: Mutex::new(known),
            notices: Arc::clone(&self.notices),
        }
    }

    /// The clock the breakers go by.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// The mark of a key, given as the values of the headers it stands in.
    pub fn mark<'a>(&self, values: impl IntoIterator<Item = &'a [u8]>) -> KeyMark {
        let mut hasher = self.secret.build_hasher();
        for value in values {
            hasher.write_usize(value.len());
            hasher.write(value);
        }
        KeyMark(hasher.finish())
    }

    /// The breaker of a scope; always the same one while it has anything to remember.
    #[must_use]
    pub fn of(&self, scope: &Scope) -> Arc<Breaker> {
        let mut known = lock(&self.known);
        if let Some(breaker) = known.get(scope) {
            return Arc::clone(breaker);
        }
        if known.len() >= MOST {
            let now = self.clock.now();
            known.retain(|_, breaker| {
                let state = breaker.snapshot(now);
                let busy = state.in_flight > 0 || state.failures_in_row > 0 || state.limited_in_row > 0;
                // Held elsewhere: a layer's own, or one a call is about to ask.
                busy || state.circuit != Circuit::Closed
                    || state.cooling_for.is_some()
                    || Arc::strong_count(breaker) > 1
            });
        }
        let new = || Arc::new(Breaker::new(self.options).watched(self.watch(scope)));
        Arc::clone(known.entry(scope.clone()).or_insert_with(new))
    }

    /// How all scopes are doing, in the order of their names.
    #[must_use]
    pub fn state(&self) -> Vec<DeploymentState> {
        let now = self.clock.now();
        let known = lock(&self.known);
        let mut states: Vec<_> =
            known.iter().map(|(scope, breaker)| DeploymentState::new(scope, breaker.snapshot(now))).collect();
        drop(known);
        states.sort_by(|a, b| {
            (&a.deployment, &a.model, &a.region, &a.key).cmp(&(&b.deployment, &b.model, &b.region, &b.key))
        });
        states
    }
}
