//! What happens to a built-in object before it is stored: defaults, and what upstream refuses.

pub(crate) mod check;
pub(crate) mod defaults;
pub(crate) mod pod;
pub(crate) mod security;
