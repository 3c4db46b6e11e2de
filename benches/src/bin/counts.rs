//! `counts SCENARIO CONTENDER N`, to be run by callgrind with N and 2N: the difference over N is the price of one call,
//! or of one poll.

use std::{env, time::Duration};

use tower_tenacity_benches::{Behaviour, Contender, Visit, drive, visit};

struct Run {
    scenario: String,
    calls: u64,
}

impl Visit for Run {
    type Output = ();

    fn visit<C: Contender>(self, mut contender: C) {
        match &*self.scenario {
            "ms10" | "zero-timer" | "task" => drive::runtime().block_on(drive::in_task(&mut contender, self.calls)),
            "poll" | "poll-wake" => drive::by_hand(&mut contender, 1),
            _ => drive::by_hand(&mut contender, self.calls),
        }
    }
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let [scenario, contender, calls] = &args[..] else {
        panic!("usage: counts happy|task|poll|poll-wake|zero|zero-timer|ms10 CONTENDER N");
    };
    let mut calls: u64 = calls.parse().expect("a number");
    let mut inner = Behaviour::default();
    let mut base = Duration::from_millis(10);
    match &**scenario {
        "happy" | "ms10" | "task" => {}
        "poll" | "poll-wake" => {
            inner.pending = u32::try_from(calls).expect("not that many polls");
            inner.wakes = scenario == "poll-wake";
        }
        // The same with a task and a runtime around it, for those that ask the timer for a delay of zero.
        "zero" | "zero-timer" => base = Duration::ZERO,
        _ => panic!("no scenario is called {scenario}"),
    }
    if matches!(&**scenario, "zero" | "zero-timer" | "ms10") {
        inner.fails = true;
        // Without a retry a call that fails and one that does not are two calls.
        if contender == "bare" {
            calls *= 2;
        }
    }
    visit(contender, inner.service(), base, Run { scenario: scenario.clone(), calls });
}
