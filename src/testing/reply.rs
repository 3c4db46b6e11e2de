use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

/// What the stand-in does with one request.
#[derive(Clone, Debug)]
#[must_use]
pub struct Reply {
    pub(super) after: Duration,
    pub(super) action: Action,
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    Respond { status: StatusCode, headers: HeaderMap, body: Bytes, cut: bool },
    // Ends the connection without a byte; with a reset if asked to.
    Hangup { reset: bool },
}

impl Reply {
    /// A good answer: `text`, said by the model.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::candidate(&json!({ "content": content(text.as_ref()), "finishReason": "STOP", "index": 0 }))
    }

    /// A good answer whose text is this JSON document.
    pub fn json(document: impl Into<Value>) -> Self {
        Self::text(document.into().to_string())
    }

    /// The answer that was cut off at the limit of tokens.
    pub fn cut_off(text: impl AsRef<str>) -> Self {
        Self::candidate(&json!({ "content": content(text.as_ref()), "finishReason": "MAX_TOKENS", "index": 0 }))
    }

    /// An answer without a word, as models give now and then.
    pub fn empty() -> Self {
        Self::candidate(&json!({ "content": { "role": "model" }, "finishReason": "STOP", "index": 0 }))
    }

    /// An answer withheld for safety.
    pub fn unsafe_answer() -> Self {
        Self::candidate(&json!({ "finishReason": "SAFETY", "index": 0 }))
    }

    /// A prompt that was blocked: no candidates, but tokens billed.
    pub fn blocked() -> Self {
        Self::response(json!({
            "promptFeedback": { "blockReason": "SAFETY" },
            "usageMetadata": { "promptTokenCount": 12, "totalTokenCount": 12 },
            "modelVersion": "gemini-stand-in",
        }))
    }

    fn candidate(candidate: &Value) -> Self {
        Self::response(json!({
            "candidates": [candidate],
            "usageMetadata": { "promptTokenCount": 12, "candidatesTokenCount": 8, "totalTokenCount": 20 },
            "modelVersion": "gemini-stand-in",
            "responseId": "stand-in",
        }))
    }

    /// A 200 with this body, whatever it is.
    pub fn response(body: impl Into<Value>) -> Self {
        Self::body(StatusCode::OK, JSON, body.into().to_string())
    }

    /// Anything at all.
    pub fn body(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        let action = Action::Respond { status, headers, body: body.into(), cut: false };
        Self { after: Duration::ZERO, action }
    }

    /// An error in Google's envelope.
    pub fn error(status: StatusCode, rpc_status: &str, message: &str, details: impl Into<Value>) -> Self {
        let mut error = json!({ "code": status.as_u16(), "message": message, "status": rpc_status });
        let details = details.into();
        if !details.is_null() {
            error["details"] = details;
        }
        Self::body(status, JSON, json!({ "error": error }).to_string())
    }

    /// 429: a quota per minute is used up; come back after `delay`. As the real one does, the message says it to the
    /// nanosecond and `RetryInfo` rounds whole seconds down.
    pub fn rate_limited(delay: Duration) -> Self {
        Self::quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", 5, delay)
    }

    /// 429: the quota of the day is used up, with the short delay that comes with it all the same.
    pub fn daily_quota() -> Self {
        Self::quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", 20, Duration::from_millis(36_430))
    }

    /// 429: the model is not on this tier at all.
    pub fn no_quota() -> Self {
        Self::quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", 0, Duration::from_millis(38_962))
    }

    fn quota(quota: &str, limit: u32, delay: Duration) -> Self {
        let seconds = delay.as_secs_f64();
        let metric = "generativelanguage.googleapis.com/generate_content_free_tier_requests";
        let message = format!(
            "You exceeded your current quota, please check your plan and billing details. \n* Quota exceeded for metric: \
             {metric}, limit: {limit}, model: gemini-stand-in\nPlease retry in {seconds}s."
        );
        let hint = if seconds >= 1.0 { format!("{}s", delay.as_secs()) } else { format!("{seconds}s") };
        let details = json!([
            {
                "@type": "type.googleapis.com/google.rpc.Help",
                "links": [{
                    "description": "Learn more about Gemini API quotas",
                    "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
                }],
            },
            {
                "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                "violations": [{
                    "quotaMetric": metric,
                    "quotaId": quota,
                    "quotaDimensions": { "location": "global", "model": "gemini-stand-in" },
                    "quotaValue": limit.to_string(),
                }],
            },
            { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": hint },
        ]);
        Self::error(StatusCode::TOO_MANY_REQUESTS, "RESOURCE_EXHAUSTED", &message, details)
    }

    /// 503: the model is overloaded.
    pub fn overloaded() -> Self {
        let message = "The model is overloaded. Please try again later.";
        Self::error(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message, Value::Null)
    }

    /// 500.
    pub fn internal() -> Self {
        Self::error(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "Internal error encountered.", Value::Null)
    }

    /// 400: the key is not valid. A bad key is no 401 at Google.
    pub fn invalid_key() -> Self {
        let details = json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
            "metadata": { "service": "generativelanguage.googleapis.com" },
        }]);
        let message = "API key not valid. Please pass a valid API key.";
        Self::error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message, details)
    }

    /// An HTML page, as proxies and wrong paths give.
    pub fn html(status: StatusCode) -> Self {
        let page = format!(
            "<!DOCTYPE html>\n<html lang=en><title>Error {status}</title>\n<p><b>{status}.</b> That’s an error.\n"
        );
        Self::body(status, "text/html; charset=UTF-8", page)
    }

    /// The connection is reset before anything is said.
    pub fn reset() -> Self {
        Self { after: Duration::ZERO, action: Action::Hangup { reset: true } }
    }

    /// The connection is closed before anything is said.
    pub fn close() -> Self {
        Self { after: Duration::ZERO, action: Action::Hangup { reset: false } }
    }

    /// The connection breaks in the middle of the body. A hang-up stays what it is.
    pub fn truncated(mut self) -> Self {
        if let Action::Respond { cut, .. } = &mut self.action {
            *cut = true;
        }
        self
    }

    /// Takes its time before it says or does anything.
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        if let Action::Respond { headers, .. } = &mut self.action {
            headers.append(name, value);
        }
        self
    }
}

const JSON: &str = "application/json; charset=UTF-8";

fn content(text: &str) -> Value {
    json!({ "role": "model", "parts": [{ "text": text }] })
}
