//! The two text forms of metrics: OpenMetrics, as it is written, and Prometheus' older one, made of it.

use super::names::metric;

/// The content type of OpenMetrics text.
///
/// ```
/// use liter_llm::telemetry::{Metrics, OPENMETRICS};
/// assert_eq!(Metrics::new().answer(Some("application/openmetrics-text")).0, OPENMETRICS);
/// ```
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The content type of Prometheus text.
///
/// ```
/// use liter_llm::telemetry::{Metrics, PLAIN};
/// assert_eq!(Metrics::new().answer(Some("text/plain")).0, PLAIN);
/// ```
pub const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Whether an `Accept` header names OpenMetrics, and does not rule it out.
pub(super) fn wants_openmetrics(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named =
            parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/openmetrics-text"));
        let refused = parts.any(|parameter| {
            let quality = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="));
            quality.and_then(|quality| quality.parse::<f64>().ok()) == Some(0.0)
        });
        named && !refused
    })
}

/// OpenMetrics text as Prometheus text 0.0.4: there a counter's own lines have its `_total` too, and the text has no end
/// mark.
pub(super) fn plain(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len() + 256);
    for line in openmetrics.lines() {
        let about = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE "));
        match about.and_then(|about| about.split_once(' ')) {
            Some((name, rest)) if metric::COUNTERS.contains(&name) => {
                text.push_str(&line[..7]);
                text.push_str(name);
                text.push_str("_total ");
                text.push_str(rest);
            }
            None if line.starts_with("# EOF") || line.starts_with("# UNIT") => continue,
            _ => text.push_str(line),
        }
        text.push('\n');
    }
    text
}
