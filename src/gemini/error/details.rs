//! What the server adds to the message: `google.rpc`'s error details.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::duration;

/// One of the details that came with an error. A field that is missing, or of another type than promised, is `None`
/// or empty.
///
/// `google.rpc.DebugInfo` is left out on purpose: it is known to repeat API keys.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Detail {
    /// When to come back.
    RetryInfo {
        /// The delay asked for.
        retry_delay: Option<Duration>,
    },
    /// Which quotas were exceeded.
    QuotaFailure {
        /// One entry for each quota.
        violations: Vec<QuotaViolation>,
    },
    /// Why, in words for machines.
    ErrorInfo {
        /// Such as `API_KEY_INVALID`.
        reason: Option<String>,
        /// Whose word the reason is.
        domain: Option<String>,
        /// More about it.
        metadata: BTreeMap<String, String>,
    },
    /// Where to read on.
    Help {
        /// The pages.
        links: Vec<HelpLink>,
    },
    /// Which fields of the request are wrong.
    BadRequest {
        /// One entry for each field.
        field_violations: Vec<FieldViolation>,
    },
    /// The message in the caller's language.
    LocalizedMessage {
        /// The language.
        locale: Option<String>,
        /// The message.
        message: Option<String>,
    },
    /// A detail of a type not known, or without one.
    Other {
        /// Its `@type`.
        type_url: Option<String>,
        /// The JSON that came.
        value: Value,
    },
}

/// A quota that was exceeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QuotaViolation {
    /// What is counted.
    pub metric: Option<String>,
    /// The limit's name, such as `GenerateRequestsPerDayPerProjectPerModel-FreeTier`.
    pub id: Option<String>,
    /// What it is counted by: model, location.
    pub dimensions: BTreeMap<String, String>,
    /// The limit.
    pub value: Option<String>,
}

impl QuotaViolation {
    /// Whether the quota is one of a whole day.
    #[must_use]
    pub fn is_daily(&self) -> bool {
        self.id.as_deref().is_some_and(is_daily)
    }
}

/// A page that helps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HelpLink {
    /// What is on it.
    pub description: Option<String>,
    /// Where it is.
    pub url: Option<String>,
}

/// A field of the request that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldViolation {
    /// The path to it.
    pub field: Option<String>,
    /// What is wrong with it.
    pub description: Option<String>,
}

pub(super) fn is_daily(limit: &str) -> bool {
    let limit = limit.to_ascii_lowercase();
    limit.contains("perday") || limit.contains("daily") || limit.contains("per_day")
}

impl Detail {
    /// `None` for what is not kept.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let other = |type_url| Some(Self::Other { type_url, value: value.clone() });
        let Some(fields) = value.as_object() else {
            return other(None);
        };
        let type_url = text(fields, "@type");
        let name = match &type_url {
            Some(url) => url.rsplit(['/', '.']).next().unwrap_or_default(),
            // Details without a type occur; those that matter are known by their fields.
            None if fields.contains_key("retryDelay") => "RetryInfo",
            None if fields.contains_key("violations") => "QuotaFailure",
            None if fields.contains_key("fieldViolations") => "BadRequest",
            None if fields.contains_key("reason") => "ErrorInfo",
            None if fields.contains_key("stackEntries") => "DebugInfo",
            None => "",
        };
        Some(match name {
            "DebugInfo" => return None,
            "RetryInfo" => Self::RetryInfo { retry_delay: fields.get("retryDelay").and_then(duration::from_json) },
            "QuotaFailure" => Self::QuotaFailure {
                violations: entries(fields, "violations", |violation| QuotaViolation {
                    metric: text(violation, "quotaMetric"),
                    id: text(violation, "quotaId"),
                    dimensions: texts(violation, "quotaDimensions"),
                    value: text(violation, "quotaValue"),
                }),
            },
            "ErrorInfo" => Self::ErrorInfo {
                reason: text(fields, "reason"),
                domain: text(fields, "domain"),
                metadata: texts(fields, "metadata"),
            },
            "Help" => Self::Help {
                links: entries(fields, "links", |link| HelpLink {
                    description: text(link, "description"),
                    url: text(link, "url"),
                }),
            },
            "BadRequest" => Self::BadRequest {
                field_violations: entries(fields, "fieldViolations", |violation| FieldViolation {
                    field: text(violation, "field"),
                    description: text(violation, "description"),
                }),
            },
            "LocalizedMessage" => {
                Self::LocalizedMessage { locale: text(fields, "locale"), message: text(fields, "message") }
            }
            _ => return other(type_url),
        })
    }

    /// The delay this detail asks for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RetryInfo { retry_delay } => *retry_delay,
            Self::ErrorInfo { metadata, .. } => {
                metadata.get("quotaResetDelay").and_then(|delay| duration::parse(delay))
            }
            _ => None,
        }
    }

    /// Whether this detail names a quota that will not be back soon.
    pub(super) fn is_quota_exhausted(&self) -> bool {
        match self {
            Self::QuotaFailure { violations } => {
                violations.iter().any(|violation| violation.is_daily() || violation.value.as_deref() == Some("0"))
            }
            Self::ErrorInfo { reason, metadata, .. } => {
                reason.as_deref() == Some("QUOTA_EXHAUSTED")
                    || metadata.get("quota_limit").is_some_and(|limit| is_daily(limit))
                    || metadata.get("quota_limit_value").is_some_and(|value| value == "0")
            }
            _ => false,
        }
    }

    /// Applies `change` to every text.
    pub(super) fn each_text(&mut self, change: &impl Fn(&mut String)) {
        let some = |text: &mut Option<String>| {
            if let Some(text) = text {
                change(text);
            }
        };
        let map = |texts: &mut BTreeMap<String, String>| {
            *texts = std::mem::take(texts)
                .into_iter()
                .map(|(mut name, mut value)| {
                    change(&mut name);
                    change(&mut value);
                    (name, value)
                })
                .collect();
        };
        match self {
            Self::RetryInfo { .. } => {}
            Self::QuotaFailure { violations } => {
                for violation in violations {
                    some(&mut violation.metric);
                    some(&mut violation.id);
                    some(&mut violation.value);
                    map(&mut violation.dimensions);
                }
            }
            Self::ErrorInfo { reason, domain, metadata } => {
                some(reason);
                some(domain);
                map(metadata);
            }
            Self::Help { links } => {
                for link in links {
                    some(&mut link.description);
                    some(&mut link.url);
                }
            }
            Self::BadRequest { field_violations } => {
                for violation in field_violations {
                    some(&mut violation.field);
                    some(&mut violation.description);
                }
            }
            Self::LocalizedMessage { locale, message } => {
                some(locale);
                some(message);
            }
            Self::Other { type_url, value } => {
                some(type_url);
                each_text_of(value, change);
            }
        }
    }
}

fn each_text_of(value: &mut Value, change: &impl Fn(&mut String)) {
    match value {
        Value::String(text) => change(text),
        Value::Array(values) => values.iter_mut().for_each(|value| each_text_of(value, change)),
        Value::Object(fields) => {
            *fields = std::mem::take(fields)
                .into_iter()
                .map(|(mut name, mut value)| {
                    change(&mut name);
                    each_text_of(&mut value, change);
                    (name, value)
                })
                .collect();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A text, or a number written as one.
fn text(fields: &Map<String, Value>, name: &str) -> Option<String> {
    as_text(fields.get(name)?)
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn texts(fields: &Map<String, Value>, name: &str) -> BTreeMap<String, String> {
    let entries = fields.get(name).and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(name, value)| Some((name.clone(), as_text(value)?))).collect()
}

fn entries<T>(fields: &Map<String, Value>, name: &str, read: impl Fn(&Map<String, Value>) -> T) -> Vec<T> {
    let entries = fields.get(name).and_then(Value::as_array).into_iter().flatten();
    entries.filter_map(Value::as_object).map(read).collect()
}
