//! `data`: the files of a cluster's store. `transfer` moves them between this machine and the store, `fetch` brings them
//! from the web.

#[cfg(feature = "objects")]
mod fetch;
mod transfer;

pub(super) use transfer::{each_piece, walk};

use clap::{Arg, ArgAction, ArgMatches, Command};
use gristmill_proto::v1 as api;
use gristmill_proto::v1::data_client::DataClient;
use serde_json::{Value, json};

use super::super::failure::Failure;
use super::super::sizes::{Size, counted};
use super::super::{say, stdout};
use super::ask::{answered_within, block_on, channel, format, output, table};
use super::bearer::Client;
use crate::cluster::answer;

/// How long a listing's page may take, and how long a removal.
const LISTED_WITHIN: std::time::Duration = std::time::Duration::from_secs(60);
const REMOVED_WITHIN: std::time::Duration = std::time::Duration::from_secs(3600);

fn overwrite() -> Arg {
    Arg::new("overwrite").long("overwrite").action(ArgAction::SetTrue).help("Replace files that are there already")
}

fn sources(name: &'static str, help: &'static str) -> Arg {
    Arg::new("source").value_name(name).required(true).num_args(1..).help(help)
}

pub(super) fn command(program: &str) -> Command {
    let ls = Command::new("ls")
        .about("List files")
        .arg(Arg::new("pattern").value_name("PATTERN").help(
            "A file, a folder, or a glob: * and ? stay within a part of a name, ** does not; by default everything",
        ))
        .arg(output())
        .after_help(format!("Example:\n  {program} data ls 'books/*.txt' -o wide"));
    let dest = |help: &'static str| Arg::new("dest").value_name("DEST").required(true).help(help);
    let put = Command::new("put")
        .about("Store files, and folders with all that is below them")
        .long_about(
            "Store files, and folders with all that is below them\n\n\
             Each file appears whole or not at all, and is checked on its way. Files that are there already are left \
             alone and told of, unless --overwrite is given.",
        )
        .arg(sources("FILE", "Files and folders of this machine, or - for standard input"))
        .arg(dest("The name in the store; with a / at its end, or of several files, the folder that they go to"))
        .arg(overwrite())
        .after_help(format!("Examples:\n  {program} data put books/ in/books\n  sort x | {program} data put - in/x"));
    let get = Command::new("get")
        .about("Bring files here")
        .arg(sources("PATTERN", "Files, folders or globs in the store"))
        .arg(dest("The file or folder of this machine to write to, or - for standard output"))
        .arg(overwrite())
        .after_help(format!("Examples:\n  {program} data get out/words/ words\n  {program} data get in/x -"));
    let recursive = Arg::new("recursive").long("recursive").short('r').action(ArgAction::SetTrue);
    let rm = Command::new("rm")
        .about("Remove files")
        .arg(sources("NAME", "Files in the store, with -r folders too"))
        .arg(recursive.help("Remove folders with all that is below them"))
        .after_help(format!("Example:\n  {program} data rm -r out/words"));
    let data = Command::new("data")
        .about("List, store, bring and remove the files of a cluster's store")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(ls)
        .subcommand(put)
        .subcommand(get)
        .subcommand(rm)
        .after_help(format!("Example:\n  {program} data put books/ in/books"));
    #[cfg(feature = "objects")]
    let data = data.subcommand(fetch::command(program, overwrite()));
    data
}

pub(super) fn run(program: &str, of: &ArgMatches) -> Result<(), Failure> {
    let Some((what, of)) = of.subcommand() else { return Ok(()) };
    let client = DataClient::new(channel(of)?);
    match what {
        "ls" => ls(client, of),
        "put" => transfer::put(program, client, of),
        "get" => transfer::get(program, client, of),
        #[cfg(feature = "objects")]
        "fetch" => fetch::fetch(program, client, of),
        _ => rm(program, client, of),
    }
}

/// The values of an argument.
fn values(of: &ArgMatches, name: &str) -> Vec<String> {
    of.get_many::<String>(name).into_iter().flatten().cloned().collect()
}

/// A page of the files that a pattern names, and the token of the next one.
async fn page(
    client: &mut DataClient<Client>,
    pattern: &str,
    page_token: String,
) -> Result<(Vec<api::FileInfo>, Option<String>), Failure> {
    let request = api::ListDataRequest { pattern: pattern.into(), page_size: 1000, page_token };
    let request = answer::request(request, LISTED_WITHIN);
    let page = answered_within(LISTED_WITHIN, client.list(request)).await?;
    Ok((page.files, Some(page.next_page_token).filter(|token| !token.is_empty())))
}

/// All files that a pattern names.
pub(super) async fn list(client: &mut DataClient<Client>, pattern: &str) -> Result<Vec<api::FileInfo>, Failure> {
    let (mut all, mut next) = (Vec::new(), Some(String::new()));
    while let Some(token) = next {
        let (files, then) = page(client, pattern, token).await?;
        all.extend(files);
        next = then;
    }
    Ok(all)
}

fn ls(mut client: DataClient<Client>, of: &ArgMatches) -> Result<(), Failure> {
    let pattern = of.get_one::<String>("pattern").cloned().unwrap_or_default();
    let files = block_on(async { list(&mut client, &pattern).await })?;
    if files.is_empty() && !pattern.is_empty() {
        return Err(none(&pattern));
    }
    stdout::print(match format(of) {
        "json" => {
            let file = |f: &api::FileInfo| json!({"name": f.name, "bytes": f.bytes, "modified_ms": f.modified_ms});
            Value::from(files.iter().map(file).collect::<Vec<_>>()).to_string() + "\n"
        }
        "name" => files.iter().map(|file| file.name.clone() + "\n").collect(),
        format => {
            let wide = format == "wide";
            let mut rows = vec![vec!["NAME".to_string(), if wide { "BYTES" } else { "SIZE" }.into()]];
            rows[0].extend(wide.then(|| "MODIFIED".into()));
            rows.extend(files.iter().map(|file| {
                let size = if wide { file.bytes.to_string() } else { Size(file.bytes).to_string() };
                let mut row = vec![file.name.clone(), size];
                row.extend(wide.then(|| date(file.modified_ms)));
                row
            }));
            table(&rows)
        }
    })
}

fn none(pattern: &str) -> Failure {
    Failure::Cluster(format!("no file in the store is called {pattern}"))
}

fn rm(program: &str, mut client: DataClient<Client>, of: &ArgMatches) -> Result<(), Failure> {
    let mut files = 0;
    for name in values(of, "source") {
        let request = api::RemoveDataRequest { name, recursive: of.get_flag("recursive") };
        let request = answer::request(request, REMOVED_WITHIN);
        files += block_on(async { answered_within(REMOVED_WITHIN, client.remove(request)).await })?.files;
    }
    say(&format!("{program}: removed {}", counted(files, "file")));
    Ok(())
}

/// A time in milliseconds since 1970 as a date of UTC; nothing for 0.
pub(super) fn date(ms: u64) -> String {
    if ms == 0 {
        return String::new();
    }
    let (days, seconds) = (ms / 86_400_000, ms / 1000 % 86_400);
    // Years from March on, of 400 years a period.
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, if shifted < 10 { shifted + 3 } else { shifted - 9 });
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {h:02}:{m:02}:{s:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (ms, want) in [
            (0, ""),
            (1, "1970-01-01 00:00:00"),
            (951_827_696_000, "2000-02-29 12:34:56"),
            (1_795_651_199_999, "2026-11-25 23:59:59"),
            (4_107_542_400_000, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(date(ms), want);
        }
    }
}
