//! Doors for the workspace's fuzz targets: what foreign code brings, as bytes, without a job around it.

#[cfg(feature = "scripts")]
pub use crate::python::fuzz as python;
#[cfg(feature = "wasm")]
pub use crate::wasm::fuzz as wasm;
