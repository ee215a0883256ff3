//! Invariant 18: No node panics.

use super::{Violation, violation};
use crate::runtime::Ended;

pub(super) fn check(ended: &Ended) -> Vec<Violation> {
    ended.panics.iter().map(|(node, what)| violation(18, format!("node {} panicked: {what}", node.0))).collect()
}
