//! Secrets that keep tokens of service accounts.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::meta::nullable;
use super::{Kind, Meta, SECRETS, Watched};

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct TokenSecret {
    pub metadata: Meta,
    #[serde(default, deserialize_with = "nullable")]
    pub data: BTreeMap<String, String>,
}

impl TokenSecret {
    /// Name and uid of the account that the token is of; the uid is filled in.
    pub fn account(&self) -> (&str, &str) {
        let note = |key: &str| {
            let note = self.metadata.annotations.get(key);
            note.unwrap_or_default()
        };
        (
            note("kubernetes.io/service-account.name"),
            note("kubernetes.io/service-account.uid"),
        )
    }
}

impl Watched for TokenSecret {
    const KIND: Kind = SECRETS;
    fn meta(&self) -> &Meta {
        &self.metadata
    }
    fn index(&self, _put: &mut dyn FnMut(Arc<str>)) {}
}
