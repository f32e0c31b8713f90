//! What can be made into a request: a prompt, or the request itself.

use super::request::LlmRequest;

impl From<&str> for LlmRequest {
    /// A request with this prompt.
    fn from(prompt: &str) -> Self {
        Self::new().with_prompt(prompt)
    }
}

impl From<String> for LlmRequest {
    /// A request with this prompt.
    fn from(prompt: String) -> Self {
        Self::new().with_prompt(prompt)
    }
}

impl From<&String> for LlmRequest {
    /// A request with this prompt.
    fn from(prompt: &String) -> Self {
        Self::new().with_prompt(prompt)
    }
}

impl From<&Self> for LlmRequest {
    /// The same request.
    fn from(request: &Self) -> Self {
        request.clone()
    }
}
