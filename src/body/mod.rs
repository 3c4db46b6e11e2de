//! Request bodies that can be sent again, and what that costs in memory.

mod collect;
mod frames;
mod layer;
mod repeat;
mod replay;
mod shared;

pub use collect::{BodyTooLarge, CollectBody, CollectBodyLayer, CollectFuture, CollectedBody};
pub use layer::{ReplayBodyLayer, ReplayBodyService};
pub use repeat::{NotRepeatable, RepeatBody};
pub use replay::{KeptBody, ReplayBody};
