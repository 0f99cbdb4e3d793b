//! Simulated nodes: what a kubelet does at the API, without containers.
//!
//! [`run`] speaks for every node labelled `gantry.dev/simulated=true`: it registers those of its
//! [`Options`], keeps their leases, and takes the pods bound to them through the phases that a
//! kubelet of Kubernetes 1.36 reports. Nothing runs anywhere, and everything says so: the node's label
//! and annotation, the runtime's version, the containers' ids, the component of events.
//!
//! Layers, each knowing only those before it:
//!
//! - [`behaviour`]: delays and failures, looked up by rules and drawn from a seed;
//! - [`object`]: what is decoded of watched objects;
//! - [`program`]: what the processes of containers do, where it can be known;
//! - [`pod`]: the state machine of a pod, pure: `step(what happened, time)`;
//! - [`node`]: reports, room and addresses of a node, pure;
//! - `kubelet`: what kubelets and pods answer over HTTP, from objects of the API;
//! - `shell`: one event loop that owns all state; watches in, writes out.
//!
//! # Behaviour
//!
//! Annotations of a pod, for all its containers: `hollow.gantry.dev/pull`, `start`, `ready`, `run`,
//! `stop` (a duration such as `500ms`, or a span such as `1s..3s`; `ready` also `never`),
//! `exit-code`, and `fail` (`pull`, `start`, `ready` or `crash`, each with `: message` if wanted).
//!
//! The ConfigMap `kube-system/hollow-behaviours` holds lists of rules, in YAML, one list a key. A rule
//! says what it is about (`image`, `namespace`, `pod`, `container`, `node`: patterns with `*` and `?`;
//! `labels`: a map to such patterns) and what it sets:
//!
//! ```yaml
//! - image: "*:broken"
//!   ready: never
//!   message: cannot reach the database
//! - labels: {app: cart}
//!   pull: 2s..4s
//!   crash: {after: 5s, exitCode: 1, probability: 0.1, reason: OOMKilled, message: out of memory}
//! - image: "*:gone"
//!   pullError: manifest unknown
//! ```
//!
//! Fields: `pull`, `pullError`, `start`, `startError`, `ready`, `message`, `run`, `exitCode`, `crash`,
//! `hang` (stops answering after that long: readiness and liveness probes fail), `stop`. The first that
//! sets a field wins, annotations before rules. A rule that cannot be read is refused, with a line in the
//! log and an event on the ConfigMap; the rest holds. A change holds at once, for running containers too.
//!
//! Where neither annotations nor rules say how a container ends, its command does, if it is a simple
//! one: `sleep 5`, `/bin/false`, or a shell script of such commands, files, tests and loops. It shares
//! files with others through `emptyDir` and `hostPath` volumes, and `exec` probes look at them. Other
//! commands (a server, above all) run until they are stopped; those of a Job, for a few seconds. An
//! image cannot be pulled if its name says so: a tag such as `404` or `nonexistent`, a registry in
//! `.invalid`.
//!
//! A node annotated `hollow.gantry.dev/down: "true"` plays dead until the annotation goes: no lease, no
//! reports, its pods left as they were last seen.
//!
//! # Kubelets
//!
//! Given a [`Network`] (see [`Options::network`]), nodes announce a kubelet that answers there: logs,
//! commands, attaching, port forwarding and usage, all simulated. Annotations `hollow.gantry.dev/cpu`
//! and `memory` of a pod say what each of its containers uses.

pub mod behaviour;
pub mod clock;
pub mod image;
mod kubelet;
pub mod node;
pub mod object;
pub mod options;
pub mod pod;
pub mod program;
pub mod scenario;
mod shell;
mod truth;
pub mod usage;
mod yaml;

pub use kubelet::{Asked, Guard, KUBELET_PORT, Network};
pub use options::{Devices, Failures, NodeGroup, Options, SIMULATED, StaticPod};
pub use scenario::Scenario;
pub use shell::{Error, run};
pub use yaml::Mistake;
