//! From a response to a typed answer or a typed error, whatever the content type says.

use std::borrow::Cow;
use std::time::SystemTime;

use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::details::Detail;
use super::{Error, ErrorKind, RpcStatus, duration};
use crate::gemini::types::GenerateContentResponse;
use crate::policy::http::hints;

/// What the API answers to a question that went well; errors inside it are found in the same pass.
#[derive(Deserialize)]
struct Success {
    error: Option<Box<RawValue>>,
}

/// Reads the body of a response that says success.
pub(crate) fn decode(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    key: &str,
) -> Result<GenerateContentResponse, Error> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let error = match serde_json::from_slice::<GenerateContentResponse>(body) {
        Ok(mut response) => {
            response.each_shown(&|text| redact(text, key));
            // A response with candidates is not searched for an error: it is one pass for the usual case.
            if !response.candidates().is_empty() {
                return Ok(response);
            }
            match serde_json::from_slice::<Success>(body) {
                Ok(Success { error: None }) => return Ok(response),
                _ => None,
            }
        }
        Err(error) => Some(error),
    };
    if let Some(found) = find(body) {
        return Err(Error::api(status, headers, &found, key));
    }
    let truncated = error.as_ref().is_some_and(|error| error.classify() == Category::Eof);
    Err(Error::undecodable(status, truncated, describe(body, truncated)))
}

/// Reads the body of a response that says failure.
pub(crate) fn from_response(status: StatusCode, headers: &HeaderMap, body: &[u8], key: &str) -> Error {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let found = find(body).or_else(|| match serde_json::from_slice(body) {
        // Without an envelope.
        Ok(Value::Object(fields)) => Some(fields),
        _ => None,
    });
    let found = found.unwrap_or_else(|| {
        let message = excerpt(body, key);
        Map::from_iter([("message".to_owned(), Value::String(message))])
    });
    Error::api(status, headers, &found, key)
}

impl Error {
    fn api(status: StatusCode, headers: &HeaderMap, fields: &Map<String, Value>, key: &str) -> Self {
        let mut message = text(fields, "message");
        let mut details = details(fields);
        let mut rpc = rpc_status(fields);
        let mut code = code(fields);
        // An error that went through another client: the whole envelope as a text. What is inside is closer to the truth.
        if let Some(inner) =
            Some(message.trim()).filter(|text| text.starts_with(['{', '['])).and_then(|text| find(text.as_bytes()))
        {
            let mut own = self::details(&inner);
            own.append(&mut details);
            details = own;
            rpc = rpc_status(&inner).or(rpc);
            code = self::code(&inner).or(code);
            message = text(&inner, "message");
        }
        if message.is_empty() {
            message = legacy_message(fields);
        }

        let mut error = Self::new(ErrorKind::Api, "");
        let inner = &mut *error.inner;
        // The line above the body is to be trusted, save where it says success.
        let claimed = code.or_else(|| rpc.as_ref().and_then(RpcStatus::http));
        let status = if status.is_success() { claimed.unwrap_or(status) } else { status };
        inner.status = Some(status);
        let in_headers = hints::retry_after(status, headers, SystemTime::now).filter(duration::is_believable);
        inner.retry_after = details
            .iter()
            .filter_map(Detail::retry_after)
            .chain(duration::in_message(&message))
            .chain(in_headers)
            .max();
        let limited = inner.status == Some(StatusCode::TOO_MANY_REQUESTS) || rpc == Some(RpcStatus::ResourceExhausted);
        inner.quota_exhausted =
            limited && (details.iter().any(Detail::is_quota_exhausted) || is_quota_exhausted(&message));
        inner.rpc_status = rpc;

        let redact = |text: &mut String| redact(text, key);
        redact(&mut message);
        details.iter_mut().for_each(|detail| detail.each_text(&redact));
        if let Some(RpcStatus::Other(name)) = &mut inner.rpc_status {
            redact(name);
        }
        inner.message = message;
        inner.details = details;
        error
    }
}

/// A key has 39 characters. What is shorter than this is a stand-in, such as `key` or `test`, which is no secret, and
/// which turns up in the midst of other words: to replace it would garble the text and hide nothing.
const SHORTEST_KEY: usize = 8;

fn redact(text: &mut String, key: &str) {
    if key.len() >= SHORTEST_KEY && text.contains(key) {
        *text = text.replace(key, "[api key]");
    }
}

/// The same for a key in the midst of which a text was cut.
fn redact_half(text: &mut String, key: &str) {
    let halves = (SHORTEST_KEY..key.len()).rev().filter_map(|length| key.get(..length));
    if let Some(half) = halves.into_iter().find(|half| text.ends_with(half)) {
        text.truncate(text.len() - half.len());
        text.push_str("[api key]");
    }
}

fn text(fields: &Map<String, Value>, name: &str) -> String {
    match fields.get(name) {
        Some(Value::String(text)) => text.clone(),
        _ => String::new(),
    }
}

fn details(fields: &Map<String, Value>) -> Vec<Detail> {
    match fields.get("details") {
        Some(Value::Array(details)) => details.iter().filter_map(Detail::read).collect(),
        _ => Vec::new(),
    }
}

fn rpc_status(fields: &Map<String, Value>) -> Option<RpcStatus> {
    match fields.get("status")? {
        Value::String(name) if !name.is_empty() => Some(match name.parse() {
            Ok(number) => RpcStatus::from_code(number)?,
            Err(_) => RpcStatus::from(name.as_str()),
        }),
        Value::Number(number) => RpcStatus::from_code(number.as_u64()?),
        _ => None,
    }
}

fn code(fields: &Map<String, Value>) -> Option<StatusCode> {
    let code = match fields.get("code")? {
        Value::Number(number) => number.as_u64()?,
        Value::String(text) => text.parse().ok()?,
        _ => return None,
    };
    let code = StatusCode::from_u16(u16::try_from(code).ok()?).ok()?;
    (code.is_client_error() || code.is_server_error()).then_some(code)
}

/// The older shape: `errors: [{message, domain, reason}]`.
fn legacy_message(fields: &Map<String, Value>) -> String {
    let errors = fields.get("errors").and_then(Value::as_array).into_iter().flatten();
    let mut messages = errors.filter_map(|error| error.get("message")?.as_str());
    // OAuth's shape is the last resort.
    messages.next().or_else(|| fields.get("error_description")?.as_str()).unwrap_or_default().to_owned()
}

/// The error object in a body: enveloped, in an array, or in an event of a stream.
fn find(body: &[u8]) -> Option<Map<String, Value>> {
    if let Ok(value) = serde_json::from_slice(body) {
        return in_value(value);
    }
    let text = std::str::from_utf8(body).ok()?;
    text.lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .find_map(|data| in_value(serde_json::from_str(data).ok()?))
}

fn in_value(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Array(values) => values.into_iter().find_map(|value| match value {
            Value::Object(_) => in_value(value),
            _ => None,
        }),
        Value::Object(mut fields) => match fields.remove("error")? {
            Value::Object(error) => Some(error),
            // OAuth: `{"error": "invalid_client", "error_description": "…"}`
            Value::String(error) => {
                let message = fields.remove("error_description").unwrap_or(Value::String(error));
                Some(Map::from_iter([("message".to_owned(), message)]))
            }
            _ => None,
        },
        _ => None,
    }
}

fn is_quota_exhausted(message: &str) -> bool {
    let lower = message.to_ascii_lowercase();
    (lower.contains("prepayment") || lower.contains("credits")) && lower.contains("depleted") || has_limit_zero(&lower)
}

/// `limit:\s*0(?!\d|\.\d)`, as gemini-cli has it: a limit of 0.5 is not one of 0.
fn has_limit_zero(lower: &str) -> bool {
    lower.match_indices("limit:").any(|(at, phrase)| {
        let Some(rest) = lower[at + phrase.len()..].trim_start().strip_prefix('0') else {
            return false;
        };
        let rest = rest.strip_prefix('.').unwrap_or(rest);
        !rest.starts_with(|c: char| c.is_ascii_digit())
    })
}

/// What came in place of an answer, and what to do about it. The body itself is not quoted: it may be an answer.
fn describe(body: &[u8], truncated: bool) -> String {
    let start = body.trim_ascii_start();
    if start.is_empty() {
        return "the response says success and has no body; a proxy in between may have dropped it".to_owned();
    }
    if truncated {
        return format!("the response is JSON that ends too early, after {} bytes", body.len());
    }
    let what: Cow<'_, str> = match std::str::from_utf8(start) {
        Err(_) => "bytes that are not text, perhaps compressed".into(),
        Ok(text) if is_html(text) => "an HTML page".into(),
        Ok(text) if text.starts_with("data:") || text.starts_with("event:") || text.starts_with(':') => {
            "an event stream".into()
        }
        Ok(_) if start[0] == b'{' || start[0] == b'[' => "JSON of another shape".into(),
        Ok(_) => "text that is not JSON".into(),
    };
    format!("the response says success and is {what}, not an answer; check that the base URL leads to the Gemini API")
}

fn is_html(text: &str) -> bool {
    let start: String = text.trim_start().chars().take(200).collect::<String>().to_ascii_lowercase();
    start.starts_with("<!doctype")
        || start.starts_with("<html")
        || start.starts_with("<head")
        || start.contains("<html")
}

/// A line that tells an error page from another.
fn excerpt(body: &[u8], key: &str) -> String {
    // Enough for a title, whatever the page's size.
    let mut text = String::from_utf8_lossy(&body[..body.len().min(16 * 1024)]).into_owned();
    // Before it is cut: half a key is a leak as well.
    redact(&mut text, key);
    redact_half(&mut text, key);
    if !is_html(&text) {
        let words: Vec<_> = text.split_whitespace().collect();
        return cap(&words.join(" "), 200).into_owned();
    }
    let lower = text.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|at| {
        let start = at + lower[at..].find('>')? + 1;
        let end = start + lower[start..].find("</")?;
        let words: Vec<_> = text[start..end].split_whitespace().collect();
        (!words.is_empty()).then(|| words.join(" "))
    });
    match title {
        Some(title) => format!("an HTML page: {}", cap(&title, 120)),
        None => "an HTML page".to_owned(),
    }
}

/// At most `limit` characters, on one line.
pub(super) fn cap(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit && !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut capped: String = text.chars().take(limit).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(limit).is_some() {
        capped.push('…');
    }
    Cow::Owned(capped)
}
