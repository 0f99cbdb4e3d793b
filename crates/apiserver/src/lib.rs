//! A Kubernetes API server over the object store: HTTP, discovery, authentication, authorization,
//! admission, and the verbs on resources.
//!
//! One handler ([`api`]) takes every request, of a socket or of an in-process client: it finds out
//! who asks, reads the path into group, version, resource, name and subresource, asks RBAC, looks
//! the resource up, and dispatches by verb. There are no routes per resource; what a kind needs
//! beyond the rules of `gantry-machinery` stands in [`strategy`] and [`admission`].
//!
//! Objects are stored as the JSON that is sent: reads, lists and watches copy bytes.
//!
//! Logs, exec, attach, port-forward and proxying are passed on to kubelets and pods ([`proxy`]), and
//! requests for the group versions of extension API servers to these ([`aggregate`]).

mod admission;
mod age;
mod aggregate;
mod allocate;
mod api;
mod audit;
mod authn;
mod authz;
mod backup;
mod bootstrap;
mod browsers;
mod certificates;
mod chunks;
mod compress;
mod convert;
mod crd;
mod devices;
mod discovery;
mod encryption;
mod endpoints;
mod errors;
mod flow;
mod handle;
mod health;
mod impersonation;
mod in_process;
mod lasting;
mod metrics;
mod object;
mod off;
mod openapi;
mod ownership;
mod pretty;
mod proxy;
mod registry;
mod reload;
mod request;
mod respond;
mod rest;
mod route;
mod rules;
mod runtime_config;
mod sealed;
mod server;
mod strategy;
mod tls;
mod unstructured;
mod web_socket;
mod webhook;
mod wrong;

pub use admission::{
    EventLimit, LimitOn as EventLimitOn, Offer as AdmissionOffer, PluginSettings,
    Tolerations as TolerationSettings, parse_config as parse_admission_config,
    plugin as admission_plugin,
};
pub use audit::{AuditConfig, AuditError, LogFile as AuditLogFile, Policy as AuditPolicy};
pub use authn::{
    Anonymous, Authentication, AuthenticationError, FrontProxyConfig, KeyError, StaticToken,
    UserInfo,
    oidc::{ALGORITHMS as OIDC_ALGORITHMS, Claim as OidcClaim, Issuer as OidcIssuer},
    parse_config as parse_authentication_config,
};
pub use authz::{
    AbacPolicy, Authorization, Spoken as ReviewVersion, WebhookAuthorization, WebhookError,
    parse_config as parse_authorization_config, parse_policies as parse_abac_policies,
};
pub use backup::PATH as SNAPSHOT_PATH;
pub use browsers::Browsers;
pub use encryption::{Encryption, parse as parse_encryption_config};
pub use proxy::links::{Identity, Network, Stream};
pub use reload::{ConfigFile, Reload};
pub use runtime_config::RuntimeConfig;
pub use server::{Config, Kubelets, NodeLink, Server, StartError, Version};
pub use tls::{Ciphers as TlsCiphers, TlsError, TlsVersion};
