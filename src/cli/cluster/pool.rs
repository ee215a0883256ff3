//! `worker pool`, `worker add` and `worker rm`: how many workers there are, where masters make them.
//!
//! They stand below `worker`, which runs one: its flags go with none of these, nor do theirs with it.

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Args as _, Command, value_parser};
use gristmill_proto::v1 as api;
use gristmill_proto::v1::pools_client::PoolsClient;
use serde_json::{Value, json};

use super::super::failure::Failure;
use super::super::{durations, stdout};
use super::ask::{WITHIN, answered, block_on, channel, format, output, table};
use super::at::At;
use crate::cluster::answer;

/// Most workers of a pool, and that are added at once.
const MOST: i64 = 10_000;
const AT_ONCE: i64 = 1_000;
/// The names of these commands, as the shell asks.
pub(super) const NAMES: [&str; 3] = ["pool", "add", "rm"];

/// Adds them to the command that runs a worker.
pub(super) fn beside(program: &str, worker: Command) -> Command {
    let ours = [pool(program), add(program), rm(program)].map(At::augment_args);
    worker.args_conflicts_with_subcommands(true).subcommand_negates_reqs(true).subcommands(ours)
}

fn named(id: &'static str, shown: &'static str, help: &'static str) -> Arg {
    Arg::new(id).value_name(shown).required(true).help(help)
}

fn count(id: &'static str, help: &'static str) -> Arg {
    Arg::new(id).long(id).value_name("N").value_parser(value_parser!(u32).range(0..=MOST)).help(help)
}

fn pool(program: &str) -> Command {
    let ls = Command::new("ls")
        .visible_alias("list")
        .about("List pools, and what is wrong with them")
        .arg(output())
        .after_help(format!("Example:\n  {program} worker pool ls -o wide"));
    let idle = Arg::new("idle").long("idle").value_name("TIME").value_parser(durations::seconds);
    let reset = Arg::new("reset").long("reset").action(ArgAction::SetTrue);
    let set = Command::new("set")
        .about("Decide how many workers a pool has, in place of what its file says")
        .arg(named("pool", "POOL", "The pool, as pool ls shows it"))
        .arg(count("min", "How many workers there are always"))
        .arg(count("max", "How many there are at most"))
        .arg(idle.help("An idle worker beyond the least is drained after so long, as 90s, 5m or 1h"))
        .arg(reset.help("First forget what was set before: what the pool's file says holds again"))
        .group(ArgGroup::new("what").args(["min", "max", "idle", "reset"]).multiple(true).required(true))
        .after_help(format!(
            "Examples:\n  {program} worker pool set big --min 10 --max 100 --idle 30m\n  {program} worker pool set big --reset"
        ));
    Command::new("pool")
        .about("Look at pools of workers that masters make, and change them")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(ls)
        .subcommand(set)
        .after_help(format!("Example:\n  {program} worker pool ls"))
}

fn add(program: &str) -> Command {
    let many = Arg::new("count").long("count").short('n').value_name("N").default_value("1");
    Command::new("add")
        .about("Add workers to a pool, which stay when they are idle")
        .arg(named("pool", "POOL", "The pool, as pool ls shows it"))
        .arg(many.value_parser(value_parser!(u32).range(1..=AT_ONCE)).help("How many"))
        .after_help(format!("Example:\n  {program} worker add big -n 3"))
}

fn rm(program: &str) -> Command {
    Command::new("rm")
        .about("Drain a worker of a pool, and make no other in its place")
        .arg(named("worker", "WORKER", "The worker, as workers shows it"))
        .after_help(format!("Example:\n  {program} worker rm gristmill-big-1-0"))
}

/// Does one of them; `None`: a worker is to be run.
pub(super) fn command(of: &ArgMatches) -> Option<Result<(), Failure>> {
    let (what, of) = of.subcommand()?;
    Some(match what {
        "add" => {
            let count = of.get_one::<u32>("count").copied().unwrap_or(1);
            let add = api::AddWorkersRequest { pool: text(of, "pool"), count };
            changed(of, async |mut client| answered(client.add(answer::request(add, WITHIN))).await)
        }
        "rm" => {
            let remove = api::RemoveWorkerRequest { worker: text(of, "worker") };
            changed(of, async |mut client| answered(client.remove(answer::request(remove, WITHIN))).await)
        }
        _ => match of.subcommand() {
            Some(("set", of)) => {
                let set = asked(of);
                changed(of, async |mut client| answered(client.set(answer::request(set, WITHIN))).await)
            }
            Some((_, of)) => list(of),
            None => Ok(()),
        },
    })
}

type Client = PoolsClient<super::bearer::Client>;

fn text(of: &ArgMatches, id: &str) -> String {
    of.get_one::<String>(id).cloned().unwrap_or_default()
}

/// What is to be set.
fn asked(of: &ArgMatches) -> api::SetPoolRequest {
    api::SetPoolRequest {
        name: text(of, "pool"),
        min: of.get_one::<u32>("min").copied(),
        max: of.get_one::<u32>("max").copied(),
        idle_ms: of.get_one::<u64>("idle").map(|seconds| seconds.saturating_mul(1000)),
        reset: of.get_flag("reset"),
    }
}

/// Asks for a change, and says how the pool is to be from now on.
fn changed(of: &ArgMatches, ask: impl AsyncFnOnce(Client) -> Result<api::Pool, Failure>) -> Result<(), Failure> {
    let client = PoolsClient::new(channel(of)?);
    let pool = block_on(ask(client))?;
    let idle = durations::told(pool.idle_ms);
    stdout::print(format!("{} has {} to {} workers, idle ones end after {idle}\n", pool.name, pool.min, pool.max))
}

fn list(of: &ArgMatches) -> Result<(), Failure> {
    let mut client = PoolsClient::new(channel(of)?);
    let found = block_on(async { answered(client.list(answer::request(api::ListPoolsRequest {}, WITHIN))).await })?;
    stdout::print(listed(&found.pools, format(of)))
}

fn as_json(pool: &api::Pool) -> Value {
    json!({
        "name": pool.name, "min": pool.min, "max": pool.max, "idle_ms": pool.idle_ms, "set": pool.set,
        "wanted": pool.wanted, "pending": pool.pending, "ready": pool.ready, "draining": pool.draining,
        "slots": pool.slots, "capabilities": pool.capabilities, "notices": pool.notices,
    })
}

/// Pools as they are wanted; in tables what is wrong stands below, a line each.
fn listed(pools: &[api::Pool], format: &str) -> String {
    match format {
        "json" => Value::from(pools.iter().map(as_json).collect::<Vec<_>>()).to_string() + "\n",
        "name" => pools.iter().map(|pool| pool.name.clone() + "\n").collect(),
        format => {
            let mut head = vec!["POOL", "MIN", "MAX", "WANTED", "READY", "PENDING", "DRAINING", "IDLE"];
            if format == "wide" {
                head.extend(["SLOTS", "SET", "CAPABILITIES"]);
            }
            let row = |pool: &api::Pool| {
                let counts = [pool.min, pool.max, pool.wanted, pool.ready, pool.pending, pool.draining];
                let mut row = vec![pool.name.clone()];
                row.extend(counts.map(|count| count.to_string()));
                row.push(durations::told(pool.idle_ms));
                if format == "wide" {
                    let set = if pool.set { "yes" } else { "no" };
                    row.extend([pool.slots.to_string(), set.into(), pool.capabilities.join(",")]);
                }
                row
            };
            let head = head.into_iter().map(String::from).collect();
            let rows = table(&std::iter::once(head).chain(pools.iter().map(row)).collect::<Vec<_>>());
            let notices =
                pools.iter().flat_map(|pool| pool.notices.iter().map(|what| format!("{}: {what}\n", pool.name)));
            rows + &notices.collect::<String>()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker() -> Command {
        let data = Arg::new("data").long("data").required(true);
        let tls = Arg::new("tls-ca").long("tls-ca");
        beside("g", Command::new("worker").no_binary_name(true).arg(data).arg(tls))
    }

    #[test]
    fn a_worker_is_run_or_pools_are_changed() {
        worker().debug_assert();
        let read = |line: &str| worker().try_get_matches_from(line.split_whitespace());
        assert!(read("--data d --tls-ca f").unwrap().subcommand().is_none());
        for wrong in [
            "",
            "--tls-ca f",
            "--data d pool ls",
            "pool",
            "pool set",
            "pool set big",
            "pool set big --min -1",
            "pool set big --max 10001",
            "pool set big --idle soon",
            "add",
            "add big -n 0",
            "add big -n 1001",
            "rm",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        for right in ["pool ls --tls-ca f", "add big --at m:1", "rm w --at m:1", "pool --at m:1 ls -o json"] {
            assert!(read(right).is_ok(), "{right}");
        }
        let of = read("pool set big --min 0 --idle 5m").unwrap();
        let (_, of) = of.subcommand().unwrap();
        let set = asked(of.subcommand().unwrap().1);
        assert_eq!(
            (set.name.as_str(), set.min, set.max, set.idle_ms, set.reset),
            ("big", Some(0), None, Some(300_000), false)
        );
        assert!(worker().get_subcommands().map(Command::get_name).eq(NAMES));
    }

    #[test]
    fn what_is_wrong_stands_below_the_table() {
        let pool = |name: &str, notices: &[&str]| api::Pool {
            name: name.into(),
            min: 1,
            max: 10,
            idle_ms: 300_000,
            wanted: 2,
            ready: 1,
            pending: 1,
            slots: 4,
            capabilities: vec!["python".into(), "gpu".into()],
            notices: notices.iter().map(ToString::to_string).collect(),
            ..Default::default()
        };
        let pools = [pool("big", &["1 pod waits: Unschedulable"]), pool("default", &[])];
        let lines = |format: &str| listed(&pools, format).lines().map(String::from).collect::<Vec<_>>();
        assert_eq!(
            lines("table"),
            [
                "POOL     MIN  MAX  WANTED  READY  PENDING  DRAINING  IDLE",
                "big      1    10   2       1      1        0         5m",
                "default  1    10   2       1      1        0         5m",
                "big: 1 pod waits: Unschedulable",
            ]
        );
        assert!(lines("wide")[1].ends_with("5m    4      no   python,gpu"), "{:?}", lines("wide"));
        assert_eq!(lines("name"), ["big", "default"]);
        let told: Value = serde_json::from_str(&listed(&pools, "json")).unwrap();
        assert_eq!(
            (&told[0]["notices"][0], &told[1]["idle_ms"]),
            (&json!("1 pod waits: Unschedulable"), &json!(300_000))
        );
    }
}
