//! Retries for any tower service.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "gemini")]
pub mod gemini;
pub mod policy;
#[cfg(feature = "testing")]
pub mod testing;

pub use policy::{
    Attempt, Decision, Keep, Policy, Random, StopReason, classify, keep, policy_fn, stop, wait,
};
