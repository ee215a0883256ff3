//! Secrets from the terminal, where they are not shown, or line by line from standard input.

use std::io::{self, IsTerminal as _, Write as _};

use clap::ArgMatches;
use rustix::io::Errno;
use rustix::stdio::stdin;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::super::super::failure::Failure;

/// Bytes of a line: for passwords, with room, so that no part of one is left where it was before.
const ROOM: usize = 4 << 10;
const MOST: usize = 64 << 10;

/// A text that is overwritten when it goes.
pub(super) type Secret = Zeroizing<String>;

/// The next line of standard input, without its end; `None` behind the last. Nothing beyond it is taken: other lines are for
/// others.
pub(in super::super) fn line() -> Result<Option<Secret>, Failure> {
    line_until(None)
}

/// The same, up to a byte that stands for Ctrl-C.
fn line_until(interrupt: Option<u8>) -> Result<Option<Secret>, Failure> {
    let mut line = Zeroizing::new(Vec::<u8>::with_capacity(ROOM));
    loop {
        let mut byte = [0_u8];
        match rustix::io::read(stdin(), &mut byte) {
            Err(Errno::INTR) => {}
            Err(e) => return Err(Failure::System("read standard input", e.into())),
            Ok(0) if line.is_empty() => return Ok(None),
            Ok(0) => break,
            Ok(_) if byte[0] == b'\n' => break,
            Ok(_) if Some(byte[0]) == interrupt => return Err(Failure::Interrupted { begun: false }),
            Ok(_) if line.len() == MOST => {
                return Err(Failure::Usage(format!("a line of standard input has more than {MOST} bytes")));
            }
            Ok(_) => line.push(byte[0]),
        }
    }
    line.pop_if(|last| *last == b'\r');
    let text = String::from_utf8(std::mem::take(&mut *line));
    let text = text.map_err(|_| Failure::Usage("a line of standard input is not UTF-8".into()))?;
    Ok(Some(Zeroizing::new(text)))
}

fn ask(prompt: &str) {
    // Whoever does not see it will not answer.
    let _ = io::stderr().write_all(prompt.as_bytes()).and_then(|()| io::stderr().flush());
}

fn needs_terminal(instead: &str) -> Result<(), Failure> {
    match io::stdin().is_terminal() {
        true => Ok(()),
        false => Err(Failure::Usage(format!("standard input is no terminal; {instead}"))),
    }
}

/// Asks for something that may be seen.
pub(super) fn word(prompt: &str, instead: &str) -> Result<String, Failure> {
    needs_terminal(instead)?;
    ask(prompt);
    let line = line()?.ok_or(Failure::Interrupted { begun: false })?;
    Ok(line.trim().to_string())
}

/// While this lives, what is typed is not shown, and Ctrl-C is a byte like others that ends a line: the terminal is as before
/// in any case.
struct Unseen {
    before: Termios,
    interrupt: Option<u8>,
}

impl Unseen {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut unseen = before.clone();
        let key = before.special_codes[SpecialCodeIndex::VINTR];
        // None where it has been taken away.
        let interrupt = (key != 0).then_some(key);
        unseen.local_modes.remove(LocalModes::ECHO);
        if let Some(key) = interrupt {
            unseen.local_modes.remove(LocalModes::ISIG);
            unseen.special_codes[SpecialCodeIndex::VEOL] = key;
        }
        tcsetattr(stdin(), OptionalActions::Now, &unseen)?;
        Ok(Self { before, interrupt })
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}

fn unseen(prompt: &str) -> Result<Secret, Failure> {
    needs_terminal("give the password there with --password-stdin")?;
    let unseen = Unseen::begin().map_err(|e| Failure::System("hide what is typed", e))?;
    ask(prompt);
    let line = line_until(unseen.interrupt);
    drop(unseen);
    ask("\n");
    line?.ok_or(Failure::Interrupted { begun: false })
}

/// Where passwords come from.
pub(super) struct Passwords {
    stdin: bool,
}

impl Passwords {
    /// As the flag `--password-stdin` says.
    pub(super) fn of(of: &ArgMatches) -> Self {
        Self { stdin: of.get_flag("password-stdin") }
    }

    /// Whether they are lines of standard input.
    pub(super) fn is_stdin(&self) -> bool {
        self.stdin
    }

    /// One that somebody has.
    pub(super) fn known(&self, prompt: &str) -> Result<Secret, Failure> {
        if !self.stdin {
            return unseen(prompt);
        }
        let none = || Failure::Usage("standard input has no line with a password".into());
        line()?.filter(|line| !line.is_empty()).ok_or_else(none)
    }

    /// One that is to be set: on a terminal it is asked for twice.
    pub(super) fn new_one(&self, prompt: &str) -> Result<Secret, Failure> {
        let first = self.known(prompt)?;
        if !self.stdin && *unseen("again: ")? != *first {
            return Err(Failure::Usage("the two passwords are not alike; nothing was changed".into()));
        }
        Ok(first)
    }
}
