//! What the tab key completes: commands, and the long flags of the one that is written.

use clap::Command;
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper, Result};

/// A command as far as it is completed.
struct Known {
    name: String,
    flags: Vec<String>,
    /// Flags that the commands below take too.
    global: Vec<String>,
    below: Vec<Known>,
}

impl Known {
    fn of(command: &Command) -> Self {
        let flags = |global: bool| {
            let flags = command.get_arguments().filter(|flag| flag.is_global_set() == global && !flag.is_hide_set());
            flags.filter_map(|flag| flag.get_long()).map(|long| format!("--{long}")).collect()
        };
        let below = command.get_subcommands().filter(|below| !below.is_hide_set()).map(Self::of).collect();
        Self { name: command.get_name().into(), flags: flags(false), global: flags(true), below }
    }
}

/// Completes lines.
pub(super) struct Completion {
    commands: Vec<Known>,
}

impl Completion {
    pub(super) fn new<'c>(commands: impl Iterator<Item = &'c Command>) -> Self {
        let own = ["help", "exit"].map(|name| Known::of(&Command::new(name)));
        Self { commands: commands.map(Known::of).chain(own).collect() }
    }

    /// Where the word begins that ends here, and what it may become.
    fn candidates(&self, line: &str) -> (usize, Vec<String>) {
        let space = line.char_indices().rfind(|(_, c)| c.is_whitespace());
        let start = space.map_or(0, |(at, c)| at + c.len_utf8());
        let (before, begun) = line.split_at(start);
        let (mut below, mut flags, mut global) = (&self.commands, Vec::<String>::new(), vec!["--help".to_string()]);
        for word in before.split_whitespace() {
            if let Some(command) = below.iter().find(|command| command.name == word) {
                below = &command.below;
                flags.clone_from(&command.flags);
                global.extend(command.global.iter().cloned());
            }
        }
        let names = below.iter().map(|command| command.name.clone());
        let all: Vec<String> =
            if begun.starts_with('-') { flags.into_iter().chain(global).collect() } else { names.collect() };
        (start, all.into_iter().filter(|word| word.starts_with(begun)).collect())
    }
}

impl Completer for Completion {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> Result<(usize, Vec<Pair>)> {
        let (start, found) = self.candidates(line.get(..pos).unwrap_or(line));
        let pair = |word: String| Pair { replacement: format!("{word} "), display: word };
        Ok((start, found.into_iter().map(pair).collect()))
    }
}

impl Hinter for Completion {
    type Hint = String;
}

impl Highlighter for Completion {}

impl Validator for Completion {}

impl Helper for Completion {}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction};

    use super::*;

    #[test]
    fn commands_and_flags_are_completed() {
        let flag = |name: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue);
        let user = Command::new("user").arg(flag("at").global(true));
        let user = user.subcommand(Command::new("add").arg(flag("role"))).subcommand(Command::new("ls"));
        let tree = Command::new("g").subcommand(user).subcommand(Command::new("audit"));
        let completion = Completion::new(tree.get_subcommands());
        for (line, start, want) in [
            ("u", 0, "user"),
            ("", 0, "user audit help exit"),
            ("user ", 5, "add ls"),
            ("user a", 5, "add"),
            ("user add --", 9, "--role --help --at"),
            ("user add ann --r", 13, "--role"),
            ("user ls --", 8, "--help --at"),
            ("user add x", 9, ""),
            ("é", 0, ""),
            ("user\u{3000}a", 7, "add"),
        ] {
            let (at, found) = completion.candidates(line);
            assert_eq!((at, found.join(" ").as_str()), (start, want), "{line}");
        }
    }
}
