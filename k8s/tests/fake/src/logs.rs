//! The subresource `log` of pods: what containers wrote, out of the kubelet's files.
//!
//! API reference, Pod, "read log of the specified Pod": container, previous, tailLines, limitBytes, follow.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use serde_json::Value;

use crate::http::{Body, streamed};
use crate::state::{Ask, LogFiles, Shared, State};
use crate::status::Failure;
use crate::verbs::current;

/// At most so much of a log is answered at once.
const LARGEST: u64 = 64 * 1024 * 1024;

/// A log that is followed is looked at so often.
const LOOK: Duration = Duration::from_millis(50);

pub(crate) fn get(shared: &Arc<Shared>, state: &State, ask: &Ask) -> Result<Response<Body>, Failure> {
    let pod = current(state, ask)?;
    let container = container(ask, &pod)?;
    let key = (ask.namespace.clone(), ask.name.clone(), container.clone());
    let Some(files) = state.logs.get(&key) else {
        let message = format!(
            "container \"{container}\" in pod \"{}\" is waiting to start: {}",
            ask.name,
            waiting(&pod, &container)
        );
        return Err(Failure::bad_request(message));
    };
    let path = if ask.is("previous") {
        let why = format!("previous terminated container \"{container}\" in pod \"{}\" not found", ask.name);
        files.previous.clone().ok_or_else(|| Failure::bad_request(why))?
    } else {
        files.current.clone()
    };
    let text = tail(read(&path), ask.param("tailLines").parse().ok());
    let limit = ask.param("limitBytes").parse::<usize>().ok();
    let text = text[..limit.unwrap_or(text.len()).min(text.len())].to_vec();
    let follow = ask.is("follow") && !ask.is("previous") && limit.is_none();
    let at = std::fs::metadata(&path).map(|file| file.len()).unwrap_or_default();
    let followed = Followed { shared: shared.clone(), key, path, at, over: !follow };
    let stream = futures_util::stream::unfold((Some(Bytes::from(text)), followed), |(first, followed)| async move {
        match first {
            Some(first) => Some((Ok(first), (None, followed))),
            None => followed.next().await.map(|(bytes, followed)| (Ok(bytes), (None, followed))),
        }
    });
    Ok(streamed(200, "text/plain", stream))
}

fn container(ask: &Ask, pod: &Value) -> Result<String, Failure> {
    let all = ["initContainers", "containers"].map(|list| pod["spec"][list].as_array().cloned().unwrap_or_default());
    let names = |list: &[Value]| -> Vec<String> {
        list.iter().filter_map(|one| one["name"].as_str().map(String::from)).collect()
    };
    let (init, main) = (names(&all[0]), names(&all[1]));
    match ask.param("container") {
        "" if main.len() == 1 => Ok(main[0].clone()),
        "" => {
            let message =
                format!("a container name must be specified for pod {}, choose one of: [{}]", ask.name, main.join(" "));
            Err(Failure::bad_request(message))
        }
        name if init.iter().chain(&main).any(|one| one == name) => Ok(name.into()),
        name => Err(Failure::bad_request(format!("container {name} is not valid for pod {}", ask.name))),
    }
}

fn waiting(pod: &Value, container: &str) -> String {
    let lists = ["initContainerStatuses", "containerStatuses"];
    let all = lists.into_iter().flat_map(|list| pod["status"][list].as_array().into_iter().flatten());
    let mut of = all.filter(|status| status["name"] == container);
    let reason = of.find_map(|status| status["state"]["waiting"]["reason"].as_str().map(String::from));
    reason.unwrap_or_else(|| "ContainerCreating".into())
}

fn read(path: &PathBuf) -> Vec<u8> {
    let mut text = Vec::new();
    if let Ok(file) = File::open(path) {
        // A file that cannot be read to its end is answered as far as it can.
        let _ = file.take(LARGEST).read_to_end(&mut text);
    }
    text
}

/// The last lines of a text.
fn tail(text: Vec<u8>, lines: Option<usize>) -> Vec<u8> {
    let Some(lines) = lines else { return text };
    let all: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    all[all.len().saturating_sub(lines)..].concat()
}

/// A log that goes on until its container ends.
struct Followed {
    shared: Arc<Shared>,
    key: (String, String, String),
    path: PathBuf,
    at: u64,
    over: bool,
}

impl Followed {
    async fn next(mut self) -> Option<(Bytes, Followed)> {
        while !self.over {
            let files: Option<LogFiles> = self.shared.state().logs.get(&self.key).cloned();
            // What it wrote before it ended is read below once more.
            self.over = files.is_none_or(|files| files.ended || files.current != self.path);
            let mut text = Vec::new();
            if let Ok(mut file) = File::open(&self.path)
                && file.seek(SeekFrom::Start(self.at)).is_ok()
            {
                let _ = file.take(LARGEST).read_to_end(&mut text);
            }
            self.at += text.len() as u64;
            if !text.is_empty() {
                return Some((text.into(), self));
            }
            if !self.over {
                tokio::time::sleep(LOOK).await;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_the_last() {
        assert_eq!(tail(b"a\nb\nc\n".to_vec(), Some(2)), b"b\nc\n");
        assert_eq!(tail(b"a\nb".to_vec(), Some(5)), b"a\nb");
    }
}
