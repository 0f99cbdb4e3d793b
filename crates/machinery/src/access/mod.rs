//! CEL in what decides who asks and whether they may: the conditions of authorization webhooks, and
//! the mappings and rules of ID tokens (`k8s.io/apiserver/pkg/{authorization,authentication}/cel`).

mod declare;

use serde_json::Value as Json;

use crate::cel::{Decl, Environment, Program, Type, Value};

/// What one evaluation may cost.
const MOST: u64 = 1_000_000;

/// What an expression is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// `request`: the spec of a SubjectAccessReview.
    Review,
    /// `claims`: those of an ID token.
    Claims,
    /// `user`: who the claims make of him.
    User,
}

impl About {
    fn variable(self) -> (&'static str, &'static Decl) {
        match self {
            About::Review => ("request", declare::review()),
            About::Claims => ("claims", declare::claims()),
            About::User => ("user", declare::user()),
        }
    }
}

/// A compiled expression.
#[derive(Debug, Clone)]
pub struct Expression {
    pub text: String,
    about: About,
    program: Program,
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.about == other.about && self.text == other.text
    }
}

impl Eq for Expression {}

impl Expression {
    /// Compiles an expression that may evaluate to anything.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(about: About, text: &str) -> Result<Expression, String> {
        let (name, decl) = about.variable();
        let environment = Environment {
            variables: &[(name, decl.ty.clone())],
            structures: None,
        };
        let program = Program::compile(&environment, text)
            .map_err(|issues| format!("compilation failed: {issues}"))?;
        Ok(Expression {
            text: text.to_owned(),
            about,
            program,
        })
    }

    /// Compiles an expression that says yes or no.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn condition(about: About, text: &str) -> Result<Expression, String> {
        let expression = Expression::compile(about, text)?;
        match expression.program.result() {
            Type::Bool => Ok(expression),
            other => Err(format!("must evaluate to bool but got {other}")),
        }
    }

    /// Whether it reads this field of what it is told of.
    pub fn selects(&self, field: &str) -> bool {
        self.program.selects(self.about.variable().0, field)
    }

    fn eval<R>(
        &self,
        told: &Json,
        read: impl FnOnce(&Value<'_>) -> Result<R, String>,
    ) -> Result<R, String> {
        let (name, decl) = self.about.variable();
        let wrong = |why: String| format!("expression '{}' resulted in error: {why}", self.text);
        let value = Value::of(told, decl).map_err(|fault| wrong(fault.to_string()))?;
        let (result, _) = self.program.eval(&[(name, value)], MOST);
        read(&result.map_err(|fault| wrong(fault.to_string()))?)
    }

    /// Whether the answer is yes.
    ///
    /// # Errors
    /// The evaluation failed, or gave neither yes nor no.
    pub fn holds(&self, told: &Json) -> Result<bool, String> {
        self.eval(told, |value| match value {
            Value::Bool(answer) => Ok(*answer),
            _ => Err("validation expression must return a boolean".to_owned()),
        })
    }

    /// The text that it gives.
    ///
    /// # Errors
    /// The evaluation failed, or gave no text.
    pub fn one(&self, told: &Json, what: &str) -> Result<String, String> {
        self.eval(told, |value| match value {
            Value::String(text) => Ok(text.to_string()),
            _ => Err(format!("{what} claim expression must return a string")),
        })
    }

    /// The texts that it gives, empty ones left out: a list, one text, or null for none.
    ///
    /// # Errors
    /// The evaluation failed, or gave something else.
    pub fn many(&self, told: &Json) -> Result<Vec<String>, String> {
        self.eval(told, |value| {
            let other = || "expression must return a string or a list of strings".to_owned();
            let mut texts = vec![];
            match value {
                Value::Null => {}
                Value::String(text) => texts.push(text.to_string()),
                list => {
                    for item in list.items().map_err(|_| other())?.iter() {
                        match item {
                            Value::String(text) => texts.push(text.to_string()),
                            _ => return Err(other()),
                        }
                    }
                }
            }
            texts.retain(|text| !text.is_empty());
            Ok(texts)
        })
    }
}

/// Whether the spec of a SubjectAccessReview meets all conditions. One that is not met decides,
/// whatever is wrong with others.
///
/// # Errors
/// Why that cannot be told.
pub fn met(conditions: &[Expression], spec: &Json) -> Result<bool, String> {
    let mut wrong = vec![];
    for condition in conditions {
        match condition.holds(spec) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(why) => wrong.push(format!("cel evaluation error: {why}")),
        }
    }
    match wrong.as_slice() {
        [] => Ok(true),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn spec() -> Json {
        json!({
            "user": "ann", "uid": "", "groups": ["dev"], "extra": {"k": ["v"]},
            "resourceAttributes": {
                "namespace": "kube-system", "verb": "list", "group": "", "version": "v1",
                "resource": "pods", "subresource": "", "name": "",
                "fieldSelector": {"requirements": [
                    {"key": "spec.nodeName", "operator": "In", "values": ["n"]}
                ]},
            },
        })
    }

    #[rstest]
    #[case(&["request.user == 'ann'", "'dev' in request.groups"], Some(true))]
    #[case(&["request.resourceAttributes.namespace == 'kube-system'"], Some(true))]
    #[case(&["has(request.nonResourceAttributes)"], Some(false))]
    #[case(&["request.nonResourceAttributes.path == '/x'"], None)]
    // What is not met decides over what cannot be told.
    #[case(&["request.nonResourceAttributes.path == '/x'", "request.user == 'bob'"], Some(false))]
    #[case(&["request.resourceAttributes.fieldSelector.requirements.exists(r, r.key == 'spec.nodeName')"], Some(true))]
    #[case(&["request.extra['k'][0] == 'v'"], Some(true))]
    fn conditions_of_webhooks(#[case] texts: &[&str], #[case] expected: Option<bool>) {
        let all: Vec<Expression> = texts
            .iter()
            .map(|text| Expression::condition(About::Review, text).expect("compiles"))
            .collect();
        assert_eq!(met(&all, &spec()).ok(), expected);
    }

    #[rstest]
    #[case(About::Review, "request.usr == 'a'", "compilation failed")]
    #[case(About::Review, "request.user", "must evaluate to bool but got string")]
    #[case(About::Claims, "user.username == 'a'", "compilation failed")]
    #[case(
        About::User,
        "user.groups",
        "must evaluate to bool but got list(string)"
    )]
    fn what_is_no_condition(#[case] about: About, #[case] text: &str, #[case] words: &str) {
        let said = Expression::condition(about, text).expect_err("refused");
        assert!(said.contains(words), "{said}");
    }

    #[test]
    fn claims_are_read() {
        let claims = json!({
            "sub": "ann", "roles": ["a", "", "b"], "none": null, "n": 3, "realm": {"roles": ["x"]},
            "email": "e@x", "email_verified": true,
        });
        let compiled = |text: &str| Expression::compile(About::Claims, text).expect("compiles");
        let one = |text: &str| compiled(text).one(&claims, "username");
        assert_eq!(one("'p:' + claims.sub").as_deref(), Ok("p:ann"));
        assert_eq!(
            one("claims.n").unwrap_err(),
            "username claim expression must return a string"
        );
        assert!(one("claims.absent").unwrap_err().contains("no such key"));
        let many = |text: &str| compiled(text).many(&claims);
        assert_eq!(many("claims.roles").expect("texts"), ["a", "b"]);
        assert_eq!(
            many("claims.roles.map(r, 'g:' + r)").expect("texts").len(),
            3
        );
        assert_eq!(many("claims.realm.roles").expect("texts"), ["x"]);
        assert_eq!(many("claims.sub").expect("texts"), ["ann"]);
        assert_eq!(many("claims.none").expect("none"), [""; 0]);
        assert!(many("claims.n").is_err());
        assert!(compiled("claims.?email.orValue('')").selects("email"));
        assert!(compiled("has(claims.email) ? 'a' : 'b'").selects("email"));
        assert!(!compiled("claims.email_verified").selects("email"));
        let user = json!({"username": "system:x", "uid": "", "groups": [], "extra": {}});
        let rule = "!user.username.startsWith('system:')";
        let rule = Expression::condition(About::User, rule).expect("compiles");
        assert_eq!(rule.holds(&user), Ok(false));
    }
}
