//! The name of a call in the response cache: a digest of everything that can change its answer.

use std::io;

use aws_lc_rs::digest::{Context, SHA256};
use serde::Serialize;

use crate::core::json::RawJson;
use crate::core::request::{LlmRequest, RequestBody};

/// The name of a call: two calls share answers only when all 256 bits are the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey([u8; 32]);

/// A digest (SHA-256) over named values.
///
/// Name and value cannot run into each other or into their neighbours: names go in with their length, bytes too, and
/// JSON, which is UTF-8, ends with the byte `0xff`, which UTF-8 never holds.
pub struct Digest {
    context: Context,
    pending: Vec<u8>,
    broken: bool,
}

/// How much is collected before it is hashed: the JSON writer hands over a few bytes at a time.
const PORTION: usize = 4096;

impl io::Write for Digest {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pending.len() + bytes.len() > PORTION {
            self.context.update(&self.pending);
            self.pending.clear();
        }
        if bytes.len() > PORTION {
            self.context.update(bytes);
        } else {
            self.pending.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Digest {
    /// A digest for one purpose; digests for different purposes are never equal.
    #[must_use]
    pub fn new(purpose: &str) -> Self {
        let mut digest =
            Self { context: Context::new(&SHA256), pending: Vec::with_capacity(PORTION), broken: false };
        digest.text(purpose.as_bytes());
        digest
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.broken |= io::Write::write_all(self, bytes).is_err();
    }

    fn text(&mut self, bytes: &[u8]) {
        self.raw(&(bytes.len() as u64).to_be_bytes());
        self.raw(bytes);
    }

    /// Adds bytes under a name.
    pub fn bytes(&mut self, name: &str, value: &[u8]) {
        self.text(name.as_bytes());
        self.text(value);
    }

    /// Adds a value under a name, as JSON.
    pub fn json(&mut self, name: &str, value: &(impl Serialize + ?Sized)) {
        self.text(name.as_bytes());
        self.broken |= serde_json::to_writer(&mut *self, value).is_err();
        self.raw(&[0xff]);
    }

    /// The digest; `None` when a value had no JSON form.
    #[must_use]
    pub fn finish(mut self) -> Option<[u8; 32]> {
        self.context.update(&self.pending);
        let digest = self.context.finish();
        (!self.broken).then(|| <[u8; 32]>::try_from(digest.as_ref()).ok()).flatten()
    }
}

impl CacheKey {
    /// The key of a request to the deployment with this fingerprint.
    ///
    /// Three fields stay out: `timeout` and `max_retries` say how long and how often to try, `cache` whether to look
    /// here at all; none of them reaches the provider. `None` when the request has no JSON form; it is not kept then.
    #[must_use]
    pub fn new(deployment: &[u8; 32], request: &LlmRequest) -> Option<Self> {
        // All fields by name: a new one does not compile until it is decided here whether it changes an answer.
        let RequestBody {
            model,
            system,
            messages,
            max_tokens,
            temperature,
            top_p,
            top_k,
            stop,
            seed,
            frequency_penalty,
            presence_penalty,
            tools,
            tool_choice,
            parallel_tool_calls,
            response_format,
            reasoning_effort,
            reasoning_budget,
            reasoning_summary,
            logprobs,
            top_logprobs,
            user,
            metadata,
            service_tier,
            previous_response_id,
            on_unsupported,
            timeout: _,
            max_retries: _,
            tenant,
            cache: _,
            route,
            headers,
            extra,
        } = &**request;
        let mut digest = Digest::new("liter-llm response cache 1");
        digest.bytes("deployment", deployment);
        digest.json("tenant", tenant);
        digest.json("messages", messages);
        // What came in a vendor's form goes back to that vendor as it was written, not as it was understood.
        digest.json("messages as written", &Written(messages.iter().map(|message| message.as_written())));
        digest.json("tools", tools);
        digest.json("tools as written", &Written(tools.iter().map(|tool| tool.as_written())));
        macro_rules! add {
            ($($field:ident),* $(,)?) => { $( digest.json(stringify!($field), $field); )* };
        }
        add!(
            model,
            system,
            max_tokens,
            temperature,
            top_p,
            top_k,
            stop,
            seed,
            frequency_penalty,
            presence_penalty,
            tool_choice,
            parallel_tool_calls,
            response_format,
            reasoning_effort,
            reasoning_budget,
            reasoning_summary,
            logprobs,
            top_logprobs,
            user,
            metadata,
            service_tier,
            previous_response_id,
            on_unsupported,
            route,
            extra,
        );
        // Which trace a call belongs to changes no answer.
        let own: Vec<_> = headers.iter().filter(|(name, _)| !is_of_trace(name)).collect();
        digest.json("headers", &own);
        digest.finish().map(Self)
    }
}

/// Whether a header tells of a trace.
fn is_of_trace(header: &str) -> bool {
    ["traceparent", "tracestate", "baggage"].iter().any(|name| name.eq_ignore_ascii_case(header))
}

/// A list of what was written, in order, `null` for what was not.
struct Written<I>(I);

impl<'a, I> Serialize for Written<I>
where
    I: Iterator<Item = Option<(&'static str, &'a RawJson)>> + Clone,
{
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.clone())
    }
}
