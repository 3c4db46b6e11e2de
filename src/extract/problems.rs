use std::fmt;

// A model mends a few things at a time; a list without end would only make the next question dear.
const MAX_PROBLEMS: usize = 20;
const MAX_TEXT: usize = 300;

/// One thing that is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    path: String,
    message: String,
}

impl Problem {
    /// Where: `lines[1].quantity`; empty for the answer as a whole.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What: `must be at least 1`.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// What is wrong with an answer, to be told to the model. At most 20 problems are kept, and 300 characters of each path and message.
///
/// ```
/// use tower_tenacity::extract::Problems;
///
/// let mut problems = Problems::new();
/// assert!(problems.clone().into_result().is_ok());
/// problems.add("total", "must be the sum of the lines");
/// assert_eq!(problems.into_result().unwrap_err().to_string(), "total: must be the sum of the lines");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    list: Vec<Problem>,
    omitted: usize,
    hopeless: bool,
    cut_off: bool,
}

impl Problems {
    /// None so far.
    #[must_use]
    pub const fn new() -> Self {
        Self { list: Vec::new(), omitted: 0, hopeless: false, cut_off: false }
    }

    /// The answer is wrong in a way that asking again does not cure: "this is a receipt, not an invoice". The call ends.
    #[must_use]
    pub fn hopeless(message: impl Into<String>) -> Self {
        let mut problems = Self::from(message.into());
        problems.hopeless = true;
        problems
    }

    // JSON that is good as far as it goes: the model stopped in the midst of it without saying why.
    pub(super) fn cut_off(error: &serde_json::Error) -> Self {
        let mut problems = Self::from(format!("not valid JSON: it ends too early ({error})"));
        problems.cut_off = true;
        problems
    }

    pub(super) const fn is_cut_off(&self) -> bool {
        self.cut_off
    }

    /// Adds a problem at `path`, written as `lines[1].quantity`; an empty path means the answer as a whole.
    pub fn add(&mut self, path: impl Into<String>, message: impl Into<String>) {
        if self.list.len() == MAX_PROBLEMS {
            self.omitted += 1;
            return;
        }
        // Names of fields may be the model's own, so paths are no shorter than messages by nature.
        self.list.push(Problem { path: capped(path.into()), message: capped(message.into()) });
    }

    /// `Ok` if there are none: the last line of a check.
    ///
    /// # Errors
    /// The problems, if there are any.
    pub fn into_result(self) -> Result<(), Self> {
        if self.list.is_empty() { Ok(()) } else { Err(self) }
    }

    /// The problems, at most 20.
    #[must_use]
    pub fn list(&self) -> &[Problem] {
        &self.list
    }

    /// Whether asking again is pointless.
    #[must_use]
    pub const fn is_hopeless(&self) -> bool {
        self.hopeless
    }

    // What is said to the model: paths and problems, and nothing of the transport: no error, no URL, no key.
    pub(super) fn question(&self) -> String {
        use fmt::Write;
        let mut text = String::from("Your answer does not fit what was asked for:\n");
        for problem in &self.list {
            let _ = writeln!(text, "- {problem}");
        }
        if self.omitted > 0 {
            let _ = writeln!(text, "- and {} more", self.omitted);
        }
        text.push_str(
            "Correct this and answer again with the complete JSON document and nothing else. Do not invent data.",
        );
        text
    }
}

fn capped(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(end);
        text.push('…');
    }
    text
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.list.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        if self.omitted > 0 { write!(f, "; and {} more", self.omitted) } else { Ok(()) }
    }
}

impl std::error::Error for Problems {}

/// One problem with the answer as a whole.
impl From<String> for Problems {
    fn from(message: String) -> Self {
        let mut problems = Self::new();
        problems.add("", message);
        problems
    }
}

/// One problem with the answer as a whole.
impl From<&str> for Problems {
    fn from(message: &str) -> Self {
        message.to_owned().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_messages_are_bounded() {
        let mut problems = Problems::new();
        for i in 0..1000 {
            problems.add(format!("lines[{i}].{}", "ä".repeat(10_000)), "ü".repeat(10_000));
        }
        assert_eq!(problems.list().len(), MAX_PROBLEMS);
        assert!(problems.question().chars().count() < 14_000);
        assert!(problems.to_string().ends_with("; and 980 more"));
    }
}
