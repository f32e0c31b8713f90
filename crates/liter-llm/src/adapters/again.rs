//! When a provider allows another try: `retry-after-ms`, `retry-after`, and the resets of rate limits, against the
//! server's own clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;

/// Seconds after which the provider allows another try.
///
/// In this order, the first that says something:
/// 1. `retry-after-ms`: milliseconds, fractions allowed (OpenAI, Azure).
/// 2. `retry-after`: seconds, fractions allowed, or an HTTP date (RFC 9110, section 10.2.3).
/// 3. With status 429, the resets of those limits that are used up: `x-ratelimit-reset-*` beside
///    `x-ratelimit-remaining-*` as durations such as `1s`, `6m0s`, `20ms` (OpenAI, Groq), as seconds or as the time
///    since 1970 in seconds or milliseconds (OpenRouter); `anthropic-ratelimit-*-reset` as RFC 3339. The latest of
///    several counts. Limits with something remaining are not what refused the request.
///
/// Negative, infinite and unreadable values say nothing: Azure sends `-1` for limits it does not know. Dates are
/// counted from the answer's own `date` where there is one, else from `now`, so that a clock that is wrong on either
/// side does no harm. A date that has passed is 0.
#[must_use]
pub fn retry_after(status: u16, headers: &HeaderMap, now: SystemTime) -> Option<f64> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let now = text("date").and_then(http_date).unwrap_or(now);
    let until = |date: SystemTime| date.duration_since(now).map_or(0.0, |wait| wait.as_secs_f64());
    if let Some(milliseconds) = text("retry-after-ms").and_then(number) {
        return Some(milliseconds / 1000.0);
    }
    if let Some(value) = text("retry-after")
        && let Some(seconds) = number(value).or_else(|| http_date(value).map(until))
    {
        return Some(seconds);
    }
    if status != 429 {
        return None;
    }
    let reset = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let (value, name) = (value.to_str().ok()?.trim(), name.as_str());
        if let Some(limit) = name.strip_prefix("x-ratelimit-reset").or(name.strip_prefix("ratelimit-reset")) {
            let kind = name.strip_suffix(limit)?.strip_suffix("reset")?;
            return used_up(text(&format!("{kind}remaining{limit}")))
                .then(|| span(value).or_else(|| since_1970(value, now)))?;
        }
        let limit = name.strip_prefix("anthropic-ratelimit-")?.strip_suffix("-reset")?;
        let remaining = text(&format!("anthropic-ratelimit-{limit}-remaining"));
        used_up(remaining).then(|| rfc3339(value).map(until))?
    };
    headers.iter().filter_map(reset).reduce(f64::max)
}

fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|number| number.is_finite() && *number >= 0.0)
}

/// Whether a limit may be the one that refused the request: nothing remains, or what remains is not said.
fn used_up(remaining: Option<&str>) -> bool {
    match remaining.map(str::parse::<f64>) {
        None => true,
        // Less than nothing is Azure's way of not knowing.
        Some(Ok(remaining)) => remaining == 0.0,
        Some(Err(_)) => false,
    }
}

/// The smallest number that is read as a time since 1970 rather than as a duration: in seconds, July 2017.
const EPOCH_SECONDS: f64 = 1.5e9;

/// A point in time in seconds or milliseconds since 1970, as seconds from `now` on.
fn since_1970(text: &str, now: SystemTime) -> Option<f64> {
    let number = number(text).filter(|number| *number >= EPOCH_SECONDS)?;
    let seconds = if number >= EPOCH_SECONDS * 1000.0 { number / 1000.0 } else { number };
    Some((seconds - now.duration_since(UNIX_EPOCH).ok()?.as_secs_f64()).max(0.0))
}

/// A duration: seconds, or numbers with units as in `1h2m3.5s` and `20ms`.
fn span(text: &str) -> Option<f64> {
    if let Some(seconds) = number(text) {
        return (seconds < EPOCH_SECONDS).then_some(seconds);
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let amount = number(&rest[..end])?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "d" => 86_400.0,
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "\u{b5}s" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += amount * unit;
        rest = &rest[end..];
    }
    (!text.is_empty()).then_some(total)
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Reads the three forms of a date in HTTP (RFC 9110, section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`, and the two old
/// ones, `Sunday, 06-Nov-94 08:49:37 GMT` and `Sun Nov  6 08:49:37 1994`.
fn http_date(text: &str) -> Option<SystemTime> {
    let mut words = text.split([' ', ',']).filter(|word| !word.is_empty());
    words.next().filter(|day| day.len() >= 3 && day.bytes().all(|byte| byte.is_ascii_alphabetic()))?;
    let second = words.next()?;
    let (day, month, year, clock) = if MONTHS.contains(&second) {
        let (day, clock, year) = (words.next()?, words.next()?, words.next()?);
        (day, second, year.parse().ok()?, clock)
    } else if let Some((day, rest)) = second.split_once('-') {
        let (month, year) = rest.split_once('-')?;
        let year: i64 = year.parse().ok().filter(|_| year.len() == 2)?;
        // More than fifty years ahead is the century before; what was written in 2026 knows no 1976 to come.
        let year = if year < 70 { 2000 + year } else { 1900 + year };
        let clock = words.next()?;
        words.next().filter(|zone| *zone == "GMT")?;
        (day, month, year, clock)
    } else {
        let (month, year, clock) = (words.next()?, words.next()?, words.next()?);
        words.next().filter(|zone| *zone == "GMT")?;
        (second, month, year.parse().ok()?, clock)
    };
    if words.next().is_some() {
        return None;
    }
    let month = MONTHS.iter().zip(1_i64..).find_map(|(name, number)| (*name == month).then_some(number))?;
    let seconds = of_date(year, month, day.parse().ok()?)?.checked_add(of_clock(clock)?.0)?;
    Some(UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// Reads `2026-11-23T12:00:05Z`, with fractions and offsets (RFC 3339).
fn rfc3339(text: &str) -> Option<SystemTime> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let mut date = date.splitn(3, '-');
    let (year, month, day) = (date.next()?, date.next()?, date.next()?);
    let days = of_date(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?)?;
    let place = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(place);
    let offset = match zone.split_at(1) {
        ("Z" | "z", "") => 0,
        (sign @ ("+" | "-"), offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let offset = hours.parse::<i64>().ok()? * 3600 + minutes.parse::<i64>().ok()? * 60;
            if sign == "+" { offset } else { -offset }
        }
        _ => return None,
    };
    let (clock, fraction) = of_clock(clock)?;
    let seconds = u64::try_from(days + clock - offset).ok()?;
    Some(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_secs_f64(fraction))
}

/// Seconds since midnight and the fraction of `08:49:37.5`.
fn of_clock(text: &str) -> Option<(i64, f64)> {
    let (text, fraction) = match text.split_once('.') {
        Some((text, digits)) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            (text, format!("0.{digits}").parse().ok()?)
        }
        Some(_) => return None,
        None => (text, 0.0),
    };
    let mut parts = text.split(':').map(|part| part.parse::<i64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let valid = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..=60).contains(&second);
    (valid && parts.next().is_none()).then_some((hour * 3600 + minute * 60 + second, fraction))
}

/// Seconds from 1970 to the midnight that begins a date of the Gregorian calendar.
fn of_date(year: i64, month: i64, day: i64) -> Option<i64> {
    if !((1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day)) {
        return None;
    }
    // Days since 1970-01-01 in the proleptic Gregorian calendar, years counted from March.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(days * 86_400)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: u64 = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT

    fn read_with(status: u16, pairs: &[(&'static str, &str)]) -> Option<f64> {
        let headers = pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        retry_after(status, &headers, UNIX_EPOCH + Duration::from_secs(NOW))
    }

    fn read(pairs: &[(&'static str, &str)]) -> Option<f64> {
        read_with(429, pairs)
    }

    #[test]
    fn retry_after_in_all_forms() {
        assert_eq!(read(&[("retry-after", "2")]), Some(2.0));
        assert_eq!(read(&[("retry-after", " 0.25 ")]), Some(0.25));
        assert_eq!(read(&[("retry-after", "1e9")]), Some(1e9));
        assert_eq!(read(&[("retry-after", "5"), ("retry-after-ms", "1500")]), Some(1.5));
        assert_eq!(read(&[("retry-after", "5"), ("retry-after-ms", "-1")]), Some(5.0));
        for date in
            ["Sun, 06 Nov 1994 08:49:40 GMT", "Sunday, 06-Nov-94 08:49:40 GMT", "Sun Nov  6 08:49:40 1994"]
        {
            assert_eq!(read(&[("retry-after", date)]), Some(3.0), "{date}");
        }
        assert_eq!(read(&[("retry-after", "Sun, 06 Nov 1994 08:49:30 GMT")]), Some(0.0));
        for nonsense in [
            "-1",
            "NaN",
            "inf",
            "soon",
            "Sun, 99 Nov 1994 08:49:30 GMT",
            "",
            "Sun, 06 Nov 1994 08:49:30",
            "1,5",
        ] {
            assert_eq!(read(&[("retry-after", nonsense)]), None, "{nonsense}");
        }
    }

    #[test]
    fn the_servers_clock_counts() {
        // A server an hour ahead: three seconds are three seconds.
        let date = ("date", "Sun, 06 Nov 1994 09:49:37 GMT");
        assert_eq!(read(&[date, ("retry-after", "Sun, 06 Nov 1994 09:49:40 GMT")]), Some(3.0));
        assert_eq!(
            read(&[date, ("anthropic-ratelimit-requests-reset", "1994-11-06T09:49:39.5Z")]),
            Some(2.5)
        );
        assert_eq!(read(&[date, ("retry-after", "3")]), Some(3.0));
    }

    #[test]
    fn resets_of_used_up_limits_count() {
        for (text, seconds) in [
            ("1s", 1.0),
            ("6m0s", 360.0),
            ("20ms", 0.02),
            ("1h2m3.5s", 3723.5),
            ("2m59.56s", 179.56),
            ("1d", 86_400.0),
            ("7", 7.0),
            ("784111787", 784_111_787.0),
        ] {
            let got = read(&[("x-ratelimit-reset-requests", text), ("x-ratelimit-remaining-requests", "0")]);
            assert!((got.unwrap() - seconds).abs() < 1e-9, "{text}: {got:?}");
        }
        for nonsense in ["-1", "NaN", "1x", "s", "", "1s-", "--"] {
            assert_eq!(read(&[("x-ratelimit-reset-requests", nonsense)]), None, "{nonsense}");
        }
        let tokens = ("x-ratelimit-reset-tokens", "6m0s");
        let requests = ("x-ratelimit-reset-requests", "1s");
        assert_eq!(read(&[tokens, requests]), Some(360.0));
        assert_eq!(read(&[tokens, requests, ("x-ratelimit-remaining-tokens", "17")]), Some(1.0));
        assert_eq!(read(&[tokens, ("x-ratelimit-remaining-tokens", "-1")]), None);
        assert_eq!(read(&[tokens, ("retry-after", "2")]), Some(2.0));
        assert_eq!(read_with(503, &[tokens]), None);
        assert_eq!(
            read(&[
                ("anthropic-ratelimit-input-tokens-remaining", "0"),
                ("anthropic-ratelimit-input-tokens-reset", "1994-11-06T09:49:41+01:00"),
                ("anthropic-ratelimit-requests-remaining", "49"),
                ("anthropic-ratelimit-requests-reset", "1994-11-06T08:59:37Z"),
            ]),
            Some(4.0)
        );
    }

    #[test]
    fn resets_since_1970() {
        let at = |now: u64, value: &str| {
            let headers = [(http::HeaderName::from_static("x-ratelimit-reset"), value.parse().unwrap())];
            retry_after(429, &headers.into_iter().collect(), UNIX_EPOCH + Duration::from_secs(now))
        };
        assert_eq!(at(1_741_305_590, "1741305600000"), Some(10.0));
        assert_eq!(at(1_741_305_590, "1741305600"), Some(10.0));
        assert_eq!(at(1_741_305_690, "1741305600"), Some(0.0));
    }
}
