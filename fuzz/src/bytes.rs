//! An input taken apart from its front. What is not there reads as zero or nothing, so that every input means something.

/// What is left of an input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes<'d>(pub(crate) &'d [u8]);

impl<'d> Bytes<'d> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// A number of two bytes, little-endian.
    pub(crate) fn number(&mut self) -> usize {
        usize::from(self.byte()) | usize::from(self.byte()) << 8
    }

    /// The next `n` bytes; fewer at the end.
    pub(crate) fn take(&mut self, n: usize) -> &'d [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// The next `n` bytes, if there are so many.
    pub(crate) fn exactly(&mut self, n: usize) -> Option<&'d [u8]> {
        (n <= self.0.len()).then(|| self.take(n))
    }

    /// What comes before the next `separator`, which is taken too.
    pub(crate) fn until(&mut self, separator: u8) -> &'d [u8] {
        let n = self.0.iter().position(|b| *b == separator).unwrap_or(self.0.len());
        let taken = self.take(n);
        self.take(1);
        taken
    }
}
