//! What happens in the day: the calls, the hosts, and what becomes of each call at each host. All of it follows from the
//! seed, and not from the policy: a call meets the same fate at the same host at the same time under every policy.

use std::time::Duration;

/// A host: how long it takes, what it charges (US dollars for a million tokens), what it cannot do.
#[derive(Debug, Clone, Copy)]
pub struct Host {
    /// Its name.
    pub name: &'static str,
    /// Seconds to the first token.
    pub first: f64,
    /// Seconds for each token of the answer.
    pub per_token: f64,
    /// The price of input.
    pub input: f64,
    /// The price of output.
    pub output: f64,
    /// Whether it can use tools.
    pub tools: bool,
    /// How far its times rise and fall in the course of the day, as a share of the usual.
    pub drift: f64,
    /// Hours in which they rise and fall once.
    pub period: f64,
}

/// Four hosts. Which one is fastest changes with their drifts; which of `south` and `west` is cheaper depends on the
/// tokens of the call, and `west` cannot use tools.
pub const HOSTS: [Host; 4] = [
    Host {
        name: "north",
        first: 0.35,
        per_token: 0.004,
        input: 0.60,
        output: 2.40,
        tools: true,
        drift: 0.30,
        period: 5.0,
    },
    Host {
        name: "east",
        first: 0.30,
        per_token: 0.006,
        input: 0.50,
        output: 2.00,
        tools: true,
        drift: 0.35,
        period: 7.0,
    },
    Host {
        name: "south",
        first: 0.50,
        per_token: 0.008,
        input: 0.15,
        output: 0.60,
        tools: true,
        drift: 0.25,
        period: 9.0,
    },
    Host {
        name: "west",
        first: 0.45,
        per_token: 0.007,
        input: 0.25,
        output: 0.40,
        tools: false,
        drift: 0.35,
        period: 3.0,
    },
];

/// The spread of one host's times around what is usual for the call: the standard deviation of their logarithm. A
/// call's own length comes on top, and is the same everywhere.
const SPREAD: f64 = 0.2;

/// The share of calls that meet a `500` on a good day.
const SPORADIC: f64 = 0.001;

/// The share of calls that a `429` storm refuses.
const STORM: f64 = 0.7;

/// How much slower a spike makes a host.
const SPIKE: f64 = 6.0;

/// The share of calls that need tools.
const TOOLS: f64 = 0.2;

/// The limit for a whole call.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// What can come over a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Connections are refused; those that stand break.
    Refused,
    /// Every call is answered with a `503`.
    Errors,
    /// No call is answered.
    Hang,
    /// Most calls are answered with a `429` that asks for five seconds.
    Storm,
    /// Answers take six times as long.
    Spike,
}

impl Kind {
    /// Whether no call is answered meanwhile.
    #[must_use]
    pub const fn is_outage(self) -> bool {
        matches!(self, Self::Refused | Self::Errors | Self::Hang)
    }
}

/// Something that comes over a host, in seconds of the day.
#[derive(Debug, Clone, Copy)]
pub struct Event {
    /// The host's position.
    pub host: usize,
    /// What it is.
    pub kind: Kind,
    /// When it begins.
    pub from: f64,
    /// When it is over.
    pub to: f64,
}

/// A call.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// When it sets out.
    pub at: f64,
    /// Tokens of its prompt.
    pub input: u64,
    /// Tokens of its answer.
    pub output: u64,
    /// The bound it names.
    pub max_tokens: u64,
    /// Whether it needs tools.
    pub tools: bool,
}

/// What becomes of a call at a host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fate {
    /// An answer after so many seconds.
    Answer(f64),
    /// A failure after so many seconds, through this event if it is one.
    Failure(f64, Failure, Option<usize>),
    /// Nothing, through this event.
    Silence(usize),
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection.
    Refused,
    /// The connection broke.
    Broken,
    /// A `500`.
    Status,
    /// A `429`.
    Limit,
}

/// The day.
#[derive(Debug, Clone)]
pub struct Scenario {
    seed: u64,
    /// Whether the calls are streams, timed by their first chunk.
    pub streamed: bool,
    /// How long it lasts, in seconds.
    pub length: f64,
    /// The calls in their order.
    pub calls: Vec<Call>,
    /// What comes over the hosts.
    pub events: Vec<Event>,
}

/// A number from the seed and a place in the day: 64 bits of which any are as good (splitmix64).
fn bits(seed: u64, of: [u64; 3]) -> u64 {
    of.iter().fold(seed, |state, part| {
        let mut mixed =
            (state ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93)).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

/// A number from 0 up to 1.
fn share(seed: u64, of: [u64; 3]) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "53 bits")]
    let share = (bits(seed, of) >> 11) as f64 / (1_u64 << 53) as f64;
    share
}

/// A number whose logarithm is normally distributed around 0.
fn spread(seed: u64, of: [u64; 2], deviation: f64) -> f64 {
    let (radius, angle) = (1.0 - share(seed, [of[0], of[1], 1]), share(seed, [of[0], of[1], 2]));
    (deviation * (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()).exp()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn tokens(value: f64, least: f64, most: f64) -> u64 {
    value.clamp(least, most) as u64
}

const ARRIVALS: u64 = 101;
const INPUT: u64 = 102;
const OUTPUT: u64 = 103;
const BOUND: u64 = 104;
const NEEDS: u64 = 105;
const EVENTS: u64 = 106;
const LUCK: u64 = 200;
const TIMES: u64 = 300;
const LIMITED: u64 = 400;

impl Scenario {
    /// So many hours of a day that has `calls_a_day`. Every half hour something comes over a host: the five kinds in
    /// turn, each for 3 to 15 minutes. Every six hours there are five minutes in which all hosts but one are out, each
    /// in another way, and 90 seconds in which all are.
    #[must_use]
    pub fn new(seed: u64, hours: f64, calls_a_day: f64, streamed: bool) -> Self {
        let length = hours * 3600.0;
        Self { seed, streamed, length, calls: calls(seed, length, calls_a_day), events: events(seed, length) }
    }

    /// What is over a host at that time.
    fn over(&self, host: usize, at: f64) -> Option<usize> {
        self.events.iter().position(|event| event.host == host && event.from <= at && at < event.to)
    }

    /// How long a host takes for a call that sets out at that time, when nothing goes wrong. `bound`: the most tokens
    /// that are asked for.
    #[must_use]
    pub fn time(&self, call: usize, host: usize, at: f64, bound: u64) -> f64 {
        self.expected(call, host, at, bound) * spread(self.seed, [TIMES + host as u64, call as u64], SPREAD)
    }

    /// The same without luck: what can be known of it beforehand.
    #[must_use]
    pub fn expected(&self, call: usize, host: usize, at: f64, bound: u64) -> f64 {
        let Host { first, per_token, drift, period, .. } = HOSTS[host];
        let written = if self.streamed { 0 } else { self.calls[call].output.min(bound) };
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let usual = per_token.mul_add(written as f64, first);
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let phase = host as f64;
        let drifted = drift.mul_add((std::f64::consts::TAU * (at / 3600.0 / period) + phase).sin(), 1.0);
        let spike = match self.over(host, at) {
            Some(event) if self.events[event].kind == Kind::Spike => SPIKE,
            _ => 1.0,
        };
        usual * drifted * spike
    }

    /// What becomes of a call that reaches a host at that time.
    #[must_use]
    pub fn fate(&self, call: usize, host: usize, at: f64, bound: u64) -> Fate {
        let luck = |of: u64| share(self.seed, [of + host as u64, call as u64, 0]);
        let over = self.over(host, at);
        match over.map(|event| (event, self.events[event].kind)) {
            Some((event, Kind::Refused)) => return Fate::Failure(0.001, Failure::Refused, Some(event)),
            Some((event, Kind::Errors)) => return Fate::Failure(0.15, Failure::Status, Some(event)),
            Some((event, Kind::Hang)) => return Fate::Silence(event),
            Some((event, Kind::Storm)) if luck(LIMITED) < STORM => {
                return Fate::Failure(0.05, Failure::Limit, Some(event));
            }
            _ if luck(LUCK) < SPORADIC => return Fate::Failure(0.15, Failure::Status, None),
            _ => {}
        }
        let time = self.time(call, host, at, bound);
        let cut = self.events.iter().position(|event| {
            event.host == host && event.kind.is_outage() && at < event.from && event.from < at + time
        });
        match cut.map(|event| (event, self.events[event])) {
            None => Fate::Answer(time),
            Some((event, Event { kind: Kind::Hang, .. })) => Fate::Silence(event),
            Some((event, Event { kind, from, .. })) => {
                let failure = if kind == Kind::Refused { Failure::Broken } else { Failure::Status };
                Fate::Failure(from - at, failure, Some(event))
            }
        }
    }

    /// What a host charges for a call, in US dollars. `bound`: the most tokens that were asked for.
    #[must_use]
    pub fn price(&self, call: usize, host: usize, bound: u64) -> f64 {
        let Call { input, output, .. } = self.calls[call];
        #[allow(clippy::cast_precision_loss, reason = "small numbers")]
        let (input, output) = (input as f64, output.min(bound) as f64);
        HOSTS[host].input.mul_add(input, HOSTS[host].output * output) / 1e6
    }

    /// The hosts that would have answered this call, had it been sent there as it set out, with time and price.
    pub fn answers(&self, call: usize) -> impl Iterator<Item = (usize, f64, f64)> {
        let Call { at, tools, max_tokens, .. } = self.calls[call];
        (0..HOSTS.len()).filter(move |host| HOSTS[*host].tools || !tools).filter_map(move |host| {
            match self.fate(call, host, at, max_tokens) {
                Fate::Answer(time) => Some((host, time, self.price(call, host, max_tokens))),
                _ => None,
            }
        })
    }
}

/// Arrivals by chance, half as many at the quietest hour as on average and half as many again at the busiest.
fn calls(seed: u64, length: f64, calls_a_day: f64) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut at = 0.0;
    loop {
        let number = calls.len() as u64;
        let rate =
            calls_a_day / 86_400.0 * 0.5_f64.mul_add((std::f64::consts::TAU * at / 21_600.0).sin(), 1.0);
        at -= (1.0 - share(seed, [ARRIVALS, number, 0])).ln() / rate;
        if at >= length {
            return calls;
        }
        let output = 120.0 * spread(seed, [OUTPUT, number], 0.5);
        calls.push(Call {
            at,
            input: tokens(400.0 * spread(seed, [INPUT, number], 0.7), 20.0, 4000.0),
            output: tokens(output, 16.0, 1000.0),
            max_tokens: tokens(output * (1.0 + share(seed, [BOUND, number, 0])), 32.0, 2000.0),
            tools: share(seed, [NEEDS, number, 0]) < TOOLS,
        });
    }
}

fn events(seed: u64, length: f64) -> Vec<Event> {
    const TURNS: [Kind; 5] = [Kind::Refused, Kind::Storm, Kind::Hang, Kind::Spike, Kind::Errors];
    const OUT: [Kind; 3] = [Kind::Refused, Kind::Hang, Kind::Errors];
    let mut events = Vec::new();
    let mut number = 0_u64;
    let mut begin = 600.0;
    while begin + 1200.0 <= length {
        let turn = usize::try_from(number).unwrap_or_default();
        if turn % 12 == 11 {
            let spared = usize::try_from(bits(seed, [EVENTS, number, 3]) % 2).unwrap_or_default() + 1;
            let out = (0..HOSTS.len()).filter(|host| *host != spared).zip(OUT);
            events.extend(out.map(|(host, kind)| Event { host, kind, from: begin, to: begin + 300.0 }));
            let all = begin + 900.0;
            let kinds = OUT.into_iter().cycle();
            events.extend((0..HOSTS.len()).zip(kinds).map(|(host, kind)| Event {
                host,
                kind,
                from: all,
                to: all + 90.0,
            }));
        } else {
            let from = begin + 300.0 * share(seed, [EVENTS, number, 0]);
            let lasts = 180.0 + 720.0 * share(seed, [EVENTS, number, 1]);
            let host = usize::try_from(bits(seed, [EVENTS, number, 2]) % 4).unwrap_or_default();
            events.push(Event { host, kind: TURNS[turn % TURNS.len()], from, to: from + lasts });
        }
        number += 1;
        begin += 1800.0;
    }
    events
}
