//! One caller's 429 holds back everyone who shares the quota.

mod error;
mod future;
mod gate;
mod layer;
mod service;
mod store;
mod terms;

pub use error::{CoolingDown, class_of};
pub use future::ResponseFuture;
pub use layer::CooldownLayer;
pub use service::Cooldown;
pub use terms::{Deadline, Everyone, Exhausted, NeverExhausted, NoDeadline, Per, Scope};
