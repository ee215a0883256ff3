//! `app`: apps that users bring, kept in the cluster by name and version; and the files that a submission brings along.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command};
use gristmill_engine::control::limits;
use gristmill_engine::registry::{Entry, Files};
use gristmill_proto::v1 as api;
use gristmill_proto::v1::apps_client::AppsClient;
use gristmill_proto::v1::put_request::Part;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tonic::transport::Channel;

use super::super::failure::Failure;
use super::super::sizes::{Size, counted};
use super::super::{say, stdout};
use super::ask::{WITHIN, answered_within, block_on, channel, format, output, table};
use super::at::At;
use super::data::date;
use crate::cluster::answer;
use crate::cluster::data::PIECE;

/// How long one file may take on its way.
const SENT_WITHIN: std::time::Duration = std::time::Duration::from_secs(600);

pub(super) fn command(program: &str) -> Command {
    let name = |help: &'static str| Arg::new("name").value_name("NAME").required(true).help(help);
    let push = Command::new("push")
        .about("Keep an app in the cluster, as a new version of its name")
        .long_about(
            "Keep an app in the cluster, as a new version of its name\n\n\
             A .wasm file is an app by itself, and so is a .py file with map and perhaps reduce. For anything else say after -- \
             what runs it, with its flags, in which files go by their last names. What is the same as the newest version is no \
             new one.",
        )
        .arg(name("What jobs call it"))
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .num_args(1..)
                .value_parser(clap::value_parser!(PathBuf))
                .help("The app, and files and folders that it needs"),
        )
        .arg(
            Arg::new("flags")
                .value_name("KIND FLAGS")
                .last(true)
                .num_args(1..)
                .allow_hyphen_values(true)
                .help("What runs it (streaming, python, wasm), and its flags"),
        )
        .after_help(format!(
            "Examples:\n  {program} app push words words.py\n  \
             {program} app push clicks map.py reduce.py -- streaming -mapper map.py -reducer reduce.py\n  \
             {program} submit words books/ -o out/words"
        ));
    let ls = Command::new("ls").about("List apps, the newest version of each").arg(output());
    let show =
        Command::new("show").about("Show the versions of an app").arg(name("NAME, or NAME@VERSION")).arg(output());
    let rm = Command::new("rm")
        .about("Forget an app; jobs that run are not touched")
        .arg(name("NAME for all versions, or NAME@VERSION"));
    Command::new("app")
        .about("Keep apps in the cluster: scripts, Python functions, WebAssembly")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(push)
        .subcommand(ls)
        .subcommand(show)
        .subcommand(rm)
        .after_help(format!("Example:\n  {program} app push words words.py"))
}

pub(super) fn run(program: &str, here: &[Entry], of: &ArgMatches) -> Result<(), Failure> {
    let Some((what, of)) = of.subcommand() else { return Ok(()) };
    let channel = channel(of)?;
    match what {
        "push" => push(program, here, channel, of),
        "ls" => ls(channel, of),
        "show" => show(channel, of),
        _ => rm(program, channel, of),
    }
}

/// A name, and the version where one is said.
fn version_of(text: &str) -> Result<(String, u32), Failure> {
    match text.split_once('@') {
        None => Ok((text.into(), 0)),
        Some((name, version)) => match version.parse() {
            Ok(version) if version > 0 => Ok((name.into(), version)),
            _ => Err(Failure::Usage(format!("'{version}' is no version; they are 1 and up, as in {name}@1"))),
        },
    }
}

fn named(of: &ArgMatches) -> Result<(String, u32), Failure> {
    version_of(of.get_one::<String>("name").map_or("", String::as_str))
}

/// A file on its way into the cluster.
pub(super) struct Source {
    /// What the app's flags call it.
    name: String,
    path: PathBuf,
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |source| Failure::File { action, path: path.into(), source }
}

/// The files that a name in an app's flags stands for: itself, or all below it.
fn sources(path: &Path, name: &str, all: &mut Vec<Source>) -> Result<(), Failure> {
    let meta = fs::metadata(path).map_err(failed("look up", path))?;
    if !meta.is_dir() {
        all.push(Source { name: name.into(), path: path.into() });
        return Ok(());
    }
    let entries = fs::read_dir(path).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries = entries.map_err(failed("list", path))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let own = entry.file_name().into_string();
        let own = own.map_err(|_| Failure::Usage(format!("the name of {} is not UTF-8", entry.path().display())))?;
        // Links to folders may lead in circles: they are passed over. Those to files are files.
        if entry.path().is_dir() && entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            continue;
        }
        sources(&entry.path(), &format!("{}/{own}", name.trim_end_matches('/')), all)?;
    }
    if all.len() > limits::FILES {
        let most = limits::FILES;
        return Err(Failure::Usage(format!("{} has more than {most} files; pack them into one", path.display())));
    }
    Ok(())
}

/// Makes sure that the cluster has files, and says what a spec says of them.
fn send(channel: Channel, sources: &[Source]) -> Result<Vec<api::AppFile>, Failure> {
    let mut client = AppsClient::new(channel);
    let mut files = Vec::new();
    for Source { name, path } in sources {
        let bytes = fs::read(path).map_err(failed("read", path))?;
        if bytes.len() as u64 > limits::FILE_BYTES {
            let (size, most) = (Size(bytes.len() as u64), Size(limits::FILE_BYTES));
            return Err(Failure::Usage(format!("{} has {size}; a file of an app has at most {most}", path.display())));
        }
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        files.push(api::AppFile { path: name.clone(), digest: digest.to_vec().into(), bytes: bytes.len() as u64 });
    }
    let digests = files.iter().map(|file| file.digest.clone()).collect();
    let asked = answer::request(api::MissingFilesRequest { digests }, WITHIN);
    let missing = block_on(async { answered_within(WITHIN, client.missing(asked)).await })?.digests;
    for (file, source) in files.iter().zip(sources).filter(|(file, _)| missing.contains(&file.digest)) {
        let bytes = fs::read(&source.path).map_err(failed("read", &source.path))?;
        let name = file.digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let end = api::PutEnd { bytes: bytes.len() as u64, crc32c: crc32c::crc32c(&bytes) };
        let begin = Part::Begin(api::PutBegin { name, overwrite: false });
        let content = bytes.chunks(PIECE).map(|piece| Part::Content(piece.to_vec().into())).collect::<Vec<_>>();
        let parts = std::iter::once(begin).chain(content).chain([Part::End(end)]);
        let messages = tokio_stream::iter(parts.map(|part| api::PutRequest { part: Some(part) }));
        block_on(async { answered_within(SENT_WITHIN, client.put_file(messages)).await })?;
    }
    Ok(files)
}

/// The files that a submission brings: those that its flags name, but for those that are there already.
pub(super) fn bring(
    at: &At,
    (entry, of): (&Entry, &ArgMatches),
    there: Vec<api::AppFile>,
) -> Result<Vec<api::AppFile>, Failure> {
    let below = |name: &str| format!("{}/", name.trim_end_matches('/'));
    let is_there = |name: &String| there.iter().any(|file| file.path == *name || file.path.starts_with(&below(name)));
    let mut found = Vec::new();
    for name in entry.files(of)?.iter().filter(|name| !is_there(name)) {
        sources(Path::new(name), name, &mut found)?;
    }
    let brought = if found.is_empty() { Vec::new() } else { send(at.clone().channel()?, &found)? };
    Ok([there, brought].concat())
}

/// The kind of an app and its flags, from the files and what was said behind --.
fn kind_of(files: &[PathBuf], said: Vec<String>) -> Result<(String, Vec<String>), Failure> {
    let own = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).map(ToString::to_string);
        name.ok_or_else(|| Failure::Usage(format!("{} has no name of its own in UTF-8", path.display())))
    };
    let shipped = |files: &[PathBuf]| -> Result<Vec<String>, Failure> {
        files
            .iter()
            .map(|file| Ok(format!("--{}={}", if file.is_dir() { "files" } else { "file" }, own(file)?)))
            .collect()
    };
    if let Some((kind, flags)) = said.split_first() {
        let ours = if kind == "wasm" { Vec::new() } else { shipped(files)? };
        return Ok((kind.clone(), [ours, flags.to_vec()].concat()));
    }
    let first = own(&files[0])?;
    match Path::new(&first).extension().and_then(|extension| extension.to_str()) {
        Some("wasm") if files.len() == 1 => Ok(("wasm".into(), vec![first])),
        Some("py") => Ok(("python".into(), [shipped(&files[1..])?, vec![first]].concat())),
        _ => {
            let text = "what is to run it is not known: say it behind --, as in -- streaming -mapper map.sh";
            Err(Failure::Usage(text.into()))
        }
    }
}

fn push(program: &str, here: &[Entry], channel: Channel, of: &ArgMatches) -> Result<(), Failure> {
    let name = of.get_one::<String>("name").cloned().unwrap_or_default();
    let files: Vec<PathBuf> = of.get_many::<PathBuf>("file").into_iter().flatten().cloned().collect();
    let said = of.get_many::<String>("flags").into_iter().flatten().cloned().collect();
    let (kind, arguments) = kind_of(&files, said)?;
    #[cfg(feature = "scripts")]
    let arguments = if kind == crate::streaming::NAME {
        let arguments = arguments.into_iter().map(Into::into).collect();
        let two = crate::streaming::arguments::two_dashes(arguments).into_iter();
        two.map(|argument: std::ffi::OsString| argument.to_string_lossy().into_owned()).collect()
    } else {
        arguments
    };
    let brings = ["streaming", "python", "wasm"].contains(&kind.as_str());
    let entry = here.iter().find(|entry| brings && entry.name() == kind);
    let entry = entry.ok_or_else(|| Failure::Usage(format!("'{kind}' runs no apps that are pushed")))?;
    // What is wrong with the flags is told at once, and by the name of each flag.
    let matches = entry.command().no_binary_name(true).try_get_matches_from(&arguments)?;
    entry.job(&matches, Files::Elsewhere)?;
    let mut found = Vec::new();
    for file in &files {
        sources(file, &file.file_name().unwrap_or_default().to_string_lossy(), &mut found)?;
    }
    let has = |named: &String| found.iter().any(|s| s.name == *named || s.name.starts_with(&format!("{named}/")));
    if let Some(missing) = entry.files(&matches)?.iter().find(|named| !has(named)) {
        return Err(Failure::Usage(format!("the flags name {missing}, which is not among the files to push")));
    }
    let files = send(channel.clone(), &found)?;
    let app = Some(api::App { name: kind, arguments, files, ..Default::default() });
    let request = answer::request(api::PushAppRequest { name: name.clone(), app }, WITHIN);
    let mut client = AppsClient::new(channel);
    let done = block_on(async { answered_within(WITHIN, client.push(request)).await })?;
    let version = done.version;
    say(&format!(
        "{program}: {name}@{version} {}",
        if done.existed { "is there already" } else { "is in the cluster" }
    ));
    Ok(())
}

/// Versions of an app, or of all.
fn list(channel: Channel, name: &str) -> Result<Vec<api::PushedApp>, Failure> {
    let request = answer::request(api::ListAppsRequest { name: name.into() }, WITHIN);
    let mut client = AppsClient::new(channel);
    Ok(block_on(async { answered_within(WITHIN, client.list(request)).await })?.apps)
}

/// The app that was pushed under a name, of that version or the newest; `None` if there is none.
pub(super) fn find(at: At, text: &str) -> Result<Option<api::PushedApp>, Failure> {
    let (name, version) = version_of(text)?;
    match list(at.channel()?, &name) {
        Ok(all) => Ok(all.into_iter().find(|app| version == 0 || app.version == version)),
        Err(Failure::Cluster(_)) => Ok(None),
        Err(e) => Err(e),
    }
}

fn print(of: &ArgMatches, apps: &[api::PushedApp]) -> Result<(), Failure> {
    let called = |app: &api::PushedApp| format!("{}@{}", app.name, app.version);
    stdout::print(match format(of) {
        "json" => {
            let one = |pushed: &api::PushedApp| {
                let app = pushed.app.clone().unwrap_or_default();
                let file = |f: &api::AppFile| {
                    let digest: String = f.digest.iter().map(|byte| format!("{byte:02x}")).collect();
                    json!({"path": f.path, "bytes": f.bytes, "sha256": digest})
                };
                let files: Vec<_> = app.files.iter().map(file).collect();
                json!({
                    "name": pushed.name, "version": pushed.version, "kind": app.name, "arguments": app.arguments,
                    "files": files, "pushed_ms": pushed.pushed_ms,
                })
            };
            serde_json::Value::from(apps.iter().map(one).collect::<Vec<_>>()).to_string() + "\n"
        }
        "name" => apps.iter().map(|app| called(app) + "\n").collect(),
        _ => {
            let mut rows = vec![["NAME", "KIND", "SIZE", "PUSHED", "FLAGS"].map(String::from).to_vec()];
            rows.extend(apps.iter().map(|pushed| {
                let app = pushed.app.clone().unwrap_or_default();
                let size = Size(app.files.iter().map(|file| file.bytes).sum());
                vec![called(pushed), app.name, size.to_string(), date(pushed.pushed_ms), app.arguments.join(" ")]
            }));
            table(&rows)
        }
    })
}

fn ls(channel: Channel, of: &ArgMatches) -> Result<(), Failure> {
    let mut apps = list(channel, "")?;
    apps.dedup_by(|next, kept| next.name == kept.name);
    print(of, &apps)
}

fn show(channel: Channel, of: &ArgMatches) -> Result<(), Failure> {
    let (name, version) = named(of)?;
    let mut apps = list(channel, &name)?;
    apps.retain(|app| version == 0 || app.version == version);
    if apps.is_empty() {
        return Err(Failure::Cluster(format!("no app was pushed as {name}@{version}")));
    }
    print(of, &apps)
}

fn rm(program: &str, channel: Channel, of: &ArgMatches) -> Result<(), Failure> {
    let (name, version) = named(of)?;
    let request = answer::request(api::RemoveAppRequest { name: name.clone(), version }, SENT_WITHIN);
    let mut client = AppsClient::new(channel);
    let done = block_on(async { answered_within(SENT_WITHIN, client.remove(request)).await })?;
    say(&format!("{program}: {} of {name} removed", counted(done.versions.into(), "version")));
    Ok(())
}
