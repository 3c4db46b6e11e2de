//! The question.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value};

use super::content::{Content, Part, Role};
use crate::{gemini::Error, timeout::Deadline};

/// A question to a model.
///
/// A clone is two reference counts, and clones share the serialised body: a question that is sent again is neither
/// copied nor serialised again, whatever pictures it carries.
///
/// `Debug` shows the model and the number of turns, never the prompt.
///
/// ```
/// use tower_tenacity::gemini::GenerateContent;
///
/// let question = GenerateContent::new("gemini-2.5-flash")
///     .system("Answer in one word.")
///     .text("What is the capital of France?")
///     .temperature(0.2)
///     .max_output_tokens(64);
/// assert_eq!(question.model(), "gemini-2.5-flash");
/// assert_eq!(question.contents().len(), 1);
/// assert!(question.to_bytes()?.starts_with(br#"{"contents":[{"role":"user","#));
/// # Ok::<(), tower_tenacity::gemini::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "a question does nothing until it is sent"]
pub struct GenerateContent {
    model: Arc<str>,
    body: Arc<Body>,
    deadline: Option<Deadline>,
    pub(in crate::gemini) sent_before: bool,
}

#[derive(Default)]
struct Body {
    contents: Vec<Content>,
    system: Option<Content>,
    temperature: Option<f32>,
    config: Map<String, Value>,
    extra: Map<String, Value>,
    bytes: OnceLock<Bytes>,
}

impl Clone for Body {
    /// A copy is made to be changed, so what was serialised is left behind.
    fn clone(&self) -> Self {
        Self {
            contents: self.contents.clone(),
            system: self.system.clone(),
            temperature: self.temperature,
            config: self.config.clone(),
            extra: self.extra.clone(),
            bytes: OnceLock::new(),
        }
    }
}

impl GenerateContent {
    /// A question to `model`, such as `gemini-2.5-flash`; `models/…` and `tunedModels/…` are understood too.
    pub fn new(model: impl Into<Arc<str>>) -> Self {
        Self { model: model.into(), body: Arc::default(), deadline: None, sent_before: false }
    }

    /// Says something: appends a text to the caller's turn, and begins one if the last was the model's.
    pub fn text(mut self, text: impl AsRef<str>) -> Self {
        let contents = &mut self.change().contents;
        match contents.last_mut() {
            Some(last) if last.role() == Some(&Role::User) => last.push(Part::from_text(text)),
            _ => contents.push(Content::user(text)),
        }
        self
    }

    /// Appends a turn: a picture, an earlier answer of the model's, the result of a function.
    pub fn content(mut self, content: Content) -> Self {
        self.change().contents.push(content);
        self
    }

    /// Instructions that hold for the whole conversation; replaces earlier ones.
    pub fn system(mut self, text: impl AsRef<str>) -> Self {
        self.change().system = Some(Content::without_role(text.as_ref()));
        self
    }

    /// How freely the model chooses, from 0 to 2. A value that is not finite is refused when the question is sent.
    pub fn temperature(mut self, temperature: f32) -> Self {
        self.change().temperature = Some(temperature);
        self
    }

    /// The most tokens the model may write; those it spends on thinking count.
    pub fn max_output_tokens(self, tokens: u32) -> Self {
        self.config("maxOutputTokens", tokens)
    }

    /// Makes answers as repeatable as the model allows.
    pub fn seed(self, seed: i32) -> Self {
        self.config("seed", seed)
    }

    /// Asks for JSON.
    pub fn json(self) -> Self {
        self.config("responseMimeType", "application/json")
    }

    /// Asks for JSON of this schema.
    pub fn json_schema(self, schema: Value) -> Self {
        self.json().config("responseJsonSchema", schema)
    }

    /// How many tokens the model may spend on thinking: 0 is none at all, -1 lets it choose.
    pub fn thinking_budget(mut self, tokens: i32) -> Self {
        let config = self.change().config.entry("thinkingConfig").or_insert_with(|| Value::Object(Map::new()));
        if !config.is_object() {
            *config = Value::Object(Map::new());
        }
        config["thinkingBudget"] = tokens.into();
        self
    }

    /// Sets any field of `generationConfig`, for those that have no method here.
    pub fn config(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.change().config.insert(name.into(), value.into());
        self
    }

    /// Sets any top-level field of the request, for those that have no method here; it wins over one that has.
    /// The fields of a `generationConfig` are merged into what is set already.
    ///
    /// ```
    /// # use tower_tenacity::gemini::GenerateContent;
    /// let question = GenerateContent::new("gemini-2.5-flash").text("Hi.").extra(
    ///     "safetySettings",
    ///     serde_json::json!([{ "category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE" }]),
    /// );
    /// # assert!(question.to_bytes().is_ok());
    /// ```
    pub fn extra(mut self, name: impl Into<String>, value: Value) -> Self {
        let (name, body) = (name.into(), self.change());
        match value {
            Value::Object(fields) if name == "generationConfig" => body.config.extend(fields),
            value => {
                body.extra.insert(name, value);
            }
        }
        self
    }

    /// The model that is asked.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The same, shared rather than copied.
    pub(in crate::gemini) fn shared_model(&self) -> Arc<str> {
        self.model.clone()
    }

    /// Asks another model, for instance after the first was overloaded. The body stays as it is.
    pub fn set_model(&mut self, model: impl Into<Arc<str>>) {
        self.model = model.into();
    }

    /// The turns so far.
    #[must_use]
    pub fn contents(&self) -> &[Content] {
        &self.body.contents
    }

    /// A field of `generationConfig`, if it was set; the temperature is not among them.
    #[must_use]
    pub fn get_config(&self, name: &str) -> Option<&Value> {
        self.body.config.get(name)
    }

    /// The body as it is sent. It is serialised once, and shared by all clones.
    ///
    /// # Errors
    ///
    /// When there is nothing to ask, or a number that JSON cannot carry:
    /// [`ErrorKind::InvalidRequest`](crate::gemini::ErrorKind::InvalidRequest).
    pub fn to_bytes(&self) -> Result<Bytes, Error> {
        if let Some(bytes) = self.body.bytes.get() {
            return Ok(bytes.clone());
        }
        if self.body.contents.is_empty() && !self.body.extra.contains_key("contents") {
            return Err(Error::invalid_request("the request has no contents: say something with `.text(…)`"));
        }
        if self.body.temperature.is_some_and(|temperature| !temperature.is_finite()) {
            return Err(Error::invalid_request("the temperature is not a finite number"));
        }
        let bytes = serde_json::to_vec(&*self.body)
            .map_err(|_| Error::invalid_request("the request cannot be written as JSON"))?;
        Ok(self.body.bytes.get_or_init(|| bytes.into()).clone())
    }

    /// Whether turns and fields of `generationConfig` that are added from now on will be sent.
    #[cfg(feature = "extract")]
    pub(crate) fn is_open(&self) -> Result<(), Error> {
        // An object of that name is no extra field: it was merged.
        match ["contents", "generationConfig"].into_iter().find(|name| self.body.extra.contains_key(*name)) {
            Some("contents") => Err(Error::invalid_request(
                "the extra field `contents` hides the turns, so no correction could be sent: use `.content(…)`",
            )),
            Some(_) => Err(Error::invalid_request(
                "the extra field `generationConfig` is not an object, and hides the schema: use `.config(…)`",
            )),
            None => Ok(()),
        }
    }

    fn change(&mut self) -> &mut Body {
        let body = Arc::make_mut(&mut self.body);
        body.bytes.take();
        body
    }
}

impl GenerateContent {
    /// Ends the call at `deadline` at the latest. [`gemini::policy`](crate::gemini::policy()) starts no attempt that would end past it, and
    /// an [`AttemptTimeoutLayer`](crate::timeout::AttemptTimeoutLayer) below the retry layer cuts the one that is under way:
    /// `.deadline(GenerateContent::until)`.
    pub fn deadline(mut self, deadline: Deadline) -> Self {
        self.set_deadline(deadline);
        self
    }

    /// The deadline, if there is one.
    #[must_use]
    pub fn until(&self) -> Option<Deadline> {
        self.deadline
    }

    /// Where there is a nearer one already, that stays.
    pub(in crate::gemini) fn set_deadline(&mut self, deadline: Deadline) {
        self.deadline = Some(self.deadline.map_or(deadline, |given| given.min(deadline)));
    }
}

impl fmt::Debug for GenerateContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenerateContent")
            .field("model", &self.model)
            .field("turns", &self.body.contents.len())
            .finish_non_exhaustive()
    }
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let own = |name: &str| !self.extra.contains_key(name);
        let mut map = serializer.serialize_map(None)?;
        if own("contents") {
            map.serialize_entry("contents", &self.contents)?;
        }
        if let Some(system) = self.system.as_ref().filter(|_| own("systemInstruction")) {
            map.serialize_entry("systemInstruction", system)?;
        }
        if own("generationConfig") && (self.temperature.is_some() || !self.config.is_empty()) {
            map.serialize_entry("generationConfig", &Config(self))?;
        }
        for (name, value) in &self.extra {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

struct Config<'a>(&'a Body);

impl Serialize for Config<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(body) = self;
        let mut map = serializer.serialize_map(None)?;
        if let Some(temperature) = body.temperature.filter(|_| !body.config.contains_key("temperature")) {
            map.serialize_entry("temperature", &temperature)?;
        }
        for (name, value) in &body.config {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gemini::ErrorKind;

    fn sent(request: &GenerateContent) -> Value {
        serde_json::from_slice(&request.to_bytes().expect("a valid request")).expect("json")
    }

    #[test]
    fn the_body_is_what_the_api_reads() {
        let request = GenerateContent::new("m")
            .text("one")
            .text("two")
            .content(Content::new(Role::Model, [Part::from_text("three")]))
            .text("four")
            .system("be brief")
            .temperature(0.7)
            .max_output_tokens(9)
            .seed(-3)
            .json_schema(json!({ "type": "object" }))
            .thinking_budget(0)
            .extra("labels", json!({ "a": "b" }))
            .extra("generationConfig", json!({ "topK": 4 }));
        assert_eq!(
            sent(&request),
            json!({
                "contents": [
                    { "role": "user", "parts": [{ "text": "one" }, { "text": "two" }] },
                    { "role": "model", "parts": [{ "text": "three" }] },
                    { "role": "user", "parts": [{ "text": "four" }] },
                ],
                "systemInstruction": { "parts": [{ "text": "be brief" }] },
                "generationConfig": {
                    "temperature": 0.7, "maxOutputTokens": 9, "seed": -3, "responseMimeType": "application/json",
                    "responseJsonSchema": { "type": "object" }, "thinkingConfig": { "thinkingBudget": 0 }, "topK": 4,
                },
                "labels": { "a": "b" },
            })
        );
    }

    #[test]
    fn clones_share_the_body_until_one_is_changed() {
        let first = GenerateContent::new("m").text("hello");
        let mut second = first.clone();
        second.set_model("n");
        let (a, b) = (first.to_bytes().expect("valid"), second.to_bytes().expect("valid"));
        assert_eq!(a.as_ptr(), b.as_ptr());
        let third = second.clone().text("more");
        assert_ne!(third.to_bytes().expect("valid"), a);
        assert_eq!(second.to_bytes().expect("valid").as_ptr(), a.as_ptr());
    }

    #[test]
    fn what_cannot_be_sent_is_an_error_of_its_own() {
        for request in [
            GenerateContent::new("m"),
            GenerateContent::new("m").text("t").temperature(f32::NAN),
            GenerateContent::new("m").text("t").temperature(f32::INFINITY),
        ] {
            assert_eq!(request.to_bytes().expect_err("invalid").kind(), ErrorKind::InvalidRequest);
        }
        assert!(GenerateContent::new("m").text("t").temperature(f32::NAN).temperature(1.0).to_bytes().is_ok());
    }

    #[test]
    fn debug_shows_no_prompt() {
        assert!(!format!("{:?}", GenerateContent::new("m").text("a secret")).contains("secret"));
    }
}
