//! Configuration files that are read again when they change, while the server runs:
//! `--authentication-config`, `--authorization-config`, `--encryption-provider-config`.
//!
//! What is wrong with a file is told in the log and counted; what was in force before stays in force.

mod plan;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use gantry_store::Stored;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::TaskTracker;

use crate::{
    api::Api,
    authn::{self, Anonymous},
    authz,
    encryption::{self, Encryption},
    metrics::reload::Of,
};
use plan::{Plan, Trouble};

/// How often the files are looked at. They are small; kube-apiserver is told of changes by the kernel,
/// and so sees them as soon.
const LOOK: Duration = Duration::from_secs(1);
/// How long the keys of new OpenID Connect issuers are waited for, as in kube-apiserver.
const ISSUERS_READY: Duration = Duration::from_secs(60);

/// A configuration file, and which content of it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    pub path: PathBuf,
    digest: String,
}

impl ConfigFile {
    /// `text` is what was read of the file and is in force. (It may hold keys: its digest is kept.)
    pub fn new(path: impl Into<PathBuf>, text: &str) -> ConfigFile {
        ConfigFile {
            path: path.into(),
            digest: digest(text),
        }
    }
}

/// The files that are read again when they change.
#[derive(Debug, Clone, Default)]
pub struct Reload {
    /// An AuthenticationConfiguration, and what it says of anonymous requests, which stays as it is.
    pub authentication: Option<(ConfigFile, Option<Anonymous>)>,
    /// An AuthorizationConfiguration. Webhooks may come and go; what is built in may change its place.
    pub authorization: Option<ConfigFile>,
    /// An EncryptionConfiguration, and what was made of it: what the store keeps its values by.
    pub encryption: Option<(ConfigFile, Arc<Encryption>)>,
}

impl Reload {
    /// Whether an object would be kept in another way if it were written now.
    pub(crate) fn outdates(&self, stored: &Stored) -> bool {
        let encryption = self.encryption.as_ref();
        encryption.is_some_and(|(_, e)| e.outdated(&stored.key.bucket, stored.revision))
    }

    fn files(&self) -> impl Iterator<Item = (Of, &ConfigFile)> {
        let authentication = self.authentication.as_ref().map(|(file, _)| file);
        let encryption = self.encryption.as_ref().map(|(file, _)| file);
        [
            (Of::Authentication, authentication),
            (Of::Authorization, self.authorization.as_ref()),
            (Of::Encryption, encryption),
        ]
        .into_iter()
        .filter_map(|(of, file)| Some((of, file?)))
    }
}

fn digest(text: &str) -> String {
    let mut told = "sha256:".to_owned();
    for byte in Sha256::digest(text.as_bytes()) {
        told.push_str(&format!("{byte:02x}"));
    }
    told
}

/// Follows the files until the server stops.
pub fn start(api: &Arc<Api>, tasks: &TaskTracker) {
    let metrics = &api.metrics.reloads;
    metrics.name(digest(&format!("apiserver-{}", api.external)));
    for (of, file) in api.config.reload.files() {
        metrics.started(of, &file.digest);
        tasks.spawn(follow(api.clone(), of, file.clone()));
    }
}

async fn follow(api: Arc<Api>, of: Of, file: ConfigFile) {
    let mut plan = Plan::new(file.digest);
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = api.stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        let read = tokio::fs::read_to_string(&file.path).await;
        let seen = read.as_ref().ok().map(|text| digest(text));
        if !plan.due(seen.as_deref(), Instant::now()) {
            continue;
        }
        let outcome = match read {
            Ok(text) => tokio::select! {
                () = api.stop.cancelled() => return,
                taken = take(&api, of, &text) => taken,
            },
            Err(error) => Err(Trouble::Passing(error.to_string())),
        };
        plan.tried(&outcome, Instant::now());
        told(&api, of, &file.path, seen.as_deref(), outcome);
    }
}

fn told(api: &Api, of: Of, path: &Path, digest: Option<&str>, outcome: Result<(), Trouble>) {
    let (metrics, path) = (&api.metrics.reloads, path.display());
    let name = of.name();
    match outcome {
        Ok(()) => {
            tracing::info!(file = %path, "the {name} configuration was read again and is in force");
            metrics.succeeded(of, digest.unwrap_or_default());
        }
        Err(Trouble::Wrong(why)) => {
            tracing::error!(file = %path, %why, "the changed {name} configuration is wrong; the one before stays in force");
            metrics.failed(of);
        }
        Err(Trouble::Passing(why)) => {
            tracing::error!(file = %path, %why, "the {name} configuration could not be taken over; the one before stays in force until it can be, in a minute");
            metrics.failed(of);
        }
    }
}

/// Brings a file's content into force.
async fn take(api: &Api, of: Of, text: &str) -> Result<(), Trouble> {
    let reload = &api.config.reload;
    match (of, &reload.authentication, &reload.encryption) {
        (Of::Authentication, Some((_, anonymous)), _) => {
            authentication(api, text, anonymous.as_ref()).await
        }
        (Of::Authorization, ..) => authorization(api, text).await,
        (Of::Encryption, _, Some((_, encryption))) => {
            let other = encryption::parse(text).map_err(Trouble::Wrong)?;
            encryption.replace(other, &api.store).await;
            Ok(())
        }
        _ => Ok(()),
    }
}

async fn authentication(
    api: &Api,
    text: &str,
    anonymous: Option<&Anonymous>,
) -> Result<(), Trouble> {
    let own = &api.config.authentication.issuers;
    let (issuers, who) = authn::parse_config(text, own).map_err(Trouble::Wrong)?;
    if who.as_ref() != anonymous {
        return Err(Trouble::Wrong(
            "anonymous: Forbidden: changed from initial configuration file".to_owned(),
        ));
    }
    let replaced = api.authenticator.replace(issuers, ISSUERS_READY).await;
    replaced.map_err(|error| match &error {
        authn::ReplaceError::Issuer(_) => Trouble::Wrong(error.to_string()),
        authn::ReplaceError::NotReady { .. } => Trouble::Passing(error.to_string()),
    })
}

async fn authorization(api: &Api, text: &str) -> Result<(), Trouble> {
    let policies = api.config.authorization.iter().find_map(|a| match a {
        authz::Authorization::Abac(policies) => Some(&policies[..]),
        _ => None,
    });
    let modes = authz::parse_config(text, policies).map_err(Trouble::Wrong)?;
    let replaced = api.authorizer.replace(&modes).await;
    // As in kube-apiserver: a kubeconfig that is mended is seen with the next change of this file.
    replaced.map_err(|error| Trouble::Wrong(authn::oidc::full(&error)))
}
