//! A circuit breaker.

mod circuits;
mod classify;
mod error;
mod future;
mod handle;
mod layer;
mod policy;
mod service;
mod shared;
mod state;
mod window;

pub use circuits::{Circuits, Everyone, Per};
pub use classify::{Classifier, classify};
pub use error::CircuitOpen;
pub use future::ResponseFuture;
pub use handle::{Handle, Status};
pub use layer::CircuitBreakerLayer;
pub use policy::{BreakerPolicy, InvalidBreaker};
pub use service::CircuitBreaker;
pub use state::State;
