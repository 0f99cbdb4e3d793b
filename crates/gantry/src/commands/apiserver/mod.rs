//! `gantry apiserver`: the API server alone, under kube-apiserver's flags.

mod audit;
mod authentication;
mod authorization;
mod flags;
mod tokens;
mod unused;
pub mod values;

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use gantry_apiserver::{
    Anonymous, Authorization, Browsers, Config, ConfigFile, Encryption, Kubelets, PluginSettings,
    Reload, RuntimeConfig, Server, StartError, TlsCiphers, Version, parse_admission_config,
    parse_encryption_config,
};
use gantry_store::{OpenError, Store};

pub use flags::ApiServer;

use super::up::ended;
use crate::failure::{Exit, Failure, Result};
use crate::output::println;

/// The arguments with the subcommand in its place where the binary is called `kube-apiserver`,
/// as by test set-ups that look for one of that name. There, and after `gantry apiserver`, klog's
/// `-v=2` is read as `--v=2`.
pub fn as_kube_apiserver(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.collect();
    let called = args
        .first()
        .and_then(|a| Path::new(a).file_name())
        .is_some_and(|name| name == "kube-apiserver");
    if called {
        args.insert(1, "apiserver".into());
    }
    if args.get(1).is_some_and(|a| a == "apiserver") {
        for arg in &mut args[2..] {
            if let Some(level) = arg.to_str().and_then(|a| a.strip_prefix("-v=")) {
                *arg = format!("--v={level}").into();
            }
        }
    }
    args
}

pub async fn run(args: ApiServer) -> Result<()> {
    if args.version.as_deref() == Some("true") {
        return println(format!(
            "Kubernetes {}",
            Config::default().version.git_version
        ));
    }
    for line in args.unused.notes() {
        eprintln!("{line}");
    }
    for line in args.notes() {
        eprintln!("{line}");
    }
    let mut config = args.config()?;
    let address = config.address;
    let mut options = args.history.options();
    let (encryption, file) = args.encryption()?;
    let encryption = Arc::new(encryption);
    config.reload.encryption = file.map(|file| (file, encryption.clone()));
    options.keeper = Some(encryption);
    let store = match &args.data_dir {
        None => Store::in_memory(options),
        Some(folder) => {
            let folder = folder.join("store");
            tokio::task::spawn_blocking(move || Store::open(&folder, options))
                .await
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
                .map_err(|e| not_opened(&e))?
        }
    };
    let end = ended();
    tokio::pin!(end);
    let server = tokio::select! {
        started = Server::start(config, store.clone()) => started.map_err(|e| not_started(e, address))?,
        signal = &mut end => return signal,
    };
    println(format!(
        "Serving on https://{}",
        reachable(server.address())
    ))?;
    let signal = end.await;
    server.shutdown().await;
    store.close().await;
    signal
}

/// Where to reach a server that listens on this address from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port())
        }
        IpAddr::V6(ip) if ip.is_unspecified() => {
            SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), address.port())
        }
        _ => address,
    }
}

pub fn not_opened(error: &OpenError) -> Failure {
    let exit = match error {
        OpenError::InUse { .. } => Exit::DataInUse,
        OpenError::Unwritable { .. } => Exit::DataUnwritable,
        OpenError::Newer { .. } => Exit::DataNewer,
        OpenError::Corrupt { .. } => Exit::DataDamaged,
        _ => Exit::Failure,
    };
    let mut message = format!("could not open the store of --data-dir: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        message.push_str(&format!(": {source}"));
        cause = source.source();
    }
    Failure::new(exit, message)
}

fn not_started(error: StartError, address: SocketAddr) -> Failure {
    if let StartError::Listen { source, .. } = &error
        && source.kind() == std::io::ErrorKind::AddrInUse
    {
        return Failure::new(
            Exit::PortBusy,
            format!("the address {address} is taken by another program"),
        )
        .hint("choose another port with --secure-port; 0 takes a free one");
    }
    let error = anyhow::Error::from(error).context("could not start the API server");
    Failure::new(Exit::Failure, format!("{error:#}"))
}

impl ApiServer {
    /// What the flags say of the server; what they ask for in vain is an error that names the flag.
    fn config(&self) -> Result<Config> {
        let (authorization, authorizers_file) = self.authorization.config()?;
        let (mut authentication, issuers_file) = self.authentication.config()?;
        if authorization.contains(&Authorization::AlwaysAllow) {
            // As kube-apiserver does: everybody is not to be nobody in particular.
            authentication.anonymous = Anonymous::Never;
        }
        let proxy = (&self.proxy_client_cert_file, &self.proxy_client_key_file);
        let proxy_client = match proxy {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            _ => {
                return Err(Failure::usage(
                    "--proxy-client-cert-file and --proxy-client-key-file go together",
                ));
            }
        };
        let serving_certificate = match (&self.tls_cert_file, &self.tls_private_key_file) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            _ => {
                return Err(Failure::usage(
                    "--tls-cert-file and --tls-private-key-file go together",
                ));
            }
        };
        Ok(Config {
            address: SocketAddr::new(self.bind_address, self.secure_port),
            advertise: self.advertise_address,
            cert_dir: self
                .cert_dir
                .clone()
                .or_else(|| self.data_dir.as_ref().map(|d| d.join("pki"))),
            serving_certificate,
            tls_least: self.tls_min_version,
            tls_ciphers: TlsCiphers::parse(&self.tls_cipher_suites.join(","))
                .map_err(|why| Failure::usage(format!("--tls-cipher-suites: {why}")))?,
            authentication,
            audit: self.audit.config()?,
            kubelet: self.kubelets()?,
            browsers: Browsers::new(
                &self.cors_allowed_origins,
                &self.strict_transport_security_directives,
            )
            .map_err(Failure::usage)?,
            reload: Reload {
                authentication: issuers_file,
                authorization: authorizers_file,
                ..Reload::default()
            },
            proxy_client,
            authorization,
            service_cidr: self.service_cluster_ip_range.ipv4,
            node_ports: self.service_node_port_range,
            allow_privileged: self.allow_privileged,
            disabled_admission: self.disabled_admission()?,
            enabled_admission: self.enable_admission_plugins.clone(),
            admission: self.admission()?,
            seats: self.seats()?,
            event_ttl: self.event_ttl,
            list_age: self.history.options().history_age,
            version: self.reported()?,
            runtime: RuntimeConfig::parse(&self.runtime_config.join(","))
                .map_err(|why| Failure::usage(format!("--runtime-config: {why}")))?,
            ..Config::default()
        })
    }

    /// The version that the server says it is of.
    fn reported(&self) -> Result<Version> {
        let mut version = Config::default().version;
        let core = version.git_version.split(['-', '+']).next().unwrap_or("");
        match self.version.as_deref() {
            None | Some("false") => {}
            Some(given) => {
                let end = given.strip_prefix(core);
                if !end.is_some_and(|end| end.is_empty() || end.starts_with(['-', '+'])) {
                    return Err(Failure::usage(format!(
                        "--version={given}: it must begin with {core}, and go on with - or +"
                    )));
                }
                version.git_version = given.to_owned();
            }
        }
        Ok(version)
    }

    /// What is encrypted, and the file that says so where it is to be followed. Without a file nothing is
    /// encrypted, and what is encrypted is said to be.
    fn encryption(&self) -> Result<(Encryption, Option<ConfigFile>)> {
        let flag = "--encryption-provider-config";
        let follow = self.encryption_provider_config_automatic_reload;
        let Some(path) = &self.encryption_provider_config else {
            if follow {
                return Err(Failure::usage(
                    "--encryption-provider-config-automatic-reload must be set with --encryption-provider-config",
                ));
            }
            return Ok((Encryption::default(), None));
        };
        let text = std::fs::read_to_string(path).map_err(|e| {
            Failure::new(
                Exit::Failure,
                format!("{flag}: cannot read {}: {e}", path.display()),
            )
        })?;
        let encryption = parse_encryption_config(&text)
            .map_err(|why| Failure::usage(format!("{flag}: {}: {why}", path.display())))?;
        let file = follow.then(|| ConfigFile::new(path, &text));
        Ok((encryption, file))
    }

    fn kubelets(&self) -> Result<Kubelets> {
        let pair = (&self.kubelet_client_certificate, &self.kubelet_client_key);
        Ok(Kubelets {
            client_certificate: match pair {
                (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
                (None, None) => None,
                _ => {
                    return Err(Failure::usage(
                        "--kubelet-client-certificate and --kubelet-client-key go together",
                    ));
                }
            },
            certificate_authority: self.kubelet_certificate_authority.clone(),
            address_types: self.kubelet_preferred_address_types.clone(),
        })
    }

    fn admission(&self) -> Result<PluginSettings> {
        const LIMITS: &str = "EventRateLimit";
        let mut settings = self.plugin_settings()?;
        settings.toleration_seconds = (
            self.default_not_ready_toleration_seconds,
            self.default_unreachable_toleration_seconds,
        );
        let limits = self.enable_admission_plugins.iter().any(|p| p == LIMITS);
        if limits && settings.event_limits.is_empty() {
            return Err(Failure::usage(format!(
                "--enable-admission-plugins: {LIMITS} needs its limits in --admission-control-config-file"
            )));
        }
        Ok(settings)
    }

    fn plugin_settings(&self) -> Result<PluginSettings> {
        const FLAG: &str = "--admission-control-config-file";
        let Some(path) = &self.admission_control_config_file else {
            return Ok(PluginSettings::default());
        };
        let text = std::fs::read_to_string(path).map_err(|e| {
            Failure::new(
                Exit::Failure,
                format!("{FLAG}: cannot read {}: {e}", path.display()),
            )
        })?;
        // A plugin's file is looked for beside the one that names it.
        let folder = path.parent().unwrap_or(Path::new(""));
        let file = |name: &str| std::fs::read_to_string(folder.join(name));
        parse_admission_config(&text, file)
            .map_err(|why| Failure::usage(format!("{FLAG}: {}: {why}", path.display())))
    }

    /// What kube-apiserver divides among its priority levels.
    fn seats(&self) -> Result<u32> {
        let seats = self
            .max_requests_inflight
            .saturating_add(self.max_mutating_requests_inflight);
        match seats {
            0 => Err(Failure::usage(
                "--max-requests-inflight and --max-mutating-requests-inflight must not both be 0",
            )),
            seats => Ok(seats),
        }
    }

    fn disabled_admission(&self) -> Result<Vec<String>> {
        use gantry_apiserver::AdmissionOffer::Absent;
        let known = |flag: &str, name: &String| {
            gantry_apiserver::admission_plugin(name).ok_or_else(|| {
                Failure::usage(format!(
                    "{flag}: Kubernetes has no admission plugin {name:?}"
                ))
            })
        };
        for name in &self.enable_admission_plugins {
            if let Absent(why) = known("--enable-admission-plugins", name)? {
                return Err(Failure::usage(format!(
                    "--enable-admission-plugins: {name} is not offered: {why}"
                )));
            }
            if self.disable_admission_plugins.contains(name) {
                return Err(Failure::usage(format!(
                    "{name} is in both --enable-admission-plugins and --disable-admission-plugins"
                )));
            }
        }
        for name in &self.disable_admission_plugins {
            known("--disable-admission-plugins", name)?;
        }
        Ok(self.disable_admission_plugins.clone())
    }

    /// What is worth saying about flags that are used.
    fn notes(&self) -> Vec<String> {
        let mut notes = vec![];
        notes.extend(self.audit.notes());
        if self.data_dir.is_none() {
            notes.push(
                "objects are kept in memory: give --data-dir to keep them on disk".to_owned(),
            );
        }
        if let Some(second) = &self.service_cluster_ip_range.unused {
            notes.push(format!(
                "--service-cluster-ip-range: the second range {second} is not used"
            ));
        }
        if self.feature_gates.iter().any(|gate| !gate.is_empty()) {
            notes.push(format!(
                "--feature-gates {} is not used: what Kubernetes 1.36 has on by default is on",
                self.feature_gates.join(",")
            ));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(given: &[&str]) -> Vec<String> {
        as_kube_apiserver(given.iter().map(OsString::from))
            .into_iter()
            .map(|a| a.into_string().expect("UTF-8"))
            .collect()
    }

    #[test]
    fn the_version_that_is_served_begins_with_ours() {
        use clap::Parser;

        use crate::cli::{Cli, Command};

        let reported = |args: &[&str]| {
            let all = ["gantry", "apiserver"].iter().chain(args);
            let Command::Apiserver(args) = Cli::parse_from(all).command else {
                unreachable!("the command is given");
            };
            let version = args.config().map_err(|e| e.to_string())?.version;
            Ok::<String, String>(version.git_version)
        };
        let own = Config::default().version.git_version;
        assert_eq!(reported(&[]), Ok(own.clone()));
        let longer = format!("{own}-custom");
        assert_eq!(reported(&[&format!("--version={longer}")]), Ok(longer));
        assert_eq!(reported(&["--version=v1.36.0-x"]), Ok("v1.36.0-x".into()));
        for wrong in ["v1.35.0", "v1.36.01", "raw"] {
            let said = reported(&[&format!("--version={wrong}")]).expect_err("refused");
            assert!(said.contains("v1.36.0"), "{said}");
        }
    }

    #[test]
    fn the_binary_answers_to_the_name_of_the_server() {
        assert_eq!(
            args(&["/x/kube-apiserver", "--secure-port=1", "-v=2"]),
            ["/x/kube-apiserver", "apiserver", "--secure-port=1", "--v=2"]
        );
        assert_eq!(args(&["gantry", "up", "-v"]), ["gantry", "up", "-v"]);
        assert_eq!(
            args(&["gantry", "apiserver", "-v=4"]),
            ["gantry", "apiserver", "--v=4"]
        );
    }
}
