//! The service that is called, and everything that is put around it.

pub mod bodies;
pub mod contenders;
pub mod drive;
pub mod heap;
pub mod http;
mod inner;
pub mod loopback;

pub use contenders::{CONTENDERS, Contender, Visit, visit};
pub use inner::{Answer, Behaviour, Failed, Inner};
