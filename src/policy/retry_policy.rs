use std::{
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Attempt, BoxPolicy, CallOptions, Decision, Keep, Nanos, Policy, Random, StopReason,
    budget::{Funds, NoBudget, Pays, Purse},
    classify::{self, Class, Classify},
    hooks::{self, Delay, Hooks},
    keep::Cloned,
    stop::{self, Stop},
    wait::{self, Wait},
};
use crate::telemetry;

/// A policy put together from parts: when to stop, how long to wait, what an outcome means.
///
/// [`new`](RetryPolicy::new) makes three attempts, waits with floored jitter, takes every `Err` for a transient
/// failure and does nothing else: no hidden budget, no hidden limit. Each part is replaced by the method
/// of its name. With the parts left at their defaults the type is plain `RetryPolicy`, to be named in a struct field;
/// [`boxed`](RetryPolicy::boxed) gives any other a short name.
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::{RetryPolicy, stop, wait};
///
/// struct Client {
///     policy: RetryPolicy,
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let client = Client { policy: RetryPolicy::new() };
/// let answer = client.policy.run(|attempt| async move {
///     if attempt.number() == 1 { Err("busy") } else { Ok("here") }
/// }).await;
/// assert_eq!(answer, Ok("here"));
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct RetryPolicy<
    S = stop::AfterAttempt,
    W = wait::FlooredJitter,
    C = classify::Errors,
    H = (),
    K = Cloned,
    B = NoBudget,
> {
    stop: S,
    wait: W,
    classify: C,
    hooks: H,
    keep: K,
    max_server_delay: Nanos,
    options: CallOptions,
    budget: B,
}

impl RetryPolicy {
    /// Three attempts, [floored jitter](wait::floored_jitter) between them, every `Err` a transient failure.
    ///
    /// Three is what AWS, resilience4j and the per-request limit of Google's SRE book settle on. For waits that can
    /// be repeated, seed them: `.wait(wait::floored_jitter().seed(7))`.
    pub const fn new() -> Self {
        Self {
            stop: stop::after_attempt(3),
            wait: wait::floored_jitter(),
            classify: classify::errors(),
            hooks: (),
            keep: Cloned,
            max_server_delay: Nanos::new(Duration::from_secs(300)),
            options: CallOptions::new(),
            budget: NoBudget,
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new()
    }
}

impl<S, W, C, H, K, B> RetryPolicy<S, W, C, H, K, B> {
    /// When to give up; see [`stop`]. Default: after three attempts.
    pub fn stop<S2>(self, stop: S2) -> RetryPolicy<S2, W, C, H, K, B> {
        let Self { wait, classify, hooks, keep, max_server_delay, options, budget, .. } = self;
        RetryPolicy { stop, wait, classify, hooks, keep, max_server_delay, options, budget }
    }

    /// How long to wait between attempts; see [`wait`]. Default: [`wait::floored_jitter`].
    pub fn wait<W2>(self, wait: W2) -> RetryPolicy<S, W2, C, H, K, B> {
        let Self { stop, classify, hooks, keep, max_server_delay, options, budget, .. } = self;
        RetryPolicy { stop, wait, classify, hooks, keep, max_server_delay, options, budget }
    }

    /// What an outcome means; see [`classify`](mod@classify). Default: every `Err` is transient.
    pub fn classify<C2>(self, classify: C2) -> RetryPolicy<S, W, C2, H, K, B> {
        self.map_classify(|_| classify)
    }

    // For the settings of a classifier that is in place already, too.
    pub(super) fn map_classify<C2>(self, f: impl FnOnce(C) -> C2) -> RetryPolicy<S, W, C2, H, K, B> {
        let Self { stop, wait, classify, hooks, keep, max_server_delay, options, budget } = self;
        RetryPolicy { stop, wait, classify: f(classify), hooks, keep, max_server_delay, options, budget }
    }

    /// How a request is kept for later attempts; see [`keep`](super::keep). Default: [`Cloned`], for requests that are
    /// `Clone`.
    pub fn keep<K2>(self, keep: K2) -> RetryPolicy<S, W, C, H, K2, B> {
        let Self { stop, wait, classify, hooks, max_server_delay, options, budget, .. } = self;
        RetryPolicy { stop, wait, classify, hooks, keep, max_server_delay, options, budget }
    }

    /// Adds ready-made [hooks](Hooks), such as those of `policy::http`. They run after those added before, and the settings
    /// of one call that they make go before those of the others.
    pub fn hook<N>(self, hook: N) -> RetryPolicy<S, W, C, (H, N), K, B> {
        let Self { stop, wait, classify, hooks, keep, max_server_delay, options, budget } = self;
        RetryPolicy { stop, wait, classify, hooks: (hooks, hook), keep, max_server_delay, options, budget }
    }

    /// Lets `observer` watch every call. Observers add up.
    pub fn observe<O>(self, observer: O) -> RetryPolicy<S, W, C, (H, hooks::Observed<O>), K, B> {
        self.hook(hooks::Observed(observer))
    }

    /// Calls `f(attempt, request)` before each attempt, the first included (tenacity's `before`). It may change the
    /// request: a header with the attempt's number, a fallback model from the second attempt on. What is kept
    /// for later attempts is not touched by it; see [`amend`](Self::amend).
    ///
    /// The types of the closure's arguments have to be written, as they cannot be inferred:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// use tower::{ServiceExt, service_fn};
    /// use tower_tenacity::{Attempt, RetryPolicy, retry::Retry};
    ///
    /// #[derive(Clone)]
    /// struct Question { model: &'static str }
    ///
    /// let policy = RetryPolicy::new().before_attempt(|attempt: &Attempt, question: &mut Question| {
    ///     if attempt.number() > 1 { question.model = "small"; }
    /// });
    /// let service = service_fn(|question: Question| async move {
    ///     if question.model == "small" { Ok("an answer") } else { Err("busy") }
    /// });
    /// let answer = Retry::new(policy, service).oneshot(Question { model: "large" }).await;
    /// assert_eq!(answer, Ok("an answer"));
    /// # }
    /// ```
    pub fn before_attempt<F>(self, f: F) -> RetryPolicy<S, W, C, (H, hooks::BeforeAttempt<F>), K, B> {
        self.hook(hooks::BeforeAttempt(f))
    }

    /// Calls `f(attempt, outcome)` after each attempt that failed in a retryable way (tenacity's `after`).
    ///
    /// The types of the closure's arguments have to be written, as they cannot be inferred:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// use tower_tenacity::{Attempt, RetryPolicy};
    ///
    /// #[derive(Debug, PartialEq)]
    /// struct MyError;
    ///
    /// let policy = RetryPolicy::new().after_attempt(|attempt: &Attempt, outcome: &Result<u32, MyError>| {
    ///     eprintln!("attempt {} ended with {outcome:?}", attempt.number());
    /// });
    /// let answer = policy.run(|attempt| async move {
    ///     if attempt.number() < 3 { Err(MyError) } else { Ok(42) }
    /// }).await;
    /// assert_eq!(answer, Ok(42));
    /// # }
    /// ```
    pub fn after_attempt<F>(self, f: F) -> RetryPolicy<S, W, C, (H, hooks::AfterAttempt<F>), K, B> {
        self.hook(hooks::AfterAttempt(f))
    }

    /// Calls `f(attempt, outcome, delay)` once another attempt is decided (tenacity's `before_sleep`).
    ///
    /// The types of the closure's arguments have to be written, as they cannot be inferred:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// use tower_tenacity::{Attempt, RetryPolicy, hooks::Delay};
    ///
    /// #[derive(Debug, PartialEq)]
    /// struct MyError;
    ///
    /// let policy = RetryPolicy::new()
    ///     .before_sleep(|attempt: &Attempt, outcome: &Result<u32, MyError>, delay: &Delay| {
    ///         eprintln!("attempt {}: {outcome:?}, again in {:?}", attempt.number(), delay.duration());
    ///     });
    /// let answer = policy.run(|attempt| async move {
    ///     if attempt.number() < 3 { Err(MyError) } else { Ok(42) }
    /// }).await;
    /// assert_eq!(answer, Ok(42));
    /// # }
    /// ```
    pub fn before_sleep<F>(self, f: F) -> RetryPolicy<S, W, C, (H, hooks::BeforeSleep<F>), K, B> {
        self.hook(hooks::BeforeSleep(f))
    }

    /// Calls `f(attempt, outcome, reason)` when a call ends with a failure.
    ///
    /// The types of the closure's arguments have to be written, as they cannot be inferred:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// use tower_tenacity::{Attempt, RetryPolicy, StopReason};
    ///
    /// #[derive(Debug, PartialEq)]
    /// struct MyError;
    ///
    /// let policy = RetryPolicy::new()
    ///     .on_give_up(|attempt: &Attempt, outcome: &Result<u32, MyError>, reason: StopReason| {
    ///         eprintln!("gave up at attempt {} with {outcome:?}: {reason}", attempt.number());
    ///     });
    /// assert_eq!(policy.run(|_| async { Err(MyError) }).await, Err(MyError));
    /// # }
    /// ```
    pub fn on_give_up<F>(self, f: F) -> RetryPolicy<S, W, C, (H, hooks::OnGiveUp<F>), K, B> {
        self.hook(hooks::OnGiveUp(f))
    }

    /// Lets `f(attempt, kept, outcome)` change what later attempts are made from once another attempt is decided: with
    /// [`Cloned`], the request itself. The change stays for all attempts that follow.
    ///
    /// The types of the closure's arguments have to be written, as they cannot be inferred:
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// use tower::{ServiceExt, service_fn};
    /// use tower_tenacity::{Attempt, RetryPolicy, retry::Retry};
    ///
    /// #[derive(Debug, PartialEq)]
    /// struct TooMany;
    ///
    /// // The request is how many items to ask for.
    /// let policy = RetryPolicy::new().amend(|_: &Attempt, items: &mut u32, _: &Result<u32, TooMany>| *items /= 2);
    /// let service = service_fn(|items: u32| async move { if items > 50 { Err(TooMany) } else { Ok(items) } });
    /// assert_eq!(Retry::new(policy, service).oneshot(200).await, Ok(50));
    /// # }
    /// ```
    pub fn amend<F>(self, f: F) -> RetryPolicy<S, W, C, (H, hooks::Amend<F>), K, B> {
        self.hook(hooks::Amend(f))
    }

    /// Lets `f(request)` give settings for one call that go before the policy's own: another number of
    /// attempts, another timeout, no retries at all.
    ///
    /// ```
    /// use tower_tenacity::{CallOptions, RetryPolicy};
    ///
    /// struct Job { urgent: bool }
    ///
    /// let policy = RetryPolicy::new().per_request(|job: &Job| {
    ///     if job.urgent { CallOptions::new().max_attempts(5) } else { CallOptions::new().enabled(false) }
    /// });
    /// # let _ = policy;
    /// ```
    pub fn per_request<F>(self, f: F) -> RetryPolicy<S, W, C, (H, hooks::PerRequest<F>), K, B> {
        self.hook(hooks::PerRequest(f))
    }

    /// The longest pause a server may dictate, jitter aside. Default: 300 s, as in Envoy and linkerd.
    ///
    /// A server that asks for more, or for more than the time left, ends the call at once with
    /// [`StopReason::ServerDelay`]: a shorter wait would only be refused again. So does a circuit that stays open for longer, with
    /// [`StopReason::HeldBack`]. The bound of the wait strategy is not applied to either.
    pub const fn max_server_delay(mut self, max: Duration) -> Self {
        self.max_server_delay = Nanos::new(max);
        self
    }

    /// How long the whole call may take, attempts and waits together. Default: no limit.
    ///
    /// No wait is started that would end at or past this limit; the call then ends at once with its last outcome. (What
    #[cfg_attr(feature = "http", doc = "[draining](crate::policy::http::drain) a response takes comes on top.)")]
    #[cfg_attr(not(feature = "http"), doc = "draining a response takes comes on top.)")]
    ///
    /// **What is under way, an attempt or the service's getting ready for one, is cut only in a
    /// [detailed](crate::RetryLayer::detailed) layer, which has an error to say it with; elsewhere put a timeout layer
    /// below the retry layer.** Each attempt can see the [time left](Attempt::time_left).
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.options = self.options.timeout(timeout);
        self
    }

    /// Switches the policy off or on. Switched off, a call passes straight through: one attempt, no hooks. Default: on.
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.options = self.options.enabled(enabled);
        self
    }

    /// Lets all calls together spend no more retries than `budget` allows; see [`budget`](super::budget). Default: no
    /// budget. Everything made from one policy value shares it.
    ///
    /// ```
    /// use tower_tenacity::{RetryPolicy, policy::budget::Budget};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// let policy = RetryPolicy::new().budget(Budget::standard());
    /// // Nothing has worked yet: the reserve pays for two retries, and the next call gets none.
    /// for attempts in [3, 1] {
    ///     let mut made = 0;
    ///     let failed = policy.run(|_| { made += 1; async { Err::<(), _>("down") } }).await;
    ///     assert!(failed.is_err());
    ///     assert_eq!(made, attempts);
    /// }
    /// # }
    /// ```
    ///
    /// One for each host, model or whatever else the request tells is [`Budget::per`](super::budget::Budget::per).
    pub fn budget<B2: Pays>(self, budget: B2) -> RetryPolicy<S, W, C, H, K, Funds<B2>> {
        let Self { stop, wait, classify, hooks, keep, max_server_delay, options, .. } = self;
        RetryPolicy { stop, wait, classify, hooks, keep, max_server_delay, options, budget: Funds::new(budget) }
    }

    /// Lets retries cost nothing, as they do unless there is a [budget](Self::budget).
    pub fn without_budget(self) -> RetryPolicy<S, W, C, H, K> {
        let Self { stop, wait, classify, hooks, keep, max_server_delay, options, .. } = self;
        RetryPolicy { stop, wait, classify, hooks, keep, max_server_delay, options, budget: NoBudget }
    }

    /// Whether a request may be sent again when the server may have seen it already. Switched off, only a request that
    /// [never reached](Class::Unsent) the server is sent again. Default: on; for HTTP see `policy::http`, which knows
    /// it from each request.
    pub const fn idempotent(mut self, idempotent: bool) -> Self {
        self.options = self.options.idempotent(idempotent);
        self
    }

    /// Hides the policy's type behind one allocation per call and a virtual call per decision.
    ///
    /// Also a way to be told [which part of a policy does not fit](crate::retry#when-it-does-not-compile).
    pub fn boxed<Req, Res, E>(self) -> BoxPolicy<Req, Res, E>
    where
        Self: Policy<Req, Res, E, Keep: Keep<Req, Kept: Send + 'static> + Send + Sync + 'static>,
        Self: Clone + Send + Sync + 'static,
    {
        BoxPolicy::new(self)
    }

    fn is_enabled(&self) -> bool {
        self.options.is_enabled()
    }
}

impl<S, W, C, H, K, B> RetryPolicy<S, W, C, H, K, B> {
    // Where these are inlined, most of what a class, a hint and a limit could be is known not to be.
    #[inline(always)]
    fn failed<Req, Res, E>(
        &mut self,
        attempt: &Attempt,
        class: Class,
        kept: Option<&mut K::Kept>,
        outcome: &Result<Res, E>,
    ) -> Decision
    where
        S: Stop,
        W: Wait<Res, E>,
        H: Hooks<Req, K::Kept, Res, E>,
        K: Keep<Req>,
        B: Purse<Req>,
    {
        let retry_after = match class {
            Class::Transient { retry_after } | Class::Unsent { retry_after } | Class::Throttled { retry_after } => {
                retry_after
            }
            Class::Success | Class::Permanent => {
                telemetry::gave_up(attempt, StopReason::Permanent);
                self.hooks.gave_up(attempt, outcome, StopReason::Permanent);
                return Decision::GiveUp(StopReason::Permanent);
            }
        };
        self.hooks.after_attempt(attempt, outcome);
        // Asked last: what is taken out is used, or given back when the call is dropped before that.
        let pause = if matches!(class, Class::Unsent { .. }) || self.options.is_idempotent() {
            self.pause(attempt, class, retry_after, outcome).and_then(|delay| {
                let kept = kept.filter(|kept| self.keep.is_repeatable(kept)).ok_or(StopReason::NotReplayable)?;
                if !self.budget.withdraw(|| attempt.now()) {
                    return Err(StopReason::Budget);
                }
                self.hooks.amend(attempt, kept, outcome);
                // It may have been made into something that cannot be sent, or used up just now.
                if !self.keep.take_over(kept) {
                    self.budget.refund();
                    return Err(StopReason::NotReplayable);
                }
                Ok(delay)
            })
        } else {
            Err(StopReason::NotIdempotent)
        };
        match pause {
            Ok(delay) => {
                telemetry::retry(attempt, &delay);
                self.hooks.before_sleep(attempt, outcome, &delay);
                Decision::Retry { after: delay.duration() }
            }
            Err(reason) => {
                telemetry::gave_up(attempt, reason);
                self.hooks.gave_up(attempt, outcome, reason);
                Decision::GiveUp(reason)
            }
        }
    }

    // The pause after a failed attempt, or why there is none.
    #[inline(always)]
    fn pause<Res, E>(
        &self,
        attempt: &Attempt,
        class: Class,
        retry_after: Option<Duration>,
        outcome: &Result<Res, E>,
    ) -> Result<Delay, StopReason>
    where
        S: Stop,
        W: Wait<Res, E>,
    {
        let mut random = self.wait.random();
        // A hint of zero says nothing: the server would have us hammer it.
        let hint = retry_after.filter(|asked| !asked.is_zero());
        let duration = match hint {
            None => self.wait.delay(attempt, class, outcome, &mut random),
            Some(asked) => {
                let left = attempt.time_left();
                if asked > self.max_server_delay.get() || left.is_some_and(|left| asked >= left) {
                    return Err(match class {
                        Class::Unsent { .. } => StopReason::HeldBack { delay: asked },
                        _ => StopReason::ServerDelay { asked },
                    });
                }
                spread(&mut random, asked, left)
            }
        };
        let stop = match self.options.attempts() {
            Some(max) => attempt.number() >= max,
            None => self.stop.should_stop(attempt, duration),
        };
        if stop {
            return Err(StopReason::Exhausted);
        }
        if attempt.time_left().is_some_and(|left| duration >= left) {
            return Err(StopReason::Deadline);
        }
        Ok(Delay::new(duration, hint, class))
    }
}

// hint × U(1, 1.1), clipped at the deadline: never earlier than asked, and not everybody at the same moment.
fn spread(random: &mut Random, asked: Duration, left: Option<Duration>) -> Duration {
    let latest = asked.saturating_add(asked / 10);
    let latest = left.map_or(latest, |left| latest.min(left.saturating_sub(Duration::from_nanos(1))));
    random.between(asked, latest)
}

impl<S, W, C, H, K, B, Req, Res, E> Policy<Req, Res, E> for RetryPolicy<S, W, C, H, K, B>
where
    S: Stop + Clone,
    W: Wait<Res, E> + Clone,
    C: Classify<Res, E> + Clone,
    H: Hooks<Req, K::Kept, Res, E> + Clone,
    K: Keep<Req> + Clone,
    B: Purse<Req>,
{
    type Keep = K;

    fn keep(&self) -> K {
        self.keep.clone()
    }

    #[inline(always)]
    fn decide(&mut self, attempt: &Attempt, kept: Option<&mut K::Kept>, outcome: &mut Result<Res, E>) -> Decision {
        if !self.is_enabled() {
            return Decision::Return;
        }
        let class = self.classify.classify(outcome).unwrap_or(match outcome {
            Ok(_) => Class::Success,
            Err(_) => Class::Permanent,
        });
        if class == Class::Success {
            self.budget.deposit(|| attempt.now());
            self.hooks.succeeded(attempt, outcome);
            return Decision::Return;
        }
        self.failed(attempt, class, kept, outcome)
    }

    #[inline]
    fn accepts(&mut self, response: &Res) -> bool {
        let accepted = !self.hooks.sees_success() && classify::passes(&self.classify, response);
        if accepted && self.is_enabled() {
            self.budget.deposit(Instant::now);
        }
        accepted
    }

    #[inline]
    fn begin(&self, request: &Req) -> Self {
        let mut options = self.options;
        self.hooks.options(request, &mut options);
        // Not a clone: what all calls share is only read.
        Self {
            stop: self.stop.clone(),
            wait: self.wait.clone(),
            classify: self.classify.clone(),
            hooks: self.hooks.clone(),
            keep: self.keep.clone(),
            max_server_delay: self.max_server_delay,
            options,
            budget: self.budget.begin(request),
        }
    }

    fn poll_drain(&mut self, response: &mut Res, cx: &mut Context<'_>) -> Poll<()> {
        self.hooks.poll_drain(response, cx)
    }

    #[inline]
    fn may_retry(&self, number: u32) -> bool {
        if self.options.is_unlimited() {
            return !self.stop.is_last(number);
        }
        self.is_enabled() && self.options.attempts().map_or_else(|| !self.stop.is_last(number), |max| number < max)
    }

    #[inline]
    fn before_attempt(&mut self, attempt: &Attempt, request: &mut Req) {
        if self.is_enabled() {
            if attempt.number() > 1 {
                self.budget.spend();
            }
            self.hooks.before_attempt(attempt, request);
        }
    }

    fn not_replayable(&mut self, attempt: &Attempt, outcome: &Result<Res, E>) {
        self.budget.refund();
        telemetry::gave_up(attempt, StopReason::NotReplayable);
        self.hooks.gave_up(attempt, outcome, StopReason::NotReplayable);
    }

    fn not_ready(&mut self, attempt: &Attempt, error: &E) {
        self.budget.refund();
        telemetry::gave_up(attempt, StopReason::NotReady);
        self.hooks.not_ready(attempt, error);
    }

    fn timed_out(&mut self, attempt: &Attempt) {
        self.budget.refund();
        telemetry::gave_up(attempt, StopReason::Deadline);
        self.hooks.timed_out(attempt);
    }

    #[inline]
    fn timeout(&self) -> Option<Duration> {
        self.options.limit()
    }

    #[inline]
    fn is_timed(&self) -> bool {
        self.is_enabled()
            && (self.options.limit().is_some()
                || (self.stop.is_timed() && self.options.attempts().is_none())
                || self.wait.is_timed()
                || self.hooks.is_timed())
    }
}

impl<S, W, C, H, K, B> fmt::Debug for RetryPolicy<S, W, C, H, K, B>
where
    S: fmt::Debug,
    W: fmt::Debug,
    C: fmt::Debug,
    H: fmt::Debug,
    K: fmt::Debug,
    B: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("stop", &self.stop)
            .field("wait", &self.wait)
            .field("classify", &self.classify)
            .field("hooks", &self.hooks)
            .field("keep", &self.keep)
            .field("max_server_delay", &self.max_server_delay.get())
            .field("options", &self.options)
            .field("budget", &self.budget)
            .finish()
    }
}
