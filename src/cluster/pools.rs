//! A master on Kubernetes: what makes pods of workers for it, and jobs that are objects there, while it leads.
//!
//! Nothing is decided here. Pods are `gristmill-k8s`' to make and the engine's to want; what objects ask for is followed by the
//! operator of that crate, and submitted here as one user of the cluster, with that one's rights, files and quota. Which
//! Kubernetes it is follows from the pod that this runs in, or from a kubeconfig file.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use gristmill_engine::control::rights::{ANONYMOUS, Principal, Right, Rights, built_in};
use gristmill_engine::node::env::{Env as _, Note};
use gristmill_engine::node::master::{ApiError, Code as Kind, MasterNode};
use gristmill_engine::node::pods::Pods;
use gristmill_k8s::client;
use gristmill_k8s::operator::{self, Jobs, Refused, Settings};
use gristmill_k8s::pods::{self as launcher, Launcher};
use gristmill_proto::v1 as api;
use gristmill_proto::v1::apps_server::Apps as _;
use tokio::task::JoinHandle;
use tonic::{Code, Request, Status};

use super::apps::Apps;
use super::data::Data;
use super::services::of_api;
use super::world::World;

/// The variable that says how the pod is called that this runs in.
const POD_NAME: &str = "POD_NAME";
/// Before Kubernetes is looked for again.
const AGAIN: Duration = Duration::from_secs(10);

/// What a master does with Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Where its objects are; none: where this pod is, or as the kubeconfig file has it.
    pub namespace: Option<String>,
    /// What names of pods begin with.
    pub prefix: String,
    /// The folder with a file for each pool; none: no pods are made.
    pub pools: Option<PathBuf>,
    /// Whom pods go with.
    pub owner: Option<Owner>,
    /// As whom jobs that are objects are submitted; none: there are none.
    pub operator: Option<String>,
}

/// An object of the same namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// As in "StatefulSet".
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// Why a master cannot do that.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to Kubernetes.
    #[error("cannot make workers or look for jobs: {0}")]
    Client(#[from] client::Error),
    /// Pods cannot be made.
    #[error(transparent)]
    Pods(#[from] launcher::Error),
}

/// Kubernetes, as a master has it.
pub(super) struct Kubernetes {
    namespace: String,
    /// The pod that this runs in.
    pod: Option<String>,
    pods: Option<Arc<dyn Pods>>,
    /// As whom jobs are submitted.
    user: Option<String>,
    world: World,
}

impl Kubernetes {
    /// Finds it. Nothing is asked yet.
    ///
    /// # Errors
    /// That nothing says where it is, or that pods cannot be made as the flags say.
    pub(super) async fn connect(config: Config, world: &World) -> Result<Self, Error> {
        let client = client::connect().await?;
        let namespace = config.namespace.unwrap_or_else(|| client.default_namespace().to_string());
        let pod = std::env::var(POD_NAME).ok().filter(|name| !name.is_empty());
        let options = config.pools.map(|folder| launcher::Options {
            namespace: namespace.clone(),
            prefix: config.prefix,
            folder,
            owner: config.owner.map(|owner| (owner.kind, owner.name)),
            pod: pod.clone(),
        });
        let pods = match options {
            Some(options) => Some(Launcher::new(client, options)? as Arc<dyn Pods>),
            None => None,
        };
        Ok(Self { namespace, pod, pods, user: config.operator, world: world.clone() })
    }

    /// What makes pods, if they are to be made.
    pub(super) fn pods(&self) -> Option<Arc<dyn Pods>> {
        self.pods.clone()
    }

    /// Begins to follow jobs that are objects, whenever the node leads, until the node ends or this is aborted. `None`: it is
    /// not to.
    pub(super) fn operate(
        self,
        node: &MasterNode<World>,
        (files, apps): (&Data, &Apps),
        login: bool,
    ) -> Option<JoinHandle<()>> {
        let user = if login { self.user? } else { self.user.map(|_| ANONYMOUS.to_string())? };
        let desk =
            Desk { node: node.clone(), files: files.clone(), apps: apps.clone(), world: self.world, user, login };
        let settings = Settings { instance: self.pod, ..Settings::default() };
        Some(tokio::spawn(leading(Arc::new(desk), self.namespace, settings)))
    }
}

/// Follows objects in each term that the node leads.
async fn leading(desk: Arc<Desk>, namespace: String, settings: Settings) {
    let mut watch = desk.node.log().watch();
    let mut known = watch.changed().await;
    while let Some(now) = known {
        if !now.here {
            known = watch.changed().await;
            continue;
        }
        let deposed = async {
            loop {
                let next = watch.changed().await;
                if next.as_ref().is_none_or(|next| !next.here || next.term != now.term) {
                    break next;
                }
            }
        };
        // What is not finished then, the next leader does once more.
        known = tokio::select! {
            next = deposed => next,
            () = follow(&desk, &namespace, &settings, now.term) => None,
        };
    }
}

/// Follows objects for as long as this is waited for.
async fn follow(desk: &Arc<Desk>, namespace: &str, settings: &Settings, term: u64) {
    loop {
        // Files by which this node is known to Kubernetes may have come only now.
        match client::connect().await {
            Ok(client) => {
                let (jobs, forever) = (desk.clone() as Arc<dyn Jobs>, std::future::pending());
                let cluster = format!("{:016x}", desk.node.cluster());
                operator::run(client, namespace, jobs, term, Settings { cluster, ..settings.clone() }, forever).await;
            }
            Err(e) => desk.noted(&format!("MapReduceJobs are not followed: {e}")),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Where the operator's jobs are handed in.
struct Desk {
    node: MasterNode<World>,
    files: Data,
    apps: Apps,
    world: World,
    /// As whom.
    user: String,
    /// Whether users must log in; else that one is everybody.
    login: bool,
}

/// An answer of the desk's, when it comes.
type Answer<'s, T> = Pin<Box<dyn Future<Output = Result<T, Refused>> + Send + 's>>;

impl Desk {
    /// Who submits, as that is decided now. Never logged in, and so with nothing of a password's.
    async fn user(&self) -> Result<Principal, Status> {
        if !self.login {
            return Ok(Principal::anonymous());
        }
        let asked = api::ListUsersRequest { name: self.user.clone(), ..Default::default() };
        let found = self.node.users(&asked).await.map_err(of_api)?.users.into_iter().next();
        let missing = |what: &str| {
            let message = format!("jobs of MapReduceJobs are those of user {}, who {what}", self.user);
            let next_step = format!("make that one with `gristmill user add {} --role user`", self.user);
            of_api(ApiError::Refused { code: Kind::Unavailable, message, next_step })
        };
        let user = found.ok_or_else(|| missing("is not there"))?;
        if user.disabled {
            return Err(missing("is disabled"));
        }
        let rights = match built_in(&user.role) {
            Some(rights) => rights,
            None => {
                let roles = self.node.roles().await.map_err(of_api)?.roles;
                let role = roles.into_iter().find(|role| role.name == user.role).unwrap_or_default();
                Rights::of(role.rights.iter().map(String::as_str)).unwrap_or_default()
            }
        };
        Ok(Principal { prefix: user.prefix.as_str().into(), ..Principal::with(&user.name, &user.role, rights) })
    }

    /// Who looks at jobs and cancels them: whoever may change an object's status can name any job in it, so that it is this
    /// user's own jobs alone. Also when that one is gone: objects that are deleted wait for it.
    fn owner(&self) -> Principal {
        Principal::with(&self.user, "", Rights::these(&[Right::JobsRead, Right::JobsCancel]))
    }

    async fn hand_in(&self, key: &str, mut spec: api::JobSpec) -> Result<String, Status> {
        // An app without a version may be another one by now: what was submitted stays.
        if let Some(job) = self.node.job_of_key(&self.owner(), key).await.map_err(of_api)? {
            return Ok(job);
        }
        let who = self.user().await?;
        if let Some(app) = spec.app.take_if(|app| !app.pushed.is_empty()) {
            spec.app = Some(self.pushed(&who, app).await?);
        }
        let quota = self.node.who_am_i(&who).quota.unwrap_or_default();
        self.files.has_room(&who, quota).await?;
        let request = api::SubmitRequest { key: key.into(), spec: Some(spec) };
        Ok(self.node.submit(&who, request).await.map_err(of_api)?.job)
    }

    /// An app that was pushed, with these flags after its own.
    async fn pushed(&self, who: &Principal, app: api::App) -> Result<api::App, Status> {
        let (name, version) = app.pushed.split_once('@').unwrap_or((app.pushed.as_str(), "0"));
        let none = || Status::invalid_argument(format!("{:?} is no app's name and version", app.pushed));
        let version = version.parse::<u32>().map_err(|_| none())?;
        let mut asked =
            Request::new(api::ListAppsRequest { name: name.into(), version, newest: true, ..Default::default() });
        asked.extensions_mut().insert(who.clone());
        let found = self.apps.list(asked).await?.into_inner().apps.into_iter().next();
        let found = found.ok_or_else(|| Status::not_found(format!("no app was pushed as {}", app.pushed)))?;
        let kept = found.app.unwrap_or_default();
        let arguments = kept.arguments.into_iter().chain(app.arguments).collect();
        Ok(api::App { arguments, pushed: format!("{}@{}", found.name, found.version), ..kept })
    }
}

impl Jobs for Desk {
    fn submit<'s>(&'s self, key: &'s str, spec: api::JobSpec, _: &'s operator::Owner) -> Answer<'s, String> {
        Box::pin(async move { self.hand_in(key, spec).await.map_err(|status| refused(&status)) })
    }

    fn find<'s>(&'s self, key: &'s str, _: &'s operator::Owner) -> Answer<'s, Option<String>> {
        Box::pin(async move {
            let found = self.node.job_of_key(&self.owner(), key).await;
            found.map_err(|e| refused(&of_api(e)))
        })
    }

    fn status<'s>(&'s self, job: &'s str) -> Answer<'s, Option<api::JobStatus>> {
        Box::pin(async move {
            match self.node.job(&self.owner(), job).await {
                Ok(status) => Ok(Some(status)),
                Err(ApiError::Refused { code: Kind::NotFound, .. }) => Ok(None),
                Err(e) => Err(refused(&of_api(e))),
            }
        })
    }

    fn cancel<'s>(&'s self, job: &'s str, why: &'s str) -> Answer<'s, ()> {
        Box::pin(async move {
            match self.node.cancel(&self.owner(), job, why.into()).await {
                Ok(_) | Err(ApiError::Refused { code: Kind::NotFound | Kind::State, .. }) => Ok(()),
                Err(e) => Err(refused(&of_api(e))),
            }
        })
    }

    fn noted(&self, line: &str) {
        self.world.note(Note::Trouble { what: line.into() });
    }
}

/// What the operator makes of a refusal: whether the same may be taken another time.
fn refused(status: &Status) -> Refused {
    let (retry, reason) = match status.code() {
        Code::InvalidArgument => (false, "Invalid"),
        Code::NotFound => (false, "NotFound"),
        Code::PermissionDenied | Code::Unauthenticated => (false, "Denied"),
        // Somebody else's output is in the way, for now.
        Code::AlreadyExists => (true, "OutputTaken"),
        Code::ResourceExhausted => (true, "LimitReached"),
        Code::FailedPrecondition => (true, "NotPossibleNow"),
        Code::Aborted => (true, "NotLeading"),
        Code::Unavailable => (true, "Unavailable"),
        _ => (true, "Unknown"),
    };
    Refused { retry, reason: reason.into(), message: status.message().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_by_itself_is_tried_again() {
        let of = |code: Kind| {
            let no = ApiError::Refused { code, message: "what".into(), next_step: "do".into() };
            let refused = refused(&of_api(no));
            assert_eq!(refused.message, "what; do");
            (refused.retry, refused.reason)
        };
        for (code, retry, reason) in [
            (Kind::Invalid, false, "Invalid"),
            (Kind::NotFound, false, "NotFound"),
            (Kind::Denied, false, "Denied"),
            (Kind::Unauthenticated, false, "Denied"),
            (Kind::Conflict, true, "OutputTaken"),
            (Kind::Limit, true, "LimitReached"),
            (Kind::State, true, "NotPossibleNow"),
            (Kind::Unavailable, true, "Unavailable"),
            (Kind::Unknown, true, "Unknown"),
        ] {
            assert_eq!(of(code), (retry, reason.to_string()), "{code:?}");
        }
        let elsewhere = refused(&of_api(ApiError::NotLeader { leader: None }));
        assert!(elsewhere.retry && elsewhere.reason == "NotLeading", "{elsewhere:?}");
    }
}
