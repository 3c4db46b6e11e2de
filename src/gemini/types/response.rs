//! The answer, and what came instead of one.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::content::{Content, FunctionCall, Part};
use super::usage::Usage;
use super::{lenient, open_enum};

open_enum! {
    /// Why the model stopped.
    FinishReason {
        /// It had said what it wanted to say.
        Stop = "STOP",
        /// It had written as many tokens as it may.
        MaxTokens = "MAX_TOKENS",
        /// The answer was held to be unsafe.
        Safety = "SAFETY",
        /// The answer was too close to a text known from elsewhere.
        Recitation = "RECITATION",
        /// The language is not supported.
        Language = "LANGUAGE",
        /// No reason is given.
        Unspecified = "FINISH_REASON_UNSPECIFIED",
        /// A reason that has no name.
        Unnamed = "OTHER",
        /// The answer had a forbidden word.
        Blocklist = "BLOCKLIST",
        /// The answer may be of a prohibited kind.
        ProhibitedContent = "PROHIBITED_CONTENT",
        /// The answer may give away personal data.
        Spii = "SPII",
        /// The model wrote a function call that is not one.
        MalformedFunctionCall = "MALFORMED_FUNCTION_CALL",
        /// The model wrote an answer that cannot be read.
        MalformedResponse = "MALFORMED_RESPONSE",
        /// The model called a tool when there was none.
        UnexpectedToolCall = "UNEXPECTED_TOOL_CALL",
        /// The model called tools without end.
        TooManyToolCalls = "TOO_MANY_TOOL_CALLS",
        /// The request left out a thought signature.
        MissingThoughtSignature = "MISSING_THOUGHT_SIGNATURE",
        /// The picture was held to be unsafe.
        ImageSafety = "IMAGE_SAFETY",
        /// The picture may be of a prohibited kind.
        ImageProhibitedContent = "IMAGE_PROHIBITED_CONTENT",
        /// The picture was too close to one known from elsewhere.
        ImageRecitation = "IMAGE_RECITATION",
        /// The picture failed for a reason that has no name.
        ImageOther = "IMAGE_OTHER",
        /// A picture was expected and none was made.
        NoImage = "NO_IMAGE",
        /// A filter of Google Cloud's stepped in.
        ModelArmor = "MODEL_ARMOR",
        /// The answer goes on: ask again with the continuation token.
        Continuation = "CONTINUATION",
    }
}

open_enum! {
    /// Why a prompt was refused.
    BlockReason {
        /// It was held to be unsafe.
        Safety = "SAFETY",
        /// It had a forbidden word.
        Blocklist = "BLOCKLIST",
        /// It may ask for something prohibited.
        ProhibitedContent = "PROHIBITED_CONTENT",
        /// It may ask for an unsafe picture.
        ImageSafety = "IMAGE_SAFETY",
        /// A filter of Google Cloud's stepped in.
        ModelArmor = "MODEL_ARMOR",
        /// It tried to talk the model out of its rules.
        Jailbreak = "JAILBREAK",
        /// No reason is given.
        Unspecified = "BLOCK_REASON_UNSPECIFIED",
        /// A reason that has no name.
        Unnamed = "OTHER",
    }
}

/// What the API answered. Any field may be missing; [`answer`](Self::answer) tells whether there is an answer in it.
///
/// ```
/// use tower_tenacity::gemini::{GenerateContentResponse, NoAnswer};
///
/// let response: GenerateContentResponse = serde_json::from_str(
///     r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"Paris"}]},"finishReason":"STOP"}]}"#,
/// )?;
/// assert_eq!(response.text().as_deref(), Ok("Paris"));
///
/// let response: GenerateContentResponse =
///     serde_json::from_str(r#"{"candidates":[{"finishReason":"MALFORMED_FUNCTION_CALL"}]}"#)?;
/// assert!(response.text().is_err_and(|none| none.is_worth_asking_again()));
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GenerateContentResponse {
    #[serde(deserialize_with = "lenient::list")]
    candidates: Vec<Candidate>,
    #[serde(deserialize_with = "lenient::object")]
    prompt_feedback: Option<PromptFeedback>,
    #[serde(deserialize_with = "lenient::object")]
    usage_metadata: Option<Usage>,
    #[serde(deserialize_with = "lenient::text")]
    model_version: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    response_id: Option<String>,
}

impl GenerateContentResponse {
    /// The answers; more than one only if more were asked for.
    #[must_use]
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// What the server thought of the prompt.
    #[must_use]
    pub fn prompt_feedback(&self) -> Option<&PromptFeedback> {
        self.prompt_feedback.as_ref()
    }

    /// The tokens used; they are charged for, answer or not.
    #[must_use]
    pub fn usage(&self) -> Option<&Usage> {
        self.usage_metadata.as_ref()
    }

    /// The version of the model that answered.
    #[must_use]
    pub fn model_version(&self) -> Option<&str> {
        self.model_version.as_deref()
    }

    /// The server's name for this answer.
    #[must_use]
    pub fn response_id(&self) -> Option<&str> {
        self.response_id.as_deref()
    }

    /// Changes the texts that `Debug` shows; answers are not among them, nor is what is sent back.
    pub(in crate::gemini) fn each_shown(&mut self, change: &impl Fn(&mut String)) {
        self.model_version.iter_mut().chain(&mut self.response_id).for_each(change);
        if let Some(PromptFeedback { block_reason: Some(BlockReason::Other(name)), .. }) = &mut self.prompt_feedback {
            change(name);
        }
        for candidate in &mut self.candidates {
            if let Some(FinishReason::Other(name)) = &mut candidate.finish_reason {
                change(name);
            }
            if let Some(content) = &mut candidate.content {
                content.each_shown(change);
            }
        }
    }

    /// Why the first candidate ended.
    #[must_use]
    pub fn finish_reason(&self) -> Option<&FinishReason> {
        self.candidates.first()?.finish_reason.as_ref()
    }

    /// The first candidate's answer.
    ///
    /// A function call or the result of running code is an answer; thoughts alone are not. A candidate that does not
    /// say why it ended counts as ended well: the JSON around it is complete, so nothing was lost on the way, and
    /// gateways are known to leave the reason out. Any reason but `STOP`, unknown ones included, means that what
    /// is there is not what was asked for.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] says what came instead.
    pub fn answer(&self) -> Result<Answer<'_>, NoAnswer> {
        let feedback = self.prompt_feedback.as_ref();
        let reason = feedback.and_then(|feedback| feedback.block_reason.clone());
        if let Some(reason) = reason.filter(|reason| *reason != BlockReason::Unspecified) {
            return Err(NoAnswer::PromptBlocked { reason: Some(reason) });
        }
        let Some(candidate) = self.candidates.first() else {
            let blocked = feedback.is_some_and(|feedback| feedback.block_reason_message.is_some());
            return Err(if blocked { NoAnswer::PromptBlocked { reason: None } } else { NoAnswer::Empty });
        };
        candidate.check()?;
        match &candidate.content {
            Some(content) if content.parts().iter().any(Part::is_answer) => Ok(Answer { candidate, content }),
            _ => Err(NoAnswer::Empty),
        }
    }

    /// The text of the [`answer`](Self::answer); empty if it is, for instance, a function call only.
    ///
    /// # Errors
    ///
    /// [`NoAnswer`] says what came instead.
    pub fn text(&self) -> Result<Cow<'_, str>, NoAnswer> {
        self.answer().map(|answer| answer.text())
    }
}

/// What the server thought of the prompt.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PromptFeedback {
    #[serde(deserialize_with = "lenient::name")]
    block_reason: Option<BlockReason>,
    #[serde(deserialize_with = "lenient::text")]
    block_reason_message: Option<String>,
    safety_ratings: Option<Box<RawValue>>,
}

impl PromptFeedback {
    /// Why it was refused; `None` if it was not.
    #[must_use]
    pub fn block_reason(&self) -> Option<&BlockReason> {
        self.block_reason.as_ref()
    }

    /// The same in words.
    #[must_use]
    pub fn block_reason_message(&self) -> Option<&str> {
        self.block_reason_message.as_deref()
    }

    /// The ratings, as the JSON that came.
    #[must_use]
    pub fn safety_ratings(&self) -> Option<&RawValue> {
        self.safety_ratings.as_deref()
    }
}

impl fmt::Debug for PromptFeedback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PromptFeedback").field("block_reason", &self.block_reason).finish_non_exhaustive()
    }
}

/// One answer of the model's, whole or not.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Candidate {
    #[serde(deserialize_with = "lenient::large_object")]
    content: Option<Content>,
    #[serde(deserialize_with = "lenient::name")]
    finish_reason: Option<FinishReason>,
    #[serde(deserialize_with = "lenient::text")]
    finish_message: Option<String>,
    #[serde(deserialize_with = "lenient::text")]
    continuation_token: Option<String>,
    safety_ratings: Option<Box<RawValue>>,
    citation_metadata: Option<Box<RawValue>>,
    grounding_metadata: Option<Box<RawValue>>,
    url_context_metadata: Option<Box<RawValue>>,
}

impl Candidate {
    /// What the model said, as far as it got.
    #[must_use]
    pub fn content(&self) -> Option<&Content> {
        self.content.as_ref()
    }

    /// Why it stopped.
    #[must_use]
    pub fn finish_reason(&self) -> Option<&FinishReason> {
        self.finish_reason.as_ref()
    }

    /// The same in words, which may quote what the model said.
    #[must_use]
    pub fn finish_message(&self) -> Option<&str> {
        self.finish_message.as_deref()
    }

    /// What to send to have a long answer go on.
    #[must_use]
    pub fn continuation_token(&self) -> Option<&str> {
        self.continuation_token.as_deref()
    }

    /// How safe the answer was held to be, as the JSON that came.
    #[must_use]
    pub fn safety_ratings(&self) -> Option<&RawValue> {
        self.safety_ratings.as_deref()
    }

    /// The texts it quotes, as the JSON that came.
    #[must_use]
    pub fn citation_metadata(&self) -> Option<&RawValue> {
        self.citation_metadata.as_deref()
    }

    /// What it was grounded in, as the JSON that came.
    #[must_use]
    pub fn grounding_metadata(&self) -> Option<&RawValue> {
        self.grounding_metadata.as_deref()
    }

    /// The pages it read, as the JSON that came.
    #[must_use]
    pub fn url_context_metadata(&self) -> Option<&RawValue> {
        self.url_context_metadata.as_deref()
    }

    fn check(&self) -> Result<(), NoAnswer> {
        use FinishReason::*;
        let Some(reason) = &self.finish_reason else {
            return Ok(());
        };
        let owned = || reason.clone();
        Err(match reason {
            Stop | Unspecified => return Ok(()),
            MaxTokens | Continuation => NoAnswer::Incomplete { reason: owned() },
            Safety
            | Recitation
            | Language
            | Blocklist
            | ProhibitedContent
            | Spii
            | ImageSafety
            | ImageProhibitedContent
            | ImageRecitation
            | ModelArmor => NoAnswer::Blocked { reason: owned() },
            MalformedFunctionCall
            | MalformedResponse
            | UnexpectedToolCall
            | TooManyToolCalls
            | MissingThoughtSignature => NoAnswer::Malformed { reason: owned() },
            Unnamed | ImageOther | NoImage | Other(_) => NoAnswer::Failed { reason: owned() },
        })
    }
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate")
            .field("content", &self.content)
            .field("finish_reason", &self.finish_reason)
            .finish_non_exhaustive()
    }
}

/// An answer, as opposed to what may come instead of one.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    candidate: &'a Candidate,
    content: &'a Content,
}

impl<'a> Answer<'a> {
    /// The texts, joined, without the thoughts; borrowed when there is but one.
    #[must_use]
    pub fn text(&self) -> Cow<'a, str> {
        let mut texts = self.content.parts().iter().filter(|part| !part.is_thought()).filter_map(Part::text);
        let first = texts.next().unwrap_or_default();
        texts.fold(Cow::Borrowed(first), |joined, text| joined + text)
    }

    /// The whole turn, to be sent back if the conversation goes on.
    #[must_use]
    pub fn content(&self) -> &'a Content {
        self.content
    }

    /// The functions the model wants called.
    pub fn function_calls(&self) -> impl Iterator<Item = &'a FunctionCall> + use<'a> {
        self.content.parts().iter().filter_map(Part::function_call)
    }

    /// The candidate it is from.
    #[must_use]
    pub fn candidate(&self) -> &'a Candidate {
        self.candidate
    }
}

/// What came instead of an answer.
///
/// `Display` names the reason, and never quotes prompt or answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NoAnswer {
    /// The prompt was refused.
    PromptBlocked {
        /// Why, where the server says so.
        reason: Option<BlockReason>,
    },
    /// The answer was withheld.
    Blocked {
        /// Why.
        reason: FinishReason,
    },
    /// The model said nothing, or did nothing but think.
    Empty,
    /// The answer was cut off. More of it needs a larger
    /// [`max_output_tokens`](super::GenerateContent::max_output_tokens), not another attempt.
    Incomplete {
        /// Why.
        reason: FinishReason,
    },
    /// The model made a call or an answer that is not well-formed.
    Malformed {
        /// In what way.
        reason: FinishReason,
    },
    /// The model stopped for a reason that is none of the above, or not known.
    Failed {
        /// What the server calls it.
        reason: FinishReason,
    },
}

impl NoAnswer {
    /// Whether the same question may well get an answer the next time.
    ///
    /// As gemini-cli has it: for an empty answer, a malformed one, a recitation and an unnamed reason. Not for what was
    /// held to be unsafe, and not for what was cut off.
    #[must_use]
    pub fn is_worth_asking_again(&self) -> bool {
        use FinishReason::*;
        match self {
            Self::Empty => true,
            Self::Blocked { reason } => matches!(reason, Recitation | ImageRecitation),
            Self::Malformed { reason } => {
                matches!(reason, MalformedFunctionCall | MalformedResponse | UnexpectedToolCall)
            }
            Self::Failed { reason } => matches!(reason, Unnamed | ImageOther | NoImage),
            Self::PromptBlocked { .. } | Self::Incomplete { .. } => false,
        }
    }

    /// Whether prompt or answer were withheld.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        matches!(self, Self::PromptBlocked { .. } | Self::Blocked { .. })
    }
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name is short and upper-case; whatever else stands in its place is not repeated.
        let name = |reason: &FinishReason| plain(reason.as_str()).to_owned();
        match self {
            Self::PromptBlocked { reason: Some(reason) } => {
                write!(f, "the prompt was blocked ({})", plain(reason.as_str()))
            }
            Self::PromptBlocked { reason: None } => f.write_str("the prompt was blocked"),
            Self::Blocked { reason } => write!(f, "the answer was blocked ({})", name(reason)),
            Self::Empty => f.write_str("the answer is empty"),
            Self::Incomplete { reason } => write!(f, "the answer was cut off ({})", name(reason)),
            Self::Malformed { reason } => write!(f, "the answer is malformed ({})", name(reason)),
            Self::Failed { reason } => write!(f, "the model gave no answer ({})", name(reason)),
        }
    }
}

impl std::error::Error for NoAnswer {}

fn plain(name: &str) -> &str {
    let known =
        name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    if known { name } else { "a reason not known" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(json: &str) -> GenerateContentResponse {
        serde_json::from_str(json).expect("every response decodes")
    }

    fn none(json: &str) -> NoAnswer {
        response(json).answer().expect_err("no answer")
    }

    #[test]
    fn texts_are_joined_and_thoughts_left_out() {
        let response = response(
            r#"{"candidates":[{"content":{"parts":[{"text":"hm","thought":true},{"text":"a"},{},{"text":"b"}]}}]}"#,
        );
        assert_eq!(response.text().as_deref(), Ok("ab"));
    }

    #[test]
    fn calls_and_code_are_answers() {
        for part in [r#"{"functionCall":{"name":"f"}}"#, r#"{"codeExecutionResult":{"outcome":"OUTCOME_OK"}}"#] {
            let json = format!(r#"{{"candidates":[{{"content":{{"parts":[{part}]}},"finishReason":"STOP"}}]}}"#);
            assert_eq!(response(&json).text().as_deref(), Ok(""), "{part}");
        }
        let calls = response(r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f"}}]}}]}"#);
        let answer = calls.answer().expect("a call is an answer");
        assert_eq!(answer.function_calls().filter_map(FunctionCall::name).collect::<Vec<_>>(), ["f"]);
    }

    #[test]
    fn what_is_no_answer_says_which_kind() {
        let partial = |reason: &str| {
            none(&format!(r#"{{"candidates":[{{"content":{{"parts":[{{"text":"t"}}]}},"finishReason":"{reason}"}}]}}"#))
        };
        for json in [
            "{}",
            r#"{"candidates":null}"#,
            r#"{"candidates":[{"finishReason":"STOP"}]}"#,
            r#"{"candidates":[{"content":{},"finishReason":"STOP"}]}"#,
            r#"{"candidates":[{"content":{"role":"model"}}]}"#,
            r#"{"candidates":[{"content":{"parts":[{"text":""},{"text":"hm","thought":true},{"thoughtSignature":"s"}]}}]}"#,
        ] {
            assert_eq!(none(json), NoAnswer::Empty, "{json}");
            assert!(none(json).is_worth_asking_again());
        }
        assert_eq!(
            none(r#"{"promptFeedback":{"blockReason":"NEW"}}"#),
            NoAnswer::PromptBlocked { reason: Some(BlockReason::Other("NEW".into())) }
        );
        assert_eq!(none(r#"{"promptFeedback":{"blockReasonMessage":"m"}}"#), NoAnswer::PromptBlocked { reason: None });
        assert!(matches!(partial("SAFETY"), NoAnswer::Blocked { .. }) && !partial("SAFETY").is_worth_asking_again());
        assert!(partial("RECITATION").is_worth_asking_again() && partial("OTHER").is_worth_asking_again());
        assert!(matches!(partial("MAX_TOKENS"), NoAnswer::Incomplete { .. }));
        assert!(!partial("MAX_TOKENS").is_worth_asking_again());
        assert!(matches!(partial("MALFORMED_RESPONSE"), NoAnswer::Malformed { .. }));
        assert!(matches!(partial("ESCALATION"), NoAnswer::Failed { .. }));
        assert_eq!(partial("I told you: secret").to_string(), "the model gave no answer (a reason not known)");
    }

    #[test]
    fn fields_of_another_type_than_promised_count_as_missing() {
        let response = response(
            r#"{"modelVersion":3,"responseId":["x"],"usageMetadata":{"totalTokenCount":"7"},"new":{},
                "candidates":[{"finishReason":1,"index":"0","content":{"role":"model","parts":[{"text":"t"}]}}]}"#,
        );
        assert_eq!((response.model_version(), response.response_id()), (None, None));
        assert_eq!(response.usage().and_then(Usage::total), Some(7));
        assert_eq!(response.finish_reason(), None);
        assert_eq!(response.text().as_deref(), Ok("t"));
    }

    #[test]
    fn an_answer_is_not_lost_for_what_stands_beside_it() {
        for beside in [
            "[]",
            "7",
            r#""STOP""#,
            r#"["SAFETY"]"#,
            r#"{"blockReason":"SAFETY","blockReason":"OTHER"}"#,
            "1e999",
            r#""\ud83d""#,
        ] {
            let json = format!(
                r#"{{"modelVersion":{beside},"promptFeedback":{beside},"usageMetadata":{beside},"candidates":[{{"content":{{"parts":[{{"text":"t"}}]}}}}]}}"#
            );
            assert_eq!(response(&json).text().as_deref(), Ok("t"), "{beside}");
        }
    }

    #[test]
    fn debug_shows_no_answer() {
        let response =
            response(r#"{"candidates":[{"finishMessage":"secret","content":{"parts":[{"text":"secret"}]}}]}"#);
        assert!(!format!("{response:?}").contains("secret"));
    }
}
