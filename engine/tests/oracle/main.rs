//! Whole jobs against a plain oracle in memory that shares no code with the engine's data plane.
//!
//! `world` makes files and runs jobs over them, `naive` is the oracle, `apps` are the apps that jobs run; `jobs` draws
//! random inputs and ways to run; `spills` makes jobs spill, `hostile` is about keys that collide, `parts` about apps
//! that say themselves which part a key belongs to, `failures` about jobs that
//! fail or are stopped, `builtin` about the built-in apps, `tasks` about jobs that are cut into tasks. `GRISTMILL_CASES` multiplies the number of random cases.

#![expect(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests make files")]
#![allow(missing_docs, unreachable_pub)]

/// Gives a macro the name of a test for every kind of app, and the kind.
macro_rules! every_kind {
    ($tests:ident) => {
        $tests! {
            fold_of_numbers: Sum,
            fold_of_a_type_of_the_apps_own: Joined,
            fold_of_nothing: Seen,
            group_of_places_in_input_order: Places,
            group_that_combines: Inputs,
            group_of_nothing: Strokes,
            group_of_bytes_of_the_chunk: Tails,
            group_of_bytes_of_the_app: MadeTails,
            sort_of_keys: SortedKeys,
            sort_of_numbers: SortedPlaces,
            sort_of_bytes_of_the_chunk: SortedTails,
            sort_of_bytes_of_the_app: SortedMade,
        }
    };
}

mod apps;
mod builtin;
mod failures;
mod hostile;
mod jobs;
mod naive;
mod parts;
mod spills;
mod tasks;
mod world;
