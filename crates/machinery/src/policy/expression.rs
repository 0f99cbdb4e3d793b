//! Compiling: which variables an expression of a policy may read and what it has to evaluate to.

use std::{collections::BTreeMap, sync::Arc};

use super::declare;
use crate::cel::{AUTHORIZER, Decl, Environment, Field, Object, Program, RESOURCE_CHECK, Type};

/// What an expression must evaluate to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Bool,
    Text,
    TextOrNull,
    /// `Object{…}`.
    Object,
    /// `[JSONPatch{…}, …]`.
    Patch,
    Any,
}

impl Wanted {
    fn types(self) -> Vec<Type> {
        match self {
            Wanted::Bool => vec![Type::Bool],
            Wanted::Text => vec![Type::String],
            Wanted::TextOrNull => vec![Type::String, Type::Null],
            Wanted::Object => vec![structure("Object")],
            Wanted::Patch => vec![Type::list(structure("JSONPatch"))],
            Wanted::Any => vec![],
        }
    }

    fn makes_structures(self) -> bool {
        matches!(self, Wanted::Object | Wanted::Patch)
    }
}

fn structure(name: &str) -> Type {
    let mut fields = BTreeMap::new();
    if name == "JSONPatch" {
        for (name, ty) in [
            ("op", Type::String),
            ("path", Type::String),
            ("from", Type::String),
            ("value", Type::Dyn),
        ] {
            let field = Field {
                json: name.into(),
                decl: Arc::new(Decl::of(ty)),
            };
            fields.insert(name.to_owned(), field);
        }
    }
    Type::Object(Arc::new(Object {
        name: name.to_owned(),
        fields,
        open: name != "JSONPatch",
    }))
}

/// The structures that mutations make: `Object` and what is in it, and operations of patches.
fn structures(name: &str) -> Option<Type> {
    let known = name == "Object" || name == "JSONPatch" || name.starts_with("Object.");
    known.then(|| structure(name))
}

/// Compiles the expressions of one policy or webhook.
#[derive(Default)]
pub struct Compiler {
    /// Types of the variables that the policy defines.
    variables: Vec<(String, Type)>,
    /// Whether and as which type there are parameters.
    params: Option<Type>,
    object: Type,
    /// For checking types alone: messages are not introduced, results are not looked at.
    lenient: bool,
}

impl Compiler {
    /// Of a policy with or without parameters.
    pub fn new(params: bool) -> Compiler {
        Compiler {
            params: params.then_some(Type::Dyn),
            ..Compiler::default()
        }
    }

    /// With the types of the objects known, to find out whether expressions fit them.
    pub fn typed(object: Type, params: Option<Type>) -> Compiler {
        Compiler {
            params,
            object,
            lenient: true,
            ..Compiler::default()
        }
    }

    /// Compiles a variable and lets later expressions read it.
    ///
    /// # Errors
    /// What is wrong with the expression.
    pub fn variable(&mut self, name: &str, text: &str) -> Result<Program, String> {
        let compiled = self.compile(text, Wanted::Any, true);
        let ty = compiled.as_ref().map_or(Type::Dyn, |p| p.result().clone());
        self.variables.push((name.to_owned(), ty));
        compiled
    }

    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it, in Kubernetes' words.
    pub fn compile(&self, text: &str, wanted: Wanted, authorizer: bool) -> Result<Program, String> {
        let mut variables = vec![
            ("object", self.object.clone()),
            ("oldObject", self.object.clone()),
            ("request", declare::request().ty.clone()),
            ("namespaceObject", declare::namespace().ty.clone()),
        ];
        if let Some(params) = &self.params {
            variables.push(("params", params.clone()));
        }
        if authorizer {
            variables.push(("authorizer", AUTHORIZER));
            variables.push(("authorizer.requestResource", RESOURCE_CHECK));
        }
        if !self.variables.is_empty() {
            let fields = self.variables.iter().map(|(name, ty)| {
                let field = Field {
                    json: name.as_str().into(),
                    decl: Arc::new(Decl::of(ty.clone())),
                };
                (name.clone(), field)
            });
            let all = Object {
                name: "kubernetes.variables".to_owned(),
                fields: fields.collect(),
                open: false,
            };
            variables.push(("variables", Type::Object(Arc::new(all))));
        }
        let environment = Environment {
            variables: &variables,
            structures: if wanted.makes_structures() || wanted == Wanted::Any {
                Some(&structures)
            } else {
                None
            },
        };
        let program = Program::compile(&environment, text).map_err(|issues| {
            if self.lenient {
                issues.to_string()
            } else {
                format!("compilation failed: {issues}")
            }
        })?;
        let types = wanted.types();
        if self.lenient || types.is_empty() || types.contains(program.result()) {
            return Ok(program);
        }
        let got = program.result();
        Err(match types.as_slice() {
            [one] => format!("must evaluate to {one} but got {got}"),
            many => {
                let shown = |ty: &Type| match ty {
                    Type::Null => "null_type".to_owned(),
                    ty => ty.to_string(),
                };
                let many: Vec<String> = many.iter().map(shown).collect();
                format!("must evaluate to one of [{}] but got {got}", many.join(" "))
            }
        })
    }
}
