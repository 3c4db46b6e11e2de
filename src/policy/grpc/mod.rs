//! Retries of gRPC calls: what a status means, the delay a server asks for, the deadline of a call.

mod classify;
mod code;
mod deadline;
mod details;
mod policy;
mod previous_attempts;
mod trailers;

pub use classify::{Classifier, TrailersClassifier, classify};
pub use code::Code;
pub use deadline::{Deadline, deadline, timeout};
pub use policy::Policy;
pub use previous_attempts::{PreviousAttempts, previous_attempts};
pub use trailers::Trailers;
