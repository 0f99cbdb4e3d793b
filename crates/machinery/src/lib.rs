//! Kubernetes' rules about objects as pure functions.
//!
//! Nothing here does I/O, reads a clock or knows of HTTP: an object goes in as
//! [`serde_json::Value`], an object or a list of [`status::Cause`]s comes out. The API server is
//! the shell that carries these rules to a socket and a store.

pub mod access;
pub mod apply;
pub mod cel;
pub mod crd;
pub mod decode;
pub mod defaults;
pub mod flowcontrol;
pub mod openapi;
pub mod patch;
pub mod path;
pub mod pod_security;
pub mod policy;
pub mod protobuf;
pub mod qos;
pub mod quantity;
pub mod quota;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod shape;
pub mod status;
pub mod table;
pub mod validation;
