//! What a turn consists of: messages made of typed blocks, in one neutral form for all wires.

use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::LlmError;
use super::json::{Extra, RawJson};
use super::shapes;

/// The names of the wire formats, as they tag opaque content and verbatim messages.
pub mod wire {
    /// OpenAI chat completions and everything compatible with it.
    pub const OPENAI_CHAT: &str = "openai_chat";
    /// OpenAI Responses.
    pub const OPENAI_RESPONSES: &str = "openai_responses";
    /// Anthropic Messages.
    pub const ANTHROPIC: &str = "anthropic";
}

/// Who speaks.
///
/// ```
/// use liter_llm::{Message, Role};
///
/// assert_eq!(Message::user("Hi").role(), Role::User);
/// assert_eq!(Role::Assistant.as_str(), "assistant");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions above the conversation.
    System,
    /// OpenAI's newer word for system.
    Developer,
    /// The caller.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The role's name in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Developer => "developer",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        }
    }
}

/// Where the bytes of an image, a document or a sound are.
///
/// ```
/// use liter_llm::{Block, Media};
///
/// let picture = Media::Base64 { media_type: "image/png".to_owned(), data: "iVBORw0KGgo=".to_owned() };
/// let blocks = [Block::image(picture), Block::image(Media::Url("https://example.com/a.png".to_owned()))];
/// assert_eq!(blocks.len(), 2);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Media {
    /// Fetched by the provider.
    Url(String),
    /// Sent along, base64 (standard alphabet, padded).
    Base64 {
        /// For instance `image/png`, `application/pdf`, `audio/wav`.
        media_type: String,
        /// The encoded bytes.
        data: String,
    },
    /// Plain text as a document.
    Text(String),
    /// A file uploaded to the provider before.
    File(String),
    /// A source in a vendor's own form, sent back as it came.
    Other(RawJson),
}

/// One piece of a message.
///
/// ```
/// use liter_llm::{Block, BlockKind, Extra, Media, RawJson, Reasoning};
///
/// let url = || Media::Url("https://example.com/file".to_owned());
/// let json = |text: &str| RawJson::parse(text).unwrap();
/// let long = Block::text("A long text").with_cache_control(json(r#"{"type": "ephemeral"}"#));
/// assert_eq!(long.as_text(), Some("A long text"));
/// let blocks = [
///     Block::image(url()),
///     Block::document(url(), Some("Report".to_owned())).with_extra(Extra::new()),
///     Block::audio(url()),
///     Block::tool_call("call_1", "weather", "{}"),
///     Block::tool_result("call_1", vec![Block::text("sunny")], false),
///     Block::reasoning(Reasoning::default()),
///     Block::refusal("I would rather not."),
///     Block::opaque("anthropic", json(r#"{"type": "server_tool_use"}"#)),
/// ];
/// assert!(matches!(&blocks[6].kind, BlockKind::Refusal { text } if text.starts_with('I')));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// What it is.
    pub kind: BlockKind,
    /// Anthropic's prompt-cache marker, for instance `{"type":"ephemeral","ttl":"1h"}`.
    pub cache_control: Option<RawJson>,
    /// Fields without a typed home, in their order.
    pub extra: Extra,
}

/// The kinds of blocks.
///
/// ```
/// use liter_llm::{BlockKind, Message};
///
/// for block in Message::user("Hello").content() {
///     match &block.kind {
///         BlockKind::Text { text, .. } => assert_eq!(text, "Hello"),
///         other => println!("something else: {other:?}"),
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum BlockKind {
    /// Text, with the citations or annotations the provider attached (a JSON array in its own form).
    Text {
        /// The text.
        text: String,
        /// Citations (Anthropic) or annotations (OpenAI), as the provider sent them.
        citations: Option<RawJson>,
    },
    /// A picture.
    Image {
        /// Its bytes.
        source: Media,
        /// OpenAI's `low`, `high` or `auto`.
        detail: Option<String>,
    },
    /// A document such as a PDF.
    Document {
        /// Its bytes.
        source: Media,
        /// Its title or file name.
        title: Option<String>,
    },
    /// Sound.
    Audio {
        /// Its bytes.
        source: Media,
    },
    /// The model asks for a tool.
    ToolCall {
        /// The id the result must name.
        id: String,
        /// The tool's name.
        name: String,
        /// The arguments as the JSON text the model wrote, which may be broken.
        arguments: String,
    },
    /// What a tool answered.
    ToolResult {
        /// The id of the call.
        tool_call_id: String,
        /// The answer.
        content: Vec<Block>,
        /// True when the tool failed.
        is_error: bool,
    },
    /// The model's reasoning. What proves it to the provider is opaque and kept byte-exact.
    Reasoning(Reasoning),
    /// The model declined, in its own words.
    Refusal {
        /// What it said.
        text: String,
    },
    /// A vendor block this engine does not look into; sent back only to the wire it came from.
    Opaque {
        /// The wire it belongs to, see [`wire`].
        origin: String,
        /// The block exactly as it came.
        json: RawJson,
    },
}

/// A reasoning block.
///
/// ```
/// use liter_llm::{Block, Message, Reasoning, Role};
///
/// // Keep it in the conversation: the provider wants its signature back.
/// let thought = Reasoning {
///     text: "2 and 2".to_owned(),
///     signature: Some("c2ln".to_owned()),
///     origin: Some("anthropic".to_owned()),
///     ..Reasoning::default()
/// };
/// assert_eq!(Message::new(Role::Assistant, vec![Block::reasoning(thought)]).content().len(), 1);
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reasoning {
    /// The thinking or its summary; may be empty.
    pub text: String,
    /// Anthropic's signature over the text.
    pub signature: Option<String>,
    /// Encrypted or redacted reasoning: Anthropic `data`, Responses `encrypted_content`.
    pub encrypted: Option<String>,
    /// The wire it belongs to; `None` for plain text that any wire may see.
    pub origin: Option<String>,
    /// The vendor's own item when text, signature and encrypted do not say it all; sent back as it is.
    pub json: Option<RawJson>,
}

impl Block {
    fn of(kind: BlockKind) -> Self {
        Self { kind, cache_control: None, extra: Extra::new() }
    }

    /// A text block.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::of(BlockKind::Text { text: text.into(), citations: None })
    }

    /// A picture.
    #[must_use]
    pub fn image(source: Media) -> Self {
        Self::of(BlockKind::Image { source, detail: None })
    }

    /// A document.
    #[must_use]
    pub fn document(source: Media, title: Option<String>) -> Self {
        Self::of(BlockKind::Document { source, title })
    }

    /// A sound.
    #[must_use]
    pub fn audio(source: Media) -> Self {
        Self::of(BlockKind::Audio { source })
    }

    /// A tool call with its arguments as JSON text.
    #[must_use]
    pub fn tool_call(id: impl Into<String>, name: impl Into<String>, arguments: impl Into<String>) -> Self {
        Self::of(BlockKind::ToolCall { id: id.into(), name: name.into(), arguments: arguments.into() })
    }

    /// The result of a tool call.
    #[must_use]
    pub fn tool_result(tool_call_id: impl Into<String>, content: Vec<Self>, is_error: bool) -> Self {
        Self::of(BlockKind::ToolResult { tool_call_id: tool_call_id.into(), content, is_error })
    }

    /// A reasoning block.
    #[must_use]
    pub fn reasoning(reasoning: Reasoning) -> Self {
        Self::of(BlockKind::Reasoning(reasoning))
    }

    /// The model's refusal.
    #[must_use]
    pub fn refusal(text: impl Into<String>) -> Self {
        Self::of(BlockKind::Refusal { text: text.into() })
    }

    /// A vendor block, kept exactly.
    #[must_use]
    pub fn opaque(origin: impl Into<String>, json: RawJson) -> Self {
        Self::of(BlockKind::Opaque { origin: origin.into(), json })
    }

    /// Adds fields without a typed home.
    #[must_use]
    pub fn with_extra(mut self, extra: Extra) -> Self {
        self.extra = extra;
        self
    }

    /// Adds a prompt-cache marker.
    #[must_use]
    pub fn with_cache_control(mut self, marker: RawJson) -> Self {
        self.cache_control = Some(marker);
        self
    }

    /// The text of a text block.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match &self.kind {
            BlockKind::Text { text, .. } => Some(text),
            _ => None,
        }
    }
}

/// One turn of a conversation.
///
/// Deserialising accepts this engine's own form and the messages of OpenAI chat completions, OpenAI Responses
/// (input items) and Anthropic. A message that came in a vendor's form and was not changed goes back to that wire
/// byte for byte.
#[derive(Debug, Clone)]
pub struct Message {
    role: Role,
    content: Vec<Block>,
    name: Option<String>,
    extra: Extra,
    native: Option<(&'static str, RawJson)>,
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.role == other.role
            && self.content == other.content
            && self.name == other.name
            && self.extra == other.extra
    }
}

/// The tag of messages whose JSON is the same on several wires: a role and text.
pub(crate) const SHARED: &str = "shared";

impl Message {
    /// A message of blocks.
    #[must_use]
    pub fn new(role: Role, content: Vec<Block>) -> Self {
        Self { role, content, name: None, extra: Extra::new(), native: None }
    }

    /// A user message of one text.
    #[must_use]
    pub fn user(text: impl Into<String>) -> Self {
        Self::new(Role::User, vec![Block::text(text)])
    }

    /// A system message of one text.
    #[must_use]
    pub fn system(text: impl Into<String>) -> Self {
        Self::new(Role::System, vec![Block::text(text)])
    }

    /// An assistant message of one text.
    #[must_use]
    pub fn assistant(text: impl Into<String>) -> Self {
        Self::new(Role::Assistant, vec![Block::text(text)])
    }

    pub(crate) fn from_parts(
        role: Role,
        content: Vec<Block>,
        name: Option<String>,
        extra: Extra,
        native: Option<(&'static str, RawJson)>,
    ) -> Self {
        Self { role, content, name, extra, native }
    }

    /// Reads one message in any accepted form.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidRequest`](super::error::ErrorKind::InvalidRequest) naming the field at fault.
    pub fn from_json(json: &RawJson) -> Result<Self, LlmError> {
        shapes::message(json)
    }

    /// The form it came in and its JSON, while it is unchanged.
    pub(crate) fn as_written(&self) -> Option<(&'static str, &RawJson)> {
        self.native.as_ref().map(|(shape, json)| (*shape, json))
    }

    /// Who speaks.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The blocks.
    #[must_use]
    pub fn content(&self) -> &[Block] {
        &self.content
    }

    /// The blocks, to change them; the message is then written anew for every wire.
    pub fn content_mut(&mut self) -> &mut Vec<Block> {
        self.native = None;
        &mut self.content
    }

    /// The speaker's name, where the wire has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Fields of the message without a typed home.
    #[must_use]
    pub const fn extra(&self) -> &Extra {
        &self.extra
    }

    /// Adds fields without a typed home.
    #[must_use]
    pub fn with_extra(mut self, extra: Extra) -> Self {
        self.native = None;
        self.extra = extra;
        self
    }

    /// The text blocks, joined.
    #[must_use]
    pub fn text(&self) -> String {
        self.content.iter().filter_map(Block::as_text).collect()
    }

    /// The message's JSON as the caller wrote it, when it can go to `wire` as it stands.
    #[must_use]
    pub fn verbatim_for(&self, wire: &str) -> Option<&RawJson> {
        let (shape, json) = self.native.as_ref()?;
        if *shape == wire {
            return Some(json);
        }
        if *shape != SHARED {
            return None;
        }
        match wire {
            wire::ANTHROPIC => (self.name.is_none() && self.extra.is_empty()).then_some(json),
            wire::OPENAI_CHAT => self.content.iter().all(is_bare_text).then_some(json),
            wire::OPENAI_RESPONSES => (self.role != Role::Tool && is_easy_input(json)).then_some(json),
            _ => None,
        }
    }

    /// The message's JSON as the caller wrote it, when it is text in the form that several wires share; parts of it
    /// may carry cache markers and fields of their own.
    #[must_use]
    pub(crate) fn shared_json(&self) -> Option<&RawJson> {
        self.native.as_ref().filter(|(shape, _)| *shape == SHARED).map(|(_, json)| json)
    }
}

/// True for the short form of a Responses message: a role and a string; its lists name their parts differently.
fn is_easy_input(json: &RawJson) -> bool {
    super::json::fields(json.get()).is_ok_and(|map| {
        map.get("content").is_some_and(|content| content.get().starts_with('"'))
            && map.keys().all(|name| matches!(name, "role" | "content" | "phase"))
    })
}

fn is_bare_text(block: &Block) -> bool {
    matches!(block.kind, BlockKind::Text { citations: None, .. })
        && block.cache_control.is_none()
        && block.extra.is_empty()
}

impl Serialize for Media {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Url(url) => {
                map.serialize_entry("type", "url")?;
                map.serialize_entry("url", url)?;
            }
            Self::Base64 { media_type, data } => {
                map.serialize_entry("type", "base64")?;
                map.serialize_entry("media_type", media_type)?;
                map.serialize_entry("data", data)?;
            }
            Self::Text(text) => {
                map.serialize_entry("type", "text")?;
                map.serialize_entry("media_type", "text/plain")?;
                map.serialize_entry("data", text)?;
            }
            Self::File(id) => {
                map.serialize_entry("type", "file")?;
                map.serialize_entry("file_id", id)?;
            }
            Self::Other(json) => {
                map.serialize_entry("type", "other")?;
                map.serialize_entry("json", json)?;
            }
        }
        map.end()
    }
}

impl Serialize for Block {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match &self.kind {
            BlockKind::Text { text, citations } => {
                map.serialize_entry("type", "text")?;
                map.serialize_entry("text", text)?;
                if let Some(citations) = citations {
                    map.serialize_entry("citations", citations)?;
                }
            }
            BlockKind::Image { source, detail } => {
                map.serialize_entry("type", "image")?;
                map.serialize_entry("source", source)?;
                if let Some(detail) = detail {
                    map.serialize_entry("detail", detail)?;
                }
            }
            BlockKind::Document { source, title } => {
                map.serialize_entry("type", "document")?;
                map.serialize_entry("source", source)?;
                if let Some(title) = title {
                    map.serialize_entry("title", title)?;
                }
            }
            BlockKind::Audio { source } => {
                map.serialize_entry("type", "audio")?;
                map.serialize_entry("source", source)?;
            }
            BlockKind::ToolCall { id, name, arguments } => {
                map.serialize_entry("type", "tool_call")?;
                map.serialize_entry("id", id)?;
                map.serialize_entry("name", name)?;
                map.serialize_entry("arguments", arguments)?;
            }
            BlockKind::ToolResult { tool_call_id, content, is_error } => {
                map.serialize_entry("type", "tool_result")?;
                map.serialize_entry("tool_call_id", tool_call_id)?;
                map.serialize_entry("content", content)?;
                if *is_error {
                    map.serialize_entry("is_error", is_error)?;
                }
            }
            BlockKind::Reasoning(reasoning) => {
                map.serialize_entry("type", "reasoning")?;
                map.serialize_entry("text", &reasoning.text)?;
                if let Some(signature) = &reasoning.signature {
                    map.serialize_entry("signature", signature)?;
                }
                if let Some(encrypted) = &reasoning.encrypted {
                    map.serialize_entry("encrypted", encrypted)?;
                }
                if let Some(origin) = &reasoning.origin {
                    map.serialize_entry("origin", origin)?;
                }
                if let Some(json) = &reasoning.json {
                    // As a string: the language faces then hand it back byte for byte.
                    map.serialize_entry("json", json.get())?;
                }
            }
            BlockKind::Refusal { text } => {
                map.serialize_entry("type", "refusal")?;
                map.serialize_entry("text", text)?;
            }
            BlockKind::Opaque { origin, json } => {
                map.serialize_entry("type", "opaque")?;
                map.serialize_entry("origin", origin)?;
                map.serialize_entry("json", json.get())?;
            }
        }
        if let Some(marker) = &self.cache_control {
            map.serialize_entry("cache_control", marker)?;
        }
        if !self.extra.is_empty() {
            map.serialize_entry("extra", &self.extra)?;
        }
        map.end()
    }
}

impl Serialize for Message {
    /// Always the neutral form.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("role", &self.role)?;
        map.serialize_entry("content", &self.content)?;
        if let Some(name) = &self.name {
            map.serialize_entry("name", name)?;
        }
        if !self.extra.is_empty() {
            map.serialize_entry("extra", &self.extra)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = RawJson::deserialize(deserializer)?;
        shapes::message(&json).map_err(|error| serde::de::Error::custom(&error.detail().message))
    }
}

impl<'de> Deserialize<'de> for Block {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = RawJson::deserialize(deserializer)?;
        shapes::block(&json).map_err(|error| serde::de::Error::custom(&error.detail().message))
    }
}
