//! Expressions as the parser reads them and the checker completes them.

use std::sync::Arc;

use super::types::Type;

/// A node: where it stands in the text (in characters), what it is, and, once checked, its type.
#[derive(Debug, Clone)]
pub(super) struct Expr {
    pub at: usize,
    pub kind: Kind,
    pub ty: Type,
    /// Levels of nodes below and with this one: bounds the stack that a walk takes.
    pub depth: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
}

/// What a macro makes of the items of a list or the entries of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fold {
    All,
    Exists,
    ExistsOne,
    Map,
    Filter,
    TransformList,
    TransformMap,
    TransformMapEntry,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Literal(Literal),
    Ident(Arc<str>),
    /// `operand.field`, `operand.?field` (`optional`), `has(operand.field)` (`test`).
    Select {
        operand: Box<Expr>,
        field: Arc<str>,
        test: bool,
        optional: bool,
    },
    /// `function(args)` or `target.function(args)`; operators have names such as `_+_`.
    Call {
        function: Arc<str>,
        target: Option<Box<Expr>>,
        args: Vec<Expr>,
    },
    /// Items, and whether each is optional (`?item`).
    List(Vec<(Expr, bool)>),
    /// Keys, values, and whether the value is optional (`?key: value`).
    Map(Vec<(Expr, Expr, bool)>),
    /// `Name{field: value}`.
    Struct {
        name: Arc<str>,
        fields: Vec<(Arc<str>, Expr, bool)>,
    },
    Fold {
        fold: Fold,
        range: Box<Expr>,
        /// One variable: the item or key. Two: index and item, or key and value.
        vars: Vec<Arc<str>>,
        filter: Option<Box<Expr>>,
        body: Box<Expr>,
    },
    /// `optional.optMap(x, e)`; `flat` where `e` is an optional itself.
    OptMap {
        operand: Box<Expr>,
        var: Arc<str>,
        body: Box<Expr>,
        flat: bool,
    },
}

impl Kind {
    /// Calls `f` with every node right below.
    pub fn children<'e>(&'e self, f: &mut dyn FnMut(&'e Expr)) {
        match self {
            Kind::Literal(_) | Kind::Ident(_) => {}
            Kind::Select { operand, .. } => f(operand),
            Kind::Call { target, args, .. } => {
                target.iter().for_each(|t| f(t));
                args.iter().for_each(f);
            }
            Kind::List(items) => items.iter().for_each(|(e, _)| f(e)),
            Kind::Map(entries) => entries.iter().for_each(|(k, v, _)| {
                f(k);
                f(v);
            }),
            Kind::Struct { fields, .. } => fields.iter().for_each(|(_, e, _)| f(e)),
            Kind::Fold {
                range,
                filter,
                body,
                ..
            } => {
                f(range);
                filter.iter().for_each(|e| f(e));
                f(body);
            }
            Kind::OptMap { operand, body, .. } => {
                f(operand);
                f(body);
            }
        }
    }
}

impl Expr {
    pub fn new(at: usize, kind: Kind) -> Expr {
        let mut below = 0;
        kind.children(&mut |child| below = below.max(child.depth));
        Expr {
            at,
            kind,
            ty: Type::Dyn,
            depth: below + 1,
        }
    }

    /// Whether a variable is read anywhere in the expression.
    pub fn reads(&self, name: &str) -> bool {
        let mut found = matches!(&self.kind, Kind::Ident(n) if &**n == name);
        self.kind.children(&mut |e| found = found || e.reads(name));
        found
    }

    /// Whether it reads this field of a variable.
    pub fn selects(&self, name: &str, wanted: &str) -> bool {
        let mut found = match &self.kind {
            Kind::Select { operand, field, .. } => {
                &**field == wanted && matches!(&operand.kind, Kind::Ident(n) if &**n == name)
            }
            _ => false,
        };
        self.kind
            .children(&mut |e| found = found || e.selects(name, wanted));
        found
    }
}
