//! How many retries all callers together may spend.
//!
//! Three attempts per call are three times the traffic just when a server can bear it least: a server that was slowed down for ten
//! seconds may never get up again, because the retries alone keep it busy. A [`Budget`] bounds retries by what
//! *works*: a tenth of the successes of the last minute, and two to begin with.
//!
//! ```
//! use tokio::time::Instant;
//! use tower_tenacity::policy::budget::Budget;
//!
//! let budget = Budget::standard();
//! let now = Instant::now();
//!
//! // Nothing has worked yet: there is the reserve, and no more.
//! let [first, second] = [(); 2].map(|()| budget.withdraw(now).expect("the reserve is two"));
//! assert!(budget.withdraw(now).is_none());
//!
//! // A retry that was sent is spent; one that was not, because its call was dropped, is given back.
//! first.spend();
//! drop(second);
//! assert_eq!(budget.available(now), 1);
//!
//! // Ten successes are worth a retry.
//! (0..10).for_each(|_| budget.deposit(|| now));
//! assert_eq!(budget.available(now), 2);
//! ```
//!
//! # The rule
//!
//! With `earned = ratio · successes` of the window, a retry is allowed iff, counting it, there were
//!
//! * at most `earned + reserve` retries within the window, and
//! * at most `earned / 2 + reserve` within a tenth of it, rounded up.
//!
//! A budget is asked when the retry is decided, before its pause: retries that wait count. Successes are those of all calls,
//! whether they were tried again or could have been. Failures that are not retried cost nothing.
//!
//! * **Successes fund it**, not requests and not time. While nothing works it runs dry, and retries stop; where it is
//!   funded by requests (Finagle, tower's `TpsBudget`) or bounded by concurrency (Envoy), a server that fails everything still
//!   sees 2.2 to 3.0 times the traffic, and in simulations of a server slowed down for ten seconds at 80 % load neither recovered.
//! * **The reserve is tiny**, and it comes back a window after it was spent. It is what lets a lone fresh client make three
//!   attempts. Each client has its own, so a reserve per second, or a bucket that begins full, multiplied by thousands of small
//!   clients, is what keeps a server down.
//! * **It slides.** What a minute without failures has earned pays for 6 s in which every call fails and is tried again.
//! * **Half of it is kept back.** What may be spent within 6 s is enough for a blip of 2 s in which every call is tried again, and half of them
//!   twice. An outage of 5 s would spend all of it at once, and these retries would come back together, right after the outage. What is kept
//!   back pays for the seconds after that. In the simulation such an outage sees 1.6 attempts for each call (2.2 without this), and the server is never
//!   above its capacity afterwards (1.36 times without this, where the first pause is up to a second); the blip loses 5 % of the calls in it (none without this).
//!
//! With λ requests per second of this client, of which the share `s` succeeds, and a window of `W` seconds, attempts per
//! request never exceed
//!
//! ```text
//! 1  +  ratio · s  +  reserve / (λ · W)
//! ```
//!
//! over any time that is long against the window. In the simulation of a hundred clients with ten calls a second each:
//!
#![doc = include_str!("../../guide/amplification.svg")]
//!
//! And a server that collapsed at the load `ρ` (of its capacity) recovers if
//! `reserve / (λ · W) < 1/ρ − 1`. For [`standard`](Budget::standard) at a load of 0.8 that is more than one request
//! in 7.5 s from each client. **Fleets of smaller clients use [`fleet`](Budget::fleet)**, with a reserve of one: in the same simulation
//! 8000 clients of one request in 10 s each recovered with it, and not with a reserve of two.
//!
//! # What it costs
//!
//! While less than about `ratio` of the calls fail, a budget is not felt. **Above a tenth of failures for long, it lowers success:**
//! with three attempts and a fifth of the attempts failing, 0.87 of the calls succeed instead of 0.99, because most first
//! failures are no longer retried. Where a server fails that often and has capacity to spare, a ratio of 0.2 is one number away
//! (0.95 then):
//!
//! ```
//! use std::time::Duration;
//! use tower_tenacity::policy::budget::Budget;
//!
//! let budget = Budget::new(0.2)?.window(Duration::from_secs(30))?.reserve(5);
//! # let _ = budget;
//! # Ok::<_, tower_tenacity::policy::budget::InvalidBudget>(())
//! ```
//!
//! # How exact it is
//!
//! Never above the rule, whatever the threads do. It may be stricter, by this much:
//!
//! * The window moves in steps of a fiftieth (1.2 s). Successes count for up to one step less than the window, retries
//!   for up to one step more than it, or its tenth.
//! * Where more than 16 successes a step come from one thread, they are brought into the window 16 at a time, credited to when the 16 before
//!   them were. A withdrawal that would be refused first collects what the threads have gathered, so nothing is missing from the
//!   decision; but after a dense thread falls silent, up to 16 of its next successes may count for as old as its last. Twice as
//!   many threads as the machine has cores, but no more than 64, gather by themselves. All others do it together; of successes of theirs that come in one
//!   moment, all but one may count for as old as the last before them.
//!
//! Deposits and withdrawals take no lock, and a budget that slept for a month decides in the same fixed time.
//!
//! # What it costs while nothing is wrong
//!
//! A success is an addition to a word that no other thread writes to. What is left is the count of references: each call holds its
//! budget, and so counts one up and down again, by two atomic operations on a word that few others write to, some 10 ns. **A budget that lives as
//! long as the program need not be counted:** [`leak`](Budget::leak) it, as one does with a `Box`.
//!
//! ```
//! use tower_tenacity::{RetryPolicy, policy::budget::Budget};
//!
//! let policy = RetryPolicy::new().budget(Budget::standard().leak());
//! # let _ = policy;
//! ```

mod atomic;
mod clock;
mod keyed;
mod lane;
mod purse;
mod settings;
mod shared;
mod window;

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    keyed::is_sole,
    threads::{Place, places},
};
use settings::Settings;
use shared::{LocalBudget, Shared, Taken};

pub use keyed::KeyedBudget;
pub use purse::{Funds, NoBudget, Pays, Purse};
pub use settings::InvalidBudget;

// A divisor of 1000, so that windows of whole milliseconds fall into slots of whole microseconds.
const SLOTS: u64 = 50;
// Within a tenth of the window no more than half of what was earned may be spent.
const AT_ONCE: u64 = SLOTS / 10;

/// A bound on the retries of everybody who shares it; see the [module](self).
///
/// A handle: clones share one state. One budget belongs to what is overloaded as one, a server or a quota.
#[derive(Clone)]
#[must_use]
pub struct Budget {
    root: Arc<Root>,
}

struct Root {
    shared: Arc<Shared>,
    // One hold for each place where threads count, made when it is first needed.
    locals: Box<[OnceLock<LocalBudget>]>,
}

impl Budget {
    /// What is right for most: a tenth of the successes of the last 60 s, half of that within 6 s, and a reserve of two.
    ///
    /// The best compromise found between surviving an overload and curing a partial failure: with 100 clients at a load of 0.8
    /// it recovers, it lets three attempts cure all but 1.8 % of the calls while a tenth of the attempts fail, and a lone client
    /// with a request in 5 s is served about as well.
    pub fn standard() -> Self {
        Self::with(Settings::new(100_000_000, 2))
    }

    /// For fleets of thousands of small clients (less than a request in 8 s each): as [`standard`](Self::standard), with a reserve of
    /// one.
    pub fn fleet() -> Self {
        Self::with(Settings::new(100_000_000, 1))
    }

    /// `ratio` retries for each success, from 0 to 1, rounded to the billionth; otherwise as [`standard`](Self::standard).
    ///
    /// # Errors
    ///
    /// If the ratio is below 0, above 1 or not a number.
    pub fn new(ratio: f64) -> Result<Self, InvalidBudget> {
        Ok(Self::with(Settings::new(0, 2).with_ratio(ratio)?))
    }

    /// How long successes and retries are remembered, from a second on. Default: 60 s.
    ///
    /// The answer is a budget of its own, with the other settings of this one and nothing in it.
    ///
    /// # Errors
    ///
    /// If the window is shorter than a second.
    pub fn window(self, window: Duration) -> Result<Self, InvalidBudget> {
        Ok(Self::with(self.shared().settings.with_window(window)?))
    }

    /// How many retries a window may see without a success. Default: 2, one in [`fleet`](Self::fleet).
    ///
    /// The answer is a budget of its own, with the other settings of this one and nothing in it.
    pub fn reserve(self, reserve: u32) -> Self {
        Self::with(self.shared().settings.with_reserve(reserve))
    }

    /// Lets it live as long as the program, so that calls need not count who holds it. For a budget that is made once: each one that is
    /// leaked takes some kilobytes for good.
    ///
    /// Default: a budget is let go with the last policy, service and call that holds it. The answer is the same budget, and goes wherever one goes: into
    /// [`RetryPolicy::budget`](crate::RetryPolicy::budget), and to whoever watches it.
    ///
    /// ```
    /// use tokio::time::Instant;
    /// use tower_tenacity::{RetryPolicy, policy::budget::Budget};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// let budget: &'static Budget = Budget::standard().leak();
    /// let policy = RetryPolicy::new().budget(budget);
    /// assert!(policy.run(|_| async { Err::<(), _>("down") }).await.is_err());
    /// assert_eq!(budget.available(Instant::now()), 0);
    /// # }
    /// ```
    pub fn leak(self) -> &'static Self {
        Box::leak(Box::new(self))
    }

    fn with(settings: Settings) -> Self {
        Self::born(settings, Instant::now(), places())
    }

    fn born(settings: Settings, birth: Instant, lanes: usize) -> Self {
        let shared = Arc::new(Shared::new(settings, birth, lanes));
        Self { root: Arc::new(Root { shared, locals: (0..lanes).map(|_| OnceLock::new()).collect() }) }
    }

    // For calls that share nothing with ours. There may be many such budgets: one lane each will do.
    fn sibling(&self) -> Self {
        let Shared { settings, clock, .. } = self.shared();
        Self::born(*settings, clock.birth(), 1)
    }

    // Whether nobody has a handle, and a new one would be the same.
    fn is_forgettable(&self, now: Instant) -> bool {
        // In this order: who still had a budget a moment ago may by now have its handles only.
        let held = !is_sole(&self.root) || !self.root.locals.iter().filter_map(OnceLock::get).all(LocalBudget::is_sole);
        !held && self.shared().is_idle(now)
    }

    /// Credits a success, whether or not its call could have been tried again.
    ///
    /// `now` is asked for once in sixteen times where traffic is dense, and may be `Instant::now` itself.
    #[inline]
    pub fn deposit(&self, now: impl FnOnce() -> Instant) {
        self.shared().deposit(now);
    }

    /// Takes a retry out of the budget, to be asked when it is decided; `None` if there is none left.
    pub fn withdraw(&self, now: Instant) -> Option<Withdrawal> {
        Taken::of(&self.local(), now).map(Withdrawal)
    }

    /// How many retries would be allowed now, whatever was gathered included: a gauge. In a quiet time that is half of what was earned, and the
    /// reserve.
    #[must_use]
    pub fn available(&self, now: Instant) -> u64 {
        self.shared().available(now)
    }

    /// The handle for a call made on this thread.
    #[inline]
    pub(crate) fn local(&self) -> LocalBudget {
        let Root { shared, locals } = &*self.root;
        Place::among(locals).get().get_or_init(|| LocalBudget::new(shared.clone())).clone()
    }

    #[inline]
    fn shared(&self) -> &Shared {
        &self.root.shared
    }
}

/// A retry taken out of a [`Budget`]: spent once it was sent, given back when this is dropped before that.
#[must_use = "a withdrawal that is dropped is given back"]
pub struct Withdrawal(Taken<LocalBudget>);

impl Withdrawal {
    /// The retry was sent.
    pub fn spend(self) {
        self.0.spend();
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared().fmt(f)
    }
}

impl fmt::Debug for Withdrawal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Withdrawal").finish_non_exhaustive()
    }
}

#[cfg(all(test, interleavings))]
mod interleavings;
#[cfg(all(test, not(interleavings)))]
mod tests;
