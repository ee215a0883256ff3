//! Benches of the hot paths, along the way of a record: map, runs, reduce; and of the control plane.
//!
//! One thread and memory only; see README.md for what each measures. Criterion runs each bench once, untimed, under
//! `cargo test`; inputs are tiny then.

mod access;
mod control;
mod input;
mod map;
mod reduce;
mod runs;

use std::time::Duration;

use criterion::{Criterion, criterion_main};

fn all() {
    // Benches that take milliseconds each: few samples will do.
    let criterion = Criterion::default().sample_size(20).warm_up_time(Duration::from_secs(1));
    let criterion = criterion.measurement_time(Duration::from_secs(3)).without_plots();
    let mut criterion = criterion.configure_from_args();
    map::benches(&mut criterion);
    runs::benches(&mut criterion);
    reduce::benches(&mut criterion);
    control::benches(&mut criterion);
    access::benches(&mut criterion);
    criterion.final_summary();
}

criterion_main!(all);
