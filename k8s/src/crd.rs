//! The resource MapReduceJob: a job as an object of Kubernetes, what it may say, and what is told of it.
//!
//! Bounds are those of `gristmill/v1/job.proto`, so that the API server refuses what masters would. Which user a job is submitted
//! as is not in it: whoever may apply one must not choose. `deploy/crd.yaml` and the chart's `crds` are what [`yaml`] gives.
#![expect(unreachable_pub, reason = "KubeSchema copies structs into functions")]
#![allow(clippy::duplicated_attributes, reason = "columns are alike, and the lint takes them for one")]

use std::collections::BTreeMap;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, CustomResourceExt as _, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Fields of a spec that stay as they are from the beginning.
const FIXED: [&str; 15] = [
    "app",
    "inputs",
    "output",
    "reducers",
    "mapTaskBytes",
    "format",
    "compress",
    "phase",
    "skipBadRecords",
    "overwrite",
    "priority",
    "maxAttempts",
    "requires",
    "labels",
    "noBackups",
];

/// Neither the output nor anything in it is an input. Folders are written with or without '/' at their end.
const APART: &str = "!self.inputs.exists(input, self.output == input || self.output + '/' == input \
                     || self.output.startsWith(input + '/') || (input.endsWith('/') && self.output.startsWith(input)))";

/// What the definition begins with.
const HEADER: &str = "# Made by `gristmill k8s crd`, and edited by nobody.\n";

/// A job: what to run on which input, and where its output goes.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gristmill.dev",
    version = "v1alpha1",
    kind = "MapReduceJob",
    plural = "mapreducejobs",
    shortname = "mrj",
    category = "all",
    namespaced,
    cel,
    derive = "PartialEq",
    status = "MapReduceJobStatus",
    doc = "A MapReduce job of the Gristmill cluster in this namespace. Deleting it cancels the job.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Output", type_ = "string", json_path = ".spec.output"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Job", type_ = "string", json_path = ".status.jobId", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(fixed()).message(
        "a job runs as it was applied: only suspend, activeDeadlineSeconds and ttlSecondsAfterFinished can be changed; apply the other \
         job under another name"
    ),
    validation = Rule::new(APART).message("the output lies in one of the inputs: name another folder").field_path(".output"),
    validation = Rule::new("!has(self.phase) || self.phase != 'reduce' || self.inputs.size() == 1").message(
        "phase reduce has exactly one input: the output of a job of phase map"
    ).field_path(".inputs"),
)]
pub struct MapReduceJobSpec {
    /// What to run.
    pub app: AppSpec,
    /// Names or globs of objects in the cluster's store. A name that ends in '/' stands for all objects below it but those with a
    /// component that begins with '_' or '.'.
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 1024)))]
    pub inputs: Vec<String>,
    /// Name of the output: a folder in the store.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("!self.startsWith('/')").message(
        "the output is a folder in the cluster's store: write its name without '/' in front, as in out/words"
    ))]
    #[x_kube(validation = Rule::new(r"!self.matches('(^|/)[.]{1,2}(/|$)') && !self.contains('//')").message(
        "no component of the output's name may be empty, '.' or '..'"
    ))]
    pub output: String,
    /// Number of parts of the output. Left out: one for each 128 MiB of input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 1, max = 10_000))]
    pub reducers: Option<i32>,
    /// Bytes of input for each map task, 64 KiB to 16 GiB. Left out: chosen from the input's size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 65_536, max = 17_179_869_184_i64))]
    pub map_task_bytes: Option<i64>,
    /// How inputs are cut into records: lines, nul, whole, or fixed:N. Left out: the app's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64), regex(pattern = r"^(lines|nul|whole|fixed:[1-9][0-9]{0,9})$"))]
    pub format: Option<String>,
    /// Codec of the output. Left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Compress")]
    pub compress: Option<Compress>,
    /// Which half of the job to run. Left out: both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Half")]
    pub phase: Option<Half>,
    /// So many bad records are passed over, in the whole job, and kept in _bad/ of the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 0, max = 100_000))]
    pub skip_bad_records: Option<i32>,
    /// Replace an output of that name, once the new one is decided.
    #[serde(default, skip_serializing_if = "is_false")]
    pub overwrite: bool,
    /// Jobs of one user run in the order of priority, highest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = -100, max = 100))]
    pub priority: Option<i32>,
    /// Attempts of one task before the job fails. Left out: 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 1, max = 16))]
    pub max_attempts: Option<i32>,
    /// What workers must have to run its tasks, as their pools say.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)))]
    pub requires: Vec<String>,
    /// For the user's own use, on the job.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    #[x_kube(validation = Rule::new("self.all(key, size(key) >= 1 && size(key) <= 63)").message(
        "a label's key has 1 to 63 characters"
    ))]
    pub labels: BTreeMap<String, String>,
    /// No second attempts at tasks that take much longer than others.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_backups: bool,
    /// Hold the job back. A job that runs already is cancelled, and what it did is lost; once this is false it is submitted anew, and its
    /// deadline begins again. No effect on a job that has ended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub suspend: bool,
    /// A job that has not ended so many seconds after its startTime is cancelled, and has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 1, max = 31_536_000))]
    pub active_deadline_seconds: Option<i64>,
    /// The object is deleted so many seconds after its job has ended. The job's output stays. Left out: it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 0, max = 31_536_000))]
    pub ttl_seconds_after_finished: Option<i64>,
}

/// A program, by name, and its flags.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.name) != has(self.pushed)").message(
    "say app.name for an app that workers have built in, or app.pushed for one that was pushed: one of the two"
))]
pub struct AppSpec {
    /// An app that workers have built in, as in `gristmill submit NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 64))]
    pub name: Option<String>,
    /// An app that was pushed, as NAME@VERSION, or NAME for its newest version when the job is submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(max = 75),
        regex(pattern = r"^[A-Za-z][A-Za-z0-9_.-]{0,63}(@[1-9][0-9]{0,9})?$")
    )]
    pub pushed: Option<String>,
    /// Its flags, as on a command line after its name: "--key", "1-10".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 16_384)))]
    pub arguments: Vec<String>,
}

/// Codec of the output.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub enum Compress {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
}

/// Half of a job.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub enum Half {
    /// Map, and keep the sorted segments as the output.
    Map,
    /// Reduce what such a job left.
    Reduce,
}

/// What is told of a job. Small on purpose: the job's state is the masters'.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MapReduceJobStatus {
    /// The generation of the object that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64")]
    pub observed_generation: Option<i64>,
    /// Where the job stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Phase")]
    pub phase: Option<Phase>,
    /// The cluster's id of the job, once it is submitted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub job_id: Option<String>,
    /// So many times it was submitted: more than once if it was suspended.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub submissions: i32,
    /// How far it is, as in "map 45% reduce 0%".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub progress: Option<String>,
    /// When it was submitted, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub start_time: Option<Time>,
    /// When it ended, in whichever way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub completion_time: Option<Time>,
    /// Its map tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tasks")]
    pub maps: Option<Tasks>,
    /// Its reduce tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tasks")]
    pub reduces: Option<Tasks>,
    /// One line for people: what it waits for, or what came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub message: Option<String>,
    /// Why workers that it waits for are not there, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub notices: Vec<String>,
    /// The Raft term of the master that wrote this. One of an earlier term does not write any more.
    #[serde(default, skip_serializing_if = "is_zero_64")]
    pub term: i64,
    /// The id of the cluster that the term is of, 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    pub cluster: Option<String>,
    /// Accepted, Running, Complete, Failed and Suspended. Of a job that was cancelled Failed is true, with reason Cancelled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Where a job stands.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[schemars(inline)]
pub enum Phase {
    /// It is not submitted yet, or none of its tasks has begun.
    Pending,
    /// It is held back.
    Suspended,
    /// Some of its tasks have begun.
    Running,
    /// Its output is there.
    Completed,
    /// There is no output.
    Failed,
    /// Somebody cancelled it.
    Cancelled,
}

impl Phase {
    /// Whether nothing comes after it.
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// How many tasks of a stage are in which condition.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[schemars(inline)]
pub struct Tasks {
    /// All of them.
    pub total: i32,
    /// Those that are done.
    pub done: i32,
    /// Those with an attempt on a worker.
    pub running: i32,
    /// Attempts that failed.
    pub failures: i32,
}

/// The definition.
pub fn crd() -> CustomResourceDefinition {
    MapReduceJob::crd()
}

/// The definition as `kubectl apply` takes it: the same text each time.
pub fn yaml() -> String {
    // It has strings for keys and no floats: there is nothing that YAML cannot say.
    HEADER.to_string() + &serde_saphyr::to_string(&crd()).unwrap_or_default()
}

/// The rule that what must not change does not.
fn fixed() -> String {
    let same = |field: &str| match field {
        "app" | "inputs" | "output" => format!("self.{field} == oldSelf.{field}"),
        _ => format!(
            "has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"
        ),
    };
    FIXED.map(same).join(" && ")
}

fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "maxProperties": 32, "additionalProperties": {"type": "string", "maxLength": 255}})
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_zero(value: &i32) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn is_zero_64(value: &i64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests;
