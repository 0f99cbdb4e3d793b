//! What an expression may cost at most, estimated before it ever runs from the bounds that the
//! declared types give.

use super::{
    ast::{Expr, Fold, Kind, Literal},
    eval::{LIST_COST, MAP_COST, PATTERN_PART, STRUCT_COST, TEXT_PART, part},
    types::{Decl, Type},
};

/// The least and the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub least: u64,
    pub most: u64,
}

impl Span {
    const ZERO: Span = Span::just(0);

    const fn just(n: u64) -> Span {
        Span { least: n, most: n }
    }

    fn add(self, other: Span) -> Span {
        Span {
            least: self.least.saturating_add(other.least),
            most: self.most.saturating_add(other.most),
        }
    }

    fn times(self, other: Span) -> Span {
        Span {
            least: self.least.saturating_mul(other.least),
            most: self.most.saturating_mul(other.most),
        }
    }

    fn part(self, factor: f64) -> Span {
        let of = |n: u64| if n == u64::MAX { n } else { part(n, factor) };
        Span {
            least: of(self.least),
            most: of(self.most),
        }
    }

    fn either(self, other: Span) -> Span {
        Span {
            least: self.least.min(other.least),
            most: self.most.max(other.most),
        }
    }
}

const UNKNOWN: Span = Span {
    least: 0,
    most: u64::MAX,
};

pub(super) struct Estimator<'e> {
    /// The declared types of variables.
    pub variables: &'e [(&'e str, &'e Decl)],
    /// Variables of loops, with what is declared of them and how large they can be.
    locals: Vec<(&'e str, Option<&'e Decl>, Span)>,
}

impl<'e> Estimator<'e> {
    pub fn new(variables: &'e [(&'e str, &'e Decl)]) -> Estimator<'e> {
        Estimator {
            variables,
            locals: vec![],
        }
    }

    /// What is declared of the value that an expression reads, where it reads one as it is.
    fn declared(&self, expr: &'e Expr) -> Option<&'e Decl> {
        match &expr.kind {
            Kind::Ident(name) => {
                let local = self.locals.iter().rev().find(|(n, ..)| *n == &**name);
                match local {
                    Some((_, decl, _)) => *decl,
                    None => self
                        .variables
                        .iter()
                        .find(|(n, _)| *n == &**name)
                        .map(|(_, d)| *d),
                }
            }
            Kind::Select {
                operand,
                field,
                test: false,
                ..
            } => {
                let of = self.declared(operand)?;
                of.field(field)
                    .map(|f| &*f.decl)
                    .or_else(|| matches!(of.ty, Type::Map(..)).then_some(of.items.as_deref())?)
            }
            Kind::Call { function, args, .. } if matches!(&**function, "_[_]" | "_[?_]") => {
                self.declared(args.first()?)?.items.as_deref()
            }
            _ => None,
        }
    }

    /// How large a value can be: bytes of text, items of lists and maps, one for all else.
    fn size(&self, expr: &'e Expr) -> Span {
        let at_most = |most| Span { least: 0, most };
        match &expr.kind {
            Kind::Literal(literal) => {
                return match literal {
                    Literal::String(s) => Span::just(s.len() as u64),
                    Literal::Bytes(b) => Span::just(b.len() as u64),
                    _ => Span::just(1),
                };
            }
            Kind::List(items) => return Span::just(items.len() as u64),
            Kind::Map(entries) => return Span::just(entries.len() as u64),
            Kind::Ident(name) => {
                let local = self.locals.iter().rev().find(|(n, ..)| *n == &**name);
                if let Some((_, None, span)) = local {
                    return *span;
                }
            }
            Kind::Call {
                function,
                args,
                target,
            } => match (&**function, args.as_slice()) {
                ("_+_", [a, b])
                    if matches!(expr.ty, Type::String | Type::Bytes | Type::List(_)) =>
                {
                    return self.size(a).add(self.size(b));
                }
                ("_?_:_", [_, a, b]) => return self.size(a).either(self.size(b)),
                ("string" | "bytes" | "dyn", [a]) => return self.size(a),
                (
                    "lowerAscii" | "upperAscii" | "trim" | "substring" | "split" | "find"
                    | "findAll" | "charAt",
                    _,
                ) => {
                    if let Some(target) = target {
                        return at_most(self.size(target).most);
                    }
                }
                _ => {}
            },
            Kind::Fold { fold, range, .. } => match fold {
                Fold::All | Fold::Exists | Fold::ExistsOne => {}
                _ => return at_most(self.size(range).most),
            },
            _ => {}
        }
        if let Some(decl) = self.declared(expr) {
            return at_most(decl.most);
        }
        match &expr.ty {
            Type::Bool
            | Type::Int
            | Type::Uint
            | Type::Double
            | Type::Duration
            | Type::Timestamp
            | Type::Null
            | Type::Type => Span::just(1),
            _ => UNKNOWN,
        }
    }

    pub fn cost(&mut self, expr: &'e Expr) -> Span {
        super::level(|| self.span(expr))
    }

    fn span(&mut self, expr: &'e Expr) -> Span {
        match &expr.kind {
            Kind::Literal(_) => Span::ZERO,
            Kind::Ident(_) => Span::just(1),
            Kind::Select { operand, test, .. } => {
                let of = self.cost(operand);
                if *test { of } else { of.add(Span::just(1)) }
            }
            Kind::Call {
                function,
                target,
                args,
            } => self.call(function, target.as_deref(), args),
            Kind::List(items) => items
                .iter()
                .fold(Span::just(LIST_COST), |sum, (e, _)| sum.add(self.cost(e))),
            Kind::Map(entries) => entries.iter().fold(Span::just(MAP_COST), |sum, (k, v, _)| {
                sum.add(self.cost(k)).add(self.cost(v))
            }),
            Kind::Struct { fields, .. } => fields
                .iter()
                .fold(Span::just(STRUCT_COST), |sum, (_, e, _)| {
                    sum.add(self.cost(e))
                }),
            Kind::Fold {
                fold,
                range,
                vars,
                filter,
                body,
            } => {
                let of = self.cost(range);
                let count = self.size(range);
                let decl = self.declared(range);
                let items = decl.and_then(|d| d.items.as_deref());
                let is_map = matches!(range.ty, Type::Map(..));
                let item_size = match (is_map, items) {
                    // Keys of a map are text without a declared bound, as in Kubernetes.
                    (true, _) => Span::just(0),
                    (false, _) => UNKNOWN,
                };
                let depth = self.locals.len();
                match vars.as_slice() {
                    [one] => {
                        let decl = if is_map { None } else { items };
                        self.locals.push((one, decl, item_size));
                    }
                    [index, value, ..] => {
                        self.locals.push((index, None, Span::just(1)));
                        self.locals.push((value, items, UNKNOWN));
                    }
                    [] => {}
                }
                let filtered = filter.as_ref().map(|f| self.cost(f));
                let inner = self.cost(body);
                self.locals.truncate(depth);
                let accumulate = Span::just(LIST_COST + 2);
                let step = match fold {
                    // The accumulator decides first: the body may not be evaluated at all.
                    Fold::All => Span {
                        least: 3,
                        most: inner.most.saturating_add(3),
                    },
                    Fold::Exists => Span {
                        least: 4,
                        most: inner.most.saturating_add(4),
                    },
                    Fold::ExistsOne => inner.add(Span { least: 1, most: 2 }),
                    Fold::Filter => inner.add(Span {
                        least: 1,
                        most: LIST_COST + 3,
                    }),
                    _ => match filtered {
                        Some(filter) => filter.add(Span {
                            least: 1,
                            most: accumulate.add(inner).most,
                        }),
                        None => accumulate.add(inner),
                    },
                };
                let (begin, end) = match fold {
                    Fold::All | Fold::Exists => (0, 1),
                    Fold::ExistsOne => (0, 2),
                    _ => (LIST_COST, 1),
                };
                of.add(Span::just(begin))
                    .add(count.times(step))
                    .add(Span::just(end))
            }
            Kind::OptMap {
                operand, var, body, ..
            } => {
                let of = self.cost(operand);
                self.locals.push((var, self.declared(operand), UNKNOWN));
                let inner = self.cost(body);
                self.locals.pop();
                of.add(Span {
                    least: 2,
                    most: inner.most.saturating_add(LIST_COST + 4),
                })
            }
        }
    }

    fn call(&mut self, function: &str, target: Option<&'e Expr>, args: &'e [Expr]) -> Span {
        let costs: Vec<Span> = args.iter().map(|a| self.cost(a)).collect();
        match (function, costs.as_slice()) {
            ("_&&_" | "_||_", [left, right]) => {
                return Span {
                    least: left.least,
                    most: left.most.saturating_add(right.most),
                };
            }
            ("_?_:_", [condition, yes, no]) => return condition.add(yes.either(*no)),
            _ => {}
        }
        let on = target.map_or(Span::ZERO, |t| self.cost(t));
        let sum = costs.iter().fold(on, |sum, c| sum.add(*c));
        sum.add(self.price(function, target, args))
    }

    fn price(&self, function: &str, target: Option<&'e Expr>, args: &'e [Expr]) -> Span {
        let subject = |me: &Self| target.map_or(Span::just(1), |t| me.size(t));
        match (function, args) {
            ("_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_", [a, b]) => {
                let most = self.size(a).most.min(self.size(b).most);
                Span {
                    least: u64::from(most > 0),
                    most,
                }
                .part(TEXT_PART)
            }
            ("_+_", [a, b]) if matches!(a.ty, Type::String | Type::Bytes) => {
                self.size(a).add(self.size(b)).part(TEXT_PART)
            }
            ("@in", [_, of]) => match of.ty {
                Type::Map(..) => Span::just(1),
                _ => self.size(of),
            },
            ("startsWith" | "endsWith" | "bytes" | "string", [a]) => self.size(a).part(TEXT_PART),
            ("contains", [a]) if target.is_some() => subject(self)
                .part(TEXT_PART)
                .times(self.size(a).part(TEXT_PART)),
            ("matches" | "find" | "findAll", [.., pattern]) => {
                let text = match target {
                    Some(target) => self.size(target),
                    None => args.first().map_or(UNKNOWN, |a| self.size(a)),
                };
                text.add(Span::just(1))
                    .part(TEXT_PART)
                    .times(self.size(pattern).part(PATTERN_PART))
            }
            ("isSorted" | "sum" | "min" | "max", []) => {
                // Comparing text costs by its length too.
                let items = target
                    .and_then(|t| self.declared(t))
                    .and_then(|d| d.items.as_deref());
                let each = match items {
                    Some(decl) if matches!(decl.ty, Type::String | Type::Bytes) => Span {
                        least: 0,
                        most: decl.most,
                    }
                    .part(TEXT_PART),
                    _ => Span::just(1),
                };
                subject(self).times(each).add(Span::just(1))
            }
            ("indexOf" | "lastIndexOf", [a, ..]) => match target.map(|t| &t.ty) {
                Some(Type::List(_)) => subject(self).add(Span::just(1)),
                _ => subject(self)
                    .part(TEXT_PART)
                    .times(self.size(a).part(TEXT_PART)),
            },
            (
                "join" | "split" | "replace" | "lowerAscii" | "upperAscii" | "trim" | "substring"
                | "format",
                _,
            ) => subject(self).part(TEXT_PART),
            ("sets.contains" | "sets.equivalent" | "sets.intersects", [a, b]) => {
                self.size(a).times(self.size(b)).add(Span::just(1))
            }
            (
                "quantity" | "isQuantity" | "url" | "isURL" | "ip" | "isIP" | "cidr" | "isCIDR"
                | "semver" | "isSemver" | "validate",
                [a, ..],
            ) => self.size(a).part(TEXT_PART),
            ("check", [_]) => Span::just(350_000),
            _ => Span::just(1),
        }
    }
}
