//! Times, as ratios within rounds in which the contenders take turns.

use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tower_tenacity_benches::{Behaviour, Contender, Visit, drive, visit};

const ROUNDS: usize = 9;

/// Nanoseconds per call, in a task.
pub struct Time {
    pub calls: u64,
}

impl Visit for Time {
    type Output = f64;

    fn visit<C: Contender>(self, mut contender: C) -> f64 {
        drive::runtime().block_on(async {
            let start = Instant::now();
            drive::in_task(&mut contender, self.calls).await;
            start.elapsed().as_nanos() as f64 / self.calls as f64
        })
    }
}

/// Seconds for so many tasks on two workers, each with a clone of the service.
struct Throughput {
    tasks: u64,
    calls: u64,
}

impl Visit for Throughput {
    type Output = f64;

    fn visit<C: Contender>(self, contender: C) -> f64 {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime");
        let start = Instant::now();
        runtime.block_on(async {
            let tasks: Vec<_> = (0..self.tasks)
                .map(|_| {
                    let mut contender = contender.again();
                    tokio::spawn(async move { drive::in_task(&mut contender, self.calls).await })
                })
                .collect();
            for task in tasks {
                task.await.expect("a task that ends");
            }
        });
        start.elapsed().as_secs_f64()
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The speed of each contender as a ratio to that of the first, and behind the median, how far off the lowest and highest were.
pub fn ratios<const N: usize>(contenders: [&str; N], rounds: usize, seconds: impl Fn(&str) -> f64) -> [String; N] {
    let mut ratios = [const { Vec::new() }; N];
    for round in 0..=rounds {
        let seconds = contenders.map(&seconds);
        // The first warms up.
        if round > 0 {
            for (ratios, seconds_of) in ratios.iter_mut().zip(seconds) {
                ratios.push(seconds[0] / seconds_of);
            }
        }
    }
    ratios.map(|ratios| {
        let end = |f: fn(f64, f64) -> f64| ratios.iter().copied().reduce(f).unwrap_or_default();
        let (least, most) = (end(f64::min), end(f64::max));
        let median = median(ratios);
        if least == most { format!("{median:.2}") } else { format!("{median:.2} ({least:.2}-{most:.2})") }
    })
}

/// The throughput of `calls` calls in all.
pub fn throughput<const N: usize>(names: [&str; N], inner: Behaviour, tasks: u64, calls: u64) -> [String; N] {
    eprintln!("throughput: {tasks} tasks");
    ratios(names, ROUNDS, |name| {
        visit(name, inner.service(), Duration::from_millis(10), Throughput { tasks, calls: calls / tasks })
    })
}
