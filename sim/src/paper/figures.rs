//! Figures as SVG: rates over time as the model gives them, and what the paper's text says of its own run.

use std::path::Path;

use super::Experiment;
use super::model::{Ran, Rates};

/// Of a panel, in pixels.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 150.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 46.0;
const GAP: f64 = 52.0;

/// What the paper says of a panel: a rate in MB/s or a time in seconds, and in which words it is labelled here.
enum Published {
    Rate(f64, &'static str),
    Time(f64, &'static str),
}

struct Panel {
    title: &'static str,
    of: fn(&Rates) -> f64,
    published: Vec<Published>,
}

fn panels(experiment: Experiment) -> Vec<Panel> {
    use Published::{Rate, Time};
    let input = |published| Panel { title: "input, MB/s", of: |rates| rates.input, published };
    let shuffle = |published| Panel { title: "shuffle, MB/s", of: |rates| rates.shuffle, published };
    let output = |published| Panel { title: "output, MB/s", of: |rates| rates.output, published };
    let end = || Time(experiment.published(), "the end");
    match experiment {
        Experiment::Grep => vec![input(vec![Rate(30_000.0, "peak"), end()])],
        Experiment::Sort => vec![
            input(vec![Rate(13_000.0, "peak"), Time(200.0, "all maps done before")]),
            shuffle(vec![Time(600.0, "all fetched")]),
            output(vec![Rate(2_000.0, "from"), Rate(4_000.0, "to"), Time(850.0, "all written"), end()]),
        ],
        Experiment::NoBackups => {
            vec![input(Vec::new()), shuffle(Vec::new()), output(vec![Time(960.0, "all but five reducers done"), end()])]
        }
        Experiment::Killed => vec![input(Vec::new()), shuffle(Vec::new()), output(vec![end()])],
    }
}

/// Writes the figure of an experiment into a folder.
pub(super) fn draw(folder: &Path, experiment: Experiment, ran: &Ran) -> Result<(), String> {
    let file = folder.join(format!("{}.svg", experiment.name()));
    std::fs::create_dir_all(folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
    std::fs::write(&file, svg(experiment, ran)).map_err(|e| format!("cannot write {}: {e}", file.display()))
}

/// A number that an axis may end at: 1, 2 or 5 times a power of ten, and not less than `least`.
fn round(least: f64) -> f64 {
    let ten = 10_f64.powf(least.max(1.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * ten).find(|n| *n >= least).unwrap_or(least)
}

pub(super) fn svg(experiment: Experiment, ran: &Ran) -> String {
    let panels = panels(experiment);
    let seconds = (ran.total.max(experiment.published()) / 100.0).ceil() * 100.0;
    let (width, height) = (LEFT + WIDTH + 30.0, TOP + panels.len() as f64 * (HEIGHT + GAP));
    let mut text = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">
<rect width="{width}" height="{height}" fill="white"/>
<text x="{LEFT}" y="18" font-size="13">{}: {:.0} s, published {:.0} s</text>
<text x="{LEFT}" y="33" fill="#1f5fa8">the real scheduler on modelled machines</text>
<text x="{}" y="33" fill="#b3401f">what the paper says</text>
"##,
        experiment.name(),
        ran.total,
        experiment.published(),
        LEFT + 260.0
    );
    for (n, panel) in panels.iter().enumerate() {
        draw_panel(&mut text, panel, ran, seconds, TOP + n as f64 * (HEIGHT + GAP));
    }
    text + "</svg>\n"
}

fn draw_panel(text: &mut String, panel: &Panel, ran: &Ran, seconds: f64, top: f64) {
    let rates = || ran.rates.iter().map(panel.of);
    let said = panel.published.iter().map(|published| match published {
        Published::Rate(rate, _) => *rate,
        Published::Time(..) => 0.0,
    });
    let most = round(rates().chain(said).fold(100.0, f64::max));
    let x = |at: f64| LEFT + WIDTH * at / seconds;
    let y = |rate: f64| top + HEIGHT * (1.0 - rate / most);
    let bottom = top + HEIGHT;
    let mut put = |line: String| *text += &(line + "\n");
    put(format!(
        r##"<rect x="{LEFT}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#999"/>
<text x="{LEFT}" y="{:.0}">{}</text>"##,
        top - 4.0,
        panel.title
    ));
    for part in [0.0, 0.5, 1.0] {
        let rate = most * part;
        put(format!(r#"<text x="{}" y="{:.0}" text-anchor="end">{rate:.0}</text>"#, LEFT - 5.0, y(rate) + 4.0));
    }
    for mark in (0..=seconds as u32).step_by(if seconds > 300.0 { 100 } else { 20 }) {
        let at = x(f64::from(mark));
        put(format!(r#"<text x="{at:.0}" y="{:.0}" text-anchor="middle">{mark}</text>"#, bottom + 14.0));
    }
    let points: Vec<String> =
        rates().enumerate().map(|(second, rate)| format!("{:.1},{:.1}", x(second as f64 + 1.0), y(rate))).collect();
    put(format!(r##"<polyline fill="none" stroke="#1f5fa8" points="{}"/>"##, points.join(" ")));
    for published in &panel.published {
        let ([x1, y1, x2, y2], label) = match published {
            Published::Rate(rate, label) => ([LEFT, y(*rate), LEFT + WIDTH, y(*rate)], format!("{label} {rate:.0}")),
            Published::Time(at, label) => ([x(*at), top, x(*at), bottom], format!("{label}: {at:.0}")),
        };
        let (tx, anchor) = if x1 > LEFT + WIDTH / 2.0 { (x1 - 3.0, "end") } else { (x1 + 3.0, "start") };
        put(format!(
            r##"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="#b3401f" stroke-dasharray="4 3"/>
<text x="{tx:.1}" y="{:.1}" fill="#b3401f" text-anchor="{anchor}">{label}</text>"##,
            y1 + 11.0
        ));
    }
}
