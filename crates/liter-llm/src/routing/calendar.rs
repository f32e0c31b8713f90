//! Windows of the calendar: hours, days and months in UTC.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::ledger::Window;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// How long a budget lasts: windows of the calendar, in UTC.
///
/// ```
/// use liter_llm::Per;
///
/// let window = Per::Hour.window(7_300);
/// assert_eq!((window.start, window.end, Per::Hour.as_str()), (7_200, 10_800, "hour"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Per {
    /// From the full hour.
    Hour,
    /// From midnight.
    Day,
    /// From the first of the month.
    Month,
}

impl Per {
    /// Its name in configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
        }
    }

    /// The window that this second since 1970 lies in.
    #[must_use]
    pub const fn window(self, second: i64) -> Window {
        let (start, end) = match self {
            Self::Hour => {
                let start = second - second.rem_euclid(HOUR);
                (start, start + HOUR)
            }
            Self::Day => {
                let start = second - second.rem_euclid(DAY);
                (start, start + DAY)
            }
            Self::Month => {
                let (year, month, _) = date(second.div_euclid(DAY));
                let (next_year, next) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
                (first_of(year, month) * DAY, first_of(next_year, next) * DAY)
            }
        };
        Window { start, end }
    }
}

/// Days from 1970 to the first of a month of the Gregorian calendar.
const fn first_of(year: i64, month: i64) -> i64 {
    // Years that begin in March have the leap day at their end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    days + (153 * month + 2) / 5 - 719_468
}

/// Year, month and day of a day since 1970.
const fn date(day: i64) -> (i64, i64, i64) {
    // A guess that is never too late, then forward.
    let mut year = 1970 + day.div_euclid(366) - 1;
    while first_of(year + 1, 1) <= day {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && first_of(year, month + 1) <= day {
        month += 1;
    }
    (year, month, day - first_of(year, month) + 1)
}

/// A second since 1970 as people read it: `2026-03-01T00:00:00Z`.
#[must_use]
pub fn shown(second: i64) -> String {
    let (year, month, day) = date(second.div_euclid(DAY));
    let rest = second.rem_euclid(DAY);
    let (hour, minute, second) = (rest / HOUR, rest % HOUR / 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Tells the date.
pub trait Calendar: Send + Sync {
    /// The time now.
    fn now(&self) -> SystemTime;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemCalendar;

impl Calendar for SystemCalendar {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_follow_the_calendar() {
        // 2024-02-29T23:59:59Z and the second after
        let leap = 1_709_251_199;
        assert_eq!(shown(leap), "2024-02-29T23:59:59Z");
        let window = |per: Per, second| {
            let Window { start, end } = per.window(second);
            (shown(start), shown(end))
        };
        let is =
            |(start, end): (String, String), from: &str, to: &str| assert_eq!((&*start, &*end), (from, to));
        is(window(Per::Hour, leap), "2024-02-29T23:00:00Z", "2024-03-01T00:00:00Z");
        is(window(Per::Day, leap), "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z");
        is(window(Per::Month, leap), "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z");
        is(window(Per::Month, leap + 1), "2024-03-01T00:00:00Z", "2024-04-01T00:00:00Z");
        is(window(Per::Month, 1_798_761_599), "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z");
        is(window(Per::Day, 0), "1970-01-01T00:00:00Z", "1970-01-02T00:00:00Z");
    }

    #[test]
    fn every_second_is_in_its_window_and_windows_meet() {
        for per in [Per::Hour, Per::Day, Per::Month] {
            let mut second = 0;
            // To the year 2100 by uneven steps, and then along the windows for a while.
            while second < 4_102_444_800 {
                let window = per.window(second);
                assert!(window.start <= second && second < window.end);
                assert_eq!(per.window(window.end - 1), window);
                assert_eq!(per.window(window.end).start, window.end);
                second += 7_654_321;
            }
        }
    }
}
