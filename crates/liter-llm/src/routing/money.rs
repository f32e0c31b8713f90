//! Exact sums of US dollars: whole numbers of a millionth of a millionth.

use std::fmt;

use serde::{Serialize, Serializer};

/// Parts of a dollar.
const PARTS: u64 = 1_000_000_000_000;

/// A sum of US dollars in whole 1e-12. The largest is 18 million; sums beyond it stay there.
///
/// In text and JSON it is a decimal number, all of it: `0.000045`.
///
/// ```
/// use liter_llm::Money;
///
/// let price = Money::from_usd(2.5).unwrap();
/// let cost = price.times(1_000, 1_000_000).plus(Money::from_parts(1));
/// assert_eq!((cost.to_string().as_str(), cost.parts()), ("0.002500000001", 2_500_000_001));
/// assert_eq!(Money::ZERO.minus(cost), Money::ZERO);
/// assert_eq!(price.usd(), 2.5);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(u64);

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// So many 1e-12 dollars.
    #[must_use]
    pub const fn from_parts(parts: u64) -> Self {
        Self(parts)
    }

    /// In 1e-12 dollars.
    #[must_use]
    pub const fn parts(self) -> u64 {
        self.0
    }

    /// The nearest sum; `None` for what is no sum of money: below zero, infinite, not a number.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked; a float's cast saturates"
    )]
    pub fn from_usd(usd: f64) -> Option<Self> {
        (usd >= 0.0 && usd.is_finite()).then(|| Self((usd * PARTS as f64).round() as u64))
    }

    /// In dollars; exact to 1e-12 up to 1,000 dollars.
    #[must_use]
    pub fn usd(self) -> f64 {
        self.0 as f64 / PARTS as f64
    }

    /// `count` units at this price for `per` of them, rounded to the nearest.
    #[must_use]
    pub fn times(self, count: u64, per: u64) -> Self {
        let per = u128::from(per.max(1));
        let sum = (u128::from(self.0) * u128::from(count) + per / 2) / per;
        Self(u64::try_from(sum).unwrap_or(u64::MAX))
    }

    /// The sum of two.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left; never below zero.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    #[cfg(feature = "sqlite")]
    /// As the store keeps it.
    pub(super) fn stored(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    #[cfg(feature = "sqlite")]
    /// From the store.
    pub(super) fn from_stored(parts: i64) -> Self {
        Self(u64::try_from(parts).unwrap_or_default())
    }
}

impl fmt::Display for Money {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:012}", self.0 / PARTS, self.0 % PARTS);
        formatter.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact() {
        let price = Money::from_usd(0.15).unwrap_or_default();
        assert_eq!(price.times(1, 1_000_000).to_string(), "0.00000015");
        assert_eq!(price.times(7, 1_000_000), Money::from_parts(1_050_000));
        let sum = (0..1_000_000).fold(Money::ZERO, |sum, _| sum.plus(price.times(1, 1_000_000)));
        assert_eq!((sum, sum.to_string().as_str()), (price, "0.15"));
        assert_eq!(Money::from_usd(50.0).map(|sum| sum.to_string()).as_deref(), Some("50"));
        assert_eq!(Money::from_usd(1_000.000_000_000_001).map(Money::parts), Some(1_000_000_000_000_001));
        assert!([-1.0, f64::NAN, f64::INFINITY].into_iter().all(|usd| Money::from_usd(usd).is_none()));
        assert_eq!(Money::from_parts(u64::MAX).plus(price), Money::from_parts(u64::MAX));
        assert_eq!(Money::ZERO.minus(price).to_string(), "0");
    }
}
