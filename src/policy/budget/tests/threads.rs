//! Many threads at once, checked against what they say they did.

use std::{
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
};

use super::*;

#[test]
fn threads_that_race_for_the_last_retry_never_get_more_than_there_is() {
    let now = Instant::now();
    for round in 0..200 {
        let budget = Budget::new(0.1).unwrap().reserve(3);
        let start = Barrier::new(4);
        let allowed: u64 = thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        start.wait();
                        let mut allowed = 0;
                        for _ in 0..round {
                            budget.deposit(|| now);
                            allowed += u64::from(spend(&budget, now));
                        }
                        allowed
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let total = 3 + u64::div_ceil(4 * round / 10, 2);
        assert!(allowed <= total, "{allowed} of {total}");
        // What is left is what nobody asked for any more.
        assert_eq!(allowed + super::allowed(&budget, now), total);
    }
}

#[test]
fn threads_keep_the_rule_while_time_passes() {
    const RATIO: u64 = 4;
    const RESERVE: u64 = 2;
    let birth = Instant::now();
    let settings = Settings::new(1_000_000_000 / RATIO as u32, RESERVE as u32);
    let budget = Budget::born(settings, birth, 4);
    let millis = AtomicU64::new(0);
    let now = || birth + Duration::from_millis(millis.load(SeqCst));
    let clock = budget.shared().clock;

    let work = |seed: u64| {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut successes, mut retries, mut held) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..30_000 {
            match random.u8(0..20) {
                0 => _ = millis.fetch_add(random.u64(0..600), SeqCst),
                1..=12 => {
                    let before = clock.slot(now());
                    budget.deposit(now);
                    // It happened at some time from then till now.
                    successes.push((before, clock.slot(now())));
                }
                13..=18 => held.extend(budget.withdraw(now())),
                _ => _ = held.pop(),
            }
            if held.len() > 2 {
                let withdrawal: Withdrawal = held.swap_remove(0);
                retries.push(withdrawal.0.slot);
                withdrawal.spend();
            }
        }
        for withdrawal in held {
            retries.push(withdrawal.0.slot);
            withdrawal.spend();
        }
        (successes, retries)
    };
    let (mut successes, mut retries) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|seed| scope.spawn(move || work(seed))).collect();
        for thread in threads {
            let (more_successes, more_retries) = thread.join().unwrap();
            successes.extend(more_successes);
            retries.extend(more_retries);
        }
    });

    let mut slots = retries.clone();
    slots.sort_unstable();
    slots.dedup();
    assert!(slots.len() > 100, "time passed, and retries were allowed all along: {}", slots.len());
    for slot in slots {
        let earned = successes.iter().filter(|(from, to)| *from <= slot && *to + SLOTS > slot).count() as u64;
        let spent =
            |within: u64| retries.iter().filter(|time| **time <= slot && **time + within >= slot).count() as u64;
        let (all, half) = (earned / RATIO + RESERVE, (earned / RATIO).div_ceil(2) + RESERVE);
        assert!(spent(SLOTS) <= all, "slot {slot}: {} for {earned} successes", spent(SLOTS));
        assert!(spent(AT_ONCE) <= half, "slot {slot}: {} at once for {earned} successes", spent(AT_ONCE));
    }
}
