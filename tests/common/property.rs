//! How many cases a property gets, and from which seed.
#![allow(unreachable_pub)]

use std::env;

use proptest::test_runner::{Config, RngSeed};

/// `cases` cases, the same ones in every run. `PROPTEST_CASES` asks for another number of them and `PROPTEST_RNG_SEED` for
/// others. A failure is printed in its smallest form and not written to any file.
pub fn config(cases: u32) -> Config {
    // What the environment says is in here already.
    let mut config = Config::default();
    if env::var_os("PROPTEST_CASES").is_none() {
        config.cases = cases;
    }
    if env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config.failure_persistence = None;
    config
}
