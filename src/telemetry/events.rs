use std::time::Duration;

use tracing::{debug, warn};

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

#[inline]
pub(crate) fn retry(attempt: &Attempt, delay: &Delay) {
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

#[inline]
pub(crate) fn gave_up(attempt: &Attempt, reason: StopReason) {
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
