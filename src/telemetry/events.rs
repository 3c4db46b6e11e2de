use std::time::Duration;

use tracing::{Level, debug, level_filters::LevelFilter, warn};

use crate::{
    hooks::Delay,
    policy::{Attempt, StopReason},
};

macro_rules! target {
    () => {
        "tower_tenacity"
    };
}

// As wide as fields are.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

// Where nobody listens, no more than this is done.
#[inline]
fn heard(level: Level) -> bool {
    LevelFilter::current() >= level
}

#[inline]
pub(crate) fn retry(attempt: &Attempt, delay: &Delay) {
    if heard(Level::DEBUG) {
        tell_retry(attempt, delay);
    }
}

#[inline]
pub(crate) fn gave_up(attempt: &Attempt, reason: StopReason) {
    if heard(Level::WARN) {
        tell_gave_up(attempt, reason);
    }
}

#[cold]
#[inline(never)]
fn tell_retry(attempt: &Attempt, delay: &Delay) {
    debug!(
        name: "retry",
        target: target!(),
        attempt = attempt.number(),
        class = delay.class().name(),
        delay_ms = millis(delay.duration()),
        server_delay_ms = delay.server_hint().map(millis),
        "retry"
    );
}

#[cold]
#[inline(never)]
fn tell_gave_up(attempt: &Attempt, reason: StopReason) {
    if reason == StopReason::Permanent {
        debug!(
            name: "gave_up",
            target: target!(),
            attempt = attempt.number(),
            reason = reason.name(),
            waited_ms = millis(attempt.waited()),
            "gave up"
        );
    } else {
        warn!(
            name: "gave_up",
            target: target!(),
            attempt = attempt.number(),
            reason = reason.name(),
            waited_ms = millis(attempt.waited()),
            "gave up"
        );
    }
}

pub(crate) fn breaker(from: &'static str, to: &'static str) {
    warn!(name: "breaker", target: target!(), from, to, "breaker");
}

pub(crate) fn breaker_refused(state: &'static str, retry_after: Option<Duration>) {
    debug!(
        name: "breaker_refused",
        target: target!(),
        state,
        delay_ms = retry_after.map(millis),
        "breaker refused"
    );
}

/// `anew`: calls were not held back before, or for a weaker reason.
pub(crate) fn cooldown(delay: Duration, exhausted: bool, anew: bool) {
    if anew {
        warn!(name: "cooldown", target: target!(), delay_ms = millis(delay), exhausted, "cooldown");
    } else {
        debug!(name: "cooldown", target: target!(), delay_ms = millis(delay), exhausted, "cooldown");
    }
}

pub(crate) fn cooldown_wait(delay: Duration) {
    debug!(name: "cooldown_wait", target: target!(), delay_ms = millis(delay), "cooldown wait");
}

pub(crate) fn cooldown_refused(delay: Duration, exhausted: bool) {
    debug!(name: "cooldown_refused", target: target!(), delay_ms = millis(delay), exhausted, "cooldown refused");
}
