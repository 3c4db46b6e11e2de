//! The contention of AWS's "Exponential Backoff And Jitter": clients that read a version and write it back, over a network
//! that takes about 10 ms each way. A write fails if another one came in between.

use std::{cmp::Reverse, collections::BinaryHeap};

const MILLISECOND: f64 = 1e6;

/// How long until all clients were done, in milliseconds, and how many writes were made.
pub fn contend(clients: usize, seed: u64, mut delay: impl FnMut(u32) -> u64) -> (f64, u64) {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Step {
        Read,
        Write(u64),
    }

    let mut random = fastrand::Rng::with_seed(seed);
    let mut events = BinaryHeap::new();
    let mut order = 0_u64;
    let mut push = |events: &mut BinaryHeap<_>, at: u64, client: usize, step: Step| {
        order += 1;
        events.push(Reverse((at, order, client, step)));
    };
    for client in 0..clients {
        let at = network(&mut random);
        push(&mut events, at, client, Step::Read);
    }
    let mut failures = vec![0; clients];
    let (mut version, mut writes, mut last) = (0, 0, 0);
    while let Some(Reverse((now, _, client, step))) = events.pop() {
        match step {
            Step::Read => {
                let at = now + network(&mut random) + network(&mut random);
                push(&mut events, at, client, Step::Write(version));
            }
            Step::Write(read) => {
                writes += 1;
                if read == version {
                    version += 1;
                    last = now + network(&mut random);
                } else {
                    failures[client] += 1;
                    let wait = delay(failures[client]);
                    let at = now + network(&mut random) + wait + network(&mut random);
                    push(&mut events, at, client, Step::Read);
                }
            }
        }
    }
    (last as f64 / MILLISECOND, writes)
}

// Normally distributed, 10 ± 2 ms (Box–Muller).
fn network(random: &mut fastrand::Rng) -> u64 {
    let radius = (-2.0 * (1.0 - random.f64()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * random.f64()).cos();
    ((10.0 + 2.0 * normal).abs() * MILLISECOND) as u64
}
