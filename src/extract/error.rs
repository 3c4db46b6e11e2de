use std::{error::Error, fmt};

use super::{Problems, Report, SchemaError};
use crate::{
    BoxError,
    gemini::{self, NoAnswer},
};

/// No value came of it, and why; with the report of all answers.
pub struct ExtractError(Box<Inner>);

struct Inner {
    failure: Failure,
    report: Report,
}

impl ExtractError {
    pub(super) fn new(failure: Failure, report: Report) -> Self {
        Self(Box::new(Inner { failure, report }))
    }

    /// What the call ended with.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        &self.0.failure
    }

    /// Every answer that came, what was wrong with it, and the tokens spent.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.0.report
    }

    /// The two, taken apart.
    #[must_use]
    pub fn into_parts(self) -> (Failure, Report) {
        (self.0.failure, self.0.report)
    }
}

impl fmt::Debug for ExtractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtractError").field("failure", &self.0.failure).field("report", &self.0.report).finish()
    }
}

impl fmt::Display for ExtractError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.report.answers().len() {
            0 => f.write_str("no answer was got")?,
            1 => f.write_str("no value after 1 answer")?,
            n => write!(f, "no value after {n} answers")?,
        }
        write!(f, ": {}", self.0.failure)
    }
}

impl Error for ExtractError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0.failure {
            Failure::Schema(error) => Some(error),
            Failure::Request(error) => Some(error),
            Failure::Service(error) => Some(&**error),
            Failure::NoAnswer(error) => Some(error),
            Failure::Mismatch(problems) | Failure::Rejected(problems) => Some(problems),
        }
    }
}

/// What went wrong. `Display` never shows the prompt or the answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The type has no schema that Gemini understands. Nothing was sent.
    Schema(SchemaError),
    /// The request has an [extra](gemini::GenerateContent::extra) field that hides turns or schema. Nothing was sent.
    Request(gemini::Error),
    /// The service below failed: the transport, the API, a layer in between.
    Service(BoxError),
    /// An answer that is none: blocked, empty, cut off.
    NoAnswer(NoAnswer),
    /// The answer holds no text, is no JSON or only the beginning of some, or does not fit schema or type.
    Mismatch(Problems),
    /// The value was refused by the caller's check.
    Rejected(Problems),
}

impl Failure {
    /// What is wrong with the answer, where it can be said in paths.
    #[must_use]
    pub fn problems(&self) -> Option<&Problems> {
        match self {
            Self::Mismatch(problems) | Self::Rejected(problems) => Some(problems),
            _ => None,
        }
    }

    // Whether another answer may be better.
    pub(super) fn is_curable(&self) -> bool {
        match self {
            Self::NoAnswer(reason) => reason.is_worth_asking_again(),
            Self::Mismatch(problems) | Self::Rejected(problems) => !problems.is_hopeless(),
            Self::Schema(_) | Self::Request(_) | Self::Service(_) => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A clause without its cause: that is what `source` is for.
        f.write_str(match self {
            Self::Schema(_) => "the type has no usable schema",
            Self::Request(_) => "the request overrides what has to be sent",
            Self::Service(_) => "the service failed",
            Self::NoAnswer(NoAnswer::Incomplete { .. }) => "the model did not finish its answer",
            Self::NoAnswer(_) => "the model gave no answer",
            Self::Mismatch(problems) if problems.is_cut_off() => "the answer ends too early",
            Self::Mismatch(_) => "the answer does not fit the type",
            Self::Rejected(_) => "the check rejected the value",
        })
    }
}
