//! The authorizer that expressions of policies and conditions may ask.

use gantry_machinery::cel::{Answer, Authorizer, Question};

use crate::{
    api::Api,
    authn::{AUTHENTICATED, UserInfo},
    authz::Attributes,
};

/// Answers for the user of a request, or for a ServiceAccount that an expression names.
pub struct Asker<'a> {
    pub api: &'a Api,
    pub user: &'a UserInfo,
}

impl Authorizer for Asker<'_> {
    fn ask(&self, question: &Question) -> Answer {
        let account;
        let user = match &question.service_account {
            None => self.user,
            Some((namespace, name)) => {
                account = UserInfo::new(
                    &format!("system:serviceaccount:{namespace}:{name}"),
                    &[
                        "system:serviceaccounts",
                        &format!("system:serviceaccounts:{namespace}"),
                        AUTHENTICATED,
                    ],
                );
                &account
            }
        };
        let attributes = Attributes {
            verb: &question.verb,
            group: &question.group,
            resource: &question.resource,
            subresource: &question.subresource,
            namespace: &question.namespace,
            name: &question.name,
            path: (!question.path.is_empty()).then_some(question.path.as_str()),
            ..Attributes::default()
        };
        let authorizer = &self.api.authorizer;
        match authorizer.decide_now(&self.api.store, user, &attributes) {
            Ok(reason) => Answer {
                allowed: true,
                reason,
                error: None,
            },
            // What an expression does with a reason is what Kubernetes' may do: nothing, of a refusal.
            Err(no) => Answer {
                allowed: false,
                reason: String::new(),
                error: no.error,
            },
        }
    }
}
