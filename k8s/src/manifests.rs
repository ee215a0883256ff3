//! An installation without Helm: the chart's own rendering, which is in the program, with what one chooses put in its place.
//!
//! Documents are edited as values and not as text: what a choice has to change and is not there is an error, and no blank is
//! left by accident. Comments of the rendering are lost by it. `k8s/deploy/check` makes the rendering (`deploy/manifests.yaml`).
//!
//! Left out: credentials of a store in buckets. The identities of the service accounts NAME-master and NAME-worker count, or
//! what the user adds to the containers' environment.

use crate::crd;

mod edit;
mod node;

use node::Node;

/// The chart, rendered with its default values.
pub(crate) const EMBEDDED: &str = include_str!("../deploy/manifests.yaml");

/// Characters of a namespace: it is a DNS label.
const NAMESPACE_CHARS: usize = 63;

/// What can be chosen. All else is for Helm, or for an editor.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices {
    /// The namespace of all of it; `None`: "gristmill".
    pub namespace: Option<String>,
    /// The image of masters, of workers, and of what makes the certificates; `None`: that of this version.
    pub image: Option<String>,
    /// How many masters: 1, 3 or 5; `None`: 3.
    pub masters: Option<u32>,
    /// URL of a store in buckets: `s3://`, `az://` or `gs://`; `None`: a volume that all nodes write.
    pub store: Option<String>,
}

/// Why there are no manifests.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such number of masters.
    #[error("{0} masters cannot be: choose 1, 3 or 5, so that a majority is left when one of them is lost")]
    Masters(u32),
    /// No such namespace.
    #[error("'{0}' is no name of a namespace: write lower-case letters, digits and '-', at most 63")]
    Namespace(String),
    /// No such image.
    #[error("'{0}' is no name of an image: write it as NAME:TAG, without spaces")]
    Image(String),
    /// No such store.
    #[error(
        "'{0}' is no store for pods: write s3://BUCKET, az://CONTAINER or gs://BUCKET, or leave it out for a volume"
    )]
    Store(String),
    /// The rendering has not what a choice changes.
    #[error("the manifests in this program have no {0}: it was built of a rendering that does not fit it")]
    Rendering(String),
    /// The rendering is no YAML.
    #[error("the manifests in this program cannot be read: {0}")]
    Yaml(String),
}

/// The manifests as one text, the resource's definition first, for `kubectl apply -f -`. The same for the same choices.
///
/// # Errors
/// A choice that cannot be.
pub fn render(choices: &Choices) -> Result<String, Error> {
    check(choices)?;
    let mut all = documents(EMBEDDED)?;
    edit::apply(&mut all, choices)?;
    let mut text = crd::yaml();
    for one in &all {
        text.push_str("---\n");
        text.push_str(&print(one)?);
    }
    Ok(text)
}

fn check(choices: &Choices) -> Result<(), Error> {
    if let Some(masters) = choices.masters.filter(|masters| ![1, 3, 5].contains(masters)) {
        return Err(Error::Masters(masters));
    }
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let is_label = |name: &str| {
        let ends = name.bytes().next().is_some_and(inner) && name.bytes().last().is_some_and(inner);
        ends && name.len() <= NAMESPACE_CHARS && name.bytes().all(|b| inner(b) || b == b'-')
    };
    if let Some(namespace) = choices.namespace.as_ref().filter(|namespace| !is_label(namespace)) {
        return Err(Error::Namespace(namespace.clone()));
    }
    let is_image = |image: &str| {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"-._:/@+".contains(&b);
        (1..=512).contains(&image.len()) && image.bytes().all(good) && !image.starts_with('-')
    };
    if let Some(image) = choices.image.as_ref().filter(|image| !is_image(image)) {
        return Err(Error::Image(image.clone()));
    }
    let is_store = |url: &str| {
        let bucket = ["s3://", "az://", "gs://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        // Kubernetes puts a variable's value in the place of $(NAME).
        let plain = |b: u8| b.is_ascii_graphic() && b != b'$';
        url.len() <= 1_024
            && url.bytes().all(plain)
            && bucket.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
    };
    match choices.store.as_ref().filter(|url| !is_store(url)) {
        Some(url) => Err(Error::Store(url.clone())),
        None => Ok(()),
    }
}

fn documents(text: &str) -> Result<Vec<Node>, Error> {
    serde_saphyr::from_multiple(text).map_err(|e| Error::Yaml(e.to_string()))
}

fn document(text: &str) -> Result<Node, Error> {
    serde_saphyr::from_str(text).map_err(|e| Error::Yaml(e.to_string()))
}

fn print(node: &Node) -> Result<String, Error> {
    serde_saphyr::to_string(node).map_err(|e| Error::Yaml(e.to_string()))
}

#[cfg(test)]
mod tests;
