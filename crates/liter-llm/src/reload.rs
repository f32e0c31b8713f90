//! A client under another configuration: built first, and given what its predecessor knows.

use std::sync::Arc;

use crate::client::{CachePlan, Client, Own};
use crate::config::Config;
use crate::core::error::LlmError;
use crate::core::notices::NoticeKind;
use crate::deployment::{Health, Identity};
use crate::resilience::cache::ResponseCache;
use crate::routing::member::Member;
use crate::routing::router::Router;

impl Client {
    /// A client of this configuration that goes on where this one stands. Nothing of this one changes, so its calls
    /// in flight end as they would have, and a configuration that cannot work changes nothing.
    ///
    /// Kept of each deployment that is the same one (name, provider, model and base URL): its statistics; its circuits,
    /// but not those of a key it no longer has; what is used of its limits, when they have not changed. Kept of the
    /// client: what was spent of budgets that it has too; cached answers, when neither the cache's options nor anything that can change an answer has changed.
    ///
    /// # Errors
    /// As [`from_config`](Self::from_config).
    pub fn reloaded(&self, config: Config) -> Result<Self, LlmError> {
        self.reloaded_with(config, Own::default())
    }

    /// As [`reloaded`](Self::reloaded), with what no document can hold.
    ///
    /// # Errors
    /// As [`from_config`](Self::from_config).
    pub fn reloaded_with(&self, config: Config, own: Own) -> Result<Self, LlmError> {
        let made = Self::make(config, own, Heirloom(Some(self)));
        let notices = self.telemetry().notices();
        match &made {
            Ok(client) => {
                let count = client.router().members().len();
                notices.add(NoticeKind::Reloaded, "", "", || format!("deployments: {count}"));
            }
            // The message may show what stands in the document; the option's name is enough.
            Err(error) => notices.add(NoticeKind::ReloadFailed, "", "", || {
                error.detail().param.as_ref().map(|param| format!("option: {param}")).unwrap_or_default()
            }),
        }
        made
    }
}

/// What a client of another configuration leaves to the next one; nothing for a first one.
#[derive(Clone, Copy)]
pub(crate) struct Heirloom<'a>(pub Option<&'a Client>);

impl<'a> Heirloom<'a> {
    fn position(self, identity: &Identity) -> Option<(&'a Client, usize)> {
        let client = self.0?;
        let position = client.health.iter().position(|health| health.identity == *identity)?;
        Some((client, position))
    }

    /// How this deployment was doing.
    pub fn health_of(self, identity: &Identity) -> Option<&'a Health> {
        self.position(identity).map(|(client, position)| &*client.health[position])
    }

    /// Gives a deployment the statistics it had.
    pub fn statistics(self, identity: &Identity, member: &mut Member) {
        if let Some((client, position)) = self.position(identity) {
            member.stats = Arc::clone(&client.router.members()[position].stats);
        }
    }

    /// Lets a router go on with what has been spent of budgets that it has too.
    pub fn spend(self, router: &Router) {
        if let Some(client) = self.0 {
            router.take_over(&client.router);
        }
    }

    /// The cache that was made for the same.
    pub fn answers(self, plan: CachePlan) -> Option<Arc<ResponseCache>> {
        let (of, cache) = self.0?.cache.as_ref()?;
        (*of == plan).then(|| Arc::clone(cache))
    }
}
