//! One node as a process, for tests that need no more of a cluster.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::program::Folder;

/// Longest wait for a node to be ready.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process with a node; it ends with the test, whatever comes of it.
pub(crate) struct Node {
    child: Child,
    pub(crate) address: String,
    said: Receiver<String>,
}

impl Node {
    /// Runs the program with these arguments until it says that it is ready, and where.
    pub(crate) fn start(folder: &Folder, arguments: &[&str]) -> Self {
        Self::start_with(folder, arguments, &[])
    }

    /// The same with these environment variables.
    pub(crate) fn start_with(folder: &Folder, arguments: &[&str], variables: &[(String, String)]) -> Self {
        let mut child = folder
            .command(env!("CARGO_BIN_EXE_gristmill"))
            .args(arguments)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let err = child.stderr.take().unwrap();
        let (say, said) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                // Of a failed test this is shown.
                println!("{line}");
                let _ = say.send(line);
            }
        });
        let mut node = Self { child, address: String::new(), said };
        node.address = loop {
            let line = node.hears();
            if let Some(at) = line.strip_suffix(" is ready").and_then(|line| line.rsplit_once(" at ")) {
                break at.1.to_string();
            }
        };
        node
    }

    fn hears(&self) -> String {
        self.said.recv_timeout(PATIENCE).unwrap_or_else(|e| panic!("the node said nothing: {e}"))
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
