//! The service that is called, and everything that is put around it.

pub mod contenders;
pub mod drive;
mod inner;

pub use contenders::{CONTENDERS, Contender, Visit, visit};
pub use inner::{Answer, Behaviour, Failed, Inner};
