use std::{
    ops::Add,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    Exponential, ExponentialJitter, Fixed, FlooredJitter, FromOutcome, Incrementing, RandomBetween, RandomExponential,
    Wait,
};
use crate::policy::{Attempt, Random, classify::Class};

/// One wait after another (tenacity's `wait_chain`): the first `times` waits are decided by `wait`, the next ones by
/// what is given to [`then`](Chain::then); the last repeats.
///
/// Every wait sees the number of the attempt in the whole call, as in tenacity.
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::{Attempt, Random, classify::Class, policy::wait::{self, Wait}};
///
/// let wait = wait::chain(3, wait::fixed(Duration::from_secs(3)))
///     .then(2, wait::fixed(Duration::from_secs(7)))
///     .then(1, wait::fixed(Duration::from_secs(9)));
/// let failed: Result<(), ()> = Err(());
/// let seconds = [1, 2, 3, 4, 5, 6, 7].map(|number| {
///     wait.delay(&Attempt::new(number), Class::transient(), &failed, &mut Random::from_thread()).as_secs()
/// });
/// assert_eq!(seconds, [3, 3, 3, 7, 7, 9, 9]);
/// ```
#[must_use]
pub const fn chain<W>(times: u32, wait: W) -> Chain<W> {
    Chain { wait, times }
}

/// A chain of one link; made by [`chain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chain<W> {
    wait: W,
    times: u32,
}

impl<W> Chain<W> {
    /// Appends a wait for the `times` waits that follow.
    #[must_use]
    pub const fn then<T>(self, times: u32, wait: T) -> Then<Self, T> {
        let until = self.times;
        Then { head: self, wait, until, times }
    }
}

impl<Res, E, W: Wait<Res, E>> Wait<Res, E> for Chain<W> {
    fn delay(&self, attempt: &Attempt, class: Class, outcome: &Result<Res, E>, random: &mut Random) -> Duration {
        self.wait.delay(attempt, class, outcome, random)
    }

    fn is_timed(&self) -> bool {
        self.wait.is_timed()
    }

    fn random(&self) -> Random {
        self.wait.random()
    }
}

/// A chain with another wait appended; made by [`Chain::then`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Then<H, W> {
    head: H,
    wait: W,
    /// The last attempt whose wait is decided by the head.
    until: u32,
    times: u32,
}

impl<H, W> Then<H, W> {
    /// Appends a wait for the `times` waits that follow.
    #[must_use]
    pub const fn then<T>(self, times: u32, wait: T) -> Then<Self, T> {
        let until = self.until.saturating_add(self.times);
        Then { head: self, wait, until, times }
    }
}

impl<Res, E, H: Wait<Res, E>, W: Wait<Res, E>> Wait<Res, E> for Then<H, W> {
    fn delay(&self, attempt: &Attempt, class: Class, outcome: &Result<Res, E>, random: &mut Random) -> Duration {
        if attempt.number() <= self.until {
            self.head.delay(attempt, class, outcome, random)
        } else {
            self.wait.delay(attempt, class, outcome, random)
        }
    }

    fn is_timed(&self) -> bool {
        self.head.is_timed() || self.wait.is_timed()
    }

    fn random(&self) -> Random {
        self.head.random().or(|| self.wait.random())
    }
}

/// Two waits added up (tenacity's `wait_combine`); made by `+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sum<A, B> {
    first: A,
    second: B,
}

impl<Res, E, A: Wait<Res, E>, B: Wait<Res, E>> Wait<Res, E> for Sum<A, B> {
    fn delay(&self, attempt: &Attempt, class: Class, outcome: &Result<Res, E>, random: &mut Random) -> Duration {
        let first = self.first.delay(attempt, class, outcome, random);
        first.saturating_add(self.second.delay(attempt, class, outcome, random))
    }

    fn is_timed(&self) -> bool {
        self.first.is_timed() || self.second.is_timed()
    }

    fn random(&self) -> Random {
        self.first.random().or(|| self.second.random())
    }
}

/// Anything between nothing and another wait; made by [`full_jitter`](Exponential::full_jitter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullJitter<W> {
    wait: W,
}

impl<Res, E, W: Wait<Res, E>> Wait<Res, E> for FullJitter<W> {
    fn delay(&self, attempt: &Attempt, class: Class, outcome: &Result<Res, E>, random: &mut Random) -> Duration {
        let delay = self.wait.delay(attempt, class, outcome, random);
        random.between(Duration::ZERO, delay)
    }

    fn is_timed(&self) -> bool {
        self.wait.is_timed()
    }

    fn random(&self) -> Random {
        self.wait.random()
    }
}

/// Anything between half of another wait and all of it; made by [`equal_jitter`](Exponential::equal_jitter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EqualJitter<W> {
    wait: W,
}

impl<Res, E, W: Wait<Res, E>> Wait<Res, E> for EqualJitter<W> {
    fn delay(&self, attempt: &Attempt, class: Class, outcome: &Result<Res, E>, random: &mut Random) -> Duration {
        let delay = self.wait.delay(attempt, class, outcome, random);
        random.between(delay / 2, delay)
    }

    fn is_timed(&self) -> bool {
        self.wait.is_timed()
    }

    fn random(&self) -> Random {
        self.wait.random()
    }
}

/// A wait whose randomness comes from a seed; made by [`seed`](FlooredJitter::seed).
///
/// Clones share the sequence: each decision takes the next stream, so that two calls never draw the same numbers.
#[derive(Clone, Debug)]
pub struct Seeded<W> {
    wait: W,
    next: Arc<AtomicU64>,
}

impl<Res, E, W: Wait<Res, E>> Wait<Res, E> for Seeded<W> {
    fn delay(&self, attempt: &Attempt, class: Class, outcome: &Result<Res, E>, random: &mut Random) -> Duration {
        self.wait.delay(attempt, class, outcome, random)
    }

    fn is_timed(&self) -> bool {
        self.wait.is_timed()
    }

    fn random(&self) -> Random {
        // SplitMix64 (Steele, Lea, Flood 2014): streams of neighbouring numbers must not resemble each other.
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.next.fetch_add(GAMMA, Ordering::Relaxed).wrapping_add(GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Random::seeded(z ^ (z >> 31))
    }
}

macro_rules! combinators {
    ($($name:ident $(<$($param:ident),+>)?;)+) => {$(
        impl $(<$($param),+>)? $name $(<$($param),+>)? {
            /// Draws each wait uniformly between zero and what it would have been: full jitter, which spreads callers
            /// the most. See AWS's
            /// [Exponential Backoff And Jitter](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/).
            #[must_use]
            pub const fn full_jitter(self) -> FullJitter<Self> {
                FullJitter { wait: self }
            }

            /// Draws each wait uniformly between half of what it would have been and all of it.
            #[must_use]
            pub const fn equal_jitter(self) -> EqualJitter<Self> {
                EqualJitter { wait: self }
            }

            /// Takes the randomness from a seed: a program that makes the same decisions in the same order gets
            /// the same waits. Of several seeds in one combination the first counts, for all of it.
            ///
            /// For tests and simulations: the seed's sequence is shared by all calls.
            #[must_use]
            pub fn seed(self, seed: u64) -> Seeded<Self> {
                Seeded { wait: self, next: Arc::new(AtomicU64::new(seed)) }
            }
        }

        impl<R $($(, $param)+)?> Add<R> for $name $(<$($param),+>)? {
            type Output = Sum<Self, R>;

            fn add(self, second: R) -> Self::Output {
                Sum { first: self, second }
            }
        }
    )+};
}

combinators! {
    Fixed;
    RandomBetween;
    Incrementing;
    FromOutcome<F>;
    Exponential;
    RandomExponential;
    ExponentialJitter;
    FlooredJitter;
    Chain<W>;
    Then<H, W>;
    Sum<A, B>;
    FullJitter<W>;
    EqualJitter<W>;
    Seeded<W>;
}
