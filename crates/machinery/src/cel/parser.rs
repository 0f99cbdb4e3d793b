//! Tokens to expressions; macros are recognised here.

use std::sync::Arc;

use super::{
    ast::{Expr, Fold, Kind, Literal},
    error::Issue,
    lexer::{Token, tokens},
    types::RESERVED,
};

/// Levels of nesting that an expression may have.
const MOST_LEVELS: usize = 250;
/// Characters that an expression may have.
const MOST_CHARACTERS: usize = 100_000;

pub(super) fn parse(text: &str) -> Result<Expr, Issue> {
    let length = text.chars().count();
    if length > MOST_CHARACTERS {
        return Err(Issue::new(
            0,
            format!(
                "expression code point size exceeds limit: size: {length}, limit {MOST_CHARACTERS}"
            ),
        ));
    }
    let mut parser = Parser {
        tokens: tokens(text)?,
        next: 0,
        levels: 0,
    };
    let expr = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => Err(parser.wrong(&format!(
            "extraneous input {} expecting <EOF>",
            shown(other)
        ))),
    }
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    next: usize,
    levels: usize,
}

type Parsed = Result<Expr, Issue>;

fn shown(token: &Token) -> String {
    match token {
        Token::End => "'<EOF>'".to_owned(),
        Token::Sign(sign) => format!("'{sign}'"),
        Token::Ident(name) => format!("'{name}'"),
        Token::Quoted(name) => format!("'`{name}`'"),
        Token::Literal(Literal::String(s)) => format!("'{s:?}'"),
        Token::Literal(Literal::Int(n)) => format!("'{n}'"),
        Token::Literal(Literal::Uint(n)) => format!("'{n}u'"),
        Token::Literal(Literal::Double(n)) => format!("'{n}'"),
        Token::Literal(Literal::Bool(b)) => format!("'{b}'"),
        Token::Literal(Literal::Null) => "'null'".to_owned(),
        Token::Literal(Literal::Bytes(_)) => "bytes".to_owned(),
    }
}

impl Parser {
    fn peek(&self) -> &Token {
        self.tokens.get(self.next).map_or(&Token::End, |(_, t)| t)
    }

    fn at(&self) -> usize {
        self.tokens
            .get(self.next)
            .or(self.tokens.last())
            .map_or(0, |(at, _)| *at)
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(s) if *s == sign)
    }

    /// Takes a sign if it is next, and tells where it stood.
    fn take(&mut self, sign: &str) -> Option<usize> {
        let at = self.at();
        self.is(sign).then(|| {
            self.next += 1;
            at
        })
    }

    fn need(&mut self, sign: &'static str) -> Result<usize, Issue> {
        match self.take(sign) {
            Some(at) => Ok(at),
            None => Err(self.wrong(&format!(
                "mismatched input {} expecting '{sign}'",
                shown(self.peek())
            ))),
        }
    }

    fn wrong(&self, what: &str) -> Issue {
        Issue::new(self.at(), format!("Syntax error: {what}"))
    }

    fn node(&self, at: usize, kind: Kind) -> Parsed {
        let expr = Expr::new(at, kind);
        if expr.depth > MOST_LEVELS {
            return Err(Issue::new(
                at,
                format!("expression recursion limit exceeded: {MOST_LEVELS}"),
            ));
        }
        Ok(expr)
    }

    fn call(&self, at: usize, function: &str, args: Vec<Expr>) -> Parsed {
        self.node(
            at,
            Kind::Call {
                function: function.into(),
                target: None,
                args,
            },
        )
    }

    fn expression(&mut self) -> Parsed {
        super::level(|| self.whole())
    }

    fn whole(&mut self) -> Parsed {
        self.levels += 1;
        if self.levels > MOST_LEVELS {
            return Err(Issue::new(
                self.at(),
                format!("expression recursion limit exceeded: {MOST_LEVELS}"),
            ));
        }
        let condition = self.either("||")?;
        let out = match self.take("?") {
            None => condition,
            Some(at) => {
                let yes = self.either("||")?;
                self.need(":")?;
                let no = self.expression()?;
                self.call(at, "_?_:_", vec![condition, yes, no])?
            }
        };
        self.levels -= 1;
        Ok(out)
    }

    /// A chain of `||` or `&&`, as a balanced tree: long chains must not be deep.
    fn either(&mut self, sign: &'static str) -> Parsed {
        let mut parts = vec![];
        let mut places = vec![];
        loop {
            parts.push(if sign == "||" {
                self.either("&&")?
            } else {
                self.relation()?
            });
            match self.take(sign) {
                Some(at) => places.push(at),
                None => break,
            }
        }
        let function = if sign == "||" { "_||_" } else { "_&&_" };
        self.balanced(function, parts, &places)
    }

    fn balanced(&self, function: &str, mut parts: Vec<Expr>, places: &[usize]) -> Parsed {
        if parts.len() <= 1 {
            return parts.pop().ok_or_else(|| self.wrong("empty expression"));
        }
        let middle = parts.len() / 2;
        let right = parts.split_off(middle);
        let at = places.get(middle - 1).copied().unwrap_or_default();
        let left = self.balanced(function, parts, places.get(..middle - 1).unwrap_or(&[]))?;
        let right = self.balanced(function, right, places.get(middle..).unwrap_or(&[]))?;
        self.call(at, function, vec![left, right])
    }

    fn operators(
        &mut self,
        table: &[(&str, &str)],
        below: &mut dyn FnMut(&mut Parser) -> Parsed,
    ) -> Parsed {
        let mut left = below(self)?;
        'chain: loop {
            for (sign, function) in table {
                if let Some(at) = self.take(sign) {
                    let right = below(self)?;
                    left = self.call(at, function, vec![left, right])?;
                    continue 'chain;
                }
            }
            return Ok(left);
        }
    }

    fn relation(&mut self) -> Parsed {
        const SIGNS: [(&str, &str); 7] = [
            ("==", "_==_"),
            ("!=", "_!=_"),
            ("<=", "_<=_"),
            (">=", "_>=_"),
            ("<", "_<_"),
            (">", "_>_"),
            ("in", "@in"),
        ];
        self.operators(&SIGNS, &mut |p| {
            p.operators(&[("+", "_+_"), ("-", "_-_")], &mut |p| {
                p.operators(
                    &[("*", "_*_"), ("/", "_/_"), ("%", "_%_")],
                    &mut Parser::unary,
                )
            })
        })
    }

    fn unary(&mut self) -> Parsed {
        let mut signs = Vec::new();
        while self.is("!") || self.is("-") {
            signs.push((self.at(), self.is("!")));
            self.next += 1;
        }
        let number = match self.peek() {
            Token::Literal(l @ (Literal::Int(_) | Literal::Double(_))) => Some(l.clone()),
            _ => None,
        };
        let mut expr = match (number, signs.last().copied()) {
            // A minus belongs to the number, else the least integer could not be written.
            (Some(number), Some((at, false))) => {
                signs.pop();
                self.next += 1;
                let literal = match number {
                    Literal::Int(n) => Literal::Int(n.wrapping_neg()),
                    Literal::Double(n) => Literal::Double(-n),
                    other => other,
                };
                let operand = self.node(at, Kind::Literal(literal))?;
                self.member(operand)?
            }
            (Some(Literal::Int(i64::MIN)), _) => {
                return Err(self.wrong("invalid int literal: 9223372036854775808"));
            }
            _ => {
                let operand = self.primary()?;
                self.member(operand)?
            }
        };
        for (at, not) in signs.into_iter().rev() {
            expr = self.call(at, if not { "!_" } else { "-_" }, vec![expr])?;
        }
        Ok(expr)
    }

    fn member(&mut self, mut expr: Expr) -> Parsed {
        loop {
            if let Some(at) = self.take(".") {
                let optional = self.take("?").is_some();
                let (field, quoted) = match self.peek().clone() {
                    Token::Ident(name) => (name, false),
                    Token::Sign("in") => (Arc::from("in"), false),
                    Token::Quoted(name) => (name, true),
                    other => {
                        return Err(self
                            .wrong(&format!("no viable alternative at input {}", shown(&other))));
                    }
                };
                self.next += 1;
                if !quoted && !optional && self.is("(") {
                    let at = self.at();
                    self.next += 1;
                    let args = self.arguments(")")?;
                    expr = self.method(at, expr, field, args)?;
                } else {
                    let kind = Kind::Select {
                        operand: Box::new(expr),
                        field,
                        test: false,
                        optional,
                    };
                    expr = self.node(at, kind)?;
                }
            } else if let Some(at) = self.take("[") {
                let optional = self.take("?").is_some();
                let index = self.expression()?;
                self.need("]")?;
                let function = if optional { "_[?_]" } else { "_[_]" };
                expr = self.call(at, function, vec![expr, index])?;
            } else if self.is("{") && type_name(&expr).is_some() {
                let name = type_name(&expr).unwrap_or_default();
                expr = self.structure(&name)?;
            } else {
                return Ok(expr);
            }
        }
    }

    fn arguments(&mut self, end: &'static str) -> Result<Vec<Expr>, Issue> {
        let mut args = Vec::new();
        if self.take(end).is_some() {
            return Ok(args);
        }
        loop {
            args.push(self.expression()?);
            if self.take(",").is_none() {
                self.need(end)?;
                return Ok(args);
            }
        }
    }

    fn primary(&mut self) -> Parsed {
        let at = self.at();
        let token = self.peek().clone();
        match token {
            Token::Literal(literal) => {
                self.next += 1;
                self.node(at, Kind::Literal(literal))
            }
            Token::Ident(name) => {
                self.next += 1;
                if self.is("(") {
                    let at = self.at();
                    self.next += 1;
                    let args = self.arguments(")")?;
                    return self.function(at, &name, args);
                }
                if RESERVED.contains(&&*name) {
                    return Err(Issue::new(
                        at,
                        format!("Syntax error: reserved identifier: {name}"),
                    ));
                }
                self.node(at, Kind::Ident(name))
            }
            Token::Sign(".") => {
                // `.name` is looked up from the root of all names, which is where all names are.
                self.next += 1;
                self.primary()
            }
            Token::Sign("(") => {
                self.next += 1;
                let inner = self.expression()?;
                self.need(")")?;
                Ok(inner)
            }
            Token::Sign("[") => {
                self.next += 1;
                let mut items = Vec::new();
                while self.take("]").is_none() {
                    let optional = self.take("?").is_some();
                    items.push((self.expression()?, optional));
                    if self.take(",").is_none() {
                        self.need("]")?;
                        break;
                    }
                }
                self.node(at, Kind::List(items))
            }
            Token::Sign("{") => {
                self.next += 1;
                let mut entries = Vec::new();
                while self.take("}").is_none() {
                    let optional = self.take("?").is_some();
                    let key = self.expression()?;
                    self.need(":")?;
                    entries.push((key, self.expression()?, optional));
                    if self.take(",").is_none() {
                        self.need("}")?;
                        break;
                    }
                }
                self.node(at, Kind::Map(entries))
            }
            other => Err(self.wrong(&format!(
                "mismatched input {} expecting {{'[', '{{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}}",
                shown(&other)
            ))),
        }
    }

    fn structure(&mut self, name: &str) -> Parsed {
        let at = self.need("{")?;
        let mut fields = Vec::new();
        while self.take("}").is_none() {
            let optional = self.take("?").is_some();
            let field = match self.peek().clone() {
                Token::Ident(name) | Token::Quoted(name) => name,
                other => {
                    return Err(self.wrong(&format!(
                        "mismatched input {} expecting IDENTIFIER",
                        shown(&other)
                    )));
                }
            };
            self.next += 1;
            self.need(":")?;
            fields.push((field, self.expression()?, optional));
            if self.take(",").is_none() {
                self.need("}")?;
                break;
            }
        }
        self.node(
            at,
            Kind::Struct {
                name: name.into(),
                fields,
            },
        )
    }

    /// A call without a target; `has` is a macro.
    fn function(&self, at: usize, name: &str, mut args: Vec<Expr>) -> Parsed {
        if name == "has" && args.len() == 1 {
            let arg = args.remove(0);
            return match arg.kind {
                Kind::Select {
                    operand,
                    field,
                    test: false,
                    optional: false,
                } => self.node(
                    at,
                    Kind::Select {
                        operand,
                        field,
                        test: true,
                        optional: false,
                    },
                ),
                _ => Err(Issue::new(
                    arg.at,
                    "invalid argument to has() macro".to_owned(),
                )),
            };
        }
        self.call(at, name, args)
    }

    /// A call with a target; some are macros.
    fn method(&self, at: usize, target: Expr, name: Arc<str>, mut args: Vec<Expr>) -> Parsed {
        let fold = match (&*name, args.len()) {
            ("all", 2) => Some((Fold::All, 1, false)),
            ("exists", 2) => Some((Fold::Exists, 1, false)),
            ("exists_one" | "existsOne", 2) => Some((Fold::ExistsOne, 1, false)),
            ("filter", 2) => Some((Fold::Filter, 1, false)),
            ("map", 2) => Some((Fold::Map, 1, false)),
            ("map", 3) => Some((Fold::Map, 1, true)),
            ("all", 3) => Some((Fold::All, 2, false)),
            ("exists", 3) => Some((Fold::Exists, 2, false)),
            ("exists_one" | "existsOne", 3) => Some((Fold::ExistsOne, 2, false)),
            ("transformList", 3) => Some((Fold::TransformList, 2, false)),
            ("transformList", 4) => Some((Fold::TransformList, 2, true)),
            ("transformMap", 3) => Some((Fold::TransformMap, 2, false)),
            ("transformMap", 4) => Some((Fold::TransformMap, 2, true)),
            ("transformMapEntry", 3) => Some((Fold::TransformMapEntry, 2, false)),
            ("transformMapEntry", 4) => Some((Fold::TransformMapEntry, 2, true)),
            _ => None,
        };
        if let Some((fold, variables, filtered)) = fold {
            let body = Box::new(args.pop().ok_or_else(|| self.wrong("missing argument"))?);
            let filter = if filtered {
                args.pop().map(Box::new)
            } else {
                None
            };
            let mut vars = Vec::with_capacity(variables);
            for arg in args {
                match arg.kind {
                    Kind::Ident(name) => {
                        if vars.contains(&name) {
                            return Err(Issue::new(
                                arg.at,
                                format!("duplicate variable name: {name}"),
                            ));
                        }
                        vars.push(name);
                    }
                    _ => {
                        return Err(Issue::new(
                            arg.at,
                            "argument must be a simple name".to_owned(),
                        ));
                    }
                }
            }
            return self.node(
                at,
                Kind::Fold {
                    fold,
                    range: Box::new(target),
                    vars,
                    filter,
                    body,
                },
            );
        }
        if matches!(&*name, "optMap" | "optFlatMap") && args.len() == 2 {
            let body = args.pop();
            let var = args.pop();
            return match (var.map(|v| (v.at, v.kind)), body) {
                (Some((_, Kind::Ident(var))), Some(body)) => self.node(
                    at,
                    Kind::OptMap {
                        operand: Box::new(target),
                        var,
                        body: Box::new(body),
                        flat: &*name == "optFlatMap",
                    },
                ),
                (var, _) => Err(Issue::new(
                    var.map_or(at, |(at, _)| at),
                    format!("{name}() variable name must be a simple identifier"),
                )),
            };
        }
        self.node(
            at,
            Kind::Call {
                function: name,
                target: Some(Box::new(target)),
                args,
            },
        )
    }
}

/// `a.b.C`, as the name of a type before `{`.
fn type_name(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.to_string()),
        Kind::Select {
            operand,
            field,
            test: false,
            optional: false,
        } => Some(format!("{}.{field}", type_name(operand)?)),
        _ => None,
    }
}
