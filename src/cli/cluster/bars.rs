//! How far a job of a cluster is, as three bars on a terminal: maps, shuffle, reduces.

use gristmill_proto::v1 as api;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Parts of a bar: those of the whole work in a million.
const WHOLE: u64 = 1_000_000;

/// The bars of one job. They go from the terminal when this does.
pub(super) struct Bars {
    all: MultiProgress,
    head: ProgressBar,
    bars: [ProgressBar; 3],
}

impl Bars {
    /// On standard error.
    pub(super) fn new() -> Self {
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        let style = |template| ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let head = all.add(ProgressBar::no_length().with_style(style("{wide_msg}")));
        let bar = |name| {
            let style = style("{prefix:8} [{bar:20.cyan}] {percent:>3}% {wide_msg}").progress_chars("=> ");
            all.add(ProgressBar::new(WHOLE).with_style(style).with_prefix(name))
        };
        let bars = ["map", "shuffle", "reduce"].map(bar);
        Self { all, head, bars }
    }

    /// Shows a job as it is.
    pub(super) fn show(&self, state: &str, job: &api::JobStatus) {
        let counters = job.counters.iter().map(|(name, n)| format!(", {name} {n}"));
        let waits = job.notices.first().map(|waits| format!("; waits: {waits}")).unwrap_or_default();
        self.head.set_message(format!("{} is {state}{}{waits}", job.id, counters.collect::<String>()));
        let (maps, reduces) = (job.maps.unwrap_or_default(), job.reduces.unwrap_or_default());
        let fetching = format!("{} reducers", reduces.total);
        let all =
            [(maps.progress_ppm, tasks(&maps)), (job.shuffle_ppm, fetching), (reduces.progress_ppm, tasks(&reduces))];
        for (bar, (ppm, text)) in self.bars.iter().zip(all) {
            bar.set_message(text);
            bar.set_position(ppm.into());
        }
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        // A terminal that is gone needs no clearing.
        let _ = self.all.clear();
    }
}

/// Tasks by what became of them; what there is none of is not told.
fn tasks(counts: &api::TaskCounts) -> String {
    let further = [(counts.running, "running"), (counts.backups, "backup"), (counts.failures, "failed")];
    let further = further.into_iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!(", {n} {what}"));
    format!("{}/{}{}", counts.done, counts.total, further.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_told_by_what_became_of_them() {
        let counts = api::TaskCounts { total: 20, done: 3, running: 4, failures: 1, ..Default::default() };
        assert_eq!(tasks(&counts), "3/20, 4 running, 1 failed");
        assert_eq!(tasks(&api::TaskCounts::default()), "0/0");
    }
}
