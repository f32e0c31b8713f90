//! A deployment's fingerprint: everything about it that can change an answer, its credential included.

use secrecy::{ExposeSecret, SecretString};

use crate::config::{ProviderConfig, TransportKind};
use crate::endpoint::{Endpoint, Wire};
use crate::resilience::cache_key::Digest;

/// The digest by which cached answers of one deployment are told from another's. Static keys stand in the headers;
/// of credentials that change over time goes in what they are made of. `None` when a part has no JSON form.
pub(crate) fn fingerprint(endpoint: &Endpoint, config: &ProviderConfig) -> Option<[u8; 32]> {
    // All parts by name: a new one does not compile until it is decided here whether it changes an answer.
    let Endpoint {
        provider,
        name: _,
        model,
        base,
        model_in_path,
        quirks,
        adapter,
        credential: _,
        joined: _,
        http: _,
        wire,
        limits: _,
        resend_after_send: _,
        headers,
        own_headers,
        extra,
        pricing: _,
    } = endpoint;
    let mut digest = Digest::new("liter-llm deployment 1");
    digest.json("provider", provider);
    digest.json("model", model);
    digest.json("base_url", base.as_str());
    digest.json("model_in_path", model_in_path);
    digest.json("quirks", quirks);
    digest.json("wire", adapter.wire());
    let transport = match wire {
        Wire::Http => TransportKind::Http,
        Wire::WebSocket(_) => TransportKind::Websocket,
    };
    digest.bytes("transport", &[transport as u8]);
    let mut sorted: Vec<_> = headers.iter().collect();
    sorted.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in sorted {
        digest.bytes(name.as_str(), value.as_bytes());
    }
    digest.json("own headers", own_headers);
    digest.json("extra", extra);
    for (name, secret) in [
        ("api_key", &config.api_key),
        ("azure_ad_token", &config.azure_ad_token),
        ("client_secret", &config.client_secret),
    ] {
        digest.json(name, &secret.as_ref().map(SecretString::expose_secret));
    }
    digest.json("tenant_id", &config.tenant_id);
    digest.json("client_id", &config.client_id);
    digest.json("federated_token_file", &config.federated_token_file);
    digest.json("managed_identity", &config.managed_identity);
    digest.json("proxy", &config.proxy);
    digest.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::core::json::RawJson;
    use crate::deployment::build;
    use crate::providers::row;

    fn of(config: &ProviderConfig) -> [u8; 32] {
        fingerprint(&build(config, row(&config.provider).unwrap(), &Arc::default()).unwrap(), config).unwrap()
    }

    #[test]
    fn every_part_that_can_change_an_answer_changes_it() {
        // The same first 30 characters: a key is taken whole.
        let key = |end: &str| format!("sk-the-same-beginning-of-the-key-{end}");
        let base = || ProviderConfig::parse("openai/m").unwrap().with_api_key(key("1"));
        let with = |change: &dyn Fn(&mut ProviderConfig)| {
            let mut config = base();
            change(&mut config);
            of(&config)
        };
        let text = |text: &str| Some(text.to_owned());
        let all = [
            with(&|_| {}),
            with(&|config| config.api_key = Some(key("2").into())),
            with(&|config| config.model = text("m2")),
            with(&|config| config.base_url = text("http://127.0.0.1:1/v1")),
            with(&|config| config.base_url = text("http://127.0.0.1:2/v1")),
            with(&|config| config.provider = "groq".to_owned()),
            with(&|config| config.api = crate::config::Api::Responses),
            with(&|config| {
                config.api = crate::config::Api::Responses;
                config.transport = TransportKind::Websocket;
            }),
            with(&|config| config.organization = text("o")),
            with(&|config| config.project = text("o")),
            with(&|config| drop(config.headers.insert("x-a".into(), "1".into()))),
            with(&|config| drop(config.headers.insert("x-a".into(), "2".into()))),
            with(&|config| drop(config.extra.insert("a".into(), RawJson::from("1")))),
        ];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert_eq!(with(&|config| config.timeout = Some(3.0)), all[0]);
        assert_eq!(with(&|config| config.name = text("another name")), all[0]);
    }
}
