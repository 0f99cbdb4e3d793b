//! Evaluation, with what it costs counted as it goes.
//!
//! Costs are cel-go's: one for a variable, a field, an index or a call; text by its length; lists
//! and maps that are made; each turn of a macro's loop.

use std::{collections::BTreeMap, rc::Rc, sync::Arc};

use super::{
    ast::{Expr, Fold, Kind, Literal},
    error::Fault,
    functions,
    value::{Key, Value, borrowed},
};

/// A tenth of a unit for each byte that is looked at.
pub(super) const TEXT_PART: f64 = 0.1;
/// A quarter for each byte of a pattern.
pub(super) const PATTERN_PART: f64 = 0.25;
pub(super) const LIST_COST: u64 = 10;
pub(super) const MAP_COST: u64 = 30;
pub(super) const STRUCT_COST: u64 = 40;

pub(super) struct Evaluation<'e, 'a> {
    pub variables: &'e [(&'e str, Value<'a>)],
    pub locals: Vec<(&'a str, Value<'a>)>,
    pub cost: u64,
    pub most: u64,
}

type Result<'a> = std::result::Result<Value<'a>, Fault>;

pub(super) fn part(length: u64, factor: f64) -> u64 {
    (length as f64 * factor).ceil() as u64
}

impl<'a> Evaluation<'_, 'a> {
    fn pay(&mut self, cost: u64) -> std::result::Result<(), Fault> {
        self.cost = self.cost.saturating_add(cost);
        if self.cost > self.most {
            return Err(Fault::TooCostly);
        }
        Ok(())
    }

    pub fn eval(&mut self, expr: &'a Expr) -> Result<'a> {
        super::level(|| self.value(expr))
    }

    fn value(&mut self, expr: &'a Expr) -> Result<'a> {
        match &expr.kind {
            Kind::Literal(literal) => Ok(match literal {
                Literal::Null => Value::Null,
                Literal::Bool(b) => Value::Bool(*b),
                Literal::Int(n) => Value::Int(*n),
                Literal::Uint(n) => Value::Uint(*n),
                Literal::Double(d) => Value::Double(*d),
                Literal::String(s) => borrowed(s),
                Literal::Bytes(b) => Value::Bytes(b.iter().copied().collect()),
            }),
            Kind::Ident(name) => {
                self.pay(1)?;
                self.variable(name)
            }
            Kind::Select {
                operand,
                field,
                test,
                optional,
            } => {
                let of = self.eval(operand)?;
                if *test {
                    return self.has(&of, field);
                }
                self.pay(1)?;
                let chained = *optional || matches!(of, Value::Optional(_));
                let found = of.field(field)?;
                if chained {
                    return Ok(Value::Optional(found.map(Rc::new)));
                }
                found.ok_or_else(|| functions::missing(&of, &borrowed(field)))
            }
            Kind::Call {
                function,
                target,
                args,
            } => self.call(function, target.as_deref(), args),
            Kind::List(items) => {
                self.pay(LIST_COST)?;
                let mut out = Vec::with_capacity(items.len());
                for (item, optional) in items {
                    let value = self.eval(item)?;
                    match value {
                        Value::Optional(inner) if *optional => {
                            out.extend(inner.map(|v| (*v).clone()));
                        }
                        value => out.push(value),
                    }
                }
                Ok(Value::list(out))
            }
            Kind::Map(entries) => {
                self.pay(MAP_COST)?;
                let mut out = BTreeMap::new();
                for (key, value, optional) in entries {
                    let key = self.eval(key)?;
                    let key = Key::of(&key).ok_or_else(|| {
                        Fault::new(format!("unsupported key type: {}", key.type_name()))
                    })?;
                    let value = match self.eval(value)? {
                        Value::Optional(None) if *optional => continue,
                        Value::Optional(Some(inner)) if *optional => (*inner).clone(),
                        value => value,
                    };
                    if out.insert(key.clone(), value).is_some() {
                        return Err(Fault::new(format!("Failed with repeated key: {key}")));
                    }
                }
                Ok(Value::Map(Rc::new(out)))
            }
            Kind::Struct { name, fields } => {
                self.pay(STRUCT_COST)?;
                let mut out = BTreeMap::new();
                for (field, value, optional) in fields {
                    let value = match self.eval(value)? {
                        Value::Optional(None) if *optional => continue,
                        Value::Optional(Some(inner)) if *optional => (*inner).clone(),
                        value => value,
                    };
                    out.insert(field.to_string(), value);
                }
                Ok(Value::Struct(Rc::from(&**name), Rc::new(out)))
            }
            Kind::Fold {
                fold,
                range,
                vars,
                filter,
                body,
            } => self.fold(*fold, range, vars, filter.as_deref(), body),
            Kind::OptMap {
                operand,
                var,
                body,
                flat,
            } => {
                self.pay(1)?;
                match self.eval(operand)? {
                    Value::Optional(None) => Ok(Value::Optional(None)),
                    Value::Optional(Some(inner)) => {
                        self.locals.push((var, (*inner).clone()));
                        let out = self.eval(body);
                        self.locals.pop();
                        Ok(if *flat { out? } else { Value::some(out?) })
                    }
                    _ => Err(Fault::no_overload()),
                }
            }
        }
    }

    fn variable(&self, name: &'a str) -> Result<'a> {
        let local = self.locals.iter().rev().find(|(n, _)| *n == name);
        if let Some((_, value)) = local {
            return Ok(value.clone());
        }
        let variable = self.variables.iter().find(|(n, _)| *n == name);
        if let Some((_, value)) = variable {
            return Ok(value.clone());
        }
        match name {
            "bool"
            | "int"
            | "uint"
            | "double"
            | "string"
            | "bytes"
            | "list"
            | "map"
            | "null_type"
            | "type"
            | "google.protobuf.Timestamp"
            | "google.protobuf.Duration" => Ok(Value::Type(name.into())),
            _ => Err(Fault::new(format!("no such attribute(s): {name}"))),
        }
    }

    fn has(&self, of: &Value<'a>, field: &str) -> Result<'a> {
        match of {
            Value::Optional(None) => Ok(Value::Bool(false)),
            Value::Optional(Some(inner)) => self.has(inner, field),
            of => Ok(Value::Bool(of.field(field)?.is_some())),
        }
    }

    fn call(
        &mut self,
        function: &'a str,
        target: Option<&'a Expr>,
        args: &'a [Expr],
    ) -> Result<'a> {
        match (function, target, args) {
            ("_&&_", None, [a, b]) => return self.either(a, b, false),
            ("_||_", None, [a, b]) => return self.either(a, b, true),
            ("_?_:_", None, [condition, yes, no]) => {
                return match self.eval(condition)? {
                    Value::Bool(true) => self.eval(yes),
                    Value::Bool(false) => self.eval(no),
                    _ => Err(Fault::no_overload()),
                };
            }
            // The other side is evaluated only where it is needed.
            ("or" | "orValue", Some(target), [other]) => {
                self.pay(1)?;
                return match (self.eval(target)?, function) {
                    (Value::Optional(None), _) => self.eval(other),
                    (Value::Optional(Some(inner)), "orValue") => Ok((*inner).clone()),
                    (whole @ Value::Optional(Some(_)), _) => Ok(whole),
                    _ => Err(Fault::no_overload()),
                };
            }
            _ => {}
        }
        let on = target.map(|t| self.eval(t)).transpose()?;
        let mut given = Vec::with_capacity(args.len());
        for arg in args {
            given.push(self.eval(arg)?);
        }
        self.pay(price(function, on.as_ref(), &given))?;
        match on {
            Some(on) => functions::method(&on, function, &given),
            None => functions::call(function, &given),
        }
    }

    /// `&&` and `||`: one side that decides is enough, even where the other has a fault.
    fn either(&mut self, a: &'a Expr, b: &'a Expr, decides: bool) -> Result<'a> {
        let left = self.eval(a);
        match left {
            Ok(Value::Bool(value)) if value == decides => return Ok(Value::Bool(decides)),
            Err(Fault::TooCostly) => return left,
            _ => {}
        }
        let right = self.eval(b);
        match (left, right) {
            (_, Ok(Value::Bool(value))) if value == decides => Ok(Value::Bool(decides)),
            (_, Err(Fault::TooCostly)) => Err(Fault::TooCostly),
            (Ok(Value::Bool(_)), Ok(Value::Bool(_))) => Ok(Value::Bool(!decides)),
            (Err(fault), _) | (_, Err(fault)) => Err(fault),
            _ => Err(Fault::no_overload()),
        }
    }

    fn fold(
        &mut self,
        fold: Fold,
        range: &'a Expr,
        vars: &'a [Arc<str>],
        filter: Option<&'a Expr>,
        body: &'a Expr,
    ) -> Result<'a> {
        let over = self.eval(range)?;
        let (first, second): (Vec<Value<'a>>, Option<Vec<Value<'a>>>) = match (&over, vars.len()) {
            (Value::Array(..) | Value::List(_), 1) => (over.items()?.into_owned(), None),
            (Value::Array(..) | Value::List(_), _) => {
                let items = over.items()?.into_owned();
                (
                    (0..items.len() as i64).map(Value::Int).collect(),
                    Some(items),
                )
            }
            (_, count) => {
                let keys = over.keys().ok_or_else(Fault::no_overload)?;
                let values = if count == 1 {
                    None
                } else {
                    let entries: std::result::Result<Vec<_>, Fault> = keys
                        .iter()
                        .map(|k| Ok(over.index(k)?.unwrap_or(Value::Null)))
                        .collect();
                    Some(entries?)
                };
                (keys, values)
            }
        };
        let depth = self.locals.len();
        let mut state = Folding::new(fold);
        for (i, value) in first.into_iter().enumerate() {
            self.pay(state.turn_cost())?;
            for (var, value) in vars.iter().zip(
                [
                    Some(value.clone()),
                    second.as_ref().and_then(|s| s.get(i).cloned()),
                ]
                .into_iter()
                .flatten(),
            ) {
                self.locals.push((var, value));
            }
            let turn = self.turn(&mut state, value, filter, body);
            self.locals.truncate(depth);
            if turn? {
                break;
            }
        }
        state.result()
    }

    /// One turn of a loop: whether it is the last.
    fn turn(
        &mut self,
        state: &mut Folding<'a>,
        key: Value<'a>,
        filter: Option<&'a Expr>,
        body: &'a Expr,
    ) -> std::result::Result<bool, Fault> {
        if let Some(filter) = filter {
            match self.eval(filter)? {
                Value::Bool(true) => {}
                Value::Bool(false) => return Ok(false),
                _ => return Err(Fault::no_overload()),
            }
        }
        let value = self.eval(body);
        if let Err(Fault::TooCostly) = value {
            return Err(Fault::TooCostly);
        }
        match state {
            Folding::Decide { decides, fault } => match value {
                Ok(Value::Bool(b)) if b == *decides => {
                    *fault = None;
                    *state = Folding::Decided(*decides);
                    return Ok(true);
                }
                Ok(Value::Bool(_)) => {}
                Ok(_) => *fault = fault.take().or_else(|| Some(Fault::no_overload())),
                Err(new) => *fault = fault.take().or(Some(new)),
            },
            Folding::Decided(_) => return Ok(true),
            Folding::Count(count) => match value? {
                Value::Bool(true) => *count += 1,
                Value::Bool(false) => {}
                _ => return Err(Fault::no_overload()),
            },
            Folding::Filter(kept) => match value? {
                Value::Bool(true) => kept.push(key),
                Value::Bool(false) => {}
                _ => return Err(Fault::no_overload()),
            },
            Folding::List(list) => list.push(value?),
            Folding::Map(map) => {
                let key = Key::of(&key).ok_or_else(Fault::no_overload)?;
                map.insert(key, value?);
            }
            Folding::Entries(map) => {
                let value = value?;
                for key in value.keys().ok_or_else(Fault::no_overload)? {
                    let entry = value.index(&key)?.unwrap_or(Value::Null);
                    let key = Key::of(&key).ok_or_else(Fault::no_overload)?;
                    if map.insert(key.clone(), entry).is_some() {
                        return Err(Fault::new(format!(
                            "insert failed: key {key} already exists"
                        )));
                    }
                }
            }
        }
        Ok(false)
    }
}

enum Folding<'a> {
    /// `all` and `exists`: the answer that ends it, and the first fault, which counts only when
    /// nothing ends it.
    Decide {
        decides: bool,
        fault: Option<Fault>,
    },
    Decided(bool),
    Count(u64),
    Filter(Vec<Value<'a>>),
    List(Vec<Value<'a>>),
    Map(BTreeMap<Key, Value<'a>>),
    Entries(BTreeMap<Key, Value<'a>>),
}

impl<'a> Folding<'a> {
    fn new(fold: Fold) -> Folding<'a> {
        match fold {
            Fold::All | Fold::Exists => Folding::Decide {
                decides: fold == Fold::Exists,
                fault: None,
            },
            Fold::ExistsOne => Folding::Count(0),
            Fold::Filter => Folding::Filter(vec![]),
            Fold::Map | Fold::TransformList => Folding::List(vec![]),
            Fold::TransformMap => Folding::Map(BTreeMap::new()),
            Fold::TransformMapEntry => Folding::Entries(BTreeMap::new()),
        }
    }

    fn turn_cost(&self) -> u64 {
        match self {
            Folding::Decide { decides: true, .. } => 4,
            Folding::Decide { .. } | Folding::Decided(_) => 3,
            Folding::Count(_) => 1,
            Folding::Filter(_) | Folding::List(_) | Folding::Map(_) | Folding::Entries(_) => {
                LIST_COST + 2
            }
        }
    }

    fn result(self) -> Result<'a> {
        Ok(match self {
            Folding::Decide {
                fault: Some(fault), ..
            } => return Err(fault),
            Folding::Decide { decides, .. } => Value::Bool(!decides),
            Folding::Decided(value) => Value::Bool(value),
            Folding::Count(count) => Value::Bool(count == 1),
            Folding::Filter(list) | Folding::List(list) => Value::list(list),
            Folding::Map(map) | Folding::Entries(map) => Value::Map(Rc::new(map)),
        })
    }
}

/// What a call costs besides its arguments.
fn price<'a>(function: &str, target: Option<&Value<'a>>, args: &[Value<'a>]) -> u64 {
    let of = |v: Option<&Value<'_>>| v.map_or(1, Value::weight);
    let text = |v: &Value<'_>| matches!(v, Value::String(_) | Value::Bytes(_));
    match (function, args) {
        ("_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => {
            let least = a.weight().min(b.weight());
            part(least, TEXT_PART).max(1)
        }
        ("_+_", [a, b]) if text(a) => part(a.weight() + b.weight(), TEXT_PART),
        ("@in", [_, Value::Array(..) | Value::List(_)]) => of(args.get(1)),
        ("startsWith" | "endsWith" | "bytes" | "string", [a, ..]) => part(a.weight(), TEXT_PART),
        ("contains", [a]) if target.is_some() => {
            part(of(target), TEXT_PART).saturating_mul(part(a.weight(), TEXT_PART))
        }
        ("matches" | "find" | "findAll", [.., pattern]) => {
            let subject = of(target.or(args.first())) + 1;
            part(subject, TEXT_PART).saturating_mul(part(pattern.weight(), PATTERN_PART))
        }
        (
            "isSorted" | "sum" | "min" | "max" | "indexOf" | "lastIndexOf" | "join" | "split"
            | "replace" | "lowerAscii" | "upperAscii" | "trim" | "substring" | "format",
            _,
        ) => {
            let weight = of(target);
            match target {
                Some(Value::String(_)) => part(weight, TEXT_PART).max(1),
                _ => weight.max(1),
            }
        }
        ("sets.contains" | "sets.equivalent" | "sets.intersects", [a, b]) => {
            a.weight().saturating_mul(b.weight()).max(1)
        }
        (
            "quantity" | "isQuantity" | "url" | "isURL" | "ip" | "isIP" | "cidr" | "isCIDR"
            | "semver" | "isSemver" | "validate",
            [a, ..],
        ) => part(a.weight(), TEXT_PART).max(1),
        // Asking the authorizer is the most that an expression can do.
        ("check", [_]) => 350_000,
        _ => 1,
    }
}
