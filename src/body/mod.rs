//! Request bodies that can be sent again, and what that costs in memory.

mod repeat;

pub use repeat::{NotRepeatable, RepeatBody};
