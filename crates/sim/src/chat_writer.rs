//! Chat completions as JSON and as stream chunks.

use crate::answer::{self, Answer, Finish, Hash, letters, mix};
use crate::reply::{FrameKind, Frames, json};

/// What a checked request asks for beside its text.
pub(crate) struct Wanted {
    pub n: usize,
    pub stream: bool,
    pub include_usage: bool,
    pub logprobs: Option<usize>,
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub tier: Option<String>,
}

fn finish_word(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopSequence(_) | Finish::Refusal => "stop",
        Finish::Length => "length",
        Finish::Tools => "tool_calls",
    }
}

const SAFE: &str = r#"{"hate":{"filtered":false,"severity":"safe"},"self_harm":{"filtered":false,"severity":"safe"},"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":false,"severity":"safe"}}"#;

/// Writes answers as chat JSON. By hand, because this is the path that has to be fast.
pub(crate) struct Writer<'a> {
    pub id: String,
    pub created: u64,
    pub model: &'a str,
    pub fingerprint: String,
    pub azure: bool,
    pub reasoning: Option<&'static str>,
    pub wanted: &'a Wanted,
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

impl Writer<'_> {
    fn head(&self, out: &mut Vec<u8>, object: &str) {
        put(out, "{\"id\":\"");
        put(out, &self.id);
        put(out, "\",\"object\":\"");
        put(out, object);
        put(out, "\",\"created\":");
        json(out, &self.created);
        put(out, ",\"model\":");
        json(out, self.model);
        if let Some(tier) = &self.wanted.tier {
            put(out, ",\"service_tier\":");
            json(out, tier);
        }
        put(out, ",\"system_fingerprint\":\"fp_");
        put(out, &self.fingerprint);
        put(out, "\"");
    }

    fn usage(&self, out: &mut Vec<u8>, answers: &[Answer]) {
        let completion: u64 = answers.iter().map(|a| a.tokens).sum();
        let reasoning: u64 = answers.iter().map(|a| a.reasoning_tokens).sum();
        let prompt = self.wanted.prompt_tokens;
        put(
            out,
            &format!(
                "{{\"prompt_tokens\":{prompt},\"completion_tokens\":{completion},\"total_tokens\":{},\"prompt_tokens_details\":{{\"cached_tokens\":{},\"audio_tokens\":0}},\"completion_tokens_details\":{{\"reasoning_tokens\":{reasoning},\"audio_tokens\":0,\"accepted_prediction_tokens\":0,\"rejected_prediction_tokens\":0}}}}",
                prompt + completion,
                self.wanted.cached_tokens,
            ),
        );
    }

    fn tool_call(out: &mut Vec<u8>, call: &answer::Call, index: Option<usize>, empty: bool) {
        put(out, "{");
        if let Some(index) = index {
            put(out, &format!("\"index\":{index},"));
        }
        let arguments = if empty { "" } else { &call.arguments };
        let (kind, field) = if call.custom { ("custom", "input") } else { ("function", "arguments") };
        put(
            out,
            &format!("\"id\":\"call_{}\",\"type\":\"{kind}\",\"{kind}\":{{\"name\":", letters(call.id, 24)),
        );
        json(out, &call.name);
        put(out, &format!(",\"{field}\":"));
        json(out, arguments);
        put(out, "}}");
    }

    /// Log probabilities of a text's tokens: made up, fixed by the answer, summing below one.
    fn logprobs(out: &mut Vec<u8>, text: &str, hash: u64, top: usize, field: &str) {
        put(out, "{\"content\":");
        if field == "refusal" {
            put(out, "null,\"refusal\":");
        }
        put(out, "[");
        for (i, range) in answer::tokens(text).into_iter().enumerate() {
            let token = text.get(range).unwrap_or_default();
            let chance = 0.6 + (mix(hash ^ Hash::new(token).0) % 390) as f64 / 1000.0;
            if i > 0 {
                put(out, ",");
            }
            let one = |out: &mut Vec<u8>, token: &str, chance: f64| {
                put(out, "{\"token\":");
                json(out, token);
                put(out, ",\"logprob\":");
                json(out, &chance.ln());
                put(out, ",\"bytes\":");
                json(out, token.as_bytes());
            };
            one(out, token, chance);
            put(out, ",\"top_logprobs\":[");
            for rank in 0..top {
                if rank > 0 {
                    put(out, ",");
                }
                let other = format!("{token}{}", "'".repeat(rank));
                one(
                    out,
                    &other,
                    if rank == 0 { chance } else { (1.0 - chance) / f64::from(1u32 << rank.min(20)) },
                );
                put(out, "}");
            }
            put(out, "]}");
        }
        put(out, "]");
        if field != "refusal" {
            put(out, ",\"refusal\":null");
        }
        put(out, "}");
    }

    pub(crate) fn whole(&self, answers: &[Answer]) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        self.head(&mut out, "chat.completion");
        put(&mut out, ",\"choices\":[");
        for (i, answer) in answers.iter().enumerate() {
            if i > 0 {
                put(&mut out, ",");
            }
            put(&mut out, &format!("{{\"index\":{i},\"message\":{{\"role\":\"assistant\",\"content\":"));
            let refused = answer.finish == Finish::Refusal;
            if refused || (!answer.calls.is_empty() && answer.text.is_empty()) {
                put(&mut out, "null");
            } else {
                json(&mut out, &answer.text);
            }
            if let Some(field) = self.reasoning.filter(|_| !answer.reasoning.is_empty()) {
                put(&mut out, &format!(",\"{field}\":"));
                json(&mut out, &answer.reasoning);
            }
            put(&mut out, ",\"refusal\":");
            if refused {
                json(&mut out, &answer.text)
            } else {
                put(&mut out, "null")
            }
            put(&mut out, ",\"annotations\":[]");
            if !answer.calls.is_empty() {
                put(&mut out, ",\"tool_calls\":[");
                for (j, call) in answer.calls.iter().enumerate() {
                    if j > 0 {
                        put(&mut out, ",");
                    }
                    Self::tool_call(&mut out, call, None, false);
                }
                put(&mut out, "]");
            }
            put(&mut out, "},\"logprobs\":");
            match self.wanted.logprobs {
                Some(top) if answer.calls.is_empty() => {
                    Self::logprobs(
                        &mut out,
                        &answer.text,
                        answer.hash,
                        top,
                        if refused { "refusal" } else { "content" },
                    );
                }
                _ => put(&mut out, "null"),
            }
            put(&mut out, &format!(",\"finish_reason\":\"{}\"", finish_word(&answer.finish)));
            if self.azure {
                put(&mut out, &format!(",\"content_filter_results\":{SAFE}"));
            }
            put(&mut out, "}");
        }
        put(&mut out, "],\"usage\":");
        self.usage(&mut out, answers);
        if self.azure {
            put(
                &mut out,
                &format!(
                    ",\"prompt_filter_results\":[{{\"prompt_index\":0,\"content_filter_results\":{SAFE}}}]"
                ),
            );
        }
        put(&mut out, "}");
        out
    }

    fn chunk(
        &self,
        frames: &mut Frames,
        kind: FrameKind,
        choices: impl FnOnce(&mut Vec<u8>),
        usage: Option<&[Answer]>,
    ) {
        frames.push(kind, |out| {
            put(out, "data: ");
            self.head(out, "chat.completion.chunk");
            put(out, ",\"choices\":[");
            choices(out);
            put(out, "]");
            match usage {
                Some(answers) => {
                    put(out, ",\"usage\":");
                    self.usage(out, answers);
                }
                None if self.wanted.include_usage => put(out, ",\"usage\":null"),
                None => {}
            }
            put(out, "}\n\n");
        });
    }

    /// A chunk with one delta of choice `i`.
    fn delta(
        &self,
        frames: &mut Frames,
        kind: FrameKind,
        i: usize,
        delta: impl FnOnce(&mut Vec<u8>),
        logprobs: Option<(&Answer, &str)>,
        finish: Option<&Finish>,
    ) {
        self.chunk(
            frames,
            kind,
            |out| {
                put(out, &format!("{{\"index\":{i},\"delta\":{{"));
                delta(out);
                put(out, "},\"logprobs\":");
                match (self.wanted.logprobs, logprobs) {
                    (Some(top), Some((answer, text))) => {
                        let field = if answer.finish == Finish::Refusal { "refusal" } else { "content" };
                        Self::logprobs(out, text, answer.hash, top, field);
                    }
                    _ => put(out, "null"),
                }
                put(out, ",\"finish_reason\":");
                json(out, &finish.map(finish_word));
                if self.azure {
                    put(out, ",\"content_filter_results\":");
                    put(out, if finish.is_some() { "{}" } else { SAFE });
                }
                put(out, "}");
            },
            None,
        );
    }

    pub(crate) fn stream(&self, answers: &[Answer]) -> Frames {
        let mut frames = Frames::with_capacity(8 * 1024);
        if self.azure {
            frames.push(FrameKind::Structure, |out| {
                put(out, &format!("data: {{\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"\",\"object\":\"\",\"prompt_filter_results\":[{{\"prompt_index\":0,\"content_filter_results\":{SAFE}}}]}}\n\n"));
            });
        }
        for (i, answer) in answers.iter().enumerate() {
            let content = if answer.calls.is_empty() { "\"\"" } else { "null" };
            self.delta(
                &mut frames,
                FrameKind::Structure,
                i,
                |out| put(out, &format!("\"role\":\"assistant\",\"content\":{content},\"refusal\":null")),
                None,
                None,
            );
            if let Some(field) = self.reasoning {
                self.pieces(&mut frames, i, field, &answer.reasoning, None);
            }
            let field = if answer.finish == Finish::Refusal { "refusal" } else { "content" };
            self.pieces(&mut frames, i, field, &answer.text, Some(answer));
            for (j, call) in answer.calls.iter().enumerate() {
                self.delta(
                    &mut frames,
                    FrameKind::Token,
                    i,
                    |out| {
                        put(out, "\"tool_calls\":[");
                        Self::tool_call(out, call, Some(j), true);
                        put(out, "]");
                    },
                    None,
                    None,
                );
                for range in answer::tokens(&call.arguments) {
                    self.delta(
                        &mut frames,
                        FrameKind::Token,
                        i,
                        |out| {
                            let (kind, field) =
                                if call.custom { ("custom", "input") } else { ("function", "arguments") };
                            put(out, &format!("\"tool_calls\":[{{\"index\":{j},\"{kind}\":{{\"{field}\":"));
                            json(out, call.arguments.get(range).unwrap_or_default());
                            put(out, "}}]");
                        },
                        None,
                        None,
                    );
                }
            }
            self.delta(&mut frames, FrameKind::Finish, i, |_| {}, None, Some(&answer.finish));
        }
        if self.wanted.include_usage {
            self.chunk(&mut frames, FrameKind::Finish, |_| {}, Some(answers));
        }
        frames.push(FrameKind::Terminator, |out| put(out, "data: [DONE]\n\n"));
        frames
    }

    fn pieces(&self, frames: &mut Frames, i: usize, field: &str, text: &str, logprobs: Option<&Answer>) {
        for range in answer::tokens(text) {
            let piece = text.get(range).unwrap_or_default();
            self.delta(
                frames,
                FrameKind::Token,
                i,
                |out| {
                    put(out, &format!("\"{field}\":"));
                    json(out, piece);
                },
                logprobs.map(|a| (a, piece)),
                None,
            );
        }
    }
}
