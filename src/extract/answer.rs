use jsonschema::Validator;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Failure, Problems};
use crate::gemini::GenerateContentResponse;

// From a response to a value: is it an answer, is it JSON, does it fit the schema, does it fit the type.
pub(super) fn read<T: DeserializeOwned>(
    response: &GenerateContentResponse,
    validator: &Validator,
) -> Result<T, Failure> {
    let text = response.text().map_err(Failure::NoAnswer)?;
    // A function call, a picture: an answer, but not to what was asked.
    if text.trim().is_empty() {
        return Err(Failure::Mismatch(Problems::from("the answer holds no text")));
    }
    parse(unwrapped(&text), validator).map_err(Failure::Mismatch)
}

fn parse<T: DeserializeOwned>(text: &str, validator: &Validator) -> Result<T, Problems> {
    let json: Value = serde_json::from_str(text).map_err(|error| match error.is_eof() && !text.is_empty() {
        true => Problems::cut_off(&error),
        false => Problems::from(format!("not valid JSON: {error}")),
    })?;
    let mut problems = Problems::new();
    for error in validator.iter_errors(&json) {
        problems.add(path(error.instance_path().as_str()), error.to_string());
    }
    problems.into_result()?;
    // Straight from the text into the type: a detour over `Value` would round large numbers.
    let mut deserializer = serde_json::Deserializer::from_str(text);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let mut problems = Problems::new();
        let path = error.path().to_string();
        // The root is written as a dot.
        problems.add(if path == "." { String::new() } else { path }, error.inner().to_string());
        problems
    })
}

// Strict but for what carries no data: white space, a byte order mark, a fence around the whole.
fn unwrapped(text: &str) -> &str {
    let text = text.trim().trim_start_matches('\u{feff}').trim_start();
    let inside = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    match inside.and_then(|inside| inside.split_once('\n')) {
        Some((language, inside)) if language.trim().chars().all(char::is_alphanumeric) => inside.trim(),
        _ => text,
    }
}

// `/lines/1/quantity` as `lines[1].quantity`.
fn path(pointer: &str) -> String {
    let mut path = String::new();
    for segment in pointer.split('/').skip(1) {
        if !segment.is_empty() && segment.bytes().all(|byte| byte.is_ascii_digit()) {
            path.push('[');
            path.push_str(segment);
            path.push(']');
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&segment.replace("~1", "/").replace("~0", "~"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, serde::Deserialize, PartialEq)]
    struct Order {
        id: u64,
        lines: Vec<i32>,
    }

    fn order(text: &str) -> Result<Order, String> {
        let schema = json!({"type": "object", "properties": {"lines": {"type": "array", "items": {"type": "integer", "minimum": 1}}}});
        parse(unwrapped(text), &jsonschema::validator_for(&schema).unwrap()).map_err(|problems| problems.to_string())
    }

    #[test]
    fn fences_marks_and_white_space_are_no_data() {
        let good = r#"{"id": 18446744073709551615, "lines": [1]}"#;
        let value = Ok(Order { id: u64::MAX, lines: vec![1] });
        for text in [
            good.to_owned(),
            format!("\u{feff}\n {good}\n\n"),
            format!("```json\n{good}\n```\n"),
            format!("```\n{good}```"),
        ] {
            assert_eq!(order(&text), value, "{text}");
        }
    }

    #[test]
    fn whatever_is_more_or_less_than_the_value_is_refused() {
        for text in [
            "",
            "null x",
            "{",
            r#"{"id": 1, "lines": [1]} and so on"#,
            r#"Here: {"id": 1, "lines": [1]}"#,
            r#"{"id": 1 "lines": []}"#,
            "```json",
            "``````",
            r#"{"id": 1, "lines": [1],}"#,
        ] {
            let problem = order(text).unwrap_err();
            assert!(problem.starts_with("not valid JSON: ") || problem.contains("is not of type"), "{text}: {problem}");
        }
        let deep = "[".repeat(100_000);
        assert!(order(&deep).unwrap_err().contains("recursion limit"));
    }

    #[test]
    fn all_problems_of_the_schema_are_named_with_their_paths() {
        let problems = order(r#"{"id": 1, "lines": [0, 5, "x"]}"#).unwrap_err();
        assert_eq!(problems, r#"lines[0]: 0 is less than the minimum of 1; lines[2]: "x" is not of type "integer""#);
    }

    #[test]
    fn a_problem_with_the_type_is_named_with_its_path() {
        let problems = order(r#"{"id": -1, "lines": [1]}"#).unwrap_err();
        assert!(problems.starts_with("id: invalid value: integer `-1`, expected u64"), "{problems}");
        let problems = order(r#"{"lines": [1]}"#).unwrap_err();
        assert!(problems.starts_with("missing field `id`"), "{problems}");
    }

    #[test]
    fn pointers_become_paths() {
        assert_eq!(path("/a/0/b~1c/~0"), "a[0].b/c.~");
        assert_eq!(path(""), "");
    }
}
