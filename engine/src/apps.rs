//! The built-in apps. They use the public [`crate::app`] only: what they can do, a user's app can.

mod distinct;
mod grep;
mod index;
mod reverse_links;
mod sort;
mod term_vector;
mod text;
mod top;
mod wordcount;

pub use distinct::Distinct;
pub use grep::Grep;
pub use index::Index;
pub use reverse_links::ReverseLinks;
pub use sort::Sort;
pub use term_vector::TermVector;
pub use text::Words;
pub use top::TopWords;
pub use wordcount::WordCount;

use crate::registry::Entry;

/// All built-in apps.
pub fn all() -> Vec<Entry> {
    vec![
        Entry::new::<WordCount>("wordcount").with_example("books/ -o out/"),
        Entry::with("grep", Grep::job).with_example("'err(or)?:' 'logs/**/*.log' --lines"),
        Entry::with("sort", Sort::job).with_example("--field 2 --numeric sales.tsv -o sorted/"),
        Entry::new::<Index>("index").with_example("--ids src/ -o index/"),
        Entry::with("reverse-links", ReverseLinks::job).with_example("site/ -o links/"),
        Entry::new::<TermVector>("term-vector").with_example("--terms 5 books/"),
        Entry::with("top", TopWords::job).with_example("--k 20 books/"),
        Entry::new::<Distinct>("distinct").with_example("visitors.txt -o unique/"),
    ]
}
