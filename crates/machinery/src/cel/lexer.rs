//! Text to tokens, by the CEL language definition.

use std::sync::Arc;

use super::{ast::Literal, error::Issue};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Literal(Literal),
    Ident(Arc<str>),
    /// A name in backquotes, of a field that is no identifier.
    Quoted(Arc<str>),
    /// Operators and punctuation.
    Sign(&'static str),
    End,
}

const SIGNS: [&str; 26] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", "(", ")",
    "[", "]", "{", "}", ",", ".", "=", ";",
];

/// The tokens with their places, counted in characters; `End` is the last.
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Issue> {
    let chars: Vec<char> = text.chars().collect();
    let mut lexer = Lexer { chars, at: 0 };
    let mut out = Vec::new();
    loop {
        lexer.skip();
        let at = lexer.at;
        let token = lexer.token()?;
        let end = token == Token::End;
        out.push((at, token));
        if end {
            return Ok(out);
        }
    }
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn skip(&mut self) {
        while let Some(c) = self.peek(0) {
            if c == '/' && self.peek(1) == Some('/') {
                while self.peek(0).is_some_and(|c| c != '\n') {
                    self.at += 1;
                }
            } else if matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c') {
                self.at += 1;
            } else {
                break;
            }
        }
    }

    fn token(&mut self) -> Result<Token, Issue> {
        let Some(c) = self.peek(0) else {
            return Ok(Token::End);
        };
        if let Some(prefix) = self.string_prefix() {
            return self.string(prefix);
        }
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_some_and(|d| d.is_ascii_digit())) {
            return self.number();
        }
        if c.is_ascii_alphabetic() || c == '_' {
            let start = self.at;
            while self
                .peek(0)
                .is_some_and(|c| c.is_ascii_alphanumeric() || c == '_')
            {
                self.at += 1;
            }
            let name: String = self.chars[start..self.at].iter().collect();
            return Ok(match name.as_str() {
                "true" => Token::Literal(Literal::Bool(true)),
                "false" => Token::Literal(Literal::Bool(false)),
                "null" => Token::Literal(Literal::Null),
                "in" => Token::Sign("in"),
                _ => Token::Ident(name.into()),
            });
        }
        if c == '`' {
            let start = self.at + 1;
            let rest = self.chars.get(start..).unwrap_or_default();
            let length = rest.iter().position(|c| *c == '`');
            let name = length.map(|l| rest[..l].iter().collect::<String>());
            let valid = |n: &String| {
                !n.is_empty()
                    && n.chars()
                        .all(|c| c.is_ascii_alphanumeric() || "_.-/ ".contains(c))
            };
            if let Some(name) = name.filter(valid) {
                self.at = start + name.chars().count() + 1;
                return Ok(Token::Quoted(name.into()));
            }
        }
        for sign in SIGNS {
            if sign
                .chars()
                .enumerate()
                .all(|(i, c)| self.peek(i) == Some(c))
            {
                self.at += sign.len();
                return Ok(Token::Sign(sign));
            }
        }
        Err(Issue::new(
            self.at,
            format!("Syntax error: token recognition error at: '{c}'"),
        ))
    }

    /// `r"`, `b'`, `br"`, `"`, … : whether raw, whether bytes, and the length of the prefix.
    fn string_prefix(&self) -> Option<(bool, bool, usize)> {
        let (mut raw, mut bytes, mut length) = (false, false, 0);
        loop {
            match self.peek(length)? {
                '"' | '\'' => return Some((raw, bytes, length)),
                'r' | 'R' if !raw => raw = true,
                'b' | 'B' if !bytes => bytes = true,
                _ => return None,
            }
            length += 1;
        }
    }

    fn string(&mut self, (raw, bytes, prefix): (bool, bool, usize)) -> Result<Token, Issue> {
        let start = self.at;
        self.at += prefix;
        let quote = self.peek(0).unwrap_or('"');
        let triple = self.peek(1) == Some(quote) && self.peek(2) == Some(quote);
        self.at += if triple { 3 } else { 1 };
        let mut out = Vec::new();
        let first = self.chars.get(start).copied().unwrap_or('"');
        let unended = || {
            Issue::new(
                start,
                format!("Syntax error: token recognition error at: '{first}'"),
            )
        };
        loop {
            let Some(c) = self.peek(0) else {
                return Err(unended());
            };
            let ends = c == quote
                && (!triple || (self.peek(1) == Some(quote) && self.peek(2) == Some(quote)));
            if ends {
                self.at += if triple { 3 } else { 1 };
                break;
            }
            if !triple && (c == '\n' || c == '\r') {
                return Err(unended());
            }
            self.at += 1;
            if c == '\\' && !raw {
                self.escape(bytes, &mut out)?;
            } else {
                let mut buffer = [0; 4];
                out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                if c == '\\' && self.peek(0) == Some(quote) {
                    // A raw text keeps the backslash before a quote that does not end it.
                    self.at += 1;
                    out.push(quote as u8);
                }
            }
        }
        Ok(Token::Literal(if bytes {
            Literal::Bytes(out.into())
        } else {
            let text = String::from_utf8(out)
                .map_err(|_| Issue::new(start, "Syntax error: invalid UTF-8 in a string".into()))?;
            Literal::String(text.into())
        }))
    }

    fn escape(&mut self, bytes: bool, out: &mut Vec<u8>) -> Result<(), Issue> {
        let at = self.at;
        let wrong = || Issue::new(at - 1, "Syntax error: invalid escape sequence".to_owned());
        let c = self.peek(0).ok_or_else(wrong)?;
        self.at += 1;
        let plain = match c {
            'a' => 7,
            'b' => 8,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            't' => b'\t',
            'v' => 11,
            '\\' | '\'' | '"' | '`' | '?' => c as u8,
            'x' | 'X' | 'u' | 'U' | '0'..='3' => {
                let (radix, length) = match c {
                    'x' | 'X' => (16, 2),
                    'u' => (16, 4),
                    'U' => (16, 8),
                    _ => {
                        self.at -= 1;
                        (8, 3)
                    }
                };
                let digits: String = self
                    .chars
                    .get(self.at..self.at + length)
                    .ok_or_else(wrong)?
                    .iter()
                    .collect();
                self.at += length;
                let code = u32::from_str_radix(&digits, radix).map_err(|_| wrong())?;
                if bytes && !matches!(c, 'u' | 'U') {
                    out.push(u8::try_from(code).map_err(|_| wrong())?);
                } else {
                    let c = char::from_u32(code).ok_or_else(wrong)?;
                    let mut buffer = [0; 4];
                    out.extend_from_slice(c.encode_utf8(&mut buffer).as_bytes());
                }
                return Ok(());
            }
            _ => return Err(wrong()),
        };
        out.push(plain);
        Ok(())
    }

    fn digits(&mut self, hex: bool) {
        while self
            .peek(0)
            .is_some_and(|c| c.is_ascii_digit() || (hex && c.is_ascii_hexdigit()))
        {
            self.at += 1;
        }
    }

    fn number(&mut self) -> Result<Token, Issue> {
        let start = self.at;
        let hex = self.peek(0) == Some('0')
            && matches!(self.peek(1), Some('x' | 'X'))
            && self.peek(2).is_some_and(|c| c.is_ascii_hexdigit());
        if hex {
            self.at += 2;
        }
        self.digits(hex);
        let mut double = false;
        if !hex {
            if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
                double = true;
                self.at += 1;
                self.digits(false);
            }
            if matches!(self.peek(0), Some('e' | 'E')) {
                let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
                if self.peek(1 + sign).is_some_and(|c| c.is_ascii_digit()) {
                    double = true;
                    self.at += 1 + sign;
                    self.digits(false);
                }
            }
        }
        let text: String = self.chars[start..self.at].iter().collect();
        let wrong = |what: &str| {
            Issue::new(
                start,
                format!("Syntax error: invalid {what} literal: {text}"),
            )
        };
        if double {
            let value = text.parse().map_err(|_| wrong("double"))?;
            return Ok(Token::Literal(Literal::Double(value)));
        }
        let (digits, radix) = match text
            .strip_prefix("0x")
            .or(text.strip_prefix("0X"))
            .filter(|_| hex)
        {
            Some(digits) => (digits, 16),
            None => (text.as_str(), 10),
        };
        let value = u64::from_str_radix(digits, radix);
        if matches!(self.peek(0), Some('u' | 'U')) {
            self.at += 1;
            return Ok(Token::Literal(Literal::Uint(
                value.map_err(|_| wrong("uint"))?,
            )));
        }
        let value = value.map_err(|_| wrong("int"))?;
        if value == 1 << 63 {
            // Only with a minus before it; the parser takes it so or refuses it.
            return Ok(Token::Literal(Literal::Int(i64::MIN)));
        }
        let value = i64::try_from(value).map_err(|_| wrong("int"))?;
        Ok(Token::Literal(Literal::Int(value)))
    }
}
