//! Three pages on using retries well: [where the layer goes](layer_order), [what may be sent twice](idempotency), and
//! [which numbers to choose](numbers).

#[doc = include_str!("layer_order.md")]
pub mod layer_order {}

#[doc = include_str!("idempotency.md")]
pub mod idempotency {}

#[doc = include_str!("numbers.md")]
pub mod numbers {}
