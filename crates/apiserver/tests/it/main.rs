//! What the API server does, seen from its socket. One program, so that it is linked once and its tests run side by side.

mod access;
mod addresses;
mod admission;
mod aggregation;
mod asking;
mod authentication;
mod authorization;
mod claims;
mod client;
mod encryption;
mod full_disk;
mod golden;
mod hooks;
mod hostile;
mod list_watch;
mod operations;
mod protobuf;
mod protobuf_answers;
mod reload;
mod streams;
mod walked;
mod walked_auth;
mod walked_definitions;
mod walked_fields;
mod walked_services;
mod web_socket;
