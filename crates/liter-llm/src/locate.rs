//! Where a deployment's requests go: explicit base URL, then the vendor's environment variable, then the row.

use reqwest::Url;

use crate::config::{Api, ProviderConfig};
use crate::core::error::LlmError;
use crate::providers::{Paths, ProviderRow};
use crate::transports::http::parse_base_url;

/// Azure's API version for deployment paths when none is given: the newest stable one of the data plane
/// (Microsoft, "Azure OpenAI in Azure AI Foundry Models REST API reference").
const AZURE_API_VERSION: &str = "2024-10-21";
/// The API version of Azure AI Foundry's `/models` path.
const FOUNDRY_API_VERSION: &str = "2024-05-01-preview";

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    /// What the adapter's path is appended to; its query is kept.
    pub base: Url,
    /// The model to send.
    pub model: String,
    /// Azure's deployment paths: the model stands in the path.
    pub model_in_path: bool,
}

type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

pub(crate) fn locate(
    config: &ProviderConfig,
    row: &ProviderRow,
    environment: &Environment<'_>,
) -> Result<Location, LlmError> {
    let given = match &config.base_url {
        Some(url) => Some((url.clone(), "base_url".to_owned())),
        None => row
            .base_url_env
            .iter()
            .find_map(|name| Some((environment(name)?, name.clone())))
            .or_else(|| Some((row.base_url.clone()?, "base_url".to_owned()))),
    };
    let Some((text, option)) = given else {
        let remedy = match row.base_url_env.first() {
            Some(variable) => format!("pass `base_url` or set {variable}"),
            None => "pass `base_url`".to_owned(),
        };
        return Err(LlmError::config("base_url", format!("no base URL for `{}`: {remedy}", config.provider)));
    };
    let base = parse_base_url(&text).map_err(|error| match option.as_str() {
        "base_url" => error,
        variable => error.with(|detail| detail.message.push_str(&format!(" (from {variable})"))),
    })?;
    match row.paths {
        Paths::Plain => {
            refuse(config, "deployment", config.deployment.is_some())?;
            refuse(config, "api_version", config.api_version.is_some())?;
            Ok(Location { base, model: config.model.clone().unwrap_or_default(), model_in_path: false })
        }
        Paths::Azure => azure(config, base, environment),
    }
}

fn refuse(config: &ProviderConfig, option: &str, given: bool) -> Result<(), LlmError> {
    if given {
        let reason = format!("`{option}`: provider `{}` has none; it belongs to `azure`", config.provider);
        return Err(LlmError::config(option, reason));
    }
    Ok(())
}

/// Azure's paths: `/openai/deployments/{deployment}` with a dated API version, `/openai/v1` without one, and the
/// `/models` path of AI Foundry.
fn azure(
    config: &ProviderConfig,
    mut base: Url,
    environment: &Environment<'_>,
) -> Result<Location, LlmError> {
    let version = config.api_version.clone().or_else(|| environment("OPENAI_API_VERSION"));
    let path = base.path().trim_end_matches('/').to_owned();
    let deployment = config.deployment.clone().or_else(|| config.model.clone()).unwrap_or_default();
    let has_version = base.query_pairs().any(|(name, _)| name == "api-version");
    let set_version = |base: &mut Url, default: &str| {
        if !has_version {
            base.query_pairs_mut().append_pair("api-version", version.as_deref().unwrap_or(default));
        }
    };
    if path.ends_with("/openai/v1") {
        return Ok(Location { base, model: deployment, model_in_path: false });
    }
    if path.ends_with("/models") {
        set_version(&mut base, FOUNDRY_API_VERSION);
        return Ok(Location { base, model: deployment, model_in_path: false });
    }
    if path.contains("/openai/deployments/") {
        set_version(&mut base, AZURE_API_VERSION);
        let model = config.model.clone().or(config.deployment.clone());
        let model = model.or_else(|| path.rsplit('/').next().map(str::to_owned)).unwrap_or_default();
        return Ok(Location { base, model, model_in_path: false });
    }
    let root = path.trim_end_matches("/openai").to_owned();
    let dated = version.as_deref().is_some_and(|version| !matches!(version, "v1" | "preview" | "latest"));
    if !dated && (version.is_some() || config.api == Api::Responses) {
        base.set_path(&format!("{root}/openai/v1"));
        if version.as_deref() == Some("preview") {
            base.query_pairs_mut().append_pair("api-version", "preview");
        }
        return Ok(Location { base, model: deployment, model_in_path: false });
    }
    set_version(&mut base, AZURE_API_VERSION);
    if config.api == Api::Responses {
        base.set_path(&format!("{root}/openai"));
        return Ok(Location { base, model: deployment, model_in_path: false });
    }
    let Some(fixed) = &config.deployment else {
        base.set_path(&format!("{root}/openai/deployments"));
        return Ok(Location { base, model: deployment, model_in_path: true });
    };
    base.set_path(&root);
    push(&mut base, &["openai", "deployments", fixed])?;
    Ok(Location { base, model: config.model.clone().unwrap_or_else(|| fixed.clone()), model_in_path: false })
}

/// Appends path segments, escaped.
pub(crate) fn push(url: &mut Url, segments: &[&str]) -> Result<(), LlmError> {
    url.path_segments_mut()
        .map_err(|()| LlmError::config("base_url", "`base_url`: not a URL with a path"))?
        .pop_if_empty()
        .extend(segments);
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::providers::row;

    fn url(config: &ProviderConfig, variables: &[(&str, &str)]) -> String {
        let environment = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        let found = locate(config, row(&config.provider).unwrap(), &environment).unwrap();
        format!("{}{}", found.base, if found.model_in_path { " +model" } else { "" })
    }

    #[test]
    fn explicit_beats_environment_beats_row() {
        let config = ProviderConfig::new("openai").with_model("m");
        assert_eq!(url(&config, &[]), "https://api.openai.com/v1");
        assert_eq!(url(&config, &[("OPENAI_BASE_URL", "http://localhost:1/v1/")]), "http://localhost:1/v1/");
        let explicit = config.with_base_url("http://127.0.0.1:2/v1");
        assert_eq!(url(&explicit, &[("OPENAI_BASE_URL", "http://localhost:1/v1")]), "http://127.0.0.1:2/v1");
    }

    #[test]
    fn azure_paths() {
        let root = "https://r.openai.azure.com/";
        let base = ProviderConfig::new("azure").with_model("gpt-4o").with_base_url(root);
        assert_eq!(
            url(&base, &[]),
            "https://r.openai.azure.com/openai/deployments?api-version=2024-10-21 +model"
        );
        let named = ProviderConfig { deployment: Some("prod eu".into()), ..base.clone() };
        assert_eq!(
            url(&named, &[("OPENAI_API_VERSION", "2025-01-01-preview")]),
            "https://r.openai.azure.com/openai/deployments/prod%20eu?api-version=2025-01-01-preview"
        );
        let responses = ProviderConfig { api: Api::Responses, ..base.clone() };
        assert_eq!(url(&responses, &[]), "https://r.openai.azure.com/openai/v1");
        let dated = ProviderConfig { api_version: Some("2025-03-01-preview".into()), ..responses };
        assert_eq!(url(&dated, &[]), "https://r.openai.azure.com/openai?api-version=2025-03-01-preview");
        let foundry = base.clone().with_base_url("https://r.services.ai.azure.com/models");
        assert_eq!(
            url(&foundry, &[]),
            "https://r.services.ai.azure.com/models?api-version=2024-05-01-preview"
        );
        let v1 = base.with_base_url("https://r.openai.azure.com/openai/v1/");
        assert_eq!(url(&v1, &[]), "https://r.openai.azure.com/openai/v1/");
        let from_environment = ProviderConfig::new("azure").with_model("m");
        assert!(url(&from_environment, &[("AZURE_OPENAI_ENDPOINT", root)]).starts_with(root));
    }

    #[test]
    fn azure_options_belong_to_azure() {
        let config = ProviderConfig { deployment: Some("d".into()), ..ProviderConfig::new("openai") };
        assert!(locate(&config, row("openai").unwrap(), &|_| None).is_err());
    }
}
