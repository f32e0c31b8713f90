//! Calendar days and times of day in UTC, as dated prices need them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A day, counted from 1970-01-01.
///
/// ```
/// use liter_llm::catalog::Day;
///
/// assert!(Day::parse("2026-02-28") < Day::parse("2026-03-01"));
/// assert_eq!(Day::parse("2026-02-30"), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(i64);

impl Day {
    /// Reads `YYYY-MM-DD`; `None` when it is no day of the calendar.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
            return None;
        }
        let number = |range: std::ops::Range<usize>| {
            let digits = text.get(range)?;
            digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i64>().ok()).flatten()
        };
        let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
            _ => return None,
        };
        (1..=days).contains(&day).then(|| Self(days_from_civil(year, month, day)))
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (year, month, day) = civil_from_days(self.0);
        write!(formatter, "{year:04}-{month:02}-{day:02}")
    }
}

/// Days since 1970-01-01 of a day in the Gregorian calendar. Years are counted from March, so that the leap day is
/// the last one; 400 years have 146,097 days.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

const fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + if month <= 2 { 1 } else { 0 }, month, day)
}

/// A minute of the day, from midnight UTC.
///
/// ```
/// use liter_llm::catalog::Minute;
///
/// assert_eq!(Minute::parse("16:30").unwrap().to_string(), "16:30");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minute(u16);

impl Minute {
    /// Reads `HH:MM`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (hour, minute) = text.split_once(':')?;
        let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
        (hour < 24 && minute < 60).then_some(Self(hour * 60 + minute))
    }
}

impl std::fmt::Display for Minute {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// When something was asked, as far as prices care.
///
/// ```
/// use std::time::{Duration, UNIX_EPOCH};
/// use liter_llm::catalog::{Minute, Moment};
///
/// let moment = Moment::at(UNIX_EPOCH + Duration::from_secs(86_400 + 3_600));
/// let hours = |from, to| (Minute::parse(from).unwrap(), Minute::parse(to).unwrap());
/// assert_eq!(moment.day.to_string(), "1970-01-02");
/// assert!(moment.within(hours("23:00", "02:00")) && !moment.within(hours("02:00", "23:00")));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The day in UTC.
    pub day: Day,
    /// The time of that day.
    pub minute: Minute,
}

impl Moment {
    /// The moment of a clock's time.
    #[must_use]
    pub fn at(time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
        let days = i64::try_from(seconds / 86_400).unwrap_or(i64::MAX);
        let minute = u16::try_from(seconds % 86_400 / 60).unwrap_or(0);
        Self { day: Day(days), minute: Minute(minute) }
    }

    /// Whether it lies in a daily interval that includes its start and may go over midnight.
    #[must_use]
    pub fn within(self, (start, end): (Minute, Minute)) -> bool {
        match end < start {
            true => self.minute >= start || self.minute < end,
            false => self.minute >= start && self.minute < end,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn days_are_read_and_written() {
        for (text, days) in [
            ("1970-01-01", 0),
            ("1969-12-31", -1),
            ("2000-02-29", 11_016),
            ("2024-12-31", 20_088),
            ("2026-11-23", 20_780),
        ] {
            assert_eq!(Day::parse(text).unwrap(), Day(days), "{text}");
            assert_eq!(Day(days).to_string(), text);
        }
        for wrong in
            ["2025-02-29", "2025-13-01", "2025-1-01", "25-01-01", "2025-01-00", "2025/01/01", "+025-01-01"]
        {
            assert_eq!(Day::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn intervals_go_over_midnight() {
        let at = |hour: u64, minute: u64| {
            Moment::at(UNIX_EPOCH + Duration::from_secs(hour * 3600 + minute * 60 + 59))
        };
        let hours = |start, end| (Minute::parse(start).unwrap(), Minute::parse(end).unwrap());
        assert!(at(0, 30).within(hours("00:30", "16:30")));
        assert!(!at(16, 30).within(hours("00:30", "16:30")));
        assert!(at(23, 0).within(hours("16:30", "00:30")));
        assert!(at(0, 29).within(hours("16:30", "00:30")));
        assert!(!at(12, 0).within(hours("16:30", "00:30")));
        assert_eq!(Minute::parse("24:00"), None);
    }
}
