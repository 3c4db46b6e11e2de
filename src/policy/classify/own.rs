use std::error::Error;

use super::Class;
use crate::{circuit_breaker::CircuitOpen, cooldown::CoolingDown, timeout::TimedOut};

/// What an error of this crate's own layers means; `None` for any other. Causes are not looked at.
pub(crate) fn own_class(error: &(dyn Error + 'static)) -> Option<Class> {
    if let Some(refused) = error.downcast_ref::<CircuitOpen>() {
        Some(refused.class())
    } else if let Some(refused) = error.downcast_ref::<CoolingDown>() {
        Some(refused.class())
    } else {
        error.is::<TimedOut>().then(Class::transient)
    }
}
