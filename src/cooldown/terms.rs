use std::{fmt, hash::Hash, num::NonZeroUsize, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Observer, gate::Report, store::Store};
use crate::{
    keyed,
    policy::{
        Attempt, Nanos, Random,
        classify::{self, Class, Classify},
        wait::{FlooredJitter, Wait, floored_jitter},
    },
    telemetry::Observers,
    timeout::NoDeadline,
};

/// Which calls share a quota: [`Everyone`] or [`Per`] key. Sealed.
pub trait Scope<Req>: Stores<Self::Key> + sealed::Sealed {
    /// What tells one quota from another.
    type Key: Eq + Hash;
    #[doc(hidden)]
    fn key(&self, request: &Req) -> Self::Key;
}

/// What is shared, whatever the request.
pub trait Stores<K> {
    #[doc(hidden)]
    fn store(&self) -> &Store<K>;
}

impl Stores<()> for Everyone {
    #[inline]
    fn store(&self) -> &Store<()> {
        &self.store
    }
}

impl<F, K> Stores<K> for Per<F, K> {
    #[inline]
    fn store(&self) -> &Store<K> {
        &self.store
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Everyone {}
    impl<F, K> Sealed for super::Per<F, K> {}
}

/// All calls share one quota: the default.
#[derive(Clone)]
pub struct Everyone {
    pub(super) store: Arc<Store<()>>,
}

impl<Req> Scope<Req> for Everyone {
    type Key = ();

    #[inline]
    fn key(&self, _: &Req) {}
}

/// Calls with the same key share a quota; made by [`CooldownLayer::per`](super::CooldownLayer::per).
pub struct Per<F, K> {
    pub(super) key: F,
    pub(super) store: Arc<Store<K>>,
}

impl<Req, F, K> Scope<Req> for Per<F, K>
where
    F: Fn(&Req) -> K,
    K: Eq + Hash,
{
    type Key = K;

    #[inline]
    fn key(&self, request: &Req) -> K {
        (self.key)(request)
    }
}

impl<F: Clone, K> Clone for Per<F, K> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), store: self.store.clone() }
    }
}

impl fmt::Debug for Everyone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Everyone").field(&self.store).finish()
    }
}

impl<F, K: Eq + Hash> fmt::Debug for Per<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Per").field(&self.store).finish()
    }
}

/// Tells of a failure whether a quota is used up that will not be back soon, and for how long to let it be: a closure
/// `|outcome: &Result<Res, E>| -> Option<Duration>`, or a type.
pub trait Exhausted<Res, E> {
    /// For how long calls are to fail at once; `None` or zero if this is no such failure.
    fn exhausted(&self, outcome: &Result<Res, E>) -> Option<Duration>;
}

impl<Res, E, F: Fn(&Result<Res, E>) -> Option<Duration>> Exhausted<Res, E> for F {
    fn exhausted(&self, outcome: &Result<Res, E>) -> Option<Duration> {
        self(outcome)
    }
}

/// No quota is ever used up: the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct NeverExhausted;

impl<Res, E> Exhausted<Res, E> for NeverExhausted {
    fn exhausted(&self, _: &Result<Res, E>) -> Option<Duration> {
        None
    }
}

/// Everything a layer was told, and what its services share.
#[derive(Clone)]
pub struct Terms<C, W, P, X, D> {
    pub(super) classify: C,
    pub(super) backoff: W,
    pub(super) scope: P,
    pub(super) exhausted: X,
    pub(super) deadline: D,
    pub(super) max_wait: Nanos,
    // Of the scope's store.
    pub(super) observers: Arc<Observers<dyn Observer>>,
}

impl<C> Terms<C, FlooredJitter, Everyone, NeverExhausted, NoDeadline> {
    pub(super) fn new(classify: C) -> Self {
        let observers = Arc::<Observers<dyn Observer>>::default();
        Self {
            classify,
            backoff: floored_jitter(),
            scope: Everyone { store: Arc::new(Store::new(NonZeroUsize::MIN, observers.clone())) },
            exhausted: NeverExhausted,
            deadline: NoDeadline,
            max_wait: Nanos::new(Duration::from_secs(300)),
            observers,
        }
    }
}

impl<C, W, P, X, D> Terms<C, W, P, X, D> {
    pub(super) fn backoff<W2>(self, backoff: W2) -> Terms<C, W2, P, X, D> {
        let Self { classify, scope, exhausted, deadline, max_wait, observers, .. } = self;
        Terms { classify, backoff, scope, exhausted, deadline, max_wait, observers }
    }

    pub(super) fn per<F, K: Eq + Hash>(self, key: F) -> Terms<C, W, Per<F, K>, X, D> {
        let Self { classify, backoff, exhausted, deadline, max_wait, observers, .. } = self;
        // A list of its own: those who share what was before are not told of what comes.
        let observers = Arc::new(Observers::clone(&observers));
        let scope = Per { key, store: Arc::new(Store::new(keyed::DEFAULT_KEYS, observers.clone())) };
        Terms { classify, backoff, scope, exhausted, deadline, max_wait, observers }
    }

    pub(super) fn exhausted<X2>(self, exhausted: X2) -> Terms<C, W, P, X2, D> {
        let Self { classify, backoff, scope, deadline, max_wait, observers, .. } = self;
        Terms { classify, backoff, scope, exhausted, deadline, max_wait, observers }
    }

    pub(super) fn deadline<D2>(self, deadline: D2) -> Terms<C, W, P, X, D2> {
        let Self { classify, backoff, scope, exhausted, max_wait, observers, .. } = self;
        Terms { classify, backoff, scope, exhausted, deadline, max_wait, observers }
    }

    /// The moment before which no call with this key passes, if there is one ahead.
    pub(super) fn cooling_until<K: Eq + Hash>(&self, key: &K) -> Option<Instant>
    where
        P: Stores<K>,
    {
        self.scope.store().until(key, Instant::now())
    }

    /// Whether `outcome` is a success for certain.
    #[inline]
    pub(super) fn accepts<Res, E>(&self, outcome: &Result<Res, E>) -> bool
    where
        C: Classify<Res, E>,
    {
        matches!(outcome, Ok(response) if classify::passes(&self.classify, response))
    }

    /// The class of `outcome` if it is a failure; `None` for the success that most calls are. A failure that nobody has an
    /// opinion on is a transient one here, as it tells nothing about the quota.
    #[inline]
    pub(super) fn failure<Res, E>(&self, outcome: &Result<Res, E>) -> Option<Class>
    where
        C: Classify<Res, E>,
    {
        let class = self.classify.classify(outcome).unwrap_or(match outcome {
            Ok(_) => Class::Success,
            Err(_) => Class::transient(),
        });
        (class != Class::Success).then_some(class)
    }

    /// How a failure of this class bears on the gate.
    pub(super) fn report<Res, E>(&self, class: Class, outcome: &Result<Res, E>) -> Report
    where
        X: Exhausted<Res, E>,
    {
        match (self.exhausted.exhausted(outcome), class) {
            (Some(span), _) if !span.is_zero() => Report::Exhausted(span),
            (_, Class::Throttled { retry_after }) => Report::Throttled(retry_after),
            // It was let in, and found wanting.
            (_, Class::Success | Class::Permanent) => Report::Passed,
            _ => Report::Unknown,
        }
    }

    /// Our guess at the `streak`-th throttling in a row.
    pub(super) fn guess<Res, E>(&self, streak: u32, outcome: &Result<Res, E>) -> Duration
    where
        W: Wait<Res, E>,
    {
        self.backoff.delay(&Attempt::new(streak), Class::throttled(None), outcome, &mut self.backoff.random())
    }

    pub(super) fn random<Res, E>(&self) -> Random
    where
        W: Wait<Res, E>,
    {
        self.backoff.random()
    }
}

impl<C, W, P, X, D> fmt::Debug for Terms<C, W, P, X, D>
where
    C: fmt::Debug,
    W: fmt::Debug,
    P: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("classify", &self.classify)
            .field("backoff", &self.backoff)
            .field("scope", &self.scope)
            .field("max_wait", &self.max_wait.get())
            .finish_non_exhaustive()
    }
}
