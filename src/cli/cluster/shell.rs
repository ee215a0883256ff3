//! `admin`: a shell of the commands about a cluster. Its lines are what follows the program's name elsewhere, and are done by
//! the same code; the flags that say where the cluster is are those that `admin` was given, unless a line has its own.
//!
//! On a terminal, what fails is told and the shell goes on. Else it reads commands from standard input, one a line, and ends
//! with the first that fails: for scripts.

mod completion;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use clap::{ArgMatches, Args as _, Command, FromArgMatches as _};
use rustyline::Editor;
use rustyline::config::{CompletionType, Config};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;

use super::super::failure::Failure;
use super::super::stdout;
use super::access::terminal;
use super::ask::{stay, table};
use super::at::At;
use super::credentials::Store;
use super::pool;
use completion::Completion;

/// Commands that are none of a cluster's, or run for as long as this does.
const LEFT_OUT: [&str; 9] = ["admin", "apps", "cat", "completions", "k8s", "master", "raft", "run", "serve"];
/// Runs for as long as this does unless one of its commands follows.
const WORKER: &str = "worker";
/// Lines that are kept, and in which file.
const KEPT: usize = 1000;
const HISTORY: &str = "admin_history";

/// What does a command whose arguments these are, the program's name first.
pub(crate) type Does<'d> = &'d dyn Fn(Vec<OsString>) -> Result<(), Failure>;

pub(super) fn command(program: &str) -> Command {
    let admin = Command::new("admin")
        .about("Open a shell of the commands about a cluster")
        .long_about(
            "Open a shell of the commands about a cluster\n\n\
             It takes the commands that ask or change a cluster, without the program's name: user, token, role, jobs, data and \
             so on; help lists them, exit or Ctrl-D ends it. The tab key completes commands and flags. When standard input is no \
             terminal, its lines are done one after the other, up to the first that fails.",
        )
        .after_help(format!("Examples:\n  {program} admin --context prod\n  echo 'user ls' | {program} admin"));
    At::augment_args(admin)
}

struct Shell<'s> {
    program: &'s str,
    tree: &'s Command,
    /// The flags that say where the cluster is.
    at: Vec<OsString>,
    does: Does<'s>,
}

pub(super) fn admin(program: &str, tree: &Command, of: &ArgMatches, does: Does<'_>) -> Result<(), Failure> {
    let at = At::from_arg_matches(of)?;
    // What is wrong with the flags is told now.
    let (address, _) = at.clone().found()?;
    let shell = Shell { program, tree, at: at.arguments(), does };
    if io::stdin().is_terminal() { shell.talk(&address) } else { shell.script() }
}

/// What became of a line.
#[derive(PartialEq)]
enum Next {
    Line,
    End,
}

/// The words of a line; none of an empty one, or of one that is all comment.
fn words(line: &str) -> Result<Vec<String>, Failure> {
    let unclosed = || Failure::Usage("a quote is not closed, or the line ends with a backslash".into());
    shlex::split(line).ok_or_else(unclosed)
}

/// Where the flags that say where the cluster is stand among the words: behind the command that takes them.
fn place(tree: &Command, words: &[String]) -> Option<usize> {
    // An app may be one that only the cluster knows.
    if words.first().is_some_and(|word| word == "submit") {
        return (words.len() > 1 && !words[1].starts_with('-')).then_some(2);
    }
    let mut command = tree;
    for (n, word) in words.iter().enumerate() {
        command = command.find_subcommand(word)?;
        if command.get_arguments().any(|flag| flag.get_id() == "cluster.at") {
            return Some(n + 1);
        }
    }
    None
}

/// The arguments that a line stands for.
fn arguments(program: &str, tree: &Command, words: Vec<String>, at: &[OsString]) -> Vec<OsString> {
    let place = place(tree, &words);
    let mut all: Vec<OsString> = words.into_iter().map(OsString::from).collect();
    if let Some(place) = place.filter(|_| !At::is_among(&all)) {
        all.splice(place..place, at.iter().cloned());
    }
    all.insert(0, program.into());
    all
}

/// The commands of the shell, and what they do. Of the one that runs a worker, those below it.
fn offered(tree: &Command) -> impl Iterator<Item = Command> {
    let ours = tree.get_subcommands().filter(|command| !LEFT_OUT.contains(&command.get_name()));
    ours.map(|command| match command.get_name() {
        WORKER => Command::new(WORKER)
            .about("Look at pools of workers, add workers and remove them")
            .subcommands(command.get_subcommands().cloned()),
        _ => command.clone(),
    })
}

/// Whether a line would do what is left to others.
fn is_left_out(words: &[String]) -> bool {
    match words.first().map(String::as_str) {
        Some(WORKER) => {
            let below = words.get(1).map_or("", String::as_str);
            !pool::NAMES.contains(&below) && !["help", "--help", "-h"].contains(&below)
        }
        first => first.is_some_and(|first| LEFT_OUT.contains(&first)),
    }
}

fn help(tree: &Command) -> String {
    let row = |command: Command| {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        vec![command.get_name().to_string(), about]
    };
    let own = [["help", "List these; help COMMAND tells of one"], ["exit", "End the shell"]];
    let own = own.map(|row| row.map(String::from).to_vec());
    table(&offered(tree).map(row).chain(own).collect::<Vec<_>>())
}

impl Shell<'_> {
    fn line(&self, line: &str) -> Result<Next, Failure> {
        let words = words(line)?;
        match (words.first().map(String::as_str), words.len()) {
            (None, _) => {}
            (Some("exit" | "quit"), 1) => return Ok(Next::End),
            (Some("help"), 1) => stdout::print(help(self.tree))?,
            (Some(left), _) if is_left_out(&words) => {
                let what =
                    format!("{left} is no command of this shell; leave it with exit, and run {} {left}", self.program);
                return Err(Failure::Usage(what));
            }
            _ => (self.does)(arguments(self.program, self.tree, words, &self.at))?,
        }
        Ok(Next::Line)
    }

    fn tell(&self, failure: &Failure) {
        // The exit code is of a program that ends.
        let _ = failure.tell(self.program);
    }

    /// Does the lines of standard input. Nothing of it is read beforehand: a command may read its own lines.
    fn script(&self) -> Result<(), Failure> {
        while let Some(line) = terminal::line()? {
            match self.line(&line) {
                Ok(Next::Line) => {}
                Ok(Next::End) => return Ok(()),
                // A page of help.
                Err(failure) if failure.code() == 0 => self.tell(&failure),
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    fn talk(&self, address: &str) -> Result<(), Failure> {
        let failed = |e: ReadlineError| Failure::System("read a line of the terminal", io::Error::other(e));
        let config = Config::builder().completion_type(CompletionType::List).auto_add_history(true);
        let config = config.max_history_size(KEPT).map_err(failed)?.build();
        let mut editor = Editor::<Completion, DefaultHistory>::with_config(config).map_err(failed)?;
        editor.set_helper(Some(Completion::new(offered(self.tree).collect::<Vec<_>>().iter())));
        let history = history();
        if let Some(history) = &history {
            // There may be none yet.
            let _ = editor.load_history(history);
        }
        stay();
        let prompt = format!("{} {address}> ", self.program);
        loop {
            let line = match editor.readline(&prompt) {
                Ok(line) => line,
                // What was typed is let go.
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => return Ok(()),
                Err(e) => return Err(failed(e)),
            };
            if let Some(history) = &history {
                // A history that cannot be kept is no reason not to work.
                let _ = editor.append_history(history);
            }
            match self.line(&line) {
                Ok(Next::Line) => {}
                Ok(Next::End) => return Ok(()),
                Err(failure) => self.tell(&failure),
            }
        }
    }
}

/// The file of lines, in a folder that is there; it is made for its owner alone. `None` without a home.
fn history() -> Option<PathBuf> {
    let store = Store::new().ok()?;
    store.make_folder().ok()?;
    Some(store.beside(HISTORY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Command {
        let user = Command::new("user").subcommand(Command::new("ls")).subcommand(Command::new("add"));
        let context = Command::new("context").subcommand(Command::new("ls"));
        let all = Command::new("g").subcommand(At::augment_args(user)).subcommand(context);
        let pool = At::augment_args(Command::new("pool").subcommand(Command::new("ls")));
        let worker = Command::new("worker").arg(clap::Arg::new("data").long("data")).subcommand(pool);
        all.subcommand(Command::new("submit")).subcommand(worker).subcommand(Command::new("serve").about("A node"))
    }

    fn arguments_of(line: &str) -> String {
        let all = arguments("g", &tree(), words(line).unwrap(), &["--at=m:1".into(), "--insecure".into()]);
        all.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn lines_are_words_with_the_flags_of_the_shell() {
        for (line, want) in [
            ("user ls -o wide", "g|user|--at=m:1|--insecure|ls|-o|wide"),
            ("user add 'ann b' --at x:1", "g|user|add|ann b|--at|x:1"),
            ("context ls", "g|context|ls"),
            ("submit words in -o out -- --at", "g|submit|words|--at=m:1|--insecure|in|-o|out|--|--at"),
            ("submit --help", "g|submit|--help"),
            ("worker pool ls", "g|worker|pool|--at=m:1|--insecure|ls"),
            ("nothing", "g|nothing"),
        ] {
            assert_eq!(arguments_of(line), want, "{line}");
        }
        assert!(words("user 'ls").is_err());
        assert!(words("").unwrap().is_empty() && words("  # a comment").unwrap().is_empty());
    }

    #[test]
    fn a_script_ends_at_what_fails() {
        let tree = tree();
        let seen = std::cell::RefCell::new(Vec::new());
        let does = |arguments: Vec<OsString>| {
            seen.borrow_mut().push(arguments.len());
            if arguments.len() > 2 { Ok(()) } else { Err(Failure::Usage("no".into())) }
        };
        let shell = Shell { program: "g", tree: &tree, at: Vec::new(), does: &does };
        assert!(shell.line("user ls").is_ok_and(|next| next == Next::Line));
        assert!(shell.line("user").is_err() && shell.line("serve --data x").is_err());
        assert!(shell.line("worker --data x --masters m").is_err() && shell.line("worker").is_err());
        assert!(shell.line("worker pool ls").is_ok_and(|next| next == Next::Line));
        assert!(shell.line(" exit ").is_ok_and(|next| next == Next::End));
        assert_eq!(*seen.borrow(), [3, 2, 4], "what is left out is not done");
    }

    #[test]
    fn help_has_what_can_be_done() {
        let help = help(&tree());
        assert!(help.contains("user") && help.contains("exit") && !help.contains("serve"), "{help}");
        assert!(help.contains("worker"), "{help}");
        let worker = offered(&tree()).find(|command| command.get_name() == "worker").unwrap();
        assert!(worker.get_arguments().next().is_none() && worker.find_subcommand("pool").is_some());
    }
}
