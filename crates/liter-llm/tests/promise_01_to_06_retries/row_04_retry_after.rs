//! Row 4: never sooner than the provider allows; at once an error when that is too long.

use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use liter_llm::ErrorKind;

use super::*;

/// What a set of headers means.
#[derive(Clone, Copy, Debug)]
enum Allows {
    /// Another try after so many seconds.
    After(f64),
    /// Nothing: the usual wait.
    Unsaid,
    /// Later than is waited for.
    TooLate(f64),
}

type Headers = Vec<(&'static str, String)>;

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Year, month, day, hour, minute, second.
fn civil(at: f64) -> [i64; 6] {
    let seconds = at.floor() as i64;
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    [year, month, doy - (153 * mp + 2) / 5 + 1, rest / 3600, rest / 60 % 60, rest % 60]
}

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A date of HTTP in one of its three forms; the day of the week is decoration.
fn http_date(at: f64, form: usize) -> String {
    let [year, month, day, hour, minute, second] = civil(at);
    let name = MONTHS[usize::try_from(month).unwrap() - 1];
    let clock = format!("{hour:02}:{minute:02}:{second:02}");
    match form % 3 {
        0 => format!("Mon, {day:02} {name} {year} {clock} GMT"),
        1 => format!("Monday, {day:02}-{name}-{:02} {clock} GMT", year % 100),
        _ => format!("Mon {name} {day:2} {clock} {year}"),
    }
}

fn rfc3339(at: f64) -> String {
    let [year, month, day, hour, minute, second] = civil(at);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Two hundred answers, dates counted from `now`.
fn variants(now: f64) -> Vec<(Headers, Allows)> {
    use Allows::{After, TooLate, Unsaid};
    let mut all: Vec<(Headers, Allows)> = Vec::new();
    let mut add = |headers: Headers, allows| all.push((headers, allows));
    let one = |name, value: &str| vec![(name, value.to_owned())];
    // Seconds, whole and in fractions, and milliseconds: 60.
    for step in 1..=30_u32 {
        let seconds = f64::from(step) * 0.06;
        add(one("retry-after", &format!("{seconds:.2}")), After((seconds * 100.0).round() / 100.0));
        add(one("retry-after-ms", &format!("{}", step * 50)), After(f64::from(step) * 0.05));
    }
    // Both, alike or not: the finer one counts, the other where it says nothing: 24.
    for step in 1..=12_u32 {
        let (ms, seconds) = (step * 100, 1 + step % 2);
        let both = vec![("retry-after", seconds.to_string()), ("retry-after-ms", ms.to_string())];
        add(both, After(f64::from(ms) / 1000.0));
        let word = ["-1", "NaN", "", "soon"][step as usize % 4].to_owned();
        add(vec![("retry-after-ms", word), ("retry-after", seconds.to_string())], After(f64::from(seconds)));
    }
    // Dates in all forms, on clocks that are wrong by up to a day: 30.
    for (index, skew) in
        [0.0, 1.0, -1.0, 60.0, -60.0, 3600.0, -3600.0, 86_400.0, -86_400.0, 7.0].iter().enumerate()
    {
        let server = (now + skew).floor();
        for form in 0..3 {
            let wait = f64::from(u32::try_from(1 + (index + form) % 2).unwrap());
            let headers =
                vec![("date", http_date(server, 0)), ("retry-after", http_date(server + wait, form))];
            add(headers, After(wait));
        }
    }
    // Dates that have passed: 12.
    for (index, back) in [1.0, 60.0, 86_400.0, 1e9].iter().enumerate() {
        for form in 0..3 {
            let passed = http_date((now - back).max(0.0), form + index);
            add(vec![("date", http_date(now, 0)), ("retry-after", passed)], Unsaid);
        }
    }
    // What says nothing: 22.
    for word in
        ["NaN", "-1", "inf", "-inf", "", "soon", "1,5", "0x10", "Mon, 99 Nov 2026 08:00:00 GMT", "1s", "-0.5"]
    {
        add(one("retry-after", word), Unsaid);
        add(one("retry-after-ms", word), Unsaid);
    }
    // Limits that are used up, and such that are not or not known: 36.
    let requests = ("x-ratelimit-reset-requests", "x-ratelimit-remaining-requests");
    let tokens = ("x-ratelimit-reset-tokens", "x-ratelimit-remaining-tokens");
    for (text, seconds) in
        [("1s", 1.0), ("20ms", 0.02), ("900ms", 0.9), ("1.2s", 1.2), ("0m1s", 1.0), ("1", 1.0)]
    {
        for (reset, remaining) in [requests, tokens] {
            add(vec![(reset, text.to_owned()), (remaining, "0".to_owned())], After(seconds));
            add(vec![(reset, text.to_owned())], After(seconds));
        }
        let other =
            vec![(requests.0, text.to_owned()), (tokens.0, "6m0s".to_owned()), (tokens.1, "99".to_owned())];
        add(other, After(seconds));
        let unknown =
            vec![(requests.0, "-1".to_owned()), (requests.1, "-1".to_owned()), (tokens.0, "-1".to_owned())];
        add(unknown, Unsaid);
    }
    // Anthropic's: 8.
    for kind in 0..4_usize {
        let (remaining, reset) = [
            ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
            ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
            ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
            ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
        ][kind];
        let server = now.floor() + 100.0 * f64::from(u32::try_from(kind).unwrap());
        let date = ("date", http_date(server, 0));
        add(vec![date.clone(), (remaining, "0".to_owned()), (reset, rfc3339(server + 1.0))], After(1.0));
        add(vec![date, (remaining, "5".to_owned()), (reset, rfc3339(server + 9.0))], Unsaid);
    }
    // Longer than is waited for: 12.
    for (name, text, seconds) in [
        ("retry-after", "61", 61.0),
        ("retry-after", "3600", 3600.0),
        ("retry-after", "1e9", 1e9),
        ("retry-after", "1000000000", 1e9),
        ("retry-after-ms", "60001", 60.001),
        ("retry-after-ms", "1e12", 1e9),
        ("x-ratelimit-reset-requests", "6m0s", 360.0),
        ("x-ratelimit-reset-tokens", "1h2m3s", 3723.0),
        ("x-ratelimit-reset-tokens", "1e9", 1e9),
    ] {
        add(one(name, text), TooLate(seconds));
    }
    for ahead in [100.0, 86_400.0] {
        let date = ("date", http_date(now, 0));
        add(vec![date, ("retry-after", http_date(now.floor() + ahead, 0))], TooLate(ahead));
    }
    let both = vec![("retry-after", "1".to_owned()), ("retry-after-ms", "90000".to_owned())];
    add(both, TooLate(90.0));
    all
}

fn rule(sim: &Simulator, model: &str, headers: &Headers) {
    let headers: serde_json::Map<String, Value> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    // The simulator's answers bring such headers of their own, as the real ones do.
    let own = [
        "retry-after",
        "retry-after-ms",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset",
        "anthropic-ratelimit-input-tokens-remaining",
        "anthropic-ratelimit-input-tokens-reset",
        "anthropic-ratelimit-output-tokens-remaining",
        "anthropic-ratelimit-output-tokens-reset",
    ];
    let absent: Vec<&str> = own.into_iter().filter(|name| !headers.contains_key(*name)).collect();
    let answer = json!({ "status": 429, "headers": headers, "remove_headers": absent });
    fault(sim, json!({ "model": model, "nth": 1 }), answer);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_04_never_sooner_than_allowed() {
    let _alone = ALONE.lock().await;
    let sim = simulator();
    let variants = variants(now());
    assert!(variants.len() >= 200, "{}", variants.len());
    let (late, timely): (Vec<_>, Vec<_>) =
        variants.into_iter().enumerate().partition(|(_, (_, allows))| matches!(allows, Allows::TooLate(_)));
    let one = |(number, (headers, allows)): (usize, (Headers, Allows))| {
        let sim = &sim;
        async move {
            let model = format!("variant-{number}");
            rule(sim, &model, &headers);
            let provider = if number % 2 == 0 { "openai" } else { "anthropic" };
            let answer = client(config(sim, provider, &model)).generate(request()).await;
            let place = format!("{headers:?} {allows:?}");
            let answer = answer.unwrap_or_else(|error| panic!("{place}: {error:?}"));
            let sends = seen(sim, &model);
            assert_eq!(sends.len(), 2, "{place}");
            let gap = sends[1].at - sends[0].answered_at.unwrap();
            let wait = answer.attempts[1].wait.unwrap();
            match allows {
                Allows::After(seconds) => {
                    assert!(gap >= seconds && wait >= seconds, "{gap} s, too soon: {place}");
                    assert!(wait < seconds + 0.06, "{wait} s, too late: {place}");
                }
                _ => assert!(wait <= 0.5, "{wait} s: {place}"),
            }
        }
    };
    // In groups: a crowd's answers would be noticed late by a busy machine.
    let mut timely = timely.into_iter().map(one).peekable();
    while timely.peek().is_some() {
        join_all(timely.by_ref().take(70)).await;
    }
    for (number, (headers, allows)) in late {
        let Allows::TooLate(seconds) = allows else { unreachable!() };
        stalls::on_time(async |again| {
            let model = format!("variant-{number}-{again}");
            rule(&sim, &model, &headers);
            let (outcome, took) = timed(&client(config(&sim, "openai", &model)), request()).await;
            let error = outcome.unwrap_err();
            let given = error.detail().retry_after.unwrap();
            assert!((given - seconds).abs() < 1e-6, "{given} {headers:?}");
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::RateLimited, true));
            assert_eq!(seen(&sim, &model).len(), 1);
            let reason = error.detail().attempts[0].reason.clone().unwrap();
            assert_eq!(reason, "retry_after is longer than is waited for");
            if took < Duration::from_millis(100) { Ok(()) } else { Err(format!("{took:?} {headers:?}")) }
        })
        .await;
    }
}
