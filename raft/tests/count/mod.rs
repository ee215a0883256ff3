//! The smallest state machine: it counts commands.

use std::io;

use gristmill_raft::StateMachine;

/// How many commands there were.
pub(crate) struct Count(pub(crate) u64);

impl StateMachine for Count {
    type View = std::iter::Once<Vec<u8>>;

    fn apply(&mut self, _: u64, _: &[u8]) -> std::io::Result<Vec<u8>> {
        self.0 += 1;
        Ok(Vec::new())
    }

    fn snapshot(&self) -> Self::View {
        std::iter::once(self.0.to_be_bytes().to_vec())
    }

    fn restore(&mut self, snapshot: &mut dyn io::Read) -> io::Result<()> {
        let mut bytes = [0; 8];
        snapshot.read_exact(&mut bytes).map(|()| self.0 = u64::from_be_bytes(bytes))
    }
}
