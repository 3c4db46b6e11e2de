//! How a request is kept for a later attempt.
//!
//! A retry sends the same request again, so something has to remain when the first one is gone. For most
//! requests that is a [clone](Cloned). Where a clone is dear, another [`Keep`] can hold less: the parts to build
//! the request from again, or a handle to what made it.

/// Splits a request into what is sent now and what later attempts are made from.
///
/// ```
/// use tower_tenacity::Keep;
///
/// /// Sends the original first and rebuilds it from its number alone.
/// struct ByNumber;
///
/// impl Keep<String> for ByNumber {
///     type Kept = u32;
///     fn first(&self, request: String) -> (String, Option<u32>) {
///         let kept = request.trim_start_matches("job ").parse().ok();
///         (request, kept)
///     }
///     fn again(&self, kept: u32, last: bool) -> (String, Option<u32>) {
///         (format!("job {kept}"), (!last).then_some(kept))
///     }
/// }
/// ```
pub trait Keep<Req> {
    /// What is held while an attempt is under way.
    type Kept;

    /// The request for the first attempt, and what is kept of it. `None` if it cannot be sent twice; the first
    /// attempt is made all the same.
    fn first(&self, request: Req) -> (Req, Option<Self::Kept>);

    /// The request for a later attempt. `last` says that no attempt can follow, so that nothing
    /// needs to be kept.
    fn again(&self, kept: Self::Kept, last: bool) -> (Req, Option<Self::Kept>);

    /// Whether [`again`](Keep::again) can make a request now. Asked before a retry is decided: where it answers `false`, the call ends
    /// as [`NotReplayable`](crate::StopReason::NotReplayable). Defaults to `true`.
    fn is_repeatable(&self, kept: &Self::Kept) -> bool {
        let _ = kept;
        true
    }

    /// A retry was decided: the attempt before, which may live on in a connection, must use up nothing more of what is kept. Called
    /// before the wait, once or twice, and answers once more whether [`again`](Keep::again) can make a request. Defaults to what
    /// [`is_repeatable`](Keep::is_repeatable) says.
    fn take_over(&self, kept: &mut Self::Kept) -> bool {
        self.is_repeatable(kept)
    }
}

/// Keeps the request itself and sends clones of it; the last permitted attempt takes the original, so `n` attempts
/// make at most `n − 1` clones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cloned;

impl<Req: Clone> Keep<Req> for Cloned {
    type Kept = Req;

    fn first(&self, request: Req) -> (Req, Option<Req>) {
        (request.clone(), Some(request))
    }

    fn again(&self, kept: Req, last: bool) -> (Req, Option<Req>) {
        if last { (kept, None) } else { (kept.clone(), Some(kept)) }
    }
}

/// Keeps nothing: every request is sent once. For requests that cannot be cloned, where retries are switched
/// off or only the hooks are of interest.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl<Req> Keep<Req> for Nothing {
    type Kept = std::convert::Infallible;

    fn first(&self, request: Req) -> (Req, Option<Self::Kept>) {
        (request, None)
    }

    fn again(&self, kept: Self::Kept, _: bool) -> (Req, Option<Self::Kept>) {
        match kept {}
    }
}
