//! The table of providers: wire format, address, key and quirks of each host, as data.

use std::sync::LazyLock;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::adapters::Quirks;
use crate::core::error::LlmError;
use crate::core::request::unknown_name;

/// How a host wants the key.
///
/// ```
/// use liter_llm::Auth;
///
/// assert!(Auth::Header("api-key".to_owned()).needs_key() && !Auth::Optional.needs_key());
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Auth {
    /// `Authorization: Bearer <key>`.
    #[default]
    Bearer,
    /// The bare key in this header.
    Header(String),
    /// No key is ever sent.
    None,
    /// As `Bearer` when there is a key; a call without one is made without.
    Optional,
}

impl Auth {
    /// Whether a call without a key cannot succeed.
    #[must_use]
    pub const fn needs_key(&self) -> bool {
        matches!(self, Self::Bearer | Self::Header(_))
    }
}

/// How the host's URLs are made.
///
/// ```
/// use liter_llm::{Paths, ProviderRow};
///
/// assert_eq!(ProviderRow::default().paths, Paths::Plain);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Paths {
    /// The API's path below the base URL.
    #[default]
    Plain,
    /// Azure's: deployments, API versions, the `v1` and the `/models` paths below the resource's root.
    Azure,
}

/// One provider. A user's own row in a configuration file has the same form; only `adapter` is required.
///
/// ```
/// use liter_llm::{Auth, Client, Config, ProviderConfig, ProviderRow};
///
/// let row = ProviderRow {
///     adapter: "openai_chat".to_owned(),
///     base_url: Some("http://127.0.0.1:9000/v1".to_owned()),
///     auth: Auth::None,
///     ..ProviderRow::default()
/// };
/// assert_eq!(row.wire(None)?, "openai_chat");
/// let mut config = Config { deployment: Some(ProviderConfig::new("mine").with_model("m")), ..Config::default() };
/// config.providers.insert("mine".to_owned(), row);
/// assert!(Client::from_config(config).is_ok());
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProviderRow {
    /// The wire format of the default API, see [`wire`](crate::core::content::wire).
    pub adapter: String,
    /// Further APIs of the host by their name in `ProviderConfig.api`, with their wire formats.
    pub apis: IndexMap<String, String>,
    /// Where requests go, up to the path of the API; `None` when it differs from customer to customer.
    pub base_url: Option<String>,
    /// Environment variables that name another base URL; the first one set counts.
    pub base_url_env: Vec<String>,
    /// Environment variables that hold the key; the first one set counts.
    pub api_key_env: Vec<String>,
    /// How the key is sent.
    pub auth: Auth,
    /// Whether the host takes Microsoft Entra tokens too.
    pub entra: bool,
    /// How the host's URLs are made.
    pub paths: Paths,
    /// More headers for every request to the host; never versions of a wire format, which are the adapter's.
    pub headers: IndexMap<String, String>,
    /// `gen_ai.provider.name` of the OpenTelemetry conventions; empty means the provider's own name.
    pub telemetry_name: String,
    /// How the host departs from its wire format.
    pub quirks: Quirks,
    /// The page that documents the API.
    pub docs: String,
    /// The provider's name for people.
    pub description: String,
}

impl ProviderRow {
    /// The wire format of an API: `None` is the default one.
    ///
    /// # Errors
    /// `config` when the host does not have the API.
    pub fn wire(&self, api: Option<&str>) -> Result<&str, LlmError> {
        let chat = ["chat", "chat_completions"];
        match api {
            None => Ok(&self.adapter),
            Some(api) => match self.apis.get(api) {
                Some(wire) => Ok(wire),
                None if chat.contains(&api) && self.adapter == crate::core::content::wire::OPENAI_CHAT => {
                    Ok(&self.adapter)
                }
                None => {
                    let known: Vec<&str> = self.apis.keys().map(String::as_str).collect();
                    let hint = if known.is_empty() {
                        "this provider has only its default API".to_owned()
                    } else {
                        format!("this provider has: {}", known.join(", "))
                    };
                    Err(LlmError::config(
                        "api",
                        format!("`api`: `{api}` {}", unknown_name(api, &known, &hint)),
                    ))
                }
            },
        }
    }
}

/// Reads a table of rows, for instance the `providers` of a user's own file.
///
/// # Errors
/// `config` naming what is wrong; a row without an adapter is refused.
pub fn parse(text: &str) -> Result<IndexMap<String, ProviderRow>, LlmError> {
    let rows: IndexMap<String, ProviderRow> = toml::from_str(text)
        .map_err(|error| LlmError::config("providers", format!("`providers`: {}", error.message())))?;
    match rows.iter().find(|(_, row)| row.adapter.is_empty()) {
        None => Ok(rows),
        Some((name, _)) => {
            let message = format!("`providers.{name}.adapter` is missing: name the wire format");
            Err(LlmError::config(format!("providers.{name}.adapter"), message))
        }
    }
}

/// The rows of `data/providers.toml`, in its order.
///
/// # Errors
/// None in a build that passed its tests; see [`parse`].
pub fn rows() -> Result<&'static IndexMap<String, ProviderRow>, LlmError> {
    static ROWS: LazyLock<Result<IndexMap<String, ProviderRow>, LlmError>> =
        LazyLock::new(|| parse(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/data/providers.toml"))));
    ROWS.as_ref().map_err(Clone::clone)
}

/// The row of a provider.
///
/// # Errors
/// `config` with the nearest name when there is no such provider.
pub fn row(name: &str) -> Result<&'static ProviderRow, LlmError> {
    let rows = rows()?;
    rows.get(name).ok_or_else(|| {
        let known: Vec<&str> = rows.keys().map(String::as_str).collect();
        if let Some((provider, model)) =
            name.split_once('/').filter(|(provider, _)| rows.contains_key(*provider))
        {
            let what = format!("`provider`: `{name}` is two options: provider `{provider}`, model `{model}`");
            return LlmError::config("provider", what);
        }
        let hint = "a provider of your own needs a row with `adapter` and `base_url`";
        LlmError::config("provider", format!("provider `{name}` {}", unknown_name(name, &known, hint)))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::core::content::wire;
    use crate::core::error::ErrorKind;

    #[test]
    fn every_row_is_complete() {
        let wires = [wire::OPENAI_CHAT, wire::OPENAI_RESPONSES, wire::ANTHROPIC];
        for (name, row) in rows().unwrap() {
            assert!(wires.contains(&row.adapter.as_str()), "{name}");
            assert!(row.apis.values().all(|at| wires.contains(&at.as_str())), "{name}");
            assert!(row.docs.starts_with("https://") && !row.description.is_empty(), "{name}");
            assert!(!row.telemetry_name.is_empty() && !row.api_key_env.is_empty(), "{name}");
            match &row.base_url {
                Some(url) => {
                    let local = url.starts_with("http://localhost:");
                    assert!(local || url.starts_with("https://"), "{name}");
                    assert!(!url.ends_with('/'), "{name}");
                    assert_eq!(local, !row.auth.needs_key(), "{name}");
                }
                None => assert_eq!(name, "azure"),
            }
            assert!(row.api_key_env.iter().chain(&row.base_url_env).all(|variable| {
                variable.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
            }));
        }
    }

    #[test]
    fn the_named_hosts_are_there() {
        let names: Vec<&str> = rows().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "openai",
                "anthropic",
                "azure",
                "groq",
                "mistral",
                "deepseek",
                "xai",
                "together",
                "fireworks",
                "openrouter",
                "perplexity",
                "cerebras",
                "huggingface",
                "ollama",
                "vllm",
                "lmstudio",
                "llamacpp",
            ]
        );
        assert_eq!(row("openai").unwrap().base_url.as_deref(), Some("https://api.openai.com/v1"));
        assert_eq!(row("anthropic").unwrap().auth, Auth::Header("x-api-key".into()));
        assert_eq!(row("azure").unwrap().auth, Auth::Header("api-key".into()));
        assert_eq!(row("xai").unwrap().wire(Some("responses")).unwrap(), wire::OPENAI_RESPONSES);
        assert_eq!(row("groq").unwrap().wire(Some("chat")).unwrap(), wire::OPENAI_CHAT);
        assert!(row("groq").unwrap().wire(Some("respond")).is_err());
    }

    #[test]
    fn unknown_providers_are_refused_with_a_suggestion() {
        let error = row("opnai").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("did you mean `openai`?"), "{error}");
    }

    #[test]
    fn a_row_of_ones_own_has_the_same_form() {
        let own = r#"
            [mine]
            adapter = "openai_chat"
            base_url = "https://llm.example.com/v1"
            api_key_env = ["MINE_KEY"]
            auth = { header = "x-key" }
            quirks = { top_k = true, reasoning_echo = "reasoning" }
        "#;
        let rows = parse(own).unwrap();
        assert_eq!(rows["mine"].auth, Auth::Header("x-key".into()));
        assert!(rows["mine"].quirks.top_k);
        assert!(parse("[mine]\nadapter = \"openai_chat\"\nbase_ulr = \"x\"").is_err());
        assert!(parse("[mine]\nbase_url = \"x\"").is_err());
        assert!(parse("[mine]\nadapter = \"a\"\nquirks = { top_q = true }").is_err());
    }
}
