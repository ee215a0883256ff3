//! A whole installation on this machine: what `gristmill k8s manifests` prints, applied to a stand-in of Kubernetes whose kubelet
//! starts masters and workers as processes. Jobs go on whatever happens to them.

mod complaints;
mod drills;
mod installation;
mod many;
mod mill;
mod reasons;
mod weather;
