use std::time::Duration;

use tokio::time::Instant;

/// The moment at which the answer to a request stops being of use.
///
/// Carried by requests, HTTP ones among their extensions. Where several apply, the nearest counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Instant);

impl Deadline {
    /// At `moment`.
    #[must_use]
    pub const fn at(moment: Instant) -> Self {
        Self(moment)
    }

    /// `time` from now. A time beyond what the clock can count is some 30 years.
    #[must_use]
    pub fn after(time: Duration) -> Self {
        const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 3600);
        let now = Instant::now();
        Self(now.checked_add(time).unwrap_or(now + FAR))
    }

    /// The moment itself.
    #[must_use]
    pub const fn moment(&self) -> Instant {
        self.0
    }

    /// How much time there is from `now` until then; zero if it has passed.
    #[must_use]
    pub fn time_left(&self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }
}

impl From<Instant> for Deadline {
    fn from(moment: Instant) -> Self {
        Self(moment)
    }
}

/// Reads the deadline of a request, for whoever has to keep to it: [`AttemptTimeoutLayer`](super::AttemptTimeoutLayer),
/// [`CooldownLayer`](crate::cooldown::CooldownLayer::deadline). A closure `|request: &Req| -> Option<Deadline>`, or a type.
pub trait ReadDeadline<Req> {
    /// The deadline that `request` carries.
    fn deadline(&self, request: &Req) -> Option<Deadline>;
}

/// Requests that carry no deadline.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDeadline;

impl<Req> ReadDeadline<Req> for NoDeadline {
    fn deadline(&self, _: &Req) -> Option<Deadline> {
        None
    }
}

/// HTTP requests, whose deadline is among their extensions.
#[cfg(feature = "http")]
#[derive(Clone, Copy, Debug, Default)]
pub struct InExtensions;

#[cfg(feature = "http")]
impl<B> ReadDeadline<http::Request<B>> for InExtensions {
    fn deadline(&self, request: &http::Request<B>) -> Option<Deadline> {
        request.extensions().get().copied()
    }
}

impl<Req, F> ReadDeadline<Req> for F
where
    F: Fn(&Req) -> Option<Deadline>,
{
    fn deadline(&self, request: &Req) -> Option<Deadline> {
        self(request)
    }
}
