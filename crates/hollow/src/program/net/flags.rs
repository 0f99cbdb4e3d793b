//! The flags of a command line, as `getopt` reads them.

use crate::program::machine::Stop;
use std::time::Duration;

/// How long is waited where nothing is said.
pub const PATIENCE: Duration = Duration::from_secs(60);

fn seconds(text: &str) -> Option<Duration> {
    let number = text.trim_end_matches('s').parse::<f64>().ok()?;
    Duration::try_from_secs_f64(number).ok()
}

pub fn unknown<T>(what: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Unknown(what.into()))
}

/// The flags of a command: each with its value, where it takes one, and what is no flag.
pub struct Flags {
    pub given: Vec<(String, String)>,
    pub rest: Vec<String>,
}

impl Flags {
    /// `valued` and `bare`: single letters, and long names without their dashes, that are known.
    pub fn read(args: &[String], valued: &[&str], bare: &[&str]) -> Result<Self, Stop> {
        let (mut given, mut rest) = (vec![], vec![]);
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if let Some(long) = arg.strip_prefix("--").filter(|it| !it.is_empty()) {
                let (name, value) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (long, None),
                };
                if valued.contains(&name) {
                    let value = value.or_else(|| args.next().cloned());
                    given.push((name.to_owned(), value.unwrap_or_default()));
                } else if bare.contains(&name) {
                    given.push((name.to_owned(), String::new()));
                } else {
                    return unknown(format!("the flag --{name}"));
                }
                continue;
            }
            let Some(letters) = arg.strip_prefix('-').filter(|it| !it.is_empty()) else {
                rest.push(arg.clone());
                continue;
            };
            for (at, letter) in letters.char_indices() {
                let name = letter.to_string();
                if valued.contains(&name.as_str()) {
                    let inside = &letters[at + letter.len_utf8()..];
                    let value = match inside {
                        "" => args.next().cloned().unwrap_or_default(),
                        inside => inside.to_owned(),
                    };
                    given.push((name, value));
                    break;
                }
                if !bare.contains(&name.as_str()) {
                    return unknown(format!("the flag -{letter}"));
                }
                given.push((name, String::new()));
            }
        }
        Ok(Self { given, rest })
    }

    pub fn value(&self, names: &[&str]) -> Option<&str> {
        let mut all = self.given.iter().rev();
        let found = all.find(|(name, _)| names.contains(&name.as_str()))?;
        Some(&found.1)
    }

    pub fn has(&self, names: &[&str]) -> bool {
        self.value(names).is_some()
    }

    pub fn patience(&self, names: &[&str]) -> Duration {
        let given = names.iter().filter_map(|it| seconds(self.value(&[it])?));
        given.filter(|it| !it.is_zero()).min().unwrap_or(PATIENCE)
    }
}
