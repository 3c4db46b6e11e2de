//! How many of the first delays of 32 calls differ, to the millisecond: the median of 101 rounds, by base and contender.
//! In a program of its own because a clock that can be paused slows down what the others measure.

use std::{collections::BTreeSet, time::Duration};

use tokio::{
    runtime::Builder,
    time::{Instant, pause},
};
use tower_tenacity_benches::{Behaviour, CONTENDERS, Contender, Visit, visit};

const ROUNDS: usize = 101;

struct Distinct;

impl Visit for Distinct {
    type Output = usize;

    fn visit<C: Contender>(self, mut contender: C) -> usize {
        let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            pause();
            let mut delays = BTreeSet::new();
            for request in 0..32 {
                let start = Instant::now();
                let _ = contender.call(request).await;
                delays.insert(start.elapsed().as_millis());
            }
            delays.len()
        })
    }
}

fn main() {
    for contender in CONTENDERS {
        for base in [1000, 700] {
            let inner = Behaviour { fails: true, ..Behaviour::default() };
            let mut rounds: Vec<usize> =
                (0..ROUNDS).map(|_| visit(contender, inner.service(), Duration::from_millis(base), Distinct)).collect();
            rounds.sort_unstable();
            println!("{contender} {base} {}", rounds[ROUNDS / 2]);
        }
    }
}
