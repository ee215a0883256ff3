//! Carrying out a plan: what goes wrong, when, and when it is right again.

use std::sync::Arc;
use std::time::Duration;

use gristmill_raft::model::Faults;
use openraft_rt::AsyncRuntime as _;

use crate::cluster::{Cluster, Machine, calm};
use crate::marks::sometimes;
use crate::net::Weather;
use crate::plan::{Death, DiskFault, Fault, Plan};
use crate::runtime::{NodeId, OUTSIDE, SimRuntime, pause, record, resume, set_drift, spawn_on};
use crate::store::StoreWeather;

/// From a disk's fault that is found out at a start to that start.
const DOWN: Duration = Duration::from_millis(500);
/// For so long an operator asks for a handover.
const HANDOVER: Duration = Duration::from_secs(2);

fn ms(time: u32) -> Duration {
    Duration::from_millis(u64::from(time))
}

/// Does what the plan says, each fault at its time. Done when the time for faults is over; some may still go on.
pub(crate) async fn inflict(cluster: &Arc<Cluster>, plan: &Plan) {
    let begun = crate::runtime::now();
    for timed in &plan.faults {
        let at = begun + ms(timed.at);
        SimRuntime::sleep(at.saturating_sub(crate::runtime::now())).await;
        let (cluster, fault) = (cluster.clone(), timed.fault.clone());
        // Faults go on beside each other.
        drop(spawn_on(OUTSIDE, async move { one(&cluster, fault).await }));
    }
    SimRuntime::sleep((begun + ms(plan.time)).saturating_sub(crate::runtime::now())).await;
}

/// Takes back whatever still goes on: from here on nothing goes wrong.
pub(crate) fn heal(cluster: &Arc<Cluster>) {
    record("all heals");
    cluster.points.disarm();
    cluster.network.set_weather(Weather::default());
    cluster.store.set_weather(StoreWeather::default());
    let nodes: Vec<NodeId> = cluster.machines.iter().map(|machine| machine.node).chain([OUTSIDE]).collect();
    nodes.iter().for_each(|from| nodes.iter().for_each(|to| cluster.network.cut(*from, *to, false)));
    for machine in &cluster.machines {
        machine.fill_scratch(false);
        if let Some(disk) = cluster.disk(machine.node) {
            disk.set_faults(calm());
        }
        set_drift(machine.node, 0);
        resume(machine.node);
        cluster.start(machine.node);
    }
}

fn name(cluster: &Cluster, node: NodeId) -> String {
    cluster.machine(node).address.clone()
}

/// One fault from its beginning to its end.
async fn one(cluster: &Arc<Cluster>, fault: Fault) {
    match fault {
        Fault::Kill { who, death, down } => {
            let Some(node) = cluster.find(who) else { return };
            record(format!("{} dies ({death:?}) for {down} ms", name(cluster, node)));
            cluster.stop(node, death);
            SimRuntime::sleep(ms(down)).await;
            cluster.start(node);
        }
        Fault::KillMasters { death, down } => {
            record(format!("all masters die ({death:?}) for {down} ms"));
            let masters: Vec<NodeId> = cluster.masters().map(|machine| machine.node).collect();
            masters.iter().for_each(|node| cluster.stop(*node, death));
            SimRuntime::sleep(ms(down)).await;
            masters.iter().for_each(|node| cluster.start(*node));
        }
        Fault::KillRack { odd, down } => {
            record(format!("the {} workers lose power for {down} ms", if odd { "odd" } else { "even" }));
            let of_it = |(n, machine): (usize, &Machine)| (n % 2 == usize::from(odd)).then_some(machine.node);
            let workers: Vec<NodeId> = cluster.workers().enumerate().filter_map(of_it).collect();
            workers.iter().for_each(|node| cluster.stop(*node, Death::Power));
            SimRuntime::sleep(ms(down)).await;
            workers.iter().for_each(|node| cluster.start(*node));
        }
        Fault::Point { point, after } => {
            record(format!("whoever is at '{point}' after {after} others dies"));
            cluster.points.arm(&point, after);
        }
        Fault::Pause { who, time } => {
            let Some(node) = cluster.find(who) else { return };
            record(format!("{} stands still for {time} ms", name(cluster, node)));
            pause(node);
            SimRuntime::sleep(ms(time)).await;
            resume(node);
        }
        Fault::Cut { from, to, both, time } => {
            let (Some(from), Some(to)) = (cluster.find(from), cluster.find(to)) else { return };
            let way = if both { "nor back " } else { "" };
            record(format!("nothing gets from {} to {} {way}for {time} ms", name(cluster, from), name(cluster, to)));
            cluster.network.cut(from, to, true);
            if both {
                cluster.network.cut(to, from, true);
            }
            SimRuntime::sleep(ms(time)).await;
            cluster.network.cut(from, to, false);
            cluster.network.cut(to, from, false);
        }
        Fault::Isolate { who, out, into, time } => {
            let Some(node) = cluster.find(who) else { return };
            record(format!("{} is alone for {time} ms (out {out}, into {into})", name(cluster, node)));
            let others: Vec<NodeId> =
                cluster.machines.iter().map(|m| m.node).chain([OUTSIDE]).filter(|other| *other != node).collect();
            let set = |is_cut| {
                for other in &others {
                    if out {
                        cluster.network.cut(node, *other, is_cut);
                    }
                    if into {
                        cluster.network.cut(*other, node, is_cut);
                    }
                }
            };
            set(true);
            SimRuntime::sleep(ms(time)).await;
            set(false);
        }
        Fault::Weather { weather, time } => {
            record(format!("{weather:?} for {time} ms"));
            cluster.network.set_weather(weather);
            SimRuntime::sleep(ms(time)).await;
            cluster.network.set_weather(Weather::default());
        }
        Fault::Store { weather, time } => {
            record(format!("{weather:?} for {time} ms"));
            cluster.store.set_weather(weather);
            SimRuntime::sleep(ms(time)).await;
            cluster.store.set_weather(StoreWeather::default());
        }
        Fault::Drift { who, millionths } => {
            let Some(node) = cluster.find(who) else { return };
            record(format!("the clock of {} runs {millionths} millionths faster", name(cluster, node)));
            set_drift(node, millionths);
        }
        Fault::WallStep { who, by } => {
            let Some(node) = cluster.find(who) else { return };
            record(format!("the clock of the day of {} jumps by {by} ms", name(cluster, node)));
            cluster.machine(node).step_wall(i64::from(by));
        }
        Fault::Disk { master, fault, time } => disk(cluster, master, fault, ms(time)).await,
        Fault::Wipe { who, down } => wipe(cluster, who, down).await,
        Fault::ScratchFull { worker, time } => {
            let Some(node) = cluster.find(crate::plan::Who::W(worker)) else { return };
            record(format!("the scratch of {} is full for {time} ms", name(cluster, node)));
            sometimes("a worker's disk is full");
            cluster.machine(node).fill_scratch(true);
            SimRuntime::sleep(ms(time)).await;
            cluster.machine(node).fill_scratch(false);
        }
        Fault::Transfer => {
            let Some(leader) = cluster.leader() else { return };
            record(format!("{} is asked to hand over", name(cluster, leader)));
            let asked = cluster.network.ask(leader, HANDOVER, |master| async move {
                match master.log().heir() {
                    Some(heir) => {
                        let done = master.log().transfer_leadership(heir.id, HANDOVER).await;
                        if done.is_ok() {
                            sometimes("leadership handed over");
                        }
                        done
                    }
                    None => Ok(()),
                }
            });
            let _ = asked.await;
        }
        Fault::Drain { worker } => {
            let Some(node) = cluster.find(crate::plan::Who::W(worker)) else { return };
            let Some(handle) = cluster.worker(node) else { return };
            record(format!("{} is told to drain", name(cluster, node)));
            crate::runtime::in_node(node, || handle.drain());
        }
    }
}

/// A master's disk. What may make it forget happens to one master at a time: more is more than the cluster promises.
async fn disk(cluster: &Arc<Cluster>, master: u8, fault: DiskFault, time: Duration) {
    let Some(node) = cluster.find(crate::plan::Who::M(master)) else { return };
    let Some(disk) = cluster.disk(node) else { return };
    let forgets = matches!(fault, DiskFault::Rot | DiskFault::RolledBack(_) | DiskFault::Misdirected);
    if forgets && !cluster.may_forget(node) {
        return;
    }
    record(format!("the disk of {}: {fault:?} for {time:?}", name(cluster, node)));
    let faulty = match fault {
        DiskFault::Full => {
            sometimes("a disk of a master is full");
            Faults { capacity_bytes: Some(0), ..calm() }
        }
        DiskFault::Broken => Faults { sync_error: Some(std::io::ErrorKind::Other), ..calm() },
        DiskFault::Slow(up_to) => Faults { sync_max: ms(u32::from(up_to)), ..calm() },
        DiskFault::Rot | DiskFault::RolledBack(_) | DiskFault::Misdirected => {
            cluster.forgetting(node);
            cluster.stop(node, Death::Process);
            match fault {
                DiskFault::RolledBack(barriers) => disk.roll_back(usize::from(barriers)),
                DiskFault::Misdirected => drop(disk.misdirect()),
                _ => drop(disk.rot()),
            }
            SimRuntime::sleep(DOWN).await;
            cluster.start(node);
            cluster.remembers(node).await;
            cluster.forgot_nothing(node);
            return;
        }
    };
    disk.set_faults(faulty);
    SimRuntime::sleep(time).await;
    disk.set_faults(calm());
}

async fn wipe(cluster: &Arc<Cluster>, who: crate::plan::Who, down: u32) {
    let Some(node) = cluster.find(who) else { return };
    if cluster.disk(node).is_none() {
        record(format!("{} loses its disk", name(cluster, node)));
        cluster.stop(node, Death::Power);
        cluster.machine(node).wipe_scratch();
        SimRuntime::sleep(ms(down)).await;
        return cluster.start(node);
    }
    if !cluster.may_forget(node) {
        return;
    }
    cluster.forgetting(node);
    record(format!("{} loses its disk", name(cluster, node)));
    cluster.stop(node, Death::Power);
    SimRuntime::sleep(ms(down)).await;
    cluster.clone().replace(node).await;
    cluster.forgot_nothing(node);
}
