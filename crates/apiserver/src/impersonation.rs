//! Impersonation: a request that asks to be seen as another user's, and who may ask that.
//!
//! Beside the right to `impersonate` there are narrower ones, for a kind of user and for what is
//! then done: `impersonate:MODE` on the user and `impersonate-on:MODE:VERB` on the request's own
//! resource. They are tried first, the broad right last.

use std::sync::Arc;

use gantry_machinery::status::Failure;
use http::HeaderMap;

use crate::{
    api::Api,
    authn::{self, MASTERS, NODE_PREFIX, NODES, UserInfo, account_of},
    authz::Attributes,
    errors,
    route::refused,
};

/// The user that a request is seen as, and the narrow right by which, if by one.
pub struct Impersonated {
    pub user: Arc<UserInfo>,
    pub constraint: Option<String>,
}

const GROUP: &str = "authentication.k8s.io";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// From so many groups or extras on, one right to all of them is asked for first.
const MANY: usize = 4;

/// The user that a request asks to be seen as, when it asks and may.
pub fn impersonate(
    api: &Api,
    headers: &HeaderMap,
    user: &Arc<UserInfo>,
    asked: &Attributes<'_>,
) -> Result<Option<Impersonated>, Failure> {
    let Some(wanted) = authn::impersonation(headers) else {
        return Ok(None);
    };
    if wanted.name.is_empty() {
        return Err(errors::bad_request(format!(
            "requested {} without impersonating a user name",
            shown(&wanted)
        )));
    }
    let question = Question {
        api,
        user,
        wanted: &wanted,
        asked,
    };
    let mut first = None;
    for mode in MODES {
        if !question.applies(mode) {
            continue;
        }
        let allowed = question.on(mode).and_then(|()| question.narrow(mode));
        match allowed {
            Ok(user) => {
                return Ok(Some(Impersonated {
                    user: Arc::new(user),
                    constraint: Some(format!("impersonate:{mode}")),
                }));
            }
            Err(failure) => {
                first.get_or_insert(failure);
            }
        }
    }
    match question.checks("impersonate", "", false) {
        Ok(()) => Ok(Some(Impersonated {
            user: authn::impersonated(wanted),
            constraint: None,
        })),
        Err(failure) => Err(first.unwrap_or(failure)),
    }
}

const MODES: [&str; 4] = [
    "associated-node",
    "arbitrary-node",
    "serviceaccount",
    "user-info",
];

/// As Go prints the structure.
fn shown(user: &UserInfo) -> String {
    let list = |list: &[String]| {
        let quoted: Vec<String> = list.iter().map(|v| format!("{v:?}")).collect();
        quoted.join(", ")
    };
    let groups = match user.groups.as_slice() {
        [] => "[]string(nil)".to_owned(),
        groups => format!("[]string{{{}}}", list(groups)),
    };
    let extra = if user.extra.is_empty() {
        "map[string][]string(nil)".to_owned()
    } else {
        let pairs = user.extra.iter();
        let pairs: Vec<String> = pairs
            .map(|(key, values)| format!("{key:?}:[]string{{{}}}", list(values)))
            .collect();
        format!("map[string][]string{{{}}}", pairs.join(", "))
    };
    format!(
        "&user.DefaultInfo{{Name:{:?}, UID:{:?}, Groups:{groups}, Extra:{extra}}}",
        user.name, user.uid
    )
}

fn node_of(name: &str) -> Option<&str> {
    let node = name.strip_prefix(NODE_PREFIX)?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |l: &str| {
        l.bytes().all(|b| plain(b) || b == b'-')
            && l.bytes().next().is_some_and(plain)
            && l.bytes().last().is_some_and(plain)
    };
    (node.len() <= 253 && node.split('.').all(label)).then_some(node)
}

struct Question<'a> {
    api: &'a Api,
    user: &'a Arc<UserInfo>,
    wanted: &'a UserInfo,
    asked: &'a Attributes<'a>,
}

impl Question<'_> {
    /// Whether a mode is for this kind of user.
    fn applies(&self, mode: &str) -> bool {
        let wanted = self.wanted;
        let alone = wanted.uid.is_empty() && wanted.groups.is_empty() && wanted.extra.is_empty();
        let node = node_of(&wanted.name);
        let account = account_of(&wanted.name);
        match mode {
            "associated-node" => {
                let own = self
                    .user
                    .extra
                    .get(NODE_NAME)
                    .and_then(|v| match v.as_slice() {
                        [one] => Some(one.as_str()),
                        _ => None,
                    });
                alone && node.is_some() && own == node && account_of(&self.user.name).is_some()
            }
            "arbitrary-node" => alone && node.is_some(),
            "serviceaccount" => alone && account.is_some(),
            _ => node.is_none() && account.is_none(),
        }
    }

    fn check(&self, a: &Attributes<'_>) -> Result<(), Failure> {
        let authorizer = &self.api.authorizer;
        match authorizer.decide_now(&self.api.store, self.user, a) {
            Ok(_) => Ok(()),
            Err(no) => Err(refused(self.user, a, &no.reason)),
        }
    }

    /// Whether the request itself may be made in a mode.
    fn on(&self, mode: &str) -> Result<(), Failure> {
        let verb = format!("impersonate-on:{mode}:{}", self.asked.verb);
        self.check(&Attributes {
            verb: &verb,
            ..self.asked.clone()
        })
    }

    /// The user of a narrow mode, if that may be.
    fn narrow(&self, mode: &str) -> Result<UserInfo, Failure> {
        let verb = format!("impersonate:{mode}");
        let mut user = self.wanted.clone();
        if let Some(node) = node_of(&user.name) {
            let a = Attributes {
                verb: &verb,
                group: GROUP,
                resource: "nodes",
                // The right to one's own node does not name it: it is another one for each pod.
                name: if mode == "associated-node" { "*" } else { node },
                ..Attributes::default()
            };
            self.check(&a)?;
            user.groups = vec![NODES.to_owned()];
            return Ok(user.authenticated());
        }
        self.checks(&verb, GROUP, true)?;
        let user = authn::impersonated(user);
        Ok((*user).clone())
    }

    /// Whether name, uid, groups and extras may be taken on under a verb.
    fn checks(&self, verb: &str, group: &str, narrow: bool) -> Result<(), Failure> {
        let wanted = self.wanted;
        let base = Attributes {
            verb,
            group,
            ..Attributes::default()
        };
        let name = match account_of(&wanted.name) {
            Some((namespace, name)) => Attributes {
                resource: "serviceaccounts",
                namespace,
                name,
                ..base.clone()
            },
            None => Attributes {
                resource: "users",
                name: &wanted.name,
                ..base.clone()
            },
        };
        self.check(&name)?;
        if !wanted.uid.is_empty() {
            self.check(&Attributes {
                group: GROUP,
                resource: "uids",
                name: &wanted.uid,
                ..base.clone()
            })?;
        }
        self.groups(&base, narrow)?;
        self.extra(&base, narrow)
    }

    fn groups(&self, base: &Attributes<'_>, narrow: bool) -> Result<(), Failure> {
        let groups = &self.wanted.groups;
        let of = |name| Attributes {
            resource: "groups",
            name,
            ..base.clone()
        };
        let no = |name, why| Err(refused(self.user, &of(name), why));
        if narrow {
            if groups.iter().any(String::is_empty) {
                return no("", "impersonating the empty string group is not allowed");
            }
            if groups.iter().any(|g| g == MASTERS) {
                return no(
                    MASTERS,
                    "impersonating the system:masters group is not allowed",
                );
            }
            if groups.len() >= MANY && self.check(&of("*")).is_ok() {
                return Ok(());
            }
        }
        groups.iter().try_for_each(|group| self.check(&of(group)))
    }

    fn extra(&self, base: &Attributes<'_>, narrow: bool) -> Result<(), Failure> {
        let extra = &self.wanted.extra;
        let of = |key, value| Attributes {
            group: GROUP,
            resource: "userextras",
            subresource: key,
            name: value,
            ..base.clone()
        };
        if narrow && !extra.is_empty() {
            let wrong = extra.iter().find_map(|(key, values)| {
                if key.is_empty() {
                    Some("impersonating the empty string key in extra is not allowed")
                } else if !key.contains('/') {
                    Some(
                        "impersonating an invalid key in extra is not allowed: extra[key]: Invalid value: must be a domain-prefixed path (such as \"acme.io/foo\")",
                    )
                } else if values.iter().any(String::is_empty) {
                    Some("impersonating the empty string value in extra is not allowed")
                } else {
                    None
                }
            });
            if let Some(wrong) = wrong {
                return Err(refused(self.user, &of("", ""), wrong));
            }
            let count: usize = extra.values().map(Vec::len).sum();
            if count.max(extra.len()) >= MANY && self.check(&of("*", "*")).is_ok() {
                return Ok(());
            }
        }
        for (key, values) in extra {
            for value in values {
                self.check(&of(key, value))?;
            }
        }
        Ok(())
    }
}
