//! A stand-in for Kubernetes, for tests: an API server over real HTTP, a scheduler, a kubelet that runs pods as local
//! processes, and the controllers of StatefulSets and Jobs.
//!
//! Tests drive it with the real client, as they would a real cluster, and must not depend on more than upstream promises:
//! the same suite runs against real API servers. So every behaviour follows upstream's documentation, and its module
//! names the pages and sections: those of <https://kubernetes.io/docs/> by their titles ("API concepts" is
//! `reference/using-api/api-concepts`), "API conventions" is `sig-architecture/api-conventions` of Kubernetes' community
//! repository, "API reference" the reference of the types. Objects are checked by upstream's own types.
//!
//! [`Server`] is the API server, with methods for what goes wrong; [`Kubelet`] runs pods, with methods for their weather;
//! [`StatefulSets`] and [`Jobs`] are controllers. Left out: admission webhooks, aggregated API servers, tables,
//! protobuf, TLS, exec and port forwarding, protection of claims in use, conversion webhooks.

mod admit;
mod apply;
mod conditions;
mod controllers;
mod crd;
mod delete;
mod discovery;
mod disruption;
mod events;
mod faults;
mod fields;
mod http;
mod janitor;
mod kinds;
mod kubelet;
mod logs;
mod look;
mod patch;
mod quota;
mod rbac;
mod route;
mod scale;
mod schema;
mod selector;
mod server;
mod state;
mod status;
mod store;
mod verbs;
mod watch;
mod write;

pub use controllers::job::Jobs;
pub use controllers::stateful_set::StatefulSets;
pub use kubelet::{Kubelet, Setup};

pub use server::{Call, Rule, Server};
