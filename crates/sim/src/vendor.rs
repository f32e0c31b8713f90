//! Each vendor's error bodies and standing response headers.

use std::time::Duration;

use serde_json::{Value, json};

use crate::reply::Reply;

/// A family of error bodies and headers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Dialect {
    OpenAi,
    Anthropic,
    Azure,
    Mistral,
    Entra,
}

/// An error before it takes a vendor's shape.
#[derive(Clone, Debug)]
pub(crate) struct VendorError {
    pub status: u16,
    pub kind: &'static str,
    pub code: Option<&'static str>,
    pub param: Option<String>,
    pub message: String,
}

/// Shorthand for answers that may be an error.
pub(crate) type Answered<T> = Result<T, VendorError>;

impl VendorError {
    pub(crate) fn new(status: u16, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, code: None, param: None, message: message.into() }
    }

    /// A 400 for an invalid request.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "invalid_request_error", message)
    }

    pub(crate) fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    pub(crate) fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// The error a vendor gives for `status` when nothing more is known.
    pub(crate) fn for_status(status: u16, dialect: Dialect, model: &str) -> Self {
        let (kind, code, message) = match (dialect, status) {
            (Dialect::Anthropic, _) => {
                let (kind, message) = match status {
                    400 => ("invalid_request_error", "invalid request"),
                    401 => ("authentication_error", "invalid x-api-key"),
                    402 => ("billing_error", "Your credit balance is too low to access the API."),
                    403 => ("permission_error", "Your API key does not have permission to use the specified resource."),
                    404 => ("not_found_error", "Not found"),
                    413 => ("request_too_large", "Request exceeds the maximum size"),
                    429 => ("rate_limit_error", "This request would exceed your organization's rate limit."),
                    504 => ("timeout_error", "Request timed out"),
                    529 => ("overloaded_error", "Overloaded"),
                    s if s < 500 => ("invalid_request_error", "invalid request"),
                    _ => ("api_error", "Internal server error"),
                };
                (kind, None, message.to_owned())
            }
            (Dialect::Azure, 429) => (
                "rate_limit",
                Some("429"),
                "Requests to this operation have exceeded the call rate limit of your current pricing tier. Please retry after 1 second.".to_owned(),
            ),
            (Dialect::Azure, 401) => (
                "auth",
                Some("401"),
                "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a valid key for an active subscription and use a correct regional API endpoint for your resource.".to_owned(),
            ),
            (_, 400) => ("invalid_request_error", None, "Invalid request.".to_owned()),
            (_, 401) => ("invalid_request_error", Some("invalid_api_key"), "Incorrect API key provided.".to_owned()),
            (_, 403) => ("invalid_request_error", Some("unsupported_country_region_territory"), "Country, region, or territory not supported".to_owned()),
            (_, 404) => return Self::no_model(model),
            (_, 429) => ("requests", Some("rate_limit_exceeded"), format!("Rate limit reached for {model} on requests per min (RPM): Limit 10000, Used 10000, Requested 1. Please try again in 6ms.")),
            (_, 503) => ("service_unavailable_error", None, "The engine is currently overloaded, please try again later".to_owned()),
            (_, s) if s < 500 => ("invalid_request_error", None, "The request could not be processed.".to_owned()),
            _ => ("server_error", None, "The server had an error while processing your request. Sorry about that!".to_owned()),
        };
        Self { status, kind, code, param: None, message }
    }

    /// An unknown model, as OpenAI says it.
    pub(crate) fn no_model(model: &str) -> Self {
        Self::new(
            404,
            "invalid_request_error",
            format!("The model `{model}` does not exist or you do not have access to it."),
        )
        .code("model_not_found")
    }

    /// The error object of an OpenAI-shaped body.
    pub(crate) fn object(&self) -> Value {
        json!({"message": self.message, "type": self.kind, "param": self.param, "code": self.code})
    }

    /// The whole body in a vendor's shape.
    pub(crate) fn body(&self, dialect: Dialect, request_id: &str) -> Value {
        match dialect {
            Dialect::OpenAi => json!({"error": self.object()}),
            Dialect::Anthropic => {
                json!({"type": "error", "error": {"type": self.kind, "message": self.message}, "request_id": request_id})
            }
            Dialect::Azure if self.code == Some("content_filter") => self.filtered(),
            Dialect::Azure if matches!(self.status, 401 | 429) => {
                json!({"error": {"code": self.status.to_string(), "message": self.message}})
            }
            Dialect::Azure if self.code == Some("DeploymentNotFound") => {
                json!({"error": {"type": self.kind, "code": self.code, "message": self.message}})
            }
            // Errors of the gateway in front of the models carry a code and no type.
            Dialect::Azure if matches!(self.kind, "404" | "BadRequest") => {
                json!({"error": {"code": self.kind, "message": self.message}})
            }
            Dialect::Azure => json!({"error": self.object()}),
            Dialect::Mistral if self.status == 401 => json!({"detail": "Invalid API Key"}),
            Dialect::Mistral => json!({
                "object": "error", "message": self.message, "type": self.kind, "param": self.param,
                "code": self.code.unwrap_or("3051"), "raw_status_code": self.status,
            }),
            Dialect::Entra => json!({
                "error": self.kind, "error_description": self.message,
                "error_codes": [self.code.and_then(|c| c.parse::<u64>().ok()).unwrap_or(900_144)],
                "timestamp": rfc3339(crate::log::now()), "trace_id": request_id, "correlation_id": request_id,
            }),
        }
    }

    /// Azure's answer to a prompt that its content filter stops.
    fn filtered(&self) -> Value {
        let passed = json!({"filtered": false, "severity": "safe"});
        let mut error = self.object();
        error["type"] = Value::Null;
        error["status"] = json!(self.status);
        error["innererror"] = json!({"code": "ResponsibleAIPolicyViolation", "content_filter_result": {
            "hate": passed, "jailbreak": {"filtered": false, "detected": false}, "self_harm": passed,
            "sexual": passed, "violence": {"filtered": true, "severity": "medium"},
        }});
        json!({"error": error})
    }

    /// The error as an answer.
    pub(crate) fn reply(&self, dialect: Dialect, request_id: &str) -> Reply {
        // Mistral answers 400 for a model that others do not find.
        let unknown_model = dialect == Dialect::Mistral && self.code == Some("model_not_found");
        if unknown_model {
            let error = Self::new(400, "invalid_model", self.message.clone()).code("1500");
            return error.reply(dialect, request_id);
        }
        let mut reply = Reply::json(self.status, &self.body(dialect, request_id));
        if self.status == 429 {
            reply.set("retry-after", "1".to_owned());
        }
        if dialect == Dialect::Anthropic && self.status >= 500 {
            reply.set("x-should-retry", "true".to_owned());
        }
        reply
    }
}

/// Adds the headers a vendor puts on its answers: request id and rate limits.
pub(crate) fn standing_headers(reply: &mut Reply, dialect: Dialect, request_id: &str, model: &str) {
    let headers = &mut reply.headers;
    let mut add = |name: &str, value: &str| {
        if !headers.iter().any(|(n, _)| n == name) {
            headers.push((name.to_owned(), value.to_owned()));
        }
    };
    match dialect {
        Dialect::OpenAi | Dialect::Mistral => {
            add("x-request-id", request_id);
            add("openai-version", "2020-10-01");
            add("openai-processing-ms", "1");
            add("x-ratelimit-limit-requests", "10000");
            add("x-ratelimit-remaining-requests", "9999");
            add("x-ratelimit-reset-requests", "6ms");
            add("x-ratelimit-limit-tokens", "2000000");
            add("x-ratelimit-remaining-tokens", "1999000");
            add("x-ratelimit-reset-tokens", "30ms");
        }
        Dialect::Anthropic => {
            add("request-id", request_id);
            add("anthropic-organization-id", "00000000-0000-4000-8000-000000000000");
            let reset = rfc3339(crate::log::now() + Duration::from_secs(1));
            for (part, limit, left) in [
                ("requests", "4000", "3999"),
                ("tokens", "2400000", "2399000"),
                ("input-tokens", "2000000", "1999000"),
                ("output-tokens", "400000", "399000"),
            ] {
                add(&format!("anthropic-ratelimit-{part}-limit"), limit);
                add(&format!("anthropic-ratelimit-{part}-remaining"), left);
                add(&format!("anthropic-ratelimit-{part}-reset"), &reset);
            }
        }
        Dialect::Azure => {
            add("apim-request-id", request_id);
            add("x-request-id", request_id);
            add("x-ms-region", "Simulated Region");
            add("x-ms-deployment-name", model);
            add("x-ratelimit-limit-requests", "1000");
            add("x-ratelimit-remaining-requests", "999");
            add("x-ratelimit-limit-tokens", "1000000");
            add("x-ratelimit-remaining-tokens", "999000");
        }
        Dialect::Entra => {
            add("x-ms-request-id", request_id);
            add("cache-control", "no-store, no-cache");
        }
    }
}

/// A time since 1970 as `YYYY-MM-DDThh:mm:ssZ`.
pub(crate) fn rfc3339(time: Duration) -> String {
    let seconds = time.as_secs();
    let days = seconds / 86_400;
    // Days to a civil date, counting eras of 400 years from 0000-03-01.
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let rest = seconds % 86_400;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(rfc3339(Duration::from_secs(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(Duration::from_secs(1_709_210_096)), "2024-02-29T12:34:56Z");
    }
}
