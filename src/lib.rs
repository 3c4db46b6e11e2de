//! Retries for any tower service.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

#[cfg(feature = "extract")]
pub mod extract;
#[cfg(feature = "gemini")]
pub mod gemini;
pub mod policy;
pub mod retry;
#[cfg(feature = "testing")]
pub mod testing;

pub use policy::{
    Attempt, BoxPolicy, CallOptions, Decision, Keep, Policy, Random, RetryPolicy, StopReason, classify, hooks, keep,
    policy_fn, stop, wait,
};
pub use retry::{Retry, RetryError, RetryLayer};
