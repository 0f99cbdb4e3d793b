//! Garbage collection: objects whose owners are gone go too.
//!
//! A graph of all objects and their owner references is kept from watches over every resource that
//! can be deleted, custom ones included, found by discovery. Behaviour is that of
//! `pkg/controller/garbagecollector` of Kubernetes 1.36: background, foreground (by the finalizer
//! `foregroundDeletion`) and orphaning deletion (by the finalizer `orphan`); an owner that the
//! graph does not know is asked for before its dependents are given up.

pub mod graph;
mod monitor;
mod shell;

pub use shell::start;
