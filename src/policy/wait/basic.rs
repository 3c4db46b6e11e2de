use std::time::Duration;

use super::Wait;
use crate::policy::{Attempt, Random, classify::Class};

/// The same wait every time (tenacity's `wait_fixed`).
#[must_use]
pub const fn fixed(delay: Duration) -> Fixed {
    Fixed { delay }
}

/// No wait at all (tenacity's `wait_none`, and its default).
#[must_use]
pub const fn none() -> Fixed {
    fixed(Duration::ZERO)
}

/// The same wait every time; made by [`fixed`] and [`none`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fixed {
    delay: Duration,
}

impl<Res, E> Wait<Res, E> for Fixed {
    fn delay(&self, _: &Attempt, _: Class, _: &Result<Res, E>, _: &mut Random) -> Duration {
        self.delay
    }
}
