//! What is Azure's own: two ways to authorize, the API version, deployments.

use crate::identity::Bearer;
use crate::route::{Endpoint, Route};
use crate::server::{Call, Shared};
use crate::vendor::{Answered, Dialect, VendorError};

/// Checks key or token, version and deployment.
pub(crate) fn authorize(
    shared: &Shared,
    call: &Call<'_>,
    route: &Route,
    bearer: Option<&str>,
) -> Answered<()> {
    let keys = &shared.config.keys;
    let denied = || Err(VendorError::for_status(401, Dialect::Azure, ""));
    match (call.request.header("api-key").filter(|k| !k.is_empty()), bearer) {
        (Some(key), _) if keys.accepts(call.provider, key) => {}
        (None, Some(bearer)) => match shared.identity.check(bearer) {
            Bearer::Valid => {}
            Bearer::NoToken if keys.accepts(call.provider, bearer) => {}
            Bearer::NoToken => return denied(),
            Bearer::Expired | Bearer::Foreign => {
                let message = "Unauthorized. Access token is missing, invalid, audience is incorrect (https://cognitiveservices.azure.com), or have expired.";
                return Err(VendorError::new(401, "401", message));
            }
        },
        _ => return denied(),
    }
    if route.needs_version {
        let Some(version) = call.request.parameter("api-version") else {
            return Err(VendorError::new(404, "404", "Resource not found"));
        };
        let date = version.get(..10).unwrap_or("");
        let dated = date.len() == 10
            && date.bytes().enumerate().all(
                |(i, b)| {
                    if i == 4 || i == 7 { b == b'-' } else { b.is_ascii_digit() }
                },
            );
        if !dated && version != "preview" && version != "latest" {
            return Err(VendorError::new(400, "BadRequest", "API version not supported"));
        }
    }
    if !matches!(route.endpoint, Endpoint::Models | Endpoint::Model(_)) && call.model().starts_with("no-such")
    {
        let message = "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, please wait a moment and try again.";
        return Err(VendorError::new(404, "invalid_request_error", message).code("DeploymentNotFound"));
    }
    Ok(())
}
