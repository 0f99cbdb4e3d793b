//! Commands that somebody runs in a container, one after the other. Unlike a container's own process they do what
//! they can: a command that is not simulated says so, and fails alone.

use super::{
    LONGEST,
    disk::{Change, Disk},
    machine::{Chunk, Machine, Stdin, Stop},
    net::{Answer, Question},
    tools::KNOWN,
};
use crate::behaviour::Draw;
use jiff::Timestamp;
use std::{collections::BTreeMap, time::Duration};

/// What may be printed by a command at most.
const MOST_PRINTED: usize = 64 << 20;
/// What the files of a container may measure together.
const ROOM: usize = 8 << 20;

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this code.
    Code(i32),
    /// With this code, and the shell with it.
    Exit(i32),
    /// Not while anybody looks.
    Endless,
    /// It reads what has not been given: nothing of it has happened.
    Reads,
    /// It asks others in its network: nothing of it has happened. It is to be run again once the answer is known.
    Asks,
}

/// What comes of a command.
#[derive(Clone, Debug)]
pub struct Said {
    /// What it prints; times are from its start.
    pub printed: Vec<Chunk>,
    /// What it changes of files.
    pub changes: Vec<Change>,
    /// How it ends.
    pub end: Ended,
    /// When it ends.
    pub took: Duration,
}

/// A shell, or a command in its place.
pub struct Session {
    machine: Machine,
    asks: Option<Question>,
}

impl Session {
    /// One that begins now. `what` is said where a command is not known.
    pub fn new(
        variables: BTreeMap<String, String>,
        mut disk: Disk,
        now: Timestamp,
        what: &str,
    ) -> Self {
        disk.room = Some(ROOM);
        let mut machine = Machine::new(variables, disk, LONGEST, Draw::new(0));
        machine.began = now;
        machine.most = MOST_PRINTED;
        let known = KNOWN.join(", ");
        machine.lenient = Some(format!(
            "{what} is simulated by Gantry and runs nothing; known here: {known}, tar"
        ));
        machine.heard = Some(vec![]);
        Self {
            machine,
            asks: None,
        }
    }

    /// The same, followed no longer than this.
    #[must_use]
    pub fn until(mut self, horizon: Duration) -> Self {
        self.machine.horizon = horizon;
        self
    }

    /// Runs a command. Without `input` it stops where it would read some.
    pub fn run(&mut self, words: &[String], input: Option<&[u8]>) -> Said {
        self.step(input, |it| it.command(words, None))
    }

    /// Runs a line of a shell.
    pub fn script(&mut self, text: &str, input: Option<&[u8]>) -> Said {
        self.step(input, |it| it.script(text))
    }

    fn step(
        &mut self,
        input: Option<&[u8]>,
        run: impl FnOnce(&mut Machine) -> Result<i32, Stop>,
    ) -> Said {
        let began = self.machine.clock;
        let before = self.machine.clone();
        let stdin = input.map_or(Stdin::Asked, |it| Stdin::Given(it.to_vec()));
        self.machine.anew(stdin);
        let end = match run(&mut self.machine) {
            Ok(code) => Ended::Code(code),
            Err(Stop::Exit(code)) => Ended::Exit(code),
            Err(Stop::Endless) => Ended::Endless,
            Err(Stop::Reads) => return self.again(before, Ended::Reads),
            Err(Stop::Asks(question)) => {
                self.asks = Some(*question);
                return self.again(before, Ended::Asks);
            }
            // Words that cannot be worked out: it is not known what of the line would be left.
            Err(Stop::Unknown(why)) => {
                self.machine.back_to_console();
                let said = self.machine.fail(2, &format!("sh: {why}"));
                Ended::Code(said.unwrap_or(2))
            }
        };
        self.machine.heard = Some(vec![]);
        let mut printed = std::mem::take(&mut self.machine.printed);
        for chunk in &mut printed {
            chunk.at -= began;
        }
        let mut changes = std::mem::take(&mut self.machine.disk.changes);
        for (at, ..) in &mut changes {
            *at -= began;
        }
        Said {
            printed,
            changes,
            end,
            took: self.machine.clock - began,
        }
    }

    /// As it was before a command that is to be run again.
    fn again(&mut self, before: Machine, end: Ended) -> Said {
        self.machine = before;
        Said {
            printed: vec![],
            changes: vec![],
            end,
            took: Duration::ZERO,
        }
    }

    /// What the command that was run last asks others.
    pub fn asked(&mut self) -> Option<Question> {
        self.asks.take()
    }

    /// What they have answered, and how long that took.
    pub fn hear(&mut self, answer: Answer, took: Duration) {
        self.machine
            .heard
            .get_or_insert_default()
            .push((answer, took));
    }

    /// Its files.
    pub fn disk(&mut self) -> &mut Disk {
        &mut self.machine.disk
    }

    /// Where it is.
    pub fn folder(&self) -> &str {
        &self.machine.folder
    }
}
