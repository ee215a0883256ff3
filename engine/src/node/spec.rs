//! From a job's spec and plan, as messages, to what the data plane takes.

use gristmill_proto::internal::v1 as wire;
use gristmill_proto::v1::{Compression as Codec, JobSpec};

use crate::app::Format;
use crate::data::compress::Compression;
use crate::job::Options;
use crate::task::Object;

/// How tasks of a job run.
///
/// # Errors
/// One line that says what of the spec makes no sense.
pub fn options(spec: &JobSpec, memory: u64) -> Result<Options, String> {
    let format = match spec.format.as_str() {
        "" => None,
        format => Some(format.parse::<Format>()?),
    };
    let compress = compression(spec.compress());
    let reducers = (spec.reducers > 0).then_some(spec.reducers);
    let skip_bad_records = spec.skip_bad_records;
    Ok(Options { reducers, format, compress, memory, skip_bad_records, ..Options::default() })
}

/// What parts are compressed with.
pub(crate) fn compression(codec: Codec) -> Option<Compression> {
    match codec {
        Codec::Unspecified => None,
        Codec::Gzip => Some(Compression::Gzip),
        Codec::Zstd => Some(Compression::Zstd),
    }
}

/// The inputs of a plan.
pub(crate) fn listing(plan: &wire::PlanFile) -> Vec<Object> {
    plan.objects.iter().map(|object| Object { name: object.name.clone(), len: object.size }).collect()
}
