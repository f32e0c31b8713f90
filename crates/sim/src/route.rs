//! Which endpoint of which provider a path means.

use crate::http::Request;
use crate::vendor::Dialect;

/// An operation the simulator answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Endpoint {
    Chat,
    Responses,
    /// A stored response, by id.
    Response(String),
    Messages,
    CountTokens,
    Models,
    Model(String),
    Embeddings,
    /// Microsoft's token endpoint, with the tenant.
    Token(String),
    /// The instance metadata service's token endpoint.
    Metadata,
    /// The App Service / Arc managed identity endpoint.
    ManagedIdentity,
    /// The simulator's own control.
    Control(String),
    Unknown,
}

/// A resolved path.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub provider: String,
    pub dialect: Dialect,
    pub endpoint: Endpoint,
    /// Azure's deployment, where the path names one.
    pub deployment: Option<String>,
    /// Whether the path is one of Azure's that needs `api-version`.
    pub needs_version: bool,
}

/// Resolves a request.
pub(crate) fn route(request: &Request) -> Route {
    let path = request.path();
    let parts: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    if let Some(("_sim", rest)) = parts.split_first().map(|(f, r)| (*f, r)) {
        return simple("", Dialect::OpenAi, Endpoint::Control(rest.join("/")));
    }
    match parts.as_slice() {
        [.., tenant, "oauth2", "v2.0", "token"] => {
            return simple("entra", Dialect::Entra, Endpoint::Token((*tenant).to_owned()));
        }
        [.., "metadata", "identity", "oauth2", "token"] => {
            return simple("entra", Dialect::Entra, Endpoint::Metadata);
        }
        [.., "msi", "token"] => return simple("entra", Dialect::Entra, Endpoint::ManagedIdentity),
        _ => {}
    }
    let azure_signs = request.header("api-key").is_some() || request.parameter("api-version").is_some();
    let (provider, rest): (&str, &[&str]) = match parts.as_slice() {
        ["v1", ..] => (bare(request, &parts), &parts),
        ["openai", "deployments", ..]
        | ["models", "chat", ..]
        | ["openai", "responses" | "models" | "embeddings", ..] => ("azure", &parts),
        ["openai", "v1", ..] if azure_signs => ("azure", &parts),
        [first, rest @ ..] => (first, rest),
        [] => ("", &[]),
    };
    let dialect = match provider {
        "azure" => Dialect::Azure,
        "anthropic" => Dialect::Anthropic,
        "mistral" => Dialect::Mistral,
        _ => Dialect::OpenAi,
    };
    let deployment = match rest {
        ["openai", "deployments", name, ..] if dialect == Dialect::Azure => Some((*name).to_owned()),
        _ => None,
    };
    let endpoint = match rest {
        [.., "chat", "completions"] => Endpoint::Chat,
        [.., "responses"] => Endpoint::Responses,
        [.., "responses", id] => Endpoint::Response((*id).to_owned()),
        [.., "messages"] => Endpoint::Messages,
        [.., "messages", "count_tokens"] => Endpoint::CountTokens,
        [.., "embeddings"] => Endpoint::Embeddings,
        [.., "models"] => Endpoint::Models,
        ["v1" | "openai", "models", id @ ..] | [_, "v1", "models", id @ ..] => Endpoint::Model(id.join("/")),
        _ => Endpoint::Unknown,
    };
    // A host that is not Anthropic itself but speaks its format answers errors in that format.
    let dialect = if matches!(endpoint, Endpoint::Messages | Endpoint::CountTokens) {
        Dialect::Anthropic
    } else {
        dialect
    };
    let needs_version = dialect == Dialect::Azure && !rest.contains(&"v1");
    Route { provider: provider.to_owned(), dialect, endpoint, deployment, needs_version }
}

fn simple(provider: &str, dialect: Dialect, endpoint: Endpoint) -> Route {
    Route { provider: provider.to_owned(), dialect, endpoint, deployment: None, needs_version: false }
}

/// The provider of a path without a prefix.
fn bare(request: &Request, parts: &[&str]) -> &'static str {
    let anthropic = parts.get(1) == Some(&"messages") || request.header("anthropic-version").is_some();
    if anthropic { "anthropic" } else { "openai" }
}

/// The path below which a provider is found; its base URL without scheme and host.
pub(crate) fn base_path(provider: &str) -> Option<String> {
    let usual = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match provider {
        "" | "_sim" | "v1" => None,
        "anthropic" | "azure" | "entra" => Some(format!("/{provider}")),
        name if name.chars().all(usual) => Some(format!("/{name}/v1")),
        _ => None,
    }
}
