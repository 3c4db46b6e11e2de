//! The pictures of README and docs.

use std::{error::Error, path::Path, time::Duration};

use plotters::prelude::*;
use tower_tenacity::{
    Attempt, Random,
    classify::Class,
    wait::{self, Wait},
};

use crate::simulation::{
    Player,
    engine::Report,
    layers::{Caller, QUOTA_SECONDS, quota},
    scenarios::{self, spread},
};

type Done = Result<(), Box<dyn Error>>;

const SIZE: (u32, u32) = (720, 400);
const COLORS: [RGBColor; 6] = [
    RGBColor(0x1b, 0x6e, 0xc2),
    RGBColor(0xc7, 0x3e, 0x1d),
    RGBColor(0x2e, 0x8b, 0x57),
    RGBColor(0x8e, 0x5a, 0xa8),
    RGBColor(0xb8, 0x86, 0x0b),
    RGBColor(0x60, 0x60, 0x60),
];

pub fn draw(folder: &Path, seeds: u64) -> Done {
    delays(&folder.join("delays.svg"))?;
    outage(&folder.join("outage.svg"))?;
    amplification(&folder.join("amplification.svg"), seeds)?;
    cooldown(&folder.join("cooldown.svg"))?;
    Ok(())
}

struct Line {
    name: String,
    points: Vec<(f64, f64)>,
    dashed: bool,
}

fn lines(
    path: &Path,
    title: &str,
    x: (&str, f64, f64),
    y: (&str, f64, f64),
    legend: SeriesLabelPosition,
    lines: &[Line],
) -> Done {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(54)
        .build_cartesian_2d(x.1..x.2, y.1..y.2)?;
    chart.configure_mesh().max_light_lines(0).x_desc(x.0).y_desc(y.0).draw()?;
    for (index, line) in lines.iter().enumerate() {
        let color = COLORS[index % COLORS.len()];
        let points = line.points.iter().copied();
        let drawn = if line.dashed {
            chart.draw_series(DashedLineSeries::new(points, 6, 4, color.stroke_width(2)))?
        } else {
            chart.draw_series(LineSeries::new(points, color.stroke_width(2)))?
        };
        drawn
            .label(line.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.85)).position(legend).draw()?;
    root.present()?;
    Ok(())
}

/// What each wait can be after each attempt: fifteen draws.
fn delays(path: &Path) -> Done {
    let root = SVGBackend::new(path, (720, 300)).into_drawing_area();
    root.fill(&WHITE)?;
    let second = Duration::from_secs(1);
    let exponential = || wait::exponential().multiplier(second).max(8 * second);
    let strategies: [(&str, Box<dyn Wait<(), ()>>); 4] = [
        ("exponential", Box::new(exponential())),
        ("full jitter", Box::new(exponential().full_jitter())),
        ("equal jitter", Box::new(exponential().equal_jitter())),
        ("floored jitter (default)", Box::new(wait::floored_jitter().transient(second).max(8 * second))),
    ];
    fastrand::seed(1);
    for ((name, wait), area) in strategies.iter().zip(root.split_evenly((1, 4))) {
        let mut chart = ChartBuilder::on(&area)
            .caption(name, ("sans-serif", 14))
            .margin(6)
            .x_label_area_size(30)
            .y_label_area_size(26)
            .build_cartesian_2d(0.5..6.5, 0.0..9.0)?;
        chart.configure_mesh().max_light_lines(0).x_labels(6).x_desc("after attempt").y_desc("s").draw()?;
        for attempt in 1..=6 {
            let draws = (0..15).map(|_| {
                let random = &mut Random::from_thread();
                wait.delay(&Attempt::new(attempt), Class::transient(), &Err(()), random).as_secs_f64()
            });
            // Side by side, so that equal ones are seen.
            let points =
                draws.enumerate().map(|(index, delay)| (f64::from(attempt) - 0.25 + index as f64 / 30.0, delay));
            let points: Vec<_> = points.collect();
            chart.draw_series(points.into_iter().map(|point| Circle::new(point, 1, COLORS[0].filled())))?;
        }
    }
    root.present()?;
    Ok(())
}

/// Attempts by the second, during an outage and after it.
fn outage(path: &Path) -> Done {
    let players = [Player::Standard, Player::Unbudgeted, Player::Tenacity, Player::NoRetries];
    let all: Vec<_> = players
        .into_iter()
        .map(|player| {
            let report = scenarios::outage(player, Duration::from_secs(1), 1);
            let points = (55..85).map(|second| (second as f64 - 60.0, f64::from(report.attempts_at[second]))).collect();
            Line { name: player.name().to_owned(), points, dashed: player == Player::NoRetries }
        })
        .collect();
    lines(
        path,
        "Everything fails for 5 s: attempts per second, at 700 calls per second of a server that can do 1000",
        ("seconds since the outage began", -5.0, 24.0),
        ("attempts per second", 0.0, 2200.0),
        SeriesLabelPosition::UpperRight,
        &all,
    )
}

/// Attempts per call against the share that fails, with the bound.
fn amplification(path: &Path, seeds: u64) -> Done {
    let shares: Vec<_> = (0..=20).map(|step| f64::from(step) / 20.0).collect();
    let of = |player: Player, value: &dyn Fn(&Report) -> f64| -> Vec<(f64, f64)> {
        shares
            .iter()
            .map(|&share| {
                let reports = (1..=seeds).map(|seed| scenarios::partial_failure(player, share, 100, seed));
                (share * 100.0, spread(reports.map(|report| value(&report))).mean)
            })
            .collect()
    };
    let players = [Player::Standard, Player::Unbudgeted, Player::Tower, Player::Envoy, Player::Aws];
    let mut all: Vec<_> = players
        .into_iter()
        .map(|player| Line {
            name: player.name().to_owned(),
            points: of(player, &Report::amplification),
            dashed: false,
        })
        .collect();
    all.push(Line {
        name: "bound of the standard budget".to_owned(),
        points: of(Player::Standard, &|report| 1.0 + 0.1 * report.success() + 2.0 / (10.0 * 60.0)),
        dashed: true,
    });
    lines(
        path,
        "Attempts per call, three at most, by the share of attempts that fail",
        ("% of attempts that fail", 0.0, 100.0),
        ("attempts per call", 1.0, 3.0),
        SeriesLabelPosition::MiddleLeft,
        &all,
    )
}

/// 429s that a quota has answered with, over time.
fn cooldown(path: &Path) -> Done {
    let of = |caller: Caller| {
        let refusals = quota(caller, 1, 1).refusals_at;
        let mut sum = 0;
        let mut points = vec![(0.0, 0.0)];
        for step in 1..=QUOTA_SECONDS / 10 {
            let ten = refusals.iter().skip((step as usize - 1) * 10).take(10).sum::<u32>();
            sum += ten;
            points.push((step as f64 / 6.0, f64::from(sum)));
        }
        Line { name: caller.name().to_owned(), points, dashed: caller == Caller::NoRetries }
    };
    let all: Vec<_> = [Caller::Shared, Caller::Deaf, Caller::Obedient, Caller::NoRetries].into_iter().map(of).collect();
    let most = all.iter().filter_map(|line| line.points.last()).map(|point| point.1).fold(0.0, f64::max);
    lines(
        path,
        "A quota of 60 calls a minute, and six bursts of three a second: 429s so far",
        ("minutes", 0.0, 30.0),
        ("429s", 0.0, (most / 100.0).ceil() * 100.0),
        SeriesLabelPosition::UpperLeft,
        &all,
    )
}
