//! The whole simulation: one page of figures, and the pictures of README and docs.
//!
//! `cargo run --release --features paused --bin simulation [-- SEEDS [FOLDER]]`. Five seeds unless said otherwise; without a folder nothing is
//! drawn. With `../src/guide` as the folder it draws what the docs show.

#[path = "../../../../tests/simulation/layers_http.rs"]
mod layers_http;
mod plots;
#[path = "../../../../tests/simulation/mod.rs"]
mod simulation;

use std::time::Duration;

use simulation::{
    Player,
    engine::{Report, SECOND},
    layers::{self, Caller, QUOTA_SECONDS},
    scenarios::{self, Spread, TRIGGERED, WATCHED, spread},
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let seeds = arguments.next().map_or(Ok(5), |seeds| seeds.parse())?;
    if let Some(folder) = arguments.next() {
        return plots::draw(folder.as_ref(), seeds);
    }
    let page = Page { seeds };
    println!("# Retries under failure, simulated\n");
    println!(
        "tower-tenacity {}; {seeds} seeds; mean, and the worst in brackets where it differs. Absolute seconds depend on the model\n\
         (Poisson arrivals, ten workers of 10 ms, 5 ms of network, 1 s per attempt, 30 s per call, work on abandoned calls goes on);\n\
         orderings and bounds do not.\n",
        version()
    );
    page.partial_failure();
    page.small();
    page.outage();
    page.metastable();
    page.load();
    page.herd();
    page.contention();
    page.quota();
    page.layers();
    Ok(())
}

// Of the crate, not of this package.
fn version() -> &'static str {
    let manifest = include_str!("../../../../Cargo.toml");
    manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap_or_default().trim_matches('"')
}

struct Page {
    seeds: u64,
}

fn head(title: &str, columns: &[&str]) {
    println!("\n## {title}\n");
    println!("| | {} |", columns.join(" | "));
    println!("|---{}|", "|---".repeat(columns.len()));
}

fn row(name: &str, cells: &[String]) {
    println!("| {name} | {} |", cells.join(" | "));
}

fn worst(spread: Spread, most: bool, digits: usize) -> String {
    let worst = if most { spread.most } else { spread.least };
    let (mean, worst) = (format!("{:.digits$}", spread.mean), format!("{worst:.digits$}"));
    if mean == worst { mean } else { format!("{mean} ({worst})") }
}

impl Page {
    fn reports(&self, play: impl Fn(u64) -> Report) -> Vec<Report> {
        (1..=self.seeds).map(play).collect()
    }

    fn partial_failure(&self) {
        let shares = [0.01, 0.05, 0.1, 0.2, 0.5, 0.75, 1.0];
        let names: Vec<_> = shares.iter().map(|share| format!("{:.0} %", share * 100.0)).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        head("1. A share of all attempts fails: attempts per call / share of calls answered", &names);
        for player in Player::ALL {
            let cells = shares.map(|share| {
                let reports = self.reports(|seed| scenarios::partial_failure(player, share, 300, seed));
                let amplification = spread(reports.iter().map(Report::amplification));
                let success = spread(reports.iter().map(Report::success));
                format!("{:.3} / {:.3}", amplification.mean, success.mean)
            });
            row(player.name(), &cells);
        }
        // A window of 60 s, ten calls a second, a reserve of 2.
        let bound = shares.map(|share| {
            let success = spread(
                self.reports(|seed| scenarios::partial_failure(Player::Standard, share, 300, seed))
                    .iter()
                    .map(Report::success),
            );
            format!("≤ {:.3}", 1.0 + 0.1 * success.mean + 2.0 / (10.0 * 60.0))
        });
        row("bound for the standard budget", &bound);
    }

    fn small(&self) {
        head(
            "2, 3, 14, 15. A lone slow client; a blip; a closed loop; a server that stays slow",
            &[
                "lone client: answered",
                "blip of 2 s: calls lost of some 1400",
                "closed loop: attempts per call",
                "slow server: attempts per call / answered",
            ],
        );
        for player in Player::ALL {
            let lone =
                spread(self.reports(|seed| scenarios::lone_client(player, 50_000, seed)).iter().map(Report::success));
            let blip =
                spread(self.reports(|seed| scenarios::blip(player, seed)).iter().map(|report| report.lost() as f64));
            let closed =
                spread(self.reports(|seed| scenarios::closed_loop(player, 60, seed)).iter().map(Report::amplification));
            let slow = self.reports(|seed| scenarios::slow_server(player, 300, seed));
            row(
                player.name(),
                &[
                    worst(lone, false, 3),
                    worst(blip, true, 0),
                    worst(closed, true, 3),
                    format!(
                        "{:.3} / {:.3}",
                        spread(slow.iter().map(Report::amplification)).mean,
                        spread(slow.iter().map(Report::success)).mean
                    ),
                ],
            );
        }
    }

    fn outage(&self) {
        head(
            "4. Everything fails for 5 s, at 700 calls per second of 1000: attempts per call in it / most attempts in a second of the 15 s after it / seconds until 95 % are answered",
            &["base 0.1 s", "base 1 s"],
        );
        for player in Player::ALL {
            let cells = [100, 1000].map(|base| {
                let reports = self.reports(|seed| scenarios::outage(player, Duration::from_millis(base), seed));
                let amplification = spread(reports.iter().map(|report| report.amplification_in(60, 65)));
                let peak = spread(reports.iter().map(|report| f64::from(report.peak(65, 80))));
                format!(
                    "{} / {} / {}",
                    worst(amplification, true, 2),
                    worst(peak, true, 0),
                    recovery(&reports, 65, 100)
                )
            });
            row(player.name(), &cells);
        }
    }

    fn metastable(&self) {
        head(
            "5. The server does 30 % of its work for 10 s, at 800 calls per second of 1000: seconds until it has recovered",
            &["100 clients", "2000 clients", "8000 clients", "100 clients, 5 attempts"],
        );
        for player in Player::ALL {
            let cells = [(100, 3), (2000, 3), (8000, 3), (100, 5)].map(|(clients, attempts)| {
                let reports = self.reports(|seed| scenarios::metastable(player, clients, 800.0, attempts, seed));
                recovery(&reports, TRIGGERED, WATCHED)
            });
            row(player.name(), &cells);
        }
    }

    fn load(&self) {
        let loads = [500.0, 700.0, 800.0, 900.0, 950.0];
        head("6. The same with 100 clients at other loads", &["500", "700", "800", "900", "950"]);
        for player in Player::ALL {
            let cells = loads.map(|load| {
                let reports = self.reports(|seed| scenarios::metastable(player, 100, load, 3, seed));
                recovery(&reports, TRIGGERED, WATCHED)
            });
            row(player.name(), &cells);
        }
    }

    fn herd(&self) {
        head(
            "7. 5000 calls at once, the server is down for half a second; up to 30 attempts, first ceiling 4 s",
            &["attempts per call", "seconds until all are done", "first retries in the fullest second", "answered"],
        );
        // Each call is a client of its own; a budget would stop nearly all of them, which is not the question here.
        let played: [(&str, fn(u64) -> Report); 2] =
            [("ours, no budget", scenarios::herd), ("exponential, no jitter", scenarios::herd_without_jitter)];
        for (name, play) in played {
            let reports = self.reports(play);
            let fullest = reports
                .iter()
                .map(|report| f64::from(report.first_retries_at.iter().max().copied().unwrap_or(0)) / 5000.0);
            row(
                name,
                &[
                    worst(spread(reports.iter().map(Report::amplification)), true, 2),
                    worst(spread(reports.iter().map(|report| report.ended as f64 / SECOND as f64)), true, 1),
                    worst(spread(fullest), true, 2),
                    worst(spread(reports.iter().map(Report::success)), false, 3),
                ],
            );
        }
    }

    fn contention(&self) {
        head("8. 100 clients write the same thing (40 runs): milliseconds / writes", &["until all are done", "writes"]);
        for (name, wait) in scenarios::waits() {
            let runs: Vec<_> = (0..40).map(|seed| scenarios::contention(100, seed, &*wait)).collect();
            let time = spread(runs.iter().map(|run| run.0));
            let writes = spread(runs.iter().map(|run| run.1 as f64));
            row(name, &[format!("{:.0}", time.mean), format!("{:.0}", writes.mean)]);
        }
    }
}

impl Page {
    fn quota(&self) {
        head(
            &format!(
                "9. A quota of 60 calls a minute, in which six bursts of three calls a second last for 25 s each ({QUOTA_SECONDS} s, about \
                 1200 calls); deadline 180 s: calls answered / 429s"
            ),
            &["1 process", "20 processes", "retries before their own hint"],
        );
        for caller in Caller::ALL {
            let mut early = 0;
            let mut cells: Vec<_> = [1, 20]
                .map(|processes| {
                    let runs: Vec<_> = (1..=self.seeds).map(|seed| layers::quota(caller, processes, seed)).collect();
                    early += runs.iter().map(|run| run.early).sum::<u64>();
                    let refusals = spread(runs.iter().map(|run| run.refusals as f64));
                    format!(
                        "{} / {}",
                        worst(spread(runs.iter().map(layers::Quota::success)), false, 3),
                        worst(refusals, true, 0)
                    )
                })
                .into();
            cells.push(early.to_string());
            row(caller.name(), &cells);
        }
    }

    fn layers(&self) {
        head("10, 11, 13. What the layers do, each by itself", &["", "wanted"]);
        let (took, attempts, hint) = layers::long_hint(Duration::from_secs(600), Duration::from_secs(30));
        row(
            "10. `Retry-After: 600` with a deadline of 30 s",
            &[
                format!("ends after {took:?}, {attempts} attempt, asked for {hint:?}"),
                "at once, 1 attempt, hint in the error".to_owned(),
            ],
        );
        for share in [0.3, 0.5, 0.75] {
            let answered = spread((1..=self.seeds).map(|seed| layers::breaker(share, 600, seed)));
            row(
                &format!("11. {:.0} % of calls fail, breaker with its defaults: answered", share * 100.0),
                &[worst(answered, false, 3), format!("{:.2} without a breaker", 1.0 - share)],
            );
        }
        let probes: Vec<_> = (1..=self.seeds).map(layers::dropped_probes).collect();
        let closed = spread(probes.iter().map(|probe| probe.0.as_secs_f64()));
        let dropped = spread(probes.iter().map(|probe| probe.1 as f64));
        row(
            "11. all probes dropped for two minutes: seconds until closed, once well / probes dropped",
            &[format!("{} / {:.0}", worst(closed, true, 1), dropped.mean), "≤ 61: the longest open time".to_owned()],
        );
        for (name, budget, wanted) in
            [("a standard budget each", true, "≤ 1.33 in the end"), ("no budgets", false, "27 is what to avoid")]
        {
            let runs: Vec<_> = (1..=self.seeds).map(|seed| layers::nested(budget, seed)).collect();
            let all = worst(spread(runs.iter().map(|run| run.0)), true, 2);
            let last = worst(spread(runs.iter().map(|run| run.1)), true, 2);
            row(
                &format!(
                    "13. three nested layers of 3 attempts, all fails for 5 min, {name}: attempts per call / in the last minute"
                ),
                &[format!("{all} / {last}"), wanted.to_owned()],
            );
        }
        row(
            "13. the same with HTTP requests, which are marked, and nothing but the marks: attempts",
            &[layers_http::nested_http(1).to_string(), "7 = 3 + 2 + 2".to_owned()],
        );
    }
}

// `never` as soon as one of them does not.
fn recovery(reports: &[Report], trigger: usize, end: usize) -> String {
    let seconds: Vec<_> = reports.iter().map(|report| report.recovery(trigger, end)).collect();
    let never = seconds.iter().filter(|seconds| seconds.is_none()).count();
    match never {
        0 => worst(spread(seconds.into_iter().flatten().map(|seconds| seconds as f64)), true, 0),
        never if never == reports.len() => "never".to_owned(),
        never => format!("never in {never} of {}", reports.len()),
    }
}
