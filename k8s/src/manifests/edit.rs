//! What each choice changes, and where (`k8s/deploy/chart` puts the same there from its values).

use super::node::Node;
use super::{Choices, Error, document, print};

/// What all is called in the rendering.
const NAME: &str = "gristmill";
/// The store of the rendering, as an argument.
const FOLDER: &str = "--store=/srv/gristmill";
/// The volume with it, in pods.
const VOLUME: &str = "store";
/// Where pools' files are, and the one there is.
const POOL: [&str; 2] = ["data", "default.yaml"];
/// Beside a store that is far, workers keep what they read: not more than their scratch has room for.
const CACHE: &str = "--input-cache=4GiB";

/// Puts the choices into the documents.
pub(super) fn apply(all: &mut Vec<Node>, choices: &Choices) -> Result<(), Error> {
    if let Some(namespace) = &choices.namespace {
        set_namespace(all, namespace)?;
    }
    if let Some(masters) = choices.masters {
        set_masters(find(all, "StatefulSet", NAME)?, masters)?;
    }
    if let Some(image) = &choices.image {
        for (kind, name) in [("StatefulSet", NAME), ("Job", "gristmill-init")] {
            put_text(find(all, kind, name)?, &["spec", "template", "spec", "containers", "0", "image"], image)?;
        }
        in_pool(all, |pool| put_text(pool, &["template", "spec", "containers", "0", "image"], image))?;
    }
    if let Some(url) = &choices.store {
        set_store(all, url)?;
    }
    Ok(())
}

fn set_namespace(all: &mut [Node], namespace: &str) -> Result<(), Error> {
    for one in all {
        match kind(one) {
            "Namespace" => put_text(one, &["metadata", "name"], namespace)?,
            _ => put_text(one, &["metadata", "namespace"], namespace)?,
        }
        if kind(one) == "RoleBinding" {
            put_text(one, &["subjects", "0", "namespace"], namespace)?;
        }
    }
    Ok(())
}

fn set_masters(set: &mut Node, masters: u32) -> Result<(), Error> {
    *at(set, &["spec", "replicas"])? = Node::Int(masters.into());
    let peer = |index| format!("{NAME}-{index}.{NAME}-masters.$(POD_NAMESPACE).svc:7070");
    let peers = (0..masters).map(peer).collect::<Vec<_>>().join(",");
    *argument(set, &["spec", "template", "spec"], "--peers=")? = Node::Text(format!("--peers={peers}"));
    Ok(())
}

fn set_store(all: &mut Vec<Node>, url: &str) -> Result<(), Error> {
    let argument_of = format!("--store={url}");
    let far = |of: &mut Node, pod: &[&str]| -> Result<(), Error> {
        *argument(of, pod, FOLDER)? = Node::Text(argument_of.clone());
        let inside =
            |rest: &[&'static str]| -> Vec<String> { pod.iter().chain(rest).map(ToString::to_string).collect() };
        for path in [inside(&["volumes"]), inside(&["containers", "0", "volumeMounts"])] {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            remove(at(of, &path)?, VOLUME)?;
        }
        Ok(())
    };
    far(find(all, "StatefulSet", NAME)?, &["spec", "template", "spec"])?;
    in_pool(all, |pool| {
        far(pool, &["template", "spec"])?;
        let arguments = list(pool, &["template", "spec", "containers", "0", "args"])?;
        let memory = arguments.iter().position(|one| one.text().is_some_and(|text| text.starts_with("--memory=")));
        let place = memory.ok_or_else(|| Error::Rendering("argument --memory= of workers".into()))?;
        arguments.insert(place + 1, Node::Text(CACHE.into()));
        Ok(())
    })?;
    for name in ["gristmill-masters", "gristmill-workers"] {
        let port = [("port".into(), Node::Int(443)), ("protocol".into(), Node::Text("TCP".into()))];
        let rule = Node::Map(vec![("ports".into(), Node::List(vec![Node::Map(port.into())]))]);
        list(find(all, "NetworkPolicy", name)?, &["spec", "egress"])?.push(rule);
    }
    find(all, "PersistentVolumeClaim", "gristmill-store")?;
    all.retain(|one| !(kind(one) == "PersistentVolumeClaim" && is_called(one, "gristmill-store")));
    Ok(())
}

/// Changes the file of the pool, which is YAML in a string.
fn in_pool(all: &mut [Node], change: impl FnOnce(&mut Node) -> Result<(), Error>) -> Result<(), Error> {
    let file = at(find(all, "ConfigMap", "gristmill-pools")?, &POOL)?;
    let mut pool = document(file.text().unwrap_or_default())?;
    change(&mut pool)?;
    *file = Node::Text(print(&pool)?);
    Ok(())
}

fn find<'n>(all: &'n mut [Node], of: &str, name: &str) -> Result<&'n mut Node, Error> {
    let found = all.iter_mut().find(|one| kind(one) == of && is_called(one, name));
    found.ok_or_else(|| Error::Rendering(format!("{of} {name}")))
}

fn kind(one: &Node) -> &str {
    one.at(&["kind"]).and_then(Node::text).unwrap_or_default()
}

fn is_called(one: &Node, name: &str) -> bool {
    one.at(&["metadata"]).is_some_and(|metadata| metadata.is_named(name))
}

fn at<'n>(node: &'n mut Node, path: &[&str]) -> Result<&'n mut Node, Error> {
    let what = format!("{} in a {}", path.join("."), kind(node));
    node.at_mut(path).ok_or(Error::Rendering(what))
}

fn list<'n>(node: &'n mut Node, path: &[&str]) -> Result<&'n mut Vec<Node>, Error> {
    at(node, path)?.list_mut().ok_or_else(|| Error::Rendering(format!("list {}", path.join("."))))
}

/// The argument that begins so, of a pod's first container.
fn argument<'n>(node: &'n mut Node, pod: &[&str], start: &str) -> Result<&'n mut Node, Error> {
    let path: Vec<&str> = pod.iter().copied().chain(["containers", "0", "args"]).collect();
    let found = list(node, &path)?.iter_mut().find(|one| one.text().is_some_and(|text| text.starts_with(start)));
    found.ok_or_else(|| Error::Rendering(format!("argument {start}")))
}

/// Puts a text where a text is.
fn put_text(node: &mut Node, path: &[&str], text: &str) -> Result<(), Error> {
    let place = at(node, path)?;
    place.text().ok_or_else(|| Error::Rendering(format!("text {}", path.join("."))))?;
    *place = Node::Text(text.into());
    Ok(())
}

fn remove(items: &mut Node, name: &str) -> Result<(), Error> {
    let items = items.list_mut().ok_or_else(|| Error::Rendering(format!("list with {name}")))?;
    let before = items.len();
    items.retain(|one| !one.is_named(name));
    if items.len() + 1 == before { Ok(()) } else { Err(Error::Rendering(format!("one item {name}"))) }
}
