//! What a simulator is told at its start: address, rules, keys, pace, limits; read from TOML or JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::rules::Rule;

/// Why a simulator could not be configured or started.
#[derive(Debug, thiserror::Error)]
pub enum SimError {
    /// The configuration or a rule has an unknown field, a wrong type or a value out of range.
    #[error("simulator configuration: {0}")]
    Config(String),
    /// The address could not be bound or a server thread could not be started.
    #[error("simulator could not start on {address}: {source}")]
    Start {
        /// The `host:port` asked for.
        address: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
}

/// Settings of one simulator. Every field has a default; unknown fields are refused.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimConfig {
    /// Address to listen on. Default `127.0.0.1`.
    pub host: String,
    /// Port; 0 (the default) takes a free one.
    pub port: u16,
    /// Fault rules, first match wins. Default: none.
    pub rules: Vec<Rule>,
    /// Which keys pass.
    pub keys: KeyPolicy,
    /// Pause before each streamed token, in milliseconds (`token_interval_ms`). Default 0: the whole
    /// stream goes out in one write.
    #[serde(rename = "token_interval_ms", with = "millis")]
    pub token_interval: Duration,
    /// Pause before every answer, in milliseconds (`response_delay_ms`). Default 0.
    #[serde(rename = "response_delay_ms", with = "millis")]
    pub response_delay: Duration,
    /// Whether requests are kept for assertions. Default true.
    pub log_requests: bool,
    /// How many requests are kept; the oldest goes first. Default 10,000.
    pub log_capacity: usize,
    /// Largest request body accepted, in bytes. Default 64 MiB; more is answered 413.
    pub max_body_bytes: usize,
    /// Lifetime of issued Microsoft tokens in seconds (fractions allowed). Default 3599.
    pub token_lifetime_seconds: f64,
    /// Smallest prompt, in tokens, that OpenAI-style automatic prompt caching covers. Default 1024.
    pub openai_cache_min_tokens: u64,
    /// Smallest prefix, in tokens, that an Anthropic `cache_control` marker caches. Default 1.
    pub anthropic_cache_min_tokens: u64,
    /// Server threads, each with its own event loop. Default 1.
    pub threads: usize,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 0,
            rules: Vec::new(),
            keys: KeyPolicy::default(),
            token_interval: Duration::ZERO,
            response_delay: Duration::ZERO,
            log_requests: true,
            log_capacity: 10_000,
            max_body_bytes: 64 << 20,
            token_lifetime_seconds: 3599.0,
            openai_cache_min_tokens: 1024,
            anthropic_cache_min_tokens: 1,
            threads: 1,
        }
    }
}

impl SimConfig {
    /// Reads a configuration from TOML text.
    ///
    /// # Errors
    /// [`SimError::Config`] naming the field that is unknown (with the nearest known name) or wrong.
    pub fn from_toml(text: &str) -> Result<Self, SimError> {
        let config: Self = toml::from_str(text).map_err(|e| explain(e.message()))?;
        config.check()?;
        Ok(config)
    }

    /// Reads a configuration from JSON text.
    ///
    /// # Errors
    /// As [`SimConfig::from_toml`].
    pub fn from_json(text: &str) -> Result<Self, SimError> {
        let config: Self = serde_json::from_str(text).map_err(|e| explain(&e.to_string()))?;
        config.check()?;
        Ok(config)
    }

    pub(crate) fn check(&self) -> Result<(), SimError> {
        if !self.token_lifetime_seconds.is_finite() || self.token_lifetime_seconds < 0.0 {
            return Err(SimError::Config("token_lifetime_seconds must be zero or more".to_owned()));
        }
        if self.threads == 0 || self.threads > 64 {
            return Err(SimError::Config("threads must be between 1 and 64".to_owned()));
        }
        self.rules.iter().try_for_each(Rule::check)
    }
}

/// Which API keys the simulator accepts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyPolicy {
    /// Exact keys per provider name. A provider listed here accepts only these. Default: none listed.
    pub exact: BTreeMap<String, Vec<String>>,
    /// Where no exact keys are listed, a key containing one of these words is refused with 401.
    /// Default: `wrong`, `invalid`.
    pub reject_containing: Vec<String>,
    /// Providers that need no key. Default: the usual local servers.
    pub keyless: Vec<String>,
}

impl Default for KeyPolicy {
    fn default() -> Self {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        Self {
            exact: BTreeMap::new(),
            reject_containing: list(&["wrong", "invalid"]),
            keyless: list(&[
                "ollama",
                "vllm",
                "lmstudio",
                "lm_studio",
                "llamacpp",
                "llama_cpp",
                "llama.cpp",
                "local",
            ]),
        }
    }
}

impl KeyPolicy {
    pub(crate) fn accepts(&self, provider: &str, key: &str) -> bool {
        match self.exact.get(provider) {
            Some(keys) => keys.iter().any(|k| k == key),
            None => !self.reject_containing.iter().any(|word| key.contains(word.as_str())),
        }
    }

    pub(crate) fn keyless(&self, provider: &str) -> bool {
        self.keyless.iter().any(|name| name == provider)
    }
}

/// Durations as a number of milliseconds.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_f64(value.as_secs_f64() * 1000.0)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
        let ms = f64::deserialize(input)?;
        Duration::try_from_secs_f64(ms / 1000.0)
            .map_err(|_| D::Error::custom(format!("{ms} is not a number of milliseconds from 0 up")))
    }
}

/// Turns serde's "unknown field" sentence into one that proposes the nearest known name.
pub(crate) fn explain(message: &str) -> SimError {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.contains("unknown field") {
        let given = quoted.next().unwrap_or_default();
        let nearest = quoted.min_by_key(|name| distance(given, name)).unwrap_or_default();
        return SimError::Config(format!("unknown field `{given}`; did you mean `{nearest}`?"));
    }
    SimError::Config(message.to_owned())
}

/// Edit distance of two short names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
        for (j, cb) in b.iter().enumerate() {
            let change = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied().unwrap_or(0)
}
