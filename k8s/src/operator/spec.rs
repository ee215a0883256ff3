//! From what an object says to what is submitted.

use gristmill_proto::v1::{App, Compression, JobSpec, Phase};

use crate::crd::{Compress, Half, MapReduceJobSpec};

/// The job that an object asks for. An app that was pushed has no name yet, only [`App::pushed`], with or without its version: whoever
/// submits it knows what was pushed.
pub(super) fn job(spec: &MapReduceJobSpec) -> JobSpec {
    let app = App {
        name: spec.app.name.clone().unwrap_or_default(),
        arguments: spec.app.arguments.clone(),
        pushed: spec.app.pushed.clone().unwrap_or_default(),
        ..App::default()
    };
    let compress = match spec.compress {
        None => Compression::Unspecified,
        Some(Compress::Gzip) => Compression::Gzip,
        Some(Compress::Zstd) => Compression::Zstd,
    };
    let phase = match spec.phase {
        None => Phase::Unspecified,
        Some(Half::Map) => Phase::Map,
        Some(Half::Reduce) => Phase::Reduce,
    };
    JobSpec {
        app: Some(app),
        inputs: spec.inputs.clone(),
        output: spec.output.clone(),
        reducers: small(spec.reducers),
        map_task_bytes: spec.map_task_bytes.and_then(|bytes| bytes.try_into().ok()).unwrap_or_default(),
        format: spec.format.clone().unwrap_or_default(),
        compress: compress.into(),
        skip_bad_records: small(spec.skip_bad_records).into(),
        overwrite: spec.overwrite,
        priority: spec.priority.unwrap_or_default(),
        max_attempts: small(spec.max_attempts),
        phase: phase.into(),
        then: None,
        labels: spec.labels.clone().into_iter().collect(),
        no_backups: spec.no_backups,
        requires: spec.requires.clone(),
    }
}

/// The key of an object's submission, of which so many came before: the same however often it is tried.
pub(super) fn key(uid: &str, before: i32) -> String {
    if before <= 0 { format!("mrj/{uid}") } else { format!("mrj/{uid}/{before}") }
}

/// The schema lets no negative number through.
fn small(number: Option<i32>) -> u32 {
    number.and_then(|number| number.try_into().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;

    #[test]
    fn every_field_of_the_spec_arrives() {
        let spec = json!({
            "app": {"pushed": "mine@3", "arguments": ["--key", "1-10"]}, "inputs": ["a/", "b"], "output": "out",
            "reducers": 7, "mapTaskBytes": 65_536, "format": "fixed:100", "compress": "zstd", "phase": "map",
            "skipBadRecords": 9, "overwrite": true, "priority": -3, "maxAttempts": 2, "requires": ["python"],
            "labels": {"team": "search"}, "noBackups": true, "suspend": true, "activeDeadlineSeconds": 1,
            "ttlSecondsAfterFinished": 1,
        });
        let told = job(&serde_json::from_value(spec).unwrap());
        let app = App { pushed: "mine@3".into(), arguments: vec!["--key".into(), "1-10".into()], ..App::default() };
        let wanted = JobSpec {
            app: Some(app),
            inputs: vec!["a/".into(), "b".into()],
            output: "out".into(),
            reducers: 7,
            map_task_bytes: 65_536,
            format: "fixed:100".into(),
            compress: Compression::Zstd.into(),
            skip_bad_records: 9,
            overwrite: true,
            priority: -3,
            max_attempts: 2,
            phase: Phase::Map.into(),
            then: None,
            labels: HashMap::from([("team".to_string(), "search".to_string())]).into_iter().collect(),
            no_backups: true,
            requires: vec!["python".into()],
        };
        assert_eq!(told, wanted);
    }

    #[test]
    fn what_is_left_out_asks_for_the_default() {
        let spec = json!({"app": {"name": "grep"}, "inputs": ["a"], "output": "out"});
        let told = job(&serde_json::from_value(spec).unwrap());
        let wanted = JobSpec {
            app: Some(App { name: "grep".into(), ..App::default() }),
            inputs: vec!["a".into()],
            output: "out".into(),
            ..JobSpec::default()
        };
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_job_that_is_submitted_anew_has_another_key() {
        assert_eq!(key("u-1", 0), "mrj/u-1");
        assert_eq!(key("u-1", 1), "mrj/u-1/1");
        // A UUID and all submissions that there can be are within a key's 128 bytes.
        assert!(key(&"u".repeat(36), i32::MAX).len() <= 128);
    }
}
