//! Gristmill on Kubernetes.
//!
//! Worker pods are made here: a folder says which pools there are ([`pool`]), the engine's leader says which pods it wants, and
//! [`pods::Launcher`] makes them ([`pod`]), watches them, and says why one waits or has ended ([`reason`]). Jobs can be objects
//! of Kubernetes' own: [`crd`] describes them and [`operator`] follows them. [`secrets`] makes a cluster's certificates,
//! [`doctor`] looks for what is wrong with an installation, and [`manifests`] prints one.
//!
//! Which node leads, which pods are wanted, and what a job is: all that is the engine's, and in no object of Kubernetes.

pub mod client;
pub mod crd;
pub mod doctor;
pub mod events;
pub mod manifests;
pub mod operator;
pub mod pod;
pub mod pods;
pub mod pool;
pub mod reason;
pub mod secrets;
