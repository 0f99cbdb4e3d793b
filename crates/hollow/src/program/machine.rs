//! Runs scripts: at once, on a clock that only `sleep` moves.

use super::{
    disk::{Change, Disk},
    net::{Answer, Question},
    parse::{self, Into, List, Node, Part, Word},
    tools,
};
use crate::behaviour::Draw;
use jiff::Timestamp;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Why a script does not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It has ended, with this code.
    Exit(i32),
    /// It goes on as long as anybody looks.
    Endless,
    /// It reads what is not known yet.
    Reads,
    /// It asks others in its network, and the answer is not known yet.
    Asks(Box<Question>),
    /// It does what is not simulated.
    Unknown(String),
}

/// What comes of a command.
pub type Ran = Result<i32, Stop>;

/// Where an output goes.
#[derive(Clone, Debug)]
enum Target {
    Out,
    Error,
    Kept,
    File(String),
}

/// What is printed at a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// When, from the start of the program.
    pub at: Duration,
    /// Whether to standard error.
    pub error: bool,
    /// What.
    pub bytes: Vec<u8>,
}

/// What a program finds on its standard input.
#[derive(Clone, Debug)]
pub enum Stdin {
    /// Its end.
    Closed,
    /// Nothing, for as long as anybody looks.
    Quiet,
    /// What is not known yet: who reads it stops there.
    Asked,
    /// This, once.
    Given(Vec<u8>),
}

/// A program while it runs.
#[derive(Clone)]
pub struct Machine {
    /// Its variables.
    pub variables: BTreeMap<String, String>,
    /// Its files.
    pub disk: Disk,
    /// Where it is.
    pub folder: String,
    /// How long it has run.
    pub clock: Duration,
    /// What it has printed.
    pub printed: Vec<Chunk>,
    /// As far as it is followed.
    pub horizon: Duration,
    /// Random numbers.
    pub draw: Draw,
    /// What it may read.
    pub stdin: Stdin,
    /// When its clock began.
    pub began: Timestamp,
    /// What is said of commands that are not known, which then fail alone; `None`: nothing of a program that
    /// has one is run.
    pub lenient: Option<String>,
    /// What it may print at most.
    pub most: usize,
    /// What others have answered since its beginning, and how long each took; `None`: it has no network.
    pub heard: Option<Vec<(Answer, Duration)>>,
    /// How many of them it has listened to.
    listened: usize,
    /// What others do to its files, at which time.
    pub coming: VecDeque<Change>,
    size: usize,
    steps: u32,
    last: i32,
    out: Target,
    error: Target,
    kept: Vec<Vec<u8>>,
}

/// Commands that are run at most: a loop that has not ended by then never does.
const MOST_STEPS: u32 = 20_000;
/// What may be printed at most.
const MOST_PRINTED: usize = 256 * 1024;

impl Machine {
    /// A program that has not run yet.
    pub fn new(
        variables: BTreeMap<String, String>,
        disk: Disk,
        horizon: Duration,
        draw: Draw,
    ) -> Self {
        Self {
            variables,
            disk,
            folder: "/".to_owned(),
            clock: Duration::ZERO,
            printed: vec![],
            horizon,
            draw,
            stdin: Stdin::Closed,
            began: Timestamp::UNIX_EPOCH,
            lenient: None,
            most: MOST_PRINTED,
            heard: None,
            listened: 0,
            coming: VecDeque::new(),
            size: 0,
            steps: 0,
            last: 0,
            out: Target::Out,
            error: Target::Error,
            kept: vec![],
        }
    }

    /// Runs a script in the words of a command line.
    pub fn script(&mut self, text: &str) -> Ran {
        match parse::script(text) {
            Ok(list) => self.list(&list),
            Err(why) if self.lenient.is_some() => self.fail(2, &format!("sh: {why}")),
            Err(why) => Err(Stop::Unknown(why)),
        }
    }

    /// Begins a further command, with what it may read.
    pub fn anew(&mut self, stdin: Stdin) {
        self.stdin = stdin;
        self.printed.clear();
        self.disk.changes.clear();
        (self.size, self.steps, self.listened) = (0, 0, 0);
        self.back_to_console();
    }

    /// Outputs go where they went at first: a command that was given up had perhaps redirected them.
    pub fn back_to_console(&mut self) {
        (self.out, self.error) = (Target::Out, Target::Error);
        self.kept.clear();
    }

    /// What a command reads that is piped nothing; `None` at its end.
    pub fn read(&mut self) -> Result<Option<Vec<u8>>, Stop> {
        match std::mem::replace(&mut self.stdin, Stdin::Closed) {
            Stdin::Closed => Ok(None),
            Stdin::Given(bytes) => Ok(Some(bytes)),
            Stdin::Quiet => Err(Stop::Endless),
            Stdin::Asked => Err(Stop::Reads),
        }
    }

    /// Asks others in the network.
    pub fn ask(&mut self, question: Question) -> Result<Answer, Stop> {
        let Some(heard) = &self.heard else {
            return Err(Stop::Unknown("the network".to_owned()));
        };
        let Some((answer, took)) = heard.get(self.listened).cloned() else {
            return Err(Stop::Asks(Box::new(question)));
        };
        self.listened += 1;
        self.sleep(took)?;
        Ok(answer)
    }

    /// Passes time.
    pub fn sleep(&mut self, time: Duration) -> Ran {
        self.clock = self.clock.saturating_add(time);
        while let Some((_, path, content)) = self.coming.pop_front_if(|(at, ..)| *at <= self.clock)
        {
            match content {
                Some(content) => self.disk.put(&path, content),
                None => self.disk.erase(&path),
            }
        }
        match self.clock > self.horizon {
            true => Err(Stop::Endless),
            false => Ok(0),
        }
    }

    /// Prints.
    pub fn print(&mut self, text: impl AsRef<[u8]>) -> Ran {
        let to = self.out.clone();
        self.put(&to, text.as_ref())
    }

    /// Complains, with this code.
    pub fn fail(&mut self, code: i32, text: &str) -> Ran {
        let to = self.error.clone();
        self.put(&to, format!("{text}\n").as_bytes())?;
        Ok(code)
    }

    fn put(&mut self, to: &Target, bytes: &[u8]) -> Ran {
        if bytes.is_empty() {
            return Ok(0);
        }
        match to {
            Target::Kept => {
                if let Some(kept) = self.kept.last_mut() {
                    kept.extend_from_slice(bytes);
                }
            }
            Target::File(path) => {
                // That it could be opened was seen before.
                let _ = self.disk.write(self.clock, path, bytes, true);
            }
            Target::Out | Target::Error => {
                self.size += bytes.len();
                if self.size > self.most {
                    return Err(Stop::Endless);
                }
                self.printed.push(Chunk {
                    at: self.clock,
                    error: matches!(to, Target::Error),
                    bytes: bytes.to_vec(),
                });
            }
        }
        Ok(0)
    }

    /// What is printed meanwhile.
    fn keeping(&mut self, run: impl FnOnce(&mut Self) -> Ran) -> (Ran, Vec<u8>) {
        self.kept.push(vec![]);
        let before = std::mem::replace(&mut self.out, Target::Kept);
        let ran = run(self);
        self.out = before;
        (ran, self.kept.pop().unwrap_or_default())
    }

    fn list(&mut self, list: &List) -> Ran {
        let mut code = 0;
        for node in list {
            code = self.node(node, None)?;
            self.last = code;
        }
        Ok(code)
    }

    fn node(&mut self, node: &Node, input: Option<Vec<u8>>) -> Ran {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            return Err(Stop::Endless);
        }
        match node {
            Node::And(a, b) => match self.node(a, input)? {
                0 => self.node(b, None),
                code => Ok(code),
            },
            Node::Or(a, b) => match self.node(a, input)? {
                0 => Ok(0),
                code => {
                    self.last = code;
                    self.node(b, None)
                }
            },
            Node::Not(it) => Ok(i32::from(self.node(it, input)? == 0)),
            Node::Pipe(parts) => {
                let Some((last, first)) = parts.split_last() else {
                    return Ok(0);
                };
                let mut input = input;
                for part in first {
                    let (ran, kept) = self.keeping(|it| it.aside(|it| it.node(part, input.take())));
                    ran?;
                    input = Some(kept);
                }
                self.aside(|it| it.node(last, input.take()))
            }
            Node::If { arms, otherwise } => {
                for (test, body) in arms {
                    if self.list(test)? == 0 {
                        return self.list(body);
                    }
                }
                self.list(otherwise)
            }
            Node::While { test, body, until } => {
                while (self.list(test)? == 0) != *until {
                    self.list(body)?;
                }
                Ok(0)
            }
            Node::For { name, items, body } => {
                let mut code = 0;
                for item in self.words(items)? {
                    self.variables.insert(name.clone(), item);
                    code = self.list(body)?;
                }
                Ok(code)
            }
            Node::Group(list, into) => self.into(into, |it| it.list(list)),
            Node::Simple { sets, words, into } => {
                let words = self.words(words)?;
                let mut before = vec![];
                for (name, value) in sets {
                    let value = self.word(value)?;
                    let old = self.variables.insert(name.clone(), value);
                    before.push((name, old));
                }
                if words.is_empty() {
                    return self.into(into, |_| Ok(0));
                }
                let ran = self.into(into, |it| it.command(&words, input));
                // Variables set for one command.
                for (name, old) in before {
                    match old {
                        Some(old) => self.variables.insert(name.clone(), old),
                        None => self.variables.remove(name),
                    };
                }
                ran
            }
        }
    }

    /// A command of its own process: its end is not the script's.
    fn aside(&mut self, run: impl FnOnce(&mut Self) -> Ran) -> Ran {
        let (folder, variables) = (self.folder.clone(), self.variables.clone());
        let ran = run(self);
        (self.folder, self.variables) = (folder, variables);
        match ran {
            Err(Stop::Exit(code)) => Ok(code),
            ran => ran,
        }
    }

    /// Runs with outputs going elsewhere.
    fn into(&mut self, into: &[Into], run: impl FnOnce(&mut Self) -> Ran) -> Ran {
        let before = (self.out.clone(), self.error.clone());
        let mut opened = Ok(0);
        for it in into {
            let target = match &it.file {
                None if it.error => self.out.clone(),
                None => self.error.clone(),
                Some(word) => {
                    let name = self.word(word)?;
                    match name.as_str() {
                        "/dev/stdout" | "/proc/1/fd/1" => Target::Out,
                        "/dev/stderr" => Target::Error,
                        name => {
                            let path = Disk::path(&self.folder, name);
                            let made = self.disk.write(self.clock, &path, b"", it.append);
                            if let Err(why) = made {
                                opened = self.fail(1, &format!("sh: can't create {name}: {why}"));
                                break;
                            }
                            Target::File(path)
                        }
                    }
                }
            };
            match it.error {
                true => self.error = target,
                false => self.out = target,
            }
        }
        let ran = match opened {
            Ok(0) => run(self),
            refused => refused,
        };
        (self.out, self.error) = before;
        ran
    }

    /// A command with its arguments, from a script or as the whole program.
    pub fn command(&mut self, words: &[String], input: Option<Vec<u8>>) -> Ran {
        let name = tools::name(words);
        let (Some(first), rest) = (words.first(), words.get(1..).unwrap_or_default()) else {
            return Ok(0);
        };
        match name {
            "exit" if first == "exit" => {
                let code = rest.first().map_or(Ok(self.last), |it| it.parse::<i32>());
                Err(Stop::Exit(code.map_or(2, |it| it & 0xff)))
            }
            "exec" if first == "exec" && !rest.is_empty() => {
                let code = self.command(rest, input)?;
                Err(Stop::Exit(code))
            }
            "sh" | "bash" | "ash" | "dash" => {
                let flag = rest.iter().position(|it| {
                    it.starts_with('-') && it.ends_with('c') && !it.starts_with("--")
                });
                match flag.and_then(|at| rest.get(at + 1)) {
                    Some(script) => self.aside(|it| it.script(script)),
                    None if rest.is_empty() => match self.read()? {
                        Some(typed) => {
                            let script = String::from_utf8_lossy(&typed).into_owned();
                            self.aside(|it| it.script(&script))
                        }
                        None => Ok(0),
                    },
                    None => Err(Stop::Unknown("a shell without a script".to_owned())),
                }
            }
            _ => match (tools::run(self, words, input), &self.lenient) {
                (Err(Stop::Unknown(why)), Some(_)) if tools::known(name) => {
                    self.fail(2, &format!("{name}: {why}: not simulated"))
                }
                (Err(Stop::Unknown(_)), Some(said)) => {
                    let said = format!("{first}: not found: {said}");
                    self.fail(127, &said)
                }
                (ran, _) => ran,
            },
        }
    }

    fn words(&mut self, words: &[Word]) -> Result<Vec<String>, Stop> {
        let mut all = vec![];
        for word in words {
            // Only what is not quoted is split, and is nothing when empty.
            let mut fields: Vec<String> = vec![];
            let mut open = false;
            for part in word {
                let (text, quoted) = self.part(part)?;
                if quoted {
                    match fields.last_mut().filter(|_| open) {
                        Some(field) => *field += &text,
                        None => fields.push(text),
                    }
                    open = true;
                    continue;
                }
                let begins = text.starts_with(char::is_whitespace);
                let ends = text.ends_with(char::is_whitespace);
                for (i, piece) in text.split_whitespace().enumerate() {
                    match fields.last_mut().filter(|_| open && i == 0 && !begins) {
                        Some(field) => *field += piece,
                        None => fields.push(piece.to_owned()),
                    }
                    open = true;
                }
                open &= !ends;
            }
            all.extend(fields);
        }
        Ok(all)
    }

    fn word(&mut self, word: &Word) -> Result<String, Stop> {
        let mut text = String::new();
        for part in word {
            text += &self.part(part)?.0;
        }
        Ok(text)
    }

    /// A part's text, and whether it stays in one piece.
    fn part(&mut self, part: &Part) -> Result<(String, bool), Stop> {
        Ok(match part {
            Part::Text(text) => (text.clone(), true),
            Part::Variable {
                name,
                otherwise,
                quoted,
            } => {
                let value = self.variable(name);
                let value = match (value.is_empty(), otherwise) {
                    (true, Some(otherwise)) => otherwise.clone(),
                    _ => value,
                };
                (value, *quoted)
            }
            Part::Output { of, quoted } => {
                let (ran, kept) = self.keeping(|it| it.aside(|it| it.list(of)));
                self.last = ran?;
                let text = String::from_utf8_lossy(&kept);
                (text.trim_end_matches('\n').to_owned(), *quoted)
            }
            Part::Sum(text) => (self.sum(text)?.to_string(), true),
        })
    }

    fn variable(&mut self, name: &str) -> String {
        match name {
            "?" => self.last.to_string(),
            "RANDOM" => {
                self.draw = self.draw.number(u64::from(self.steps) + 1);
                (self.draw.bits() % 32768).to_string()
            }
            name => self.variables.get(name).cloned().unwrap_or_default(),
        }
    }

    /// Sums of whole numbers, from left to right within their rank.
    fn sum(&mut self, text: &str) -> Result<i64, Stop> {
        let mut total: i64 = 0;
        let mut term: Option<i64> = None;
        let mut sign = 1;
        let mut operator = '+';
        let spaced = ["+", "-", "*", "/", "%"]
            .iter()
            .fold(text.to_owned(), |text, it| {
                text.replace(it, &format!(" {it} "))
            });
        let unknown = || Stop::Unknown(format!("the sum `{text}` is not simulated"));
        for word in spaced.split_whitespace() {
            if let "+" | "-" | "*" | "/" | "%" = word {
                if matches!(word, "+" | "-")
                    && let Some(term) = term.take()
                {
                    total = total.wrapping_add(sign * term);
                    sign = if word == "-" { -1 } else { 1 };
                }
                operator = word.chars().next().unwrap_or('+');
                continue;
            }
            let value = match word.parse::<i64>() {
                Ok(value) => value,
                Err(_) => {
                    let name = word.trim_start_matches('$');
                    if name.is_empty()
                        || !name
                            .chars()
                            .all(|it| it.is_ascii_alphanumeric() || it == '_')
                    {
                        return Err(unknown());
                    }
                    self.variable(name).trim().parse().unwrap_or(0)
                }
            };
            term = Some(match (term, operator) {
                (None, _) => value,
                (Some(left), '*') => left.wrapping_mul(value),
                (Some(left), '/') => left.checked_div(value).ok_or_else(unknown)?,
                (Some(left), '%') => left.checked_rem(value).ok_or_else(unknown)?,
                _ => return Err(unknown()),
            });
        }
        Ok(total.wrapping_add(sign * term.unwrap_or(0)))
    }
}
