//! What callgrind says of one call.

use std::{
    array, env, fs,
    path::PathBuf,
    process::{Command, Stdio},
};

#[derive(Clone, Copy, Default)]
pub struct Cost {
    pub instructions: f64,
    pub atomics: f64,
    pub clock_reads: f64,
}

impl Cost {
    pub fn over(self, bare: Self) -> Self {
        Self {
            instructions: self.instructions - bare.instructions,
            atomics: self.atomics - bare.atomics,
            clock_reads: self.clock_reads - bare.clock_reads,
        }
    }
}

pub struct Callgrind {
    pub counts: PathBuf,
    out: PathBuf,
}

impl Callgrind {
    pub fn new() -> Self {
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

    pub fn cost(&self, scenario: &str, contender: &str, calls: u64) -> Cost {
        let (once, twice) = (self.run(scenario, contender, calls), self.run(scenario, contender, 2 * calls));
        let [instructions, atomics, clock_reads] = array::from_fn(|i| (twice[i] - once[i]) / calls as f64);
        Cost { instructions, atomics, clock_reads }
    }

    /// Those of all contenders, of which the first is bare: what the others cost beyond it.
    pub fn over<const N: usize>(&self, scenario: &str, contenders: [&str; N], calls: u64) -> [Cost; N] {
        eprintln!("callgrind: {scenario}");
        let costs = contenders.map(|name| self.cost(scenario, name, calls));
        array::from_fn(|i| if i == 0 { costs[0] } else { costs[i].over(costs[0]) })
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
