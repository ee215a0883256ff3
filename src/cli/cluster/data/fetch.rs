//! `data fetch`: files of the web into the store. This machine brings them, not a master, which may reach more than the
//! user does. A download that breaks off goes on where it was, if the server can.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, ValueHint, value_parser};
use gristmill_engine::store::Name;
use gristmill_proto::v1::data_client::DataClient;
use indicatif::ProgressBar;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE};
use reqwest::{Client, Response, StatusCode, Url};
use sha2::{Digest as _, Sha256};

use super::super::super::failure::Failure;
use super::super::super::sizes::{Size, counted};
use super::super::super::{say, stdout};
use super::super::ask::block_on;
use super::super::bearer;
use super::{transfer, values};

/// Tries in a row that bring nothing.
const TRIES: u32 = 6;
/// The pause after the first, doubled each time, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// How long a connection may take to open, and the next bytes to come.
const CONNECT: Duration = Duration::from_secs(10);
const SILENCE: Duration = Duration::from_secs(30);
/// Most redirections of one request.
const REDIRECTIONS: usize = 10;

pub(super) fn command(program: &str, overwrite: Arg) -> Command {
    Command::new("fetch")
        .about("Bring files from the web into the store")
        .long_about(
            "Bring files from the web into the store\n\n\
             This machine downloads them, by http or https, and stores each when it is whole and its checksum is right. A \
             download that breaks off is continued a few times.",
        )
        .arg(super::sources("URL", "Where they are: http:// or https://"))
        .arg(
            Arg::new("dest")
                .value_name("DEST")
                .required(true)
                .help("The name in the store; with a / at its end, or of several URLs, the folder that they go to"),
        )
        .arg(Arg::new("sha256").long("sha256").value_name("HEX").value_parser(checksum).help(
            "What the file's SHA-256 must be, in 64 hexadecimal digits; of one URL only",
        ))
        .arg(
            Arg::new("temp")
                .long("temp")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .value_hint(ValueHint::DirPath)
                .help("Where files are while they are not whole; by default the system's folder for such files"),
        )
        .arg(overwrite)
        .after_help(format!(
            "Example:\n  {program} data fetch https://www.gutenberg.org/cache/epub/2701/pg2701.txt in/books/"
        ))
}

fn checksum(text: &str) -> Result<String, String> {
    match text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("a SHA-256 has 64 hexadecimal digits".into()),
    }
}

/// The name in the store of what is at a URL.
fn name_of(url: &Url, dest: &str, several: bool) -> Result<String, Failure> {
    if !several && !dest.ends_with('/') {
        return Ok(dest.into());
    }
    let last = url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
    if last.is_empty() {
        return Err(Failure::Usage(format!("{url} has no name of its own; name the destination")));
    }
    Ok(format!("{}/{last}", dest.trim_end_matches('/')).trim_start_matches('/').into())
}

fn client() -> Result<Client, Failure> {
    // Whoever was first has chosen what TLS is made of.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let agent = concat!("gristmill/", env!("CARGO_PKG_VERSION"));
    let builder = Client::builder().user_agent(agent).connect_timeout(CONNECT).read_timeout(SILENCE);
    let client = builder.redirect(reqwest::redirect::Policy::limited(REDIRECTIONS)).build();
    client.map_err(|e| Failure::System("make a client of the web", io::Error::other(e)))
}

pub(super) fn fetch(program: &str, mut store: DataClient<bearer::Client>, of: &ArgMatches) -> Result<(), Failure> {
    let (given, dest) = (values(of, "source"), of.get_one::<String>("dest").cloned().unwrap_or_default());
    let sha256 = of.get_one::<String>("sha256");
    if sha256.is_some() && given.len() > 1 {
        return Err(Failure::Usage("--sha256 is for one URL; fetch one after the other".into()));
    }
    let mut wanted = Vec::new();
    for one in &given {
        let url = Url::parse(one).map_err(|e| Failure::Usage(format!("'{one}' is no URL: {e}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Failure::Usage(format!("{url}: only http:// and https:// can be fetched")));
        }
        let name = name_of(&url, &dest, given.len() > 1)?;
        Name::new(name.as_str()).map_err(|e| Failure::Usage(e.to_string()))?;
        wanted.push((url, name));
    }
    let temp = of.get_one::<PathBuf>("temp").cloned().unwrap_or_else(std::env::temp_dir);
    let web = client()?;
    let (mut files, mut bytes) = (0, 0);
    for (url, name) in wanted {
        let file = tempfile::tempfile_in(&temp);
        let mut file =
            file.map_err(|source| Failure::File { action: "create a file in", path: temp.clone(), source })?;
        let bar = transfer::bar(None);
        block_on(download(&web, &url, &mut file, &bar))?;
        if let Some(want) = sha256 {
            check(&url, &mut file, want)?;
        }
        bar.finish_and_clear();
        let on_disk = |source| Failure::File { action: "read", path: temp.clone(), source };
        file.rewind().map_err(on_disk)?;
        let length = file.metadata().map_err(on_disk)?.len();
        let bar = transfer::bar(Some(length));
        let overwrite = of.get_flag("overwrite");
        block_on(transfer::store(&mut store, Box::new(file), Path::new(url.as_str()), name.clone(), overwrite, &bar))?;
        bar.finish_and_clear();
        stdout::print(name + "\n")?;
        (files, bytes) = (files + 1, bytes + length);
    }
    say(&format!("{program}: fetched {}, {}", counted(files, "file"), Size(bytes)));
    Ok(())
}

/// Why a try ended.
enum End {
    /// It may go well another time.
    Later(String),
    Never(Failure),
}

fn never(url: &Url, why: impl std::fmt::Display) -> End {
    End::Never(Failure::Output(format!("cannot fetch {url}: {why}")))
}

/// Brings all that is at a URL.
async fn download(web: &Client, url: &Url, file: &mut File, bar: &ProgressBar) -> Result<(), Failure> {
    // What the part that is here is of.
    let mut version = None;
    let (mut tried, mut pause) = (1, PAUSE.0);
    loop {
        let before = length(file)?;
        let why = match attempt(web, url, file, &mut version, bar).await {
            Ok(()) => return Ok(()),
            Err(End::Never(failure)) => return Err(failure),
            Err(End::Later(why)) => why,
        };
        if length(file)? > before {
            (tried, pause) = (1, PAUSE.0);
        }
        if tried >= TRIES {
            return Err(Failure::Output(format!("cannot fetch {url}: {why}; tried {TRIES} times, try again later")));
        }
        tried += 1;
        tokio::time::sleep(pause).await;
        pause = PAUSE.1.min(pause * 2);
    }
}

fn length(file: &File) -> Result<u64, Failure> {
    file.metadata().map(|meta| meta.len()).map_err(|e| Failure::System("look at a file of mine", e))
}

async fn attempt(
    web: &Client,
    url: &Url,
    file: &mut File,
    version: &mut Option<String>,
    bar: &ProgressBar,
) -> Result<(), End> {
    let here = length(file).map_err(End::Never)?;
    let mut request = web.get(url.clone());
    if here > 0
        && let Some(version) = version.as_deref()
    {
        request = request.header(RANGE, format!("bytes={here}-")).header(IF_RANGE, version);
    }
    let later = |e: reqwest::Error| End::Later(words(&e));
    let mut answer = match request.send().await {
        Err(e) if e.is_redirect() || e.is_builder() => return Err(never(url, words(&e))),
        answer => answer.map_err(later)?,
    };
    let disk = |e| End::Never(Failure::System("write a file of mine", e));
    let from = match answer.status() {
        StatusCode::PARTIAL_CONTENT if begins_at(&answer, here) => here,
        StatusCode::OK => 0,
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => {
            // Not what was asked for: from the beginning.
            *version = None;
            file.set_len(0).map_err(disk)?;
            return Err(End::Later(format!("the server cannot go on ({})", answer.status())));
        }
        status if status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429) => {
            return Err(End::Later(format!("the server answered {status}")));
        }
        status => return Err(never(url, format!("the server answered {status}; correct the URL"))),
    };
    file.set_len(from).map_err(disk)?;
    file.seek(io::SeekFrom::Start(from)).map_err(disk)?;
    *version = version_of(answer.headers());
    let length = answer.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    bar.set_position(from);
    while let Some(piece) = answer.chunk().await.map_err(later)? {
        file.write_all(&piece).map_err(disk)?;
        bar.inc(piece.len() as u64);
    }
    let came = self::length(file).map_err(End::Never)? - from;
    match length {
        Some(length) if length != came => Err(End::Later(format!("{came} of {length} bytes came"))),
        _ => Ok(()),
    }
}

/// Whether an answer is what follows `here`.
fn begins_at(answer: &Response, here: u64) -> bool {
    let range = answer.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {here}-")))
}

/// What tells a version from others: a strong tag, else a time.
fn version_of(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(String::from);
    text(ETAG).filter(|tag| !tag.starts_with("W/")).or_else(|| text(LAST_MODIFIED))
}

/// An error with its causes; the URL is told beside.
fn words(e: &reqwest::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(e), |e| (*e).source());
    causes.last().map_or_else(|| e.to_string(), ToString::to_string)
}

fn check(url: &Url, file: &mut File, want: &str) -> Result<(), Failure> {
    let mut hash = || {
        file.rewind()?;
        let (mut digest, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(digest.finalize()),
                n => digest.update(&buffer[..n]),
            }
        }
    };
    let digest = hash().map_err(|e: io::Error| Failure::System("read a file of mine", e))?;
    let is: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    match is == want {
        true => Ok(()),
        false => Err(Failure::Output(format!("{url}: its SHA-256 is {is}, not {want}; nothing was stored"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_what_is_fetched() {
        let url = |text: &str| Url::parse(text).unwrap();
        assert_eq!(name_of(&url("http://x/a/b.txt?q=1"), "in/c", false).unwrap(), "in/c");
        assert_eq!(name_of(&url("http://x/a/b.txt?q=1"), "in/", false).unwrap(), "in/b.txt");
        assert_eq!(name_of(&url("http://x/b"), "in", true).unwrap(), "in/b");
        assert_eq!(name_of(&url("http://x/b"), "/", false).unwrap(), "b");
        assert!(name_of(&url("http://x/"), "in/", false).is_err());
        assert!(checksum(&"0".repeat(64)).is_ok() && checksum("12").is_err() && checksum(&"x".repeat(64)).is_err());
    }
}
