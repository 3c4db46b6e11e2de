use std::fmt;

use super::Failure;
use crate::gemini::{FinishReason, GenerateContentResponse, Usage};

/// A value, and how it was got.
#[derive(Clone, Debug)]
pub struct Extracted<T> {
    value: T,
    report: Report,
}

impl<T> Extracted<T> {
    pub(super) fn new(value: T, report: Report) -> Self {
        Self { value, report }
    }

    /// The value.
    pub const fn value(&self) -> &T {
        &self.value
    }

    /// The value, taken out.
    pub fn into_value(self) -> T {
        self.value
    }

    /// Every answer that came, what was wrong with it, and the tokens spent.
    pub const fn report(&self) -> &Report {
        &self.report
    }

    /// Both, taken apart.
    pub fn into_parts(self) -> (T, Report) {
        (self.value, self.report)
    }
}

/// The answers of one call, the good one included; the same on success and on failure.
#[derive(Clone, Debug, Default)]
pub struct Report {
    answers: Vec<AnswerReport>,
}

impl Report {
    pub(super) fn push(&mut self, response: &GenerateContentResponse) {
        self.answers.push(AnswerReport {
            failure: None,
            usage: response.usage().copied(),
            finish_reason: response.finish_reason().cloned(),
            model_version: response.model_version().map(Into::into),
        });
    }

    pub(super) fn fail(&mut self, failure: &Failure) {
        if let Some(answer) = self.answers.last_mut() {
            answer.failure = Some(match failure {
                Failure::NoAnswer(reason) => reason.to_string(),
                Failure::Mismatch(problems) | Failure::Rejected(problems) => problems.to_string(),
                other => other.to_string(),
            });
        }
    }

    /// Each answer, in order.
    #[must_use]
    pub fn answers(&self) -> &[AnswerReport] {
        &self.answers
    }

    /// The tokens of all answers together, failed and blocked ones included. What no answer said is `None`, not zero.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.answers.iter().filter_map(|answer| answer.usage).fold(Usage::default(), |sum, usage| sum + usage)
    }
}

/// One answer.
#[derive(Clone, Debug)]
pub struct AnswerReport {
    failure: Option<String>,
    usage: Option<Usage>,
    finish_reason: Option<FinishReason>,
    model_version: Option<String>,
}

impl AnswerReport {
    /// What was wrong with it; `None` if it gave the value. It may quote what the model wrote, so think before it is logged.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The tokens it took; `None` if the server did not say.
    #[must_use]
    pub const fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Why the model stopped.
    #[must_use]
    pub const fn finish_reason(&self) -> Option<&FinishReason> {
        self.finish_reason.as_ref()
    }

    /// The model that answered.
    #[must_use]
    pub fn model_version(&self) -> Option<&str> {
        self.model_version.as_deref()
    }
}

/// A question about to be asked again; see [`ExtractLayer::on_reask`](super::ExtractLayer::on_reask).
pub struct Reask<'a> {
    pub(super) number: u32,
    pub(super) failure: &'a Failure,
    pub(super) question: Option<&'a str>,
}

impl Reask<'_> {
    /// The number of this reask; the first is 1.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// What was wrong with the answer before.
    #[must_use]
    pub const fn failure(&self) -> &Failure {
        self.failure
    }

    /// The user turn that is added; `None` where there was no answer that can be quoted and the same question is asked again.
    #[must_use]
    pub const fn question(&self) -> Option<&str> {
        self.question
    }
}

impl fmt::Debug for Reask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reask").field("number", &self.number).field("failure", &self.failure).finish_non_exhaustive()
    }
}
