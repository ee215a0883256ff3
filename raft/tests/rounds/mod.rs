//! How often a suite is to run, from the environment.

pub(crate) fn rounds(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |rounds| rounds.parse().expect("a number of rounds"))
}
