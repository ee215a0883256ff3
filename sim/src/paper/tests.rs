//! Small runs of the model: one seed has one run, killed workers and missing backups cost what they must.

use super::figures::svg;
use super::*;

/// Forty of the paper's machines, with as much less to do.
fn few(reduces: u32) -> (Machines, Work) {
    let machines = Machines { count: 40, start: 5.0, ramp: 5.0, core: 400.0, bad: 0.05, ..MACHINES };
    let work = Work { input: 20_000.0, maps: 300, reduces, shuffled: 1.0, written: 1.0, backups: true };
    (machines, work)
}

#[test]
fn one_seed_has_one_run_and_all_bytes_go_through() {
    let (machines, work) = few(90);
    let ran = run(&machines, &work, None, 7);
    assert_eq!(ran, run(&machines, &work, None, 7));
    assert_ne!(ran.total, run(&machines, &work, None, 8).total);
    let sum = |of: fn(&Rates) -> f64| ran.rates.iter().map(of).sum::<f64>();
    // Second attempts do more than is needed, none does less.
    for (moved, least) in [(sum(|r| r.input), 20_000.0), (sum(|r| r.shuffle), 20_000.0), (sum(|r| r.output), 20_000.0)]
    {
        assert!(moved > least * 0.99 && moved < least * 1.3, "{moved} of {least}");
    }
    assert!(ran.mapped < ran.fetched && ran.fetched < ran.total);
}

#[test]
fn maps_of_killed_workers_are_done_again() {
    let (machines, work) = few(90);
    let calm = run(&machines, &work, None, 7);
    let kill = Kill { at: calm.mapped, workers: 10 };
    let ran = run(&machines, &work, Some(kill), 7);
    assert!(ran.total > calm.total, "{} and {}", ran.total, calm.total);
    let read = |ran: &Ran| ran.rates.iter().map(|r| r.input).sum::<f64>();
    assert!(read(&ran) > read(&calm) * 1.1, "a quarter of the maps was lost");
}

#[test]
fn without_backups_the_slowest_decides() {
    let (machines, work) = few(60);
    let with = run(&machines, &work, None, 7);
    let without = run(&machines, &Work { backups: false, ..work }, None, 7);
    assert!(with.again > 0 && without.again == 0);
    assert!(without.total > with.total, "{} and {}", without.total, with.total);
}

#[test]
fn a_figure_has_a_curve_and_what_was_published() {
    let (machines, work) = few(90);
    let ran = run(&machines, &work, None, 7);
    for experiment in Experiment::ALL {
        let text = svg(experiment, &ran);
        let count = |tag: &str| text.matches(tag).count();
        assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"));
        assert_eq!(count("<text"), count("</text>"));
        assert_eq!(count("<polyline"), if experiment == Experiment::Grep { 1 } else { 3 });
        assert!(count("<line") > 0 && text.contains(&format!("{:.0}", experiment.published())));
    }
}
