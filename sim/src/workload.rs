//! What users do: each submits one job after the other, looks how it goes, sometimes says so twice, changes its mind or
//! asks a master that does not lead. What they are told goes into the [`Ledger`].
//!
//! Users do as the command line does: a submission has a key and is repeated until its outcome is known. How they are let in
//! is in `session`; what is taken away from them meanwhile, in `administrator`.

mod administrator;
mod session;
mod visit;
mod wish;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gristmill_engine::control::rights::Principal;
use gristmill_engine::node::master::{Code, MasterNode};
use gristmill_engine::store::{Name, Store as _};
use gristmill_proto::v1 as api;
use gristmill_proto::v1::JobState;
use openraft_rt::AsyncRuntime as _;
use rand_pcg::Pcg64Mcg;

use crate::cluster::Cluster;
use crate::marks::sometimes;
use crate::picky;
use crate::random::{Stream, below, stream};
use crate::runtime::{NodeId, OUTSIDE, SimRuntime, now, record, spawn_on};
use crate::world::World;
use session::{Failed, Pass, Question};

pub(crate) use visit::{Revocation, Taken, Visit, Way};
pub(crate) use wish::{Half, Wish};

/// Between looks whether there are users.
const LOOK: Duration = Duration::from_millis(50);

/// What was taken of a user.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) wish: Wish,
    /// Somebody asked for its end.
    pub(crate) cancel_asked: bool,
    /// The last that was heard of it.
    pub(crate) state: JobState,
    /// Why it failed.
    pub(crate) error: String,
    /// All that was said when it had completed.
    pub(crate) completed: Option<Box<api::JobStatus>>,
}

impl From<Wish> for Known {
    fn from(wish: Wish) -> Self {
        let (cancel_asked, state, error, completed) = Default::default();
        Self { wish, cancel_asked, state, error, completed }
    }
}

/// An answer to the question how a job is.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    pub(crate) job: String,
    pub(crate) asked: Duration,
    pub(crate) answered: Duration,
    /// `None`: that there is no such job.
    pub(crate) state: Option<JobState>,
}

/// What users were told.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Jobs that were taken, by id.
    pub(crate) jobs: BTreeMap<String, Known>,
    /// By user and key.
    pub(crate) keys: BTreeMap<(String, String), String>,
    pub(crate) looks: Vec<Look>,
    /// Submissions that were refused, of which an earlier try may have been taken.
    pub(crate) unsure: usize,
    /// What cannot be, seen while it was written down.
    pub(crate) contradictions: Vec<(u8, String)>,
    /// Users who have not got what they wanted yet.
    pub(crate) busy: usize,
    /// The cluster knows its users.
    is_open: bool,
    /// Users who know that they are not let in now.
    shut_out: BTreeSet<String>,
    pub(crate) visits: Vec<Visit>,
    pub(crate) revocations: Vec<Revocation>,
}

/// Users, their inputs and what they know. Clones are the same ones.
#[derive(Clone)]
pub(crate) struct Users {
    cluster: Arc<Cluster>,
    seed: u64,
    pub(crate) inputs: Arc<BTreeMap<String, String>>,
    ledger: Arc<Mutex<Ledger>>,
}

const WORDS: [&str; 24] = [
    "the", "mill", "grinds", "corn", "and", "rye", "for", "bread", "at", "dawn", "while", "water", "turns", "a",
    "wheel", "of", "oak", "stones", "sing", "flour", "falls", "miller", "sleeps", "not",
];

/// Texts: of several tasks, tiny, of one word nearly alone, and empty.
fn texts(seed: u64) -> BTreeMap<String, String> {
    let mut random = stream(seed, Stream::Workload, 0);
    let mut text = |bytes: usize, kinds: u64, own: u64| {
        let mut text = String::with_capacity(bytes + 64);
        while text.len() < bytes {
            for _ in 0..1 + below(&mut random, 8) {
                // The product of two: some words are much more frequent than others.
                let kind = below(&mut random, kinds) * below(&mut random, kinds) / kinds;
                match kind {
                    kind if kind < own => text.push_str(WORDS[kind as usize % WORDS.len()]),
                    kind => text.push_str(&format!("w{kind}")),
                }
                text.push(' ');
            }
            text.push('\n');
        }
        text
    };
    BTreeMap::from([
        ("in/large".to_string(), text(150 << 10, 400, 24)),
        ("in/skewed".to_string(), text(70 << 10, 2, 2)),
        ("in/small".to_string(), text(1 << 10, 40, 24)),
        ("in/tiny".to_string(), "the end\n".to_string()),
        ("in/void".to_string(), String::new()),
    ])
}

impl Users {
    pub(crate) fn new(cluster: Arc<Cluster>, seed: u64) -> Self {
        Self { cluster, seed, inputs: Arc::new(texts(seed)), ledger: Arc::default() }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the inputs into the store.
    pub(crate) async fn put_inputs(&self) {
        for (name, text) in &*self.inputs {
            let name = Name::new(name).expect("a name");
            self.cluster.store.memory().put(&name, Arc::new(text.clone().into_bytes())).await.expect("an empty store");
        }
    }

    /// Begins the work of so many users, of so many jobs each, at any times within `time_ms`.
    pub(crate) fn begin(&self, users: u8, jobs: u8, time_ms: u32) {
        self.ledger().busy = usize::from(users);
        let until = now() + Duration::from_millis(time_ms.into());
        drop(spawn_on(OUTSIDE, administrator::work(self.clone(), users, until)));
        for user in 0..users {
            let users = self.clone();
            drop(spawn_on(OUTSIDE, async move {
                let random = stream(users.seed, Stream::Workload, 1 + u64::from(user));
                let mut user = User::new(&users, user_name(user), random);
                while !users.ledger().is_open {
                    SimRuntime::sleep(LOOK).await;
                }
                for n in 0..jobs {
                    user.pause(u64::from(2 * time_ms) / (u64::from(jobs) + 1)).await;
                    user.job(n).await;
                }
                users.ledger().busy -= 1;
            }));
        }
    }
}

fn user_name(number: u8) -> String {
    format!("user{number}")
}

fn password_of(name: &str) -> String {
    format!("the word of {name}")
}

struct User {
    name: String,
    password: String,
    /// The password may be this one: it was changed, or not.
    other: Option<String>,
    random: Pcg64Mcg,
    /// Who leads, as far as is known.
    hint: Option<NodeId>,
    /// What masters know it by.
    pass: Option<Pass>,
    /// What one who is somebody else may know of it.
    stolen: Option<Pass>,
    users: Users,
}

impl User {
    fn new(users: &Users, name: String, random: Pcg64Mcg) -> Self {
        let (other, hint, pass, stolen) = Default::default();
        Self { password: password_of(&name), name, other, random, hint, pass, stolen, users: users.clone() }
    }

    fn roll(&mut self, n: u64) -> u64 {
        below(&mut self.random, n)
    }

    async fn pause(&mut self, up_to_ms: u64) {
        let ms = 1 + self.roll(up_to_ms);
        SimRuntime::sleep(Duration::from_millis(ms)).await;
    }

    /// Asks for a job, in words that are the same each time, until it is known whether it was taken.
    async fn submit(&mut self, key: &str, wish: &Wish, what: impl Question<api::SubmitResponse>) -> Option<String> {
        let mut is_sure = true;
        loop {
            let after = Duration::from_micros(self.roll(5_000));
            self.users.cluster.submitting(after);
            match self.ask(what.clone()).await {
                Ok(done) => {
                    self.taken(key, &done.job, wish);
                    return Some(done.job);
                }
                Err(Failed::Again) if is_sure && self.roll(20) == 0 => {
                    sometimes("a submission is given up");
                    record(format!("{}: {key} was not taken, and is given up", self.name));
                    return None;
                }
                Err(Failed::Again) => self.pause(300).await,
                Err(Failed::Unknown) => {
                    sometimes("a submission's outcome is not known");
                    is_sure = false;
                    self.pause(300).await;
                }
                Err(Failed::Never(code, why)) => {
                    sometimes("a submission is refused");
                    record(format!("{}: {key} is refused ({code:?}): {why}", self.name));
                    self.users.ledger().unsure += usize::from(!is_sure);
                    return None;
                }
            }
        }
    }

    fn taken(&self, key: &str, job: &str, wish: &Wish) {
        let mut ledger = self.users.ledger();
        let before = ledger.keys.insert((self.name.clone(), key.into()), job.into());
        if before.as_deref() == Some(job) {
            sometimes("a submission comes twice");
        }
        if let Some(before) = before.filter(|before| before != job) {
            let what = format!("one key of {}, {key}, stands for {before} and {job}", self.name);
            ledger.contradictions.push((11, what));
        }
        let of_another = ledger.keys.iter().find(|(of, id)| *id == job && (&of.0, &*of.1) != (&self.name, key));
        if let Some(((user, other), _)) = of_another {
            let what = format!("{job} is the id of {key} of {} and of {other} of {user}", self.name);
            ledger.contradictions.push((11, what));
        }
        ledger.jobs.entry(job.to_string()).or_insert_with(|| wish.clone().into());
        drop(ledger);
        record(format!("{}: {key} is {job}: {wish}", self.name));
    }

    /// How a job is, and which follows it.
    async fn look(&mut self, job: &str) -> Option<(JobState, String)> {
        let asked = now();
        let id = job.to_string();
        let answer = self.ask(move |master: MasterNode<World>, who: Principal| {
            let id = id.clone();
            async move { master.job(&who, &id).await }
        });
        let status = match answer.await {
            Ok(status) => Some(status),
            Err(Failed::Never(Code::NotFound, _)) => None,
            Err(_) => return None,
        };
        self.told(job, asked, status)
    }

    /// Writes down what was said of a job. Gives how it is, and which follows it.
    fn told(&self, job: &str, asked: Duration, status: Option<api::JobStatus>) -> Option<(JobState, String)> {
        let mut ledger = self.users.ledger();
        let answered = now();
        ledger.looks.push(Look { job: job.into(), asked, answered, state: status.as_ref().map(|s| s.state()) });
        let status = status?;
        let (state, next) = (status.state(), status.next.clone());
        let error = status.error.as_ref().map(|e| e.message.clone()).unwrap_or_default();
        if let Some(known) = ledger.jobs.get_mut(job) {
            if error.contains(picky::REASON) {
                sometimes("too many bad records");
            }
            if known.state != state && state >= JobState::Completed {
                record(format!("{job} is {state:?} {error}"));
            }
            (known.state, known.error) = (state, error);
            known.completed = (state == JobState::Completed).then(|| Box::new(status));
        }
        Some((state, next))
    }

    /// Looks at a job until it has ended; perhaps it is cancelled meanwhile. Gives how it ended and which follows it.
    async fn await_end(&mut self, job: &str) -> (JobState, String) {
        let cancels_after = (self.roll(5) == 0).then(|| self.roll(6));
        for round in 0_u64.. {
            self.pause(400).await;
            if let Some((state, next)) = self.look(job).await
                && state >= JobState::Completed
            {
                return (state, next);
            }
            if cancels_after == Some(round) {
                if let Some(known) = self.users.ledger().jobs.get_mut(job) {
                    known.cancel_asked = true;
                }
                let (id, asked) = (job.to_string(), now());
                let answer = self.ask(move |master: MasterNode<World>, who: Principal| {
                    let id = id.clone();
                    async move { master.cancel(&who, &id, "another mind".into()).await }
                });
                if let Ok(status) = answer.await {
                    self.told(job, asked, Some(status));
                }
            }
        }
        unreachable!("rounds do not end")
    }

    /// A job, those that follow it, and another try at one that came to nothing.
    async fn job(&mut self, n: u8) {
        self.pause(1500).await;
        if self.pass.is_some() && self.roll(3) == 0 {
            self.log_out().await;
        }
        let wish = Wish::of(&mut self.random, &self.name, n);
        let key = format!("key{n}");
        let submit = {
            let request = api::SubmitRequest { key: key.clone(), spec: Some(wish.spec()) };
            move |master: MasterNode<World>, who: Principal| {
                let request = request.clone();
                async move { master.submit(&who, request).await }
            }
        };
        let Some(job) = self.submit(&key, &wish, submit.clone()).await else { return };
        if self.roll(4) == 0 {
            // Once more, as if the answer had been lost.
            self.submit(&key, &wish, submit).await;
        }
        let (state, job, wish) = self.follow(job, wish).await;
        if state == JobState::Completed || self.roll(2) == 0 {
            return;
        }
        let key = format!("again{n}");
        let retry = {
            let key = key.clone();
            move |master: MasterNode<World>, who: Principal| {
                let (job, key) = (job.clone(), key.clone());
                async move { master.retry(&who, &job, key).await }
            }
        };
        if let Some(job) = self.submit(&key, &wish, retry).await {
            sometimes("a job is retried");
            self.follow(job, wish).await;
        }
    }

    /// Waits for the end of a job, and of those after it. Gives how the last of them ended.
    async fn follow(&mut self, mut job: String, mut wish: Wish) -> (JobState, String, Wish) {
        loop {
            let (state, next) = self.await_end(&job).await;
            match state {
                JobState::Completed if wish.half == Half::Reduce => sometimes("a job reduces what another mapped"),
                JobState::Completed if wish.skip > 0 => sometimes("bad records are passed over"),
                JobState::Cancelled => sometimes("a job is cancelled"),
                JobState::Failed => sometimes("a job fails"),
                _ => {}
            }
            let Some(then) = wish.then.clone().filter(|_| state == JobState::Completed) else {
                return (state, job, wish);
            };
            let mut ledger = self.users.ledger();
            if next.is_empty() || ledger.jobs.contains_key(&next) {
                ledger.contradictions.push((1, format!("{job} has completed, and '{next}' follows it")));
                return (state, job, wish);
            }
            sometimes("a job follows another");
            record(format!("{next} follows {job}: {then}"));
            ledger.jobs.insert(next.clone(), Known::from((*then).clone()));
            (job, wish) = (next, *then);
        }
    }
}
