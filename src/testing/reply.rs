//! What a [`GeminiServer`](super::GeminiServer) answers: constructors for the bodies and faults seen in the field.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use serde_json::{Value, json};

const JSON: &str = "application/json; charset=UTF-8";
const QUOTA_FAILURE: &str = "type.googleapis.com/google.rpc.QuotaFailure";
const REQUESTS_METRIC: &str = "generativelanguage.googleapis.com/generate_content_free_tier_requests";
const MODEL: &str = "gemini-2.5-flash";

/// One answer of a [`GeminiServer`](super::GeminiServer), or one way of not answering.
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::testing::Reply;
///
/// let script = [
///     Reply::overloaded().after(Duration::from_millis(20)), // a slow 503
///     Reply::rate_limited(Duration::from_secs(2)),          // a 429 with the delay in its body
///     Reply::text("a long story").truncated(),              // the connection breaks half-way
///     Reply::text("Hello").usage(7, 2),
/// ];
/// # assert_eq!(script.len(), 4);
/// ```
#[derive(Clone, Debug)]
#[must_use = "a reply does nothing until a server plays it"]
pub struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    payload: Payload,
    fate: Fate,
    after: Duration,
}

#[derive(Clone, Debug)]
enum Payload {
    /// A `GenerateContentResponse`, kept as a value so that its usage can be changed.
    Generated(Value),
    Raw(Bytes),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    Truncated,
    Broken(Break),
}

/// How a connection ends without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Break {
    Close,
    Reset,
}

/// Answers.
impl Reply {
    /// A model's answer: this text, finished with `STOP`.
    pub fn text(text: impl Into<String>) -> Self {
        Self::finished("STOP", vec![json!({ "text": text.into() })])
    }

    /// A model's answer whose text is this JSON, as structured output has it.
    #[allow(clippy::needless_pass_by_value, reason = "`json!` is handed over without a borrow")]
    pub fn json(value: Value) -> Self {
        Self::text(value.to_string())
    }

    /// A 200 with this `GenerateContentResponse`, sent as it is.
    pub fn response(response: Value) -> Self {
        Self::new(StatusCode::OK, JSON, Payload::Generated(response))
    }

    /// Any answer at all.
    ///
    /// # Panics
    ///
    /// If `status` is not a final HTTP status (200 to 999) or `content_type` not a header value.
    pub fn body(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::new(final_status(status), content_type, Payload::Raw(body.into()))
    }

    /// An answer that is cut off by `MAX_TOKENS`. Without any text the content has a role and no parts, as it
    /// happens when thinking used up the tokens.
    pub fn cut_off(text: impl Into<String>) -> Self {
        let text = text.into();
        let parts = if text.is_empty() { Vec::new() } else { vec![json!({ "text": text })] };
        Self::finished("MAX_TOKENS", parts)
    }

    /// An answer that stopped without saying anything: a role, no parts, `STOP`.
    pub fn empty() -> Self {
        Self::finished("STOP", Vec::new())
    }

    /// A prompt that was blocked: `promptFeedback` with `PROHIBITED_CONTENT`, no candidates.
    pub fn blocked() -> Self {
        Self::response(json!({
            "promptFeedback": { "blockReason": "PROHIBITED_CONTENT" },
            "usageMetadata": { "promptTokenCount": 8, "totalTokenCount": 8 },
            "modelVersion": MODEL,
        }))
    }

    /// An answer withheld for `SAFETY`: a finish reason, and nothing said.
    pub fn withheld() -> Self {
        Self::finished("SAFETY", Vec::new())
    }

    fn finished(reason: &str, parts: Vec<Value>) -> Self {
        let mut content = json!({ "role": "model" });
        if !parts.is_empty() {
            content["parts"] = Value::Array(parts);
        }
        Self::response(json!({
            "candidates": [{ "content": content, "finishReason": reason, "index": 0 }],
            "usageMetadata": {},
            "modelVersion": MODEL,
            "responseId": "testing",
        }))
        .usage(8, 5)
    }
}

/// Errors.
impl Reply {
    /// An error in Google's envelope: `{"error": {code, message, status, details}}`.
    ///
    /// `details` is a JSON array; anything else, and an empty array, leaves the field out.
    ///
    /// ```
    /// use serde_json::{Value, json};
    /// use tower_tenacity::testing::Reply;
    ///
    /// let plain = Reply::error(499, "CANCELLED", "The operation was cancelled.", Value::Null);
    /// let detailed = Reply::error(403, "PERMISSION_DENIED", "Your API key was reported as leaked.", json!([
    ///     { "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_LEAKED" },
    /// ]));
    /// # drop((plain, detailed));
    /// ```
    ///
    /// # Panics
    ///
    /// If `status` is not a final HTTP status (200 to 999).
    pub fn error(status: u16, rpc_status: &str, message: &str, details: Value) -> Self {
        let mut error = json!({ "code": status, "message": message, "status": rpc_status });
        if details.as_array().is_some_and(|details| !details.is_empty()) {
            error["details"] = details;
        }
        Self::body(status, JSON, format!("{:#}\n", json!({ "error": error })))
    }

    /// A 429 for a quota per minute that asks for this delay, in the error's message and, rounded down to whole
    /// seconds (from one second on), in its `RetryInfo`. There is no `Retry-After` header: Gemini sends none.
    pub fn rate_limited(delay: Duration) -> Self {
        Self::quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", 10, delay)
    }

    /// A 429 for a quota per day. It asks for a short delay, as the real one does, which does not help.
    pub fn daily_quota() -> Self {
        Self::quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", 250, Duration::from_millis(36_274))
    }

    /// A 429 for a model that this account has no quota for at all (`limit: 0`), with a short delay nevertheless.
    pub fn quota_zero() -> Self {
        Self::quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier", 0, Duration::from_millis(22_518))
    }

    /// A 503 `UNAVAILABLE`: the model is overloaded.
    pub fn overloaded() -> Self {
        Self::error(503, "UNAVAILABLE", "The model is overloaded. Please try again later.", Value::Null)
    }

    /// A 500 `INTERNAL`.
    pub fn internal() -> Self {
        let message = "An internal error has occurred. Please retry or report in \
            https://developers.generativeai.google/guide/troubleshooting";
        Self::error(500, "INTERNAL", message, Value::Null)
    }

    /// A 400 `INVALID_ARGUMENT` with the reason `API_KEY_INVALID`: at Google, a bad key is no 401.
    pub fn invalid_key() -> Self {
        let details = json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "API_KEY_INVALID",
            "domain": "googleapis.com",
            "metadata": { "service": "generativelanguage.googleapis.com" },
        }]);
        Self::error(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", details)
    }

    /// An HTML error page, as a proxy or a front end sends it.
    ///
    /// # Panics
    ///
    /// If `status` is not a final HTTP status (200 to 999).
    pub fn html(status: u16) -> Self {
        let title = final_status(status).canonical_reason().unwrap_or("Error");
        let page = format!(
            "<!DOCTYPE html>\n<html lang=en>\n  <title>Error {status} ({title})!!1</title>\n  \
             <p><b>{status}.</b> <ins>That\u{2019}s an error.</ins>\n"
        );
        Self::body(status, "text/html; charset=UTF-8", page)
    }

    fn quota(quota_id: &str, limit: u32, delay: Duration) -> Self {
        let (told, info) = if delay < Duration::from_secs(1) {
            (format!("{}ms", delay.as_secs_f64() * 1e3), format!("{}s", delay.as_secs_f64()))
        } else {
            (format!("{}s", delay.as_secs_f64()), format!("{}s", delay.as_secs()))
        };
        let message = format!(
            "You exceeded your current quota, please check your plan and billing details. For more information on \
             this error, head to: https://ai.google.dev/gemini-api/docs/rate-limits. \n* Quota exceeded for metric: \
             {REQUESTS_METRIC}, limit: {limit}, model: {MODEL}\nPlease retry in {told}."
        );
        let mut violation = json!({
            "quotaMetric": REQUESTS_METRIC,
            "quotaId": quota_id,
            "quotaDimensions": { "location": "global", "model": MODEL },
        });
        // proto3 JSON: an int64 is a string, and a zero is left out.
        if limit > 0 {
            violation["quotaValue"] = Value::String(limit.to_string());
        }
        let details = json!([
            { "@type": QUOTA_FAILURE, "violations": [violation] },
            {
                "@type": "type.googleapis.com/google.rpc.Help",
                "links": [{
                    "description": "Learn more about Gemini API quotas",
                    "url": "https://ai.google.dev/gemini-api/docs/rate-limits",
                }],
            },
            { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": info },
        ]);
        Self::error(429, "RESOURCE_EXHAUSTED", &message, details)
    }
}

/// Broken connections.
impl Reply {
    /// The connection is reset (TCP RST) when the request has been read, before any byte of an answer.
    pub fn reset() -> Self {
        Self { fate: Fate::Broken(Break::Reset), ..Self::body(200, JSON, Bytes::new()) }
    }

    /// The connection is closed in good order (TCP FIN) when the request has been read, before any byte of an
    /// answer.
    pub fn close() -> Self {
        Self { fate: Fate::Broken(Break::Close), ..Self::body(200, JSON, Bytes::new()) }
    }

    /// This reply, of which only the head and half of the body arrive before the connection is closed; less than
    /// half, if a body too large for the socket's buffers meets a slow reader. The `content-length` still promises
    /// all of it. Nothing changes for [`reset`](Self::reset) and [`close`](Self::close).
    pub fn truncated(mut self) -> Self {
        if self.fate == Fate::Answered {
            self.fate = Fate::Truncated;
        }
        self
    }
}

/// Modifiers.
impl Reply {
    /// Waits this long between the request and the reply; zero by default.
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }

    /// Sets a header, in place of any earlier value.
    ///
    /// # Panics
    ///
    /// If this is not a valid header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("`name` is a header name");
        self.headers.insert(name, header_value(value));
        self
    }

    /// Sets the tokens that `usageMetadata` reports, their sum included, if this reply is a model's answer.
    /// Other replies stay as they are.
    pub fn usage(mut self, prompt: u32, candidates: u32) -> Self {
        if let Payload::Generated(Value::Object(response)) = &mut self.payload {
            let mut usage = json!({
                "promptTokenCount": prompt,
                "totalTokenCount": u64::from(prompt) + u64::from(candidates),
            });
            // proto3 JSON leaves a zero out.
            if candidates > 0 {
                usage["candidatesTokenCount"] = candidates.into();
            }
            response.insert("usageMetadata".to_owned(), usage);
        }
        self
    }
}

/// What the server needs.
impl Reply {
    fn new(status: StatusCode, content_type: &str, payload: Payload) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, header_value(content_type))]);
        Self { status, headers, payload, fate: Fate::Answered, after: Duration::ZERO }
    }

    pub(super) fn delay(&self) -> Duration {
        self.after
    }

    pub(super) fn into_response(self) -> Result<Response<ReplyBody>, Break> {
        let cut = match self.fate {
            Fate::Broken(how) => return Err(how),
            Fate::Answered => false,
            Fate::Truncated => true,
        };
        let bytes = match self.payload {
            Payload::Generated(response) => Bytes::from(format!("{response:#}\n")),
            Payload::Raw(bytes) => bytes,
        };
        let mut response = Response::new(ReplyBody::new(bytes, cut));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        Ok(response)
    }
}

fn final_status(status: u16) -> StatusCode {
    let code = StatusCode::from_u16(status).ok().filter(|code| !code.is_informational());
    code.unwrap_or_else(|| panic!("{status} is not a final HTTP status"))
}

fn header_value(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).expect("the value is a header value")
}

/// A body that may promise more than it delivers.
#[derive(Debug)]
pub(super) struct ReplyBody {
    promised: u64,
    data: Bytes,
    end: End,
}

#[derive(Debug)]
enum End {
    Whole,
    /// The pause lets the connection flush what it has before it is cut.
    Pause,
    Cut,
}

impl ReplyBody {
    fn new(bytes: Bytes, cut: bool) -> Self {
        let (promised, end) = (bytes.len() as u64, if cut { End::Pause } else { End::Whole });
        let data = if cut { bytes.slice(..bytes.len() / 2) } else { bytes };
        Self { promised, data, end }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = CutShort;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutShort>>> {
        if !self.data.is_empty() {
            self.promised -= self.data.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.data)))));
        }
        match self.end {
            End::Whole => Poll::Ready(None),
            End::Cut => Poll::Ready(Some(Err(CutShort))),
            End::Pause => {
                self.end = End::Cut;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.end, End::Whole) && self.data.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.promised)
    }
}

/// Makes hyper give the connection up; nobody gets to see it.
#[derive(Debug)]
pub(super) struct CutShort;

impl std::fmt::Display for CutShort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the script breaks the connection")
    }
}

impl std::error::Error for CutShort {}
