//! The control plane in one process: rules one by one, and random histories with everything going wrong.

#![allow(missing_docs, unreachable_pub)]
#![allow(clippy::disallowed_methods, reason = "tests look at sources and at their own memory")]

mod access;
mod history;
mod ledger;
mod maps;
mod model;
mod pace;
mod pools;
mod restored;
mod rights;
mod rules;
mod size;
mod state;
mod tidy;
mod worker;
mod world;
