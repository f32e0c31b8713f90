//! What hosts make spans and metrics of: a call's record with the attributes' names on it, as short as it can be, so that
//! no host has to know what a record holds.
//!
//! Lists by position, because they are read fastest. What is the same for many calls (`who`, `where`) stands in a list of
//! its own: hosts keep what they have made of one under its text.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, SerializeTuple, Serializer};
#[cfg(feature = "tracing")]
use serde_json::{Map, Value};

use super::names::attribute as names;
use crate::core::record::{CallRecord, RecordedAttempt};
use crate::core::response::{Attempt as Request, AttemptCause};

/// Room for what a call without anything special has to tell.
const USUAL: usize = 1_024;
const OPENAI: &str = "openai";
/// The method of a request over HTTP.
pub(super) const POST: &str = "POST";
const JSON: &str = "json";

/// A record as JSON:
/// `[who, began, ended, seconds, attributes, attempts, usage, cost, cache, first_chunk, chunk_seconds, compared]`.
///
/// `who` is `[operation, provider, model, model_label, response_model, response_model_label, deployment, region,
/// server_address, server_port, error]`; times are nanoseconds since 1970, `seconds` the duration; `attributes` is what a
/// call's span says beyond `who`; `usage` is input, output, cache read, cache creation and reasoning; `cache` is 1 for a
/// hit and 2 for a miss; `compared` is `[arm, seconds]` where a canary is compared; what is nothing at the end is left out.
/// An attempt is `[where, began, ended, seconds, cause, attributes]`, and its `where`
/// `[deployment, provider, model, region, server_address, server_port, error]`.
///
/// # Errors
/// None that is known: a record has no maps with other keys than texts.
#[doc(hidden)]
pub fn told(record: &CallRecord) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = Vec::with_capacity(USUAL);
    serde_json::to_writer(&mut text, &Told(record))?;
    Ok(text)
}

struct Told<'a>(&'a CallRecord);
struct Who<'a>(&'a CallRecord);
struct Attributes<'a>(&'a CallRecord);
struct Attempts<'a>(&'a CallRecord);
struct Attempt<'a>(&'a CallRecord, usize, &'a RecordedAttempt);
struct Where<'a>(&'a RecordedAttempt);
struct Sent<'a>(&'a CallRecord, usize, &'a RecordedAttempt);

/// Nanoseconds since 1970 at so many seconds into a call.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times after 1970 and before 2500"
)]
fn nanoseconds(record: &CallRecord, offset: f64) -> u64 {
    (record.started.max(0.0) * 1e9).round() as u64 + (offset.max(0.0) * 1e9).round() as u64
}

impl Serialize for Told<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.0;
        let usage = record.usage.as_ref().map(|usage| {
            [
                usage.input_tokens,
                usage.output_tokens,
                usage.cache_read_input_tokens,
                usage.cache_creation_input_tokens,
                usage.reasoning_output_tokens,
            ]
        });
        let cache = u8::from(record.cached) + 2 * u8::from(record.cache_missed && !record.cached);
        let mut list = serializer.serialize_seq(None)?;
        list.serialize_element(&Who(record))?;
        list.serialize_element(&nanoseconds(record, 0.0))?;
        list.serialize_element(&nanoseconds(record, record.duration))?;
        list.serialize_element(&record.duration)?;
        list.serialize_element(&Attributes(record))?;
        list.serialize_element(&Attempts(record))?;
        list.serialize_element(&usage)?;
        list.serialize_element(&record.cost)?;
        list.serialize_element(&cache)?;
        let arm = record.route.as_ref().and_then(|route| route.arm);
        let compared = arm.zip(record.attempts.first()).map(|(arm, first)| (arm, first.attempt.duration));
        if record.first_chunk.is_some() || compared.is_some() {
            list.serialize_element(&record.first_chunk)?;
            list.serialize_element(&record.chunk_seconds)?;
        }
        if compared.is_some() {
            list.serialize_element(&compared)?;
        }
        list.end()
    }
}

impl Serialize for Who<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.0;
        let mut list = serializer.serialize_tuple(11)?;
        list.serialize_element(&record.operation)?;
        list.serialize_element(&record.provider)?;
        list.serialize_element(&record.model)?;
        list.serialize_element(&record.model_label)?;
        list.serialize_element(&record.response_model)?;
        list.serialize_element(&record.response_model_label)?;
        list.serialize_element(&record.deployment)?;
        list.serialize_element(&record.region)?;
        list.serialize_element(&record.server_address)?;
        list.serialize_element(&record.server_port)?;
        list.serialize_element(&record.error.as_ref().map(|error| &error.kind))?;
        list.end()
    }
}

/// Writes an attribute where there is something to say.
fn put<M: SerializeMap>(map: &mut M, name: &str, value: Option<impl Serialize>) -> Result<(), M::Error> {
    value.map_or(Ok(()), |value| map.serialize_entry(name, &value))
}

fn put_count<M: SerializeMap>(map: &mut M, name: &str, count: u64) -> Result<(), M::Error> {
    put(map, name, Some(count).filter(|count| *count > 0))
}

fn put_list<M: SerializeMap, T: Serialize>(map: &mut M, name: &str, list: &[T]) -> Result<(), M::Error> {
    put(map, name, Some(list).filter(|list| !list.is_empty()))
}

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.0;
        let mut map = serializer.serialize_map(None)?;
        asked(&mut map, record)?;
        put(&mut map, names::RESPONSE_ID, record.response_id.as_ref())?;
        put(&mut map, names::REQUEST_ID, record.request_id.as_ref())?;
        put(&mut map, names::FINISH_REASONS, record.finish_reason.map(|reason| [reason]))?;
        let tier = match record.provider == OPENAI {
            true => names::OPENAI_RESPONSE_SERVICE_TIER,
            false => names::RESPONSE_SERVICE_TIER,
        };
        put(&mut map, tier, record.service_tier.as_ref())?;
        if let Some(usage) = &record.usage {
            map.serialize_entry(names::INPUT_TOKENS, &usage.input_tokens)?;
            map.serialize_entry(names::OUTPUT_TOKENS, &usage.output_tokens)?;
            put_count(&mut map, names::CACHE_READ, usage.cache_read_input_tokens)?;
            put_count(&mut map, names::CACHE_CREATION, usage.cache_creation_input_tokens)?;
            put_count(&mut map, names::REASONING, usage.reasoning_output_tokens)?;
        }
        put(&mut map, names::COST, record.cost)?;
        put(&mut map, names::FIRST_CHUNK, record.first_chunk)?;
        if record.streamed {
            map.serialize_entry(names::CHUNKS, &record.chunks)?;
        }
        put(&mut map, names::CACHED, Some(true).filter(|_| record.cached))?;
        put_list(&mut map, names::ADJUSTED, &record.adjusted)?;
        if let Some(route) = &record.route {
            map.serialize_entry(names::POLICY, &route.policy)?;
            put_list(&mut map, names::NOTES, &route.notes)?;
        }
        if !record.attempts.is_empty() {
            let again = |cause: &[AttemptCause]| -> Vec<&str> {
                let pairs = record.attempts.iter().zip(record.attempts.iter().skip(1));
                let after =
                    pairs.filter(|(_, next)| next.attempt.cause.is_some_and(|why| cause.contains(&why)));
                after.map(|(before, _)| before.attempt.error.as_deref().unwrap_or_default()).collect()
            };
            let retries = again(&[AttemptCause::Retry, AttemptCause::Resend]);
            let fallbacks = again(&[AttemptCause::Fallback]);
            map.serialize_entry(names::RETRIES, &retries.len())?;
            map.serialize_entry(names::FALLBACKS, &fallbacks.len())?;
            put_list(&mut map, names::RETRY_REASONS, &retries)?;
            put_list(&mut map, names::FALLBACK_REASONS, &fallbacks)?;
        }
        map.end()
    }
}

/// What the call asked for.
fn asked<M: SerializeMap>(map: &mut M, record: &CallRecord) -> Result<(), M::Error> {
    let parameters = &record.parameters;
    put(map, names::MAX_TOKENS, parameters.max_tokens)?;
    put(map, names::TEMPERATURE, parameters.temperature)?;
    put(map, names::TOP_P, parameters.top_p)?;
    // The conventions have a `double` for it, though providers take whole numbers only.
    #[allow(clippy::cast_precision_loss, reason = "nobody samples from 2^53 tokens")]
    put(map, names::TOP_K, parameters.top_k.map(|count| count as f64))?;
    put(map, names::SEED, parameters.seed)?;
    put(map, names::FREQUENCY_PENALTY, parameters.frequency_penalty)?;
    put(map, names::PRESENCE_PENALTY, parameters.presence_penalty)?;
    put(map, names::REASONING_EFFORT, parameters.reasoning_effort.as_ref())?;
    put_list(map, names::STOP_SEQUENCES, &parameters.stop)?;
    let tier = match record.provider == OPENAI {
        true => names::OPENAI_REQUEST_SERVICE_TIER,
        false => names::REQUEST_SERVICE_TIER,
    };
    put(map, tier, parameters.service_tier.as_ref())?;
    put(map, names::OUTPUT_TYPE, Some(JSON).filter(|kind| *kind == parameters.output_type))?;
    map.serialize_entry(names::MESSAGES, &parameters.messages)?;
    map.serialize_entry(names::PROMPT_BYTES, &parameters.prompt_len)?;
    put(map, names::TOOLS, Some(parameters.tools).filter(|tools| *tools > 0))
}

impl Serialize for Attempts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let sent = self.0.attempts.iter().enumerate();
        serializer.collect_seq(sent.map(|(number, attempt)| Attempt(self.0, number, attempt)))
    }
}

impl Serialize for Attempt<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(record, number, recorded) = self;
        let began = nanoseconds(record, recorded.attempt.started);
        let mut list = serializer.serialize_tuple(6)?;
        list.serialize_element(&Where(recorded))?;
        list.serialize_element(&began)?;
        list.serialize_element(&nanoseconds(record, recorded.ended).max(began))?;
        list.serialize_element(&(recorded.ended - recorded.attempt.started).max(0.0))?;
        list.serialize_element(&recorded.attempt.cause)?;
        list.serialize_element(&Sent(record, *number, recorded))?;
        list.end()
    }
}

impl Serialize for Where<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let recorded = self.0;
        let mut list = serializer.serialize_tuple(7)?;
        list.serialize_element(&recorded.attempt.deployment)?;
        list.serialize_element(&recorded.provider)?;
        list.serialize_element(&recorded.model)?;
        list.serialize_element(&recorded.region)?;
        list.serialize_element(&recorded.server_address)?;
        list.serialize_element(&recorded.server_port)?;
        list.serialize_element(&recorded.attempt.error)?;
        list.end()
    }
}

impl Serialize for Sent<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(record, number, recorded) = self;
        let attempt = &recorded.attempt;
        let mut map = serializer.serialize_map(None)?;
        if recorded.server_address.is_some() {
            map.serialize_entry(names::METHOD, POST)?;
            let before = record.attempts.iter().take(*number);
            let resent = before.filter(|one| one.attempt.deployment == attempt.deployment).count();
            put(&mut map, names::RESEND_COUNT, Some(resent).filter(|resent| *resent > 0))?;
        }
        came(&mut map, attempt)?;
        map.end()
    }
}

/// What came of a request.
fn came<M: SerializeMap>(map: &mut M, attempt: &Request) -> Result<(), M::Error> {
    put(map, names::STATUS, attempt.status)?;
    put(map, names::CAUSE, attempt.cause)?;
    put(map, names::REASON, attempt.reason.as_ref())?;
    put(map, names::WAIT, attempt.wait)?;
    put(map, names::QUEUED, attempt.queued)?;
    put(map, names::CONNECT, attempt.connect)?;
    put(map, names::FIRST_BYTE, attempt.first_byte)
}

/// What a call's span says in this process, the error apart: the same as in every language.
#[cfg(feature = "tracing")]
pub(super) fn of_call(record: &CallRecord) -> Map<String, Value> {
    struct Named<'a>(&'a CallRecord);

    impl Serialize for Named<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let record = self.0;
            let mut map = serializer.serialize_map(None)?;
            map.serialize_entry(names::OPERATION, &record.operation)?;
            put(&mut map, names::PROVIDER_NAME, Some(&record.provider).filter(|name| !name.is_empty()))?;
            put(&mut map, names::REQUEST_MODEL, Some(&record.model).filter(|name| !name.is_empty()))?;
            put(&mut map, names::RESPONSE_MODEL, record.response_model.as_ref())?;
            put(&mut map, names::DEPLOYMENT, Some(&record.deployment).filter(|name| !name.is_empty()))?;
            put(&mut map, names::REGION, record.region.as_ref())?;
            put(&mut map, names::SERVER_ADDRESS, record.server_address.as_ref())?;
            put(&mut map, names::SERVER_PORT, record.server_port)?;
            map.end()
        }
    }

    let mut said = read(&Named(record));
    said.extend(read(&Attributes(record)));
    said
}

/// What a request's span says when it is over, the error apart.
#[cfg(feature = "tracing")]
pub(super) fn of_attempt(attempt: &Request) -> Map<String, Value> {
    struct Came<'a>(&'a Request);

    impl Serialize for Came<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(None)?;
            came(&mut map, self.0)?;
            map.end()
        }
    }

    read(&Came(attempt))
}

/// Attributes one by one; what is written here is always an object.
#[cfg(feature = "tracing")]
fn read(attributes: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(attributes) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::{Value, json};

    use super::*;
    use crate::core::record::{RecordedError, RecordedParameters, RecordedRoute};
    use crate::core::response::{Attempt as Request, FinishReason, Usage};

    fn value(record: &CallRecord) -> Value {
        serde_json::from_slice(&told(record).unwrap()).unwrap()
    }

    fn sent(deployment: &str, cause: Option<AttemptCause>, error: Option<&str>) -> RecordedAttempt {
        let attempt = Request {
            deployment: deployment.to_owned(),
            started: 0.25,
            cause,
            error: error.map(str::to_owned),
            ..Request::default()
        };
        let (provider, server) = ("openai".into(), Some("host".into()));
        RecordedAttempt {
            attempt,
            ended: 0.5,
            provider,
            server_address: server,
            ..RecordedAttempt::default()
        }
    }

    #[test]
    fn a_call_that_went_well() {
        let record = CallRecord {
            operation: "chat".into(),
            streamed: true,
            started: 1_000.5,
            duration: 2.0,
            deployment: "eu".into(),
            provider: OPENAI.into(),
            model: "m".into(),
            model_label: "other".into(),
            server_address: Some("host".into()),
            server_port: Some(443),
            parameters: RecordedParameters {
                max_tokens: Some(9),
                output_type: "json".into(),
                messages: 1,
                prompt_len: 5,
                ..RecordedParameters::default()
            },
            response_model: Some("m-1".into()),
            response_model_label: Some("m-1".into()),
            finish_reason: Some(FinishReason::Stop),
            service_tier: Some("flex".to_owned()),
            usage: Some(Usage {
                input_tokens: 3,
                output_tokens: 4,
                reasoning_output_tokens: 2,
                ..Usage::default()
            }),
            cost: Some(0.5),
            cache_missed: true,
            first_chunk: Some(0.25),
            chunks: 2,
            chunk_seconds: vec![0.5],
            attempts: vec![sent("eu", None, None)],
            ..CallRecord::default()
        };
        let attributes = json!({
            "gen_ai.request.max_tokens": 9,
            "gen_ai.output.type": "json",
            "liter_llm.request.messages": 1,
            "liter_llm.request.prompt_bytes": 5,
            "gen_ai.response.finish_reasons": ["stop"],
            "openai.response.service_tier": "flex",
            "gen_ai.usage.input_tokens": 3,
            "gen_ai.usage.output_tokens": 4,
            "gen_ai.usage.reasoning.output_tokens": 2,
            "liter_llm.cost.usd": 0.5,
            "gen_ai.response.time_to_first_chunk": 0.25,
            "liter_llm.chunks": 2,
            "liter_llm.retries": 0,
            "liter_llm.fallbacks": 0,
        });
        let attempt = json!([
            ["eu", "openai", "", null, "host", null, null],
            1_000_750_000_000_u64,
            1_001_000_000_000_u64,
            0.25,
            null,
            {"http.request.method": "POST"},
        ]);
        assert_eq!(
            value(&record),
            json!([
                ["chat", "openai", "m", "other", "m-1", "m-1", "eu", null, "host", 443, null],
                1_000_500_000_000_u64,
                1_002_500_000_000_u64,
                2.0,
                attributes,
                [attempt],
                [3, 4, 0, 0, 2],
                0.5,
                2,
                0.25,
                [0.5],
            ])
        );
    }

    #[test]
    fn a_call_that_was_sent_again_and_elsewhere() {
        let overloaded = Some("overloaded");
        let record = CallRecord {
            provider: "anthropic".into(),
            service_tier: Some("batch".to_owned()),
            error: Some(RecordedError { kind: "timeout".to_owned(), ..RecordedError::default() }),
            cached: true,
            cache_missed: true,
            adjusted: vec!["seed".to_owned()],
            route: Some(RecordedRoute { policy: "cost".to_owned(), ..RecordedRoute::default() }),
            attempts: vec![
                sent("a", None, overloaded),
                sent("a", Some(AttemptCause::Retry), Some("timeout")),
                sent("b", Some(AttemptCause::Fallback), None),
            ],
            ..CallRecord::default()
        };
        let told = value(&record);
        assert_eq!(told.as_array().unwrap().len(), 9, "nothing of a stream");
        assert_eq!((&told[0][10], &told[6], &told[8]), (&json!("timeout"), &Value::Null, &json!(1)));
        let attributes = &told[4];
        for (name, expected) in [
            ("liter_llm.retries", json!(1)),
            ("liter_llm.retry.reasons", json!(["overloaded"])),
            ("liter_llm.fallbacks", json!(1)),
            ("liter_llm.fallback.reasons", json!(["timeout"])),
            ("liter_llm.response.service_tier", json!("batch")),
            ("liter_llm.cached", json!(true)),
            ("liter_llm.adjusted", json!(["seed"])),
            ("liter_llm.policy", json!("cost")),
        ] {
            assert_eq!(attributes[name], expected, "{name}");
        }
        assert!(attributes.get("openai.response.service_tier").is_none());
        let resent: Vec<_> =
            (0..3).map(|number| told[5][number][5].get("http.request.resend_count")).collect();
        assert_eq!(resent, [None, Some(&json!(1)), None]);
        assert_eq!(told[5][2][4], "fallback");
    }

    #[test]
    fn what_never_began_has_times_that_a_clock_can_show() {
        let told = value(&CallRecord { started: -1.0, ..CallRecord::default() });
        assert_eq!((&told[1], &told[2]), (&json!(0), &json!(0)));
        let attributes = json!({"liter_llm.request.messages": 0, "liter_llm.request.prompt_bytes": 0});
        assert_eq!(told[4], attributes);
    }
}
