//! placeholder
/// e
#[derive(Debug)]
pub struct Error(ErrorKind);
/// k
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum ErrorKind {
    /// i
    InvalidRequest,
}
impl Error {
    pub(super) fn invalid_request(_: &str) -> Self {
        Self(ErrorKind::InvalidRequest)
    }
    /// k
    pub fn kind(&self) -> ErrorKind {
        self.0
    }
}
