//! Which cluster a command speaks to: flag, environment, the fleet that runs here, ~/.kube/config.

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::cli::Global;
use crate::failure::{Exit, Failure, Result};

/// The folder of `gantry up` where none is named: `$XDG_DATA_HOME/gantry`, `~/.local/share/gantry`.
pub fn default_data_dir(name: &str) -> PathBuf {
    let base = std::env::var_os("XDG_DATA_HOME")
        .map(PathBuf::from)
        .filter(|p| p.is_absolute())
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")))
        .unwrap_or_else(std::env::temp_dir);
    base.join(name)
}

/// A connection: the client and the namespace that its context names.
pub struct Connection {
    pub client: Client,
    pub namespace: String,
}

/// Connects to the cluster that the global options name.
pub async fn connect(global: &Global) -> Result<Connection> {
    let config = config(global).await?;
    let namespace = config.default_namespace.clone();
    let client = Client::try_from(config).map_err(|e| {
        Failure::new(
            Exit::Failure,
            format!("cannot make a client from the kubeconfig: {e}"),
        )
    })?;
    Ok(Connection { client, namespace })
}

/// How the cluster that the global options name is reached.
pub async fn config(global: &Global) -> Result<Config> {
    let options = KubeConfigOptions {
        context: global.context.clone(),
        ..KubeConfigOptions::default()
    };
    let file = match &global.kubeconfig {
        Some(file) => Some(file.clone()),
        None if std::env::var_os("KUBECONFIG").is_some_and(|v| !v.is_empty()) => None,
        None => Some(default_data_dir("gantry").join("kubeconfig")).filter(|f| f.exists()),
    };
    let kubeconfig = match &file {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    let unusable = |e: &dyn std::fmt::Display| {
        let place = file
            .as_ref()
            .map_or("the kubeconfig".to_owned(), |f| f.display().to_string());
        Failure::new(Exit::Failure, format!("cannot use {place}: {e}"))
            .hint("start a fleet with `gantry up`, or name a kubeconfig with --kubeconfig")
    };
    let kubeconfig = kubeconfig.map_err(|e| unusable(&e))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|e| unusable(&e))?;
    if let Some(user) = &global.act_as {
        config.auth_info.impersonate = Some(user.clone());
        config.auth_info.impersonate_groups =
            Some(global.act_as_groups.clone()).filter(|g| !g.is_empty());
    }
    // The API server writes down which program has changed what (`managedFields`).
    let agent = concat!("gantry/", env!("CARGO_PKG_VERSION"));
    let agent = http::HeaderValue::from_static(agent);
    config.headers.push((http::header::USER_AGENT, agent));
    Ok(config)
}

/// Turns a failed call into what a person can use: what was asked, what the server said.
pub fn failed(what: &str, error: kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => {
            let failure = Failure::new(Exit::Failure, format!("{what}: {}", status.message));
            match (status.code, status.reason.as_str()) {
                (404, _) if status.message.contains("the server could not find the requested resource") => failure
                    .hint("this cluster has no Gantry: run `gantry hub` against it, or choose the hub's context with --context"),
                (401, _) => failure.hint("the kubeconfig's credentials are not (or no longer) valid"),
                (403, _) => failure.hint("ask for the right, or use a context with more"),
                _ => failure,
            }
        }
        error => Failure::new(
            Exit::Failure,
            format!("{what}: cannot reach the cluster: {}", root(&error)),
        )
        .hint("is it running? `gantry up` starts an embedded fleet"),
    }
}

/// The innermost cause: of a failed connection it is what the operating system said.
fn root(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
