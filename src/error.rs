/// Any error, as tower's own layers return it. What a layer of this crate adds is found in it by `downcast_ref`.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A delay as it stands in a message, where nobody reads nanoseconds: rounded up to the millisecond.
pub(crate) fn rounded(delay: std::time::Duration) -> std::time::Duration {
    let nanos = delay.subsec_nanos().div_ceil(1_000_000) * 1_000_000;
    std::time::Duration::from_secs(delay.as_secs()).saturating_add(std::time::Duration::from_nanos(nanos.into()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn messages_have_no_nanoseconds() {
        for (delay, shown) in [
            (Duration::ZERO, "0ns"),
            (Duration::from_nanos(1), "1ms"),
            (Duration::from_millis(40_000), "40s"),
            (Duration::new(7, 469_507_813), "7.47s"),
            (Duration::new(7, 999_999_999), "8s"),
        ] {
            assert_eq!(format!("{:?}", rounded(delay)), shown);
        }
        assert!(rounded(Duration::MAX) >= Duration::from_secs(u64::MAX));
    }
}
