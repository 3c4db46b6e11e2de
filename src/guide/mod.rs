//! Three pages on using retries well: [where the layer goes](layer_order), [what may be sent twice](idempotency), and
//! [which numbers to choose](numbers).

#[doc = include_str!("layer_order.md")]
pub mod layer_order {}

#[doc = include_str!("idempotency.md")]
pub mod idempotency {}

#[doc = include_str!("numbers.md")]
///
/// # In pictures
///
/// Fifteen draws of each wait after each attempt, where the multiplier is 1 s and the cap 8 s:
///
#[doc = include_str!("delays.svg")]
///
/// What an outage looks like to the server, with and without a budget:
///
#[doc = include_str!("outage.svg")]
///
/// [Budgets](crate::policy::budget) and [cool-downs](crate::cooldown) have theirs. `benches/SIMULATION.md` in the repository has all
/// figures, and how they are made.
pub mod numbers {}
