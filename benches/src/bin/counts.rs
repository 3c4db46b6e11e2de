//! `counts SCENARIO CONTENDER N`, to be run by callgrind with N and 2N: the difference over N is the price of one call,
//! one poll, or one body. `counts serve` is the server of `counts loopback@ADDRESS …`.

use std::{env, time::Duration};

use tower_tenacity_benches::{
    Behaviour, Contender, Visit, bodies, drive,
    http::{self, Calls, Server},
    loopback::{self, Load},
    visit,
};

const TEN: Duration = Duration::from_millis(10);

struct Run {
    in_task: bool,
    calls: u64,
}

impl Visit for Run {
    type Output = ();

    fn visit<C: Contender>(self, mut contender: C) {
        if self.in_task {
            drive::runtime().block_on(drive::in_task(&mut contender, self.calls));
        } else {
            drive::by_hand(&mut contender, self.calls);
        }
    }
}

fn numbers(scenario: &str, contender: &str, mut calls: u64) {
    let mut inner = Behaviour::default();
    let mut base = TEN;
    let mut in_task = false;
    match scenario {
        "happy" => {}
        "task" => in_task = true,
        "poll" | "poll-wake" => {
            inner.pending = u32::try_from(calls).expect("not that many polls");
            inner.wakes = scenario == "poll-wake";
            calls = 1;
        }
        "pending-once" => inner.pending = 1,
        "ms10" | "zero" | "zero-timer" => {
            inner.fails = true;
            // The same with a task and a runtime around it, for those that ask the timer for a delay of zero.
            in_task = scenario != "zero";
            if scenario != "ms10" {
                base = Duration::ZERO;
            }
            // Without a retry a call that fails and one that does not are two calls.
            if contender == "bare" {
                calls *= 2;
            }
        }
        _ => panic!("no scenario is called {scenario}"),
    }
    visit(contender, inner.service(), base, Run { in_task, calls });
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    let [scenario, contender, calls] = &args[..] else {
        assert!(args == ["serve"], "usage: counts SCENARIO CONTENDER N");
        return loopback::serve();
    };
    let calls: u64 = calls.parse().expect("a number");
    match scenario.split_once('@') {
        Some(("loopback", server)) => {
            Load { server: server.parse().expect("an address"), tasks: 1, calls }.run(contender);
        }
        Some(("body", shape)) => bodies::run(shape, contender, calls),
        _ if scenario == "http" => {
            http::visit(contender, Server { fails: false }, TEN, Calls(calls));
        }
        _ if scenario == "gemini" => http::ask(contender, calls),
        _ => numbers(scenario, contender, calls),
    }
}
