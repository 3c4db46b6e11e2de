//! A turn of the conversation and its parts.

use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::lenient;
use super::open_enum;

open_enum! {
    /// Who speaks.
    Role {
        /// The caller.
        User = "user",
        /// The model.
        Model = "model",
    }
}

/// One turn of the conversation: who speaks, and the [`Part`]s of what is said.
///
/// A turn that came from the model is written back exactly as it came, fields this crate does not know included: later
/// models refuse a conversation whose thought signatures were lost.
///
/// `Debug` shows roles and kinds of parts, never what was said.
///
/// ```
/// use tower_tenacity::gemini::{Content, Part, Role};
///
/// let turn = Content::new(Role::User, [Part::from_text("Hello.")]);
/// assert_eq!(serde_json::to_string(&turn)?, r#"{"role":"user","parts":[{"text":"Hello."}]}"#);
///
/// let received = r#"{"parts":[{"text":"Hi.","newField":1.0}],"role":"model","other":98765432109876543210}"#;
/// let turn: Content = serde_json::from_str(received)?;
/// assert_eq!(turn.parts()[0].text(), Some("Hi."));
/// let sent = serde_json::to_string(&turn)?;
/// assert!(sent.contains("1.0") && sent.contains("98765432109876543210"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone)]
pub struct Content {
    role: Option<Role>,
    parts: Option<Vec<Part>>,
    rest: Vec<(Arc<str>, Arc<RawValue>)>,
}

impl Content {
    /// A turn of `role`, made of `parts`.
    pub fn new(role: Role, parts: impl IntoIterator<Item = Part>) -> Self {
        Self { role: Some(role), parts: Some(parts.into_iter().collect()), rest: Vec::new() }
    }

    /// A turn of the caller's that is one text.
    pub fn user(text: impl AsRef<str>) -> Self {
        Self::new(Role::User, [Part::from_text(text)])
    }

    /// A turn without a role, as system instructions are.
    pub(super) fn without_role(text: &str) -> Self {
        Self { role: None, parts: Some(vec![Part::from_text(text)]), rest: Vec::new() }
    }

    /// This turn as the model's, if it does not say whose it is: the API takes a turn without a role for the user's.
    #[cfg(feature = "extract")]
    pub(crate) fn or_models(mut self) -> Self {
        if self.role.as_ref().is_none_or(|role| role.as_str().is_empty()) {
            self.role = Some(Role::Model);
            // A role that is no text, such as null, is kept there; two of them would be one too many.
            self.rest.retain(|(name, _)| &**name != "role");
        }
        self
    }

    /// Appends a part.
    #[must_use]
    pub fn part(mut self, part: Part) -> Self {
        self.push(part);
        self
    }

    pub(super) fn each_shown(&mut self, change: &impl Fn(&mut String)) {
        if let Some(Role::Other(name)) = &self.role {
            let mut shown = name.clone();
            change(&mut shown);
            if let (true, Ok(raw)) = (shown != *name, serde_json::value::to_raw_value(name)) {
                // Nobody speaks like this, but what the model said is sent back as it came.
                self.rest.insert(0, ("role".into(), raw.into()));
                self.role = None;
            }
        }
        // A part that is shared already was shown already.
        for Part(inner) in self.parts.iter_mut().flatten() {
            let Some(Inner { view, .. }) = Arc::get_mut(inner) else { continue };
            view.data.iter_mut().for_each(change);
            if let Some(call) = &mut view.function_call {
                call.id.iter_mut().chain(&mut call.name).for_each(change);
            }
        }
    }

    pub(super) fn push(&mut self, part: Part) {
        self.parts.get_or_insert_default().push(part);
    }

    /// Who speaks; models leave it out at times.
    #[must_use]
    pub fn role(&self) -> Option<&Role> {
        self.role.as_ref()
    }

    /// The parts, in order. A turn without any occurs: a model may spend all its tokens on thinking.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        self.parts.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("role", &self.role).field("parts", &self.parts()).finish()
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if let Some(role) = &self.role {
            map.serialize_entry("role", role.as_str())?;
        }
        if let Some(parts) = &self.parts {
            map.serialize_entry("parts", parts)?;
        }
        for (name, value) in &self.rest {
            map.serialize_entry(&**name, &**value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Content;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a turn of the conversation")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
                let mut content = Content { role: None, parts: None, rest: Vec::new() };
                while let Some(name) = map.next_key::<String>()? {
                    let raw: Box<RawValue> = map.next_value()?;
                    // What is not of the promised type is kept as it is.
                    match name.as_str() {
                        "role" if content.role.is_none() => {
                            if let Ok(role) = serde_json::from_str::<String>(raw.get()) {
                                content.role = Some(Role::from(role.as_str()));
                                continue;
                            }
                        }
                        "parts" if content.parts.is_none() => {
                            if let Ok(parts) = serde_json::from_str(raw.get()) {
                                content.parts = Some(parts);
                                continue;
                            }
                        }
                        _ => {}
                    }
                    content.rest.push((name.into(), raw.into()));
                }
                Ok(content)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// One piece of a turn: a text, a picture, a function call and so on.
///
/// It keeps the JSON it was made from, and writes exactly that; the accessors are a view of it. Clones share it.
///
/// ```
/// use tower_tenacity::gemini::Part;
///
/// let part: Part = serde_json::from_str(
///     r#"{"functionCall":{"name":"add","args":{"a":1.0}},"thoughtSignature":"c2ln"}"#,
/// )?;
/// let call = part.function_call().expect("it is a call");
/// assert_eq!((call.name(), call.args().map(|args| args.get())), (Some("add"), Some(r#"{"a":1.0}"#)));
/// assert_eq!(part.thought_signature(), Some("c2ln"));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone)]
pub struct Part(Arc<Inner>);

struct Inner {
    raw: Box<RawValue>,
    view: View,
}

#[derive(Default)]
struct View {
    text: Option<String>,
    thought: bool,
    thought_signature: Option<String>,
    function_call: Option<FunctionCall>,
    /// The name of whatever else the part holds: `inlineData`, `executableCode`, or something not known yet.
    data: Option<String>,
}

impl Part {
    /// A text.
    pub fn from_text(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        Self::from_value(&serde_json::json!({ "text": text }))
    }

    /// Bytes sent along with the request, such as a picture: `base64` is their base64 encoding, in either alphabet.
    pub fn inline_data(mime_type: impl AsRef<str>, base64: impl AsRef<str>) -> Self {
        Self::from_value(&serde_json::json!({
            "inlineData": { "mimeType": mime_type.as_ref(), "data": base64.as_ref() }
        }))
    }

    /// The answer to a [`FunctionCall`] of the model's.
    pub fn function_response(name: impl AsRef<str>, response: &serde_json::Value) -> Self {
        Self::from_value(&serde_json::json!({
            "functionResponse": { "name": name.as_ref(), "response": response }
        }))
    }

    /// Any part, as the JSON the API takes.
    pub fn from_value(json: &serde_json::Value) -> Self {
        // Writing a `Value` cannot fail: its keys are strings and its numbers are finite.
        Self::from_raw(serde_json::value::to_raw_value(json).unwrap_or_default())
    }

    /// Any part, as JSON text that is sent as it is.
    #[must_use]
    pub fn from_raw(raw: Box<RawValue>) -> Self {
        // A part of a shape not known is a part without a view, not an error.
        let view = serde_json::from_str(raw.get()).unwrap_or_default();
        Self(Arc::new(Inner { raw, view }))
    }

    /// The text, if it is a text. It may be a thought: see [`is_thought`](Self::is_thought).
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.0.view.text.as_deref()
    }

    /// Whether this is a summary of the model's thinking rather than of its answer.
    #[must_use]
    pub fn is_thought(&self) -> bool {
        self.0.view.thought
    }

    /// The function the model wants called.
    #[must_use]
    pub fn function_call(&self) -> Option<&FunctionCall> {
        self.0.view.function_call.as_ref()
    }

    /// The signature of the thinking behind this part, to be sent back with it untouched.
    #[must_use]
    pub fn thought_signature(&self) -> Option<&str> {
        self.0.view.thought_signature.as_deref()
    }

    /// What the part holds, by its name on the wire: `text`, `functionCall`, `inlineData`, …; empty parts occur.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        let view = &self.0.view;
        match (&view.function_call, &view.data, &view.text) {
            (Some(_), ..) => Some("functionCall"),
            (_, Some(data), _) => Some(data),
            (.., Some(_)) => Some("text"),
            _ => None,
        }
    }

    /// The part's JSON.
    #[must_use]
    pub fn as_raw(&self) -> &RawValue {
        &self.0.raw
    }

    /// Whether it says anything: thoughts, empty texts and bare signatures do not.
    pub(super) fn is_answer(&self) -> bool {
        !self.is_thought()
            && (self.kind().is_some_and(|kind| kind != "text") || self.text().is_some_and(|t| !t.is_empty()))
    }
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part")
            .field("kind", &self.kind().unwrap_or("none"))
            .field("thought", &self.is_thought())
            .field("bytes", &self.0.raw.get().len())
            .finish()
    }
}

impl Serialize for Part {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Part {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(Self::from_raw)
    }
}

impl<'de> Deserialize<'de> for View {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = View;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a part")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<View, A::Error> {
                let mut view = View::default();
                while let Some(name) = map.next_key::<String>()? {
                    let raw: &RawValue = map.next_value()?;
                    let json = raw.get();
                    match name.as_str() {
                        "text" => view.text = string(json),
                        "thought" => view.thought = json == "true",
                        "thoughtSignature" | "thought_signature" => {
                            view.thought_signature = string(json);
                        }
                        "functionCall" | "function_call" => {
                            view.function_call = serde_json::from_str(json).ok();
                        }
                        "videoMetadata" | "mediaResolution" | "partMetadata" => {}
                        _ if json == "null" => {}
                        _ => view.data = Some(name),
                    }
                }
                Ok(view)
            }
        }

        fn string(json: &str) -> Option<String> {
            serde_json::from_str(json).ok().map(|Lossy(text)| text)
        }

        deserializer.deserialize_map(Fields)
    }
}

/// A text in which half a character, as `\ud83d` alone, has become a replacement character: a model that stops in the
/// middle of an emoji does not lose its answer. What is sent back is the original.
struct Lossy(String);

impl<'de> Deserialize<'de> for Lossy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Lossy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Lossy, E> {
                Ok(Lossy(String::from_utf8_lossy(bytes).into_owned()))
            }
        }

        // serde_json checks the characters of a `str`, and leaves those of bytes alone.
        deserializer.deserialize_bytes(Text)
    }
}

/// A function the model wants called.
#[derive(Clone, serde::Deserialize)]
pub struct FunctionCall {
    #[serde(default, deserialize_with = "lenient::text")]
    id: Option<String>,
    #[serde(default, deserialize_with = "lenient::text")]
    name: Option<String>,
    #[serde(default)]
    args: Option<Box<RawValue>>,
}

impl FunctionCall {
    /// The call's identity, where the model gives it one.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The function's name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The arguments, as the JSON that came; a call without arguments may leave them out.
    #[must_use]
    pub fn args(&self) -> Option<&RawValue> {
        self.args.as_deref()
    }
}

impl fmt::Debug for FunctionCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionCall").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn round_trip(json: &str) -> String {
        let content: Content = serde_json::from_str(json).expect("a turn");
        serde_json::to_string(&content).expect("written")
    }

    #[test]
    fn what_the_model_said_is_written_back_as_it_came() {
        for json in [
            r#"{"role":"model","parts":[{"text":"a\u00e9\/","x":[1.0,1e400,36893488147419103232]},{}],"new":{"b":-0.0}}"#,
            r#"{"role":"model","parts":[{"functionCall":{"name":"f","args":{"n":1.0}},"thoughtSignature":"A_-="}]}"#,
            r#"{"role":"narrator","parts":[]}"#,
            r#"{"role":7,"parts":{"text":"not a list"}}"#,
            r#"{"role":"model"}"#,
            "{}",
        ] {
            assert_eq!(round_trip(json), json);
        }
    }

    #[test]
    fn a_part_of_unknown_shape_is_still_a_part() {
        let content: Content =
            serde_json::from_str(r#"{"parts":[null,3,"x",{"text":4},{"hologram":{}},{"text":"t"}]}"#).expect("a turn");
        let kinds: Vec<_> = content.parts().iter().map(Part::kind).collect();
        assert_eq!(kinds, [None, None, None, None, Some("hologram"), Some("text")]);
    }

    #[test]
    fn half_a_character_does_not_lose_the_text() {
        let json = r#"{"parts":[{"text":"smile \ud83d"},{"text":"\ud83d\ude00\u00e9"}]}"#;
        let content: Content = serde_json::from_str(json).expect("a turn");
        assert!(content.parts()[0].text().is_some_and(|text| text.starts_with("smile \u{fffd}")));
        assert_eq!(content.parts()[1].text(), Some("😀é"));
        assert_eq!(round_trip(json), json);
    }

    #[test]
    fn debug_shows_no_text() {
        let shown = format!("{:?}", Content::user("a secret plan"));
        assert!(!shown.contains("secret"), "{shown}");
        assert!(shown.contains("User") && shown.contains("text"), "{shown}");
    }

    #[test]
    fn parts_can_be_read_from_a_value_too() {
        let value: Value = serde_json::from_str(r#"{"role":"model","parts":[{"text":"t"}]}"#).expect("json");
        let content: Content = serde_json::from_value(value).expect("a turn");
        assert_eq!(content.parts()[0].text(), Some("t"));
    }
}
