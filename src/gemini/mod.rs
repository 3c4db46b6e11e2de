//! A Gemini client as a tower service.

mod error;
mod types;

pub use error::{Error, ErrorKind};
pub use types::{
    Answer, BlockReason, Candidate, Content, FinishReason, FunctionCall, GenerateContent, GenerateContentResponse,
    NoAnswer, Part, PromptFeedback, Role, Usage,
};
