//! A node.
fn main() {}
