//! `context`: names for clusters, kept in a file of the user's, as kubectl keeps them.
//!
//! The file is JSON: the name of the current context and all contexts by name. It is GRISTMILL_CONFIG, or
//! gristmill/config.json in XDG_CONFIG_HOME or ~/.config.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

use clap::{Arg, ArgAction, ArgMatches, Args as _, Command, FromArgMatches as _};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::super::failure::Failure;
use super::super::stdout;
use super::ask::{output, table};
use super::at::{Secured, Target};

/// The variable that says where the file is.
const VARIABLE: &str = "GRISTMILL_CONFIG";

/// All contexts.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    contexts: BTreeMap<String, Target>,
    #[serde(skip)]
    path: PathBuf,
}

/// Where the file is.
pub(super) fn path() -> Result<PathBuf, Failure> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME").map(|home| home.join(".config"));
    let folder = || set("XDG_CONFIG_HOME").or_else(home).map(|folder| folder.join("gristmill/config.json"));
    let none = || Failure::Usage(format!("there is no home folder for contexts; say where they are with {VARIABLE}"));
    set(VARIABLE).or_else(folder).ok_or_else(none)
}

impl Contexts {
    /// The file's; none if there is no file.
    pub(super) fn load() -> Result<Self, Failure> {
        let path = path()?;
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self { path, ..Self::default() }),
            Err(source) => return Err(Failure::File { action: "read", path, source }),
        };
        let wrong = |e| Failure::Usage(format!("{} holds no contexts: {e}; repair or remove it", path.display()));
        let read: Self = serde_json::from_slice(&text).map_err(wrong)?;
        Ok(Self { path, ..read })
    }

    /// Whole or not at all, and readable for its owner alone.
    fn store(&self) -> Result<(), Failure> {
        let write = || {
            let folder = self.path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
            fs::create_dir_all(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.write_all(b"\n")?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            Ok(())
        };
        write().map_err(|source| Failure::File { action: "write", path: self.path.clone(), source })
    }

    /// One by its name.
    pub(super) fn get(&self, name: &str) -> Result<Target, Failure> {
        self.contexts.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
            let known =
                if known.is_empty() { "there are none".into() } else { format!("there are: {}", known.join(", ")) };
            Failure::Usage(format!("there is no context '{name}'; {known}"))
        })
    }

    /// The one that counts when nothing is said.
    pub(super) fn current(&self) -> Result<Option<Target>, Failure> {
        self.current.as_deref().map(|name| self.get(name)).transpose()
    }
}

pub(super) fn command(program: &str) -> Command {
    let name = || Arg::new("name").value_name("NAME").required(true);
    let add = Command::new("add")
        .about("Name a cluster; the first one becomes the current one")
        .arg(name().help("A name for the cluster"))
        .arg(
            Arg::new("address")
                .value_name("ADDRESS")
                .required(true)
                .help("Where any of its masters is, as HOST:PORT or https://HOST:PORT"),
        )
        .arg(Arg::new("use").long("use").action(ArgAction::SetTrue).help("Make it the current one"))
        .after_help(format!(
            "Example:\n  {program} context add prod https://gristmill.example.com:7070 --tls-ca ca.pem"
        ));
    Command::new("context")
        .about("Keep names for clusters")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Secured::augment_args(add))
        .subcommand(
            Command::new("use")
                .about("Make one the current one: commands that do not say where the cluster is go there")
                .arg(name().help("Which"))
                .after_help(format!("Example:\n  {program} context use prod")),
        )
        .subcommand(
            Command::new("ls")
                .visible_alias("list")
                .about("List them")
                .arg(output())
                .after_help(format!("Example:\n  {program} context ls")),
        )
        .subcommand(
            Command::new("rm")
                .about("Forget one")
                .arg(name().help("Which"))
                .after_help(format!("Example:\n  {program} context rm prod")),
        )
        .after_help(format!(
            "Example:\n  {program} context add prod https://gristmill.example.com:7070 --tls-ca ca.pem"
        ))
}

pub(super) fn context(of: &ArgMatches) -> Result<(), Failure> {
    let Some((what, of)) = of.subcommand() else { return Ok(()) };
    let mut contexts = Contexts::load()?;
    let name = || of.get_one::<String>("name").cloned().unwrap_or_default();
    match what {
        "add" => {
            let name = name();
            if name.is_empty() || name.len() > 64 || name.contains(char::is_whitespace) {
                return Err(Failure::Usage("a context's name has 1 to 64 characters and no spaces".into()));
            }
            let mut secured = Secured::from_arg_matches(of)?;
            // The file is read wherever the user is then.
            for file in [&mut secured.tls_ca, &mut secured.tls_cert, &mut secured.tls_key].into_iter().flatten() {
                let source = |source| Failure::File { action: "find", path: file.clone(), source };
                *file = std::path::absolute(&*file).map_err(source)?;
            }
            let at = of.get_one::<String>("address").cloned().unwrap_or_default();
            let target = Target { at, secured };
            // What is wrong is told now.
            let wire = target.secured.wire()?;
            wire.check(target.address()?).map_err(|e| Failure::Usage(e.to_string()))?;
            if contexts.contexts.is_empty() || of.get_flag("use") {
                contexts.current = Some(name.clone());
            }
            contexts.contexts.insert(name, target);
            contexts.store()
        }
        "use" => {
            contexts.get(&name())?;
            contexts.current = Some(name());
            contexts.store()
        }
        "rm" => {
            contexts.get(&name())?;
            contexts.contexts.remove(&name());
            contexts.current.take_if(|current| *current == name());
            contexts.store()
        }
        _ => list(&contexts, of),
    }
}

fn list(contexts: &Contexts, of: &ArgMatches) -> Result<(), Failure> {
    let current = |name: &String| contexts.current.as_ref() == Some(name);
    stdout::print(match of.get_one::<String>("output").map_or("table", String::as_str) {
        "json" => {
            let one =
                |(name, target): (&String, &Target)| json!({"name": name, "current": current(name), "target": target});
            serde_json::Value::from(contexts.contexts.iter().map(one).collect::<Vec<_>>()).to_string() + "\n"
        }
        "name" => contexts.contexts.keys().map(|name| name.clone() + "\n").collect(),
        format => {
            let head = ["CURRENT", "NAME", "ADDRESS", "TLS-CA"];
            let row = |(name, target): (&String, &Target)| {
                let mark = if current(name) { "*" } else { "" };
                let authority = target.secured.tls_ca.as_ref().map(|path| path.display().to_string());
                vec![mark.to_string(), name.clone(), target.at.clone(), authority.unwrap_or_default()]
            };
            let rows = std::iter::once(head.map(String::from).to_vec()).chain(contexts.contexts.iter().map(row));
            let columns = if format == "wide" { 4 } else { 3 };
            table(&rows.map(|row| row.into_iter().take(columns).collect()).collect::<Vec<_>>())
        }
    })
}
