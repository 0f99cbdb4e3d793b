//! Shell scripts, as far as simulated containers run them: read into a tree.

/// What is refused, and why: a script that uses it is not run at all.
pub type Refused = String;

/// Commands, one after the other.
pub type List = Vec<Node>;

/// A part of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// Variables set, words, and where output goes.
    Simple {
        sets: Vec<(String, Word)>,
        words: Vec<Word>,
        into: Vec<Into>,
    },
    /// The output of each is the input of the next.
    Pipe(List),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Not(Box<Node>),
    If {
        arms: Vec<(List, List)>,
        otherwise: List,
    },
    /// `until` is a loop whose test is to fail.
    While {
        test: List,
        body: List,
        until: bool,
    },
    For {
        name: String,
        items: Vec<Word>,
        body: List,
    },
    Group(List, Vec<Into>),
}

/// A redirection of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Into {
    /// Of standard error, instead of standard output.
    pub error: bool,
    pub append: bool,
    /// Where to; `None` is where the other output goes.
    pub file: Option<Word>,
}

/// A word before its expansion.
pub type Word = Vec<Part>;

/// A part of a word. What is quoted is not split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(String),
    Variable {
        name: String,
        /// `${NAME:-OTHERWISE}`
        otherwise: Option<String>,
        quoted: bool,
    },
    Output {
        of: List,
        quoted: bool,
    },
    Sum(String),
}

/// How deeply commands may nest.
const DEEPEST: usize = 32;

struct Reader {
    chars: Vec<char>,
    at: usize,
    depth: usize,
}

/// Reads a script.
pub fn script(text: &str) -> Result<List, Refused> {
    let mut reader = Reader {
        chars: text.chars().collect(),
        at: 0,
        depth: 0,
    };
    let list = reader.list(&[])?;
    match reader.peek() {
        None => Ok(list),
        Some(it) => Err(format!("unexpected `{it}`")),
    }
}

/// Words that end a list where they stand first.
const KEYWORDS: [&str; 11] = [
    "if", "then", "elif", "else", "fi", "while", "until", "for", "do", "done", "}",
];

impl Reader {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn ahead(&self, by: usize) -> Option<char> {
        self.chars.get(self.at + by).copied()
    }

    fn take(&mut self, it: char) -> bool {
        let there = self.peek() == Some(it);
        self.at += usize::from(there);
        there
    }

    /// Skips blanks, comments and escaped line ends.
    fn blanks(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r') => self.at += 1,
                Some('\\') if self.ahead(1) == Some('\n') => self.at += 2,
                Some('#') => {
                    while self.peek().is_some_and(|it| it != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    fn lines(&mut self) {
        loop {
            self.blanks();
            match self.peek() {
                Some('\n' | ';') => self.at += 1,
                _ => return,
            }
        }
    }

    /// The bare word that stands here, left where it is.
    fn bare(&self) -> String {
        let rest = self.chars[self.at.min(self.chars.len())..].iter();
        rest.take_while(|it| !it.is_whitespace() && !matches!(it, ';' | '|' | '&' | ')'))
            .collect()
    }

    fn keyword(&mut self, word: &str) -> Result<(), Refused> {
        self.lines();
        if self.bare() != word {
            return Err(format!("`{word}` is missing"));
        }
        self.at += word.chars().count();
        Ok(())
    }

    /// Commands up to one of these words, a closing parenthesis or the end.
    fn list(&mut self, ends: &[&str]) -> Result<List, Refused> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err("commands nest too deeply".to_owned());
        }
        let mut list = vec![];
        loop {
            self.lines();
            let next = self.bare();
            if matches!(self.peek(), None | Some(')')) || ends.contains(&next.as_str()) {
                break;
            }
            list.push(self.chain()?);
            self.blanks();
            match self.peek() {
                None | Some('\n' | ';' | ')') => {}
                Some('&') => return Err("`&` is not simulated".to_owned()),
                Some(it) => return Err(format!("unexpected `{it}`")),
            }
        }
        self.depth -= 1;
        Ok(list)
    }

    fn chain(&mut self) -> Result<Node, Refused> {
        let mut left = self.pipe()?;
        loop {
            self.blanks();
            let (first, second) = (self.peek(), self.ahead(1));
            let and = match (first, second) {
                (Some('&'), Some('&')) => true,
                (Some('|'), Some('|')) => false,
                _ => return Ok(left),
            };
            self.at += 2;
            self.lines();
            let (a, b) = (Box::new(left), Box::new(self.pipe()?));
            left = if and { Node::And(a, b) } else { Node::Or(a, b) };
        }
    }

    fn pipe(&mut self) -> Result<Node, Refused> {
        self.blanks();
        if self.peek() == Some('!') && self.ahead(1) == Some(' ') {
            self.at += 1;
            return Ok(Node::Not(Box::new(self.pipe()?)));
        }
        let mut parts = vec![self.command()?];
        loop {
            self.blanks();
            if self.peek() != Some('|') || self.ahead(1) == Some('|') {
                break;
            }
            self.at += 1;
            self.lines();
            parts.push(self.command()?);
        }
        match (parts.pop(), parts.is_empty()) {
            (Some(one), true) => Ok(one),
            (Some(last), false) => {
                parts.push(last);
                Ok(Node::Pipe(parts))
            }
            (None, _) => Err("a command is missing".to_owned()),
        }
    }

    fn command(&mut self) -> Result<Node, Refused> {
        self.blanks();
        if self.take('(') {
            let list = self.list(&[])?;
            if !self.take(')') {
                return Err("`)` is missing".to_owned());
            }
            // A process of its own.
            return Ok(Node::Pipe(vec![Node::Group(list, self.redirections()?)]));
        }
        match self.bare().as_str() {
            "{" => {
                self.at += 1;
                let list = self.list(&["}"])?;
                self.keyword("}")?;
                Ok(Node::Group(list, self.redirections()?))
            }
            "if" => self.condition(),
            word @ ("while" | "until") => {
                let until = word == "until";
                self.at += 5;
                let test = self.list(&["do"])?;
                let body = self.body()?;
                Ok(Node::While { test, body, until })
            }
            "for" => {
                self.at += 3;
                self.blanks();
                let name = self.bare();
                self.at += name.chars().count();
                self.keyword("in")?;
                let mut items = vec![];
                loop {
                    self.blanks();
                    if matches!(self.peek(), None | Some('\n' | ';')) {
                        break;
                    }
                    items.push(self.word()?);
                }
                let body = self.body()?;
                Ok(Node::For { name, items, body })
            }
            word if KEYWORDS.contains(&word) => Err(format!("unexpected `{word}`")),
            _ => self.simple(),
        }
    }

    fn body(&mut self) -> Result<List, Refused> {
        self.keyword("do")?;
        let body = self.list(&["done"])?;
        self.keyword("done")?;
        Ok(body)
    }

    fn condition(&mut self) -> Result<Node, Refused> {
        self.at += 2;
        let mut arms = vec![];
        loop {
            let test = self.list(&["then"])?;
            self.keyword("then")?;
            arms.push((test, self.list(&["elif", "else", "fi"])?));
            match self.bare().as_str() {
                "elif" => self.at += 4,
                _ => break,
            }
        }
        let mut otherwise = vec![];
        if self.bare() == "else" {
            self.at += 4;
            otherwise = self.list(&["fi"])?;
        }
        self.keyword("fi")?;
        Ok(Node::If { arms, otherwise })
    }

    fn redirections(&mut self) -> Result<Vec<Into>, Refused> {
        let mut into = vec![];
        loop {
            self.blanks();
            match self.redirection()? {
                Some(it) => into.push(it),
                None => return Ok(into),
            }
        }
    }

    /// `>`, `>>`, `2>`, `2>&1` and the like.
    fn redirection(&mut self) -> Result<Option<Into>, Refused> {
        let numbered = matches!(self.peek(), Some('1' | '2')) && self.ahead(1) == Some('>');
        let error = numbered && self.peek() == Some('2');
        if numbered {
            self.at += 1;
        }
        if self.peek() == Some('<') {
            return Err("`<` is not simulated".to_owned());
        }
        if !self.take('>') {
            return Ok(None);
        }
        let append = self.take('>');
        if self.take('&') {
            if matches!(self.peek(), Some('1' | '2')) {
                self.at += 1;
                return Ok(Some(Into {
                    error,
                    append: true,
                    file: None,
                }));
            }
            return Err("this redirection is not simulated".to_owned());
        }
        self.blanks();
        Ok(Some(Into {
            error,
            append,
            file: Some(self.word()?),
        }))
    }

    fn simple(&mut self) -> Result<Node, Refused> {
        let (mut sets, mut words, mut into) = (vec![], vec![], vec![]);
        let start = self.at;
        loop {
            self.blanks();
            if let Some(it) = self.redirection()? {
                into.push(it);
                continue;
            }
            if matches!(self.peek(), None | Some('\n' | ';' | '|' | '&' | ')')) {
                break;
            }
            if words.is_empty()
                && let Some(name) = self.assignment()
            {
                let value = match self.peek() {
                    None | Some(' ' | '\t' | '\n' | ';' | '|' | '&' | ')') => vec![],
                    _ => self.word()?,
                };
                sets.push((name, value));
                continue;
            }
            words.push(self.word()?);
        }
        if self.at == start {
            return Err("a command is missing".to_owned());
        }
        Ok(Node::Simple { sets, words, into })
    }

    /// `NAME=`, passed over.
    fn assignment(&mut self) -> Option<String> {
        let rest = &self.chars[self.at..];
        let length = rest
            .iter()
            .take_while(|it| it.is_ascii_alphanumeric() || **it == '_')
            .count();
        if length == 0 || rest[0].is_ascii_digit() || rest.get(length) != Some(&'=') {
            return None;
        }
        let name = rest[..length].iter().collect();
        self.at += length + 1;
        Some(name)
    }

    fn word(&mut self) -> Result<Word, Refused> {
        let mut parts: Word = vec![];
        let mut text = String::new();
        let mut any = false;
        while let Some(it) = self.peek() {
            match it {
                ' ' | '\t' | '\r' | '\n' | ';' | '|' | '&' | ')' | '>' | '<' => break,
                '(' => return Err("`(` is not simulated here".to_owned()),
                '\'' => {
                    self.at += 1;
                    loop {
                        match self.peek() {
                            None => return Err("unterminated quoted string".to_owned()),
                            Some('\'') => break,
                            Some(it) => text.push(it),
                        }
                        self.at += 1;
                    }
                    self.at += 1;
                }
                '"' => {
                    self.at += 1;
                    loop {
                        match self.peek() {
                            None => return Err("unterminated quoted string".to_owned()),
                            Some('"') => break,
                            Some('\\') => {
                                self.at += 1;
                                match self.peek() {
                                    Some(it @ ('"' | '\\' | '$' | '`')) => text.push(it),
                                    Some('\n') => {}
                                    Some(it) => text.extend(['\\', it]),
                                    None => return Err("unterminated quoted string".to_owned()),
                                }
                                self.at += 1;
                            }
                            Some('$' | '`') => {
                                self.dollar(true, &mut parts, &mut text)?;
                            }
                            Some(it) => {
                                text.push(it);
                                self.at += 1;
                            }
                        }
                    }
                    self.at += 1;
                    // An empty quoted string is a word.
                    parts.push(Part::Text(std::mem::take(&mut text)));
                }
                '\\' => {
                    self.at += 1;
                    if let Some(it) = self.peek() {
                        if it != '\n' {
                            text.push(it);
                        }
                        self.at += 1;
                    }
                }
                '$' | '`' => self.dollar(false, &mut parts, &mut text)?,
                it => {
                    text.push(it);
                    self.at += 1;
                }
            }
            any = true;
        }
        if !any {
            return Err("a word is missing".to_owned());
        }
        if !text.is_empty() || parts.is_empty() {
            parts.push(Part::Text(text));
        }
        Ok(parts)
    }

    /// A variable, the output of commands, or a sum.
    fn dollar(&mut self, quoted: bool, parts: &mut Word, text: &mut String) -> Result<(), Refused> {
        if !text.is_empty() {
            parts.push(Part::Text(std::mem::take(text)));
        }
        if self.take('`') {
            let rest = &self.chars[self.at..];
            let Some(length) = rest.iter().position(|it| *it == '`') else {
                return Err("unterminated quoted string".to_owned());
            };
            let inside: String = rest[..length].iter().collect();
            self.at += length + 1;
            let of = script(&inside)?;
            parts.push(Part::Output { of, quoted });
            return Ok(());
        }
        self.at += 1;
        match (self.peek(), self.ahead(1)) {
            (Some('('), Some('(')) => {
                let rest = &self.chars[self.at + 2..];
                let Some(length) = rest.windows(2).position(|it| it == [')', ')']) else {
                    return Err("`))` is missing".to_owned());
                };
                parts.push(Part::Sum(rest[..length].iter().collect()));
                self.at += length + 4;
            }
            (Some('('), _) => {
                self.at += 1;
                let of = self.list(&[])?;
                if !self.take(')') {
                    return Err("`)` is missing".to_owned());
                }
                parts.push(Part::Output { of, quoted });
            }
            (Some('{'), _) => {
                let rest = &self.chars[self.at + 1..];
                let Some(length) = rest.iter().position(|it| *it == '}') else {
                    return Err("`}` is missing".to_owned());
                };
                let inside: String = rest[..length].iter().collect();
                self.at += length + 2;
                let (name, otherwise) = match inside.split_once(":-") {
                    Some((name, otherwise)) => (name.to_owned(), Some(otherwise.to_owned())),
                    None => (inside, None),
                };
                if !name
                    .chars()
                    .all(|it| it.is_ascii_alphanumeric() || it == '_')
                {
                    return Err(format!("`${{{name}}}` is not simulated"));
                }
                parts.push(Part::Variable {
                    name,
                    otherwise,
                    quoted,
                });
            }
            (Some('?'), _) => {
                self.at += 1;
                parts.push(Part::Variable {
                    name: "?".to_owned(),
                    otherwise: None,
                    quoted,
                });
            }
            (Some(it), _) if it.is_ascii_alphabetic() || it == '_' => {
                let rest = self.chars[self.at..].iter();
                let name: String = rest
                    .take_while(|it| it.is_ascii_alphanumeric() || **it == '_')
                    .collect();
                self.at += name.len();
                parts.push(Part::Variable {
                    name,
                    otherwise: None,
                    quoted,
                });
            }
            (Some(it), _) if it.is_ascii_digit() || matches!(it, '$' | '!' | '@' | '*' | '#') => {
                return Err(format!("`${it}` is not simulated"));
            }
            _ => text.push('$'),
        }
        Ok(())
    }
}
