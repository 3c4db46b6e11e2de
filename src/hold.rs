//! How services and calls hold what they share.
//!
//! A cool-down and a circuit breaker belong to all services made from one layer, and to each of their calls. So somebody has to count who holds
//! them:
//!
//! * [`Counted`], the usual way: what is shared goes with the last layer, service and call that holds it. A call counts itself in and out, by two
//!   atomic operations. A count that all threads write to would cost more than all the rest of a call, so each clone of a service that
//!   is called more than once has a count of its own. A clone for each call (`client.clone().oneshot(…)`) counts with the service it was cloned
//!   from: make one clone for each task and call that, or leak. In axum, whose handlers are given a clone each, leak.
//! * [`Leaked`]: what is shared lives as long as the program, and nobody counts. For a layer that is made once, as most are; each one that is leaked takes
//!   its memory for good.
//!
//! Budgets ([`leak`](crate::policy::budget::Budget::leak)), cool-downs with or without a key ([`leak`](crate::cooldown::CooldownLayer::leak)) and circuits without
//! one ([`leak`](crate::circuit_breaker::CircuitBreakerLayer::leak)) can be leaked; what else there is to set about them is set before that.
//!
//! ```
//! use tower::ServiceBuilder;
//! use tower_tenacity::{
//!     RetryLayer, RetryPolicy, circuit_breaker::{BreakerPolicy, CircuitBreakerLayer}, classify, cooldown::CooldownLayer,
//!     policy::budget::Budget,
//! };
//!
//! # fn check<S: tower::Service<u32>>(_: &S) {}
//! let throttled = classify::throttled_if(classify::error_message_contains("429"));
//! let policy = RetryPolicy::new().classify(classify::refusals().or(throttled).or(classify::errors()));
//! let service = ServiceBuilder::new()
//!     .layer(RetryLayer::new(policy.budget(Budget::standard().leak())))
//!     .layer(CooldownLayer::new(throttled).leak())
//!     .layer(CircuitBreakerLayer::new(BreakerPolicy::new()).leak())
//!     .service_fn(|number: u32| async move { Ok::<_, std::io::Error>(number) });
//! # check(&service);
//! ```
//!
//! What that is worth is measured in `benches/README.md`: on a call that does nothing it is most of the price, on one that crosses a network nothing.

use std::{fmt, ops::Deref, sync::Arc};

/// What a service holds what it shares by: [`Counted`] or [`Leaked`]. Sealed.
pub trait Hold: Clone + sealed::Sealed {
    /// What is shared.
    type Shared;
    /// What a call holds it by.
    type Call: Deref<Target = Self::Shared>;

    #[doc(hidden)]
    fn get(&self) -> &Self::Shared;
    #[doc(hidden)]
    fn call(&mut self) -> Self::Call;
}

mod sealed {
    pub trait Sealed {}
    impl<T> Sealed for super::Counted<T> {}
    impl<T> Sealed for super::Leaked<T> {}
}

/// What is shared goes with the last who holds it.
pub struct Counted<T> {
    count: Arc<Count<T>>,
    home: Home,
}

// The reference count alone in its cache lines, whatever stands beside it in memory.
#[repr(align(128))]
struct Count<T> {
    shared: Arc<T>,
}

// Whose count a service uses. A clone may never be called, as the one that a retry layer keeps for later, or called just once, so
// it gets a count of its own only when it is called again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    Guest,
    Called,
    Own,
}

impl<T> Counted<T> {
    pub(crate) fn new(shared: Arc<T>) -> Self {
        Self { count: Arc::new(Count { shared }), home: Home::Own }
    }

    pub(crate) fn shared(&self) -> &Arc<T> {
        &self.count.shared
    }

    #[cold]
    #[inline(never)]
    fn settle(&mut self) {
        if self.home == Home::Guest {
            self.home = Home::Called;
        } else {
            *self = Self::new(self.count.shared.clone());
        }
    }
}

impl<T> Hold for Counted<T> {
    type Shared = T;
    type Call = Counting<T>;

    #[inline]
    fn get(&self) -> &T {
        &self.count.shared
    }

    #[inline]
    fn call(&mut self) -> Counting<T> {
        if self.home != Home::Own {
            self.settle();
        }
        Counting(self.count.clone())
    }
}

impl<T> Clone for Counted<T> {
    fn clone(&self) -> Self {
        Self { count: self.count.clone(), home: Home::Guest }
    }
}

impl<T: fmt::Debug> fmt::Debug for Counted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// What a call holds by a [`Counted`].
pub struct Counting<T>(Arc<Count<T>>);

impl<T> Deref for Counting<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0.shared
    }
}

impl<T: fmt::Debug> fmt::Debug for Counting<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// What is shared lives as long as the program.
pub struct Leaked<T: 'static>(&'static T);

impl<T> Leaked<T> {
    pub(crate) fn new(shared: T) -> Self {
        Self(Box::leak(Box::new(shared)))
    }

    #[inline]
    pub(crate) const fn for_good(self) -> &'static T {
        self.0
    }
}

impl<T> Hold for Leaked<T> {
    type Shared = T;
    type Call = Self;

    #[inline]
    fn get(&self) -> &T {
        self.0
    }

    #[inline]
    fn call(&mut self) -> Self {
        *self
    }
}

impl<T> Clone for Leaked<T> {
    #[inline]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Leaked<T> {}

impl<T> Deref for Leaked<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Leaked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(all(test, not(interleavings)))]
mod tests {
    use super::*;

    #[test]
    fn a_clone_that_is_called_again_has_a_count_of_its_own() {
        let mut first = Counted::new(Arc::new(7));
        let counts_alone = |hold: &Counted<i32>| Arc::strong_count(&hold.count) == 1;
        let call = first.call();
        assert_eq!((*call, Arc::strong_count(&first.count)), (7, 2));
        drop(call);

        let mut second = first.clone();
        drop(second.call());
        // Called once, it still counts with the first.
        assert!(!counts_alone(&first) && !counts_alone(&second));
        let call = second.call();
        drop(second.clone());
        assert!(counts_alone(&first));
        drop(call);
        assert!(counts_alone(&second));
        assert!(Arc::ptr_eq(first.shared(), second.shared()));
    }

    #[test]
    fn what_is_counted_goes_with_the_last_call() {
        let shared = Arc::new(());
        let gone = Arc::downgrade(&shared);
        let mut hold = Counted::new(shared);
        let call = hold.call();
        drop(hold);
        assert!(gone.upgrade().is_some());
        drop(call);
        assert!(gone.upgrade().is_none());
    }
}
