//! The answer to a request, the same for the same conversation whatever the wire format.

use std::ops::Range;

use serde_json::Value;

use crate::schema::Maker;

/// A tool offered in a request.
#[derive(Clone, Debug)]
pub(crate) struct Tool {
    pub name: String,
    pub schema: Value,
    /// A free-text tool (OpenAI "custom"), whose input is no JSON.
    pub custom: bool,
}

/// Which tools may or must be called.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Choice {
    #[default]
    Auto,
    None,
    Any,
    Named(String),
}

/// What the text has to be.
#[derive(Clone, Debug, Default)]
pub(crate) enum Format {
    #[default]
    Text,
    JsonObject,
    Schema(Value),
}

/// A request reduced to what decides its answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ask {
    /// Hash of model and conversation.
    pub hash: u64,
    pub text: String,
    /// Results of tools that stand after the last assistant message.
    pub results: Vec<String>,
    pub tools: Vec<Tool>,
    pub choice: Choice,
    pub parallel: bool,
    pub limit: Option<u64>,
    pub stops: Vec<String>,
    pub format: Format,
    /// Tokens of reasoning to produce; 0 for none.
    pub reasoning: usize,
    /// Non-text parts seen, in words, to be mentioned.
    pub attachments: Vec<&'static str>,
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Finish {
    Stop,
    StopSequence(String),
    Length,
    Tools,
    Refusal,
}

/// A tool call.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub id: u64,
    pub name: String,
    pub arguments: String,
    pub custom: bool,
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub hash: u64,
    pub reasoning: String,
    pub text: String,
    pub calls: Vec<Call>,
    pub finish: Finish,
    pub reasoning_tokens: u64,
    /// All tokens produced, reasoning included.
    pub tokens: u64,
}

/// A 64-bit mixer (the finaliser of splitmix64).
pub(crate) fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A hash that stays the same over versions and machines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hash(pub u64);

impl Hash {
    pub(crate) fn new(text: &str) -> Self {
        Self(0xcbf2_9ce4_8422_2325).and(text.as_bytes())
    }

    pub(crate) fn and(self, bytes: &[u8]) -> Self {
        let mut state = self.0 ^ mix(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            state = (state ^ u64::from_le_bytes(*word)).wrapping_mul(0x0100_0000_01b3).rotate_left(23);
        }
        for byte in rest {
            state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self(mix(state))
    }
}

/// Splits a text into tokens: a run of up to seven letters or digits with the blank before it, or one other character.
pub(crate) fn tokens(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::with_capacity(text.len() / 5 + 1);
    let mut start = 0;
    let mut length = 0;
    let mut in_word = false;
    for (at, c) in text.char_indices() {
        let word = c.is_alphanumeric();
        let joins =
            at == start || (word && length < 7 && (in_word || text.as_bytes().get(start..at) == Some(b" ")));
        if !joins {
            found.push(start..at);
            start = at;
            length = 0;
        }
        in_word = word;
        length += usize::from(word);
    }
    if start < text.len() {
        found.push(start..text.len());
    }
    found
}

/// About how many tokens a prompt text has.
pub(crate) fn estimate(text: &str) -> u64 {
    (text.len() as u64).div_ceil(4)
}

const OPENINGS: [&str; 6] = [
    "Here is a short answer to",
    "Let me take up",
    "Thank you for asking",
    "This is what can be said about",
    "A simulated answer to",
    "In reply to",
];
const SENTENCES: [&str; 10] = [
    "It comes down to choosing which promise matters most when parts fail.",
    "Most of the work is in naming the parts well, and the rest follows.",
    "A small example usually shows the idea better than a definition.",
    "The two sides agree on the facts and differ on the price.",
    "Measure first, then change one thing and measure again.",
    "There is a limit to each approach, and knowing it is half the answer.",
    "Simple rules, applied every time, carry further than clever exceptions.",
    "What looks like a detail at first often decides the outcome.",
    "Write it down, try it on a real case, and keep what works.",
    "In practice both are combined, one for speed and one for safety.",
];
const THOUGHTS: [&str; 6] = [
    "The question has a few parts, so I go through them one by one.",
    "First I look at what is given and what is asked.",
    "Two readings are possible; the plain one fits better.",
    "I check the result against a simple case.",
    "Nothing in the request rules this out.",
    "So the answer can be short and direct.",
];

/// The text of a refusal.
pub(crate) const REFUSAL: &str = "I'm sorry, but I can't help with that request.";

/// Whether the text asks for a refusal.
pub(crate) fn refuses(text: &str) -> bool {
    text.contains("[refuse]")
}

/// Answers.
pub(crate) fn answer(ask: &Ask) -> Answer {
    let mut out = Answer {
        hash: ask.hash,
        reasoning: String::new(),
        text: String::new(),
        calls: Vec::new(),
        finish: Finish::Stop,
        reasoning_tokens: 0,
        tokens: 0,
    };
    let mut left = ask.limit.unwrap_or(u64::MAX);
    if ask.reasoning > 0 {
        let thoughts = think(ask);
        let full = tokens(&thoughts).len() as u64;
        out.reasoning = clip(&thoughts, &mut left);
        out.reasoning_tokens = tokens(&out.reasoning).len() as u64;
        out.tokens = out.reasoning_tokens;
        if out.reasoning_tokens < full {
            out.finish = Finish::Length;
            return out;
        }
    }
    if refuses(&ask.text) {
        REFUSAL.clone_into(&mut out.text);
        out.finish = Finish::Refusal;
        out.tokens += tokens(REFUSAL).len() as u64;
        return out;
    }
    let calls = choose_calls(ask);
    if !calls.is_empty() {
        out.finish = Finish::Tools;
        for mut call in calls {
            let full = call.arguments.len();
            call.arguments = clip(&call.arguments, &mut left);
            out.tokens += tokens(&call.arguments).len() as u64 + 4;
            let cut = call.arguments.len() < full;
            out.calls.push(call);
            if cut {
                out.finish = Finish::Length;
                break;
            }
        }
        return out;
    }
    let mut text = compose(ask);
    let first = ask
        .stops
        .iter()
        .filter(|s| !s.is_empty())
        .filter_map(|s| text.find(s.as_str()).map(|at| (at, s)))
        .min_by_key(|f| f.0);
    if let Some((at, stop)) = first {
        text.truncate(at);
        out.finish = Finish::StopSequence(stop.clone());
    }
    let full = text.len();
    out.text = clip(&text, &mut left);
    if out.text.len() < full {
        out.finish = Finish::Length;
    }
    out.tokens += tokens(&out.text).len() as u64;
    out
}

/// As much of `text` as fits into `left` tokens.
fn clip(text: &str, left: &mut u64) -> String {
    let parts = tokens(text);
    let keep = usize::try_from(*left).unwrap_or(usize::MAX).min(parts.len());
    *left -= (keep as u64).min(*left);
    let end = keep.checked_sub(1).and_then(|i| parts.get(i)).map_or(0, |r| r.end);
    text.get(..end).unwrap_or_default().to_owned()
}

fn think(ask: &Ask) -> String {
    let mut text = String::new();
    let start = mix(ask.hash ^ 0x0074_6869_6e6b) as usize >> 3;
    for step in 0..ask.reasoning.div_ceil(14) {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(THOUGHTS[start.wrapping_add(step) % THOUGHTS.len()]);
    }
    text
}

/// The number in a `[name=N]` mark of the text.
fn mark(text: &str, name: &str) -> Option<usize> {
    let rest = text.split_once(&format!("[{name}="))?.1;
    rest.split_once(']')?.0.trim().parse().ok()
}

fn compose(ask: &Ask) -> String {
    match &ask.format {
        Format::Schema(schema) => {
            return Maker::new(schema, &ask.text, ask.hash, 0).value().to_string();
        }
        Format::JsonObject => {
            let answer = plain(ask);
            return serde_json::json!({"answer": answer, "score": mix(ask.hash) % 100}).to_string();
        }
        Format::Text => {}
    }
    plain(ask)
}

fn plain(ask: &Ask) -> String {
    if !ask.results.is_empty() {
        return format!("The tool gave this result: {}.", ask.results.join("; "));
    }
    if let Some((_, echo)) = ask.text.split_once("[echo]") {
        return echo.trim().to_owned();
    }
    let mut state = mix(ask.hash);
    if let Some(count) = mark(&ask.text, "tokens") {
        return counted(count.min(1_000_000));
    }
    let mut text = String::with_capacity(400);
    text.push_str(OPENINGS[state as usize % OPENINGS.len()]);
    text.push_str(" \"");
    let quoted = ask.text.trim();
    text.extend(quoted.chars().take(160));
    if quoted.chars().nth(160).is_some() {
        text.push('…');
    }
    text.push_str("\".");
    for attachment in &ask.attachments {
        text.push_str(" I have looked at the ");
        text.push_str(attachment);
        text.push('.');
    }
    state = mix(state);
    let start = state as usize;
    for step in 0..3 {
        text.push(' ');
        text.push_str(SENTENCES[start.wrapping_add(step * 3) % SENTENCES.len()]);
    }
    text
}

/// A text of exactly `count` tokens.
fn counted(count: usize) -> String {
    const WORDS: [&str; 8] = ["one", "after", "the", "other", "words", "go", "by", "slowly"];
    let mut text = String::with_capacity(count * 6);
    for index in 0..count {
        if index > 0 {
            text.push(' ');
        }
        text.push_str(WORDS[index % WORDS.len()]);
    }
    text
}

fn choose_calls(ask: &Ask) -> Vec<Call> {
    let text = ask.text.to_lowercase();
    let chosen: Vec<&Tool> = match &ask.choice {
        Choice::None => return Vec::new(),
        Choice::Named(name) => ask.tools.iter().filter(|t| t.name == *name).take(1).collect(),
        Choice::Any if !ask.tools.is_empty() => {
            let named: Vec<&Tool> = ask.tools.iter().filter(|t| mentions(&text, &t.name)).collect();
            if named.is_empty() { ask.tools.iter().take(1).collect() } else { named }
        }
        Choice::Any => return Vec::new(),
        Choice::Auto if !ask.results.is_empty() => return Vec::new(),
        Choice::Auto => ask.tools.iter().filter(|t| mentions(&text, &t.name)).collect(),
    };
    let Some(first) = chosen.first() else {
        return Vec::new();
    };
    let asks_two =
        text.split(|c: char| !c.is_alphanumeric()).any(|w| matches!(w, "two" | "both" | "parallel" | "each"));
    let several = ask.parallel && !matches!(ask.choice, Choice::Named(_));
    if several && chosen.len() > 1 {
        chosen.iter().enumerate().map(|(i, tool)| call(ask, tool, i, 0)).collect()
    } else if several && asks_two {
        vec![call(ask, first, 0, 0), call(ask, first, 1, 1)]
    } else {
        vec![call(ask, first, 0, 0)]
    }
}

fn call(ask: &Ask, tool: &Tool, position: usize, variant: usize) -> Call {
    let id = mix(ask.hash ^ mix(position as u64 + 1));
    let arguments = if tool.custom {
        ask.text.trim().to_owned()
    } else {
        Maker::new(&tool.schema, &ask.text, id, variant).value().to_string()
    };
    Call { id, name: tool.name.clone(), arguments, custom: tool.custom }
}

/// Whether the lower-case text names the tool, or one of the telling words in its name.
fn mentions(text: &str, name: &str) -> bool {
    let name = name.to_lowercase();
    if text.contains(&name) || text.contains(&name.replace('_', " ")) {
        return true;
    }
    name.split(['_', '-', '.']).any(|part| {
        part.len() >= 3
            && !matches!(
                part,
                "get"
                    | "set"
                    | "the"
                    | "for"
                    | "tool"
                    | "call"
                    | "find"
                    | "fetch"
                    | "make"
                    | "list"
                    | "run"
                    | "current"
                    | "and"
                    | "from"
            )
            && text.split(|c: char| !c.is_alphanumeric()).any(|word| word == part)
    })
}

/// A 64-bit value as letters and digits, `length` long.
pub(crate) fn letters(value: u64, length: usize) -> String {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut state = value;
    (0..length)
        .map(|i| {
            if i % 8 == 0 {
                state = mix(state);
            }
            let c = ALPHABET[(state >> (8 * (i % 8))) as usize % 62];
            char::from(c)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_cover_the_text() {
        for text in ["", " ", "Hello, world! extraordinarily", "日本語 text\n\n  x", "a  b"] {
            let joined: String = tokens(text).into_iter().map(|r| &text[r]).collect();
            assert_eq!(joined, text);
        }
        assert_eq!(tokens(&counted(50)).len(), 50);
    }

    #[test]
    fn limit_and_stop() {
        let mut ask = Ask { text: "Say hello".to_owned(), hash: 7, ..Ask::default() };
        let full = answer(&ask);
        assert_eq!(full.finish, Finish::Stop);
        ask.limit = Some(5);
        let short = answer(&ask);
        assert_eq!((short.tokens, short.finish.clone()), (5, Finish::Length));
        assert!(full.text.starts_with(&short.text));
        ask.limit = None;
        ask.stops = vec!["hello".to_owned()];
        assert_eq!(answer(&ask).finish, Finish::StopSequence("hello".to_owned()));
    }
}
