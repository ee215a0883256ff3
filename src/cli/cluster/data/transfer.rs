//! Files from this machine to the store, and back.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use clap::ArgMatches;
use gristmill_engine::error::Error;
use gristmill_engine::store::Name;
use gristmill_proto::v1 as api;
use gristmill_proto::v1::data_client::DataClient;
use gristmill_proto::v1::put_request::Part;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::super::super::failure::Failure;
use super::super::super::sizes::{Size, counted};
use super::super::super::{say, stdout};
use super::super::ask::block_on;
use super::super::bearer::Client;
use super::{list, none, values};
use crate::cluster::data::PIECE;

/// How many bytes of how many have gone: shown on a terminal only.
pub(super) fn bar(total: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::no_length();
    let (template, length) = match total {
        Some(total) => ("{wide_bar} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left", total),
        None => ("{bytes}, {bytes_per_sec}", 0),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_length(length);
    bar
}

/// A file to be stored.
pub(in super::super) struct Source {
    /// None: standard input.
    pub(in super::super) path: Option<PathBuf>,
    pub(in super::super) name: String,
    bytes: u64,
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |source| Failure::File { action, path: path.into(), source }
}

/// The last part of a path.
fn last(path: &Path) -> Result<String, Failure> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    name.ok_or_else(|| Failure::Usage(format!("{} has no name of its own; name the destination", path.display())))
}

/// All files below a folder, with what their names get.
pub(in super::super) fn walk(folder: &Path, name: &str, found: &mut Vec<Source>) -> Result<(), Failure> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries = entries.map_err(file_error("list", folder))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let Ok(own) = entry.file_name().into_string() else {
            return Err(Failure::Usage(format!("the name of {} is not UTF-8: rename it", path.display())));
        };
        let name = if name.is_empty() { own } else { format!("{name}/{own}") };
        // Links to folders may lead in circles: they are passed over. Those to files are files.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, &name, found)?;
            continue;
        }
        let meta = fs::metadata(&path).map_err(file_error("look up", &path))?;
        if meta.is_file() {
            found.push(Source { path: Some(path), name, bytes: meta.len() });
        }
    }
    Ok(())
}

fn to_store(given: &[String], dest: &str) -> Result<Vec<Source>, Failure> {
    let folder = dest.trim_end_matches('/');
    let into = dest.ends_with('/') || given.len() > 1;
    let below = |name: String| if folder.is_empty() { name } else { format!("{folder}/{name}") };
    let mut found = Vec::new();
    for one in given {
        if one == "-" {
            if into {
                return Err(Failure::Usage("standard input has no name of its own; name the destination".into()));
            }
            found.push(Source { path: None, name: folder.into(), bytes: 0 });
            continue;
        }
        let path = Path::new(one);
        let meta = fs::metadata(path).map_err(file_error("look up", path))?;
        let name = if into && !one.ends_with('/') { below(last(path)?) } else { folder.to_string() };
        match meta.is_dir() {
            true => walk(path, &name, &mut found)?,
            false => found.push(Source { path: Some(path.into()), name, bytes: meta.len() }),
        }
    }
    // What is no name is told before anything is sent.
    for source in &found {
        Name::new(source.name.as_str()).map_err(|e| Failure::Usage(e.to_string()))?;
    }
    Ok(found)
}

pub(super) fn put(program: &str, mut client: DataClient<Client>, of: &ArgMatches) -> Result<(), Failure> {
    let dest = of.get_one::<String>("dest").cloned().unwrap_or_default();
    let sources = to_store(&values(of, "source"), &dest)?;
    let known = sources.iter().all(|source| source.path.is_some());
    let bar = bar(known.then(|| sources.iter().map(|source| source.bytes).sum()));
    let (mut files, mut bytes) = (0, 0);
    for source in sources {
        let reader: Box<dyn Read + Send> = match &source.path {
            None => Box::new(io::stdin()),
            Some(path) => Box::new(File::open(path).map_err(file_error("read", path))?),
        };
        let shown = source.path.unwrap_or_else(|| "standard input".into());
        let stored = block_on(store(&mut client, reader, &shown, source.name, of.get_flag("overwrite"), &bar))?;
        (files, bytes) = (files + 1, bytes + stored.bytes);
    }
    bar.finish_and_clear();
    say(&format!("{program}: stored {}, {}", counted(files, "file"), Size(bytes)));
    Ok(())
}

/// Stores one file of the bytes that `reader` gives; `shown` is what it is called in errors.
pub(super) async fn store(
    client: &mut DataClient<Client>,
    reader: Box<dyn Read + Send>,
    shown: &Path,
    name: String,
    overwrite: bool,
    bar: &ProgressBar,
) -> Result<api::FileInfo, Failure> {
    let (send, messages) = mpsc::channel(4);
    let (begin, bar) = (api::PutBegin { name, overwrite }, bar.clone());
    // Reading may wait for ever: it has a thread of its own, which ends with the process.
    let reading = std::thread::spawn(move || read(reader, begin, &send, &bar));
    let stored = client.put(ReceiverStream::new(messages)).await;
    if let Err(status) = &stored
        && !reading.is_finished()
    {
        return Err(told(status));
    }
    let read = reading.join().unwrap_or_else(|_| Err(io::Error::other("the reader panicked")));
    read.map_err(file_error("read", shown))?;
    stored.map(tonic::Response::into_inner).map_err(|status| told(&status))
}

fn told(status: &Status) -> Failure {
    Failure::Cluster(crate::cluster::answer::outcome(status).to_string())
}

/// Sends what a file holds. Ends early, without an error, where nobody takes it any more.
fn read(
    mut reader: impl Read,
    begin: api::PutBegin,
    send: &mpsc::Sender<api::PutRequest>,
    bar: &ProgressBar,
) -> io::Result<()> {
    let tell = |part| send.blocking_send(api::PutRequest { part: Some(part) }).is_ok();
    let (mut end, mut more) = (api::PutEnd::default(), tell(Part::Begin(begin)));
    while more {
        let mut piece = Vec::with_capacity(PIECE);
        let got = reader.by_ref().take(PIECE as u64).read_to_end(&mut piece)?;
        if got == 0 {
            tell(Part::End(end));
            break;
        }
        end.bytes += got as u64;
        end.crc32c = crc32c::crc32c_append(end.crc32c, &piece);
        more = tell(Part::Content(piece.into()));
        bar.inc(got as u64);
    }
    Ok(())
}

/// What a pattern of names is left of a name: what is below the folder that it begins with.
fn relative<'n>(pattern: &str, name: &'n str) -> &'n str {
    let folder = match pattern.find(['*', '?', '[', '{']) {
        Some(at) => pattern[..at].rfind('/').map_or("", |slash| &pattern[..slash]),
        None => pattern.trim_end_matches('/'),
    };
    name.strip_prefix(folder).map_or(name, |rest| rest.trim_start_matches('/'))
}

/// Files of the store, each with the one that it becomes here.
fn to_here(
    pattern: &str,
    dest: &str,
    several: bool,
    found: Vec<api::FileInfo>,
) -> Result<Vec<(api::FileInfo, PathBuf)>, Failure> {
    let dest = Path::new(dest);
    let mut all = Vec::new();
    for file in found {
        // A name that leads elsewhere is none: a cluster is not trusted with this machine.
        let name = Name::new(file.name.as_str()).map_err(|e| Failure::Cluster(e.to_string()))?;
        let own = Path::new(name.as_str());
        let to = match relative(pattern, name.as_str()) {
            "" if several || dest.is_dir() || dest.as_os_str().to_string_lossy().ends_with('/') => {
                dest.join(last(own)?)
            }
            "" => dest.to_path_buf(),
            below => dest.join(below),
        };
        all.push((file, to));
    }
    Ok(all)
}

pub(super) fn get(program: &str, mut client: DataClient<Client>, of: &ArgMatches) -> Result<(), Failure> {
    let (patterns, dest) = (values(of, "source"), of.get_one::<String>("dest").cloned().unwrap_or_default());
    let mut wanted = Vec::new();
    for pattern in &patterns {
        let found = block_on(list(&mut client, pattern))?;
        if found.is_empty() {
            return Err(none(pattern));
        }
        wanted.extend(to_here(pattern, &dest, patterns.len() > 1, found)?);
    }
    let bar = bar(Some(wanted.iter().map(|(file, _)| file.bytes).sum()));
    if dest == "-" {
        let mut out = stdout::open()?;
        for (file, _) in &wanted {
            block_on(bring(&mut client, file, &bar, &mut |piece| {
                out.write_all(piece).map_err(|e| Error::Stdout(e).into())
            }))?;
        }
        bar.finish_and_clear();
        return out.flush().map_err(|e| Error::Stdout(e).into());
    }
    let (files, bytes) = (wanted.len() as u64, wanted.iter().map(|(file, _)| file.bytes).sum());
    for (file, to) in &wanted {
        bring_to(&mut client, file, to, of.get_flag("overwrite"), &bar)?;
    }
    bar.finish_and_clear();
    say(&format!("{program}: brought {}, {}", counted(files, "file"), Size(bytes)));
    Ok(())
}

/// Writes one file here, whole or not at all.
fn bring_to(
    client: &mut DataClient<Client>,
    file: &api::FileInfo,
    to: &Path,
    overwrite: bool,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let exists = || Failure::Output(format!("{} exists; choose another name or pass --overwrite", to.display()));
    if !overwrite && to.symlink_metadata().is_ok() {
        return Err(exists());
    }
    let above = to.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(above).map_err(file_error("create", above))?;
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(".gristmill-").permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    let mut hidden = builder.tempfile_in(above).map_err(file_error("create a file in", above))?;
    block_on(bring(client, file, bar, &mut |piece| hidden.write_all(piece).map_err(file_error("write", to))))?;
    let kept = if overwrite { hidden.persist(to) } else { hidden.persist_noclobber(to) };
    match kept {
        Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Err(exists()),
        kept => kept.map(drop).map_err(|e| file_error("write", to)(e.error)),
    }
}

/// Brings the bytes of a file.
async fn bring(
    client: &mut DataClient<Client>,
    file: &api::FileInfo,
    bar: &ProgressBar,
    each: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let request = api::GetDataRequest { name: file.name.clone(), ..Default::default() };
    let mut pieces = client.get(request).await.map_err(|status| told(&status))?.into_inner();
    let mut got = 0;
    each_piece(&mut pieces, &mut |piece| {
        got += piece.len() as u64;
        bar.inc(piece.len() as u64);
        each(piece)
    })
    .await?;
    match got == file.bytes {
        true => Ok(()),
        false => Err(Failure::Cluster(format!("{} was replaced while it was listed and read; try again", file.name))),
    }
}

/// All pieces of a stream, checked.
pub(in super::super) async fn each_piece(
    pieces: &mut tonic::Streaming<api::Chunk>,
    each: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    while let Some(piece) = pieces.message().await.map_err(|status| told(&status))? {
        if piece.crc32c.is_some_and(|crc32c| crc32c != crc32c::crc32c(&piece.content)) {
            return Err(Failure::Cluster("what arrived is not what was sent; try again".into()));
        }
        each(&piece.content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_here_are_those_below_the_pattern() {
        for (pattern, name, want) in [
            ("a/b", "a/b", ""),
            ("a", "a/b/c", "b/c"),
            ("a/", "a/b", "b"),
            ("a/*.txt", "a/x.txt", "x.txt"),
            ("a/**/x", "a/b/c/x", "b/c/x"),
            ("*", "x", "x"),
            ("", "x/y", "x/y"),
        ] {
            assert_eq!(relative(pattern, name), want, "{pattern} {name}");
        }
        let file = api::FileInfo { name: "../x".into(), ..Default::default() };
        assert!(to_here("*", "d", false, vec![file]).is_err());
    }
}
