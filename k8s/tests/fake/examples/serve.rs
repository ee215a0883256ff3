//! A Kubernetes to play with: an API server, a kubelet that runs pods as processes, StatefulSets and Jobs, until it is interrupted.
//!
//! `cargo run -p gristmill-k8s-fake --example serve -- kubeconfig gristmill:0.1.0=target/debug/gristmill` writes the file
//! `kubeconfig`, with which kubectl and Helm work, and has that program stand for that image. What is left out: see the crate.

use std::error::Error;

use gristmill_k8s_fake::{Jobs, Kubelet, Server, StatefulSets};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("say where the kubeconfig is to be written")?;
    let server = Server::start().await;
    let mut setup = Kubelet::of(&server);
    for image in arguments {
        let (image, program) = image.split_once('=').ok_or("say images as IMAGE=PROGRAM")?;
        setup = setup.image(image, std::fs::canonicalize(program)?);
    }
    let _kubelet = setup.start();
    let _controllers = (StatefulSets::start(&server), Jobs::start(&server));
    std::fs::write(&file, server.kubeconfig("default"))?;
    println!("{} serves; KUBECONFIG={file}", server.url());
    std::future::pending().await
}
