//! The record of one call while it is being made.

use std::sync::Arc;

use super::describe::parameters;
use super::{Places, Telemetry};
use crate::core::chunk::LlmChunk;
use crate::core::error::{ErrorKind, LlmError};
use crate::core::notes::{Desk, Notes};
use crate::core::provider::Operation;
use crate::core::record::{CallRecord, RecordedAttempt, RecordedError, RecordedRoute};
use crate::core::request::LlmRequest;
use crate::core::response::{Adjustment, Attempt, LlmResponse, Timing};
use crate::core::route::Route;
use crate::core::shared_text::SharedText;

/// Completes the records of a client's calls, and hands them to whoever wants them.
pub(super) struct Clerk {
    pub telemetry: Arc<Telemetry>,
    pub places: Arc<Places>,
}

/// The record of a call under way: it is in the call's notes.
pub(super) struct Taking {
    notes: Arc<Notes>,
    clerk: Arc<Clerk>,
}

impl Taking {
    fn new(notes: Arc<Notes>, clerk: &Arc<Clerk>, describe: impl FnOnce(&mut CallRecord)) -> Self {
        notes.begin(Arc::clone(clerk) as Arc<dyn Desk>, describe);
        Self { notes, clerk: Arc::clone(clerk) }
    }

    pub(super) fn of_request(
        notes: Arc<Notes>,
        clerk: &Arc<Clerk>,
        (request, streamed): (&LlmRequest, bool),
        cache: bool,
    ) -> Self {
        Self::new(notes, clerk, |record| {
            record.operation = SharedText::fixed("chat");
            record.streamed = streamed;
            record.model =
                request.model.as_ref().map_or_else(SharedText::default, |model| clerk.places.model(model));
            record.parameters = parameters(request);
            record.cache_missed = cache;
            record.key = request.route.as_ref().and_then(|asked| asked.key.clone());
        })
    }

    pub(super) fn of_operation(notes: Arc<Notes>, clerk: &Arc<Clerk>, operation: &Operation) -> Self {
        Self::new(notes, clerk, |record| record.operation = operation.name.as_str().into())
    }

    /// The whole answer is there.
    pub(super) fn answered(&self, answer: &LlmResponse) {
        let Some(mut noted) = self.notes.open() else { return };
        let record = noted.record();
        self.clerk.answering(record, &answer.model);
        record.response_id = Some(answer.id.clone()).filter(|id| !id.is_empty());
        record.request_id.clone_from(&answer.request_id);
        record.provider = self.clerk.places.provider(&answer.provider);
        record.finish_reason = Some(answer.finish_reason);
        record.service_tier.clone_from(&answer.service_tier);
        record.usage.clone_from(&answer.usage);
        record.cost = answer.cost.as_ref().and_then(|cost| cost.dollars());
        record.cached = answer.cached;
        adjusted(record, &answer.adjustments);
        routed(record, answer.route.as_deref());
        timed(record, answer.timing);
        self.notes.finish(noted, &answer.attempts);
    }

    /// An operation was carried out, or a stream read to its end.
    pub(super) fn done(&self) {
        if let Some(noted) = self.notes.open() {
            self.notes.finish(noted, &[]);
        }
    }

    /// The call failed; a stream that broke as well.
    pub(super) fn failed(&self, error: &LlmError) {
        let Some(mut noted) = self.notes.open() else { return };
        let detail = error.detail();
        let (record, sent, _) = noted.parts();
        record.error = Some(RecordedError {
            kind: error.kind().as_str().to_owned(),
            status: detail.status_code,
            code: detail.code.clone(),
            before_send: detail.before_send,
        });
        if record.model.is_empty() {
            record.model = self.clerk.places.model(detail.model.as_deref().unwrap_or_default());
        }
        record.provider = self.clerk.places.provider(detail.provider.as_deref().unwrap_or_default());
        if detail.request_id.is_some() {
            record.request_id.clone_from(&detail.request_id);
        }
        routed(record, detail.route.as_deref());
        if let Some(last) = sent.last_mut() {
            // The stream's request was counted as answered when its first piece came.
            last.error.get_or_insert_with(|| error.kind().as_str().to_owned());
        }
        self.notes.finish(noted, &detail.attempts);
    }

    /// A piece of a stream came.
    pub(super) fn piece(&self, chunk: &LlmChunk) {
        let Some(mut noted) = self.notes.open() else { return };
        let (record, sent, newest) = noted.parts();
        if chunk.has_content() {
            let now = self.notes.elapsed();
            match newest.replace(now) {
                None => record.first_chunk = Some(now),
                #[allow(clippy::cast_possible_truncation, reason = "a gap needs no more than seven digits")]
                Some(before) => record.gap((now - before) as f32),
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
        keep(&mut record.request_id, &facts.request_id);
        keep(&mut record.service_tier, &facts.service_tier);
        if let Some(model) = &facts.model {
            self.clerk.answering(record, model);
        }
        if let Some(provider) = &facts.provider {
            record.provider = self.clerk.places.provider(provider);
        }
        if let Some(cost) = &facts.cost {
            record.cost = cost.dollars();
        }
        record.cached |= facts.cached;
        adjusted(record, &facts.adjustments);
        routed(record, facts.route.as_deref());
        timed(record, facts.timing);
        if !facts.attempts.is_empty() {
            sent.clone_from(&facts.attempts);
        }
    }

    /// Nobody waits for the call any more.
    pub(super) fn dropped(&self) {
        self.notes.dropped();
    }
}

impl Clerk {
    /// The model that answers, in the provider's words; nothing when it does not say.
    fn answering(&self, record: &mut CallRecord, model: &str) {
        if model.is_empty() || record.response_model.as_deref() == Some(model) {
            return;
        }
        let label = SharedText::from(self.telemetry.labels.answered(model));
        let same = label == *model;
        record.response_model = Some(if same { label.clone() } else { SharedText::from(model) });
        record.response_model_label = Some(label);
    }

    /// `reading`: whether it is the one that answered, which goes on until the answer ends. Only of a stream is that later
    /// than what is noted.
    fn placed(
        &self,
        record: &CallRecord,
        asked: &SharedText,
        attempt: &Attempt,
        reading: bool,
    ) -> RecordedAttempt {
        let over = (attempt.started + attempt.duration).min(record.duration);
        let place = self.places.get(&attempt.deployment).map(|known| &known.place);
        RecordedAttempt {
            attempt: attempt.clone(),
            ended: if reading && record.streamed { record.duration } else { over },
            provider: place.map_or(&record.provider, |place| &place.provider).clone(),
            model: place.map_or_else(|| record.model.clone(), |place| self.places.model_at(asked, place)),
            region: place.and_then(|place| place.region.clone()),
            server_address: place.and_then(|place| place.server_address.clone()),
            server_port: place.and_then(|place| place.server_port),
        }
    }
}

/// Kinds of errors of calls for which nothing was sent, or nobody knows what.
const NOTHING_SENT: [ErrorKind; 4] =
    [ErrorKind::CircuitOpen, ErrorKind::NoCandidate, ErrorKind::BudgetExceeded, ErrorKind::Cancelled];

impl Desk for Clerk {
    fn complete(&self, record: &mut CallRecord, sent: &[Attempt]) {
        record.cache_missed &= !record.cached;
        // Those of the call whose answer was kept are not this one's.
        let sent = if record.cached { &[] } else { sent };
        // An answer that was not the last request's is that of the one without an error.
        let answering = sent.iter().find(|attempt| attempt.error.is_none()).or_else(|| sent.last());
        let name = answering.map(|attempt| attempt.deployment.as_str());
        let known = match name {
            Some(name) => self.places.get(name),
            None => self.places.one(),
        };
        let asked = record.model.clone();
        match known {
            Some(known) => {
                let place = &known.place;
                record.deployment = place.deployment.clone();
                record.provider = place.provider.clone();
                record.region.clone_from(&place.region);
                record.server_address.clone_from(&place.server_address);
                record.server_port = place.server_port;
                record.model = self.places.model_at(&asked, place);
            }
            None => record.deployment = name.unwrap_or_default().into(),
        }
        let never_sent = record.error.as_ref().is_some_and(|error| {
            error.before_send || NOTHING_SENT.iter().any(|kind| kind.as_str() == error.kind)
        });
        record.attempts = if sent.is_empty() && !record.cached && !never_sent {
            // A provider of one's own keeps no record.
            let attempt = Attempt {
                deployment: record.deployment.to_string(),
                duration: record.duration,
                status: record.error.as_ref().and_then(|error| error.status),
                error: record.error.as_ref().map(|error| error.kind.clone()),
                ..Attempt::default()
            };
            let reading = record.error.is_none() || record.first_chunk.is_some();
            vec![self.placed(record, &asked, &attempt, reading)]
        } else {
            // A stream that broke inside is that of the last request that was not given up.
            let broken = sent.iter().rposition(|attempt| {
                record.first_chunk.is_some()
                    && attempt.status.is_none_or(|status| status < 300)
                    && attempt.error.as_deref() != Some(ErrorKind::Cancelled.as_str())
            });
            let reading = sent.iter().position(|attempt| attempt.error.is_none()).or(broken);
            let placed = sent.iter().enumerate();
            placed
                .map(|(position, attempt)| self.placed(record, &asked, attempt, reading == Some(position)))
                .collect()
        };
        let label = known.and_then(|known| known.label(&record.model));
        record.model_label = label.unwrap_or_else(|| self.telemetry.labels.asked(&record.model).into());
    }

    fn deliver(&self, record: &Arc<CallRecord>) {
        self.telemetry.deliver(record);
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
