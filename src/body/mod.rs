//! Request bodies that can be sent again, and what that costs in memory.

mod frames;
mod layer;
mod repeat;
mod replay;
mod shared;

pub use layer::{ReplayBodyLayer, ReplayBodyService};
pub use repeat::{NotRepeatable, RepeatBody};
pub use replay::{KeptBody, ReplayBody};
