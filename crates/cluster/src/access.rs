//! How to reach a cluster from outside: kubeconfigs, written so that only their owner reads them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use kube::config::{
    AuthInfo, Cluster, Context as KubeContext, Kubeconfig, NamedAuthInfo, NamedCluster,
    NamedContext,
};

/// One cluster's endpoint and an administrator's credentials for it.
#[derive(Clone)]
pub struct Context {
    /// Name of the kubeconfig's context, cluster and user.
    pub name: String,
    pub server: String,
    pub ca_pem: String,
    pub token: String,
}

impl std::fmt::Debug for Context {
    /// Leaves the token out: what is printed may be logged.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("name", &self.name)
            .field("server", &self.server)
            .finish()
    }
}

/// A kubeconfig with one context for each cluster; the first is the current one.
pub fn merge_contexts(contexts: &[Context]) -> Kubeconfig {
    use base64::Engine;
    let engine = base64::engine::general_purpose::STANDARD;
    Kubeconfig {
        api_version: Some("v1".into()),
        kind: Some("Config".into()),
        current_context: contexts.first().map(|c| c.name.clone()),
        clusters: contexts
            .iter()
            .map(|c| NamedCluster {
                name: c.name.clone(),
                cluster: Some(Cluster {
                    server: Some(c.server.clone()),
                    certificate_authority_data: Some(engine.encode(&c.ca_pem)),
                    ..Cluster::default()
                }),
                other: Default::default(),
            })
            .collect(),
        auth_infos: contexts
            .iter()
            .map(|c| NamedAuthInfo {
                name: c.name.clone(),
                auth_info: Some(AuthInfo {
                    token: Some(c.token.clone().into()),
                    ..AuthInfo::default()
                }),
                other: Default::default(),
            })
            .collect(),
        contexts: contexts
            .iter()
            .map(|c| NamedContext {
                name: c.name.clone(),
                context: Some(KubeContext {
                    cluster: c.name.clone(),
                    user: Some(c.name.clone()),
                    ..KubeContext::default()
                }),
                other: Default::default(),
            })
            .collect(),
        ..Kubeconfig::default()
    }
}

/// Writes a file that only its owner can read (0600), whole or not at all: a reader never sees a
/// half of it.
pub fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    let staged = path.with_extension("new");
    // A file left by a crash may carry other permissions; a new one is made with ours.
    match fs::remove_file(&staged) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&staged)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&staged, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn private_files_are_private_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn contexts_are_listed_in_order_and_secrets_are_not_printed() {
        let contexts = ["hub", "sh"].map(|name| Context {
            name: name.into(),
            server: format!("https://{name}"),
            ca_pem: "pem".into(),
            token: "secret".into(),
        });
        let config = merge_contexts(&contexts);
        assert_eq!(config.current_context.as_deref(), Some("hub"));
        assert_eq!(config.contexts.len(), 2);
        assert!(!format!("{contexts:?}").contains("secret"));
    }
}
