//! A day's figures as a table in Markdown.

use std::fmt::Write as _;

use super::figures::{Figures, Hindsight};
use super::scenario::HOSTS;

fn row(figures: &Figures, seen: bool) -> String {
    let [p50, p95, p99] = figures.times;
    let answers: usize = figures.answered.iter().sum();
    #[allow(clippy::cast_precision_loss, reason = "counts")]
    let shares = figures.answered.map(|count| format!("{:.0}", 100.0 * count as f64 / answers.max(1) as f64));
    let mut row = format!(
        "| {} | {:.3} % | {p50:.2} | {p95:.2} | {p99:.2} | {:.3} | {} |",
        figures.title,
        100.0 * figures.success(),
        figures.cost,
        shares.join(" / "),
    );
    let _ = match seen {
        true => write!(row, " {} | {} | {} |", figures.most_delayed(), figures.under_way, figures.trials),
        false => write!(row, " | | |"),
    };
    row
}

/// The table of those who chose, and of the best choices in hindsight.
#[must_use]
pub fn table(days: &[Figures], hindsight: &Hindsight) -> String {
    let hosts = HOSTS.map(|host| host.name).join(" / ");
    let mut table = format!(
        "| | success | p50 s | p95 s | p99 s | cost $ | % {hosts} | delayed, most in an outage | under way, most | trials |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    );
    for figures in days {
        let _ = writeln!(table, "{}", row(figures, true));
    }
    for figures in [&hindsight.fastest, &hindsight.expected, &hindsight.cheapest] {
        let _ = writeln!(table, "{}", row(figures, false));
    }
    table
}
