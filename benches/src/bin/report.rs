//! Measures everything and prints it as a table in Markdown.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    array,
    cell::Cell,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use tokio::{runtime::Builder, time::Sleep};
use tower_tenacity::{Retry, RetryPolicy, wait};
use tower_tenacity_benches::{Answer, Behaviour, CONTENDERS, Contender, Visit, drive, visit};

struct Counting;

thread_local! {
    static ALLOCATED: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.with(|allocated| {
            let (count, bytes) = allocated.get();
            allocated.set((count + 1, bytes + layout.size() as u64));
        });
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TEN: Duration = Duration::from_millis(10);
const FAILING: Behaviour = Behaviour { pending: 0, wakes: false, fails: true };

/// What callgrind says of one call.
#[derive(Clone, Copy)]
struct Cost {
    instructions: f64,
    atomics: f64,
    clock_reads: f64,
}

struct Callgrind {
    counts: PathBuf,
    out: PathBuf,
}

impl Callgrind {
    fn new() -> Self {
        let own = env::current_exe().expect("the path of this program");
        let out = env::temp_dir().join(format!("callgrind.{}", std::process::id()));
        Self { counts: own.with_file_name("counts"), out }
    }

    fn run(&self, scenario: &str, contender: &str, calls: u64) -> [f64; 3] {
        let status = Command::new("valgrind")
            .args(["--tool=callgrind", "--collect-bus=yes"])
            .arg(format!("--callgrind-out-file={}", self.out.display()))
            .arg(&self.counts)
            .args([scenario, contender, &calls.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(status.expect("valgrind is installed").success(), "{scenario} {contender} failed");
        let profile = fs::read_to_string(&self.out).expect("callgrind wrote a profile");
        let _ = fs::remove_file(&self.out);
        let totals = profile.lines().find_map(|line| line.strip_prefix("totals: ")).expect("totals");
        let mut totals = totals.split(' ').map(|total| total.parse().expect("a number"));
        [totals.next().unwrap_or(0.0), totals.next().unwrap_or(0.0), clock_reads(&profile)]
    }

    fn cost(&self, scenario: &str, contender: &str, calls: u64) -> Cost {
        let (once, twice) = (self.run(scenario, contender, calls), self.run(scenario, contender, 2 * calls));
        let [instructions, atomics, clock_reads] = array::from_fn(|i| (twice[i] - once[i]) / calls as f64);
        Cost { instructions, atomics, clock_reads }
    }
}

// A name is spelled out where it first occurs, as `(12) clock_gettime`, and is `(12)` from then on.
fn clock_reads(profile: &str) -> f64 {
    let id_of = |line: &str| line.split_once('=').and_then(|(_, name)| name.split(' ').next().map(str::to_owned));
    let mut clocks = Vec::new();
    let mut called = None;
    let mut reads = 0.0;
    for line in profile.lines().filter(|line| line.contains("fn=") || line.starts_with("calls=")) {
        if let Some(calls) = line.strip_prefix("calls=") {
            if called.as_ref().is_some_and(|id| clocks.contains(id)) {
                reads += calls.split(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
            }
        } else {
            let id = id_of(line);
            if line.contains("clock_gettime") && !line.contains("::") {
                clocks.extend(id.clone());
            }
            if line.starts_with("cfn=") {
                called = id;
            }
        }
    }
    reads
}

/// Allocations and bytes per call.
struct Allocations {
    calls: u64,
}

impl Visit for Allocations {
    type Output = (f64, f64);

    fn visit<C: Contender>(self, mut contender: C) -> (f64, f64) {
        drive::runtime().block_on(async {
            drive::in_task(&mut contender, 2).await;
            let before = ALLOCATED.get();
            drive::in_task(&mut contender, self.calls).await;
            let after = ALLOCATED.get();
            let per_call = |before, after| (after - before) as f64 / self.calls as f64;
            (per_call(before.0, after.0), per_call(before.1, after.1))
        })
    }
}

struct Size;

impl Visit for Size {
    type Output = (usize, usize);

    fn visit<C: Contender>(self, mut contender: C) -> (usize, usize) {
        (size_of_val(&contender.call(1)), contender.size())
    }
}

/// Nanoseconds per call, in a task.
struct Time {
    calls: u64,
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

/// Seconds for 64 tasks on two workers, each with a clone of the service.
struct Throughput {
    calls: u64,
}

impl Visit for Throughput {
    type Output = f64;

    fn visit<C: Contender>(self, contender: C) -> f64 {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime");
        let start = Instant::now();
        runtime.block_on(async {
            let tasks: Vec<_> = (0..64)
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

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

// Contenders take turns, so that what disturbs one round disturbs it for all.
fn throughput(inner: Behaviour, calls: u64) -> [f64; CONTENDERS.len()] {
    let mut ratios: [Vec<f64>; CONTENDERS.len()] = array::from_fn(|_| Vec::new());
    for round in 0..10 {
        let seconds = CONTENDERS.map(|name| visit(name, inner.service(), TEN, Throughput { calls }));
        // The first warms up.
        if round > 0 {
            for (ratios, seconds_of) in ratios.iter_mut().zip(seconds) {
                ratios.push(seconds[0] / seconds_of);
            }
        }
    }
    ratios.map(median)
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

fn row(name: &str, unit: &str, target: &str, cells: impl IntoIterator<Item = String>) {
    let cells: Vec<String> = cells.into_iter().collect();
    println!("| {name} | {unit} | {target} | {} |", cells.join(" | "));
}

fn main() {
    let callgrind = Callgrind::new();
    let over = |scenario: &str, calls: u64| -> [Cost; CONTENDERS.len()] {
        eprintln!("callgrind: {scenario}");
        let costs = CONTENDERS.map(|name| callgrind.cost(scenario, name, calls));
        let bare = costs[0];
        array::from_fn(|i| match i {
            0 => bare,
            _ => Cost {
                instructions: costs[i].instructions - bare.instructions,
                atomics: costs[i].atomics - bare.atomics,
                clock_reads: costs[i].clock_reads - bare.clock_reads,
            },
        })
    };
    let whole = |value: f64| format!("{value:.0}");
    let instructions = |costs: &[Cost]| -> Vec<String> { costs.iter().map(|cost| whole(cost.instructions)).collect() };
    let skip = |mut cells: Vec<String>, which: &[&str]| {
        for name in which {
            let at = CONTENDERS.iter().position(|contender| contender == name).expect("a contender");
            cells[at] = "-".to_owned();
        }
        cells
    };

    println!("| | unit | target of ours | {} |", CONTENDERS.join(" | "));
    println!("|---|---|---|{}", "---|".repeat(CONTENDERS.len()));

    let happy = over("happy", 20_000);
    row("one call, answered at once", "instr over bare", "<= 50 (35)", instructions(&happy));
    row("", "atomics", "0", happy.map(|cost| whole(cost.atomics)));
    row("", "clock reads", "0", happy.map(|cost| whole(cost.clock_reads)));
    let allocated = |inner: Behaviour, base, calls| {
        CONTENDERS.map(|name| {
            let (count, bytes) = visit(name, inner.service(), base, Allocations { calls });
            format!("{count:.0} ({bytes:.0})")
        })
    };
    row("", "allocs (bytes)", "0", allocated(Behaviour::default(), TEN, 10_000));
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
    row("", "allocs (bytes)", "0", allocated(FAILING, Duration::ZERO, 100));
    row("one retry, 10 to 20 ms", "instr over bare", "<= 3500", skip(instructions(&over("ms10", 100)), &["tower-min"]));
    row("", "allocs (bytes)", "0", skip(allocated(FAILING, TEN, 50).to_vec(), &["tower-min"]));

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

    eprintln!("throughput");
    let ratio = |ratio: f64| format!("{ratio:.2}");
    row(
        "throughput, 2 workers, 64 tasks: at once",
        "ratio to bare",
        ">= 0.6",
        throughput(Behaviour::default(), 20_000).map(ratio),
    );
    let yields = Behaviour { pending: 1, wakes: true, ..Behaviour::default() };
    row("the same, pending once", "ratio to bare", ">= 0.7", throughput(yields, 4_000).map(ratio));
}
