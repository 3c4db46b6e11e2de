//! Tokens used.

use std::ops::{Add, AddAssign};

use serde::Deserialize;

use super::lenient;

/// Tokens used, as the server counts them. What it did not say is `None`, which is not zero.
///
/// ```
/// use tower_tenacity::gemini::Usage;
///
/// let first = Usage { prompt: Some(10), total: Some(12), ..Usage::default() };
/// let second = Usage { prompt: Some(5), total: Some(9), thoughts: Some(3), ..Usage::default() };
/// let sum = first + second;
/// assert_eq!((sum.prompt, sum.thoughts, sum.cached, sum.total()), (Some(15), Some(3), None, Some(21)));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// In the prompt, cached ones included.
    #[serde(rename = "promptTokenCount", deserialize_with = "lenient::count")]
    pub prompt: Option<u64>,
    /// Of those in the prompt, taken from a cache.
    #[serde(
        rename = "cachedContentTokenCount",
        deserialize_with = "lenient::count"
    )]
    pub cached: Option<u64>,
    /// In the answers.
    #[serde(rename = "candidatesTokenCount", deserialize_with = "lenient::count")]
    pub candidates: Option<u64>,
    /// In the results of tools that the server ran.
    #[serde(
        rename = "toolUsePromptTokenCount",
        deserialize_with = "lenient::count"
    )]
    pub tool_use_prompt: Option<u64>,
    /// Spent on thinking.
    #[serde(rename = "thoughtsTokenCount", deserialize_with = "lenient::count")]
    pub thoughts: Option<u64>,
    /// All of them.
    #[serde(rename = "totalTokenCount", deserialize_with = "lenient::count")]
    pub total: Option<u64>,
}

impl Usage {
    /// The total: the server's, or the sum of what it said instead.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        let parts = [
            self.prompt,
            self.candidates,
            self.tool_use_prompt,
            self.thoughts,
        ];
        self.total.or_else(|| parts.into_iter().fold(None, sum))
    }
}

/// What is known of either: unknown is not zero, but it does not hide what is known.
fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (known, None) | (None, known) => known,
    }
}

impl Add for Usage {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            prompt: sum(self.prompt, other.prompt),
            cached: sum(self.cached, other.cached),
            candidates: sum(self.candidates, other.candidates),
            tool_use_prompt: sum(self.tool_use_prompt, other.tool_use_prompt),
            thoughts: sum(self.thoughts, other.thoughts),
            // Of two answers one may lack a total of its own.
            total: sum(self.total(), other.total()),
        }
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_may_be_strings_and_nonsense_is_unknown() {
        let usage: Usage = serde_json::from_str(
            r#"{"promptTokenCount":"12","candidatesTokenCount":3.0,"thoughtsTokenCount":-1,
                "cachedContentTokenCount":[1],"totalTokenCount":null,"toolUsePromptTokenCount":18446744073709551615}"#,
        )
        .expect("usage");
        assert_eq!(
            (usage.prompt, usage.candidates, usage.thoughts),
            (Some(12), Some(3), None)
        );
        assert_eq!((usage.cached, usage.total), (None, None));
        assert_eq!((usage + usage).tool_use_prompt, Some(u64::MAX));
        assert_eq!(Usage::default().total(), None);
    }
}
