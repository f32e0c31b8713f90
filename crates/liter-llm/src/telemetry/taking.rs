//! The record of one call while it is being made.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::describe::parameters;
use super::{Places, Telemetry};
use crate::core::chunk::LlmChunk;
use crate::core::error::{ErrorKind, LlmError};
use crate::core::notes::{Notes, Unfinished};
use crate::core::provider::Operation;
use crate::core::record::{CallRecord, Place, RecordedAttempt, RecordedError, RecordedRoute};
use crate::core::request::LlmRequest;
use crate::core::response::{Adjustment, Attempt, LlmResponse, Timing};
use crate::core::route::Route;

struct State {
    record: CallRecord,
    /// What is known to have been sent.
    attempts: Vec<Attempt>,
    /// When the newest piece of a stream came, in seconds since the call began.
    newest: Option<f64>,
    finished: bool,
}

/// The record of a call under way.
pub(crate) struct Taking {
    notes: Arc<Notes>,
    telemetry: Arc<Telemetry>,
    places: Arc<Places>,
    state: Mutex<State>,
}

fn error_of(kind: ErrorKind) -> RecordedError {
    RecordedError { kind: kind.as_str().to_owned(), ..RecordedError::default() }
}

impl Taking {
    fn new(
        notes: Arc<Notes>,
        telemetry: Arc<Telemetry>,
        places: Arc<Places>,
        record: CallRecord,
    ) -> Arc<Self> {
        let record = CallRecord { started: notes.started(), ..record };
        let state = State { record, attempts: Vec::new(), newest: None, finished: false };
        let taking = Arc::new(Self { notes, telemetry, places, state: Mutex::new(state) });
        let weak: Weak<Self> = Arc::downgrade(&taking);
        taking.notes.begin(weak);
        taking
    }

    pub(super) fn of_request(
        notes: Arc<Notes>,
        telemetry: Arc<Telemetry>,
        places: Arc<Places>,
        (request, streamed): (&LlmRequest, bool),
        cache: bool,
    ) -> Arc<Self> {
        let record = CallRecord {
            operation: "chat".to_owned(),
            streamed,
            model: request.model.clone().unwrap_or_default(),
            parameters: parameters(request),
            cache_missed: cache,
            key: request.route.as_ref().and_then(|asked| asked.key.clone()),
            ..CallRecord::default()
        };
        Self::new(notes, telemetry, places, record)
    }

    pub(super) fn of_operation(
        notes: Arc<Notes>,
        telemetry: Arc<Telemetry>,
        places: Arc<Places>,
        operation: &Operation,
    ) -> Arc<Self> {
        let record = CallRecord { operation: operation.name.clone(), ..CallRecord::default() };
        Self::new(notes, telemetry, places, record)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn given_up(&self, state: &State) -> CallRecord {
        let mut record = state.record.clone();
        record.error = Some(error_of(ErrorKind::Cancelled));
        let attempts = match state.attempts.is_empty() {
            true => self.notes.given_up(),
            false => state.attempts.clone(),
        };
        self.complete(&mut record, attempts);
        if let Some(last) = record.attempts.last_mut() {
            last.attempt.error.get_or_insert_with(|| ErrorKind::Cancelled.as_str().to_owned());
        }
        record
    }

    /// The whole answer is there.
    pub(super) fn answered(&self, answer: &LlmResponse) {
        let mut state = self.state();
        let State { record, attempts, .. } = &mut *state;
        record.response_model = Some(answer.model.clone()).filter(|model| !model.is_empty());
        record.response_id = Some(answer.id.clone()).filter(|id| !id.is_empty());
        record.request_id.clone_from(&answer.request_id);
        record.provider.clone_from(&answer.provider);
        record.finish_reason = Some(answer.finish_reason);
        record.service_tier.clone_from(&answer.service_tier);
        record.usage.clone_from(&answer.usage);
        record.cost = answer.cost.as_ref().and_then(|cost| cost.dollars());
        record.cached = answer.cached;
        adjusted(record, &answer.adjustments);
        routed(record, answer.route.as_deref());
        timed(record, answer.timing);
        attempts.clone_from(&answer.attempts);
        self.end(state);
    }

    /// An operation was carried out.
    pub(super) fn done(&self) {
        self.end(self.state());
    }

    /// The call failed; a stream that broke as well.
    pub(super) fn failed(&self, error: &LlmError) {
        let mut state = self.state();
        let detail = error.detail();
        let State { record, attempts, .. } = &mut *state;
        record.error = Some(RecordedError {
            kind: error.kind().as_str().to_owned(),
            status: detail.status_code,
            code: detail.code.clone(),
            before_send: detail.before_send,
        });
        if record.model.is_empty() {
            record.model.clone_from(detail.model.as_ref().unwrap_or(&String::new()));
        }
        record.provider.clone_from(detail.provider.as_ref().unwrap_or(&String::new()));
        if detail.request_id.is_some() {
            record.request_id.clone_from(&detail.request_id);
        }
        routed(record, detail.route.as_deref());
        if attempts.is_empty() {
            attempts.clone_from(&detail.attempts);
        } else if let Some(last) = attempts.last_mut() {
            // The stream's request was counted as answered when its first piece came.
            last.error.get_or_insert_with(|| error.kind().as_str().to_owned());
        }
        self.end(state);
    }

    /// A piece of a stream came.
    pub(super) fn piece(&self, chunk: &LlmChunk) {
        let mut state = self.state();
        let State { record, attempts, newest, .. } = &mut *state;
        if chunk.has_content() {
            let now = self.notes.elapsed();
            match newest.replace(now) {
                None => record.first_chunk = Some(now),
                #[allow(clippy::cast_possible_truncation, reason = "a gap needs no more than seven digits")]
                Some(before) => record.chunk_seconds.push((now - before) as f32),
            }
            record.chunks += 1;
        }
        if chunk.finish_reason.is_some() {
            record.finish_reason = chunk.finish_reason;
        }
        if let Some(usage) = &chunk.usage {
            record.usage = Some((**usage).clone());
        }
        let Some(facts) = &chunk.facts else { return };
        let keep = |known: &mut Option<String>, fact: &Option<String>| {
            if fact.is_some() {
                known.clone_from(fact);
            }
        };
        keep(&mut record.response_id, &facts.id);
        keep(&mut record.response_model, &facts.model);
        keep(&mut record.request_id, &facts.request_id);
        keep(&mut record.service_tier, &facts.service_tier);
        if let Some(provider) = &facts.provider {
            record.provider.clone_from(provider);
        }
        if let Some(cost) = &facts.cost {
            record.cost = cost.dollars();
        }
        record.cached |= facts.cached;
        adjusted(record, &facts.adjustments);
        routed(record, facts.route.as_deref());
        timed(record, facts.timing);
        if !facts.attempts.is_empty() {
            attempts.clone_from(&facts.attempts);
        }
    }

    fn end(&self, mut state: MutexGuard<'_, State>) {
        if state.finished {
            return;
        }
        let mut record = std::mem::take(&mut state.record);
        let attempts = std::mem::take(&mut state.attempts);
        self.complete(&mut record, attempts);
        self.finish(state, record);
    }

    fn finish(&self, mut state: MutexGuard<'_, State>, record: CallRecord) {
        state.finished = true;
        let record = Arc::new(record);
        self.notes.finish(&record);
        // Who listens may ask for anything: not under the lock.
        drop(state);
        self.telemetry.deliver(&record);
    }

    /// Nobody waits for the call any more.
    pub(super) fn dropped(&self) {
        let state = self.state();
        if !state.finished {
            let record = self.given_up(&state);
            self.finish(state, record);
        }
    }

    /// What is known at the end, whatever came of it.
    fn complete(&self, record: &mut CallRecord, attempts: Vec<Attempt>) {
        record.duration = self.notes.elapsed();
        record.cache_missed &= !record.cached;
        let attempts = match record.cached {
            // Those of the call whose answer was kept are not this one's.
            true => Vec::new(),
            false => attempts,
        };
        let last = attempts.last().map(|attempt| attempt.deployment.clone());
        // An answer that was not the last request's is that of the one without an error.
        let answering = attempts.iter().find(|attempt| attempt.error.is_none());
        let name = answering.map(|attempt| attempt.deployment.clone()).or(last);
        let name = name.or_else(|| match self.places.len() {
            1 => self.places.keys().next().cloned(),
            _ => None,
        });
        let asked = record.model.clone();
        if let Some(place) = name.as_ref().and_then(|name| self.places.get(name)) {
            record.provider.clone_from(&place.provider);
            record.region.clone_from(&place.region);
            record.server_address.clone_from(&place.server_address);
            record.server_port = place.server_port;
            self.model_at(&asked, place).clone_into(&mut record.model);
        }
        record.deployment = name.unwrap_or_default();
        record.attempts = attempts.into_iter().map(|attempt| self.placed(record, &asked, attempt)).collect();
        let never_sent = record.error.as_ref().is_some_and(|error| {
            error.before_send
                || [
                    ErrorKind::CircuitOpen,
                    ErrorKind::NoCandidate,
                    ErrorKind::BudgetExceeded,
                    ErrorKind::Cancelled,
                ]
                .iter()
                .any(|kind| kind.as_str() == error.kind)
        });
        if record.attempts.is_empty() && !record.cached && !never_sent {
            // A provider of one's own keeps no record.
            let attempt = Attempt {
                deployment: record.deployment.clone(),
                duration: record.duration,
                status: record.error.as_ref().and_then(|error| error.status),
                error: record.error.as_ref().map(|error| error.kind.clone()),
                ..Attempt::default()
            };
            let attempt = self.placed(record, &asked, attempt);
            record.attempts.push(attempt);
        }
        record.model_label = self.telemetry.labels.asked(&record.model).as_ref().to_owned();
        let labels = &self.telemetry.labels;
        record.response_model_label =
            record.response_model.as_ref().map(|model| labels.answered(model).as_ref().to_owned());
    }

    /// The model that a deployment is asked for: among several, a call may name one by its deployment's name or as
    /// `provider/model`.
    fn model_at<'a>(&self, asked: &'a str, place: &'a Place) -> &'a str {
        let means = || {
            let after = asked.split_once('/').map(|(_, model)| model);
            self.places.len() > 1 && (asked == place.deployment || after == Some(&place.model))
        };
        if !place.model.is_empty() && (asked.is_empty() || means()) { &place.model } else { asked }
    }

    fn placed(&self, record: &CallRecord, asked: &str, attempt: Attempt) -> RecordedAttempt {
        let over = (attempt.started + attempt.duration).min(record.duration);
        // What answered goes on until the answer ends; only of a stream that is later than what is noted.
        let answering = attempt.error.is_none()
            || (record.first_chunk.is_some() && attempt.status.is_none_or(|status| status < 300));
        let place = self.places.get(&attempt.deployment);
        let mut recorded = RecordedAttempt {
            ended: if answering && record.streamed { record.duration } else { over },
            provider: place.map_or(&record.provider, |place| &place.provider).clone(),
            model: record.model.clone(),
            attempt,
            ..RecordedAttempt::default()
        };
        if let Some(place) = place {
            self.model_at(asked, place).clone_into(&mut recorded.model);
            recorded.region.clone_from(&place.region);
            recorded.server_address.clone_from(&place.server_address);
            recorded.server_port = place.server_port;
        }
        recorded
    }
}

impl Unfinished for Taking {
    fn record(&self) -> Arc<CallRecord> {
        Arc::new(self.given_up(&self.state()))
    }
}

fn adjusted(record: &mut CallRecord, adjustments: &[Adjustment]) {
    record.adjusted.extend(adjustments.iter().map(|adjustment| adjustment.param.clone()));
}

fn routed(record: &mut CallRecord, route: Option<&Route>) {
    if let Some(route) = route {
        record.route =
            Some(RecordedRoute { policy: route.policy.clone(), arm: route.arm, notes: route.notes.clone() });
    }
}

fn timed(record: &mut CallRecord, timing: Option<Timing>) {
    if timing.is_some() {
        record.timing = timing;
    }
}
