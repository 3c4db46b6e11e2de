//! Stops calling a service that is down, so that it can get well and callers know at once, or when to come back.
//!
//! ```
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_tenacity::circuit_breaker::{BreakerPolicy, CircuitBreakerLayer, CircuitOpen, State};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
//! let breaker = CircuitBreakerLayer::new(BreakerPolicy::new());
//! let handle = breaker.handle();
//! let mut service = ServiceBuilder::new()
//!     .layer(breaker)
//!     .service(service_fn(|_: &'static str| async { Err::<(), _>("connection refused") }));
//!
//! for _ in 0..20 {
//!     let error = service.ready().await?.call("a job").await.unwrap_err();
//!     assert_eq!(error.to_string(), "connection refused");
//! }
//! // That was enough: the service is left alone for 5 to 10 s.
//! let error = service.ready().await?.call("a job").await.unwrap_err();
//! let open = CircuitOpen::find(&*error).expect("refused by the circuit");
//! assert!(open.retry_after().is_some_and(|left| left.as_secs() <= 10));
//! assert_eq!(handle.state(), State::Open);
//! # Ok(()) }
//! ```
//!
//! # States
//!
//! ```text
//!              half of ≥ 20 calls failed           its time is over, and a call comes
//!   ┌────────┐ ─────────────────────────► ┌──────┐ ─────────────────────────────────► ┌───────────┐
//!   │ closed │                            │ open │                                    │ half-open │
//!   └────────┘                            └──────┘ ◄───────────────────────────────── └───────────┘
//!       ▲                                           too many of the probes failed           │
//!       └───────────────────────────────────────────────────────────────────────────────────┘
//!                                         the probes are good
//! ```
//!
//! *Closed*: calls flow. *Open*: calls are refused with [`CircuitOpen`]. *Half-open*: a few calls pass as probes, the others
//! are refused. A [`Handle`] forces a circuit [open](Handle::force_open), [closed](Handle::force_closed) or
//! [out of the way](Handle::disable), until it is [reset](Handle::reset).
//!
//! What opens a circuit, for how long, and with how many probes it closes is said by [`BreakerPolicy`], whose table tells
//! each default and its reason. What a failure is, by [`classify`](CircuitBreakerLayer::classify); the default knows no more than
//! `Ok` and `Err`. **Over HTTP or Gemini give it `policy::http::classify()` or `gemini::classify()`**, or a 503 that is a response
//! does not count, and a 429 that is an error does. To a classifier that knows throttling a 429 is no failure, as it says how
//! much the caller sends and not how well the service is. There is one circuit for each layer, or one
//! [for each key](CircuitBreakerLayer::per).
//!
//! # Whether you want one
//!
//! No layer of this crate brings one along. A breaker knows two states of the world, and what is between them it
//! makes worse: **where each call fails with a probability of one half, the defaults let about 1 % of all calls
//! succeed rather than 50 %**, as unlucky probes keep it open, and ever longer. Up to 35 % nothing is lost; at 40 % it may open
//! now and then. (A hundred calls a second for ten minutes; a test holds the two ends.)
//!
//! * Against retries that make an overload worse, bound the retries: that does the safe part, and loses nothing where
//!   only some calls fail.
//! * Where a failure takes long to show, or each call costs the service dear though nobody gets an answer, a breaker is the
//!   fastest cure: it takes all the load away.
//! * Where only one of several hosts, models or tenants may fail, give [each its own](CircuitBreakerLayer::per).
//!
//! # With a retry layer around it
//!
//! The usual place of a breaker is below the retry layer, where it sees every attempt, and above a timeout, whose
//! errors are failures to it: all but those of an [attempt timeout](crate::timeout) that found no time left and sent nothing, from which nobody
//! learns how the service is. A timeout *above* drops the call instead. That counts as nothing, unless
//! [slow calls](BreakerPolicy::slow_calls) are watched.
//!
//! The ready-made policies for HTTP, gRPC and Gemini know what [`CircuitOpen`] means; any other has to be told, by
//! [`classify::refusals`](crate::classify::refusals) before its own classifier: never sent, and to be tried again when the next probe is due. Unlike most failures, this one lets a request be sent
//! again that must not be carried out twice. **So calls with retries wait for an open circuit**, up to their deadline, or for 300 s without one; a deadline or a
//! longest pause that would be overrun ends the call at once. That page says how to let them fail at once, too.
//!
//! ```
//! use std::time::Duration;
//! use tower::{ServiceBuilder, service_fn};
//! use tower_tenacity::{RetryLayer, RetryPolicy, classify};
//! use tower_tenacity::circuit_breaker::{BreakerPolicy, CircuitBreakerLayer};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), tower::BoxError> {
//! # use tower::ServiceExt;
//! let policy = RetryPolicy::new()
//!     .timeout(Duration::from_secs(30))
//!     .classify(classify::refusals().or(classify::errors()));
//! let service = ServiceBuilder::new()
//!     .layer(RetryLayer::new(policy))
//!     .layer(CircuitBreakerLayer::new(BreakerPolicy::new()))
//!     .timeout(Duration::from_secs(2))
//!     .service(service_fn(|job: &'static str| async move { Ok::<_, std::io::Error>(job.len()) }));
//! assert_eq!(service.oneshot("job").await?, 3);
//! # Ok(()) }
//! ```
//!
//! # What can be relied on
//!
//! * Whether a call passes is decided in `call`. While calls do not flow, `poll_ready` is ready at once and asks nothing of the
//!   service below, which may be stuck: a probe makes a clone ready for itself. (Of a keyed breaker the circuit is known with the
//!   request only, so it always waits for the service.) Whoever already waits for the service when the circuit opens goes on waiting.
//! * The instance that was polled ready is the one that is called, exactly once. If its call is refused it is replaced by a clone,
//!   so that no permit and no place in a queue is held by a service that may not be called for long.
//! * A probe that is dropped, panics or is never polled gives its permit to the next call. Where more of them in a row are dropped than
//!   pass together, as callers do whose service hangs, there is a pause before the next: at first a 64th of the time that the circuit had
//!   been open, then twice as long each time, up to a quarter. The first answer ends that. A probe that is kept without ever
//!   coming to an end is replaced after as long as the circuit had been open. Half-open cannot get stuck.
//! * A call counts for the state it was let through in. What was sent before a circuit opened cannot close it, and what failed
//!   late cannot open it again.
//! * A call that passes allocates nothing, takes no lock, reads no clock (unless [slow calls](BreakerPolicy::slow_calls) are watched)
//!   and writes to nothing that another core writes to. Every 64th success of a core moves those before into the window, under a
//!   lock that nobody waits for. Failures, probes and refusals take the lock for the time it takes to count.
//! * **Successes that are not in the window yet are moved there before anything is decided**, those of all clones and cores.
//!   A window of calls may see them in another order than they came; a window of time takes those that were found
//!   together to have come evenly since it was last told the time.
//! * A key costs a look-up under a lock of its own shard for each call, and its successes are counted in one word by all cores.
//!
//! Errors from `poll_ready` are returned and do not count, except where a call that was let in makes an instance ready for itself, as probes do.

mod circuits;
mod error;
mod future;
mod handle;
mod layer;
mod observer;
mod policy;
mod service;
mod shared;
mod state;
mod window;

pub use circuits::{Circuits, Everyone, LeakedCircuit, Per};
pub use error::CircuitOpen;
pub use future::ResponseFuture;
pub use handle::{Handle, Status};
pub use layer::CircuitBreakerLayer;
pub use observer::Observer;
pub use policy::{BreakerPolicy, InvalidBreaker};
pub use service::CircuitBreaker;
pub use state::State;
