//! Records as JSON: the same text as serde's, at a third of the price. Each call of a program that is watched pays it.

use serde::Serialize;

use super::record::{
    CallRecord, RecordedAttempt, RecordedError, RecordedGaps, RecordedParameters, RecordedRoute,
};
use super::response::{Attempt, Timing, Usage};

/// What most records fit into, in bytes.
const USUAL: usize = 1_536;

/// An object that is being written. Names come with their quotes, their colon, and a comma before all but the first.
struct Object<'a>(&'a mut Vec<u8>);

impl Object<'_> {
    fn raw(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    /// Anything. Text, numbers and lists of them cannot fail, and memory takes what is written.
    fn value(&mut self, value: &(impl Serialize + ?Sized)) -> &mut Self {
        let _ = serde_json::to_writer(&mut *self.0, value);
        self
    }

    fn text(&mut self, name: &str, text: &str) -> &mut Self {
        self.raw(name);
        // All bytes are looked at: that needs no branch for each.
        let escapes = |found: bool, byte: &u8| found | (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
        match text.as_bytes().iter().fold(false, escapes) {
            true => self.value(text),
            false => self.raw("\"").raw(text).raw("\""),
        }
    }

    fn number(&mut self, name: &str, value: f64) -> &mut Self {
        self.raw(name).value(&value)
    }

    fn count(&mut self, name: &str, value: u64) -> &mut Self {
        self.raw(name).value(&value)
    }

    fn flag(&mut self, name: &str, value: bool) -> &mut Self {
        self.raw(name).raw(if value { "true" } else { "false" })
    }

    /// Left out when it is false.
    fn flagged(&mut self, name: &str, value: bool) -> &mut Self {
        if value { self.flag(name, true) } else { self }
    }

    /// Left out when it is zero.
    fn counted(&mut self, name: &str, value: u64) -> &mut Self {
        if value == 0 { self } else { self.count(name, value) }
    }

    fn text_if(&mut self, name: &str, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.text(name, text),
            None => self,
        }
    }

    fn number_if(&mut self, name: &str, value: Option<f64>) -> &mut Self {
        match value {
            Some(value) => self.number(name, value),
            None => self,
        }
    }

    fn any_if(&mut self, name: &str, value: Option<&impl Serialize>) -> &mut Self {
        match value {
            Some(value) => self.raw(name).value(value),
            None => self,
        }
    }

    /// Left out when it is empty.
    fn list<T: Serialize>(&mut self, name: &str, values: &[T]) -> &mut Self {
        if values.is_empty() { self } else { self.raw(name).value(values) }
    }

    /// The parts are taken out of each struct by name: one that is added is not forgotten here.
    fn record(&mut self, record: &CallRecord) {
        let CallRecord {
            operation,
            streamed,
            started,
            duration,
            deployment,
            provider,
            model,
            model_label,
            region,
            server_address,
            server_port,
            parameters,
            key,
            response_model,
            response_model_label,
            response_id,
            request_id,
            finish_reason,
            service_tier,
            usage,
            cost,
            cached,
            cache_missed,
            adjusted,
            error,
            route,
            timing,
            first_chunk,
            chunks,
            chunk_seconds,
            chunk_rest,
            attempts,
        } = record;
        self.text("{\"operation\":", operation)
            .flag(",\"streamed\":", *streamed)
            .number(",\"started\":", *started)
            .number(",\"duration\":", *duration)
            .text(",\"deployment\":", deployment)
            .text(",\"provider\":", provider)
            .text(",\"model\":", model)
            .text(",\"model_label\":", model_label)
            .text_if(",\"region\":", region.as_deref())
            .text_if(",\"server_address\":", server_address.as_deref())
            .any_if(",\"server_port\":", server_port.as_ref());
        self.raw(",\"parameters\":").parameters(parameters);
        self.text_if(",\"key\":", key.as_deref())
            .text_if(",\"response_model\":", response_model.as_deref())
            .text_if(",\"response_model_label\":", response_model_label.as_deref())
            .text_if(",\"response_id\":", response_id.as_deref())
            .text_if(",\"request_id\":", request_id.as_deref())
            .any_if(",\"finish_reason\":", finish_reason.as_ref())
            .text_if(",\"service_tier\":", service_tier.as_deref());
        if let Some(usage) = usage {
            self.raw(",\"usage\":").usage(usage);
        }
        self.number_if(",\"cost\":", *cost)
            .flagged(",\"cached\":", *cached)
            .flagged(",\"cache_missed\":", *cache_missed)
            .list(",\"adjusted\":", adjusted);
        if let Some(error) = error {
            self.raw(",\"error\":").error(error);
        }
        if let Some(route) = route {
            self.raw(",\"route\":").route(route);
        }
        if let Some(timing) = timing {
            self.raw(",\"timing\":").timing(timing);
        }
        self.number_if(",\"first_chunk\":", *first_chunk)
            .counted(",\"chunks\":", *chunks)
            .list(",\"chunk_seconds\":", chunk_seconds);
        if let Some(rest) = chunk_rest {
            let RecordedGaps { buckets, seconds } = &**rest;
            self.raw(",\"chunk_rest\":{\"buckets\":")
                .value(buckets)
                .number(",\"seconds\":", *seconds)
                .raw("}");
        }
        self.raw(",\"attempts\":[");
        for (position, attempt) in attempts.iter().enumerate() {
            self.raw(if position == 0 { "" } else { "," }).attempt(attempt);
        }
        self.raw("]}");
    }

    fn parameters(&mut self, parameters: &RecordedParameters) {
        let RecordedParameters {
            max_tokens,
            temperature,
            top_p,
            top_k,
            stop,
            seed,
            frequency_penalty,
            presence_penalty,
            reasoning_effort,
            service_tier,
            previous_response_id,
            output_type,
            messages,
            tools,
            prompt_len,
        } = parameters;
        // The only one that is always there is first: the order of an object's fields says nothing.
        self.text("{\"output_type\":", output_type)
            .any_if(",\"max_tokens\":", max_tokens.as_ref())
            .number_if(",\"temperature\":", *temperature)
            .number_if(",\"top_p\":", *top_p)
            .any_if(",\"top_k\":", top_k.as_ref())
            .list(",\"stop\":", stop)
            .any_if(",\"seed\":", seed.as_ref())
            .number_if(",\"frequency_penalty\":", *frequency_penalty)
            .number_if(",\"presence_penalty\":", *presence_penalty)
            .text_if(",\"reasoning_effort\":", reasoning_effort.as_deref())
            .text_if(",\"service_tier\":", service_tier.as_deref())
            .text_if(",\"previous_response_id\":", previous_response_id.as_deref())
            .count(",\"messages\":", *messages as u64)
            .count(",\"tools\":", *tools as u64)
            .count(",\"prompt_len\":", *prompt_len as u64)
            .raw("}");
    }

    fn usage(&mut self, usage: &Usage) {
        let Usage {
            input_tokens,
            output_tokens,
            cache_read_input_tokens,
            cache_creation_input_tokens,
            cache_creation_1h_input_tokens,
            audio_input_tokens,
            audio_output_tokens,
            web_search_requests,
            reasoning_output_tokens,
            extra,
        } = usage;
        self.count("{\"input_tokens\":", *input_tokens)
            .count(",\"output_tokens\":", *output_tokens)
            .counted(",\"cache_read_input_tokens\":", *cache_read_input_tokens)
            .counted(",\"cache_creation_input_tokens\":", *cache_creation_input_tokens)
            .counted(",\"cache_creation_1h_input_tokens\":", *cache_creation_1h_input_tokens)
            .counted(",\"audio_input_tokens\":", *audio_input_tokens)
            .counted(",\"audio_output_tokens\":", *audio_output_tokens)
            .counted(",\"web_search_requests\":", *web_search_requests)
            .counted(",\"reasoning_output_tokens\":", *reasoning_output_tokens)
            .any_if(",\"extra\":", Some(extra).filter(|extra| !extra.is_empty()))
            .raw("}");
    }

    fn error(&mut self, error: &RecordedError) {
        let RecordedError { kind, status, code, before_send } = error;
        self.text("{\"kind\":", kind)
            .any_if(",\"status\":", status.as_ref())
            .text_if(",\"code\":", code.as_deref())
            .flagged(",\"before_send\":", *before_send)
            .raw("}");
    }

    fn route(&mut self, route: &RecordedRoute) {
        let RecordedRoute { policy, arm, notes } = route;
        self.text("{\"policy\":", policy)
            .any_if(",\"arm\":", arm.as_ref())
            .list(",\"notes\":", notes)
            .raw("}");
    }

    fn timing(&mut self, timing: &Timing) {
        let Timing { queued, connect, first_byte, first_chunk, total } = timing;
        self.number("{\"total\":", *total)
            .number_if(",\"queued\":", *queued)
            .number_if(",\"connect\":", *connect)
            .number_if(",\"first_byte\":", *first_byte)
            .number_if(",\"first_chunk\":", *first_chunk)
            .raw("}");
    }

    fn attempt(&mut self, recorded: &RecordedAttempt) {
        let RecordedAttempt { attempt, ended, provider, model, region, server_address, server_port } =
            recorded;
        let Attempt {
            deployment,
            status,
            started,
            duration,
            cause,
            queued,
            connect,
            first_byte,
            wait,
            error,
            reason,
        } = attempt;
        self.text("{\"deployment\":", deployment)
            .any_if(",\"status\":", status.as_ref())
            .number(",\"started\":", *started)
            .number(",\"duration\":", *duration)
            .any_if(",\"cause\":", cause.as_ref())
            .number_if(",\"queued\":", *queued)
            .number_if(",\"connect\":", *connect)
            .number_if(",\"first_byte\":", *first_byte)
            .number_if(",\"wait\":", *wait)
            .text_if(",\"error\":", error.as_deref())
            .text_if(",\"reason\":", reason.as_deref())
            .number(",\"ended\":", *ended)
            .text(",\"provider\":", provider)
            .text_if(",\"model\":", Some(&**model).filter(|model| !model.is_empty()))
            .text_if(",\"region\":", region.as_deref())
            .text_if(",\"server_address\":", server_address.as_deref())
            .any_if(",\"server_port\":", server_port.as_ref())
            .raw("}");
    }
}

impl CallRecord {
    /// The record as JSON: what serde makes of it, only cheaper.
    ///
    /// ```
    /// use liter_llm::CallRecord;
    ///
    /// let record = CallRecord { operation: "chat".into(), duration: 0.25, ..CallRecord::default() };
    /// let again: CallRecord = serde_json::from_slice(&record.to_json()).unwrap();
    /// assert_eq!(again, record);
    /// ```
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(USUAL);
        Object(&mut out).record(self);
        out
    }

    /// Records as a JSON array.
    ///
    /// ```
    /// use liter_llm::CallRecord;
    ///
    /// assert_eq!(CallRecord::list_to_json([]), b"[]");
    /// let records = [CallRecord::default(), CallRecord::default()];
    /// let again: Vec<CallRecord> = serde_json::from_slice(&CallRecord::list_to_json(&records)).unwrap();
    /// assert_eq!(again, records);
    /// ```
    pub fn list_to_json<'a>(records: impl IntoIterator<Item = &'a Self>) -> Vec<u8> {
        let records = records.into_iter();
        let mut out = Vec::with_capacity(USUAL * records.size_hint().0 + 2);
        out.push(b'[');
        for record in records {
            if out.len() > 1 {
                out.push(b',');
            }
            Object(&mut out).record(record);
        }
        out.push(b']');
        out
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::{Value, json};

    use super::*;

    /// A record with every field of every struct, and with text that needs care.
    fn full() -> Value {
        let text = "a \"b\"\\ \n\u{1} \u{e9}\u{1f600}";
        let place = json!({
            "provider": "p", "model": "m", "region": "eu", "server_address": text, "server_port": 443
        });
        let mut attempt = json!({
            "deployment": text, "status": 503, "started": 0.1, "duration": 1e-7, "cause": "retry", "queued": 0.5,
            "connect": 0.25, "first_byte": 1.5, "wait": 2.0, "error": "overloaded", "reason": text, "ended": 3.0
        });
        attempt.as_object_mut().unwrap().extend(place.as_object().unwrap().clone());
        let usage = json!({
            "input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 3, "cache_creation_input_tokens": 4,
            "cache_creation_1h_input_tokens": 5, "audio_input_tokens": 6, "audio_output_tokens": 7,
            "web_search_requests": 8, "reasoning_output_tokens": 9, "extra": {text: [1, {"b": null}]}
        });
        let mut record = json!({
            "operation": "chat", "streamed": true, "started": 1_763_936_887.123_456, "duration": 2.5,
            "deployment": text, "model_label": "other", "key": text, "response_model": text,
            "response_model_label": "l", "response_id": text, "request_id": text, "finish_reason": "tool_calls",
            "service_tier": text, "usage": usage, "cost": 1.25e-5, "cached": true, "cache_missed": true,
            "adjusted": [text, "seed"], "first_chunk": 0.75, "chunks": 3, "chunk_seconds": [0.5, 0.25]
        });
        let more = json!({
            "error": {"kind": "overloaded", "status": 503, "code": text, "before_send": true},
            "route": {"policy": text, "arm": "canary", "notes": [text]},
            "timing": {"queued": 0.1, "connect": 0.2, "first_byte": 0.3, "first_chunk": 0.4, "total": 0.5},
            "chunk_rest": {"buckets": [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2], "seconds": 200.0},
            "attempts": [attempt, attempt],
            "parameters": {
                "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "top_k": 7, "stop": [text], "seed": -1,
                "frequency_penalty": -0.5, "presence_penalty": 2.0, "reasoning_effort": text, "service_tier": text,
                "previous_response_id": text, "output_type": "json", "messages": 1, "tools": 2, "prompt_len": 3
            }
        });
        for part in [more, place] {
            record.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
        }
        record
    }

    #[test]
    fn it_says_what_serde_says() {
        let full = full();
        let record: CallRecord = serde_json::from_value(full.clone()).unwrap();
        let records = [record, CallRecord::default()];
        for record in &records {
            let written: Value = serde_json::from_slice(&record.to_json()).unwrap();
            assert_eq!(written, serde_json::to_value(record).unwrap());
            assert_eq!(serde_json::from_slice::<CallRecord>(&record.to_json()).unwrap(), *record);
        }
        let list: Value = serde_json::from_slice(&CallRecord::list_to_json(&records)).unwrap();
        assert_eq!(list[0], full, "no field was lost");
    }

    #[test]
    fn a_record_is_of_bounded_size() {
        let mut record = CallRecord::default();
        let gaps = 100_000;
        for gap in 0..gaps {
            record.gap(if gap % 2 == 0 { 0.012_345_678 } else { 0.5 });
        }
        let rest = record.chunk_rest.as_ref().unwrap();
        assert_eq!(record.chunk_seconds.len() as u64 + rest.count(), gaps);
        assert_eq!((rest.buckets[1], rest.buckets[6]), (49_488, 49_488));
        assert!((rest.seconds - 49_488.0 * 0.512_345_678).abs() < 0.01, "{}", rest.seconds);
        assert!(record.to_json().len() < 16 * 1024);
    }
}
