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
