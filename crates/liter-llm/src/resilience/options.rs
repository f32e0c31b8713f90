//! The options of the layers, as they stand in the configuration document.

use serde::Deserialize;

use crate::core::error::LlmError;
pub use crate::core::toggle::Toggle;

/// When a deployment's circuit opens and how it closes again.
///
/// ```
/// use liter_llm::CircuitOptions;
///
/// let options = CircuitOptions { failures: 3, open_time: 10.0, ..CircuitOptions::default() };
/// assert!(options.validate().is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitOptions {
    /// Failures in a row that open it, and `429`s in a row; 5.
    pub failures: u32,
    /// Seconds it stays open; 30.
    pub open_time: f64,
    /// How many calls at once may try whether the deployment is well again; 1.
    pub probes: u32,
}

impl Default for CircuitOptions {
    fn default() -> Self {
        Self { failures: 5, open_time: 30.0, probes: 1 }
    }
}

/// A second request for a call that is slow to begin its answer; the slower one is cancelled.
///
/// ```
/// use liter_llm::HedgeOptions;
///
/// let options = HedgeOptions { after: Some(0.8), budget: 0.02 };
/// assert!(options.validate().is_ok());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HedgeOptions {
    /// Seconds without a first byte after which the second request is sent; absent: the 95th percentile of this
    /// deployment's recent answers.
    pub after: Option<f64>,
    /// The share of calls that may be hedged; 0.05.
    pub budget: f64,
}

impl Default for HedgeOptions {
    fn default() -> Self {
        Self { after: None, budget: 0.05 }
    }
}

/// Exact-match answers kept in memory.
///
/// ```
/// use liter_llm::{CacheOptions, ProviderConfig, Toggle};
///
/// let options = CacheOptions { ttl: 60.0, ..CacheOptions::default() };
/// options.validate()?;
/// let config = ProviderConfig { cache: Some(Toggle::On(options)), ..ProviderConfig::new("openai") };
/// # drop(config);
/// # Ok::<(), liter_llm::LlmError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CacheOptions {
    /// The most bytes kept; 64 MiB.
    pub max_bytes: u64,
    /// Seconds an answer is kept; 300.
    pub ttl: f64,
}

impl Default for CacheOptions {
    fn default() -> Self {
        Self { max_bytes: 64 * 1024 * 1024, ttl: 300.0 }
    }
}

fn bad(option: &'static str, what: String) -> LlmError {
    LlmError::config(option, format!("`{option}`: {what}"))
}

fn seconds(option: &'static str, field: &str, value: f64) -> Result<(), LlmError> {
    if value > 0.0 && value <= 1e9 {
        return Ok(());
    }
    Err(bad(option, format!("`{field}` of {value} is not a positive number of seconds")))
}

impl CircuitOptions {
    /// Checks the ranges.
    ///
    /// # Errors
    /// `config` naming the option and the remedy.
    pub fn validate(&self) -> Result<(), LlmError> {
        if self.failures == 0 || self.probes == 0 {
            return Err(bad("circuit", "`failures` and `probes` must be at least 1".to_owned()));
        }
        seconds("circuit", "open_time", self.open_time)
    }
}

impl HedgeOptions {
    /// Checks the ranges.
    ///
    /// # Errors
    /// `config` naming the option and the remedy.
    pub fn validate(&self) -> Result<(), LlmError> {
        if !(self.budget > 0.0 && self.budget <= 1.0) {
            return Err(bad("hedge", format!("`budget` of {} is not a share above 0 up to 1", self.budget)));
        }
        self.after.map_or(Ok(()), |after| seconds("hedge", "after", after))
    }
}

impl CacheOptions {
    /// Checks the ranges.
    ///
    /// # Errors
    /// `config` naming the option and the remedy.
    pub fn validate(&self) -> Result<(), LlmError> {
        if self.max_bytes == 0 {
            return Err(bad("cache", "`max_bytes` must be at least 1".to_owned()));
        }
        seconds("cache", "ttl", self.ttl)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_toggle_is_a_switch_or_options() {
        let read = serde_json::from_str::<Toggle<CircuitOptions>>;
        assert_eq!(read("false").unwrap(), Toggle::Off);
        assert_eq!(read("true").unwrap().options(), Some(CircuitOptions::default()));
        assert_eq!(read(r#"{"probes":3}"#).unwrap().options().unwrap().probes, 3);
        assert!(read(r#"{"probe":3}"#).unwrap_err().to_string().contains("probes"));
        assert!(read("3").is_err());
    }

    #[test]
    fn ranges_are_checked() {
        assert!(CircuitOptions { probes: 0, ..CircuitOptions::default() }.validate().is_err());
        assert!(CircuitOptions { open_time: f64::NAN, ..CircuitOptions::default() }.validate().is_err());
        assert!(HedgeOptions { budget: 1.5, ..HedgeOptions::default() }.validate().is_err());
        assert!(HedgeOptions { after: Some(0.0), ..HedgeOptions::default() }.validate().is_err());
        assert!(CacheOptions { ttl: -1.0, ..CacheOptions::default() }.validate().is_err());
        assert!(HedgeOptions::default().validate().is_ok() && CacheOptions::default().validate().is_ok());
    }
}
