//! A key or other secret: checked when it is made, never shown afterwards.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, Serializer};

use crate::core::error::LlmError;

/// Where a secret came from, so that an error can point there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyOrigin {
    /// Given by the caller, in code or in a configuration file.
    Argument,
    /// Read from the environment variable of this name.
    Environment(String),
    /// Received from a token service or read from a file, named in the text.
    Received(String),
}

/// A secret that can stand in a header. `Debug`, `Display` and `Serialize` give `***`; memory is wiped on drop.
///
/// ```
/// use liter_llm::credentials::{KeyOrigin, SecretKey};
///
/// let key = SecretKey::new("sk-example", "api_key", KeyOrigin::Argument)?;
/// assert_eq!(format!("{key} {key:?}"), "*** ***");
///
/// let origin = KeyOrigin::Environment("OPENAI_API_KEY".to_owned());
/// let error = SecretKey::new("sk-example\n", "api_key", origin).unwrap_err();
/// assert!(error.to_string().contains("OPENAI_API_KEY"));
/// assert!(!error.to_string().contains("sk-example"));
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Clone)]
pub struct SecretKey {
    value: SecretString,
    option: &'static str,
    origin: KeyOrigin,
}

impl SecretKey {
    /// Checks and keeps a secret; `option` is the name of the option it was given for, for instance `api_key`.
    ///
    /// A secret is visible ASCII. Nothing is trimmed: a key with a line break at its end is a mistake at its source,
    /// and a silently changed key is hard to find.
    ///
    /// # Errors
    /// `config` for an empty value, control characters (line breaks among them), characters outside ASCII, and
    /// spaces at either end. The error names option and origin, never the value.
    pub fn new(value: impl Into<String>, option: &'static str, origin: KeyOrigin) -> Result<Self, LlmError> {
        let key = Self { value: SecretString::from(value.into()), option, origin };
        match fault_of(key.expose()) {
            None => Ok(key),
            Some(fault) => Err(key.refused(fault)),
        }
    }

    /// The secret itself. Put it into the request and nowhere else.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }

    /// Where it came from.
    #[must_use]
    pub const fn origin(&self) -> &KeyOrigin {
        &self.origin
    }

    /// Option and origin as words, for diagnostics: "`api_key` from the environment variable `OPENAI_API_KEY`".
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.origin {
            KeyOrigin::Argument => format!("`{}` as given", self.option),
            KeyOrigin::Environment(name) => {
                format!("`{}` from the environment variable `{name}`", self.option)
            }
            KeyOrigin::Received(place) => format!("`{}` from {place}", self.option),
        }
    }

    /// A `config` error about this secret.
    pub(crate) fn refused(&self, fault: &str) -> LlmError {
        LlmError::config(self.option, format!("{} {fault}", self.describe()))
    }
}

/// What is wrong with a secret, if anything.
fn fault_of(value: &str) -> Option<&'static str> {
    if value.is_empty() {
        Some("is empty")
    } else if value.contains(['\r', '\n']) {
        Some("contains a line break; remove it where the value is set")
    } else if value.chars().any(char::is_control) {
        Some("contains a control character; copy the value again")
    } else if !value.is_ascii() {
        Some("contains a character outside ASCII; copy the value again")
    } else if value.starts_with(' ') || value.ends_with(' ') {
        Some("begins or ends with a space; remove it where the value is set")
    } else {
        None
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl fmt::Display for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

impl Serialize for SecretKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::core::error::ErrorKind;

    #[test]
    fn bad_keys_are_refused_by_name_and_never_shown() {
        for bad in ["", "canary\n", "can\r\nary", "canary\t", "canary\u{7f}", "canäry", " canary", "canary "]
        {
            for origin in [KeyOrigin::Argument, KeyOrigin::Environment("SOME_KEY".into())] {
                let named = matches!(origin, KeyOrigin::Environment(_));
                let error = SecretKey::new(bad, "api_key", origin).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Config);
                assert_eq!(error.detail().param.as_deref(), Some("api_key"));
                let text = format!("{error} {error:?}");
                assert!(text.contains("api_key") && !text.contains("canary") && !text.contains("canäry"));
                assert_eq!(text.contains("SOME_KEY"), named);
            }
        }
    }

    #[test]
    fn a_key_is_shown_as_stars() {
        let key = SecretKey::new("canary", "api_key", KeyOrigin::Argument).unwrap();
        assert_eq!(format!("{key} {key:?} {:#?}", key.clone()), "*** *** ***");
        assert_eq!(serde_json::to_string(&key).unwrap(), "\"***\"");
        assert_eq!(key.expose(), "canary");
        assert_eq!(key.origin(), &KeyOrigin::Argument);
    }
}
