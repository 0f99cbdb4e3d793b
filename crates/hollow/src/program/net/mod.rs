//! `curl`, `wget`, `nc`, `dig`, `getent` and `nslookup`: what they ask others for, and what they make of the
//! answer. Whoever runs the program finds the answers; see [`Question`].

mod clients;
mod flags;
mod names;
#[cfg(test)]
mod tests;

pub use clients::{curl, nc, wget};
pub use names::{Kind, Lookup, Record, SERVER, dig, getent, nslookup};

use std::time::Duration;

/// What a program asks of others in its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// A request over HTTP.
    Http(Call),
    /// Bytes that are sent, whether over UDP, and what comes back.
    Bytes {
        /// Whom.
        to: Peer,
        /// Over UDP, not TCP.
        udp: bool,
        /// What is sent.
        sent: Vec<u8>,
    },
    /// Whether anybody listens.
    Listens(Peer),
    /// What a name stands for.
    Name(Lookup),
}

/// Whom, and how long it is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The longest wait.
    pub patience: Duration,
}

/// A request over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// To whom.
    pub to: Peer,
    /// Its method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers beside the usual ones.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a request over HTTP.
    Http {
        /// The status and its phrase, such as `200 OK`.
        status: (u16, String),
        /// Headers.
        headers: Vec<(String, String)>,
        /// The body.
        body: Vec<u8>,
    },
    /// Bytes; none for a connection that could be opened.
    Bytes(Vec<u8>),
    /// What a name stands for; none where nothing is known of it.
    Records(Vec<Record>),
    /// Nothing.
    Failed(Failed),
}

/// Why nothing came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The name is not known.
    NoName,
    /// Nobody listens.
    Refused,
    /// Not in time.
    TimedOut,
}
