//! One deployment of a router by itself, picked by name or by `select`.

use std::sync::Arc;

use super::course::Way;
use super::router::{Choice, Router};
use crate::core::error::LlmError;
use crate::core::estimate;
use crate::core::provider::LlmProvider;
use crate::core::request::LlmRequest;
use crate::core::route::{Candidates, Planned};

/// One deployment of a router, by itself.
pub struct Only(pub Arc<Router>, pub usize);

impl Candidates for Only {
    fn name(&self) -> &str {
        &self.0.members[self.1].name
    }

    fn course<'a>(&'a self, request: &'a LlmRequest, streamed: bool) -> Planned<'a> {
        // Being picked by hand is no way around the rules.
        if let Some(why) = self.0.forbidden(self.1, request) {
            return Planned::Now(Err(self.0.nobody(request, &[(self.1, why)])));
        }
        let choice = Choice {
            open: vec![self.1],
            input_tokens: estimate::input_tokens(request),
            output_tokens: estimate::output_tokens(request),
            ..Choice::default()
        };
        Planned::Now(Ok(Box::new(Way::new(Arc::clone(&self.0), request, streamed, choice))))
    }

    fn any(&self) -> Result<Arc<dyn LlmProvider>, LlmError> {
        let request = LlmRequest::new();
        match self.0.forbidden(self.1, &request) {
            Some(why) => Err(self.0.nobody(&request, &[(self.1, why)])),
            None => Ok(Arc::clone(&self.0.members[self.1].door)),
        }
    }
}
