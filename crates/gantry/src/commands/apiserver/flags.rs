//! The flags that are used, under kube-apiserver's names.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};
use gantry_apiserver::TlsVersion;

use super::audit::AuditFlags;
use super::authentication::AuthenticationFlags;
use super::authorization::AuthorizationFlags;
use super::unused::Unused;
use crate::commands::history::History;

use super::values::{self, ServiceRange};

/// Run a Kubernetes API server alone: no controllers, no scheduler, no nodes.
///
/// It takes kube-apiserver's flags and can stand where kube-apiserver stands, as in test set-ups: a
/// link to this binary under the name kube-apiserver runs this command. Its store is its own: flags
/// about etcd are accepted and said to be unused on standard error, as are flags about what is not
/// offered. A flag that kube-apiserver does not have is refused.
#[derive(Debug, Args)]
#[command(args_override_self = true, disable_version_flag = true)]
pub struct ApiServer {
    /// Print Kubernetes' version and end; with a value that begins with this version, such as
    /// v1.36.0-mine, serve under that
    #[arg(short = 'V', long, value_name = "VERSION", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub version: Option<String>,

    /// Where objects are kept between runs; in memory where it is not given. Gantry's own flag
    #[arg(
        long,
        value_name = "FOLDER",
        env = "GANTRY_DATA_DIR",
        hide_env_values = true
    )]
    pub data_dir: Option<PathBuf>,

    /// The port to serve HTTPS on; 0 takes a free one, which standard output tells
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 6443,
        help_heading = "Serving"
    )]
    pub secure_port: u16,
    /// The address to listen on; 0.0.0.0 and :: are all interfaces
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED), help_heading = "Serving")]
    pub bind_address: IpAddr,
    /// The address that members of the cluster reach the server at
    #[arg(long, value_name = "IP", help_heading = "Serving")]
    pub advertise_address: Option<IpAddr>,
    /// Folder of apiserver.crt and apiserver.key, made there with an authority where they are
    /// missing [default: pki in --data-dir, else in memory]
    #[arg(long, value_name = "FOLDER", help_heading = "Serving")]
    pub cert_dir: Option<PathBuf>,
    /// Serving certificate with its chain, PEM
    #[arg(long, value_name = "FILE", help_heading = "Serving")]
    pub tls_cert_file: Option<PathBuf>,
    /// Private key of the serving certificate, PEM
    #[arg(long, value_name = "FILE", help_heading = "Serving")]
    pub tls_private_key_file: Option<PathBuf>,

    /// The oldest version of TLS that clients may speak: VersionTLS12 or VersionTLS13
    #[arg(long, value_name = "VERSION", default_value = "VersionTLS12", value_parser = values::tls_version, help_heading = "Serving")]
    pub tls_min_version: TlsVersion,
    /// Cipher suites of TLS 1.2 that connections may use [default: all that are offered]
    #[arg(long, value_name = "NAMES", action = ArgAction::Append, help_heading = "Serving")]
    pub tls_cipher_suites: Vec<String>,

    #[command(flatten)]
    pub authentication: AuthenticationFlags,

    #[command(flatten)]
    pub audit: AuditFlags,

    /// Certificate by which kubelets know the server, PEM [default: one that the authority of
    /// --cert-dir signs, where it was made there]
    #[arg(long, value_name = "FILE", help_heading = "Kubelets")]
    pub kubelet_client_certificate: Option<PathBuf>,
    /// Private key of that certificate, PEM
    #[arg(long, value_name = "FILE", help_heading = "Kubelets")]
    pub kubelet_client_key: Option<PathBuf>,
    /// Authorities that kubelets' certificates are verified with, PEM [default: they are not]
    #[arg(long, value_name = "FILE", help_heading = "Kubelets")]
    pub kubelet_certificate_authority: Option<PathBuf>,
    /// Which of a node's addresses is taken: the first of these types that it has
    #[arg(long, value_name = "TYPES", value_delimiter = ',', default_value = "Hostname,InternalDNS,InternalIP,ExternalDNS,ExternalIP", value_parser = ["Hostname", "InternalDNS", "InternalIP", "ExternalDNS", "ExternalIP"], help_heading = "Kubelets")]
    pub kubelet_preferred_address_types: Vec<String>,

    /// Regular expressions for the origins whose pages browsers let read answers (CORS)
    #[arg(long, value_name = "EXPRESSIONS", value_delimiter = ',', action = ArgAction::Append, help_heading = "Serving")]
    pub cors_allowed_origins: Vec<String>,
    /// Directives of the header that has browsers come over TLS only: max-age=SECONDS,
    /// includeSubDomains, preload
    #[arg(long, value_name = "DIRECTIVES", value_delimiter = ',', action = ArgAction::Append, help_heading = "Serving")]
    pub strict_transport_security_directives: Vec<String>,
    /// How long pods stay on a node that is not ready, where they say nothing [default: 300]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(0..), help_heading = "Authorization and admission")]
    pub default_not_ready_toleration_seconds: Option<i64>,
    /// How long pods stay on a node that cannot be reached, where they say nothing [default: 300]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(i64).range(0..), help_heading = "Authorization and admission")]
    pub default_unreachable_toleration_seconds: Option<i64>,

    /// Certificate by which extension API servers know the server, PEM [default: one of an authority
    /// of its own]
    #[arg(long, value_name = "FILE", help_heading = "Extension API servers")]
    pub proxy_client_cert_file: Option<PathBuf>,
    /// Private key of that certificate, PEM
    #[arg(long, value_name = "FILE", help_heading = "Extension API servers")]
    pub proxy_client_key_file: Option<PathBuf>,

    #[command(flatten)]
    pub authorization: AuthorizationFlags,

    /// Admission plugins to use beside those that work by default
    #[arg(long, value_name = "NAMES", value_delimiter = ',', action = ArgAction::Append, help_heading = "Authorization and admission")]
    pub enable_admission_plugins: Vec<String>,
    /// Admission plugins to leave out
    #[arg(long, value_name = "NAMES", value_delimiter = ',', action = ArgAction::Append, help_heading = "Authorization and admission")]
    pub disable_admission_plugins: Vec<String>,
    /// An AdmissionConfiguration: defaults and exemptions of PodSecurity
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Authorization and admission"
    )]
    pub admission_control_config_file: Option<PathBuf>,
    /// Let containers be privileged
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_parser = values::boolean, help_heading = "Authorization and admission")]
    pub allow_privileged: bool,

    /// The range that Services get their addresses from
    #[arg(long, value_name = "CIDR", default_value = "10.0.0.0/24", value_parser = values::service_range, help_heading = "Cluster")]
    pub service_cluster_ip_range: ServiceRange,
    /// The range of node ports, both ends included
    #[arg(long, value_name = "A-B", default_value = "30000-32767", value_parser = values::port_range, help_heading = "Cluster")]
    pub service_node_port_range: (u16, u16),
    /// Reads that are worked on at a time; with --max-mutating-requests-inflight the seats that
    /// priority levels share
    #[arg(
        long,
        value_name = "N",
        default_value_t = 400,
        help_heading = "Cluster"
    )]
    pub max_requests_inflight: u32,
    /// Writes that are worked on at a time
    #[arg(
        long,
        value_name = "N",
        default_value_t = 200,
        help_heading = "Cluster"
    )]
    pub max_mutating_requests_inflight: u32,
    /// How long events are kept
    #[arg(long, value_name = "DURATION", default_value = "1h0m0s", value_parser = values::duration, help_heading = "Cluster")]
    pub event_ttl: Duration,
    /// What of the API is switched on or off: api/beta, GROUP/VERSION or GROUP/VERSION/RESOURCE
    #[arg(long, value_name = "NAME=BOOL", action = ArgAction::Append, help_heading = "Cluster")]
    pub runtime_config: Vec<String>,
    /// Features to switch; accepted and logged, none can be switched
    #[arg(long, value_name = "NAME=BOOL", value_delimiter = ',', action = ArgAction::Append, help_heading = "Cluster")]
    pub feature_gates: Vec<String>,

    /// An EncryptionConfiguration: what of the objects in --data-dir and in snapshots is encrypted, and
    /// with which keys
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Read --encryption-provider-config again when it changes
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_parser = values::boolean, help_heading = "Cluster")]
    pub encryption_provider_config_automatic_reload: bool,

    #[command(flatten)]
    pub history: History,

    #[command(flatten)]
    pub unused: Unused,
}
