//! Randomness: one stream for each purpose and thing, so that a fault which is taken away does not change what others do.

use rand::{Rng as _, SeedableRng as _};
use rand_pcg::Pcg64Mcg;

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Which of the tasks that are ready runs next.
    Scheduling,
    /// What a node draws, by node and boot.
    Nodes,
    /// What happens to messages, by line.
    Network,
    /// What happens at the store, by caller.
    Store,
    /// What clients do, by client.
    Workload,
    /// Which faults a run has.
    Plan,
    /// What the administrator does.
    Administrator,
}

/// The stream of a purpose and a number. The generator is portable (O'Neill, "PCG", 2014): a plan that was kept gives the
/// same run on another machine and with a later release of `rand`.
pub(crate) fn stream(seed: u64, of: Stream, number: u64) -> Pcg64Mcg {
    let purpose = (of as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Pcg64Mcg::seed_from_u64(seed ^ purpose ^ number.wrapping_mul(0xd1b5_4a32_d192_ed03))
}

/// A number below `bound`, which is not 0. Its bias is below 2^-32 for bounds below 2^32.
pub(crate) fn below(random: &mut Pcg64Mcg, bound: u64) -> u64 {
    ((u128::from(random.next_u64()) * u128::from(bound)) >> 64) as u64
}
