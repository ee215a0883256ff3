//! Looks at an installation and says what is wrong with it, what is not known, and what to do.
//!
//! What is there is asked for here, each thing once; what to think of it is decided in `judge`, without I/O. Nothing is changed.
//! Whoever runs it may have few rights (a master has): what may not be looked at is a warning and no failure.
//!
//! Left out: the cluster itself, which `gristmill status` tells of, and whatever needs pods of its own.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
    SubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::version::Info;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::client::Body;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::client::told;
use crate::crd::{self, MapReduceJob};

mod judge;
mod rights;
mod storage;

/// How long one question may take.
const WITHIN: Duration = Duration::from_secs(10);
/// Objects of one kind that are looked at.
const MOST: u32 = 500;
/// Where masters listen.
const PORT: u16 = 7070;

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where the installation is.
    pub namespace: String,
    /// What it is called: that of its StatefulSet.
    pub name: String,
    /// This runs in a pod of the cluster as a master's service account: names are looked up, and rights are one's own.
    pub in_pod: bool,
}

/// What was found out about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in a word: "version", "rights", "store".
    pub check: &'static str,
    /// How it is.
    pub verdict: Verdict,
    /// One line: what was found.
    pub what: String,
    /// One line: what to do. Empty if there is nothing to do.
    pub next_step: String,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It may do harm, or is not known.
    Warning,
    /// It does not work so.
    Bad,
}

impl Finding {
    fn good(check: &'static str, what: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Good, what: what.into(), next_step: String::new() }
    }

    fn warning(check: &'static str, what: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warning, what: what.into(), next_step: next_step.into() }
    }

    fn bad(check: &'static str, what: impl Into<String>, next_step: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Bad, what: what.into(), next_step: next_step.into() }
    }
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq)]
enum Asked<T> {
    There(T),
    Missing,
    /// One may not ask.
    Forbidden,
    /// There was no answer, for this reason.
    Unknown(String),
}

impl<T> Asked<T> {
    fn there(&self) -> Option<&T> {
        if let Self::There(found) = self { Some(found) } else { None }
    }

    fn map<U>(self, to: impl FnOnce(T) -> U) -> Asked<U> {
        match self {
            Self::There(found) => Asked::There(to(found)),
            Self::Missing => Asked::Missing,
            Self::Forbidden => Asked::Forbidden,
            Self::Unknown(why) => Asked::Unknown(why),
        }
    }

    /// What to say if nothing was found: that it is missing with `missing`, else that it is not known.
    fn or_tell(self, check: &'static str, what: &str, missing: impl FnOnce() -> Finding) -> Result<T, Finding> {
        match self {
            Self::There(found) => Ok(found),
            Self::Missing => Err(missing()),
            Self::Forbidden => {
                let next = "run it as somebody who may look at the namespace to know";
                Err(Finding::warning(check, format!("{what}: not known, this user may not look"), next))
            }
            Self::Unknown(why) => Err(Finding::warning(check, format!("{what}: not known: {why}"), "run it again")),
        }
    }
}

/// Looks at all of it, in the order in which one thing needs the other. If the API server does not answer there is one finding.
pub async fn examine(client: Client, options: &Options) -> Vec<Finding> {
    let version = match ask(client.apiserver_version()).await {
        Asked::There(version) => version,
        Asked::Unknown(why) => return vec![judge::unreachable(&why)],
        Asked::Missing | Asked::Forbidden => return vec![judge::unreachable("it does not tell its version")],
    };
    let look = Look { client, options };
    let mut found = vec![judge::version(&version)];
    found.extend(look.clock().await);
    found.push(judge::rights(&look.rights().await, &options.name));
    found.push(look.definition().await);
    found.push(judge::namespace(look.one_of_all::<Namespace>(&options.namespace).await.map(|one| one.metadata)));
    found.extend(look.volumes().await);
    found.extend(look.services().await);
    if options.in_pod {
        found.push(look.dns().await);
    }
    found.push(look.network().await);
    found.push(judge::masters(look.one::<StatefulSet>(&options.name).await, &options.name));
    found.extend(judge::pods(look.some::<Pod>(&look.ours()).await));
    found.push(judge::quota(look.some::<ResourceQuota>(&ListParams::default()).await));
    found
}

struct Look<'o> {
    client: Client,
    options: &'o Options,
}

/// A kind of objects that are in namespaces.
trait Spaced:
    kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
    + Clone
    + DeserializeOwned
    + std::fmt::Debug
{
}

impl<K> Spaced for K where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug
{
}

impl Look<'_> {
    fn ours(&self) -> ListParams {
        let labels = format!("app.kubernetes.io/name=gristmill,app.kubernetes.io/instance={}", self.options.name);
        ListParams::default().labels(&labels)
    }

    fn api<K: Spaced>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.options.namespace)
    }

    async fn one<K: Spaced>(&self, name: &str) -> Asked<K> {
        ask(self.api::<K>().get(name)).await
    }

    async fn some<K: Spaced>(&self, which: &ListParams) -> Asked<Vec<K>> {
        ask(self.api::<K>().list(&which.clone().limit(MOST))).await.map(|list| list.items)
    }

    async fn one_of_all<K>(&self, name: &str) -> Asked<K>
    where
        K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        ask(Api::<K>::all(self.client.clone()).get(name)).await
    }

    /// The API server's clock and one's own.
    async fn clock(&self) -> Option<Finding> {
        let request = http::Request::get("/version").body(Body::empty()).ok()?;
        let before = Timestamp::now();
        let answer = timeout(WITHIN, self.client.send(request)).await.ok()?.ok()?;
        let after = Timestamp::now();
        let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
        Some(judge::clock(date, before, after))
    }

    /// Which of the rights of the Role there are: of the masters' account, or of whoever asks if that cannot be asked.
    async fn rights(&self) -> judge::Rights {
        let mut rights = judge::Rights { own: self.options.in_pod, all: Vec::new() };
        for right in rights::of_masters() {
            let mut allowed = if rights.own { Asked::Forbidden } else { self.master_may(&right).await };
            if allowed == Asked::Forbidden {
                // From now on: the answer would be the same each time.
                rights.own = true;
                allowed = self.may(&right).await;
            }
            rights.all.push((right, allowed));
        }
        rights
    }

    async fn may(&self, right: &rights::Right) -> Asked<bool> {
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(self.attributes(right)),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { metadata: ObjectMeta::default(), spec, status: None };
        let api: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        ask(api.create(&PostParams::default(), &review)).await.map(|done| done.status.is_some_and(|said| said.allowed))
    }

    async fn master_may(&self, right: &rights::Right) -> Asked<bool> {
        let Options { namespace, name, .. } = self.options;
        let spec = SubjectAccessReviewSpec {
            resource_attributes: Some(self.attributes(right)),
            user: Some(format!("system:serviceaccount:{namespace}:{name}-master")),
            groups: Some(vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")]),
            ..SubjectAccessReviewSpec::default()
        };
        let metadata = ObjectMeta { namespace: Some(namespace.clone()), ..ObjectMeta::default() };
        let review = LocalSubjectAccessReview { metadata, spec, status: None };
        let api = self.api::<LocalSubjectAccessReview>();
        ask(api.create(&PostParams::default(), &review)).await.map(|done| done.status.is_some_and(|said| said.allowed))
    }

    fn attributes(&self, right: &rights::Right) -> ResourceAttributes {
        ResourceAttributes {
            namespace: Some(self.options.namespace.clone()),
            group: Some(right.group.clone()),
            resource: Some(right.resource.clone()),
            subresource: Some(right.subresource.clone()).filter(|sub| !sub.is_empty()),
            verb: Some(right.verb.clone()),
            ..ResourceAttributes::default()
        }
    }

    async fn definition(&self) -> Finding {
        let found: Asked<CustomResourceDefinition> = self.one_of_all("mapreducejobs.gristmill.dev").await;
        // Whoever may not see definitions may still see that there are, or could be, objects.
        let served = match found {
            Asked::There(_) | Asked::Missing => None,
            Asked::Forbidden | Asked::Unknown(_) => {
                Some(self.some::<MapReduceJob>(&ListParams::default().limit(1)).await.map(drop))
            }
        };
        judge::definition(found, served, &crd::crd())
    }

    async fn volumes(&self) -> Vec<Finding> {
        let claims = self.some::<PersistentVolumeClaim>(&self.ours()).await;
        let classes: Api<StorageClass> = Api::all(self.client.clone());
        let classes = ask(classes.list(&ListParams::default().limit(MOST))).await.map(|list| list.items);
        judge::volumes(claims, classes, &self.options.name)
    }

    async fn services(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let name = &self.options.name;
        for service in [name.clone(), format!("{name}-masters"), format!("{name}-workers")] {
            let of = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
            let slices = self.some::<EndpointSlice>(&of).await;
            found.push(judge::service(&service, self.one::<Service>(&service).await, slices, name));
        }
        found
    }

    async fn dns(&self) -> Finding {
        let Options { namespace, name, .. } = self.options;
        let host = format!("{name}-masters.{namespace}.svc");
        let found = timeout(WITHIN, tokio::net::lookup_host((host.clone(), PORT))).await;
        let found = match found {
            Err(_) => Err(format!("no answer within {} s", WITHIN.as_secs())),
            Ok(found) => found.map(Iterator::count).map_err(|e| e.to_string()),
        };
        judge::dns(&host, found)
    }

    async fn network(&self) -> Finding {
        let name = &self.options.name;
        let mut found = BTreeMap::new();
        for policy in [format!("{name}-masters"), format!("{name}-workers")] {
            let asked = self.one::<NetworkPolicy>(&policy).await.map(drop);
            found.insert(policy, asked);
        }
        judge::network(found)
    }
}

/// Asks, and does not wait for ever.
async fn ask<T>(question: impl Future<Output = Result<T, kube::Error>>) -> Asked<T> {
    match timeout(WITHIN, question).await {
        Err(_) => Asked::Unknown(format!("no answer within {} s", WITHIN.as_secs())),
        Ok(Ok(found)) => Asked::There(found),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Asked::Missing,
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => Asked::Forbidden,
        Ok(Err(e)) => Asked::Unknown(told(&e)),
    }
}

/// What a version has to be at least.
fn is_enough(version: &Info) -> Option<bool> {
    // Some add to the number, as in "31+".
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok();
    Some((number(&version.major)?, number(&version.minor)?) >= (1, 29))
}
