//! Hands the pieces of parts to threads, so that pieces are begun in order within their part and threads keep to
//! different parts while there are enough: two writers of one file wait for each other in the kernel.

use std::sync::Mutex;

use super::output::lock;

/// The pieces of all parts, as numbers of groups in order.
pub(crate) struct Pieces {
    parts: Mutex<Vec<Left>>,
}

struct Left {
    /// Next group and end.
    next: usize,
    end: usize,
    threads: usize,
}

impl Pieces {
    /// Parts of these many groups each, numbered one after the other.
    pub(crate) fn new(counts: &[usize]) -> Self {
        let parts = counts.iter().scan(0, |at, n| {
            *at += n;
            Some(Left { next: *at - n, end: *at, threads: 0 })
        });
        Self { parts: Mutex::new(parts.collect()) }
    }

    /// The next group for a thread that worked on part `own` before, with its part. Stays with that part while it has
    /// groups left, then goes where the fewest threads are.
    pub(crate) fn claim(&self, own: Option<usize>) -> Option<(usize, usize)> {
        let mut parts = lock(&self.parts);
        let part = match own {
            Some(part) if parts[part].next < parts[part].end => part,
            _ => {
                if let Some(part) = own {
                    parts[part].threads -= 1;
                }
                let open = (0..parts.len()).filter(|p| parts[*p].next < parts[*p].end);
                let part = open.min_by_key(|p| (parts[*p].threads, *p))?;
                parts[part].threads += 1;
                part
            }
        };
        let group = parts[part].next;
        parts[part].next += 1;
        Some((part, group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_keep_to_parts_and_then_help() {
        let pieces = Pieces::new(&[3, 0, 2]);
        assert_eq!(pieces.claim(None), Some((0, 0)));
        assert_eq!(pieces.claim(None), Some((2, 3)));
        assert_eq!(pieces.claim(Some(2)), Some((2, 4)));
        assert_eq!(pieces.claim(Some(2)), Some((0, 1)));
        assert_eq!(pieces.claim(Some(0)), Some((0, 2)));
        assert_eq!(pieces.claim(Some(0)), None);
    }
}
