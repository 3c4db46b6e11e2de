use super::{Classifier, Deadline, classify, deadline};
use crate::policy::{RetryPolicy, classify::Typed, stop, wait};

/// The type of [`RetryPolicy::grpc`], to be named in a struct field.
pub type Policy<M = Typed> = RetryPolicy<stop::AfterAttempt, wait::FlooredJitter, Classifier<M>, ((), Deadline)>;

impl RetryPolicy {
    /// How unary gRPC calls are retried: three attempts, [floored jitter](wait::floored_jitter) where the server names no delay and
    /// the server's delay where it does, what [`grpc::classify`](classify) says, within the
    /// [deadline](super::deadline()) that comes with the request.
    pub fn grpc<M>() -> Policy<M> {
        RetryPolicy::new().classify(classify()).hook(deadline())
    }
}
