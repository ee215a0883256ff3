//! How many connections the files that this process may open allow.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files for everything that is no connection: the log, scratch, inputs.
const RESERVE: u64 = 1024;

/// Connections that may be open at a time: `wanted` of them, or as many as are left of this process's files. Raises their
/// soft limit as far as that takes and the hard one lets.
pub(super) fn connections(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    let enough = hard.min(wanted as u64 + RESERVE);
    let raised =
        soft < enough && setrlimit(Resource::Nofile, Rlimit { current: Some(enough), maximum: limit.maximum }).is_ok();
    of_files(wanted, if raised { enough } else { soft })
}

fn of_files(wanted: usize, files: u64) -> usize {
    let left = files - RESERVE.min(files / 2);
    wanted.min(usize::try_from(left).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_left_for_other_things() {
        for (wanted, files, connections) in [
            (16_384, u64::MAX, 16_384),
            (16_384, 1 << 20, 16_384),
            (16_384, 4096, 3072),
            (16_384, 1024, 512),
            (10, 64, 10),
        ] {
            assert_eq!(of_files(wanted, files), connections, "{wanted} of {files}");
        }
    }
}
