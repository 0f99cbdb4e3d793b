//! Which versions of built-in groups are served: kube-apiserver's `--runtime-config`.

use gantry_machinery::resource::{Resource, builtin_resources};

/// What is switched. Everything that is offered is on until something switches it off; what is said
/// of less counts more, and of the same what is said last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeConfig(Vec<(Subject, bool)>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Subject {
    All,
    /// `ga`, `beta` or `alpha`.
    Stability(&'static str),
    Version(String, String),
    Resource(String, String, String),
}

fn stability(version: &str) -> &'static str {
    match version {
        v if v.contains("alpha") => "alpha",
        v if v.contains("beta") => "beta",
        _ => "ga",
    }
}

impl RuntimeConfig {
    /// Reads `api/all=false,batch/v1,apps/v1/daemonsets=false`.
    ///
    /// # Errors
    /// What is not such a list, or names what there is not.
    pub fn parse(text: &str) -> Result<RuntimeConfig, String> {
        let parts = text.split(',').map(str::trim).filter(|p| !p.is_empty());
        parts
            .map(switch)
            .collect::<Result<_, _>>()
            .map(RuntimeConfig)
    }

    /// Whether a built-in resource is served.
    pub fn serves(&self, resource: &Resource) -> bool {
        let (group, version) = (&resource.group, &resource.version);
        let last = |of: &dyn Fn(&Subject) -> bool| {
            let mut said = self.0.iter().rev();
            said.find(|(subject, _)| of(subject)).map(|(_, on)| *on)
        };
        last(&|s| *s == Subject::Resource(group.clone(), version.clone(), resource.plural.clone()))
            .or_else(|| last(&|s| *s == Subject::Version(group.clone(), version.clone())))
            .or_else(|| last(&|s| *s == Subject::Stability(stability(version))))
            .or_else(|| last(&|s| *s == Subject::All))
            .unwrap_or(true)
    }
}

fn switch(part: &str) -> Result<(Subject, bool), String> {
    let (subject, on) = match part.split_once('=') {
        None => (part, true),
        Some((subject, "true" | "")) => (subject, true),
        Some((subject, "false")) => (subject, false),
        Some((_, other)) => return Err(format!("{part}: {other:?} is neither true nor false")),
    };
    let known = |group: &str, version: &str, plural: Option<&str>| {
        builtin_resources().iter().any(|r| {
            r.group == group && r.version == version && plural.is_none_or(|p| r.plural == p)
        })
    };
    let unknown = || format!("{subject} is not offered");
    let parts: Vec<&str> = subject.split('/').collect();
    let subject = match parts.as_slice() {
        ["api", "all"] => Subject::All,
        ["api", "ga"] => Subject::Stability("ga"),
        ["api", "beta"] => Subject::Stability("beta"),
        ["api", "alpha"] => Subject::Stability("alpha"),
        ["v1"] | ["api", "v1"] => Subject::Version(String::new(), "v1".to_owned()),
        [group, version] if known(group, version, None) => {
            Subject::Version((*group).to_owned(), (*version).to_owned())
        }
        [group, version, plural] if known(group, version, Some(plural)) => {
            Subject::Resource((*group).into(), (*version).into(), (*plural).into())
        }
        _ => return Err(unknown()),
    };
    // The server keeps its namespaces, accounts and rules in these.
    let needed = match &subject {
        Subject::All | Subject::Stability("ga") => true,
        Subject::Version(group, _) | Subject::Resource(group, ..) => {
            matches!(group.as_str(), "" | "rbac.authorization.k8s.io")
        }
        Subject::Stability(_) => false,
    };
    if needed && !on {
        return Err(format!(
            "{part}: the server cannot be without its core and RBAC; switch off single versions"
        ));
    }
    Ok((subject, on))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_less_counts_more() {
        let resource = |group: &str, version: &str, plural: &str| {
            let mut all = builtin_resources().iter();
            all.find(|r| r.group == group && r.version == version && r.plural == plural)
                .expect("built in")
        };
        let daemons = resource("apps", "v1", "daemonsets");
        let sets = resource("apps", "v1", "statefulsets");
        for (text, first, second) in [
            ("", true, true),
            ("api/v1", true, true),
            ("api/all=true,apps/v1=false", false, false),
            ("apps/v1=false,api/all", false, false),
            ("apps/v1=false,apps/v1", true, true),
            ("apps/v1=false,apps/v1/daemonsets=true", true, false),
            ("apps/v1/daemonsets=false", false, true),
            ("api/beta=false,api/alpha=false", true, true),
        ] {
            let config = RuntimeConfig::parse(text).expect(text);
            let found = (config.serves(daemons), config.serves(sets));
            assert_eq!(found, (first, second), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, said) in [
            ("apps/v9", "apps/v9 is not offered"),
            ("apps/v1/nothings=false", "apps/v1/nothings is not offered"),
            ("api/legacy", "api/legacy is not offered"),
            ("apps/v1=off", "\"off\" is neither true nor false"),
            ("api/all=false", "cannot be without"),
            ("v1=false", "cannot be without"),
        ] {
            let why = RuntimeConfig::parse(text).expect_err(text);
            assert!(why.contains(said), "{why}");
        }
    }
}
