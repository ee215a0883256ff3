//! What went wrong, in one line, and the exit code for it.

use std::error::Error as _;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use gristmill_engine::data::{compress, input};
use gristmill_engine::error::Error;

use super::{say, signals, stdout};

/// The exit codes, for the help.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done; also when whoever reads standard output has left
  1    failed: an input is missing, an output is damaged, a disk is full
  2    the command line is wrong
  3    the job failed on its data: a record, an input's content, a panic of the app
  4    not allowed to read or write a file
  5    the output exists, or is no output of a job and so is not replaced
  130  interrupted (128 + the signal's number: 130 SIGINT, 143 SIGTERM, 129 SIGHUP)";

/// Why a command ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// What the engine says.
    #[error(transparent)]
    Engine(#[from] Error),
    /// What clap says of the arguments. Asking for help is among it.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    /// Arguments that do not go together.
    #[error("{0}")]
    Usage(String),
    /// A file that the engine knows nothing of.
    #[error("cannot {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// A folder to be read back is not a whole output.
    #[error("{0}")]
    Output(String),
    /// The folder of a node of the replicated log is not whole, or can not be looked into.
    #[cfg(feature = "cluster")]
    #[error(transparent)]
    Node(#[from] gristmill_raft::Error),
    /// A node did not do what it was asked for.
    #[cfg(feature = "cluster")]
    #[error(transparent)]
    Admin(#[from] crate::cluster::admin::Error),
    /// A node did not start, or ended.
    #[cfg(feature = "cluster")]
    #[error(transparent)]
    Boot(#[from] crate::cluster::boot::Error),
    /// A cluster did not answer, or answered no.
    #[cfg(feature = "cluster")]
    #[error("the cluster did not do it: {0}")]
    Cluster(String),
    /// Kubernetes is not found, or did not do what it was asked for.
    #[cfg(feature = "kubernetes")]
    #[error("{0}")]
    Kubernetes(String),
    /// A job of a cluster did not complete.
    #[cfg(feature = "cluster")]
    #[error("{message}{}{next_step}", if next_step.is_empty() { "" } else { "; " })]
    Job { message: String, next_step: String },
    /// A signal asked the job to stop. `begun`: a part of the result is on standard output.
    #[error("interrupted; {}", if *begun { "what is on standard output is not the whole result" } else { "nothing was written" })]
    Interrupted { begun: bool },
    /// The system refuses what every job needs.
    #[error("cannot {0}: {1}")]
    System(&'static str, #[source] io::Error),
    /// A panic that is not the app's.
    #[error("internal error: {0}; this is a bug of gristmill, please report it")]
    Bug(String),
}

impl Failure {
    /// Says what is wrong, and gives the exit code.
    pub(crate) fn tell(&self, program: &str) -> ExitCode {
        match self {
            Self::Arguments(e) if is_page(e) => {
                if let Err(failure) = page(e) {
                    return failure.tell(program);
                }
            }
            Self::Engine(e) if e.is_closed_pipe() => {}
            Self::Engine(Error::Code(code)) => {
                // All but the last, which the line has.
                code.words.iter().rev().skip(1).rev().for_each(|word| say(&format!("  {word}")));
                say(&format!("{program}: {}", self.line()));
            }
            _ => say(&format!("{program}: {}", self.line())),
        }
        ExitCode::from(self.code())
    }

    /// The exit code: see [`EXIT_CODES`]. A missing input is no error of usage (2): the same command line is right when
    /// the file is there, and who calls us from a script wants to tell the two apart.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Interrupted { .. } | Self::Engine(Error::Interrupted) => 128 + signals::received().unwrap_or(2),
            Self::Engine(e) if e.is_closed_pipe() => 0,
            Self::Engine(Error::OutputExists(_) | Error::NotAnOutput(_)) => 5,
            _ if self.is_denied() => 4,
            Self::Engine(e) => engine_code(e),
            Self::Arguments(e) => u8::try_from(e.exit_code()).unwrap_or(2),
            Self::Usage(_) => 2,
            Self::File { .. } | Self::Output(_) | Self::System(..) | Self::Bug(_) => 1,
            #[cfg(feature = "cluster")]
            Self::Node(_) | Self::Admin(_) | Self::Boot(_) | Self::Cluster(_) => 1,
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(_) => 1,
            #[cfg(feature = "cluster")]
            Self::Job { .. } => 3,
        }
    }

    fn is_denied(&self) -> bool {
        let denied = |e: &io::Error| e.kind() == io::ErrorKind::PermissionDenied;
        self.causes().filter_map(|e| e.downcast_ref::<io::Error>()).any(denied)
    }

    fn causes(&self) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
        std::iter::successors(self.source(), |e| (*e).source())
    }

    /// The error in one line, with causes that it does not tell itself.
    pub(crate) fn line(&self) -> String {
        match self {
            Self::Arguments(e) => return usage_line(&e.render().to_string()),
            Self::Engine(Error::Read { source, .. }) => {
                // A codec's own words say which file, where, and what to do.
                if let Some(e) = source.get_ref().and_then(|e| e.downcast_ref::<compress::Error>()) {
                    return one_line(&e.to_string());
                }
            }
            _ => {}
        }
        let mut text = self.to_string();
        for cause in self.causes() {
            let cause = cause.to_string();
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
        }
        one_line(&text)
    }
}

fn engine_code(error: &Error) -> u8 {
    match error {
        Error::Usage(_) => 2,
        Error::Input(
            input::Error::Pattern { .. }
            | input::Error::PatternNotUtf8 { .. }
            | input::Error::StdinTwice
            | input::Error::Nameless,
        ) => 2,
        Error::Open { .. }
        | Error::Compressed { .. }
        | Error::Read { .. }
        | Error::Shrank { .. }
        | Error::Ragged { .. } => 3,
        Error::BadRecord { .. } | Error::Panic { .. } | Error::Code(_) | Error::Segment(_) => 3,
        _ => 1,
    }
}

/// Prints a page of help, by clap's own means: it knows whether colours are wanted.
fn page(e: &clap::Error) -> Result<(), Failure> {
    if !e.use_stderr() {
        stdout::check()?;
    }
    let printed = e.print().and_then(|()| io::stdout().flush());
    match printed {
        Err(error) if !e.use_stderr() && error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Stdout(error).into()),
        _ => Ok(()),
    }
}

/// Whether clap's error is a page that was asked for, or is the best answer to a command that is not whole.
fn is_page(e: &clap::Error) -> bool {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    matches!(e.kind(), DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand)
}

/// What clap says in several lines, in one: what is wrong and the hints, without the usage.
fn usage_line(text: &str) -> String {
    let mut out = String::new();
    let mut command = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(usage) = line.strip_prefix("Usage: ") {
            command =
                Some(usage.split_whitespace().take_while(|w| !w.starts_with(['[', '<', '-'])).collect::<Vec<_>>());
            break;
        }
        if line.starts_with("For more information") {
            break;
        }
        // Where nothing but inputs is asked for, an unknown flag is a slip and no value.
        if line.starts_with("tip: to pass '-") && !text.contains("<PATTERN>") {
            continue;
        }
        let line = line.strip_prefix("error: ").unwrap_or(line);
        let joint = match (out.is_empty(), out.ends_with(':')) {
            (true, _) => "",
            (_, true) => " ",
            _ => "; ",
        };
        out = out + joint + line;
    }
    let command = command.map(|words| format!("; see '{} --help'", words.join(" ")));
    one_line(&(out + &command.unwrap_or_default()))
}

/// The text with control characters escaped: names of files may hold any.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clap_says_becomes_one_line() {
        let text = "error: unexpected argument '--fo' found\n\n  tip: a similar argument exists: '--foo'\n\n\
                    Usage: gristmill run top [OPTIONS] [INPUT]...\n\nFor more information, try '--help'.\n";
        let line = "unexpected argument '--fo' found; tip: a similar argument exists: '--foo'; \
                    see 'gristmill run top --help'";
        assert_eq!(usage_line(text), line);
        let text = "error: the following required arguments were not provided:\n  <PATTERN>\n\nUsage: g run x <A>\n";
        assert_eq!(
            usage_line(text),
            "the following required arguments were not provided: <PATTERN>; see 'g run x --help'"
        );
        let text = "error: unexpected argument '-j' found\n\n  tip: to pass '-j' as a value, use '-- -j'\n\n\
                    Usage: g run top [OPTIONS] [INPUT]...\n";
        assert_eq!(usage_line(text), "unexpected argument '-j' found; see 'g run top --help'");
        assert_eq!(usage_line("error: no such shape\n\nFor more information, try '--help'.\n"), "no such shape");
    }

    #[test]
    fn control_characters_stay_out_of_the_terminal() {
        assert_eq!(one_line("a\nb\x1b[2Jé"), "a\\nb\\u{1b}[2Jé");
    }

    #[test]
    fn a_denied_file_is_told_apart_wherever_it_was_met() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let path = PathBuf::from("x");
        let failures: [Failure; 4] = [
            Error::Read { name: "x".into(), offset: 0, source: denied() }.into(),
            Error::Write { action: "write", path: path.clone(), source: denied() }.into(),
            Error::Input(input::Error::Folder { path: path.clone(), source: denied() }).into(),
            Failure::File { action: "read", path, source: denied() },
        ];
        for failure in failures {
            assert_eq!(failure.code(), 4, "{failure:?}");
            assert_eq!(failure.line().matches("denied").count(), 1, "{}", failure.line());
        }
    }
}
