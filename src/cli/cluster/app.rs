//! `app`: apps that users bring, kept in the cluster by name and version; and the files that a submission brings along.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Command};
use gristmill_engine::control::commit::hex;
use gristmill_engine::control::limits;
use gristmill_engine::registry::{Entry, Files};
use gristmill_proto::v1 as api;
use gristmill_proto::v1::apps_client::AppsClient;
use gristmill_proto::v1::put_request::Part;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tonic::{Code, Response};

use super::super::failure::Failure;
use super::super::sizes::{Size, counted};
use super::super::{say, stdout};
use super::ask::{WITHIN, answered_within, block_on, channel, format, output, table};
use super::at::At;
use super::bearer::Client;
use super::data::{date, walk};
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

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |source| Failure::File { action, path: path.into(), source }
}

/// The files, with their names, that a name in an app's flags stands for: itself, or all below it.
fn sources(path: &Path, name: &str, all: &mut Vec<(String, PathBuf)>) -> Result<(), Failure> {
    if !fs::metadata(path).map_err(failed("look up", path))?.is_dir() {
        all.push((name.into(), path.into()));
    } else {
        let mut below = Vec::new();
        walk(path, name.trim_end_matches('/'), &mut below)?;
        all.extend(below.into_iter().filter_map(|file| Some((file.name, file.path?))));
    }
    if all.len() > limits::FILES {
        let most = limits::FILES;
        return Err(Failure::Usage(format!("{} has more than {most} files; pack them into one", path.display())));
    }
    Ok(())
}

/// Makes sure that the cluster has files, and says what a spec says of them.
fn send(channel: Client, sources: &[(String, PathBuf)]) -> Result<Vec<api::AppFile>, Failure> {
    let mut client = AppsClient::new(channel);
    let mut files = Vec::new();
    for (name, path) in sources {
        let bytes = fs::read(path).map_err(failed("read", path))?;
        if bytes.len() as u64 > limits::FILE_BYTES {
            let (size, most) = (Size(bytes.len() as u64), Size(limits::FILE_BYTES));
            return Err(Failure::Usage(format!("{} has {size}; a file of an app has at most {most}", path.display())));
        }
        let digest: [u8; 32] = Sha256::digest(&bytes).into();
        files.push(api::AppFile { path: name.clone(), digest: digest.to_vec().into(), bytes: bytes.len() as u64 });
    }
    let digests = files.iter().map(|file| file.digest.clone()).collect();
    // Those that came long ago are written again.
    let asked = answer::request(api::MissingFilesRequest { digests }, SENT_WITHIN);
    let missing = block_on(async { answered_within(SENT_WITHIN, client.missing(asked)).await })?.digests;
    for (file, (_, path)) in files.iter().zip(sources).filter(|(file, _)| missing.contains(&file.digest)) {
        let bytes = fs::read(path).map_err(failed("read", path))?;
        let name = hex(&file.digest);
        let end = api::PutEnd { bytes: bytes.len() as u64, crc32c: crc32c::crc32c(&bytes) };
        let begin = Part::Begin(api::PutBegin { name, overwrite: false });
        let content = bytes.chunks(PIECE).map(|piece| Part::Content(piece.to_vec().into())).collect::<Vec<_>>();
        let parts = std::iter::once(begin).chain(content).chain([Part::End(end)]);
        let messages = tokio_stream::iter(parts.map(|part| api::PutRequest { part: Some(part) }));
        block_on(async { answered_within(SENT_WITHIN, client.put_file(messages)).await })?;
    }
    Ok(files)
}

/// Whether one of these names is that of the file, or of one below it.
fn is_among(names: &[&str], file: &str) -> bool {
    let below = format!("{}/", file.trim_end_matches('/'));
    names.iter().any(|name| *name == file || name.starts_with(&below))
}

/// The files that a submission brings: those that its flags name, but for those that are there already. All that the flags
/// of a version name are ([`flags_alone`]): no file of this machine is read but those that the user named.
pub(super) fn bring(
    at: &At,
    (entry, of): (&Entry, &ArgMatches),
    there: Vec<api::AppFile>,
) -> Result<Vec<api::AppFile>, Failure> {
    let names: Vec<&str> = there.iter().map(|file| file.path.as_str()).collect();
    let mut found = Vec::new();
    for name in entry.files(of)?.iter().filter(|name| !is_among(&names, name)) {
        sources(Path::new(name), name, &mut found)?;
    }
    // A folder may be named, and a file in it.
    found.sort();
    found.dedup_by(|next, first| next.0 == first.0);
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

/// The flags of an app that is pushed, once they are right by themselves: what runs it knows them, so that no flag of a job is
/// among them, and the files that they name are among these. What is wrong is told by the name of each flag.
pub(super) fn flags_alone(
    here: &[Entry],
    kind: &str,
    flags: Vec<String>,
    files: &[&str],
) -> Result<Vec<String>, Failure> {
    let entry = here.iter().find(|entry| entry.brings_code() && entry.name() == kind);
    let entry = entry.ok_or_else(|| Failure::Usage(format!("'{kind}' runs no apps that are pushed")))?;
    #[cfg(feature = "scripts")]
    let flags = if kind == crate::streaming::NAME {
        let flags = flags.into_iter().map(Into::into).collect();
        let two = crate::streaming::arguments::two_dashes(flags).into_iter();
        two.map(|flag: std::ffi::OsString| flag.to_string_lossy().into_owned()).collect()
    } else {
        flags
    };
    let matches = entry.command().no_binary_name(true).try_get_matches_from(&flags)?;
    entry.job(&matches, Files::Elsewhere)?;
    match entry.files(&matches)?.iter().find(|named| !is_among(files, named)) {
        Some(named) => Err(Failure::Usage(format!("the flags name {named}, which is not among the app's files"))),
        None => Ok(flags),
    }
}

fn push(program: &str, here: &[Entry], channel: Client, of: &ArgMatches) -> Result<(), Failure> {
    let name = of.get_one::<String>("name").cloned().unwrap_or_default();
    let files: Vec<PathBuf> = of.get_many::<PathBuf>("file").into_iter().flatten().cloned().collect();
    let said = of.get_many::<String>("flags").into_iter().flatten().cloned().collect();
    let (kind, flags) = kind_of(&files, said)?;
    let mut found = Vec::new();
    for (n, file) in files.iter().enumerate() {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        if let Some(other) = files[..n].iter().find(|other| other.file_name() == file.file_name()) {
            let (one, two) = (other.display(), file.display());
            return Err(Failure::Usage(format!("{one} and {two} would both be called {name}; rename one of them")));
        }
        sources(file, &name, &mut found)?;
    }
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    let arguments = flags_alone(here, &kind, flags, &names)?;
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

/// All pages of what is asked for.
fn list(channel: Client, mut request: api::ListAppsRequest) -> Result<Vec<api::PushedApp>, Failure> {
    let mut client = AppsClient::new(channel);
    let mut all = Vec::new();
    loop {
        let asked = answer::request(request.clone(), WITHIN);
        let page = block_on(async { answered_within(WITHIN, client.list(asked)).await })?;
        all.extend(page.apps);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(all);
        }
    }
}

/// The app that was pushed under a name, of that version or the newest; `None` if there is none.
pub(super) fn find(at: At, text: &str) -> Result<Option<api::PushedApp>, Failure> {
    let (name, version) = version_of(text)?;
    let request = api::ListAppsRequest { name, version, newest: true, ..Default::default() };
    let mut client = AppsClient::new(at.channel()?);
    let asked = async {
        match client.list(answer::request(request, WITHIN)).await {
            Err(status) if status.code() == Code::NotFound => Ok(Response::new(api::ListAppsResponse::default())),
            found => found,
        }
    };
    let found = block_on(async { answered_within(WITHIN, asked).await })?.apps;
    Ok(found.into_iter().find(|app| version == 0 || app.version == version))
}

fn print(of: &ArgMatches, apps: &[api::PushedApp]) -> Result<(), Failure> {
    let called = |app: &api::PushedApp| format!("{}@{}", app.name, app.version);
    stdout::print(match format(of) {
        "json" => {
            let one = |pushed: &api::PushedApp| {
                let app = pushed.app.clone().unwrap_or_default();
                let file = |f: &api::AppFile| json!({"path": f.path, "bytes": f.bytes, "sha256": hex(&f.digest)});
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

fn ls(channel: Client, of: &ArgMatches) -> Result<(), Failure> {
    print(of, &list(channel, api::ListAppsRequest { newest: true, ..Default::default() })?)
}

fn show(channel: Client, of: &ArgMatches) -> Result<(), Failure> {
    let (name, version) = named(of)?;
    print(of, &list(channel, api::ListAppsRequest { name, version, ..Default::default() })?)
}

fn rm(program: &str, channel: Client, of: &ArgMatches) -> Result<(), Failure> {
    let (name, version) = named(of)?;
    let request = answer::request(api::RemoveAppRequest { name: name.clone(), version }, SENT_WITHIN);
    let mut client = AppsClient::new(channel);
    let done = block_on(async { answered_within(SENT_WITHIN, client.remove(request)).await })?;
    say(&format!("{program}: {} of {name} removed", counted(done.versions.into(), "version")));
    Ok(())
}
