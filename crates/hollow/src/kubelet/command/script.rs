//! Scripts of a shell: commands one after the other, joined by `;`, `&&` and `||`.

use super::{Console, Flow, Place, exit_code, one, run};
use crate::kubelet::files::absolute;
use std::pin::Pin;

/// A command of a script: its words, where its output goes, and what joins it to the one before.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) words: Vec<String>,
    pub(super) into: Option<String>,
    pub(super) after: After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    Always,
    Success,
    Failure,
}

/// Runs the commands of a script.
pub(super) fn script_of<'a>(
    place: &'a mut Place,
    console: &'a mut Console,
    script: &'a str,
) -> Pin<Box<dyn Future<Output = Flow> + Send + 'a>> {
    Box::pin(async move {
        let env = place.env.clone();
        let mut last = 0;
        let steps = match steps(script) {
            Ok(steps) => steps,
            Err(why) => {
                console.print(true, format!("sh: {why}\n").as_bytes()).await;
                return Flow::Next(2);
            }
        };
        for step in steps {
            let skip = match step.after {
                After::Always => false,
                After::Success => last != 0,
                After::Failure => last == 0,
            };
            if skip {
                continue;
            }
            let words: Vec<String> = step
                .words
                .iter()
                .map(|it| expanded(it, &env, last))
                .collect();
            if words.first().is_some_and(|it| it == "exit") {
                return Flow::Exit(exit_code(&words[1..], last));
            }
            last = match step.into {
                None => run(place, console, &words).await,
                Some(file) => {
                    let done = one(place, console, &words).await;
                    console.print(true, done.err.as_bytes()).await;
                    match place.files.write(&absolute(&place.folder, &file), done.out) {
                        Ok(()) => done.code,
                        Err(why) => {
                            console
                                .print(true, format!("sh: {file}: {}\n", why.words()).as_bytes())
                                .await;
                            1
                        }
                    }
                }
            };
        }
        Flow::Next(last)
    })
}

/// Marks a `$` that is to be expanded, and one that is not, apart.
const VARIABLE: char = '\u{1}';

pub(super) fn expanded(word: &str, env: &[(String, String)], last: i32) -> String {
    let mut parts = word.split(VARIABLE);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = match part.strip_prefix('{').and_then(|it| it.split_once('}')) {
            Some(split) => split,
            None if part.starts_with('?') => part.split_at(1),
            None => {
                let end = part.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
                part.split_at(end.unwrap_or(part.len()))
            }
        };
        match name {
            "?" => out += &last.to_string(),
            "" => out.push('$'),
            name => {
                if let Some((_, value)) = env.iter().find(|(it, _)| it == name) {
                    out += value;
                }
            }
        }
        out += rest;
    }
    out
}

/// Splits a script into commands; what it uses beyond words, quotes, `;`, `&&`, `||` and `>` is refused.
pub(super) fn steps(script: &str) -> Result<Vec<Step>, String> {
    let mut steps = vec![];
    let (mut words, mut into, mut after) = (vec![], None, After::Always);
    let mut word: Option<String> = None;
    let mut redirect = false;
    let mut chars = script.chars().peekable();
    loop {
        let c = chars.next();
        let ends = matches!(c, None | Some(' ' | '\t' | '\n' | ';' | '&' | '|' | '>'));
        if ends && let Some(whole) = word.take() {
            match std::mem::take(&mut redirect) {
                true => into = Some(whole),
                false => words.push(whole),
            }
        }
        let next = match c {
            Some(' ' | '\t') => continue,
            None | Some('\n' | ';') => After::Always,
            Some('&') if chars.next_if_eq(&'&').is_some() => After::Success,
            Some('|') if chars.next_if_eq(&'|').is_some() => After::Failure,
            Some('>') if chars.peek() != Some(&'>') => {
                redirect = true;
                continue;
            }
            Some('#') if word.is_none() => {
                while chars.next_if(|it| *it != '\n').is_some() {}
                continue;
            }
            Some(quote @ ('\'' | '"')) => {
                let text = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err("unterminated quoted string".to_owned()),
                        Some(it) if it == quote => break,
                        Some('\\') if quote == '"' => text.extend(chars.next()),
                        Some('$') if quote == '"' => {
                            if chars.peek() == Some(&'(') {
                                return Err("`$(` is not simulated".to_owned());
                            }
                            text.push(VARIABLE);
                        }
                        Some(it) => text.push(it),
                    }
                }
                continue;
            }
            Some('\\') => {
                word.get_or_insert_default().extend(chars.next());
                continue;
            }
            Some('$') if chars.peek() != Some(&'(') => {
                word.get_or_insert_default().push(VARIABLE);
                continue;
            }
            Some(it @ ('&' | '|' | '<' | '>' | '`' | '(' | ')' | '$')) => {
                return Err(format!("`{it}` is not simulated"));
            }
            Some(it) => {
                word.get_or_insert_default().push(it);
                continue;
            }
        };
        if !words.is_empty() || into.is_some() {
            let (words, into) = (std::mem::take(&mut words), into.take());
            steps.push(Step { words, into, after });
        }
        after = next;
        if c.is_none() {
            return Ok(steps);
        }
    }
}
