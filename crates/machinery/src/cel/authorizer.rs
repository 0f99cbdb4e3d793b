//! The authorizer as expressions see it: who may do what is asked step by step.

use std::{fmt, rc::Rc};

use super::{error::Fault, value::Value};

/// What an expression asks the authorizer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Question {
    /// `None` asks for the user of the request.
    pub service_account: Option<(String, String)>,
    pub verb: String,
    /// A path that is no resource, else empty.
    pub path: String,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: Option<String>,
    pub label_selector: Option<String>,
}

/// The authorizer's answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}

/// Answers questions of expressions.
pub trait Authorizer {
    fn ask(&self, question: &Question) -> Answer;
}

/// A step on the way to an answer, or the answer.
#[derive(Clone)]
pub struct Check<'a> {
    authorizer: &'a dyn Authorizer,
    step: Step,
}

#[derive(Debug, Clone)]
enum Step {
    Start(Question),
    Path(Question),
    Group(Question),
    Resource(Question),
    Decision(Answer),
}

impl fmt::Debug for Check<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.step.fmt(f)
    }
}

impl<'a> Check<'a> {
    /// The variable `authorizer`.
    pub fn start(authorizer: &'a dyn Authorizer) -> Value<'a> {
        Value::Check(Rc::new(Check {
            authorizer,
            step: Step::Start(Question::default()),
        }))
    }

    /// The variable `authorizer.requestResource`.
    pub fn of_resource(authorizer: &'a dyn Authorizer, question: Question) -> Value<'a> {
        Value::Check(Rc::new(Check {
            authorizer,
            step: Step::Resource(question),
        }))
    }

    pub(super) fn type_name(&self) -> &'static str {
        match self.step {
            Step::Start(_) => "kubernetes.authorization.Authorizer",
            Step::Path(_) => "kubernetes.authorization.PathCheck",
            Step::Group(_) => "kubernetes.authorization.GroupCheck",
            Step::Resource(_) => "kubernetes.authorization.ResourceCheck",
            Step::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    pub(super) fn call(&self, function: &str, args: &[Value<'a>]) -> Result<Value<'a>, Fault> {
        let text = |i: usize| match args.get(i) {
            Some(Value::String(s)) => Ok(s.to_string()),
            _ => Err(Fault::no_overload()),
        };
        let with = |q: &Question, f: &dyn Fn(&mut Question, String)| -> Result<Question, Fault> {
            let mut q = q.clone();
            f(&mut q, text(0)?);
            Ok(q)
        };
        let step = match (&self.step, function) {
            (Step::Start(q), "path") => Step::Path(with(q, &|q, v| q.path = v)?),
            (Step::Start(q), "group") => Step::Group(with(q, &|q, v| q.group = v)?),
            (Step::Start(q), "serviceAccount") => {
                let mut q = q.clone();
                q.service_account = Some((text(0)?, text(1)?));
                Step::Start(q)
            }
            (Step::Group(q), "resource") => Step::Resource(with(q, &|q, v| q.resource = v)?),
            (Step::Resource(q), "subresource") => {
                Step::Resource(with(q, &|q, v| q.subresource = v)?)
            }
            (Step::Resource(q), "namespace") => Step::Resource(with(q, &|q, v| q.namespace = v)?),
            (Step::Resource(q), "name") => Step::Resource(with(q, &|q, v| q.name = v)?),
            (Step::Resource(q), "fieldSelector") => {
                Step::Resource(with(q, &|q, v| q.field_selector = Some(v))?)
            }
            (Step::Resource(q), "labelSelector") => {
                Step::Resource(with(q, &|q, v| q.label_selector = Some(v))?)
            }
            (Step::Path(q) | Step::Resource(q), "check") => {
                let q = with(q, &|q, v| q.verb = v)?;
                Step::Decision(self.authorizer.ask(&q))
            }
            (Step::Decision(a), "allowed") => return Ok(Value::Bool(a.allowed)),
            (Step::Decision(a), "reason") => return Ok(Value::text(&*a.reason)),
            (Step::Decision(a), "errored") => return Ok(Value::Bool(a.error.is_some())),
            (Step::Decision(a), "error") => {
                return Ok(Value::text(a.error.clone().unwrap_or_default()));
            }
            _ => return Err(Fault::no_overload()),
        };
        Ok(Value::Check(Rc::new(Check {
            authorizer: self.authorizer,
            step,
        })))
    }
}
