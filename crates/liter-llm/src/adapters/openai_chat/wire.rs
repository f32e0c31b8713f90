//! The JSON of answers and stream chunks as hosts really send it: read in one pass, tolerant of odd types, nothing lost.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::core::json::{Extra, RawJson};

/// Fields nobody asked for, in their order.
pub(super) type Rest<'a> = Vec<(Cow<'a, str>, &'a RawValue)>;

/// Adds the fields that are not `null` to `extra`; a later value replaces an earlier one.
pub(super) fn keep(rest: Rest<'_>, extra: &mut Extra) {
    for (name, value) in rest {
        // A later chunk's empty value (Azure's `content_filter_results: {}`) takes nothing back.
        let nothing_new = matches!(value.get(), "{}" | "[]" | "\"\"") && extra.contains_key(name.as_ref());
        if value.get() != "null" && !nothing_new {
            extra.insert(name.into_owned(), RawJson::from(value));
        }
    }
}

/// An object's key, borrowed where the JSON has no escapes in it.
pub(super) struct Key<'a>(pub(super) Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

/// Declares an object whose unknown fields are kept: `#[serde(flatten)]` would lose raw JSON.
macro_rules! object {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident as $key:literal: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        pub(super) struct $name<'a> {
            $($(#[$field_doc])* pub(super) $field: $type,)*
            pub(super) rest: $crate::adapters::openai_chat::wire::Rest<'a>,
        }

        impl<'de: 'a, 'a> serde::Deserialize<'de> for $name<'a> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct ObjectVisitor<'a>(std::marker::PhantomData<&'a ()>);
                impl<'de: 'a, 'a> serde::de::Visitor<'de> for ObjectVisitor<'a> {
                    type Value = $name<'a>;
                    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        formatter.write_str(concat!("an object (", stringify!($name), ")"))
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<$name<'a>, A::Error> {
                        let mut object = $name::default();
                        while let Some($crate::adapters::openai_chat::wire::Key(key)) = map.next_key()? {
                            match key.as_ref() {
                                $($key => object.$field = map.next_value()?,)*
                                _ => object.rest.push((key, map.next_value()?)),
                            }
                        }
                        Ok(object)
                    }
                }
                deserializer.deserialize_map(ObjectVisitor(std::marker::PhantomData))
            }
        }
    };
}

pub(super) use object;

object! {
    /// A whole answer, or one chunk of a streamed one.
    Answer {
        id as "id": Word<'a>,
        model as "model": Word<'a>,
        object as "object": IgnoredAny,
        /// Random padding against traffic analysis (OpenAI); says nothing.
        obfuscation as "obfuscation": IgnoredAny,
        /// The same at Mistral.
        padding as "p": IgnoredAny,
        choices as "choices": Option<Vec<Choice<'a>>>,
        usage as "usage": Option<&'a RawValue>,
        service_tier as "service_tier": Word<'a>,
        error as "error": Option<&'a RawValue>,
    }
}

object! {
    /// One of the `n` alternatives.
    Choice {
        index as "index": Number,
        delta as "delta": Option<Box<Message<'a>>>,
        message as "message": Option<Box<Message<'a>>>,
        finish_reason as "finish_reason": Word<'a>,
        logprobs as "logprobs": Option<&'a RawValue>,
        error as "error": Option<&'a RawValue>,
    }
}

object! {
    /// A message, or what a chunk adds to it.
    Message {
        role as "role": IgnoredAny,
        content as "content": Content<'a>,
        reasoning_content as "reasoning_content": Word<'a>,
        reasoning as "reasoning": Word<'a>,
        reasoning_details as "reasoning_details": Option<&'a RawValue>,
        refusal as "refusal": Word<'a>,
        tool_calls as "tool_calls": Option<Vec<ToolCall<'a>>>,
        function_call as "function_call": Option<&'a RawValue>,
        annotations as "annotations": Option<Vec<&'a RawValue>>,
        audio as "audio": Option<&'a RawValue>,
    }
}

object! {
    /// A tool call, or what a chunk adds to it.
    ToolCall {
        index as "index": Number,
        id as "id": Word<'a>,
        kind as "type": Word<'a>,
        function as "function": Option<Function<'a>>,
    }
}

object! {
    /// The function half of a tool call.
    Function {
        name as "name": Word<'a>,
        arguments as "arguments": Option<&'a RawValue>,
    }
}

/// A string; `null`, `""` and values of other types read as no statement, numbers and booleans as their text.
#[derive(Default)]
pub(super) struct Word<'a>(pub(super) Option<Cow<'a, str>>);

impl Word<'_> {
    /// The text when there is one that is not empty.
    pub(super) fn text(&self) -> Option<&str> {
        self.0.as_deref().filter(|text| !text.is_empty())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Word<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordVisitor;
        impl<'de> Visitor<'de> for WordVisitor {
            type Value = Word<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Word<'de>, E> {
                Ok(Word(Some(Cow::Borrowed(text))))
            }
            fn visit_str<E>(self, text: &str) -> Result<Word<'de>, E> {
                Ok(Word(Some(Cow::Owned(text.to_owned()))))
            }
            fn visit_bool<E>(self, value: bool) -> Result<Word<'de>, E> {
                Ok(Word(Some(Cow::Owned(value.to_string()))))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Word<'de>, E> {
                Ok(Word(Some(Cow::Owned(value.to_string()))))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Word<'de>, E> {
                Ok(Word(Some(Cow::Owned(value.to_string()))))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Word<'de>, E> {
                Ok(Word(Some(Cow::Owned(value.to_string()))))
            }
            fn visit_unit<E>(self) -> Result<Word<'de>, E> {
                Ok(Word(None))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Word<'de>, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Word(None))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Word<'de>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Word(None))
            }
        }
        deserializer.deserialize_any(WordVisitor)
    }
}

/// A count; also accepts `3.0` and `"3"`. Anything else is no statement.
#[derive(Default, Clone, Copy)]
pub(super) struct Number(pub(super) Option<u64>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(deserializer)?;
        Ok(Self(count(raw.get().trim_matches('"'))))
    }
}

/// Reads a count from its text, `3` or `3.0`.
pub(super) fn count(text: &str) -> Option<u64> {
    text.parse().ok().or_else(|| {
        let number = text.parse::<f64>().ok()?;
        // Counts beyond 2^53 do not occur; a float cannot state them exactly anyway.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "range checked")]
        (number.fract() == 0.0 && (0.0..9.0e15).contains(&number)).then_some(number as u64)
    })
}

/// The content of a message: text, or a list of parts.
#[derive(Default)]
pub(super) enum Content<'a> {
    #[default]
    Nothing,
    Text(Cow<'a, str>),
    Parts(Vec<&'a RawValue>),
}

impl<'de: 'a, 'a> Deserialize<'de> for Content<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ContentVisitor;
        impl<'de> Visitor<'de> for ContentVisitor {
            type Value = Content<'de>;
            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string, a list of parts or null")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Content<'de>, E> {
                Ok(Content::Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Content<'de>, E> {
                Ok(Content::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_unit<E>(self) -> Result<Content<'de>, E> {
                Ok(Content::Nothing)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content<'de>, A::Error> {
                let mut parts = Vec::new();
                while let Some(part) = items.next_element()? {
                    parts.push(part);
                }
                Ok(Content::Parts(parts))
            }
        }
        deserializer.deserialize_any(ContentVisitor)
    }
}

object! {
    /// A part of a content list.
    Part {
        kind as "type": Word<'a>,
        text as "text": Word<'a>,
        refusal as "refusal": Word<'a>,
        thinking as "thinking": Option<&'a RawValue>,
    }
}

/// The text of Mistral's `thinking`: a string, or a list of text parts.
pub(super) fn thinking_text(raw: &RawValue) -> String {
    if let Ok(parts) = serde_json::from_str::<Vec<Part<'_>>>(raw.get()) {
        return parts.iter().filter_map(|part| part.text.text()).collect();
    }
    serde_json::from_str::<Word<'_>>(raw.get()).ok().and_then(|word| word.0).unwrap_or_default().into_owned()
}

/// The text of `arguments`: a string's content, or the JSON text of an object.
pub(super) fn arguments_text(raw: Option<&RawValue>) -> String {
    match raw.map(RawValue::get) {
        None | Some("null") => String::new(),
        Some(text) if text.starts_with('"') => serde_json::from_str(text).unwrap_or_default(),
        Some(text) => text.to_owned(),
    }
}
