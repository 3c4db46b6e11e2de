//! Measures everything and prints it as tables in Markdown. `report SECTION …` measures only those.

mod asleep;
mod callgrind;
mod rounds;

use std::{
    array, env,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tokio::time::Sleep;
use tower_tenacity::{Retry, RetryPolicy, wait};
use tower_tenacity_benches::{
    Answer, Behaviour, CONTENDERS, Contender, Visit, bodies,
    contenders::{PROTECTED, SEEN},
    drive,
    heap::{self, Counting},
    http, loopback, visit,
};

use callgrind::{Callgrind, Cost};
use rounds::{Time, median, ratios, throughput};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

type Section = fn(&Callgrind);

const SECTIONS: [(&str, Section); 5] =
    [("calls", calls), ("http", http), ("bodies", bodies), ("protected", protected), ("loopback", loopback)];
const TEN: Duration = Duration::from_millis(10);
const QUIET: Behaviour = Behaviour { pending: 0, wakes: false, fails: false };
const YIELDS: Behaviour = Behaviour { pending: 1, wakes: true, fails: false };
const FAILING: Behaviour = Behaviour { pending: 0, wakes: false, fails: true };

/// Allocations and bytes per call: what 200 take more than 100.
fn allocations(mut run: impl FnMut(u64)) -> [f64; 2] {
    let [once, twice] = [100, 200].map(|calls| {
        let before = heap::asked();
        run(calls);
        let after = heap::asked();
        [after.allocations - before.allocations, after.bytes - before.bytes]
    });
    [0, 1].map(|unit| (twice[unit] as f64 - once[unit] as f64) / 100.0)
}

struct Allocations;

impl Visit for Allocations {
    type Output = [f64; 2];

    fn visit<C: Contender>(self, mut contender: C) -> [f64; 2] {
        let runtime = drive::runtime();
        runtime.block_on(drive::in_task(&mut contender, 16));
        allocations(|calls| runtime.block_on(drive::in_task(&mut contender, calls)))
    }
}

struct Size;

impl Visit for Size {
    type Output = (usize, usize);

    fn visit<C: Contender>(self, mut contender: C) -> (usize, usize) {
        (size_of_val(&contender.call(1)), contender.size())
    }
}

fn jitter() -> Vec<(String, String)> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let output = Command::new("cargo")
        .args(["run", "--quiet", "--features", "paused", "--bin", "jitter", "--manifest-path"])
        .arg(manifest)
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "jitter failed");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(key, n)| (key.to_owned(), n.to_owned())).collect()
}

fn head(title: &str, contenders: &[&str]) {
    println!("\n### {title}\n\n| | unit | target | {} |", contenders.join(" | "));
    println!("|---|---|---|{}", "---|".repeat(contenders.len()));
}

fn row(name: &str, unit: &str, target: &str, cells: impl IntoIterator<Item = String>) {
    let cells: Vec<String> = cells.into_iter().collect();
    println!("| {name} | {unit} | {target} | {} |", cells.join(" | "));
}

fn whole(value: f64) -> String {
    format!("{value:.0}")
}

fn instructions(costs: &[Cost]) -> Vec<String> {
    costs.iter().map(|cost| whole(cost.instructions)).collect()
}

fn skip(mut cells: Vec<String>, which: &[&str]) -> Vec<String> {
    for name in which {
        let at = CONTENDERS.iter().position(|contender| contender == name).expect("a contender");
        cells[at] = "-".to_owned();
    }
    cells
}

// Of the first as they are, of the others what they take beyond it.
fn over_bare<const N: usize>(all: [[f64; 2]; N]) -> [String; N] {
    array::from_fn(|i| {
        let [count, bytes] = if i == 0 { all[0] } else { [0, 1].map(|unit| all[i][unit] - all[0][unit]) };
        format!("{count:.0} ({bytes:.0})")
    })
}

fn allocated<const N: usize>(names: [&str; N], inner: Behaviour, base: Duration) -> [String; N] {
    over_bare(names.map(|name| visit(name, inner.service(), base, Allocations)))
}

fn main() {
    let wanted: Vec<String> = env::args().skip(1).collect();
    let callgrind = Callgrind::new();
    for (name, section) in SECTIONS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            section(&callgrind);
        }
    }
}

fn calls(callgrind: &Callgrind) {
    head("One call", &CONTENDERS);
    let over = |scenario: &str, calls: u64| callgrind.over(scenario, CONTENDERS, calls);
    let happy = over("happy", 20_000);
    row("one call, answered at once", "instr over bare", "<= 50 (35)", instructions(&happy));
    row("", "atomics", "0", happy.map(|cost| whole(cost.atomics)));
    row("", "clock reads", "0", happy.map(|cost| whole(cost.clock_reads)));
    row("", "allocs (bytes)", "0", allocated(CONTENDERS, QUIET, TEN));
    row("another poll of a pending call", "instr over bare", "<= 12", instructions(&over("poll", 20_000)));
    row("the same, waking its task", "instr over bare", "<= 12", instructions(&over("poll-wake", 20_000)));

    // These ask the timer for their delay of zero and need a runtime to run in.
    let timers = ["tower-tps", "resilience", "backon"];
    eprintln!("callgrind: zero");
    let bare = callgrind.cost("zero", "bare", 10_000).instructions;
    let bare_in_task = callgrind.cost("zero-timer", "bare", 10_000).instructions;
    let zero = CONTENDERS.map(|name| match name {
        "bare" => whole(bare),
        _ if timers.contains(&name) => whole(callgrind.cost("zero-timer", name, 200).instructions - bare_in_task),
        _ => whole(callgrind.cost("zero", name, 10_000).instructions - bare),
    });
    row("one retry, delay 0 (bare calls twice)", "instr over bare", "<= 150", zero);
    eprintln!("time: zero");
    let zero_time = |name: &str| {
        // Bare, two calls; the answers to every other one are failures.
        let (calls, times) =
            if timers.contains(&name) { (100, 1.0) } else { (100_000, 1.0 + f64::from(name == "bare")) };
        median((0..9).map(|_| times * visit(name, FAILING.service(), Duration::ZERO, Time { calls })).collect())
    };
    let zero_times = CONTENDERS.map(zero_time);
    row("", "ns", "<= 1000", zero_times.map(whole));
    row("", "allocs (bytes)", "0", allocated(CONTENDERS, FAILING, Duration::ZERO));
    row("one retry, 10 to 20 ms", "instr over bare", "<= 3500", skip(instructions(&over("ms10", 100)), &["tower-min"]));
    row("", "allocs (bytes)", "0", skip(allocated(CONTENDERS, FAILING, TEN).to_vec(), &["tower-min"]));

    let policy = RetryPolicy::new().wait(wait::floored_jitter());
    let limit = size_of::<Answer>().max(size_of::<Sleep>())
        + size_of::<u64>()
        + size_of_val(&Retry::new(policy, Behaviour::default().service()))
        + 40;
    let sizes = CONTENDERS.map(|name| visit(name, Behaviour::default().service(), TEN, Size));
    row("size of the future", "bytes", &format!("<= {limit}"), sizes.map(|(future, _)| future.to_string()));
    row("size of the service", "bytes", "", sizes.map(|(_, service)| service.to_string()));

    eprintln!("jitter");
    let jitter = jitter();
    for base in ["1000", "700"] {
        let cells = CONTENDERS.map(|name| {
            let key = format!("{name} {base}");
            jitter.iter().find(|(found, _)| *found == key).map_or("?".to_owned(), |(_, n)| n.clone())
        });
        let name = format!("distinct first delays of 32, base {base} ms");
        row(&name, "median of 101", ">= 31", skip(cells.to_vec(), &["bare", "tower-min"]));
    }

    row("throughput, 64 tasks: at once", "ratio to bare", ">= 0.6", throughput(CONTENDERS, QUIET, 64, 1_280_000));
    row("the same, pending once", "ratio to bare", ">= 0.7", throughput(CONTENDERS, YIELDS, 64, 256_000));
    let asleep = CONTENDERS.map(|name| match name {
        "bare" | "tower-min" => "-".to_owned(),
        _ => whole(asleep::numbers(name)),
    });
    row("asleep, of 100,000 calls", "bytes of heap each", "<= 400", asleep);
}

fn http(callgrind: &Callgrind) {
    const ALL: [&str; 6] = http::CONTENDERS;
    head("A request with six headers that were just made", &ALL);
    row("answered at once", "instr over bare", "<= 1800", instructions(&callgrind.over("http", ALL, 1000)));
    let server = http::Server { fails: false };
    let run = |name: &str, calls| http::visit(name, server, TEN, http::Calls(calls));
    let allocated = ALL.map(|name| {
        allocations(|calls| {
            run(name, calls);
        })
    });
    row("", "allocs over bare (bytes)", "<= 2", over_bare(allocated));
    row("size of the future", "bytes", "", ALL.map(|name| run(name, 1).to_string()));
    let asleep = ALL.map(|name| match name {
        "bare" | "tower-min" => "-".to_owned(),
        _ => whole(asleep::http(name)),
    });
    row("asleep, of 100,000 calls", "bytes of heap each", "<= 1250", asleep);

    let both = ["bare", "ours"];
    head("A question to Gemini", &both);
    row("answered at once", "instr over bare", "<= 100", instructions(&callgrind.over("gemini", both, 500)));
    let allocated = both.map(|name| allocations(|calls| http::ask(name, calls)));
    row("", "allocs over bare (bytes)", "0", over_bare(allocated));
}

fn bodies(callgrind: &Callgrind) {
    const ALL: [&str; 3] = bodies::CONTENDERS;
    head("A streaming body that can be sent again", &ALL);
    let mut costs = Vec::new();
    for (shape, frames, size) in bodies::SHAPES {
        let cost = callgrind.over(&format!("body@{shape}"), ALL, 1000);
        row(&format!("{frames} frames of {size} B"), "instr over bare", "", instructions(&cost));
        let allocated = ALL.map(|name| allocations(|bodies| bodies::run(shape, name, bodies)));
        let target = if frames > 1 { "<= 6" } else { "" };
        row("", "allocs over bare (bytes)", target, over_bare(allocated));
        costs.push(cost);
    }
    let [.., one, many] = &costs[..] else { unreachable!("there are four shapes") };
    let each = array::from_fn::<_, 3, _>(|i| whole((many[i].instructions - one[i].instructions) / 63.0));
    row("each further frame", "instr over bare", "<= 140", each);
    for frames in [1 << 10, 1 << 16] {
        heap::reset_peak();
        let before = heap::asked().held;
        bodies::upload(frames);
        let peak = (heap::asked().peak - before).to_string();
        row(
            &format!("an upload of {} MiB, cap 1 MiB", frames >> 6),
            "peak of the heap, bytes",
            "the same",
            ["-".to_owned(), peak, "-".to_owned()],
        );
    }
}

fn protected(callgrind: &Callgrind) {
    head("With metrics that nobody records", &SEEN);
    row("answered at once", "instr over bare", "the same", instructions(&callgrind.over("happy", SEEN, 20_000)));
    row("", "allocs (bytes)", "0", allocated(SEEN, QUIET, TEN));
    head("Retries with what protects a service from them, all quiet", &PROTECTED);
    for (scenario, name) in [("happy", "one call, answered at once"), ("pending-once", "pending once")] {
        let costs = callgrind.over(scenario, PROTECTED, 20_000);
        row(name, "instr over bare", "", instructions(&costs));
        row("", "atomics", "", costs.map(|cost| format!("{:.1}", cost.atomics)));
        row("", "clock reads", "", costs.map(|cost| format!("{:.1}", cost.clock_reads)));
    }
    row("", "allocs (bytes)", "0", allocated(PROTECTED, QUIET, TEN));
    row("size of the future", "bytes", "", PROTECTED.map(|name| visit(name, QUIET.service(), TEN, Size).0.to_string()));
    for tasks in [64, 1024] {
        let name = format!("throughput, {tasks} tasks: at once");
        row(&name, "ratio to bare", "budget 0.6, stack 0.4", throughput(PROTECTED, QUIET, tasks, 1_280_000));
        row("the same, pending once", "ratio to bare", "0.7", throughput(PROTECTED, YIELDS, tasks, 256_000));
    }
}

/// The server, for as long as it is wanted.
struct Serving(Child);

impl Serving {
    fn start(callgrind: &Callgrind) -> (Self, SocketAddr) {
        let mut child = Command::new(&callgrind.counts).arg("serve").stdout(Stdio::piped()).spawn().expect("a server");
        let mut address = String::new();
        let output = child.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut address).expect("its address");
        (Self(child), address.trim().parse().expect("an address"))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn loopback(callgrind: &Callgrind) {
    let (_serving, server) = Serving::start(callgrind);
    against_bare(
        callgrind,
        server,
        "hyper-util, 2 KiB to a server on this machine, and 1 KB back",
        "<= 4",
        loopback::PLAIN,
    );
    against_bare(callgrind, server, "The same as a question to Gemini", "<= 1", loopback::GEMINI);
    against_bare(callgrind, server, "The same with reqwest", "", loopback::REQWEST);
}

// The first of the contenders is bare.
fn against_bare<const N: usize>(
    callgrind: &Callgrind,
    server: SocketAddr,
    title: &str,
    target: &str,
    contenders: [&str; N],
) {
    head(title, &contenders);
    let costs = callgrind.over(&format!("loopback@{server}"), contenders, 1000);
    row("client's process", "instr over bare", "", instructions(&costs));
    let percent = |i: usize| if i == 0 { 0.0 } else { costs[i].instructions / costs[0].instructions * 100.0 };
    row("", "%", target, array::from_fn::<_, N, _>(|i| format!("{:.1}", percent(i))));
    let allocated = contenders.map(|name| {
        allocations(|calls| {
            loopback::Load { server, tasks: 1, calls }.run(name);
        })
    });
    row("", "allocs over bare (bytes)", "", over_bare(allocated));
    eprintln!("throughput: loopback");
    let load = loopback::Load { server, tasks: 64, calls: 200 };
    row("requests per second, 64 tasks", "ratio to bare", "", ratios(contenders, 9, |name| load.run(name)));
}
