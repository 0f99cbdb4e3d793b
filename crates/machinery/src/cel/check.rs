//! Types: every expression gets one, and what cannot work is refused before it runs.

use std::sync::Arc;

use super::{
    ast::{Expr, Fold, Kind, Literal},
    error::Issue,
    signatures::{Signature, overloads},
    types::Type,
};

/// Names of types, which are values themselves.
const TYPES: [&str; 12] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
];

pub(super) struct Checker<'v> {
    pub variables: &'v [(&'v str, Type)],
    /// Structures that may be made, by name (`Object.spec`, `JSONPatch`).
    pub structures: &'v super::Structures,
    pub scopes: Vec<(Arc<str>, Type)>,
    pub issues: Vec<Issue>,
    /// Whether the items of a literal list may be of any types, as those of `format` may.
    pub mixed: bool,
}

/// `a.b.c` as one name.
fn qualified(expr: &Expr) -> Option<String> {
    match &expr.kind {
        Kind::Ident(name) => Some(name.to_string()),
        Kind::Select {
            operand,
            field,
            test: false,
            optional: false,
        } => Some(format!("{}.{field}", qualified(operand)?)),
        _ => None,
    }
}

impl Checker<'_> {
    fn lookup(&self, name: &str) -> Option<Type> {
        let local = self.scopes.iter().rev().find(|(n, _)| &**n == name);
        if let Some((_, ty)) = local {
            return Some(ty.clone());
        }
        let variable = self.variables.iter().find(|(n, _)| *n == name);
        if let Some((_, ty)) = variable {
            return Some(ty.clone());
        }
        TYPES.contains(&name).then_some(Type::Type)
    }

    fn issue(&mut self, at: usize, message: String) -> Type {
        self.issues.push(Issue::new(at, message));
        Type::Dyn
    }

    fn undeclared(&mut self, at: usize, name: &str) -> Type {
        self.issue(
            at,
            format!("undeclared reference to '{name}' (in container '')"),
        )
    }

    /// Gives the expression and all below it their types.
    pub fn check(&mut self, expr: &mut Expr) -> Type {
        let ty = super::level(|| self.kind(expr));
        expr.ty = ty.clone();
        ty
    }

    fn kind(&mut self, expr: &mut Expr) -> Type {
        let at = expr.at;
        // A name with dots may be one name: `google.protobuf.Timestamp`, a variable's.
        if let Kind::Select { .. } = &expr.kind
            && let Some(name) = qualified(expr)
            && (TYPES.contains(&name.as_str()) || self.variables.iter().any(|(n, _)| *n == name))
        {
            expr.kind = Kind::Ident(name.into());
        }
        match &mut expr.kind {
            Kind::Literal(literal) => match literal {
                Literal::Null => Type::Null,
                Literal::Bool(_) => Type::Bool,
                Literal::Int(_) => Type::Int,
                Literal::Uint(_) => Type::Uint,
                Literal::Double(_) => Type::Double,
                Literal::String(_) => Type::String,
                Literal::Bytes(_) => Type::Bytes,
            },
            Kind::Ident(name) => match self.lookup(name) {
                Some(ty) => ty,
                None => {
                    let name = name.clone();
                    self.undeclared(at, &name)
                }
            },
            Kind::Select {
                operand,
                field,
                test,
                optional,
            } => {
                let (field, test, optional) = (field.clone(), *test, *optional);
                let of = self.check(operand);
                let (inner, was_optional) = match of {
                    Type::Optional(inner) => ((*inner).clone(), true),
                    other => (other, false),
                };
                let ty = self.select(at, &inner, &field);
                if test {
                    Type::Bool
                } else if optional || was_optional {
                    Type::optional(ty)
                } else {
                    ty
                }
            }
            Kind::Call { .. } => self.call(expr),
            Kind::List(items) => {
                let mut of: Option<Type> = None;
                for (item, optional) in items {
                    let mut ty = self.check(item);
                    if *optional {
                        ty = self.unwrapped(item.at, ty);
                    }
                    of = Some(self.same_kind(item.at, of, ty));
                }
                Type::list(of.unwrap_or(Type::Dyn))
            }
            Kind::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for (key, value, optional) in entries {
                    let ty = self.check(key);
                    if !matches!(
                        ty,
                        Type::Bool | Type::Int | Type::Uint | Type::String | Type::Dyn
                    ) {
                        self.issue(key.at, format!("unsupported map key type: {ty}"));
                    }
                    keys = Some(self.same_kind(key.at, keys, ty));
                    let mut ty = self.check(value);
                    if *optional {
                        ty = self.unwrapped(value.at, ty);
                    }
                    values = Some(self.same_kind(value.at, values, ty));
                }
                Type::map(keys.unwrap_or(Type::Dyn), values.unwrap_or(Type::Dyn))
            }
            Kind::Struct { name, fields } => {
                let Some(ty) = (self.structures)(name) else {
                    let name = name.clone();
                    return self.undeclared(at, &name);
                };
                for (field, value, _) in fields {
                    let got = self.check(value);
                    if let Type::Object(object) = &ty
                        && !object.open
                    {
                        match object.fields.get(&**field) {
                            None => {
                                self.issue(value.at, format!("undefined field '{field}'"));
                            }
                            Some(known) if !assignable(&known.decl.ty, &got) => {
                                let wanted = known.decl.ty.clone();
                                self.issue(
                                    value.at,
                                    format!(
                                        "expected type of field '{field}' is '{wanted}' but provided type is '{got}'"
                                    ),
                                );
                            }
                            Some(_) => {}
                        }
                    }
                }
                ty
            }
            Kind::Fold {
                fold,
                range,
                vars,
                filter,
                body,
            } => {
                let fold = *fold;
                let over = self.check(range);
                let (first, second) = match (&over, vars.len()) {
                    (Type::List(items), 1) => ((**items).clone(), Type::Dyn),
                    (Type::Map(keys, _), 1) => ((**keys).clone(), Type::Dyn),
                    (Type::List(items), _) => (Type::Int, (**items).clone()),
                    (Type::Map(keys, values), _) => ((**keys).clone(), (**values).clone()),
                    (Type::Dyn | Type::Param(_), _) => (Type::Dyn, Type::Dyn),
                    (other, _) => {
                        let message = format!(
                            "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                        );
                        let at = range.at;
                        self.issue(at, message);
                        (Type::Dyn, Type::Dyn)
                    }
                };
                let depth = self.scopes.len();
                for (var, ty) in vars.iter().zip([first.clone(), second]) {
                    self.scopes.push((var.clone(), ty));
                }
                if let Some(filter) = filter {
                    let ty = self.check(filter);
                    self.must_be_bool(filter.at, "_?_:_", &ty);
                }
                let ty = self.check(body);
                let place = body.at;
                self.scopes.truncate(depth);
                match fold {
                    Fold::All => self.must_be_bool(place, "_&&_", &ty),
                    Fold::Exists => self.must_be_bool(place, "_||_", &ty),
                    Fold::ExistsOne | Fold::Filter => self.must_be_bool(place, "_?_:_", &ty),
                    _ => {}
                }
                match fold {
                    Fold::All | Fold::Exists | Fold::ExistsOne => Type::Bool,
                    Fold::Filter => Type::list(first),
                    Fold::Map | Fold::TransformList => Type::list(ty),
                    Fold::TransformMap => {
                        let keys = match over {
                            Type::List(_) => Type::Int,
                            Type::Map(keys, _) => (*keys).clone(),
                            _ => Type::Dyn,
                        };
                        Type::map(keys, ty)
                    }
                    Fold::TransformMapEntry => match ty {
                        map @ (Type::Map(..) | Type::Dyn) => map,
                        other => self.issue(
                            place,
                            format!(
                                "found no matching overload for 'cel.@mapInsert' applied to '(map(dyn, dyn), {other})'"
                            ),
                        ),
                    },
                }
            }
            Kind::OptMap {
                operand,
                var,
                body,
                flat,
            } => {
                let flat = *flat;
                let ty = self.check(operand);
                let inner = self.unwrapped(operand.at, ty);
                self.scopes.push((var.clone(), inner));
                let ty = self.check(body);
                self.scopes.pop();
                if flat { ty } else { Type::optional(ty) }
            }
        }
    }

    /// The type inside of an optional.
    fn unwrapped(&mut self, at: usize, ty: Type) -> Type {
        match ty {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn | Type::Param(_) => Type::Dyn,
            other => self.issue(
                at,
                format!("expected type 'optional_type(dyn)' but found '{other}'"),
            ),
        }
    }

    fn must_be_bool(&mut self, at: usize, function: &str, ty: &Type) {
        if !assignable(&Type::Bool, ty) {
            let applied = match function {
                "_?_:_" => format!("({ty}, dyn, dyn)"),
                _ => format!("(bool, {ty})"),
            };
            self.issue(
                at,
                format!("found no matching overload for '{function}' applied to '{applied}'"),
            );
        }
    }

    /// Items of a literal must be of one type; what may be either is taken as it comes.
    fn same_kind(&mut self, at: usize, known: Option<Type>, ty: Type) -> Type {
        match known {
            None => ty,
            Some(known) if self.mixed => join(&known, &ty).unwrap_or(Type::Dyn),
            Some(known) => match join(&known, &ty) {
                Some(joined) => joined,
                None => {
                    self.issue(at, format!("expected type '{known}' but found '{ty}'"));
                    known
                }
            },
        }
    }

    fn select(&mut self, at: usize, of: &Type, field: &str) -> Type {
        match of {
            Type::Dyn | Type::Param(_) => Type::Dyn,
            Type::Map(_, values) => (**values).clone(),
            Type::Object(object) => match object.fields.get(field) {
                Some(field) => field.decl.ty.clone(),
                None if object.open => Type::Dyn,
                None => self.issue(at, format!("undefined field '{field}'")),
            },
            other => self.issue(
                at,
                format!("type '{other}' does not support field selection"),
            ),
        }
    }

    fn call(&mut self, expr: &mut Expr) -> Type {
        let at = expr.at;
        let Kind::Call {
            function,
            target,
            args,
        } = &mut expr.kind
        else {
            return Type::Dyn;
        };
        // `sets.contains(…)` is a function's name, unless `sets` is a variable.
        if let Some(on) = target
            && let Some(prefix) = qualified(on)
            && self
                .lookup(prefix.split('.').next().unwrap_or(""))
                .is_none()
        {
            let name = format!("{prefix}.{function}");
            if overloads(&name).is_some_and(|o| o.iter().any(|s| s.target.is_none())) {
                *function = name.into();
                *target = None;
            }
        }
        let name = function.clone();
        let on = target.as_mut().map(|t| self.check(t));
        let mixed = std::mem::replace(&mut self.mixed, &*name == "format" && on.is_some());
        let given: Vec<Type> = args.iter_mut().map(|a| self.check(a)).collect();
        self.mixed = mixed;
        let all = overloads(&name).unwrap_or_default();
        let fitting_form = |s: &&Signature| s.target.is_some() == on.is_some();
        if !all.iter().any(|s| fitting_form(&s)) {
            return self.undeclared(at, &name);
        }
        let mut result: Option<Type> = None;
        for signature in all.iter().filter(fitting_form) {
            if let Some(ty) = applied(signature, on.as_ref(), &given) {
                // Several fit where types are known only later: then so is the result's.
                result = Some(match result {
                    None => ty,
                    Some(before) if before == ty => before,
                    Some(_) => Type::Dyn,
                });
            }
        }
        match result {
            Some(ty) => {
                self.literals(&name, args);
                ty
            }
            None => {
                let listed: Vec<String> = given.iter().map(Type::to_string).collect();
                let listed = listed.join(", ");
                let applied = match on {
                    Some(on) => format!("{on}.({listed})"),
                    None => format!("({listed})"),
                };
                self.issue(
                    at,
                    format!("found no matching overload for '{name}' applied to '{applied}'"),
                )
            }
        }
    }

    /// Literals that can never be what the function makes of them are refused at once.
    fn literals(&mut self, name: &str, args: &[Expr]) {
        let Some((at, text)) = args.last().and_then(|arg| match &arg.kind {
            Kind::Literal(Literal::String(text)) => Some((arg.at, text)),
            _ => None,
        }) else {
            return;
        };
        match name {
            "duration" if super::time::parse_duration(text).is_none() => {
                self.issue(at, "invalid duration argument".to_owned());
            }
            "timestamp" if super::time::parse_timestamp(text).is_none() => {
                self.issue(at, "invalid timestamp argument".to_owned());
            }
            "matches" if regex::Regex::new(text).is_err() => {
                self.issue(at, "invalid matches argument".to_owned());
            }
            _ => {}
        }
    }
}

/// Whether a value of type `from` may stand where `to` is wanted.
pub(super) fn assignable(to: &Type, from: &Type) -> bool {
    let mut bound = [None, None];
    unify(to, from, &mut bound)
}

/// The type that covers both, if one does.
fn join(a: &Type, b: &Type) -> Option<Type> {
    if a == b {
        return Some(a.clone());
    }
    match (a, b) {
        (Type::Dyn, _) | (_, Type::Dyn) => Some(Type::Dyn),
        (Type::List(x), Type::List(y)) => Some(Type::list(join(x, y)?)),
        (Type::Map(k, v), Type::Map(l, w)) => Some(Type::map(join(k, l)?, join(v, w)?)),
        (Type::Optional(x), Type::Optional(y)) => Some(Type::optional(join(x, y)?)),
        (Type::Null, other) | (other, Type::Null) if nullable(other) => Some(other.clone()),
        _ => None,
    }
}

fn nullable(ty: &Type) -> bool {
    matches!(
        ty,
        Type::Object(_) | Type::Duration | Type::Timestamp | Type::Named(_) | Type::Optional(_)
    )
}

fn unify(wanted: &Type, given: &Type, bound: &mut [Option<Type>; 2]) -> bool {
    match (wanted, given) {
        (Type::Param(letter), given) => {
            let Some(slot) = bound.get_mut(usize::from(*letter == b'B')) else {
                return false;
            };
            match slot {
                None => *slot = Some(given.clone()),
                Some(known) => match join(known, given) {
                    // What is known of one side is kept: `dyn` says nothing.
                    Some(Type::Dyn) if !known.is_dyn() => {}
                    Some(joined) => {
                        *slot = Some(if known.is_dyn() {
                            given.clone()
                        } else {
                            joined
                        });
                    }
                    None => return false,
                },
            }
            true
        }
        (_, Type::Dyn | Type::Param(_)) | (Type::Dyn, _) => true,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => {
            unify(a, b, bound)
        }
        (Type::Map(k, v), Type::Map(l, w)) => unify(k, l, bound) && unify(v, w, bound),
        (wanted, Type::Null) => nullable(wanted) || *wanted == Type::Null,
        // An object is a map from its fields to whatever they are.
        (a, b) => a == b,
    }
}

/// The result of an overload on these arguments, if it takes them.
fn applied(signature: &Signature, on: Option<&Type>, given: &[Type]) -> Option<Type> {
    if signature.args.len() != given.len() {
        return None;
    }
    let mut bound = [None, None];
    if let (Some(wanted), Some(on)) = (&signature.target, on)
        && !unify(wanted, on, &mut bound)
    {
        return None;
    }
    for (wanted, given) in signature.args.iter().zip(given) {
        if !unify(wanted, given, &mut bound) {
            return None;
        }
    }
    Some(substitute(&signature.result, &bound))
}

fn substitute(ty: &Type, bound: &[Option<Type>; 2]) -> Type {
    match ty {
        Type::Param(letter) => bound
            .get(usize::from(*letter == b'B'))
            .cloned()
            .flatten()
            .unwrap_or(Type::Dyn),
        Type::List(items) => Type::list(substitute(items, bound)),
        Type::Map(k, v) => Type::map(substitute(k, bound), substitute(v, bound)),
        Type::Optional(inner) => Type::optional(substitute(inner, bound)),
        other => other.clone(),
    }
}
